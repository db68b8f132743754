//! In place of the Zilliqa dialect, in a build without it. No configuration uses it then.

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

/// The state of one core, which is empty.
#[derive(Debug, Default)]
pub struct NotificationCache;

impl NotificationCache {
    /// Drops nothing.
    pub fn rest(&mut self) {}
}
