//! Counters of client WebSockets by listener, if the configuration enables them.

use super::{Session, Stage};
use crate::stats::Counters;
use crate::ws::close::CloseHandshake;

impl Session {
    /// Counts bytes of a client's WebSocket, and the WebSocket itself with its first bytes. The
    /// first bytes sent are not counted: they are the handshake's response.
    pub fn count(&mut self, received: usize, sent: usize, counters: &Counters) {
        if self.is_upstream() {
            return;
        }
        let Stage::Socket(socket) = &mut self.stage else { return };
        let streams = counters.streams(self.listener);
        streams.received_bytes.add(received as u64);
        if socket.counted {
            streams.sent_bytes.add(sent as u64);
        } else {
            socket.counted = true;
            streams.opened.add(1);
        }
    }

    /// Counts how the WebSocket has ended, if it was counted.
    pub fn count_end(&self, counters: &Counters) {
        let Stage::Socket(socket) = &self.stage else { return };
        if !socket.counted {
            return;
        }
        let streams = counters.streams(self.listener);
        let (received, sent) = match socket.closing {
            CloseHandshake::Open => (0, 0),
            CloseHandshake::Sent => (0, 1),
            CloseHandshake::Received => (1, 0),
            CloseHandshake::Done => (1, 1),
        };
        streams.ended.add(1);
        streams.closes_received.add(received);
        streams.closes_sent.add(sent);
    }
}
