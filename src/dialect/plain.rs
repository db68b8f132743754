//! Plain WebSockets on linked channels: a subscriber that receives the data of the events of one
//! channel, without a protocol around it. The path of the request is the channel's name, which a
//! link must map to its source.

use super::{
    Closing, Content, Dialect, DialectApi, DialectContext, DialectEvent, DialectPolicy, Effect,
    Env, JoinOutcome, Opening, Rejection, Why, bare, history_of,
};
use crate::dialect::{Event, JoinRequest};
use crate::http::NormalPath;
use crate::hub::{Form, ResumeRequest};
use crate::ws::{self, close};

/// The application number of all plain channels; no configured application has it.
pub const APP: u32 = u32::MAX - 4;

/// One subscriber; it holds the path by which it has subscribed.
#[derive(Debug)]
pub struct Connection(Box<str>);

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
        let (app, name, max) = (APP, path.to_string(), usize::MAX);
        // Only a stream of events has a place for positions.
        let env = context.env;
        let history = opening.receives_events.then(|| history_of(env, APP, &path)).flatten();
        let resume = history.map(|history| {
            let (from, limit) = (bare::from(opening), history.limit);
            ResumeRequest { from, limit, view: 0 }
        });
        let form = if resume.is_some() { Form::POSITIONED } else { Form::PUBLISHED };
        let request = resume.is_some().then(|| JoinRequest { resume, ..JoinRequest::default() });
        context.effects.push(Effect::Join { app, name, max, request, form });
        Some(Connection(path))
    }

    fn message(
        &mut self,
        context: &mut DialectContext<'_>,
        kind: ws::MessageKind,
        payload: &mut [u8],
    ) {
        // The link may have been removed by a reload.
        if !context.env.links.resolve(APP, &self.0).is_some_and(|it| it.publish) {
            return context.close(Closing::new(close::POLICY, "the channel accepts no messages"));
        }
        let event = match bare::published(context.env, kind, payload) {
            Ok(event) => Event { except: Some(context.conn.into()), ..event },
            Err(closing) => return context.close(closing),
        };
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
            DialectEvent::Joined { outcome: JoinOutcome::NotStored, .. } => {
                context.close(Closing::new(close::TRY_AGAIN, "the cluster cannot be used now"));
            }
            DialectEvent::Joined { outcome: JoinOutcome::Joined(Some(reply)), .. } => {
                let Some(resumed) = reply.resumed else { return };
                // The end of its stream is all that shows the client a gap.
                match resumed.outcome.is_gap() {
                    true => bare::close_for_gap(context, &resumed),
                    false => context.out.id(resumed.position.into()),
                }
            }
            _ => {}
        }
    }

    #[inline]
    fn policy(&self, env: &Env) -> DialectPolicy {
        bare::policy(env)
    }

    fn closing(why: Why) -> Closing {
        bare::closing(why)
    }
}

impl DialectApi for Connection {
    fn content(event: &Event) -> Option<Content<'_>> {
        bare::content(event)
    }

    fn linked_event(env: &Env, _app: u32, _name: &str, content: &Content<'_>) -> Option<Event> {
        Some(bare::linked_event(env, content))
    }

    fn subprotocol<'a>(env: &Env, opening: &Opening<'a>) -> Result<Option<&'a str>, Rejection> {
        match env.links.resolve(APP, NormalPath::new(opening.path).matched()) {
            Some(_) => env.check_joined().map(|()| None),
            None => Err(Rejection { status: 404, text: "the path leads to no channel".into() }),
        }
    }
}
