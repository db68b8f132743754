//! Subscriptions as two lists with references to each other, so that leaving takes constant time.
//! Joining searches only the connection's own list.
//!
//! A connection's list holds its channels and its position in each; a channel's list holds its
//! connections and, for each, the position in that connection's list. Removing an entry moves the
//! last entry of the list into its position, and updates that position in the other list.

use super::forms::Form;
use super::slab::Slab;

/// One subscriber in a channel's list.
#[derive(Clone, Copy, Debug)]
pub struct Subscriber {
    /// The connection's slot index.
    pub slot: u32,
    /// Position of the channel in that connection's list.
    back: u32,
    /// The number of the unanswered request to the home, or 0; the log under which the subscription
    /// has begun; and the flag `MEMBER`.
    state: u32,
    /// The form in which it receives the channel's events.
    pub form: Form,
}

/// Marks a subscriber whose leaving must be reported to the home.
const MEMBER: u32 = 1 << 31;
/// The place of the log's number, of which 7 bits are kept: a subscription that has lasted while
/// the engine has lost its log 128 times would count as a new one.
const LOG_SHIFT: u32 = 24;
const LOG: u32 = MEMBER - REQUEST - 1;
const REQUEST: u32 = (1 << LOG_SHIFT) - 1;
/// The number of a request that is never answered.
const MUTED: u32 = REQUEST;
/// The largest number of a request.
pub(super) const MAX_REQUEST: u32 = MUTED - 1;

impl Subscriber {
    /// Whether the subscriber receives what is published.
    pub fn is_active(&self) -> bool {
        self.request_id() == 0
    }

    /// Whether the subscriber receives an event: any, or one for those only whose subscription has
    /// begun under this log.
    pub fn receives(&self, since_log: Option<u16>) -> bool {
        self.is_active() && since_log.is_none_or(|log| self.state & LOG == log_bits(log))
    }

    /// Notes that the subscription begins under this log of the channel's home.
    pub(super) fn begin_under(&mut self, log: u16) {
        self.state = self.state & !LOG | log_bits(log);
    }

    /// Whether the subscriber will never receive anything.
    pub(super) fn is_muted(&self) -> bool {
        self.request_id() == MUTED
    }

    /// Makes an active subscriber receive nothing any more.
    pub(super) fn mute(&mut self) {
        if self.is_active() {
            self.state |= MUTED;
        }
    }

    /// The number of the request that the home has not answered, or 0.
    pub(super) fn request_id(&self) -> u32 {
        self.state & REQUEST
    }
}

fn log_bits(log: u16) -> u32 {
    u32::from(log) << LOG_SHIFT & LOG
}

/// How a subscription begins.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Start {
    /// The number of the request that the home must answer first, or 0.
    pub(super) request_id: u32,
    /// Whether the end of the subscription must be reported to the home.
    pub(super) member: bool,
    /// The log under which it begins, by the channel's home.
    pub(super) log: u16,
    /// The form in which the subscriber receives events.
    pub(super) form: Form,
}

#[derive(Clone, Copy, Debug)]
struct Membership {
    channel: u32,
    /// Position of the connection in the channel's list.
    at: u32,
}

/// The lists of all connections of a core.
///
/// Invariant: entry `b` of a connection's list has the number of a channel and a position `a`
/// exactly if entry `a` of that channel's list has the connection and the position `b`.
#[derive(Default)]
pub(super) struct Members {
    of_slot: Vec<Vec<Membership>>,
}

impl Members {
    fn list(&self, slot: u32) -> &[Membership] {
        self.of_slot.get(slot as usize).map_or(&[], Vec::as_slice)
    }

    pub(super) fn count(&self, slot: u32) -> usize {
        self.list(slot).len()
    }

    pub(super) fn position(&self, slot: u32, channel: u32) -> Option<usize> {
        self.list(slot).iter().position(|member| member.channel == channel)
    }

    pub(super) fn has(&self, slot: u32, channel: u32) -> bool {
        self.position(slot, channel).is_some()
    }

    pub(super) fn add(
        &mut self,
        slot: u32,
        channel: u32,
        subscribers: &mut Vec<Subscriber>,
        start: Start,
    ) {
        let member = if start.member { MEMBER } else { 0 };
        let state = start.request_id & REQUEST | log_bits(start.log) | member;
        if slot as usize >= self.of_slot.len() {
            self.of_slot.resize_with(slot as usize + 1, Vec::new);
        }
        let list = &mut self.of_slot[slot as usize];
        if list.is_empty() {
            // Most connections have one or two subscriptions.
            list.reserve_exact(1);
        }
        subscribers.push(Subscriber { slot, back: list.len() as u32, state, form: start.form });
        list.push(Membership { channel, at: (subscribers.len() - 1) as u32 });
    }

    /// Removes the entry at `position` of `slot`'s list from both lists; `subscribers` returns the
    /// list of a channel. Returns the channel, whether the removal must be reported to its home,
    /// and the form of the subscription.
    pub(super) fn remove<C>(
        &mut self,
        slot: u32,
        position: usize,
        channels: &mut Slab<C>,
        mut subscribers: impl FnMut(&mut C) -> &mut Vec<Subscriber>,
    ) -> Option<(u32, bool, Form)> {
        let list = self.of_slot.get_mut(slot as usize)?;
        if position >= list.len() {
            return None;
        }
        let removed = list.swap_remove(position);
        if let Some(moved) = list.get(position).copied()
            && let Some(channel) = &mut channels[moved.channel as usize]
        {
            subscribers(channel)[moved.at as usize].back = position as u32;
        }
        let channel = channels[removed.channel as usize].as_mut()?;
        let others = subscribers(channel);
        let left = others.swap_remove(removed.at as usize);
        if let Some(moved) = others.get(removed.at as usize) {
            self.of_slot[moved.slot as usize][moved.back as usize].at = removed.at;
        }
        if others.capacity() > 64 && others.len() < others.capacity() / 4 {
            others.shrink_to(others.len() * 2);
        }
        Some((removed.channel, left.state & MEMBER != 0, left.form))
    }

    /// Makes the subscription at `position` of `slot`'s list active under a log, if it waits for
    /// the answer to request `request_id`.
    pub(super) fn activate(
        &self,
        slot: u32,
        position: usize,
        (request_id, log): (u32, u16),
        subscribers: &mut [Subscriber],
    ) -> bool {
        let Some(member) = self.list(slot).get(position) else { return false };
        let Some(subscriber) = subscribers.get_mut(member.at as usize) else { return false };
        let waits = subscriber.request_id() == request_id;
        if waits {
            subscriber.state &= MEMBER;
            subscriber.begin_under(log);
        }
        waits
    }

    /// Whether the subscription at `position` of `slot`'s list is active.
    pub(super) fn is_active(&self, slot: u32, position: usize, subscribers: &[Subscriber]) -> bool {
        self.subscriber(slot, position, subscribers).is_some_and(Subscriber::is_active)
    }

    /// The entry of the subscription at `position` of `slot`'s list.
    pub(super) fn subscriber<'s>(
        &self,
        slot: u32,
        position: usize,
        subscribers: &'s [Subscriber],
    ) -> Option<&'s Subscriber> {
        let member = self.list(slot).get(position)?;
        subscribers.get(member.at as usize)
    }

    /// Notes that the channel with these subscribers has moved to index `to`.
    pub(super) fn moved(&mut self, subscribers: &[Subscriber], to: u32) {
        for subscriber in subscribers {
            self.of_slot[subscriber.slot as usize][subscriber.back as usize].channel = to;
        }
    }

    /// The number of all subscriptions.
    pub(super) fn len(&self) -> usize {
        self.of_slot.iter().map(Vec::len).sum()
    }

    /// Asserts in debug builds that the list of a channel and the lists of its connections refer to
    /// each other.
    pub(super) fn invariants(&self, channel: u32, subscribers: &[Subscriber]) {
        for (at, subscriber) in (0..).zip(subscribers) {
            let member = self.list(subscriber.slot).get(subscriber.back as usize);
            debug_assert!(
                member.is_some_and(|member| (member.channel, member.at) == (channel, at)),
                "subscriber {at} of channel {channel}: {member:?}"
            );
        }
    }

    /// Frees the list of a connection that has ended.
    pub(super) fn forget(&mut self, slot: u32) {
        if let Some(list) = self.of_slot.get_mut(slot as usize) {
            *list = Vec::new();
        }
    }
}
