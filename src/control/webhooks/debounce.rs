//! Debouncing of leave events (`vacated`, member removed): each is held back for a while, because
//! clients often return at once, for example when a browser loads the next page. If the matching
//! join event arrives in that time, neither of the two is reported.
//!
//! In a cluster the two may be reported by different nodes, which both see both events. The node of
//! the join drops it only if the leave came clearly in time, because the node of the leave may see
//! the join a little later and report the leave by then.

use crate::hub::{ChannelEvent, ChannelEventKind};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// The maximum number of held leave events. One more releases the oldest early.
const MAX_HELD: usize = 64 * 1024;

/// How much earlier a leave that another node holds counts as reported, in milliseconds.
const MARGIN_MS: u64 = 500;

/// The held leave events of one application; see the module's documentation. Time is an argument.
#[derive(Debug)]
pub(super) struct Debounce {
    hold_ms: u64,
    /// Due time in milliseconds, number and key of each held event, oldest first. An entry whose
    /// key and number are not in `leavings` was cancelled.
    due: VecDeque<(u64, u64, Key)>,
    leavings: HashMap<Key, (u64, u64, ChannelEvent)>,
    held: u64,
}

/// Application number, channel and user. No user stands for the channel's last subscriber.
type Key = (u32, Arc<str>, Option<Arc<str>>);

impl Debounce {
    pub(super) fn new(hold_ms: u64) -> Debounce {
        Debounce { hold_ms, due: VecDeque::new(), leavings: HashMap::new(), held: 0 }
    }

    /// Takes a channel event. Returns an event that is to be reported now: this one, or the oldest
    /// held one if too many are held; but none that another node reports.
    pub(super) fn take(
        &mut self,
        channel_event: ChannelEvent,
        now_ms: u64,
    ) -> Option<ChannelEvent> {
        self.debounced(channel_event, now_ms).filter(|it| it.is_ours)
    }

    fn debounced(&mut self, channel_event: ChannelEvent, now_ms: u64) -> Option<ChannelEvent> {
        let key = |user: Option<&Arc<str>>| {
            (channel_event.app, channel_event.channel.clone(), user.cloned())
        };
        match &channel_event.what {
            ChannelEventKind::Vacated => self.debounce(key(None), channel_event, now_ms),
            ChannelEventKind::MemberRemoved(user) => {
                self.debounce(key(Some(user)), channel_event, now_ms)
            }
            ChannelEventKind::Occupied => {
                let is_return = self.is_return(&key(None), now_ms);
                (!is_return).then_some(channel_event)
            }
            ChannelEventKind::MemberAdded(user) => {
                let is_return = self.is_return(&key(Some(user)), now_ms);
                (!is_return).then_some(channel_event)
            }
            ChannelEventKind::CacheMiss
            | ChannelEventKind::Count(_)
            | ChannelEventKind::ClientEvent(_) => Some(channel_event),
        }
    }

    /// Whether a join cancels a leave that is held, which is dropped.
    fn is_return(&mut self, key: &Key, now_ms: u64) -> bool {
        let Some((_, due_ms, leave)) = self.leavings.remove(key) else { return false };
        leave.is_ours || now_ms + MARGIN_MS < due_ms
    }

    fn debounce(
        &mut self,
        key: Key,
        channel_event: ChannelEvent,
        now_ms: u64,
    ) -> Option<ChannelEvent> {
        self.held += 1;
        self.due.push_back((now_ms + self.hold_ms, self.held, key.clone()));
        self.leavings.insert(key, (self.held, now_ms + self.hold_ms, channel_event));
        if self.due.len() > MAX_HELD { self.pop() } else { None }
    }

    /// The next leave event that is due and was not cancelled by a return.
    pub(super) fn next_due(&mut self, now_ms: u64) -> Option<ChannelEvent> {
        while self.due.front().is_some_and(|(due_ms, ..)| *due_ms <= now_ms) {
            if let Some(channel_event) = self.pop().filter(|it| it.is_ours) {
                return Some(channel_event);
            }
        }
        None
    }

    fn pop(&mut self) -> Option<ChannelEvent> {
        let (_, number, key) = self.due.pop_front()?;
        let (held, ..) = self.leavings.get(&key)?;
        // Held again since then, with a later entry of its own.
        if *held != number {
            return None;
        }
        self.leavings.remove(&key).map(|(.., channel_event)| channel_event)
    }

    /// When the next held event is due, in milliseconds; `u64::MAX` if none is held.
    pub(super) fn deadline_ms(&self) -> u64 {
        self.due.front().map_or(u64::MAX, |(due_ms, ..)| *due_ms)
    }

    /// Whether no event is held.
    pub(super) fn is_empty(&self) -> bool {
        self.leavings.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel_event(channel: &str, what: ChannelEventKind) -> ChannelEvent {
        ChannelEvent { app: 0, version: 0, channel: channel.into(), what, source: 0, is_ours: true }
    }

    fn left(user: &str) -> ChannelEvent {
        channel_event("p", ChannelEventKind::MemberRemoved(user.into()))
    }

    fn joined_event(user: &str) -> ChannelEvent {
        channel_event("p", ChannelEventKind::MemberAdded(user.into()))
    }

    #[test]
    fn debounce_reports_a_leave_at_its_time() {
        let mut debounce = Debounce::new(3000);
        assert_eq!(debounce.take(channel_event("a", ChannelEventKind::Vacated), 100), None);
        assert_eq!((debounce.next_due(3099), debounce.deadline_ms()), (None, 3100));
        assert_eq!(debounce.next_due(3100), Some(channel_event("a", ChannelEventKind::Vacated)));
        assert!(debounce.is_empty() && debounce.deadline_ms() == u64::MAX);
        let again = channel_event("a", ChannelEventKind::Occupied);
        assert_eq!(debounce.take(again.clone(), 3101), Some(again));
    }

    #[test]
    fn debounce_drops_a_leave_and_its_return() {
        let mut debounce = Debounce::new(3000);
        for channel_event in
            [left("ada"), left("bob"), channel_event("p", ChannelEventKind::Vacated)]
        {
            assert_eq!(debounce.take(channel_event, 0), None);
        }
        assert_eq!(debounce.take(channel_event("p", ChannelEventKind::Occupied), 1000), None);
        assert_eq!(debounce.take(joined_event("ada"), 1000), None);
        assert_eq!(debounce.take(joined_event("eve"), 1000), Some(joined_event("eve")));
        // Another application's channel of the same name is another channel.
        let other = ChannelEvent { app: 1, ..joined_event("bob") };
        assert_eq!(debounce.take(other.clone(), 1000), Some(other));
        assert_eq!(debounce.next_due(3000), Some(left("bob")));
        assert_eq!(debounce.next_due(u64::MAX), None);
    }

    #[test]
    fn debounce_cancels_events_of_several_nodes() {
        let theirs = |it: ChannelEvent| ChannelEvent { is_ours: false, ..it };
        let mut debounce = Debounce::new(3000);
        // The other node reports the leave, and this one the return; and the other way round.
        assert_eq!(debounce.take(theirs(left("ada")), 0), None);
        assert_eq!(debounce.take(left("bob"), 0), None);
        assert_eq!(debounce.take(joined_event("ada"), 2499), None);
        assert_eq!(debounce.take(theirs(joined_event("bob")), 2999), None);
        assert_eq!(debounce.next_due(u64::MAX), None);
        // The other node may have reported the leave by now.
        assert_eq!(debounce.take(theirs(left("ada")), 10_000), None);
        assert_eq!(debounce.take(joined_event("ada"), 12_500), Some(joined_event("ada")));
        // Nothing of the other node is reported here.
        assert_eq!(debounce.take(theirs(joined_event("cyd")), 13_000), None);
        assert_eq!(debounce.take(theirs(left("cyd")), 14_000), None);
        assert_eq!(debounce.next_due(17_000), None);
        assert!(debounce.is_empty());
    }

    #[test]
    fn debounce_holds_a_second_leave_for_the_whole_time() {
        let mut debounce = Debounce::new(3000);
        assert_eq!(debounce.take(left("ada"), 0), None);
        assert_eq!(debounce.take(joined_event("ada"), 2000), None);
        assert_eq!(debounce.take(left("ada"), 2500), None);
        assert_eq!(debounce.next_due(5499), None);
        assert_eq!(debounce.next_due(5500), Some(left("ada")));
        assert_eq!(debounce.next_due(u64::MAX), None);
    }

    #[test]
    fn debounce_passes_other_events_and_is_bounded() {
        let mut debounce = Debounce::new(3000);
        assert!(debounce.take(channel_event("a", ChannelEventKind::CacheMiss), 0).is_some());
        assert!(debounce.take(channel_event("a", ChannelEventKind::Count(3)), 0).is_some());
        let channel = |n: usize| channel_event(&n.to_string(), ChannelEventKind::Vacated);
        assert!((0..MAX_HELD).all(|n| debounce.take(channel(n), 0).is_none()));
        assert_eq!(debounce.take(channel(MAX_HELD), 0), Some(channel(0)));
    }
}
