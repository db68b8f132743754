//! HTTP/1.1 heads and bodies (RFC 9110, RFC 9112) without a socket: what a server needs, and the
//! heads of upstream responses.
//!
//! [`Reader`] turns bytes into requests, or into a head and a [`Body`] that is read as it arrives;
//! [`Response`] writes a response; [`query`] parses query strings. Nothing here knows WebSocket
//! beyond the `Upgrade` field.

mod answer;
mod body;
mod chunked;
mod error;
mod framing;
mod head;
mod path;
pub mod query;
mod reader;
mod request;
mod response;
mod sizes;

pub use self::answer::ResponseHead;
pub use self::body::Body;
pub use self::error::Error;
pub use self::framing::BodyChunk;
pub use self::path::NormalPath;
pub use self::reader::{Phase, Reader, RequestEvent};
pub use self::request::{Headers, HttpVersion, Request, is_token_byte};
pub use self::response::{CONTINUE, Connection, Response, push_field, push_number, push_status};
pub use self::sizes::HeadLimits;
