//! The maximum sizes of the parts of a request.

use crate::limits::{HTTP_BODY_BYTES, HTTP_HEAD_BYTES, HTTP_HEADERS};

/// The maximum sizes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// The maximum bytes of a head: request line, fields and the blank line. Also the maximum bytes
    /// of a chunked body's framing.
    pub head_bytes: usize,
    /// The maximum number of header fields of a head.
    pub head_fields: usize,
    /// The maximum bytes of a body, decoded.
    pub body_bytes: usize,
}

impl Default for HeadLimits {
    fn default() -> HeadLimits {
        HeadLimits {
            head_bytes: HTTP_HEAD_BYTES,
            head_fields: HTTP_HEADERS,
            body_bytes: HTTP_BODY_BYTES,
        }
    }
}
