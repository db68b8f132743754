//! Close codes and their reasons. After a code of 4000 or above, the vendor's client does not
//! connect again; after a lower one it does.

use crate::dialect::Closing;
use crate::ws::close;
use std::borrow::Cow;

pub(super) const SLOW: Closing =
    Closing::new(close::GOING_AWAY, "the client does not read what it is sent");
pub(super) const SILENT: Closing = Closing::new(close::POLICY, "nothing was heard from the client");
pub(super) const INTERNAL: Closing =
    Closing::new(close::INTERNAL, "something has gone wrong in the server");
pub(super) const RESTART: Closing = Closing::new(close::RESTART, "the server restarts");

pub(super) const GUESSES: Closing =
    Closing::new(close::POLICY, "too many wrong tokens or passwords");

pub(super) fn invalid(reason: impl Into<Cow<'static, str>>) -> Closing {
    Closing { code: close::INVALID_DATA, reason: reason.into() }
}

pub(super) fn kicked(reason: &'static str) -> Closing {
    Closing::new(4000, reason)
}
