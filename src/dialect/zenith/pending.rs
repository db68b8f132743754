//! The calls that one back end has not answered, and the share of each client in them.
//!
//! A back end is not closed because clients call it too often: a call that exceeds a limit fails
//! with an error that goes to its client only. A client may use up to twice what it leaves free,
//! and an eighth of the write queue is reserved for clients that have almost nothing waiting in it.

use super::messages::{Call, CallOutcome, ZenithMessage};
use super::peer::ZenithPeer;
use super::peers::to_peer_in_order;
use super::wire;
use crate::dialect::{DialectContext, Effect};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

/// The maximum number of unanswered calls of one back end.
const PENDING_CALLS_MAX: usize = 65_536;

/// The reserved part of the write queue, as a divisor: an eighth is for clients that have almost
/// nothing waiting in it.
const RESERVE: usize = 8;
/// The part of the write queue that counts as almost nothing, as a divisor: by default 4 KiB of 3
/// MiB.
const SMALL: usize = 768;

/// The unanswered calls of one back end; see the module's documentation.
#[derive(Default)]
pub(super) struct PendingCalls {
    /// The calls by the TransactionID that the back end has got.
    by_number: BTreeMap<i64, PendingCall>,
    by_client: HashMap<ZenithPeer, ClientShare>,
    last: i64,
    /// The client and the frame bytes of each call that waits in the write queue, in order.
    unwritten: VecDeque<(ZenithPeer, usize)>,
    unwritten_bytes: usize,
}

/// The share of one client.
#[derive(Default)]
struct ClientShare {
    /// The TransactionIDs of the client's calls at the back end, by the client connection's call
    /// numbers.
    numbers: HashMap<u32, i64>,
    unwritten_bytes: usize,
}

impl ClientShare {
    fn is_empty(&self) -> bool {
        self.numbers.is_empty() && self.unwritten_bytes == 0
    }
}

/// One unanswered call.
pub(super) struct PendingCall {
    from: ZenithPeer,
    call: u32,
    pub(super) controller: Box<str>,
    topic: Box<str>,
}

impl PendingCall {
    pub(super) fn of(call: &Call) -> PendingCall {
        PendingCall {
            from: call.from,
            call: call.call,
            controller: call.controller.clone(),
            topic: call.topic.clone(),
        }
    }

    /// The effect that delivers the answer, in the order of the topic: after data that was
    /// published before, and before data that is published later.
    pub(super) fn answer(&self, outcome: CallOutcome, is_clustered: bool) -> Effect {
        let what = ZenithMessage::Answer { call: self.call, outcome };
        let name = wire::channel(&self.controller, &self.topic);
        to_peer_in_order(name, self.from, Arc::new(what), is_clustered)
    }

    /// The effect that fails the call, because the back end has closed.
    pub(super) fn unavailable(&self, is_clustered: bool) -> Effect {
        self.answer(CallOutcome::failed(&wire::unavailable(&self.controller)), is_clustered)
    }
}

/// Whether a client that uses `own` of a limit, of which `free` is left, is within its share.
fn is_fair(own: usize, free: usize) -> bool {
    own <= 2 * free
}

impl PendingCalls {
    /// Whether client `from` may make a call with a frame of `bytes`. The back end's write queue
    /// has `waiting` bytes and a limit of `bound`.
    pub(super) fn has_room(
        &mut self,
        from: ZenithPeer,
        bytes: usize,
        waiting: usize,
        bound: usize,
    ) -> bool {
        self.note_written(waiting);
        let share = self.by_client.get(&from);
        let (calls, unwritten) =
            share.map_or((0, 0), |share| (share.numbers.len(), share.unwritten_bytes));
        let waiting = waiting.max(self.unwritten_bytes);
        let free_calls = PENDING_CALLS_MAX.checked_sub(self.by_number.len() + 1);
        if waiting + bytes > bound || free_calls.is_none_or(|free| !is_fair(calls + 1, free)) {
            return false;
        }
        // If the write queue is empty, any call that fits its limit is accepted.
        let is_little = waiting == 0 || unwritten + bytes <= bound / SMALL;
        let free = (bound - bound / RESERVE).checked_sub(waiting + bytes);
        is_little || free.is_some_and(|free| is_fair(unwritten + bytes, free))
    }

    /// Removes from `unwritten` the calls whose frames have left the write queue, the oldest first.
    fn note_written(&mut self, waiting: usize) {
        while let Some(&(from, bytes)) = self.unwritten.front()
            && self.unwritten_bytes - bytes >= waiting
        {
            self.unwritten.pop_front();
            self.unwritten_bytes -= bytes;
            if let Some(share) = self.by_client.get_mut(&from) {
                share.unwritten_bytes -= bytes;
                if share.is_empty() {
                    self.by_client.remove(&from);
                }
            }
        }
    }

    /// The TransactionID of the next call.
    pub(super) fn next_number(&self) -> i64 {
        self.last + 1
    }

    /// Adds the next call, whose frame has `bytes`.
    pub(super) fn insert(&mut self, call: PendingCall, bytes: usize) {
        self.last += 1;
        let share = self.by_client.entry(call.from).or_default();
        share.numbers.insert(call.call, self.last);
        share.unwritten_bytes += bytes;
        self.unwritten.push_back((call.from, bytes));
        self.unwritten_bytes += bytes;
        self.by_number.insert(self.last, call);
    }

    /// Removes the call with this TransactionID.
    pub(super) fn remove(&mut self, number: i64) -> Option<PendingCall> {
        let call = self.by_number.remove(&number)?;
        if let Some(share) = self.by_client.get_mut(&call.from) {
            share.numbers.remove(&call.call);
            if share.is_empty() {
                self.by_client.remove(&call.from);
            }
        }
        Some(call)
    }

    /// Removes a client's call, and returns it with its TransactionID.
    pub(super) fn forget(&mut self, from: ZenithPeer, call: u32) -> Option<(i64, PendingCall)> {
        let number = *self.by_client.get(&from)?.numbers.get(&call)?;
        Some((number, self.remove(number)?))
    }

    /// Removes all calls, in the order in which they were made.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = PendingCall> + use<> {
        std::mem::take(self).by_number.into_values()
    }
}

/// Counts an answer to a call that is no longer pending.
pub(super) fn note_late_answer(context: &DialectContext<'_>) {
    if let Some(counters) = context.env.runtime.counters.get(usize::from(context.conn.core)) {
        counters.backend_answers_late.add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::ConnId;
    use crate::mem::Slot;

    fn conn(index: u32) -> ZenithPeer {
        ConnId { core: 0, slot: Slot { index, generation: 1 } }.into()
    }

    fn call(from: u32, call: u32) -> PendingCall {
        let (controller, topic) = ("M".into(), "Q".into());
        PendingCall { from: conn(from), call, controller, topic }
    }

    const BOUND: usize = 768_000;

    /// Adds calls while there is room; returns their number and the waiting bytes.
    fn fill(
        calls: &mut PendingCalls,
        from: u32,
        bytes: usize,
        mut waiting: usize,
    ) -> (usize, usize) {
        let mut count = 0;
        while calls.has_room(conn(from), bytes, waiting, BOUND) {
            calls.insert(call(from, count as u32), bytes);
            (count, waiting) = (count + 1, waiting + bytes);
        }
        (count, waiting)
    }

    #[test]
    fn backend_share_leaves_room_for_the_next_client() {
        let mut calls = PendingCalls::default();
        let (count, mut waiting) = fill(&mut calls, 1, 10_000, 0);
        assert_eq!(count, 44, "twice what is left of seven eighths");
        for from in 2..50 {
            (_, waiting) = fill(&mut calls, from, 10_000, waiting);
        }
        assert!(waiting <= BOUND / 8 * 7 && !calls.has_room(conn(1), 10_000, waiting, BOUND));
        assert!(calls.has_room(conn(100), 1000, waiting, BOUND));
        assert!(!calls.has_room(conn(100), BOUND / 8 * 7 + 1 - waiting, waiting, BOUND));
        // Written calls free their room.
        let (count, _) = fill(&mut calls, 1, 10_000, 0);
        assert_eq!(count, 44);
    }

    #[test]
    fn backend_share_takes_one_question_of_any_size_up_to_the_bound() {
        let mut calls = PendingCalls::default();
        assert!(calls.has_room(conn(1), BOUND, 0, BOUND));
        assert!(!calls.has_room(conn(1), BOUND + 1, 0, BOUND));
        calls.insert(call(1, 1), BOUND);
        assert!(!calls.has_room(conn(2), 1, BOUND, BOUND));
        assert!(!calls.has_room(conn(2), BOUND, 1, BOUND), "a part of it waits");
        assert!(calls.has_room(conn(2), BOUND, 0, BOUND));
    }

    #[test]
    fn backend_calls_are_bounded_on_both_sides() {
        let mut calls = PendingCalls::default();
        let room = |calls: &mut PendingCalls, from| calls.has_room(conn(from), 1, 0, BOUND);
        let mut count = 0;
        while room(&mut calls, 1) {
            calls.insert(call(1, count), 1);
            count += 1;
        }
        // The rest is half of the client's share.
        assert_eq!(count as usize, PENDING_CALLS_MAX * 2 / 3);
        assert!(room(&mut calls, 2));
        for at in 0..count {
            assert!(calls.forget(conn(1), at).is_some());
        }
        assert!(calls.by_client.is_empty() && calls.by_number.is_empty());
    }

    #[test]
    fn backend_call_is_removed_once_by_any_side() {
        let mut calls = PendingCalls::default();
        calls.insert(call(1, 7), 10);
        calls.insert(call(2, 7), 10);
        assert!(calls.forget(conn(1), 8).is_none() && calls.forget(conn(3), 7).is_none());
        assert_eq!(calls.forget(conn(2), 7).map(|(number, _)| number), Some(2));
        assert!(calls.forget(conn(2), 7).is_none() && calls.remove(2).is_none());
        assert!(calls.remove(1).is_some() && calls.forget(conn(1), 7).is_none());
        calls.note_written(0);
        assert!(calls.by_client.is_empty(), "nothing is kept of a client that has nothing");
    }
}
