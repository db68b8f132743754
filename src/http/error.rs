//! Why a request is refused before it is routed.

use super::{Connection, Response};

/// What is wrong with the bytes of a request. Each of these errors ends the connection, because the
/// start of the next request is not certain any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The request line is not `method SP target SP version` (RFC 9112 section 3).
    #[error("malformed request line")]
    RequestLine,
    /// A header field breaks RFC 9112 section 5: its name, its value or its line.
    #[error("malformed header field")]
    HeaderField,
    /// A line of the head ends with LF only. RFC 9112 section 2.2 allows it, and request smuggling
    /// uses it.
    #[error("line ends without CR")]
    BareLineFeed,
    /// More than two blank lines before the request line (RFC 9112 section 2.2 suggests one).
    #[error("too many blank lines before the request")]
    BlankLines,
    /// A target in neither origin-form nor absolute-form (RFC 9112 section 3.2).
    #[error("unsupported request target")]
    Target,
    /// `Host` is missing on HTTP/1.1, repeated, or not a host (RFC 9112 section 3.2).
    #[error("exactly one valid Host is required")]
    Host,
    /// `Content-Length` is repeated or is not a number (RFC 9112 section 6.3).
    #[error("invalid Content-Length")]
    ContentLength,
    /// Both `Content-Length` and `Transfer-Encoding` (RFC 9112 section 6.3, item 3).
    #[error("both Content-Length and Transfer-Encoding")]
    TwoLengths,
    /// `Transfer-Encoding` on HTTP/1.0, or without `chunked` as the last coding (RFC 9112 section
    /// 6.1).
    #[error("invalid Transfer-Encoding")]
    TransferEncoding,
    /// A chunk's size line, end or trailer is malformed (RFC 9112 section 7.1).
    #[error("malformed chunked body")]
    Chunk,
    /// The body is longer than the limit.
    #[error("request body too large")]
    BodyTooLarge,
    /// The request line alone exceeds the limit of the head.
    #[error("request target too long")]
    TargetTooLong,
    /// The head, or the trailers after a body, exceed the limit of the head.
    #[error("request head too large")]
    HeadTooLarge,
    /// More header fields than the limit.
    #[error("too many header fields")]
    TooManyHeaders,
    /// A transfer coding other than `chunked` (RFC 9112 section 6.1).
    #[error("unsupported transfer coding")]
    TransferCoding,
    /// A version other than 1.0 and 1.1.
    #[error("unsupported HTTP version")]
    Version,
}

impl Error {
    /// The status of the response.
    pub fn status(self) -> u16 {
        match self {
            Error::BodyTooLarge => 413,
            Error::TargetTooLong => 414,
            Error::HeadTooLarge | Error::TooManyHeaders => 431,
            Error::TransferCoding => 501,
            Error::Version => 505,
            _ => 400,
        }
    }

    /// Writes the whole response, with one line of text that says what is wrong. The connection is
    /// closed after it.
    pub fn respond(self, out: &mut Vec<u8>) {
        Response::text(self.status(), &format!("{self}\n")).connection(Connection::Close).push(out);
    }
}
