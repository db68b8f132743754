//! What a session works with.

use super::{MaskKeys, ProxyEffect};
use crate::codec::json::Scratch;
use crate::dialect::{Closing, CoreState, DialectContext, Effect, Env};
use crate::hub::ConnId;
use crate::mem::Handle;
use crate::stats::Counters;
use crate::time::Now;
use crate::tls::PeerCertificate;
use crate::work::{CONNECTION_FAILURES, Meter};
use crate::ws::output::{Channel, Codecs, Output};
use std::net::SocketAddr;
use std::sync::Arc;

/// What a session works with during one call.
pub struct Context<'a> {
    /// The time.
    pub now: Now,
    /// The connection's name in this process.
    pub conn: ConnId,
    /// The address of its other end.
    pub peer: SocketAddr,
    /// The number of the listener that it came by.
    pub listener: u16,
    /// Configuration and applications.
    pub env: &'a Env,
    /// Bytes of shared frames that wait to be written to it.
    pub waiting_bytes: usize,
    /// Parser memory.
    pub json: &'a mut Scratch,
    /// Compressors and decompressors.
    pub codecs: &'a mut Codecs,
    /// What connections of this core have in common.
    pub core_state: &'a mut CoreState,
    /// Frames that a dialect shares among connections, on their way to the queue.
    pub shared: &'a mut Vec<Handle>,
    /// What is asked of the shard.
    pub effects: &'a mut Vec<Effect>,
    /// What is asked of it beside that.
    pub proxy_effects: &'a mut Vec<ProxyEffect>,
    /// Keys for masks and handshakes.
    pub keys: &'a mut MaskKeys,
    /// What is counted.
    pub counters: &'a Counters,
    /// What this turn has cost so far.
    pub work: &'a Meter,
    /// Tokens that the connection has brought before and that were not believed.
    pub failures: u8,
    /// Whether the server is being shut down.
    pub draining: bool,
    /// Whether other cores cannot take more requests from this one.
    pub congested: bool,
    /// Whether the connection is encrypted.
    pub secure: bool,
    /// Who the client of a request has proved to be by its certificate.
    pub identity: Option<Arc<PeerCertificate>>,
}

impl Context<'_> {
    /// Whether the connection is to be closed for tokens that are not believed, the last of which
    /// may have come with this message.
    pub fn has_failed_too_often(&self) -> bool {
        self.failures.saturating_add(self.work.failures()) >= CONNECTION_FAILURES
    }
}

/// A dialect's context, over a session's surroundings.
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
        effects: cx.effects,
        closing,
        work: cx.work,
        peer: cx.peer,
        waiting_bytes: cx.waiting_bytes,
        draining: cx.draining,
    }
}
