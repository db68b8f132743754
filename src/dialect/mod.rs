//! Dialects: the vendors' protocols inside WebSocket messages, and their HTTP APIs.
//!
//! A dialect computes its output from its state, a message and the time. It writes to its own peer
//! through [`DialectContext`] and requests everything else by an [`Effect`]. Its two inputs are
//! WebSocket messages, and HTTP requests below its API path.

#[macro_use]
mod table;

mod api;
mod app;
mod apps;
mod bare;
pub mod broadcastt;
pub mod channels;
mod closing;
mod connection;
mod content;
mod context;
mod effects;
mod entry;
mod env;
mod forms;
mod links;
mod log;
mod message;
#[cfg(test)]
mod parrot;
mod paths;
pub mod plain;
mod protocol;
pub mod pusher;
pub mod reflect;
mod reply;
mod room;
mod setup;
mod webhooks;
#[cfg_attr(not(feature = "zenith"), path = "zenith/absent.rs")]
pub mod zenith;
#[cfg_attr(not(feature = "zilliqa"), path = "zilliqa/absent.rs")]
pub mod zilliqa;

pub use api::{ChannelHistory, DialectApi};
pub use app::App;
pub use apps::{Apps, PathError};
pub use channels::ids::SocketIds;
pub use closing::{Closing, Why};
pub use connection::{Connection, count, is_public, needs_body, on_undelivered, request};
pub use content::{Content, ContentData};
pub use context::{CoreState, DialectContext, Heartbeat, Opening, Rejection, freeze_text};
pub use effects::{Effect, EffectList, Effects, JoinOutcome, PeerMessage};
pub use entry::{ChosenBy, DialectEntry, entries};
pub use env::Env;
pub use forms::{
    LinkedPublish, event_from_log, history_of, linked_publish, make_form, page_in_view,
};
pub use links::{LinkedName, Links, Resolved};
pub use log::{
    begin_refresh, direct_of, event_into_log, event_of_log, from_log, has_own_form, into_log,
    note_event, note_member, note_piece, owned_picture, picture_envelope, remove_node,
};
pub use message::{
    DialectMessage, Down, Event, EventPayload, Hub, Join, JoinRequest, Member, MemberChange,
    OutgoingMail, Proposal, RelayDeparture, StateProposal, Up, UserStatus,
};
pub use paths::{SharedWith, admits_events, shared_with};
pub use protocol::{ConnectionEnd, Dialect, DialectEvent, DialectPolicy};
pub use reply::{Answered, Finish, HttpReply};
pub use room::Admission;
pub use webhooks::{EventText, SignatureFields, WebhookFormat};
