//! polycast: one WebSocket fan-out server for many protocol dialects, on io_uring, a thread a core.
//!
//! The crate is a house of floors. A module uses only modules of a smaller floor number; calls go
//! down and data comes back up. `ARCHITECTURE.md` is the guided tour, this page is the map.
//!
//! | floor | module | what lives there |
//! | --- | --- | --- |
//! | 9 | [`server`] | one pinned thread a core, listeners, signals, drain |
//! | 8 | [`control`] | one thread on tokio-uring for the outside world: webhooks, nodes |
//! | 7 | [`reactor`] | the only place that holds a ring and a shard together |
//! | 6 | [`shard`] | all that one core owns: sessions, hub, timers |
//! | 5 | [`session`] | one connection: http, upgrade, ws, dialect; write queue; deadlines |
//! | 4 | [`dialect`], [`gateway`] | what is said inside messages; which endpoint a request gets |
//! | 3 | [`hub`], [`config`] | channels and who hears them; the typed configuration |
//! | 2 | [`uring`], [`ws`], [`http`], [`codec`], [`crypto`], [`tls`] | the kernel; wire formats |
//! | 2 | [`upstream`] | servers behind this one: which is chosen, and where it is |
//! | 2 | [`jwt`] | which tokens are believed, and for how long |
//! | 2 | [`model`] | what a message has to look like, by its schema |
//! | 1 | [`mem`], [`simd`] | frozen frames, slot tables, mailboxes; masking |
//! | 0 | [`limits`], [`time`], [`stats`] | every bound; our own clock; counters |
//! | 0 | [`work`] | what operations cost, and how much of it a turn may hold |

#![deny(unsafe_code, unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks)]
#![warn(missing_docs, rust_2018_idioms, unreachable_pub)]

pub mod codec;
pub mod config;
pub mod control;
pub mod crypto;
pub mod dialect;
pub mod gateway;
pub mod http;
pub mod hub;
pub mod jwt;
pub mod limits;
pub mod mem;
pub mod model;
pub mod reactor;
pub mod server;
pub mod session;
pub mod shard;
pub mod simd;
pub mod stats;
pub mod time;
pub mod tls;
pub mod upstream;
pub mod uring;
pub mod work;
pub mod ws;
