//! What happens to a connection, besides bytes, time and deliveries.

use crate::dialect::{Closing, JoinOutcome, PeerMessage, Why};
use crate::hub::{Answer, Form};
use crate::mem::Slot;

/// What happens to a connection. [`super::Session::on`] takes it.
///
/// Not among these are the bytes and the end of the peer's side, the sweep, and deliveries. A core
/// runs deliveries once for each subscriber, and each returns whether the write queue had room, so
/// they are functions of their own: [`super::Session::deliver`] and
/// [`super::Session::deliver_message`].
#[derive(Debug)]
pub enum SessionEvent<'e> {
    /// A publish or a query of an HTTP request went to other cores: the reply to the request waits
    /// for so many more acknowledgements.
    AcksAwaited {
        /// The HTTP request.
        ticket: u32,
        /// The number of acknowledgements.
        count: u32,
    },
    /// One acknowledgement for the HTTP request with this ticket.
    Acked(u32),
    /// The answer to a query or a publish.
    Answered {
        /// The HTTP request; a WebSocket has no tickets.
        ticket: u32,
        /// The part of the request, or of the dialect's effect.
        part: u16,
        /// The answer.
        answer: Answer,
    },
    /// The outcome of a join.
    Joined {
        /// The name by which the connection knows the channel.
        name: &'e str,
        /// The channel's own name.
        source: &'e str,
        /// The form in which the connection receives the channel's events.
        form: Form,
        /// The outcome.
        outcome: JoinOutcome,
    },
    /// The connection has published to a channel of this name, to which it is not subscribed.
    NotSubscribed(&'e str),
    /// There may be room for the connection, which waits for that, or it may have waited for too
    /// long.
    Room,
    /// The configuration was reloaded.
    Reload,
    /// Another node of the cluster has ended.
    NodeGone,
    /// The application closes the WebSocket, with a code and a reason of its choice.
    Close(&'e Closing),
    /// The server closes the connection for a reason of its own.
    CloseFor(Why),
    /// The core is short of memory: the connection ends, and its input is freed.
    OutOfMemory,
    /// The connection that is being dialled for this client has this slot.
    DialledAt(Slot),
    /// The connect to an upstream has succeeded, or has failed with this errno.
    Connected(Result<(), i32>),
    /// A message from the other leg of a proxied connection, or from the dial that is to become the
    /// other leg.
    Peer(PeerMessage),
    /// So much waits for the peer of the other leg that nothing more is to be read from this one's.
    OtherLegFull,
    /// The peer of the other leg has read enough.
    OtherLegDrained,
}
