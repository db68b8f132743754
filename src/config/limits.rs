//! The section `limits`: limits of the whole server.

use serde::Deserialize;

use super::error::Error;
use super::range::{GIB, at_most, power_of_two, range};
use super::size;
use crate::limits;
use crate::limits::{HTTP_HEADERS_MAX, WS_CONTROL_BYTES};

/// Limits of the whole server.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct Limits {
    /// Maximum number of connections of the process; 0 (default) is what the kernel's limit of open
    /// files allows.
    pub connections: usize,
    /// Number of application WebSockets on the whole process from which the server counts as
    /// overloaded and refuses further ones with close code 4100. 0 (default) is never.
    pub overload_sockets: usize,
    /// Number of bytes that wait to be written, over all connections of the process, from which the
    /// server counts as overloaded. 0 (default) to 1024 GiB; 0 is never.
    #[serde(deserialize_with = "size::wide")]
    pub overload_bytes: u64,
    /// Number of bytes that connections and channels may hold on the whole process. 16 MiB to 65536
    /// GiB; 0 (default) is half of the memory that is available to the process.
    #[serde(deserialize_with = "size::wide")]
    pub memory_bytes: u64,
    /// Minimum rate in bytes per second at which a peer must read what waits for it, averaged over
    /// `timeouts.send_ms`; a slower peer is closed. 0 to 1048576, default 1024; 0 is no minimum.
    pub min_bytes_per_s: u64,
    /// Maximum number of connections from one peer address; 0 (default) is unlimited.
    pub connections_per_address: usize,
    /// Maximum number of connections of one reactor that have not sent a whole request yet. At the
    /// limit, further connections wait in the listen backlog, and the oldest silent connection is
    /// closed after two seconds. 1 to 1048576, default 8192.
    pub handshakes: usize,
    /// Maximum number of pings, pongs, empty messages and empty fragments from one client per
    /// second; the connection is closed beyond it. 10 to 60000, default 2000.
    pub control_frames_per_s: u16,
    /// Maximum size in bytes of cached last events and topic pictures on one reactor; beyond it the
    /// oldest are evicted. 0 to 64 GiB, default 64 MiB.
    #[serde(deserialize_with = "size::memory")]
    pub cached_bytes: usize,
    /// Number of receive buffers of one reactor. A power of two, 16 to 32768, default 1024.
    pub receive_buffers: usize,
    /// Size of one receive buffer in bytes. 512 to 65536, default 4096.
    #[serde(deserialize_with = "size::memory")]
    pub receive_buffer_bytes: usize,
    /// Maximum size of the write queue of one connection in bytes. 64 KiB to 1 GiB, default 1 MiB.
    #[serde(deserialize_with = "size::memory")]
    pub write_queue_bytes: usize,
    /// Capacity in messages of the mailbox from one reactor to another one. A power of two, 16 to
    /// 1048576, default 4096.
    pub mailbox_messages: usize,
    /// Maximum payload of one WebSocket frame from a client, in bytes. 125 to 1 GiB and at most
    /// `message_bytes`, default 16 MiB.
    #[serde(deserialize_with = "size::wide")]
    pub frame_bytes: u64,
    /// Maximum payload of one WebSocket message from a client after reassembly, in bytes. 125 to 1
    /// GiB, default 16 MiB.
    #[serde(deserialize_with = "size::wide")]
    pub message_bytes: u64,
    /// Maximum payload of one WebSocket message in bytes on routes with a model. 125 to 1 GiB,
    /// default 1 MiB.
    #[serde(deserialize_with = "size::wide")]
    pub model_message_bytes: u64,
    /// Maximum number of frames of one fragmented WebSocket message. 1 to 16777216, default 131072.
    pub fragments: u32,
    /// Maximum size of one HTTP request head in bytes. 1 KiB to 64 KiB and at most
    /// `http_body_bytes`, default 16 KiB.
    #[serde(deserialize_with = "size::memory")]
    pub http_head_bytes: usize,
    /// Maximum number of header fields of one HTTP request. 16 to 1024, default 64.
    pub http_head_fields: usize,
    /// Maximum size of one HTTP request body in bytes. 1 KiB to 1 GiB, default 1 MiB.
    #[serde(deserialize_with = "size::memory")]
    pub http_body_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 0,
            overload_sockets: 0,
            overload_bytes: 0,
            memory_bytes: 0,
            min_bytes_per_s: 1024,
            connections_per_address: 0,
            handshakes: 8192,
            control_frames_per_s: 2000,
            cached_bytes: 64 * 1024 * 1024,
            receive_buffers: 1024,
            receive_buffer_bytes: 4096,
            write_queue_bytes: 1024 * 1024,
            mailbox_messages: 4096,
            frame_bytes: limits::WS_FRAME_BYTES,
            message_bytes: limits::WS_MESSAGE_BYTES,
            model_message_bytes: limits::MODEL_MESSAGE_BYTES,
            fragments: limits::WS_FRAGMENTS,
            http_head_bytes: limits::HTTP_HEAD_BYTES,
            http_head_fields: limits::HTTP_HEADERS,
            http_body_bytes: limits::HTTP_BODY_BYTES,
        }
    }
}

pub(super) fn check(limits: &Limits) -> Result<(), Error> {
    let queue = limits.write_queue_bytes as u64;
    let (head, body) = (limits.http_head_bytes as u64, limits.http_body_bytes as u64);
    let buffer = limits.receive_buffer_bytes as u64;
    let fragments = limits.fragments.into();
    let control = WS_CONTROL_BYTES as u64;
    range("limits.handshakes", limits.handshakes as u64, 1..=1 << 20, "")?;
    range("limits.cached_bytes", limits.cached_bytes as u64, 0..=64 * GIB, " bytes")?;
    range("limits.overload_bytes", limits.overload_bytes, 0..=1024 * GIB, " bytes")?;
    if limits.memory_bytes > 0 {
        range("limits.memory_bytes", limits.memory_bytes, 16 << 20..=64 * 1024 * GIB, " bytes")?;
    }
    range("limits.min_bytes_per_s", limits.min_bytes_per_s, 0..=1 << 20, " bytes")?;
    let control_frames = limits.control_frames_per_s.into();
    range("limits.control_frames_per_s", control_frames, 10..=60_000, "")?;
    power_of_two("limits.receive_buffers", limits.receive_buffers, 16..=32_768)?;
    range("limits.receive_buffer_bytes", buffer, 512..=65_536, " bytes")?;
    range("limits.write_queue_bytes", queue, 65_536..=GIB, " bytes")?;
    power_of_two("limits.mailbox_messages", limits.mailbox_messages, 16..=1 << 20)?;
    range("limits.frame_bytes", limits.frame_bytes, control..=GIB, " bytes")?;
    range("limits.message_bytes", limits.message_bytes, control..=GIB, " bytes")?;
    let modelled = limits.model_message_bytes;
    range("limits.model_message_bytes", modelled, control..=GIB, " bytes")?;
    range("limits.fragments", fragments, 1..=1 << 24, "")?;
    range("limits.http_head_bytes", head, 1024..=65_536, " bytes")?;
    let fields = limits.http_head_fields as u64;
    range("limits.http_head_fields", fields, 16..=HTTP_HEADERS_MAX as u64, "")?;
    range("limits.http_body_bytes", body, 1024..=GIB, " bytes")?;
    let frame = limits.frame_bytes;
    at_most("limits.frame_bytes", frame, "limits.message_bytes", limits.message_bytes)?;
    at_most("limits.http_head_bytes", head, "limits.http_body_bytes", body)
}
