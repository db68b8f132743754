//! The context in which a session runs.

use super::dial::MaskKeys;
use crate::codec::json::Scratch;
use crate::dialect::{Closing, CoreState, DialectContext, Effect, EffectList, Effects, Env};
use crate::hub::ConnId;
use crate::mem::Handle;
use crate::stats::Counters;
use crate::time::Now;
use crate::tls::PeerCertificate;
use crate::work::{CONNECTION_FAILURES, Meter};
use crate::ws::output::{Channel, Codecs, Output};
use std::net::SocketAddr;
use std::sync::Arc;

/// What a session can use during one call.
pub struct Context<'a> {
    /// The time of the call.
    pub now: Now,
    /// The connection's id in this process.
    pub conn: ConnId,
    /// The client's address: the peer's, unless a trusted proxy has named another.
    pub peer: SocketAddr,
    /// The address of who sends the requests: the client's, or that of a proxy.
    pub sender: SocketAddr,
    /// Whether the connection is counted for the client's address.
    pub charged: bool,
    /// The number of the listener that accepted the connection.
    pub listener: u16,
    /// The configuration and the applications.
    pub env: &'a Env,
    /// Bytes of shared frames in the connection's write queue.
    pub waiting_bytes: usize,
    /// Memory for the JSON parser.
    pub json: &'a mut Scratch,
    /// The compressors and decompressors of this core.
    pub codecs: &'a mut Codecs,
    /// The state that all connections of this core share.
    pub core_state: &'a mut CoreState,
    /// Frames that a dialect shares among connections, before they are queued.
    pub shared: &'a mut Vec<Handle>,
    /// Effects that the session requests of the shard.
    pub effects: &'a mut EffectList,
    /// Random keys for masks and handshakes.
    pub keys: &'a mut MaskKeys,
    /// The counters of this core.
    pub counters: &'a Counters,
    /// The work of this turn so far.
    pub work: &'a Meter,
    /// The number of earlier tokens of this connection that were not accepted.
    pub failures: u8,
    /// Whether the server is draining.
    pub draining: bool,
    /// Whether requests to other cores wait at their bound.
    pub congested: bool,
    /// Whether the client uses TLS, to this server or to a trusted proxy.
    pub secure: bool,
    /// The client's certificate while the connection is in its HTTP stage.
    pub identity: Option<Arc<PeerCertificate>>,
}

impl Context<'_> {
    /// Requests an effect for this connection.
    pub(super) fn request(&mut self, effect: Effect) {
        self.effects.push_back((self.conn.slot, effect));
    }

    /// Whether the connection is to be closed because too many of its tokens were not accepted,
    /// those of the current message included.
    pub fn has_failed_too_often(&self) -> bool {
        self.failures.saturating_add(self.work.failures()) >= CONNECTION_FAILURES
    }
}

/// The context of a dialect, made from the context of a session.
pub(super) fn context<'c>(
    bytes: &'c mut Vec<u8>,
    channel: Option<&'c mut Channel>,
    closing: &'c mut Option<Closing>,
    cx: &'c mut Context<'_>,
) -> DialectContext<'c> {
    let out = match channel {
        Some(channel) => channel.output(bytes, cx.codecs),
        None => Output::plain(bytes),
    };
    DialectContext {
        now: cx.now,
        conn: cx.conn,
        env: cx.env,
        json: cx.json,
        out,
        core_state: cx.core_state,
        shared: cx.shared,
        effects: Effects::new(cx.conn.slot, cx.effects),
        closing,
        work: cx.work,
        peer: cx.peer,
        waiting_bytes: cx.waiting_bytes,
        draining: cx.draining,
    }
}
