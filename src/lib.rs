//! polycast: one WebSocket fan-out server for many protocol dialects, on io_uring or epoll, one
//! thread per core.
//!
//! The modules are layers. A module uses only modules with a smaller layer number; calls go down,
//! data comes back up. `ARCHITECTURE.md` explains the design, this table lists the modules.
//!
//! | layer | module | contents |
//! | --- | --- | --- |
//! | 10 | [`server`] | one pinned thread per core, listeners, signals, drain |
//! | 9 | [`control`] | one thread on an async runtime for the outside world: webhooks, nodes |
//! | 8 | [`reactor`] | the event loop of one core, which owns its driver and its shard |
//! | 7 | [`shard`] | everything that one core owns above its driver: sessions, hub, timers |
//! | 6 | [`cluster`] | several nodes on the log of one engine: entries, appends, position |
//! | 6 | [`session`] | one connection: http, upgrade, ws, dialect; write queue; deadlines |
//! | 5 | [`dialect`], [`gateway`] | the protocols inside messages; the routing of requests |
//! | 4 | [`runtime`] | what is live of a configuration: guards, models, pools, TLS; reload |
//! | 4 | [`uring`], [`epoll`] | the two drivers: every system call of the data plane |
//! | 3 | [`hub`], [`config`] | channels and their subscribers; the typed configuration |
//! | 2 | [`driver`] | what a reactor needs of the kernel: operations and their completions |
//! | 2 | [`ws`], [`http`], [`codec`], [`crypto`], [`tls`] | wire formats |
//! | 2 | [`upstream`] | servers behind this one: addresses and load balancing |
//! | 2 | [`jwt`] | verification of tokens, and how long they are valid |
//! | 2 | [`model`] | validation of messages by schemas |
//! | 1 | [`settings`] | what sections of the configuration are declared with |
//! | 1 | [`mem`], [`simd`] | frozen frames, slot tables, mailboxes; masking |
//! | 0 | [`limits`], [`time`], [`stats`] | every limit; the clock types; counters |
//! | 0 | [`claims`] | what an accepted token or certificate says of its client |
//! | 0 | [`parts`] | the optional parts of the server, which are cargo features |
//! | 0 | [`work`] | the estimated cost of operations, and the limits of one turn |

#![deny(unsafe_code, unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks)]
#![warn(missing_docs, rust_2018_idioms, unreachable_pub)]
// A build without an optional part has helpers that only that part calls.
#![cfg_attr(not(feature = "default"), allow(dead_code))]

// Before all others, because `config` expands the table of dialects, too.
#[macro_use]
pub mod dialect;

pub mod claims;
pub mod cluster;
pub mod codec;
pub mod config;
pub mod control;
pub mod crypto;
pub mod driver;
pub mod epoll;
pub mod gateway;
pub mod http;
pub mod hub;
pub mod jwt;
pub mod limits;
pub mod mem;
pub mod model;
pub mod parts;
pub mod reactor;
pub mod runtime;
pub mod server;
pub mod session;
pub mod settings;
pub mod shard;
pub mod simd;
pub mod stats;
pub mod time;
pub mod tls;
pub mod upstream;
pub mod uring;
pub mod work;
pub mod ws;
