//! What a dialect can read and write during one call, and how it asks for a close.

use super::closing::Closing;
use super::effects::Effects;
use super::env::Env;
use super::zilliqa::NotificationCache;
use crate::claims::Claims;
use crate::codec::json::Scratch;
use crate::config;
use crate::http;
use crate::http::query::{self, PlusSign};
use crate::hub::ConnId;
use crate::mem::{Frozen, Handle};
use crate::time::Now;
use crate::work::Meter;
use crate::ws::output::Output;
use crate::ws::{self, frame};
use std::borrow::Cow;
use std::net::SocketAddr;

/// What a dialect can read and write during one call.
pub struct DialectContext<'a> {
    /// The address of the peer.
    pub peer: SocketAddr,
    /// Bytes of shared frames in the write queue of this peer when the call began.
    pub waiting_bytes: usize,
    /// The current time.
    pub now: Now,
    /// The connection.
    pub conn: ConnId,
    /// The configuration and the applications.
    pub env: &'a Env,
    /// Scratch memory of the JSON parser.
    pub json: &'a mut Scratch,
    /// The output to this peer; text messages are written by [`DialectContext::send_text`].
    pub out: Output<'a>,
    /// State that all connections of this core share.
    pub core_state: &'a mut CoreState,
    /// Frames for this peer that other peers may get too; they are queued after what this call
    /// writes to `out`.
    pub shared: &'a mut Vec<Handle>,
    /// Operations that this call requests from the shard.
    pub effects: Effects<'a>,
    /// The close that this call requests, set by [`DialectContext::close`].
    pub closing: &'a mut Option<Closing>,
    /// The work of this event loop turn so far; a dialect charges each expensive operation to it.
    pub work: &'a Meter,
    /// Whether the server is being shut down.
    pub draining: bool,
}

impl Opening<'_> {
    /// What the client sends of the last event that it has received: the header field
    /// `Last-Event-ID`, which a browser sends when it connects again, or else `lastEventId` of the
    /// query. `None` if it has received no event with an id.
    pub fn last_event_id(&self) -> Option<Cow<'_, str>> {
        let field = self.headers.first("last-event-id").map(|it| str::from_utf8(it).unwrap_or("?"));
        let text = match field.filter(|text| !text.is_empty()) {
            Some(text) => Cow::Borrowed(text),
            None => {
                let value = query::get(self.query, "lastEventId")?;
                query::decode(value, PlusSign::Literal).unwrap_or("?".into())
            }
        };
        Some(text).filter(|text| !text.is_empty())
    }
}

impl DialectContext<'_> {
    /// Sends one text message to this peer.
    pub fn send_text(&mut self, text: &[u8]) {
        // The dialects that use `send_text` have text messages only.
        let _ = self.out.message(ws::MessageKind::Text, text);
    }

    /// Counts an id of a last event with which nothing is resumed, because it cannot be read.
    pub(super) fn count_malformed_id(&self) {
        if let Some(counters) = self.env.runtime.counters.get(usize::from(self.conn.core)) {
            counters.history_malformed.add(1);
        }
    }

    /// Closes the connection after everything that was sent to it. Only the first close of a call
    /// counts.
    pub fn close(&mut self, closing: Closing) {
        self.closing.get_or_insert(closing);
    }
}

/// State that dialects keep for all their connections on one core.
#[derive(Debug, Default)]
pub struct CoreState {
    /// The state of the Zilliqa dialect.
    pub zilliqa: NotificationCache,
}

impl CoreState {
    /// Drops what was cached for the delivery of one event. The shard calls it after it has
    /// delivered a dialect message to all subscribers of a channel on this core.
    pub fn rest(&mut self) {
        self.zilliqa.rest();
    }
}

/// A request to open a WebSocket, as a dialect sees it.
#[derive(Clone, Copy, Debug)]
pub struct Opening<'a> {
    /// The current time.
    pub now: Now,
    /// The connection.
    pub conn: ConnId,
    /// The client's address.
    pub peer: SocketAddr,
    /// The route that admitted the request.
    pub route: &'a config::Route,
    /// The request's path, as received.
    pub path: &'a str,
    /// The request's query, as received.
    pub query: &'a str,
    /// The `Origin` header.
    pub origin: Option<&'a str>,
    /// Whether the connection uses TLS.
    pub secure: bool,
    /// The header fields.
    pub headers: &'a http::Headers<'a>,
    /// The claims of the client's token or certificate, if a guard has read one.
    pub claims: Option<&'a Claims>,
    /// Whether messages go to the client as server-sent events.
    pub receives_events: bool,
}

/// The HTTP error that refuses a WebSocket before its handshake is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The status code.
    pub status: u16,
    /// The error text, for people.
    pub text: Cow<'static, str>,
}

/// The timeouts after which a silent peer is pinged and closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Milliseconds without input after which the peer is sent a ping.
    pub silence_ms: u64,
    /// Further milliseconds without input after which the connection is closed.
    pub answer_ms: u64,
}

/// Builds a frozen text frame whose payload is written by `write`; `scratch` is a buffer to reuse.
pub fn freeze_text(scratch: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) -> Frozen {
    Frozen::new(frame::build(ws::Opcode::Text, scratch, write))
}
