//! The section `limits`: limits of the whole server.

use super::size;
use crate::limits;
use crate::limits::{HTTP_HEADERS_MAX, WS_CONTROL_BYTES};
use crate::settings::error::Error;
use crate::settings::range::{GIB, at_most};
use crate::settings::section::{Section, section};

section! {
    /// Limits of the whole server.
    pub struct Limits {
        /// Maximum number of connections of the process. 0 is what the kernel's limit of open files
        /// allows.
        pub connections: usize = 0;
        /// Number of open application WebSockets on the whole process from which the server counts
        /// as overloaded: further ones are refused with close code 4100, so that their clients
        /// reconnect after a delay, to another node if there is one. 0 is never.
        pub overload_sockets: usize = 0;
        /// Number of bytes waiting to be written to all connections together from which the server
        /// counts as overloaded in the same way, measured within the last quarter of a second. 0 is
        /// never.
        #[serde(deserialize_with = "size::wide")]
        pub overload_bytes: u64 = 0, bytes(0..=1024 * GIB);
        /// Maximum memory that connections and channels may hold together, an equal share on each
        /// reactor: unfinished messages and requests, data that waits to be written (a frame that
        /// many connections share counts once), decompressed messages, tables of channels, cached
        /// events. At 80 % of a share, reading is paused on the connections that hold most, if they
        /// hold at least 64 KiB; at 90 % no further connections are accepted; at 95 % the
        /// connections that hold most are closed, and where reading stays paused for 5 seconds,
        /// those that have held most for the longest time without progress: with 1013, with 503, or
        /// at once if more than 64 KiB wait for the client to read. The process needs a fixed base
        /// beside it: what it holds when idle (about 15 MiB, and the receive_buffers of further
        /// reactors), and up to 96 MiB of memory that was freed in the last moments. 0 is half of
        /// the memory that is available to the process at its start (MemAvailable, or the limit of
        /// its control group if that is less).
        #[serde(deserialize_with = "size::wide")]
        pub memory_bytes: u64 = 0, bytes_or_zero(16 << 20..=64 * 1024 * GIB);
        /// Minimum rate in bytes per second at which a peer must read the data that waits for it,
        /// averaged over timeouts.send_ms; a slower peer is closed. 0 is no minimum.
        pub min_bytes_per_s: u64 = 1024, plain_bytes(0..=1 << 20);
        /// Maximum number of connections from one peer address. 0 is unlimited.
        pub connections_per_address: usize = 0;
        /// Maximum number of connections of one reactor that have not sent a whole request yet. At
        /// this limit, new connections wait in the system's listen backlog; a connection that has
        /// sent no whole request for two seconds is closed to make room for them.
        pub handshakes: usize = 8192, count(1..=1 << 20);
        /// Maximum number of pings, pongs, empty messages and empty fragments from one client per
        /// second; the connection is closed beyond it (1008).
        pub control_frames_per_s: u16 = 2000, count(10..=60_000);
        /// Maximum size of the cached last events of cache channels, the histories of channels and
        /// groups, and the pictures (merged states) of topics on one reactor; beyond it the oldest
        /// are removed.
        #[serde(deserialize_with = "size::memory")]
        pub cached_bytes: usize = 64 * 1024 * 1024, bytes(0..=64 * GIB);
        /// Number of receive buffers of one reactor.
        pub receive_buffers: usize = 1024, power_of_two(16..=32_768);
        /// Size of one receive buffer.
        #[serde(deserialize_with = "size::memory")]
        pub receive_buffer_bytes: usize = 4096, bytes(512..=65_536);
        /// Maximum size of the write queue of one connection; each frame of a broadcast counts for
        /// 64 bytes more than its size.
        #[serde(deserialize_with = "size::memory")]
        pub write_queue_bytes: usize = 1024 * 1024, bytes(65_536..=GIB);
        /// Capacity of the mailbox from one reactor to another, in messages.
        pub mailbox_messages: usize = 4096, power_of_two(16..=1 << 20);
        /// Maximum payload of one WebSocket frame from a client. At most message_bytes.
        #[serde(deserialize_with = "size::wide")]
        pub frame_bytes: u64 = limits::WS_FRAME_BYTES, bytes(WS_CONTROL_BYTES as u64..=GIB);
        /// Maximum payload of one WebSocket message from a client, after reassembly.
        #[serde(deserialize_with = "size::wide")]
        pub message_bytes: u64 = limits::WS_MESSAGE_BYTES, bytes(WS_CONTROL_BYTES as u64..=GIB);
        /// Maximum payload of one WebSocket message on routes with a model, if it is less than
        /// message_bytes. A model reads each message in full, which takes 10 to 35 ms for each MiB
        /// of JSON with a schema, and up to 40 times the message's size in memory.
        #[serde(deserialize_with = "size::wide")]
        pub model_message_bytes: u64 =
            limits::MODEL_MESSAGE_BYTES, bytes(WS_CONTROL_BYTES as u64..=GIB);
        /// Maximum number of frames of one fragmented WebSocket message.
        pub fragments: u32 = limits::WS_FRAGMENTS, count(1..=1 << 24);
        /// Maximum size of the head of one HTTP request: request line and header fields. At most
        /// http_body_bytes.
        #[serde(deserialize_with = "size::memory")]
        pub http_head_bytes: usize = limits::HTTP_HEAD_BYTES, bytes(1024..=65_536);
        /// Maximum number of header fields of one HTTP request; a request with more is answered
        /// with 431. The response of a proxy's upstream server may have 64.
        pub http_head_fields: usize = limits::HTTP_HEADERS, count(16..=HTTP_HEADERS_MAX as u64);
        /// Maximum size of the body of one HTTP request.
        #[serde(deserialize_with = "size::memory")]
        pub http_body_bytes: usize = limits::HTTP_BODY_BYTES, bytes(1024..=GIB);
    }
}

/// Checks ranges and relations; the keys in errors are relative to the section.
pub(super) fn check(limits: &Limits) -> Result<(), Error> {
    limits.check_ranges()?;
    at_most("frame_bytes", limits.frame_bytes, "limits.message_bytes", limits.message_bytes)?;
    let (head, body) = (limits.http_head_bytes as u64, limits.http_body_bytes as u64);
    at_most("http_head_bytes", head, "limits.http_body_bytes", body)
}
