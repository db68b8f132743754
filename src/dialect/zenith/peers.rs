//! How messages reach connections on any node of a cluster.
//!
//! Nodes have no connection to each other: a message to another node is an entry of the log that
//! all nodes read and one takes. What must keep the order of a topic is an entry of that topic's
//! channel, also for connections of this node, because the data before it comes from the log.

use super::messages::ZenithMessage;
use super::peer::ZenithPeer;
use super::wire::APP;
use crate::dialect::{Effect, Event};
use std::sync::Arc;

/// The effect that delivers a message to a connection on any node.
pub(super) fn to_peer(to: ZenithPeer, what: ZenithMessage) -> Effect {
    match to.process {
        0 => Effect::Message { to: to.conn, what: what.into() },
        process => by_log(format!("#\0node\0{process:016x}"), to, Arc::new(what)),
    }
}

/// The effect that delivers a message in the order of a channel; `is_clustered` says whether the
/// process is a node of a cluster.
pub(super) fn to_peer_in_order(
    name: String,
    to: ZenithPeer,
    what: Arc<ZenithMessage>,
    is_clustered: bool,
) -> Effect {
    match to.process {
        0 if !is_clustered => {
            Effect::MessageInOrder { app: APP, name, to: to.conn, what: what.into() }
        }
        _ => by_log(name, to, what),
    }
}

fn by_log(name: String, to: ZenithPeer, what: Arc<ZenithMessage>) -> Effect {
    let event = Event::message(ZenithMessage::Tell(to, what).into());
    Effect::Publish { app: APP, name, event, part: 0 }
}
