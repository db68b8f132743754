//! What a session works with.

use super::{Errand, Keys};
use crate::codec::json::Scratch;
use crate::dialect::{Action, Desk, Env};
use crate::hub::ConnId;
use crate::mem::Handle;
use crate::stats::Counters;
use crate::time::Now;
use crate::tls::Identity;
use crate::ws::output::Codecs;
use std::net::SocketAddr;
use std::sync::Arc;

/// What a session works with during one call.
pub struct Surroundings<'a> {
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
    /// Parser memory.
    pub json: &'a mut Scratch,
    /// Compressors and decompressors.
    pub codecs: &'a mut Codecs,
    /// What connections of this core have in common.
    pub desk: &'a mut Desk,
    /// Frames that a dialect shares among connections, on their way to the queue.
    pub shared: &'a mut Vec<Handle>,
    /// What is asked of the shard.
    pub actions: &'a mut Vec<Action>,
    /// What is asked of it beside that.
    pub errands: &'a mut Vec<Errand>,
    /// Keys for masks and handshakes.
    pub keys: &'a mut Keys,
    /// What is counted.
    pub counters: &'a Counters,
    /// Whether the server is being shut down.
    pub draining: bool,
    /// Whether other cores cannot take more requests from this one.
    pub congested: bool,
    /// Whether the connection is encrypted.
    pub secure: bool,
    /// Who the client of a request has proved to be by its certificate.
    pub identity: Option<Arc<Identity>>,
}
