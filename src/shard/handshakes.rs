//! The limit of connections that have not sent a whole request yet.

use super::Shard;
use crate::mem::Slot;
use crate::time::Now;

/// The minimum time that a connection has for sending its first request, in milliseconds, however
/// many others connect meanwhile.
pub(super) const HANDSHAKE_MIN_MS: u64 = 2000;

impl Shard {
    /// Whether a further connection can be accepted: fewer than `limits.handshakes` connections are
    /// without a whole request, or the oldest of them has had its minimum time and can be closed.
    /// Otherwise new connections stay in the kernel's accept backlog.
    pub fn takes_newcomers(&mut self, now: Now) -> bool {
        self.fresh < self.env.config.limits.handshakes
            || self.oldest_handshake().is_some_and(|(_, since_ms)| has_had_its_time(since_ms, now))
    }

    /// The number of further connections that may be accepted before the next call of
    /// [`Shard::takes_newcomers`].
    pub fn handshakes_left(&self) -> usize {
        self.env.config.limits.handshakes.saturating_sub(self.fresh)
    }

    pub(super) fn begin_handshake(&mut self, slot: Slot, now: Now) {
        if let Some(session) = self.sessions.get_mut(slot) {
            session.link.counted_fresh = true;
            self.fresh += 1;
        }
        if self.handshakes.len() > 2 * self.fresh + 1024 {
            let sessions = &mut self.sessions;
            self.handshakes.retain(|(slot, _)| {
                sessions.get_mut(*slot).is_some_and(|it| it.link.counted_fresh)
            });
        }
        self.handshakes.push_back((slot, now.ms));
    }

    /// Closes the oldest connection without a whole request if there are more than the limit and
    /// the connection has had its minimum time. Clients that send their request are then served
    /// soon, however many others are silent. Accepts in flight may exceed the limit by a few
    /// connections.
    pub(super) fn make_room_for_handshake(&mut self, now: Now) {
        if self.fresh <= self.env.config.limits.handshakes {
            return;
        }
        let Some((slot, since_ms)) = self.oldest_handshake() else { return };
        if has_had_its_time(since_ms, now)
            && let Some(session) = self.sessions.get_mut(slot)
        {
            session.link.counted_fresh = false;
            session.link.lost();
            self.handshakes.pop_front();
            self.fresh -= 1;
            self.counters.refused_handshake.add(1);
            self.list(slot);
        }
    }

    fn oldest_handshake(&mut self) -> Option<(Slot, u64)> {
        loop {
            let oldest = *self.handshakes.front()?;
            if self.sessions.get_mut(oldest.0).is_some_and(|it| it.link.counted_fresh) {
                return Some(oldest);
            }
            self.handshakes.pop_front();
        }
    }

    /// Closes at most `count` idle HTTP connections, those idle for longest first, to free their
    /// slots. Returns the number closed. It visits every connection.
    pub fn close_idle(&mut self, count: usize) -> usize {
        let mut idle = Vec::new();
        for index in 0..self.sessions.end() {
            if let Some(slot) = self.sessions.slot_at(index)
                && let Some(until) = self.sessions.get_mut(slot).and_then(|it| it.idle_until())
            {
                idle.push((until, slot));
            }
        }
        if idle.len() > count {
            idle.select_nth_unstable_by_key(count, |(until, _)| *until);
            idle.truncate(count);
        }
        for (_, slot) in &idle {
            self.lost(*slot);
        }
        self.counters.idle_closed.add(idle.len() as u64);
        idle.len()
    }
}

fn has_had_its_time(since_ms: u64, now: Now) -> bool {
    now.ms.saturating_sub(since_ms) >= HANDSHAKE_MIN_MS
}
