//! What happens to one connection: it is opened, bytes arrive, bytes were sent, and it ends.

use super::Shard;
use crate::dialect::Effects;
use crate::hub::ConnId;
use crate::mem::{Segment, Slot};
use crate::session::{AfterHeader, CloseContext, Session};
use crate::time::Now;
use std::net::SocketAddr;

/// The maximum capacity of the plaintext buffer that is kept between two calls, in bytes.
const PLAIN_KEPT: usize = 128 * 1024;

impl Shard {
    /// Adds a connection that the first listener accepted at `index`, which must be free.
    pub fn open(&mut self, index: u32, peer: SocketAddr, now: Now) -> Slot {
        self.open_by(0, index, peer, now)
    }

    /// Adds a connection that listener number `listener` accepted at `index`, which must be free.
    pub fn open_at(&mut self, index: u32, peer: SocketAddr, listener: usize, now: Now) -> Slot {
        let number = listener as u16;
        let slot = self.open_by(number, index, peer, now);
        let env = self.env.clone();
        if !env.listener(number).tls.is_on() {
            return slot;
        }
        let filter = env.runtime.acceptor(number).and_then(|acceptor| acceptor.accept());
        if let Some((session, cx)) = self.session(slot, now) {
            match filter {
                Some(filter) => session.secure(filter, &cx),
                None => {
                    cx.counters.tls_failed.add(1);
                    session.link.lost();
                }
            }
        }
        slot
    }

    fn open_by(&mut self, listener: u16, index: u32, peer: SocketAddr, now: Now) -> Slot {
        self.counters.connections.add(1);
        let session = Session::new(peer, listener, now, &self.env);
        let slot = self.sessions.insert(index, session);
        self.begin_handshake(slot, now);
        self.list(slot);
        slot
    }

    /// Counts a connection that was just opened for the address of its peer. Returns false if it
    /// must be closed, because the address has too many connections or only proxies may connect:
    /// such a connection takes no other's place.
    pub fn admit(&mut self, slot: Slot, now: Now) -> bool {
        let Some((session, mut cx)) = self.session(slot, now) else { return false };
        let admitted = session.admit(&mut cx);
        if admitted {
            self.make_room_for_handshake(now);
        }
        admitted
    }

    /// Takes bytes that were received from the peer; they are changed in place.
    pub fn receive(&mut self, slot: Slot, bytes: &mut [u8], now: Now) {
        self.counters.received_bytes.add(bytes.len() as u64);
        self.count(slot, bytes.len(), 0);
        self.take(slot, bytes, now);
    }

    /// Takes the first bytes of a connection that may begin with a PROXY header.
    fn take_header(&mut self, slot: Slot, bytes: &mut [u8], now: Now) {
        let Some((session, mut cx)) = self.session(slot, now) else { return };
        match session.read_proxy_header(bytes, &mut cx) {
            AfterHeader::Nothing => self.list(slot),
            AfterHeader::At(at) if at == bytes.len() => {}
            AfterHeader::At(at) => self.take(slot, &mut bytes[at..], now),
            AfterHeader::All(mut bytes) => self.take(slot, &mut bytes, now),
        }
    }

    fn take(&mut self, slot: Slot, bytes: &mut [u8], now: Now) {
        let time = self.turn_time(now);
        match self.sessions.get_mut(slot) {
            Some(session) if session.awaits_proxy_header() => self.take_header(slot, bytes, now),
            Some(session) if session.link.is_secure() => self.receive_secure(slot, bytes, now),
            Some(session) if session.link.is_paused() => {
                session.link.hold(bytes);
                self.charge(slot);
            }
            Some(session) if !self.waiting.busy.is_empty() && !session.link.is_light(time) => {
                session.link.hold(bytes);
                self.wait_for_turn(slot, now);
                self.list(slot);
            }
            Some(_) => self.feed_or_hold(slot, bytes, now),
            None => {}
        }
    }

    pub(super) fn receive_secure(&mut self, slot: Slot, bytes: &mut [u8], now: Now) {
        let (mark, time) = (self.effects.len(), self.turn_time(now));
        let others_wait = !self.waiting.busy.is_empty();
        let mut plain = std::mem::take(&mut self.plain);
        plain.clear();
        let Some((session, mut cx)) = self.session(slot, now) else { return };
        if session.link.is_sealed() && (session.link.is_paused() || cx.work.is_spent()) {
            // A handshake costs much work, so its bytes are held encrypted until a later turn.
            session.link.hold(bytes);
            self.plain = plain;
            return self.wait_for_turn(slot, now);
        }
        let ended = session.decrypt(bytes, &mut plain, &mut cx);
        if session.link.is_paused() {
            session.link.hold(&plain);
        } else if !plain.is_empty() && others_wait && !session.link.is_light(time) {
            session.link.hold(&plain);
            self.wait_for_turn(slot, now);
        } else if !plain.is_empty() {
            self.feed_or_hold(slot, &mut plain, now);
        }
        if ended {
            self.eof(slot, now);
        }
        // A connection that has failed is no longer counted among those without a whole request.
        self.after(slot, mark, now);
        self.list(slot);
        if plain.capacity() <= PLAIN_KEPT {
            self.plain = plain;
        }
    }

    /// Notes that the peer has ended its side of the connection.
    pub fn eof(&mut self, slot: Slot, now: Now) {
        self.serve(slot, now, |session, cx| session.eof(cx));
    }

    /// Notes that `n` bytes of the batch were sent. `whole` is the emptied list of its segments if
    /// the batch is complete.
    pub fn sent(&mut self, slot: Slot, n: usize, whole: Option<Vec<Segment>>, now: Now) {
        self.counters.sent_bytes.add(n as u64);
        self.count(slot, 0, n);
        let Some(session) = self.sessions.get_mut(slot) else { return };
        self.account.sent(slot, n);
        session.sent(whole, now);
        let is_done = session.link.is_done();
        self.try_resume(slot, now);
        match is_done {
            true => self.charge(slot), // As if it had been listed.
            false => self.list(slot),
        }
        self.resume_other_leg(slot, now);
    }

    /// Marks the connection as broken: nothing can be sent to the peer any more.
    pub fn lost(&mut self, slot: Slot) {
        if let Some(session) = self.sessions.get_mut(slot) {
            session.link.lost();
            self.list(slot);
        }
    }

    /// Removes a closed connection and frees its slot.
    pub fn close(&mut self, slot: Slot) {
        if let Some(session) = self.sessions.remove(slot) {
            self.fresh -= usize::from(session.link.counted_fresh);
            if session.link.is_charged() {
                self.env.runtime.addresses.leave(session.link.peer().ip());
            }
            self.counters.upstreams.sub(session.is_upstream().into());
            self.account.forget(slot);
            let core = CloseContext {
                env: &self.env,
                counters: &self.counters,
                codecs: &mut self.codecs,
                effects: Effects::new(slot, &mut self.closing_effects),
                draining: self.drain.is_some(),
            };
            session.close(ConnId { core: self.core, slot }, core);
            self.leave_all(slot);
            self.counters.connections.sub(1);
        }
    }

    /// Counts bytes of a connection if it is a client's WebSocket.
    fn count(&mut self, slot: Slot, received: usize, sent: usize) {
        if self.env.config.metrics.zilla
            && let Some(session) = self.sessions.get_mut(slot)
        {
            session.count(received, sent, &self.counters);
        }
    }
}
