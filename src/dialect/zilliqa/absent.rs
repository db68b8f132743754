//! In place of the Zilliqa dialect, in a build without it. No configuration uses it then.

use crate::dialect::Event;

/// The application number of epochs, as in a build with the dialect.
pub const APP: u32 = u32::MAX - 1;

/// A message of this dialect, of which there is none.
#[derive(Clone, Debug)]
pub enum ZilliqaMessage {}

/// The state that all cores share, which is empty.
#[derive(Debug, Default)]
pub struct Shared;

impl Shared {
    /// Keeps no epochs, whatever the limits are.
    pub fn set_history(&self, _max: usize, _max_bytes: usize) {}

    /// The memory of the epochs that are kept: nothing.
    pub fn history_bytes(&self) -> usize {
        0
    }
}

/// What has become of an epoch of the log of a cluster: there is none.
#[derive(Debug)]
pub enum LoggedEpoch {
    /// The clients get it.
    Published(Event),
    /// It is the one after which epochs are fetched.
    Begun,
    /// It or a later one was published before.
    Late,
    /// It cannot be read.
    Invalid,
}

/// No event is an epoch.
pub fn logged_epoch(_event: &Event) -> Option<(u64, &str)> {
    None
}

/// No epoch can be read.
pub fn epoch_from_log(_shared: &Shared, _number: u64, _document: Vec<u8>) -> LoggedEpoch {
    LoggedEpoch::Invalid
}

/// The state of one core, which is empty.
#[derive(Debug, Default)]
pub struct NotificationCache;

impl NotificationCache {
    /// Drops nothing.
    pub fn rest(&mut self) {}
}
