//! Dialects: the vendors' protocols inside WebSocket messages, and their HTTP APIs.
//!
//! A dialect computes its output from its state, a message and the time. It writes to its own peer
//! through [`DialectContext`] and requests everything else by an [`Effect`]. Its two inputs are
//! WebSocket messages, and HTTP requests below its API path.

mod app;
mod apps;
pub mod broadcastt;
pub mod channels;
mod context;
mod effect;
mod env;
mod kind;
mod paths;
mod protocol;
pub mod pusher;
pub mod reflect;
mod reply;
mod setup;
mod table;
pub mod zenith;
pub mod zilliqa;

pub use app::App;
pub use apps::Apps;
pub use channels::ids::SocketIds;
pub use context::{
    Closing, CoreState, DialectContext, Heartbeat, Opening, Rejection, Why, freeze_text,
};
pub use effect::{Effect, JoinOutcome};
pub use env::Env;
pub use paths::{SharedWith, shared_with};
pub use protocol::Dialect;
pub use reply::{Answered, Finish, HttpReply};
pub use table::{Connection, count, is_public, needs_body, on_undelivered, request};
