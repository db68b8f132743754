//! The events of this node that wait for the engine.
//!
//! A state of a node, such as a member of a channel, is an entry of its own, with a key of its own:
//! of each key one entry is under way, so that many users can join a channel at the same time. The
//! end of a member waits for the events of its channel that were added before it, but no longer
//! than half a second: a member leaves after its last event, unless the channel is very busy.
//!
//! Of each channel one entry is under way at a time, so that no event overtakes an earlier one even
//! if an entry must be sent again. What comes meanwhile waits, and goes into the next entry
//! together. So that a busy channel leaves room for the others, what waits of one channel is
//! bounded, too. An entry that is not answered in time, or whose connection was lost, is sent again
//! under the same number, until its first event has waited for `hold_ms`. What the engine has
//! surely not stored is then refused; of the rest it is not known.

mod ends;
mod key;

use ends::BlockedEnds;
pub use key::{ChannelKey, CountingSubject, QueueKey, StateSubject};

use super::entry::KeyPart;
use crate::hub::{EventKey, Unpublished};
use std::collections::{HashMap, VecDeque};

/// The estimated bytes of an event in the queue besides its part.
const EVENT_BYTES: usize = 96;
/// The estimated bytes of an event's key.
const KEY_BYTES: usize = 64;
/// The maximum number of events of one entry.
const PACK_EVENTS: usize = 64;
/// The maximum size of an entry of several events, in bytes, whatever the engine accepts.
const PACK_BYTES: usize = 256 * 1024;
/// How long an entry waits that the engine has refused for now, in milliseconds.
const AGAIN_MS: u64 = 100;

/// What waits for one channel, besides the entry under way, has one part of so many of all bytes.
const CHANNEL_SHARE: usize = 2;
/// One part of so many of all bytes is for states only, so that users can join while events wait.
const STATE_SHARE: usize = 8;

/// The limits of a queue.
#[derive(Clone, Copy, Debug)]
pub struct QueueLimits {
    /// The maximum number of bytes of all events and states. Events have at most seven eighths of
    /// it, and those that wait for the entry of their channel half, or are a single one.
    pub hold_bytes: usize,
    /// How long an event may wait, in milliseconds.
    pub hold_ms: u64,
    /// How long an answer may take, in milliseconds, before an entry is sent again.
    pub append_ms: u64,
    /// The maximum number of entries without an answer.
    pub in_flight: usize,
}

/// An event that waits, with what is to be answered when it is stored.
#[derive(Debug)]
pub struct QueuedEvent<T> {
    /// The event as a part of an entry.
    pub part: Vec<u8>,
    /// Its idempotency key.
    pub key: Option<Box<EventKey>>,
    /// How long the log keeps it, in seconds; `None` until another one replaces it. A state with a
    /// time is the end of an earlier one.
    pub ttl_s: Option<u64>,
    /// Who waits for the answer.
    pub ack: Option<T>,
}

/// An entry to be sent.
#[derive(Debug)]
pub struct Pack<'q> {
    /// Its number.
    pub number: u64,
    /// Its channel.
    pub channel: &'q ChannelKey,
    /// The state that it has; `None` for events.
    pub state: Option<&'q StateSubject>,
    /// How long the log keeps it, in seconds; `None` until another one replaces it.
    pub ttl_s: Option<u64>,
    /// Whether it was sent before.
    pub again: bool,
    /// The parts of its events.
    pub parts: Vec<&'q [u8]>,
    /// The idempotency keys of some of its events.
    pub keys: Vec<KeyPart>,
}

/// The outcome of an event or a state: whose it is, its key, and why it is not in the log.
pub type Failure<T> = (Option<T>, QueueKey, Unpublished);

/// See the module's documentation.
#[derive(Debug)]
pub struct AppendQueue<T> {
    limits: QueueLimits,
    /// The maximum size of an entry of several events, in bytes.
    pack_bytes: usize,
    channels: HashMap<QueueKey, ChannelEntries<T>>,
    /// The channels that have an entry to send, or events and none under way. Until the next call
    /// of [`AppendQueue::tick`] there may be others, and some twice.
    ready: VecDeque<QueueKey>,
    /// The channel of each entry that is under way.
    numbers: HashMap<u64, QueueKey>,
    in_flight: usize,
    bytes: usize,
    last_number: u64,
    last_serial: u64,
}

#[derive(Debug)]
struct ChannelEntries<T> {
    entry: Option<Entry<T>>,
    waiting: VecDeque<Event<T>>,
    /// The bytes of what waits.
    waiting_bytes: usize,
    /// Of the events of a channel: the ends of members that wait for some of them, by the serial
    /// number of the end.
    ends: BlockedEnds,
    /// Whether what waits is the end of a member that waits for events of its channel.
    is_blocked: bool,
    /// Whether the channel is among those that are ready.
    is_listed: bool,
}

#[derive(Debug)]
struct Event<T> {
    waiting: QueuedEvent<T>,
    since_ms: u64,
    /// Its place among all events and states that were added.
    serial: u64,
}

#[derive(Debug)]
struct Entry<T> {
    number: u64,
    events: Vec<Event<T>>,
    phase: Phase,
    /// Whether an earlier attempt was not answered.
    is_unsure: bool,
    was_sent: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Ready,
    Sent { at_ms: u64 },
    Refused { until_ms: u64 },
}

impl<T> ChannelEntries<T> {
    fn new() -> ChannelEntries<T> {
        ChannelEntries {
            entry: None,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            ends: BlockedEnds::default(),
            is_blocked: false,
            is_listed: false,
        }
    }

    /// Whether there is an entry to send, or events and no entry under way.
    fn is_ready(&self) -> bool {
        match &self.entry {
            Some(entry) => entry.phase == Phase::Ready,
            None => !self.waiting.is_empty() && !self.is_blocked,
        }
    }

    fn push(&mut self, event: Event<T>) {
        self.waiting_bytes += event.bytes();
        self.waiting.push_back(event);
    }

    /// Takes the oldest event out that waits.
    fn pop(&mut self) -> Option<Event<T>> {
        let event = self.waiting.pop_front()?;
        self.waiting_bytes -= event.bytes();
        Some(event)
    }

    /// Takes the events of the next entry: one, or several of at most so many bytes.
    fn take_pack(&mut self, max_bytes: usize) -> Vec<Event<T>> {
        let (mut events, mut bytes) = (Vec::new(), 0);
        while events.len() < PACK_EVENTS
            && let Some(next) = self.waiting.front()
            && (events.is_empty() || bytes + next.bytes() <= max_bytes)
            && let Some(event) = self.pop()
        {
            bytes += event.bytes();
            events.push(event);
        }
        events
    }

    /// Notes that the key is ready, if it is.
    fn list(&mut self, key: &QueueKey, ready: &mut VecDeque<QueueKey>) {
        if self.is_ready() && !std::mem::replace(&mut self.is_listed, true) {
            ready.push_back(key.clone());
        }
    }

    /// Takes the ends out that were added before the oldest event that is left.
    fn take_free_ends(&mut self) -> BlockedEnds {
        let under_way = self.entry.as_ref().and_then(|entry| entry.events.first());
        self.ends.take_before(under_way.or(self.waiting.front()).map(|oldest| oldest.serial))
    }
}

impl<T> Event<T> {
    fn bytes(&self) -> usize {
        let key = self.waiting.key.as_ref().map_or(0, |_| KEY_BYTES);
        self.waiting.part.len() + EVENT_BYTES + key
    }
}

impl<T> AppendQueue<T> {
    /// An empty queue.
    pub fn new(limits: QueueLimits) -> AppendQueue<T> {
        AppendQueue {
            limits,
            pack_bytes: PACK_BYTES,
            channels: HashMap::new(),
            ready: VecDeque::new(),
            numbers: HashMap::new(),
            in_flight: 0,
            bytes: 0,
            last_number: 0,
            last_serial: 0,
        }
    }

    /// Notes the maximum size of an entry that the engine accepts, in bytes. The entries of several
    /// events that are made from now on have at most half of that, which leaves room for what is in
    /// an entry besides. A larger event is tried alone.
    pub fn set_max_entry(&mut self, bytes: usize) {
        self.pack_bytes = PACK_BYTES.min(bytes / 2);
    }

    /// The bytes of all events in the queue.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether three quarters of what may wait do. One channel cannot reach that alone if more than
    /// 1 MiB may wait.
    pub fn is_almost_full(&self) -> bool {
        self.bytes >= self.limits.hold_bytes / 4 * 3
    }

    /// Whether no event waits.
    pub fn is_empty(&self) -> bool {
        self.channels.is_empty()
    }

    /// Adds an event, or a state, which replaces an earlier one of its key that still waits.
    ///
    /// # Errors
    /// The queue is full, or has too many events of this channel; the event is returned.
    pub fn push(
        &mut self,
        key: &QueueKey,
        waiting: QueuedEvent<T>,
        now_ms: u64,
    ) -> Result<(), QueuedEvent<T>> {
        let event = Event { waiting, since_ms: now_ms, serial: self.last_serial + 1 };
        if !self.has_room(key, event.bytes()) {
            return Err(event.waiting);
        }
        self.last_serial = event.serial;
        self.bytes += event.bytes();
        let is_blocked = key.state.is_some() && self.replace(key, &event);
        let entries = self.channels.entry(key.clone()).or_insert_with(ChannelEntries::new);
        entries.is_blocked = is_blocked;
        entries.push(event);
        entries.list(key, &mut self.ready);
        Ok(())
    }

    /// Whether so many bytes more may wait for a key.
    fn has_room(&self, key: &QueueKey, bytes: usize) -> bool {
        let max = self.limits.hold_bytes;
        if key.state.is_some() {
            return self.bytes + bytes <= max;
        }
        let of_channel = self.channels.get(key).map_or(0, |it| it.waiting_bytes);
        let is_in_share = of_channel == 0 || of_channel + bytes <= max / CHANNEL_SHARE;
        is_in_share && self.bytes + bytes <= max - max / STATE_SHARE
    }

    /// Drops the state that a new one of its key replaces. Returns whether the new one has to wait
    /// for events of its channel.
    fn replace(&mut self, key: &QueueKey, state: &Event<T>) -> bool {
        let old = self.channels.get_mut(key);
        let old = old.and_then(|it| Some((it.pop()?, it.is_blocked)));
        self.bytes -= old.as_ref().map_or(0, |(old, _)| old.bytes());
        let is_end = state.waiting.ttl_s.is_some();
        let is_member_end = is_end && matches!(key.state, Some(StateSubject::Member(_)));
        let blocked = old.filter(|(_, is_blocked)| *is_blocked);
        if blocked.is_none() && !is_member_end {
            return false;
        }
        // A channel of which no event is left has no entries.
        let Some(events) = self.channels.get_mut(&key.channel.clone().into()) else {
            return false;
        };
        if let Some((old, _)) = blocked {
            events.ends.remove(old.serial);
        }
        if is_member_end {
            events.ends.add(state.serial, key.clone(), state.since_ms);
        }
        is_member_end
    }

    /// Lets these ends of members be sent, which wait no longer for events of their channel.
    fn unblock(&mut self, ends: BlockedEnds) {
        for (serial, key) in ends.into_keys() {
            if let Some(entries) = self.channels.get_mut(&key)
                && entries.waiting.front().is_some_and(|it| it.serial == serial)
            {
                entries.is_blocked = false;
                entries.list(&key, &mut self.ready);
            }
        }
    }

    /// The next entry to send, which counts as sent from now on; `None` if there is none, or too
    /// many are not answered.
    pub fn next(&mut self, now_ms: u64) -> Option<Pack<'_>> {
        if self.in_flight >= self.limits.in_flight {
            return None;
        }
        let channel = self.next_ready()?;
        let entries = self.channels.get_mut(&channel)?;
        if entries.entry.is_none() {
            self.last_number += 1;
            self.numbers.insert(self.last_number, channel.clone());
            let (number, events) = (self.last_number, entries.take_pack(self.pack_bytes));
            let phase = Phase::Ready;
            entries.entry =
                Some(Entry { number, events, phase, is_unsure: false, was_sent: false });
        }
        let entry = entries.entry.as_mut()?;
        entry.phase = Phase::Sent { at_ms: now_ms };
        self.in_flight += 1;
        let again = std::mem::replace(&mut entry.was_sent, true);
        let ttls = entry.events.iter().map(|it| it.waiting.ttl_s);
        let ttl_s = ttls.max_by_key(|ttl_s| ttl_s.unwrap_or(u64::MAX)).unwrap_or(Some(0));
        let parts = entry.events.iter().map(|it| &*it.waiting.part).collect();
        let keys = entry.events.iter().enumerate();
        let key = |(event, it): (usize, &Event<T>)| {
            Some(KeyPart { event, key: **it.waiting.key.as_ref()? })
        };
        let keys = keys.filter_map(key).collect();
        let QueueKey { channel, state } = self.numbers.get(&entry.number)?;
        let state = state.as_ref();
        Some(Pack { number: entry.number, channel, state, ttl_s, again, parts, keys })
    }

    /// Takes the next channel out of those that are ready.
    fn next_ready(&mut self) -> Option<QueueKey> {
        loop {
            let channel = self.ready.pop_front()?;
            // Others were finished meanwhile.
            let Some(entries) = self.channels.get_mut(&channel) else { continue };
            entries.is_listed = false;
            if entries.is_ready() {
                return Some(channel);
            }
        }
    }

    /// Whether an entry is still under way.
    pub fn has(&self, number: u64) -> bool {
        self.numbers.contains_key(&number)
    }

    /// Whether this number is of an entry with a state that is not known to be stored.
    pub fn has_state(&self, number: u64) -> bool {
        self.numbers.get(&number).is_some_and(|key| key.state.is_some())
    }

    /// Notes that an entry is in the log. Returns its channel and who waits for its events; `None`
    /// if it was given up before.
    pub fn stored(&mut self, number: u64) -> Option<(ChannelKey, Vec<T>)> {
        let channel = self.numbers.get(&number)?.channel.clone();
        let events = self.finish(number)?.events;
        Some((channel, events.into_iter().filter_map(|it| it.waiting.ack).collect()))
    }

    /// Drops all states: they are not true any more, or will be added again.
    pub fn drop_states(&mut self) {
        let under_way = self.numbers.iter().filter(|(_, key)| key.state.is_some());
        let under_way: Vec<u64> = under_way.map(|(number, _)| *number).collect();
        for number in under_way {
            drop(self.finish(number));
        }
        let AppendQueue { channels, bytes, .. } = self;
        channels.retain(|key, entries| {
            if key.state.is_some() {
                *bytes -= entries.waiting_bytes;
            }
            entries.ends.clear();
            key.state.is_none()
        });
        self.clean_ready();
    }

    /// Notes that an entry was not taken into the log. It is sent again if it may be taken later,
    /// and fails otherwise.
    pub fn refused(&mut self, number: u64, again: bool, now_ms: u64) -> Vec<Failure<T>> {
        let Some(channel) = self.numbers.get(&number).cloned() else { return Vec::new() };
        let entries = self.channels.get_mut(&channel);
        let Some(entry) = entries.and_then(|entries| entries.entry.as_mut()) else {
            return Vec::new();
        };
        if !matches!(entry.phase, Phase::Sent { .. }) {
            // An answer to an attempt that was given up; a later one decides.
            return Vec::new();
        }
        if again {
            entry.phase = Phase::Refused { until_ms: now_ms + AGAIN_MS };
            self.in_flight -= 1;
            return Vec::new();
        }
        entry.phase = Phase::Refused { until_ms: now_ms };
        self.in_flight -= 1;
        self.finish(number).map(|entry| failures(entry, &channel)).unwrap_or_default()
    }

    /// Notes that the connection to the engine is lost: answers that are missing will not come.
    pub fn lost(&mut self) {
        for (channel, entries) in &mut self.channels {
            if let Some(entry) = &mut entries.entry
                && matches!(entry.phase, Phase::Sent { .. })
            {
                entry.phase = Phase::Ready;
                entry.is_unsure = true;
                self.in_flight -= 1;
                entries.list(channel, &mut self.ready);
            }
        }
    }

    /// Handles what is due: entries that are to be sent again, and events that have waited too
    /// long, which are returned. Call it every [`AppendQueue::TICK_MS`] while the queue is not
    /// empty.
    pub fn tick(&mut self, now_ms: u64) -> Vec<Failure<T>> {
        let QueueLimits { hold_ms, append_ms, .. } = self.limits;
        let (mut failed, mut given_up) = (Vec::new(), Vec::new());
        let mut ends = BlockedEnds::default();
        for (channel, entries) in &mut self.channels {
            let is_over = |it: &Event<T>| it.since_ms + hold_ms <= now_ms;
            while entries.waiting.front().is_some_and(is_over)
                && let Some(event) = entries.pop()
            {
                self.bytes -= event.bytes();
                failed.push((event.waiting.ack, channel.clone(), Unpublished::Refused));
            }
            ends.append(entries.ends.take_late(now_ms));
            ends.append(entries.take_free_ends());
            let Some(entry) = &mut entries.entry else { continue };
            if entry.events.first().is_some_and(is_over) {
                given_up.push(entry.number);
                continue;
            }
            match entry.phase {
                Phase::Sent { at_ms } if at_ms + append_ms <= now_ms => {
                    entry.is_unsure = true;
                    self.in_flight -= 1;
                }
                Phase::Refused { until_ms } if until_ms <= now_ms => {}
                _ => continue,
            }
            entry.phase = Phase::Ready;
            entries.list(channel, &mut self.ready);
        }
        for number in given_up {
            let Some(channel) = self.numbers.get(&number).cloned() else { continue };
            let entry = self.finish(number);
            failed.extend(entry.into_iter().flat_map(|entry| failures(entry, &channel)));
        }
        self.unblock(ends);
        self.channels.retain(|_, entries| entries.entry.is_some() || !entries.waiting.is_empty());
        self.clean_ready();
        failed
    }

    /// Removes the channels that are not ready from those that were, and what is there twice.
    fn clean_ready(&mut self) {
        let AppendQueue { channels, ready, .. } = self;
        channels.values_mut().for_each(|entries| entries.is_listed = false);
        ready.retain(|channel| {
            channels.get_mut(channel).is_some_and(|entries| {
                entries.is_ready() && !std::mem::replace(&mut entries.is_listed, true)
            })
        });
    }

    /// The time between two calls of [`AppendQueue::tick`], in milliseconds.
    pub const TICK_MS: u64 = 100;

    /// Takes an entry out, and lets the channel's next events be sent.
    fn finish(&mut self, number: u64) -> Option<Entry<T>> {
        let channel = self.numbers.remove(&number)?;
        let entries = self.channels.get_mut(&channel)?;
        let entry = entries.entry.take()?;
        self.bytes -= entry.events.iter().map(Event::bytes).sum::<usize>();
        if let Phase::Sent { .. } = entry.phase {
            self.in_flight -= 1;
        }
        let ends = entries.take_free_ends();
        match entries.waiting.is_empty() {
            // It stays among those that are ready: to look for each there would take too long.
            true => drop(self.channels.remove(&channel)),
            false => entries.list(&channel, &mut self.ready),
        }
        self.unblock(ends);
        Some(entry)
    }
}

/// The failures of an entry that is given up. It may be in the log if some attempt has no answer.
fn failures<T>(entry: Entry<T>, channel: &QueueKey) -> Vec<Failure<T>> {
    // A refusal is the answer to the last attempt, so it says nothing of an earlier one.
    let is_unsure = entry.is_unsure || matches!(entry.phase, Phase::Sent { .. });
    let why = if is_unsure { Unpublished::Unknown } else { Unpublished::Refused };
    entry.events.into_iter().map(|it| (it.waiting.ack, channel.clone(), why)).collect()
}

#[cfg(test)]
mod tests;
