//! What a dialect decides without a connection: its subprotocols, its HTTP API, and what it knows
//! about channels by their names.

use super::content::Content;
use super::context::{DialectContext, Opening, Rejection};
use super::effects::Effects;
use super::env::Env;
use super::reply::{Answered, HttpReply, no_such_target};
use crate::dialect::DialectMessage;
use crate::dialect::Event;
use crate::http;
use crate::hub::HistoryLimit;
use crate::mem::Frozen;
use crate::ws::event_ids::EventIds;

/// How much is kept of the events of a channel with positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelHistory {
    /// The limit by which the channel's home keeps its history.
    pub limit: HistoryLimit,
    /// The maximum number of events that a client without a position may ask for.
    pub rewind: u32,
}

/// A vendor's protocol apart from its connections.
pub trait DialectApi: Sized {
    /// Selects one of the offered subprotocols (RFC 6455 section 4.2.2), before the handshake is
    /// answered. `None` selects no subprotocol.
    ///
    /// # Errors
    /// The request is refused with an HTTP status, such as when no offered subprotocol is
    /// supported.
    fn subprotocol<'a>(_env: &Env, _opening: &Opening<'a>) -> Result<Option<&'a str>, Rejection> {
        Ok(None)
    }

    /// Opens a connection of a client that only receives, for a request whose path names
    /// application `app` and whose response is a stream of server-sent events. The connection
    /// receives nothing from its peer. The response begins after this call, so that nothing may be
    /// sent yet. Returned besides it are the positions that ids of the stream have, if it is one of
    /// several channels with a history, as the client has sent them.
    ///
    /// # Errors
    /// The reply that refuses the request.
    fn listen(
        _context: &mut DialectContext<'_>,
        _app: u32,
        opening: &Opening<'_>,
    ) -> Result<(Self, EventIds), HttpReply> {
        Err(no_such_target(opening.path))
    }

    /// Whether a client may subscribe to a channel of this name without authorisation.
    fn is_public(_name: &str) -> bool {
        false
    }

    /// The frame that reports `count` subscriptions to the subscribers of a channel, if the dialect
    /// reports them.
    fn count(_env: &Env, _app: u32, _name: &str, _count: u64) -> Option<Frozen> {
        None
    }

    /// The content of an event that was published in this dialect, for the subscribers of linked
    /// channels. `None` if they do not receive it, such as an event of the protocol itself.
    fn content(_event: &Event) -> Option<Content<'_>> {
        None
    }

    /// How much is kept of the events of a channel of this dialect, if its events have positions.
    fn history(_env: &Env, _app: u32, _name: &str) -> Option<ChannelHistory> {
        None
    }

    /// The event with this content on a channel of this dialect, as a publisher would publish it.
    /// `None` if the dialect cannot express it. The content has a name.
    fn linked_event(_env: &Env, _app: u32, _name: &str, _content: &Content<'_>) -> Option<Event> {
        None
    }

    /// Adds the effects of a message that cannot be delivered, because its connection has closed.
    /// Every dialect is asked about every such message.
    fn on_undelivered(_what: &DialectMessage, _out: &mut Effects<'_>) {}

    /// Whether the body of an HTTP request is needed, decided by its head alone. If not, the
    /// request is answered without its body, so that an unauthenticated client cannot make the
    /// server read one.
    fn needs_body(cx: &mut DialectContext<'_>, app: u32, request: &http::Request<'_>) -> bool {
        let _ = (cx, app, request);
        false
    }

    /// Answers an HTTP request for application `app`. `path` is the rest of the path after
    /// `/apps/{id}`.
    fn request(
        context: &mut DialectContext<'_>,
        app: u32,
        path: &str,
        request: &mut http::Request<'_>,
    ) -> Answered {
        let _ = (context, app, request);
        Answered::Now(no_such_target(path))
    }
}
