//! Connections of listeners that use TLS.

use super::Shard;
use crate::mem::Slot;
use crate::time::Now;
use std::net::SocketAddr;

/// The maximum capacity of the plaintext buffer that is kept between two calls, in bytes.
const PLAIN_KEPT: usize = 128 * 1024;

impl Shard {
    /// Adds a connection that listener number `listener` accepted at `index`, which must be free.
    pub fn open_at(&mut self, index: u32, peer: SocketAddr, listener: usize, now: Now) -> Slot {
        let slot = self.open_by(listener as u16, index, peer, now);
        let env = self.env.clone();
        let listener = env.listener(listener as u16);
        if !listener.tls.is_on() {
            return slot;
        }
        let filter = listener.tls.acceptor().and_then(|acceptor| acceptor.accept());
        if let Some((session, cx)) = self.session(slot, now) {
            match filter {
                Some(filter) => session.secure(filter, &cx),
                None => {
                    cx.counters.tls_failed.add(1);
                    session.lost();
                }
            }
        }
        slot
    }

    pub(super) fn receive_secure(&mut self, slot: Slot, bytes: &mut [u8], now: Now) {
        let mut plain = std::mem::take(&mut self.plain);
        plain.clear();
        let Some((session, mut cx)) = self.session(slot, now) else { return };
        if session.is_sealed() && (session.is_paused() || cx.work.is_spent()) {
            // A handshake costs much work, so its bytes are held encrypted until a later turn.
            session.hold(bytes);
            self.plain = plain;
            return self.wait_for_turn(slot);
        }
        let ended = session.decrypt(bytes, &mut plain, &mut cx);
        if session.is_paused() {
            session.hold(&plain);
        } else if !plain.is_empty() {
            self.feed_or_hold(slot, &mut plain, now);
        }
        if ended {
            self.eof(slot, now);
        }
        // A connection that has failed is no longer counted among those without a whole request.
        self.after(slot, now);
        self.list(slot);
        if plain.capacity() <= PLAIN_KEPT {
            self.plain = plain;
        }
    }
}
