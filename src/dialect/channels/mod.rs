//! The shared engine of all dialects with Pusher-like channels: connections, subscriptions,
//! presence, cache channels, client events, signatures, and the HTTP API that publishes and
//! queries.
//!
//! The engine is independent of the vendor: everything specific to one is in its table
//! ([`VendorData`](data::VendorData)) and its [`Vendor`](vendor::Vendor) implementation, which have
//! a folder of their own.

mod api;
mod authenticate;
mod batch;
pub(super) mod channel;
mod commands;
mod connection;
pub mod data;
mod details;
mod history;
pub mod idempotency;
pub mod ids;
mod links;
mod listen;
pub(super) mod messages;
mod positions;
mod protocol;
mod publish;
mod publisher;
mod reads;
mod reply;
mod room;
pub mod signature;
mod trigger;
mod users;
pub mod vendor;
mod watch;
mod who;

pub use connection::{Connection, socket_id};
