//! Several nodes that serve the same channels: what a node sends to the log of the engine, and what
//! it does with what comes back. No sockets and no clock: an [`Engine`] stores and orders.
//!
//! Every event that a node publishes is a part of an entry of the log ([`entry`]). It takes effect
//! on all nodes, the publishing one included, when it comes back with its sequence number. So all
//! nodes deliver the events of a channel in one order, that of the log.
//!
//! A [`ClusterNode`] has two halves. The [`queue`] sends entries and waits until they are stored;
//! what is not answered is sent again, in order, and the engine drops what it has already. The
//! [`follower`] knows the position up to which this node has applied the log; after any
//! interruption the delivery begins again after it, so that nothing is missing or applied twice.
//! Which [`nodes`] there are, and that one of them is dead, are entries of the log, too, and so is
//! how many connections each of them may admit (`reservations`), and whose subscribers they count
//! (`counting`). What a node has skipped of an application, because its configuration did not have
//! that yet, it reads later (`added`).

mod added;
mod arrival;
mod awaited;
mod counting;
mod engine;
pub mod entry;
mod epochs;
mod events;
pub mod follower;
mod keys;
mod node;
pub mod nodes;
mod places;
pub mod queue;
mod repeats;
mod reservations;
pub mod sim;
mod states;
pub mod subject;

pub use arrival::{AddedStart, Arrival};
pub use engine::{Append, Engine, EngineEvent, LogInfo, Refusal};
pub use events::{event_of, part_of};
pub use node::{ClusterNode, NodeSetup, NodeTime};
