//! The Zilliqa WebSocket Server: clients subscribe to new blocks, to the events of contracts and to
//! the payments of accounts, and get one message in each epoch.
//! <https://dev.zilliqa.com/docs/dev/dev-tools-websockets/>

pub mod address;
pub mod epoch;

/// The number of the application under which epochs are published: none that is configured has it.
pub const APP: u32 = u32::MAX - 1;
/// The channel on which epochs are published; every connection of this dialect is subscribed to it.
pub const CHANNEL: &str = "epochs";
