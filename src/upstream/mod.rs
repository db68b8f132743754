//! Servers behind this one: which of them is chosen, which are put aside, and where they are.
//!
//! Both are functions of what has happened and of the time, and have no socket. All cores share
//! them, by atomics alone on the way of a choice; a lock is taken where a connection is begun, for
//! the addresses of the moment. Nothing of it is on a message's path.

mod names;
mod pool;

pub use names::{Name, Names};
pub use pool::{Balance, Chosen, Pool, PoolOptions, Tried, UpstreamServer};
