//! All limits, with the relations between them checked at compile time.
//!
//! A limit that operators may change is only a default here, and a key in the configuration.

/// The maximum number of frames in one vectored send, one `iovec` each.
pub const FRAMES_PER_SEND: usize = 64;
/// The maximum number of reactors in one process: the width of an interest bitmap.
pub const MAX_CORES: usize = 256;

/// The maximum number of upstream servers of one route.
pub const UPSTREAMS: usize = 256;

/// The maximum number of connections of one reactor: the kernel's limit of a ring's file table.
pub const REACTOR_CONNECTIONS: usize = 1 << 20;

/// The maximum length of a header of the PROXY protocol, version 2, in bytes. Its addresses take at
/// most 232; the rest is for its optional fields.
pub const PROXY_HEADER_BYTES: usize = 4096;
/// The maximum size of an HTTP request head in bytes: request line, headers and the blank line.
pub const HTTP_HEAD_BYTES: usize = 16 * 1024;
/// The default maximum number of header fields of one HTTP request.
pub const HTTP_HEADERS: usize = 64;
/// The largest maximum that can be configured. A head with more fields than the default is parsed a
/// second time, into a table that exists for the time of the request.
pub const HTTP_HEADERS_MAX: usize = 1024;
/// The default maximum size of an HTTP request body in bytes.
pub const HTTP_BODY_BYTES: usize = 1024 * 1024;
/// The maximum number of requests of one connection that may wait for their answers at once.
pub const HTTP_PIPELINE: usize = 64;

/// The default maximum payload of one WebSocket frame, in bytes.
pub const WS_FRAME_BYTES: u64 = 16 * 1024 * 1024;
/// The default maximum payload of one WebSocket message after reassembly, in bytes.
pub const WS_MESSAGE_BYTES: u64 = 16 * 1024 * 1024;
/// The maximum payload, in bytes, of a WebSocket message that a model checks. A document is parsed
/// in full, which takes up to 35 ns and 40 bytes of memory for each of its bytes.
pub const MODEL_MESSAGE_BYTES: u64 = 1024 * 1024;
/// The maximum number of frames of one fragmented WebSocket message.
pub const WS_FRAGMENTS: u32 = 128 * 1024;
/// The maximum payload of a control frame in bytes (RFC 6455 section 5.5).
pub const WS_CONTROL_BYTES: usize = 125;

/// The maximum payload of a TLS record in bytes (RFC 8446 section 5.1).
pub const TLS_RECORD_BYTES: usize = 16 * 1024;
/// The maximum size, in bytes, of an unfinished TLS record or handshake message, with everything
/// received after it.
pub const TLS_HELD_BYTES: usize = 64 * 1024;
/// The maximum size of one channel's picture in bytes. A picture is the merged state that new
/// subscribers get.
pub const PICTURE_BYTES: usize = 64 * 1024 * 1024;
/// The maximum number of bytes of replies, pictures included, that may wait for one peer when a
/// picture is added.
pub const REPLY_BYTES: usize = 1024 * 1024 * 1024;

/// The maximum number of bytes of replies that may wait for one peer after the missed events of a
/// channel's history are added. A client that resumes more is not sent them, and learns that.
pub const REPLAY_BYTES: usize = 16 * 1024 * 1024;

/// The maximum number of bytes of channel events that wait on one core for the control thread.
pub const NOTICE_BYTES: usize = 4 * 1024 * 1024;
/// The capacity, in channel events, of the queue from one core to the control thread.
pub const CHANNEL_EVENT_QUEUE: usize = 1024;
/// The capacity, in commands, of the queue from the control thread to one core.
pub const COMMAND_QUEUE: usize = 64;
/// The number of subscribers up to which every change of a channel's subscriber count is an event.
pub const COUNT_SMALL: u64 = 100;
/// The capacity of the queue of proposals from one core to the thread that follows the cluster's
/// log, and of the queue back.
pub const CLUSTER_QUEUE: usize = 4096;
/// The maximum bytes of events that wait on one core for the process that it replaces. Beyond it
/// that process gets no more events, and closes its subscribers.
pub const RELAY_BYTES: u64 = 16 * 1024 * 1024;
/// The minimum time between two subscriber count events of a channel with more subscribers than
/// [`COUNT_SMALL`], in milliseconds.
pub const COUNT_EVERY_MS: u64 = 5_000;

const _: () = assert!(HTTP_HEAD_BYTES < HTTP_BODY_BYTES);
const _: () = assert!(HTTP_HEADERS <= HTTP_HEADERS_MAX);
const _: () = assert!(WS_FRAME_BYTES <= WS_MESSAGE_BYTES);
const _: () =
    assert!(REPLY_BYTES + 3 * PICTURE_BYTES < u32::MAX as usize, "they are counted in 32 bits");
const _: () = assert!(REPLAY_BYTES < REPLY_BYTES);
const _: () = assert!(FRAMES_PER_SEND <= 1024, "the kernel's UIO_MAXIOV");
const _: () = assert!(MAX_CORES.is_multiple_of(64));
