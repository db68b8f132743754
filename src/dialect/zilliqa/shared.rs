//! The state of this dialect that all cores and the control thread share. Messages of clients
//! change only the count of connections that want logs, and the queue of contract lookups.

use super::address::Address;
use super::epoch::Epoch;
use super::history::EpochHistory;
use super::messages::{ContractReply, ZilliqaMessage};
use super::query::Named;
use crate::dialect::DialectMessage;
use crate::hub::{ConnId, ResumeOutcome};
use crate::mem::Notifier;
use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The application number under which epochs are published. It is reserved: no configured
/// application has it.
pub const APP: u32 = u32::MAX - 1;
/// The channel on which epochs are published. Every connection of this dialect is subscribed to it.
pub const CHANNEL: &str = "epochs";

/// The maximum number of contract lookups that may wait for the control thread.
const QUESTIONS: usize = 1024;

/// See the module's documentation.
#[derive(Default)]
pub struct Shared {
    gate: Mutex<Gate>,
    /// The number of connections that are subscribed to events or transactions.
    watchers: AtomicUsize,
    /// The memory of the history.
    history_bytes: AtomicUsize,
    questions: Mutex<VecDeque<Question>>,
    notifier: Notifier,
}

#[derive(Debug, Default)]
struct Gate {
    last: Option<u64>,
    /// The core whose epochs are being published, which the home core has not ordered yet, and
    /// their number.
    under_way: Option<(u16, u32)>,
    history: EpochHistory,
    /// The number of epochs since the last connection that was subscribed to events or transactions
    /// has left; `None` if there was none.
    unwatched: Option<usize>,
}

/// Why an epoch is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EpochRejected {
    /// This epoch or a later one, whose number is given, was accepted before.
    Late(u64),
    /// Another core is publishing an epoch, which must be ordered first.
    Busy,
}

/// A lookup: which of a client's addresses are contracts. The answer is made by
/// [`Question::answer`].
#[derive(Debug)]
pub struct Question {
    /// The connection that waits for the answer.
    pub conn: ConnId,
    /// The client's query, which is echoed as the reply.
    text: Box<[u8]>,
    named: Vec<Named>,
    after: Option<u64>,
}

impl Question {
    /// A lookup for the addresses `named` in the query `text` of `conn`, which requests the epochs
    /// after the number `after`.
    pub fn new(conn: ConnId, text: &[u8], named: Vec<Named>, after: Option<u64>) -> Question {
        Question { conn, text: text.into(), named, after }
    }

    /// The addresses to look up.
    pub fn addresses(&self) -> impl Iterator<Item = &Address> {
        self.named.iter().map(|(address, _)| address)
    }

    /// The message to the connection with the result: the addresses for which `is_contract` returns
    /// true.
    pub fn answer(self, is_contract: impl Fn(&Address) -> bool) -> DialectMessage {
        let Question { text, mut named, after, .. } = self;
        named.retain(|(address, _)| is_contract(address));
        ZilliqaMessage::Contracts(Arc::new(ContractReply { text, named, after })).into()
    }
}

impl Shared {
    /// Accepts an epoch, which core `core` must publish at once, so that a later epoch cannot
    /// overtake it. The epoch counts as being published until the returned value is dropped.
    ///
    /// # Errors
    /// The number is not above that of the last epoch, or another core is publishing one.
    pub fn admit(
        self: &Arc<Shared>,
        epoch: &Arc<Epoch>,
        core: u16,
    ) -> Result<EpochRange, EpochRejected> {
        let number = epoch.number();
        let mut gate = self.gate();
        if let Some(last) = gate.last.filter(|&last| last >= number) {
            return Err(EpochRejected::Late(last));
        }
        match &mut gate.under_way {
            Some((other, _)) if *other != core => return Err(EpochRejected::Busy),
            Some((_, count)) => *count += 1,
            none => *none = Some((core, 1)),
        }
        self.pass(&mut gate, number, Some(epoch));
        Ok(EpochRange(self.clone()))
    }

    /// Records an epoch that is published in another way, or that an earlier process has published,
    /// in which case only its number is known. Returns false if its number is not above that of the
    /// last one.
    pub fn note(&self, number: u64, epoch: Option<&Arc<Epoch>>) -> bool {
        let mut gate = self.gate();
        let is_new = gate.last.is_none_or(|last| last < number);
        if is_new {
            self.pass(&mut gate, number, epoch);
        }
        is_new
    }

    fn pass(&self, gate: &mut Gate, number: u64, epoch: Option<&Arc<Epoch>>) {
        gate.pass(number);
        if let Some(epoch) = epoch {
            gate.history.push(epoch);
            self.note_bytes(gate);
        }
        if self.watchers.load(Ordering::Relaxed) == 0 {
            gate.unwatched = gate.unwatched.map(|epochs| epochs.saturating_add(1));
        }
    }

    fn note_bytes(&self, gate: &Gate) {
        self.history_bytes.store(gate.history.bytes(), Ordering::Relaxed);
    }

    /// Sets how many of the last epochs are kept for clients that were away, and the maximum of
    /// their bytes.
    pub fn set_history(&self, max: usize, max_bytes: usize) {
        let mut gate = self.gate();
        gate.history.set_limit(max, max_bytes);
        self.note_bytes(&gate);
    }

    /// The estimated memory of the epochs that are kept, in bytes.
    pub fn history_bytes(&self) -> usize {
        self.history_bytes.load(Ordering::Relaxed)
    }

    /// The epochs after number `after`; with their transactions, if `wants_logs`.
    ///
    /// # Errors
    /// Why a client would miss epochs.
    pub(super) fn epochs_after(
        &self,
        after: u64,
        wants_logs: bool,
    ) -> Result<Vec<Arc<Epoch>>, ResumeOutcome> {
        let gate = self.gate();
        gate.history.after(after, gate.last, wants_logs)
    }

    /// The number of the last epoch.
    pub fn last(&self) -> Option<u64> {
        self.gate().last
    }

    /// Whether any connection is subscribed to events or transactions, or was within the number of
    /// epochs that are kept, so that it can continue when it comes back.
    pub fn wants_logs(&self) -> bool {
        let is_recent = |gate: &Gate| gate.unwatched.is_some_and(|it| it < gate.history.max());
        self.watchers.load(Ordering::Relaxed) > 0 || is_recent(&self.gate())
    }

    pub(super) fn watch(&self) {
        self.watchers.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn unwatch(&self) {
        if self.watchers.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.gate().unwatched = Some(0);
        }
    }

    /// The notifier that is called when a lookup is queued. Before a function is attached, all
    /// lookups are refused.
    pub fn notifier(&self) -> &Notifier {
        &self.notifier
    }

    /// Takes all queued lookups. Each must be answered.
    pub fn questions(&self) -> VecDeque<Question> {
        std::mem::take(&mut *self.lock_questions())
    }

    /// Queues a lookup. Returns false if no function is attached to the notifier or the queue is
    /// full.
    pub(super) fn enqueue(&self, question: Question) -> bool {
        if !self.notifier.is_attached() {
            return false;
        }
        let mut questions = self.lock_questions();
        if questions.len() >= QUESTIONS {
            return false;
        }
        questions.push_back(question);
        drop(questions);
        self.notifier.notify();
        true
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_questions(&self) -> MutexGuard<'_, VecDeque<Question>> {
        self.questions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("last", &self.last()).finish_non_exhaustive()
    }
}

impl Gate {
    fn pass(&mut self, number: u64) {
        if let Some(last) = self.last
            && number - last > 1
        {
            tracing::warn!(last, number, "epochs are missing");
        }
        self.last = Some(number);
    }
}

/// An epoch that counts as being published until this value is dropped.
#[derive(Debug)]
pub struct EpochRange(Arc<Shared>);

impl Drop for EpochRange {
    fn drop(&mut self) {
        let mut gate = self.0.gate();
        gate.under_way = match gate.under_way.take() {
            Some((core, count)) if count > 1 => Some((core, count - 1)),
            _ => None,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::super::epoch::Strictness;
    use super::*;
    use crate::mem::Slot;

    fn epoch(number: u64) -> Arc<Epoch> {
        let text = format!(r#"{{"TxBlock":{{"header":{{"BlockNum":"{number}"}}}},"TxHashes":[]}}"#);
        Arc::new(Epoch::read(text, Strictness::Refuse).expect("an epoch"))
    }

    #[test]
    fn zilliqa_epochs_pass_once_and_in_order() {
        let shared = Arc::new(Shared::default());
        assert_eq!(shared.last(), None);
        assert!(shared.admit(&epoch(0), 0).is_ok());
        assert_eq!(shared.admit(&epoch(0), 0).err(), Some(EpochRejected::Late(0)));
        assert!(shared.admit(&epoch(5), 0).is_ok(), "a gap is allowed");
        assert_eq!(shared.admit(&epoch(4), 0).err(), Some(EpochRejected::Late(5)));
        assert!(!shared.note(5, None));
        assert!(shared.note(6, None));
        assert_eq!(shared.last(), Some(6));
    }

    #[test]
    fn zilliqa_epochs_are_kept_whoever_publishes_them() {
        let shared = Arc::new(Shared::default());
        shared.set_history(2, 1 << 20);
        assert!(shared.note(1, None), "of an earlier process");
        assert_eq!(shared.epochs_after(0, false).err(), Some(ResumeOutcome::Expired));
        assert_eq!(shared.epochs_after(1, false).map(|it| it.len()), Ok(0));
        assert!(shared.admit(&epoch(2), 0).is_ok() && shared.note(3, Some(&epoch(3))));
        assert_eq!(shared.epochs_after(1, false).map(|it| it.len()), Ok(2));
        assert!(!shared.note(3, Some(&epoch(3))), "it is not kept twice");
        assert_eq!(shared.history_bytes(), 2 * epoch(3).memory());
        shared.set_history(1, 1 << 20);
        assert_eq!(shared.history_bytes(), epoch(3).memory());
    }

    #[test]
    fn zilliqa_transactions_are_wanted_for_as_many_epochs_as_are_kept() {
        let shared = Arc::new(Shared::default());
        shared.set_history(2, 1 << 20);
        assert!(!shared.wants_logs(), "nobody has ever wanted them");
        shared.watch();
        shared.note(1, Some(&epoch(1)));
        shared.unwatch();
        for number in [2, 3] {
            assert!(shared.wants_logs(), "before epoch {number}");
            shared.note(number, Some(&epoch(number)));
        }
        assert!(!shared.wants_logs());
        shared.watch();
        shared.unwatch();
        assert!(shared.wants_logs(), "the number begins again");
        shared.set_history(0, 0);
        assert!(!shared.wants_logs());
    }

    #[test]
    fn zilliqa_one_core_at_a_time_publishes_epochs() {
        let shared = Arc::new(Shared::default());
        let one = shared.admit(&epoch(1), 3);
        let two = shared.admit(&epoch(2), 3);
        assert_eq!(shared.admit(&epoch(3), 1).err(), Some(EpochRejected::Busy));
        drop(one);
        assert_eq!(shared.admit(&epoch(3), 1).err(), Some(EpochRejected::Busy));
        drop(two);
        assert_eq!(shared.last(), Some(2), "who had to wait has left no trace");
        assert!(shared.admit(&epoch(3), 1).is_ok());
    }

    #[test]
    fn zilliqa_lookups_are_bounded() {
        let shared = Shared::default();
        let conn = ConnId { core: 0, slot: Slot { index: 0, generation: 0 } };
        let enqueue =
            || shared.enqueue(Question::new(conn, b"x", vec![([1; 20], 0), ([2; 20], 0)], Some(7)));
        assert!(!enqueue());
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        shared.notifier().attach(move || {
            counted.fetch_add(1, Ordering::Relaxed);
        });
        assert!((0..QUESTIONS).all(|_| enqueue()));
        assert!(!enqueue());
        assert_eq!(count.load(Ordering::Relaxed), QUESTIONS);
        let mut questions = shared.questions();
        assert_eq!(questions.len(), QUESTIONS);
        let question = questions.pop_front().expect("a question");
        assert_eq!(question.addresses().count(), 2);
        let message = question.answer(|address| *address == [2; 20]);
        let DialectMessage::Zilliqa(ZilliqaMessage::Contracts(reply)) = message else {
            panic!("{message:?}");
        };
        assert_eq!((&*reply.named, reply.after), (&[([2; 20], 0)][..], Some(7)));
        assert!(enqueue(), "there is room again");
    }
}
