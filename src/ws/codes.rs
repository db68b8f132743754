//! The codes of close frames (RFC 6455 section 7.4).

/// The purpose of the connection is fulfilled.
pub const NORMAL: u16 = 1000;
/// The endpoint goes away: a server shuts down, a page is left.
pub const GOING_AWAY: u16 = 1001;
/// The peer broke the protocol.
pub const PROTOCOL: u16 = 1002;
/// A kind of data that cannot be accepted.
pub const UNSUPPORTED: u16 = 1003;
/// Never on the wire: what a close frame without a code means.
pub const NO_CODE: u16 = 1005;
/// Never on the wire: the connection ended without a close frame.
pub const ABNORMAL: u16 = 1006;
/// Data that does not fit its kind, such as text that is not UTF-8.
pub const INVALID_DATA: u16 = 1007;
/// A message that violates a policy.
pub const POLICY: u16 = 1008;
/// A message that is too big to be processed.
pub const TOO_BIG: u16 = 1009;
/// Something unexpected on our side.
pub const INTERNAL: u16 = 1011;
/// The service restarts; the client may connect again.
pub const RESTART: u16 = 1012;
/// The service is overloaded; the client may connect again later.
pub const TRY_AGAIN: u16 = 1013;
/// This server is a gateway, and its upstream server has given no valid response.
pub const BAD_GATEWAY: u16 = 1014;
