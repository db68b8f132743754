//! Plain WebSockets on linked channels: a subscriber that receives the data of the events of one
//! channel, without a protocol around it. The path of the request is the channel's name, which a
//! link must map to its source.

use super::content::{plain_content, plain_event};
use super::{
    Closing, Content, Dialect, DialectApi, DialectContext, DialectEvent, DialectPolicy, Effect,
    Env, JoinOutcome, Opening, Rejection, Why,
};
use crate::dialect::Event;
use crate::http::NormalPath;
use crate::hub::SharedFrame;
use crate::mem::Frozen;
use crate::ws::{self, Opcode, close, frame};
use std::sync::Arc;

/// The application number of all plain channels; no configured application has it.
pub const APP: u32 = u32::MAX - 4;

/// How many messages of the maximum size fit the write queue.
const QUEUED: usize = 4;

/// One subscriber; it holds the path by which it has subscribed.
#[derive(Debug)]
pub struct Connection(Box<str>);

/// The maximum payload bytes of one message.
fn max_bytes(env: &Env) -> usize {
    (env.config.limits.write_queue_bytes / QUEUED).saturating_sub(frame::HEADER_BYTES)
}

impl Dialect for Connection {
    fn open(context: &mut DialectContext<'_>, opening: &Opening<'_>) -> Option<Connection> {
        if context.draining {
            context.close(Connection::closing(Why::Draining));
            return None;
        }
        let path: Box<str> = NormalPath::new(opening.path).matched().into();
        if context.env.links.resolve(APP, &path).is_none() {
            context.close(Closing::new(close::POLICY, "the path leads to no channel"));
            return None;
        }
        let (app, name, request) = (APP, path.to_string(), None);
        let max = usize::MAX;
        context.effects.push(Effect::Join { app, name, max, request, positioned: false });
        Some(Connection(path))
    }

    fn message(
        &mut self,
        context: &mut DialectContext<'_>,
        kind: ws::MessageKind,
        payload: &mut [u8],
    ) {
        if !context.env.links.may_publish(APP, &self.0) {
            return context.close(Closing::new(close::POLICY, "the channel accepts no messages"));
        }
        if payload.len() > max_bytes(context.env) {
            return context.close(Closing::new(close::TOO_BIG, "the message is too big"));
        }
        let opcode = match kind {
            ws::MessageKind::Text => Opcode::Text,
            ws::MessageKind::Binary => Opcode::Binary,
        };
        let mut scratch = Vec::with_capacity(frame::HEADER_BYTES + payload.len());
        let frame = frame::build(opcode, &mut scratch, |out| out.extend_from_slice(payload));
        let compressed = context.env.compresses.then(Arc::default);
        let shared = SharedFrame { frame: Frozen::new(frame), compressed };
        let event = Event { except: Some(context.conn), ..shared.into() };
        context.effects.push(Effect::Publish {
            app: APP,
            name: self.0.to_string(),
            event,
            part: 0,
        });
    }

    fn on(&mut self, context: &mut DialectContext<'_>, event: DialectEvent<'_>) {
        match event {
            DialectEvent::Joined { outcome: JoinOutcome::NoRoom, .. } => {
                context.close(Closing::new(close::TRY_AGAIN, "the server has too many channels"));
            }
            DialectEvent::Joined { outcome: JoinOutcome::ChannelFull, .. } => {
                context.close(Closing::new(close::TRY_AGAIN, "the channel is full"));
            }
            _ => {}
        }
    }

    #[inline]
    fn policy(&self, env: &Env) -> DialectPolicy {
        let limits = &env.config.limits;
        let max_bytes = max_bytes(env) as u64;
        let mut policy = DialectPolicy::new(env, limits.message_bytes.min(max_bytes));
        policy.frames.frame_bytes = limits.frame_bytes.min(max_bytes);
        policy
    }

    fn closing(why: Why) -> Closing {
        match why {
            Why::Silent => Closing::new(close::GOING_AWAY, "no sign of life"),
            Why::Draining => Closing::new(close::GOING_AWAY, "the server is shutting down"),
            Why::Slow => Closing::new(close::POLICY, "the client does not read what it is sent"),
        }
    }
}

impl DialectApi for Connection {
    fn content(event: &Event) -> Option<Content<'_>> {
        plain_content(event)
    }

    fn linked_event(env: &Env, _app: u32, _name: &str, content: &Content<'_>) -> Option<Event> {
        Some(plain_event(env, content))
    }

    fn subprotocol<'a>(env: &Env, opening: &Opening<'a>) -> Result<Option<&'a str>, Rejection> {
        match env.links.resolve(APP, NormalPath::new(opening.path).matched()) {
            Some(_) => Ok(None),
            None => Err(Rejection { status: 404, text: "the path leads to no channel".into() }),
        }
    }
}
