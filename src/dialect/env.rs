//! The configuration and the state that every dialect can look up.

use super::app::App;
use super::apps::Apps;
use super::channels::ids::SocketIds;
use super::links::Links;
use super::zenith::Directory;
use super::zilliqa::Shared;
use crate::config::{self, Config};
use crate::hub::EventMask;
use crate::runtime::Runtime;
use std::sync::Arc;

/// The configuration and the state that every dialect can look up. All cores share it, without a
/// lock around it.
#[derive(Debug)]
pub struct Env {
    /// The configuration.
    pub config: Config,
    /// The live objects that are made from the configuration.
    pub runtime: Runtime,
    /// The applications.
    pub apps: Apps,
    /// Whether any route uses compression, so that events carry their compressed encodings.
    pub compresses: bool,
    /// Whether any route accepts requests with a streamed body.
    pub streams: bool,
    /// The channel events to report of each application, by the application's number.
    pub watched: Arc<[EventMask]>,
    /// Creates and parses the socket ids of connections; the same for all configurations of the
    /// process.
    pub socket_ids: SocketIds,
    /// The state of the Zilliqa dialect that all cores share.
    pub zilliqa: Arc<Shared>,
    /// The sources and views of linked channels.
    pub links: Links,
    /// The tokens, topics and back ends of the Zenith dialect.
    pub zenith: Directory,
}

impl Env {
    /// The listener with this number, which is its position in the configuration at start.
    pub fn listener(&self, number: u16) -> &config::Listener {
        // The configuration has at least one listener.
        let listeners = &self.config.listeners;
        listeners.get(usize::from(number)).unwrap_or(&listeners[0])
    }

    /// Whether the events of `mask` are to be reported for application `app`.
    pub fn watches(&self, app: u32, mask: EventMask) -> bool {
        self.watched.get(app as usize).is_some_and(|watched| watched.has(mask))
    }

    /// The path after the configured prefix; `None` if it does not have that prefix.
    pub fn strip_prefix<'p>(&self, path: &'p str) -> Option<&'p str> {
        let prefix = &*self.config.pusher.path_prefix;
        // The text of an empty `String` is at an address without memory. With AVX-512, comparing no
        // bytes there takes the processor hundreds of cycles, because it suppresses the page fault.
        if prefix.is_empty() { Some(path) } else { path.strip_prefix(prefix) }
    }

    /// Whether clients of an application are served: the process has joined its cluster, and has
    /// read what the log has of an application that a reload has added.
    pub fn serves(&self, app: u32) -> bool {
        self.runtime.cluster.serves() && self.apps.find(app).is_none_or(App::is_read)
    }

    /// Whether the process can serve no further WebSocket now: it has not joined its cluster, or
    /// the open WebSockets of all applications, or the bytes in all write queues, have reached
    /// their limit. A limit of 0 is none.
    pub fn is_overloaded(&self) -> bool {
        if !self.runtime.cluster.serves() {
            return true;
        }
        let (sockets, bytes) = {
            let limits = &self.config.limits;
            (limits.overload_sockets, limits.overload_bytes)
        };
        let waiting =
            || self.runtime.counters.iter().map(|core| core.queued_bytes.get()).sum::<u64>();
        sockets > 0 && self.apps.open_count() >= sockets || bytes > 0 && waiting() >= bytes
    }
}
