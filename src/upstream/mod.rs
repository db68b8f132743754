//! Upstream servers of proxied routes: which of them is chosen for a connection, which are out of
//! service, and their present addresses.
//!
//! This module has no socket and no clock: it is a function of events and time. All cores share
//! its state. A choice uses atomics only; a lock is taken for the addresses when a connection is
//! opened. No message passes through this module.

mod failure;
mod names;
mod pool;

pub use failure::UpstreamFailure;
pub use names::{Name, Names};
pub use pool::{Balance, Chosen, Pool, PoolOptions, Tried, UpstreamServer};
