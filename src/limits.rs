//! Every bound in one place, with the relations between them checked at compile time.
//!
//! A bound that an operator may want to move is a default here and a key in the configuration.

/// Frames that leave in one vectored send; one `iovec` each.
pub const FRAMES_PER_SEND: usize = 64;
/// Reactors in one process: the width of an interest bitmap.
pub const MAX_CORES: usize = 256;

/// Servers behind one route.
pub const UPSTREAMS: usize = 256;

/// Connections of one reactor: the kernel's bound on a ring's file table.
pub const REACTOR_CONNECTIONS: usize = 1 << 20;

/// Bytes of one HTTP request head: request line, headers and the blank line.
pub const HTTP_HEAD_BYTES: usize = 16 * 1024;
/// Header fields of one HTTP request, by default.
pub const HTTP_HEADERS: usize = 64;
/// The most that can be configured. More than the default are read a second time, into a table
/// that is there for the time of the request.
pub const HTTP_HEADERS_MAX: usize = 1024;
/// Bytes of one HTTP request body, by default.
pub const HTTP_BODY_BYTES: usize = 1024 * 1024;
/// Requests of one connection that may wait for their answer at once.
pub const HTTP_PIPELINE: usize = 64;

/// Payload bytes of one WebSocket frame, by default.
pub const WS_FRAME_BYTES: u64 = 16 * 1024 * 1024;
/// Payload bytes of one WebSocket message after reassembly, by default.
pub const WS_MESSAGE_BYTES: u64 = 16 * 1024 * 1024;
/// Frames of one fragmented WebSocket message.
pub const WS_FRAGMENTS: u32 = 128 * 1024;
/// Payload bytes of a control frame (RFC 6455 section 5.5).
pub const WS_CONTROL_BYTES: usize = 125;

/// Bytes of a TLS record's payload (RFC 8446 section 5.1).
pub const TLS_RECORD_BYTES: usize = 16 * 1024;
/// Bytes of a TLS record or handshake message that is not finished, with what came behind it.
pub const TLS_HELD_BYTES: usize = 64 * 1024;
/// Bytes of one channel's picture: what is published there, put together for who subscribes later.
pub const PICTURE_BYTES: usize = 64 * 1024 * 1024;
/// Bytes of replies, pictures among them, that may wait for one peer when a picture is added.
pub const REPLY_BYTES: usize = 1024 * 1024 * 1024;

/// Bytes of notices of what happened to channels that wait on one core for the control thread.
pub const NOTICE_BYTES: usize = 4 * 1024 * 1024;
/// Notices under way from one core to the control thread.
pub const NOTICE_LANE: usize = 1024;
/// Orders under way from the control thread to one core.
pub const ORDER_LANE: usize = 64;
/// Up to so many subscribers every change of their number is told.
pub const COUNT_SMALL: u64 = 100;
/// How often the number is told of a channel with more.
pub const COUNT_EVERY_MS: u64 = 5_000;

const _: () = assert!(HTTP_HEAD_BYTES < HTTP_BODY_BYTES);
const _: () = assert!(HTTP_HEADERS <= HTTP_HEADERS_MAX);
const _: () = assert!(WS_FRAME_BYTES <= WS_MESSAGE_BYTES);
const _: () = assert!(REPLY_BYTES + 3 * PICTURE_BYTES < u32::MAX as usize, "they are counted so");
const _: () = assert!(FRAMES_PER_SEND <= 1024, "the kernel's UIO_MAXIOV");
const _: () = assert!(MAX_CORES.is_multiple_of(64));
