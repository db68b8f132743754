//! Requests with idempotency keys that wait for the log's decision about their events.
//!
//! Such a request is answered when both are known: that the engine has stored the entry, and what
//! the log says of the key when the entry comes back. Either may come first.

use super::keys::KeyDecision;
use super::queue::ChannelKey;
use super::states::Origin;
use std::collections::HashMap;

/// The channel of an entry, and the origins of its events with keys, with the decisions about the
/// events; `None` if there is none.
pub(super) type Decided = (ChannelKey, Vec<(Origin, Option<KeyDecision>)>);

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct AwaitedKeys {
    /// By the numbers of this node's entries.
    entries: HashMap<u64, AwaitedEntry>,
}

#[derive(Debug)]
enum AwaitedEntry {
    /// The entry is stored, and was not read yet.
    Stored(ChannelKey, Vec<Origin>),
    /// The entry was read, and the engine has not answered yet.
    Decided(Vec<KeyDecision>),
}

impl AwaitedKeys {
    /// Whether no request waits.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Notes that an entry is stored, and the origins of its events with keys. Returns the origins
    /// if the log has decided.
    pub(super) fn stored(
        &mut self,
        number: u64,
        channel: ChannelKey,
        origins: Vec<Origin>,
    ) -> Option<Decided> {
        match self.entries.remove(&number) {
            Some(AwaitedEntry::Decided(decisions)) => Some(decided(channel, origins, decisions)),
            _ => {
                self.entries.insert(number, AwaitedEntry::Stored(channel, origins));
                None
            }
        }
    }

    /// Notes what the log says of the events with keys of an entry of this node. Returns the
    /// origins of the events if the entry is known to be stored; `is_under_way` says that the
    /// engine may still answer.
    pub(super) fn decided(
        &mut self,
        number: u64,
        decisions: Vec<KeyDecision>,
        is_under_way: bool,
    ) -> Option<Decided> {
        match self.entries.remove(&number) {
            Some(AwaitedEntry::Stored(channel, origins)) => {
                Some(decided(channel, origins, decisions))
            }
            _ => {
                if is_under_way {
                    self.entries.insert(number, AwaitedEntry::Decided(decisions));
                }
                None
            }
        }
    }

    /// Returns the requests that have waited too long, and forgets decisions about entries that are
    /// not under way any more.
    pub(super) fn tick(
        &mut self,
        now_ms: u64,
        is_under_way: impl Fn(u64) -> bool,
    ) -> Vec<(ChannelKey, Origin)> {
        let mut overdue = Vec::new();
        self.entries.retain(|number, entry| match entry {
            AwaitedEntry::Stored(channel, origins) => {
                let is_over = |it: &Origin| it.key_until_ms.is_none_or(|until| until <= now_ms);
                let is_over = origins.iter().any(is_over);
                if is_over {
                    overdue.extend(origins.drain(..).map(|origin| (channel.clone(), origin)));
                }
                !is_over
            }
            AwaitedEntry::Decided(_) => is_under_way(*number),
        });
        overdue
    }
}

fn decided(channel: ChannelKey, origins: Vec<Origin>, decisions: Vec<KeyDecision>) -> Decided {
    let decisions = decisions.into_iter().map(Some).chain(std::iter::repeat(None));
    (channel, origins.into_iter().zip(decisions).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DECISIONS: [KeyDecision; 2] = [KeyDecision::Publish, KeyDecision::Repeated];

    fn channel() -> ChannelKey {
        (0, "a".into())
    }

    fn origins(until_ms: u64, count: usize) -> Vec<Origin> {
        vec![Origin { key_until_ms: Some(until_ms), ..Origin::default() }; count]
    }

    fn decisions(decided: Option<Decided>) -> Option<Vec<Option<KeyDecision>>> {
        Some(decided?.1.into_iter().map(|(_, decision)| decision).collect())
    }

    #[test]
    fn cluster_awaited_keys_need_the_answer_and_the_decision_in_any_order() {
        let both = Some(DECISIONS.map(Some).to_vec());
        let mut awaited = AwaitedKeys::default();
        assert!(awaited.stored(1, channel(), origins(9, 2)).is_none());
        assert_eq!(decisions(awaited.decided(1, DECISIONS.to_vec(), false)), both);
        assert!(awaited.decided(2, DECISIONS.to_vec(), true).is_none());
        assert_eq!(decisions(awaited.stored(2, channel(), origins(9, 2))), both);
        assert!(awaited.is_empty());
        // Nobody waits for it.
        assert!(awaited.decided(3, DECISIONS.to_vec(), false).is_none() && awaited.is_empty());
        // An entry that has fewer keys than this node has sent.
        awaited.stored(4, channel(), origins(9, 2));
        let one = awaited.decided(4, vec![KeyDecision::Used], false);
        assert_eq!(decisions(one), Some(vec![Some(KeyDecision::Used), None]));
    }

    #[test]
    fn cluster_awaited_keys_wait_until_their_time_is_over() {
        let mut awaited = AwaitedKeys::default();
        awaited.stored(1, channel(), [origins(9, 1), origins(10, 1)].concat());
        awaited.stored(2, channel(), origins(10, 1));
        assert_eq!(awaited.tick(8, |_| true).len(), 0);
        assert_eq!(awaited.tick(9, |_| true).len(), 2, "all of an entry");
        assert_eq!(awaited.tick(10, |_| true).len(), 1);
        assert!(awaited.is_empty());
    }

    #[test]
    fn cluster_awaited_keys_forget_decisions_about_entries_that_were_given_up() {
        let mut awaited = AwaitedKeys::default();
        awaited.decided(1, DECISIONS.to_vec(), true);
        assert_eq!(awaited.tick(u64::MAX, |number| number == 1).len(), 0);
        assert!(!awaited.is_empty());
        awaited.tick(0, |_| false);
        assert!(awaited.is_empty());
    }
}
