//! The shared engine of all dialects with Pusher-like channels: connections, subscriptions,
//! presence, cache channels, client events, signatures, and the HTTP API that publishes and
//! queries.
//!
//! The engine is independent of the vendor: everything specific to one is in its
//! [`Vendor`](vendor::Vendor) implementation, which has a folder of its own.

mod api;
mod batch;
pub(super) mod channel;
mod commands;
mod connection;
pub mod ids;
mod protocol;
mod reads;
pub(super) mod reply;
pub mod signature;
mod trigger;
mod users;
pub mod vendor;
mod watch;
mod who;

pub use connection::{Connection, socket_id};
