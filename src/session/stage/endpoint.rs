//! Where the messages of a WebSocket go: they are echoed, or given to a dialect or to the other leg
//! of a proxied connection. What differs by endpoint is here.

use super::proxy::ProxyLeg;
use crate::codec::Format;
use crate::config::SlowConsumer;
use crate::dialect::{Closing, Connection, ConnectionEnd, Effects, Env, Heartbeat, Why};
use crate::hub::ConnId;
use crate::session::Context;
use crate::session::ending::Progress;
use crate::time::Deadline;
use crate::ws::{self, Opcode, close, frame};

/// Where received messages go.
pub(super) enum Endpoint {
    /// Echoes messages of at most this many bytes; 0 is the server's own limit.
    Echo(u32),
    Dialect(Connection),
    /// The connection is one leg of a proxied WebSocket.
    ProxyLeg(Box<ProxyLeg>),
    /// The dialect has refused the connection, and its close frame is queued.
    Refused,
}

impl Endpoint {
    /// The proxy leg, if this is a proxied connection.
    pub(super) fn leg(&self) -> Option<&ProxyLeg> {
        match self {
            Endpoint::ProxyLeg(leg) => Some(leg),
            _ => None,
        }
    }

    pub(super) fn leg_mut(&mut self) -> Option<&mut ProxyLeg> {
        match self {
            Endpoint::ProxyLeg(leg) => Some(leg),
            _ => None,
        }
    }

    /// Handles a ping or a pong: a proxy leg passes it on, any other endpoint answers a ping.
    pub(super) fn control(
        &mut self,
        opcode: Opcode,
        payload: &[u8],
        out: &mut Vec<u8>,
        cx: &mut Context<'_>,
    ) -> Progress {
        match self {
            Endpoint::ProxyLeg(leg) => leg.control(opcode, payload, cx),
            _ if opcode == Opcode::Ping => frame::push(out, Opcode::Pong, payload, None),
            _ => {}
        }
        Progress::Again
    }

    /// The close code with which the peer's close frame is answered.
    pub(super) fn close_reply(&self, code: Option<u16>, env: &Env) -> Option<u16> {
        match self {
            Endpoint::Dialect(it) => it.policy(env).close_code.or(code),
            _ => code,
        }
    }

    /// The close for a reason of the server's own.
    pub(super) fn closing(&self, why: Why) -> Closing {
        match self {
            Endpoint::Dialect(it) => it.closing(why),
            _ => plain_closing(why),
        }
    }

    /// Whether nothing more is read until the dialect has answered earlier messages.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        matches!(self, Endpoint::Dialect(it) if it.is_full())
    }

    /// Heap bytes that the dialect holds for messages which are not answered yet.
    pub(super) fn held_bytes(&self) -> usize {
        match self {
            Endpoint::Dialect(it) => it.held_bytes(),
            _ => 0,
        }
    }

    /// The dialect's own deadline.
    pub(super) fn deadline(&self) -> Deadline {
        match self {
            Endpoint::Dialect(it) => it.deadline(),
            _ => Deadline::NEVER,
        }
    }

    /// The format of messages to the peer, for events that have several encodings.
    pub(super) fn format(&self) -> Format {
        match self {
            Endpoint::Dialect(it) => it.format(),
            _ => Format::Json,
        }
    }

    /// The limits of frames and messages; `allow_rsv1` is whether messages may be compressed.
    pub(super) fn limits(&self, allow_rsv1: bool, env: &Env) -> ws::FrameLimits {
        match self {
            Endpoint::Dialect(it) => ws::FrameLimits { allow_rsv1, ..it.policy(env).frames },
            other => {
                let limits = &env.config.limits;
                let own = match other {
                    Endpoint::Echo(own @ 1..) => u64::from(*own),
                    _ => u64::MAX,
                };
                ws::FrameLimits {
                    frame_bytes: limits.frame_bytes.min(own),
                    message_bytes: limits.message_bytes.min(own),
                    fragments: limits.fragments,
                    allow_rsv1,
                }
            }
        }
    }

    /// The configured heartbeat times: how long the peer may be silent, and how long it has to
    /// answer, in milliseconds.
    pub(super) fn heartbeat(&self, env: &Env) -> Heartbeat {
        match self {
            Endpoint::Dialect(it) => it.policy(env).heartbeat,
            _ => {
                let pusher = &env.config.pusher;
                let (silence_s, answer_s) = (pusher.activity_timeout_s, pusher.pong_timeout_s);
                Heartbeat { silence_ms: silence_s * 1000, answer_ms: answer_s * 1000 }
            }
        }
    }

    /// The maximum number of bytes of shared frames in the peer's write queue.
    pub(super) fn queue_bytes(&self, env: &Env) -> usize {
        match self {
            Endpoint::Dialect(it) => it.policy(env).queue_bytes,
            _ => env.config.limits.write_queue_bytes,
        }
    }

    /// The policy for a peer whose write queue has exceeded [`Endpoint::queue_bytes`].
    pub(super) fn overrun(&mut self, env: &Env) -> SlowConsumer {
        match self {
            Endpoint::Dialect(it) => it.overrun(env),
            _ => env.config.slow_consumer,
        }
    }

    /// Adds the effects that are due for other connections when this one is closed.
    pub(super) fn on_close(&mut self, env: &Env, us: ConnId, out: &mut Effects<'_>) {
        if let Endpoint::Dialect(it) = self {
            it.ended(env, ConnectionEnd::Closed { us, effects: out.reborrow() });
        }
    }

    /// Releases what the dialect holds outside the connection.
    pub(super) fn on_drop(&mut self, env: &Env) {
        if let Endpoint::Dialect(it) = self {
            it.ended(env, ConnectionEnd::Dropped);
        }
    }
}

/// The server's close reasons with the codes of RFC 6455, for endpoints without a dialect.
fn plain_closing(why: Why) -> Closing {
    match why {
        Why::Silent => Closing::new(close::GOING_AWAY, "no sign of life"),
        Why::Draining => Closing::new(close::GOING_AWAY, "the server is shutting down"),
        Why::Slow => Closing::new(close::POLICY, "the client does not read what it is sent"),
        Why::Gap => Closing::new(close::RESTART, "events may be missing"),
    }
}
