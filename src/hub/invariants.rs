//! What holds in the tables of a hub between two calls.

use super::channel::{ChannelState, HomeLink};
use super::members::Subscriber;
use super::rooms::UNLISTED;
use super::view_counts::ViewTally;
use super::{Hub, HubMessage};

impl<M: HubMessage> Hub<M> {
    /// Asserts in debug builds that the tables agree with each other. It visits every channel and
    /// subscription, so tests and simulations call it, and the functions of the hub do not.
    pub fn invariants(&self) {
        if !cfg!(debug_assertions) {
            return;
        }
        self.channels.invariants();
        assert_eq!(self.index.len(), self.channels.len(), "every channel is in the index once");
        let (mut subscriptions, mut kept, mut listed) = (0, 0, 0);
        for (at, channel) in self.all_channels() {
            let name = &channel.name;
            assert_eq!(self.find(name.app(), name.text(), name.hash()), Some(at));
            self.members.invariants(at, &channel.subscribers);
            if self.own_states.is_some() {
                ViewTally::invariants(channel.views.as_deref(), &channel.subscribers);
            }
            subscriptions += channel.subscribers.len();
            kept += usize::from(channel.home.as_ref().is_some_and(|home| home.place.is_some()));
            listed += usize::from(channel.listed != UNLISTED);
            match self.home_of(name.hash()) == self.core {
                true => self.home_invariants(at, channel),
                false => other_home_invariants(channel),
            }
        }
        assert_eq!(self.members.len(), subscriptions, "each subscription is in both lists");
        assert_eq!(self.kept.keepers.by_age.len(), kept, "each cached event has one place");
        let rooms = self.rooms.values();
        assert_eq!(rooms.map(|rooms| rooms.list.len()).sum::<usize>(), listed);
        for (app, rooms) in &self.rooms {
            let occupied = self.rooms_of(*app).filter(|(_, channel)| channel.occupied).count();
            assert_eq!(rooms.occupied, occupied, "occupied channels of application {app}");
        }
    }

    fn all_channels(&self) -> impl Iterator<Item = (u32, &ChannelState<M>)> {
        let numbered = (0..).zip(self.channels.iter());
        numbered.filter_map(|(at, channel)| Some((at, channel.as_ref()?)))
    }

    /// A channel that this core is the home of.
    fn home_invariants(&self, at: u32, channel: &ChannelState<M>) {
        let is_used = !channel.subscribers.is_empty() || !channel.interest.is_empty();
        let is_kept = channel.home.as_ref().is_some_and(|home| !home.is_empty());
        assert!(is_used || is_kept, "a channel that nobody needs is released");
        assert!(channel.interest.iter().all(|core| core != self.core && core < self.cores));
        assert!(channel.subscribers.is_empty() || channel.home_link == HomeLink::Known);
        let waits = self.own_states.is_some();
        let mut subscribers = channel.subscribers.iter();
        let answered = |it: &Subscriber| it.is_active() || it.is_muted();
        assert!(waits || subscribers.all(answered), "the home answers at once");
        if let Some(rooms) = self.rooms.get(&channel.name.app())
            && channel.listed != UNLISTED
        {
            assert_eq!(rooms.list.get(channel.listed as usize), Some(&at));
            assert_eq!(channel.occupied, is_used);
        }
        if let Some(place) = channel.home.as_ref().and_then(|home| home.place) {
            let keepers = &self.kept.keepers;
            assert_eq!(keepers.by_age.get(&place.began), Some(&at));
            let is_due = keepers.by_time.contains(&(place.look_ms, place.began));
            assert!(is_due || place.look_ms == u64::MAX, "the cached event is examined in time");
        }
    }
}

/// A channel that another core is the home of: it exists for its subscribers, and the state of a
/// home is empty.
fn other_home_invariants<M>(channel: &ChannelState<M>) {
    assert!(!channel.subscribers.is_empty(), "a channel without subscribers is released");
    assert!(channel.interest.is_empty() && channel.home.is_none());
    assert!(!channel.occupied && channel.listed == UNLISTED);
    // A subscription that waits for nothing is active only if the home sends every publish.
    let waits = channel.subscribers.iter().all(|it| !it.is_active());
    assert!(waits || channel.home_link != HomeLink::Unknown);
}
