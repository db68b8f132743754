//! Which channel events a home reports: what has changed since the last report, and whether a
//! webhook wants to know it.

use super::channel_events::{ChannelEvent, ChannelEventKind, EventMask, Reported};
use super::event::ClientEvent;
use super::name::{ConnId, home_among};
use super::{Hub, HubMessage};
use crate::limits::{COUNT_EVERY_MS, COUNT_SMALL};
use std::sync::Arc;

/// The number of a connection as the source of events; never 0. Two connections of one slot have
/// the same number if their generations differ by a multiple of 2^24, and then count as one source.
fn source_of(conn: ConnId) -> u64 {
    let slot = conn.slot;
    let generation = slot.generation & 0xff_ffff;
    1 << 63 | u64::from(conn.core) << 56 | generation << 32 | u64::from(slot.index)
}

impl<M: HubMessage> Hub<M> {
    /// Sets the kinds of events to be made, by the application's number. Every event carries
    /// `version`. For a kind that was not wanted before, the present state is not reported, only
    /// later changes.
    pub fn watch(&mut self, wanted: Arc<[EventMask]>, version: u32) {
        let before = std::mem::replace(&mut self.channel_events.wanted, wanted);
        self.channel_events.version = version;
        let before = |app: usize| before.get(app).copied().unwrap_or_default();
        let wanted = self.channel_events.wanted.iter().enumerate();
        let added: Vec<EventMask> = wanted.map(|(app, mask)| mask.without(before(app))).collect();
        let is_alone = self.own_states.is_none();
        if is_alone && added.iter().any(|it| it.has(EventMask::OCCUPANCY | EventMask::COUNTS)) {
            self.catch_up(&added);
        }
        if !is_alone && added.iter().any(|mask| mask.has(EventMask::TOTALS)) {
            self.list_counts();
        }
    }

    /// Marks the present state as reported, for the kinds `added`.
    fn catch_up(&mut self, added: &[EventMask]) {
        let (core, cores) = (self.core, self.cores);
        for channel in self.channels.iter_mut().flatten() {
            let added = added.get(channel.name.app() as usize).copied().unwrap_or_default();
            let is_ours = home_among(channel.name.hash(), cores) == core;
            if !is_ours || !added.has(EventMask::OCCUPANCY | EventMask::COUNTS) {
                continue;
            }
            let home = channel.home.get_or_insert_default();
            if added.has(EventMask::OCCUPANCY) {
                home.reported.occupied =
                    !channel.subscribers.is_empty() || !channel.interest.is_empty();
            }
            if added.has(EventMask::COUNTS) {
                home.reported.count = channel.subscribers.len() as u64 + home.remote_count();
            }
        }
    }

    /// The next channel event.
    pub fn next_channel_event(&mut self) -> Option<ChannelEvent> {
        self.channel_events.next()
    }

    /// Bytes of the waiting channel events.
    pub fn channel_event_bytes(&self) -> usize {
        self.channel_events.bytes
    }

    /// Whether there is a channel event.
    pub fn has_channel_events(&self) -> bool {
        !self.channel_events.is_empty()
    }

    /// The number of channel events lost for lack of room since the last call, by application.
    pub fn lost_channel_events(&mut self) -> Vec<(u32, u64)> {
        std::mem::take(&mut self.channel_events.lost)
    }

    /// The number of channel events that have cancelled each other since the last call.
    pub fn cancelled_channel_events(&mut self) -> u64 {
        std::mem::take(&mut self.channel_events.cancelled)
    }

    /// Notes that a connection joins a channel of this home. If the channel is not reported as
    /// occupied, the connection becomes the source of its events.
    pub(super) fn note_maker(&mut self, at: u32, conn: ConnId) {
        let Some(Some(channel)) = self.channels.get_mut(at as usize) else { return };
        if self.channel_events.wanted(&channel.name) == EventMask::NONE {
            return;
        }
        let reported = &mut channel.home.get_or_insert_default().reported;
        if !reported.occupied {
            reported.maker = source_of(conn);
        }
    }

    /// Reports occupancy and count of a channel whose subscribers may have changed, if this core is
    /// its home. In a cluster they are reported when the log has them.
    pub(super) fn look(&mut self, at: u32) {
        if self.own_states.is_some() {
            self.list_count(at);
            return self.list_miss(at);
        }
        let Some(channel) = &self.channels[at as usize] else { return };
        let wanted = self.channel_events.wanted(&channel.name);
        if wanted == EventMask::NONE || self.home_of(channel.name.hash()) != self.core {
            return;
        }
        let Some(channel) = &mut self.channels[at as usize] else { return };
        let home = channel.home.get_or_insert_default();
        let count = channel.subscribers.len() as u64 + home.remote_count();
        let occupied = !channel.subscribers.is_empty() || !channel.interest.is_empty();
        if wanted.has(EventMask::OCCUPANCY) && occupied != home.reported.occupied {
            home.reported.occupied = occupied;
            let what =
                if occupied { ChannelEventKind::Occupied } else { ChannelEventKind::Vacated };
            self.channel_events.push(&channel.name, what, home.reported.maker);
        }
        if !wanted.has(EventMask::COUNTS) || count == home.reported.count {
            return;
        }
        if count <= COUNT_SMALL {
            home.reported.count = count;
            self.channel_events.push(
                &channel.name,
                ChannelEventKind::Count(count),
                home.reported.maker,
            );
        } else if !home.reported.counting {
            home.reported.counting = true;
            self.channel_events.counting.push_back(channel.name.clone());
        }
    }

    /// Reports that a channel of this home is occupied, unless it was before. In a cluster that is
    /// reported when the log has it.
    pub(super) fn note_occupied(&mut self, at: u32) {
        if self.own_states.is_some() {
            return;
        }
        self.note(at, EventMask::OCCUPANCY, |reported| {
            let first = !std::mem::replace(&mut reported.occupied, true);
            first.then_some(ChannelEventKind::Occupied)
        });
    }

    /// Reports that a user has joined a channel of this home.
    pub(super) fn note_member_added(&mut self, at: u32, user: &Arc<str>) {
        self.note(at, EventMask::MEMBERS, |_| Some(ChannelEventKind::MemberAdded(user.clone())));
    }

    /// Reports that a user has left a channel of this home.
    pub(super) fn note_member_removed(&mut self, at: u32, user: &Arc<str>) {
        self.note(at, EventMask::MEMBERS, |_| Some(ChannelEventKind::MemberRemoved(user.clone())));
    }

    /// Notes a change that the log of the cluster has made in a channel of this home, which this
    /// process reports or another node.
    pub(super) fn note_change(
        &mut self,
        at: u32,
        kind: EventMask,
        is_ours: bool,
        what: ChannelEventKind,
    ) {
        let Some(Some(channel)) = self.channels.get_mut(at as usize) else { return };
        if self.channel_events.wanted(&channel.name).has(kind) {
            let maker = match kind {
                EventMask::MEMBERS => 0,
                _ => channel.home.get_or_insert_default().reported.maker,
            };
            self.channel_events.push_by(is_ours, &channel.name, what, maker);
        }
    }

    /// Reports that a channel of this home had no cached event for a subscriber. In a cluster that
    /// is reported when the log has it.
    pub(super) fn note_cache_miss(&mut self, at: u32) {
        if self.own_states.is_some() {
            return self.note_logged_miss(at);
        }
        self.note(at, EventMask::MISSES, |reported| {
            let first = !std::mem::replace(&mut reported.missed, true);
            first.then_some(ChannelEventKind::CacheMiss)
        });
    }

    /// Reports that a client of this process has published an event, which the log has now. This
    /// core is the channel's home.
    pub fn report_client_event(&mut self, app: u32, name: &str, client_event: &Arc<ClientEvent>) {
        let name = self.hasher.name(app, name);
        if self.channel_events.wanted(&name).has(EventMask::CLIENT_EVENTS) {
            let what = ChannelEventKind::ClientEvent(client_event.clone());
            self.channel_events.push(&name, what, 0);
        }
    }

    /// Reports that a client has published on a channel of this home.
    pub(super) fn note_client_event(&mut self, at: u32, client_event: &Arc<ClientEvent>) {
        self.note(at, EventMask::CLIENT_EVENTS, |_| {
            Some(ChannelEventKind::ClientEvent(client_event.clone()))
        });
    }

    fn note(
        &mut self,
        at: u32,
        kind: EventMask,
        what: impl FnOnce(&mut Reported) -> Option<ChannelEventKind>,
    ) {
        let Some(Some(channel)) = self.channels.get_mut(at as usize) else { return };
        if !self.channel_events.wanted(&channel.name).has(kind) {
            return;
        }
        let reported = &mut channel.home.get_or_insert_default().reported;
        let Some(what) = what(reported) else { return };
        // Member changes and client events need a signed subscription, so their source is the
        // channel.
        let maker = if kind.has(EventMask::MEMBERS | EventMask::CLIENT_EVENTS) {
            0
        } else {
            reported.maker
        };
        self.channel_events.push(&channel.name, what, maker);
    }

    /// Reports the counts of channels with many subscribers, each at most once in
    /// [`COUNT_EVERY_MS`].
    pub(super) fn sweep_counts(&mut self, now_ms: u64) {
        for name in std::mem::take(&mut self.channel_events.counting) {
            let found = self.find(name.app(), name.text(), name.hash());
            let channel = found.and_then(|at| self.channels[at as usize].as_mut());
            let Some(channel) = channel else { continue };
            let home = channel.home.get_or_insert_default();
            let count = channel.subscribers.len() as u64 + home.remote_count();
            let due = home.reported.counted_ms + COUNT_EVERY_MS <= now_ms;
            if count != home.reported.count && !due {
                self.channel_events.counting.push_back(name);
                continue;
            }
            home.reported.counting = false;
            if count != home.reported.count {
                home.reported.count = count;
                home.reported.counted_ms = now_ms;
                let maker = home.reported.maker;
                self.channel_events.push(&name, ChannelEventKind::Count(count), maker);
            }
        }
    }
}
