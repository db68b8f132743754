//! The interface of a dialect: one vendor's protocol as a function of a connection's state, what
//! has happened to it, and the time.

use super::closing::{Closing, Why};
use super::context::{DialectContext, Heartbeat, Opening, Rejection};
use super::effect::{Effect, JoinOutcome};
use super::env::Env;
use super::reply::Answered;
use crate::codec::Format;
use crate::config::SlowConsumer;
use crate::http;
use crate::hub::{Answer, ConnId, DialectMessage};
use crate::mem::Frozen;
use crate::time::Deadline;
use crate::ws;

/// One vendor's protocol.
pub trait Dialect: Sized {
    /// Selects one of the offered subprotocols (RFC 6455 section 4.2.2), before the handshake is
    /// answered. `None` selects no subprotocol.
    ///
    /// # Errors
    /// The request is refused with an HTTP status, such as when no offered subprotocol is
    /// supported.
    fn subprotocol<'a>(_env: &Env, _opening: &Opening<'a>) -> Result<Option<&'a str>, Rejection> {
        Ok(None)
    }

    /// The format of the messages to this peer, for events that are encoded in several formats
    /// ([`crate::hub::Encodings`]). It does not change while the connection has a subscription.
    fn format(&self) -> Format {
        Format::Json
    }

    /// Creates the state of a connection whose handshake is complete. `None` if the dialect refuses
    /// the connection, which it does by a close.
    fn open(context: &mut DialectContext<'_>, opening: &Opening<'_>) -> Option<Self>;

    /// Handles one complete message of the peer. The dialect may modify `payload`.
    fn message(
        &mut self,
        context: &mut DialectContext<'_>,
        kind: ws::MessageKind,
        payload: &mut [u8],
    );

    /// Handles the outcome of an [`Effect::Join`]. A picture that was requested
    /// (`JoinRequest::picture`) is already queued, in the format of this connection. What this
    /// call sends is queued after the picture, and every update that is not in the picture comes
    /// after that.
    fn joined(&mut self, context: &mut DialectContext<'_>, name: &str, outcome: JoinOutcome);

    /// Handles the refusal of an [`Effect::PublishIfSubscribed`], because this connection is not
    /// subscribed to the channel.
    fn not_subscribed(&mut self, context: &mut DialectContext<'_>, name: &str);

    /// Handles a message from another connection, or from a publisher to a channel of this
    /// connection. What this call adds to [`DialectContext::shared`] counts against
    /// [`Dialect::queue_bytes`]: either all of it is queued, or nothing.
    fn on_message(&mut self, _context: &mut DialectContext<'_>, _what: &DialectMessage) {}

    /// Handles an answer to an [`Effect::Query`] or an [`Effect::Publish`], which had this `part`.
    fn answered(&mut self, _context: &mut DialectContext<'_>, _part: u16, _answer: Answer) {}

    /// Returns the close to use when the session is about to close with `closing`. The dialect may
    /// send messages before the close, and may replace its code and reason.
    fn before_close(&mut self, _context: &mut DialectContext<'_>, closing: Closing) -> Closing {
        closing
    }

    /// Sends the dialect's own ping message to a peer that has not answered a WebSocket ping.
    fn app_ping(&mut self, context: &mut DialectContext<'_>);

    /// Handles a reload of the configuration.
    fn on_reload(&mut self, context: &mut DialectContext<'_>);

    /// The time at which [`Dialect::on_deadline`] is to be called.
    fn deadline(&self) -> Deadline {
        Deadline::NEVER
    }

    /// Handles the deadline of [`Dialect::deadline`].
    fn on_deadline(&mut self, _context: &mut DialectContext<'_>) {}

    /// The dialect's close code and reason for a close by the server.
    fn closing(why: Why) -> Closing;

    /// The close code that answers the peer's close frame, whose code is `code` if it had one. RFC
    /// 6455 section 5.5.1 suggests the same code.
    fn close_reply(&self, code: Option<u16>) -> Option<u16> {
        code
    }

    /// Releases what the connection holds in `env`, when the session ends.
    fn on_drop(&mut self, env: &Env);

    /// Adds the effects of this connection's end on other connections. It is called as soon as
    /// either side has closed, because nothing reaches the peer after that, and may be called again
    /// until the session is dropped.
    fn on_close(&mut self, _env: &Env, _us: ConnId, _out: &mut Vec<Effect>) {}

    /// The limits on frames and messages from the peer.
    fn limits(&self, env: &Env) -> ws::FrameLimits;

    /// The timeouts after which a silent peer is pinged and closed.
    fn heartbeat(&self, env: &Env) -> Heartbeat {
        let pusher = &env.config.pusher;
        Heartbeat {
            silence_ms: pusher.activity_timeout_s * 1000,
            answer_ms: pusher.pong_timeout_s * 1000,
        }
    }

    /// The maximum bytes of shared frames in the write queue of this peer.
    fn queue_bytes(&self, env: &Env) -> usize {
        env.config.limits.write_queue_bytes
    }

    /// The slow-consumer policy to apply when the frames of [`Dialect::on_message`] exceed
    /// [`Dialect::queue_bytes`].
    fn overrun(&mut self, env: &Env) -> SlowConsumer {
        env.config.slow_consumer
    }

    /// The frame that reports `count` subscriptions to the subscribers of a channel, if the dialect
    /// reports them.
    fn count(_env: &Env, _app: u32, _name: &str, _count: u64) -> Option<Frozen> {
        None
    }

    /// Whether a client may subscribe to a channel of this name without authorisation.
    fn is_public(_name: &str) -> bool {
        false
    }

    /// Adds the effects of a message that cannot be delivered, because its connection has closed.
    /// Every dialect is asked about every such message.
    fn on_undelivered(_what: &DialectMessage, _out: &mut Vec<Effect>) {}

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
    ) -> Answered;
}
