//! Why no WebSocket to an upstream could be opened, and what follows from it for the client.

/// Why no WebSocket to an upstream could be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamFailure {
    /// The core has no free slot for a further connection.
    NoSlot,
    /// The upstream's name has no address, or the connection could not be established.
    Unreachable,
    /// The connection, or the response, did not come before the deadline.
    Late {
        /// Whether the connection was established before the deadline.
        connected: bool,
    },
    /// The upstream answered with this status, and with this `WWW-Authenticate` challenge if the
    /// status is 401.
    Refused(u16, Option<Box<str>>),
    /// The response violates the protocol, in this way; or the upstream closed the connection
    /// without a response.
    InvalidReply(&'static str),
}

impl UpstreamFailure {
    /// The HTTP status for the client. 401, 403 and 404 of the upstream are about the client's
    /// request and are passed on; any other failure is about the upstream and becomes 502, 503 or
    /// 504.
    pub fn status(&self) -> u16 {
        match self {
            UpstreamFailure::NoSlot => 503,
            UpstreamFailure::Late { .. } => 504,
            UpstreamFailure::Refused(status @ (401 | 403 | 404), _) => *status,
            UpstreamFailure::Unreachable
            | UpstreamFailure::Refused(..)
            | UpstreamFailure::InvalidReply(_) => 502,
        }
    }

    /// Whether another upstream may be tried. A status below 500 is about the client's request, so
    /// no other upstream is tried.
    pub fn may_be_tried_elsewhere(&self) -> bool {
        !matches!(self, UpstreamFailure::NoSlot | UpstreamFailure::Refused(..500, _))
    }

    /// Whether the failure is the upstream's own, independent of the request: it has no connection
    /// or a wrong response, or answered with status 502 to 504.
    pub fn is_fault(&self) -> bool {
        !matches!(self, UpstreamFailure::NoSlot | UpstreamFailure::Refused(..502 | 505.., _))
    }

    /// Whether another address of the same upstream may be tried: no connection to this address was
    /// established.
    pub fn is_of_the_address(&self) -> bool {
        matches!(self, UpstreamFailure::Unreachable | UpstreamFailure::Late { connected: false })
    }

    /// The response text, for people.
    pub fn text(&self) -> &'static str {
        match self {
            UpstreamFailure::NoSlot => "no connection is left for the server behind this one",
            UpstreamFailure::Unreachable => "the server behind this one cannot be reached",
            UpstreamFailure::Late { .. } => "the server behind this one has not answered in time",
            UpstreamFailure::Refused(..) => "the server behind this one has refused the connection",
            UpstreamFailure::InvalidReply(_) => {
                "the server behind this one has not opened a WebSocket"
            }
        }
    }
}
