//! The interface of a dialect: one vendor's protocol as a function of a connection's state, what
//! has happened to it, and the time.

use super::api::DialectApi;
use super::closing::{Closing, Why};
use super::context::{DialectContext, Heartbeat, Opening};
use super::effects::{Effects, JoinOutcome};
use super::env::Env;
use crate::codec::Format;
use crate::config::SlowConsumer;
use crate::dialect::DialectMessage;
use crate::hub::{Answer, ConnId};
use crate::time::Deadline;
use crate::ws;

/// One connection in a vendor's protocol.
pub trait Dialect: DialectApi {
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

    /// Handles one event of the connection.
    fn on(&mut self, context: &mut DialectContext<'_>, event: DialectEvent<'_>);

    /// The limits and timeouts of the connection.
    fn policy(&self, env: &Env) -> DialectPolicy;

    /// Whether no further message of the peer is read until events have answered earlier ones.
    fn is_full(&self) -> bool {
        false
    }

    /// Heap bytes that the connection holds for messages of the peer which are not answered yet.
    fn held_bytes(&self) -> usize {
        0
    }

    /// The time at which the connection is to get [`DialectEvent::Deadline`].
    fn deadline(&self) -> Deadline {
        Deadline::NEVER
    }

    /// The dialect's close code and reason for a close by the server.
    fn closing(why: Why) -> Closing;

    /// The slow-consumer policy to apply when the frames of [`DialectEvent::Message`] exceed
    /// [`DialectPolicy::queue_bytes`].
    fn overrun(&mut self, env: &Env) -> SlowConsumer {
        env.config.slow_consumer
    }

    /// Handles the end of the connection.
    fn ended(&mut self, _env: &Env, _end: ConnectionEnd<'_>) {}
}

/// What happens to a connection, besides its own messages.
#[derive(Debug)]
pub enum DialectEvent<'e> {
    /// The outcome of an `Effect::Join`. A picture that was requested (`JoinRequest::picture`) is
    /// already queued, in the format of this connection. What the dialect sends now is queued after
    /// the picture, and every update that is not in the picture comes after that.
    Joined {
        /// The channel.
        name: &'e str,
        /// The outcome.
        outcome: JoinOutcome,
    },
    /// An `Effect::PublishIfSubscribed` is refused, because this connection is not subscribed to
    /// the channel of this name.
    NotSubscribed(&'e str),
    /// A message from another connection, or from a publisher to a channel of this connection. What
    /// the dialect adds to [`DialectContext::shared`] counts against
    /// [`DialectPolicy::queue_bytes`]: either all of it is queued, or nothing.
    Message(&'e DialectMessage),
    /// The answer to an `Effect::Query` or an `Effect::Publish`.
    Answered {
        /// The part of the effect.
        part: u16,
        /// The answer.
        answer: Answer,
    },
    /// The configuration was reloaded.
    Reload,
    /// Another node of the cluster has ended.
    NodeGone,
    /// The time of [`Dialect::deadline`] has come.
    Deadline,
    /// There may be room for the connection, which has requested an `Effect::AwaitRoom`, or it may
    /// have waited for too long.
    Room,
    /// The peer has not answered a WebSocket ping: the dialect sends its own ping message.
    AppPing,
    /// The session is about to close. The dialect may send messages before the close, and may
    /// replace its code and reason.
    Closing(&'e mut Closing),
}

/// The limits and timeouts of a connection.
#[derive(Clone, Copy, Debug)]
pub struct DialectPolicy {
    /// The limits on frames and messages from the peer.
    pub frames: ws::FrameLimits,
    /// The timeouts after which a silent peer is pinged and closed.
    pub heartbeat: Heartbeat,
    /// The maximum bytes of shared frames in the write queue of the peer.
    pub queue_bytes: usize,
    /// The code that answers every close frame of the peer; `None` answers with the peer's own
    /// code, as RFC 6455 section 5.5.1 suggests.
    pub close_code: Option<u16>,
}

impl DialectPolicy {
    /// The server's own limits, for messages of at most `message_bytes`.
    #[inline]
    pub fn new(env: &Env, message_bytes: u64) -> DialectPolicy {
        let (limits, pusher) = (&env.config.limits, &env.config.pusher);
        DialectPolicy {
            frames: ws::FrameLimits {
                frame_bytes: message_bytes.min(limits.frame_bytes),
                message_bytes,
                fragments: limits.fragments,
                allow_rsv1: false,
            },
            heartbeat: Heartbeat {
                silence_ms: pusher.activity_timeout_s * 1000,
                answer_ms: pusher.pong_timeout_s * 1000,
            },
            queue_bytes: limits.write_queue_bytes,
            close_code: None,
        }
    }
}

/// How a connection ends.
#[derive(Debug)]
pub enum ConnectionEnd<'e> {
    /// Either side has closed, and nothing reaches the peer after that: the dialect adds the
    /// effects on other connections. This may come again until the session is dropped.
    Closed {
        /// The connection.
        us: ConnId,
        /// The effects.
        effects: Effects<'e>,
    },
    /// The session ends: the dialect releases what the connection holds in the environment.
    Dropped,
}
