//! Why a message or a schema is not valid.

use std::fmt::{self, Display};

/// The maximum length of a reason in bytes. A reason goes into a Close frame (RFC 6455 section
/// 5.5.1).
const REASON_BYTES: usize = 123;

/// Why a message is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// Whether the message is not well-formed in its format. If false, it is well-formed and breaks
    /// a rule of its schema.
    pub malformed: bool,
    /// Whether the message cannot be checked because its schema is not available yet.
    pub missing: bool,
    /// Whether the check exceeded the work limit of one message. The connection is then closed,
    /// whatever `on_invalid` says, because its client could send such messages repeatedly.
    pub costly: bool,
    /// A description of the first error, of at most 123 bytes.
    pub reason: String,
}

impl Invalid {
    pub(super) fn malformed(reason: impl Display) -> Invalid {
        Invalid { malformed: true, missing: false, costly: false, reason: cut(&reason.to_string()) }
    }

    pub(super) fn missing(reason: impl Display) -> Invalid {
        Invalid { malformed: false, missing: true, costly: false, reason: cut(&reason.to_string()) }
    }

    pub(super) fn costly(reason: impl Display) -> Invalid {
        Invalid { costly: true, ..Invalid::broken(reason) }
    }

    pub(super) fn broken(reason: impl Display) -> Invalid {
        Invalid {
            malformed: false,
            missing: false,
            costly: false,
            reason: cut(&reason.to_string()),
        }
    }
}

impl Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

/// The first line of `reason`, cut to [`REASON_BYTES`].
fn cut(reason: &str) -> String {
    let line = reason.lines().next().unwrap_or_default();
    line[..line.floor_char_boundary(REASON_BYTES)].to_owned()
}

/// The text of a schema is not valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadSchema(String);

impl BadSchema {
    pub(super) fn new(reason: impl Display) -> BadSchema {
        BadSchema(reason.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_reason_fits_a_close_frame() {
        assert_eq!(cut("a\nb"), "a");
        assert_eq!(cut(&"x".repeat(123)).len(), 123);
        assert_eq!(cut(&"x".repeat(124)).len(), 123);
        assert_eq!(cut(&format!("{}é", "x".repeat(122))).len(), 122, "no half of a character");
    }
}
