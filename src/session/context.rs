//! What a session works with.

use super::{MaskKeys, ProxyEffect};
use crate::codec::json::Scratch;
use crate::dialect::{CoreState, Effect, Env};
use crate::hub::ConnId;
use crate::mem::Handle;
use crate::stats::Counters;
use crate::time::Now;
use crate::tls::PeerCertificate;
use crate::ws::output::Codecs;
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
    /// Whether the server is being shut down.
    pub draining: bool,
    /// Whether other cores cannot take more requests from this one.
    pub congested: bool,
    /// Whether the connection is encrypted.
    pub secure: bool,
    /// Who the client of a request has proved to be by its certificate.
    pub identity: Option<Arc<PeerCertificate>>,
}
