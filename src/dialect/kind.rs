//! The names of the dialects.

use crate::config;

/// Names one dialect of the table below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DialectKind {
    /// See [`super::pusher`].
    Pusher,
    /// See [`super::broadcastt`].
    Broadcastt,
    /// See [`super::zilliqa`].
    Zilliqa,
    /// See [`super::zenith`].
    Zenith,
    /// See [`super::reflect`].
    Reflect,
}

impl From<config::AppDialect> for DialectKind {
    fn from(dialect: config::AppDialect) -> DialectKind {
        match dialect {
            config::AppDialect::Pusher => DialectKind::Pusher,
            config::AppDialect::Broadcastt => DialectKind::Broadcastt,
        }
    }
}
