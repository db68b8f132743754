//! Groups without a protocol: everybody in a group hears each message that a member sends, as it
//! came.

use super::{
    Action, Answered, Closing, Context, Dialect, Env, JoinOutcome, Opening, Reply, Why, apps,
};
use crate::config::{Grouping, Reflect, Route};
use crate::http;
use crate::hub::{Event, Remember, Wish};
use crate::mem::Frozen;
use crate::ws::{self, Opcode, close, frame};
use std::sync::Arc;

/// The number of the application under which groups are channels: none that is configured has it.
pub const APP: u32 = u32::MAX - 2;

/// Messages of the longest kind for which there is room in a member's queue. One that takes up all
/// of it would make everybody a slow consumer who has not read the one before.
const QUEUED: usize = 4;

/// One member of a group.
#[derive(Debug)]
pub struct Connection(Box<Member>);

#[derive(Debug)]
struct Member {
    group: Box<str>,
    exclude_sender: bool,
    remember: Option<Remember>,
}

/// Bytes of one message.
fn most(env: &Env) -> usize {
    (env.config.limits.write_queue_bytes / QUEUED).saturating_sub(frame::HEADER_BYTES)
}

/// The channel of a group. A route is known by what it asks of requests, which outlives a change of
/// the configuration better than its place there.
fn group(route: &Route, path: &str) -> Box<str> {
    let Route { listeners, when, guarded, .. } = route;
    let path = match route.reflect.group {
        Grouping::Route => "",
        Grouping::Path => path,
    };
    format!("{listeners:?} {when:?} {guarded:?} {path}").into()
}

impl Dialect for Connection {
    fn open(context: &mut Context<'_>, opening: &Opening<'_>) -> Option<Connection> {
        if context.draining {
            context.close(Connection::closing(Why::Draining));
            return None;
        }
        let group = group(opening.route, opening.path);
        let (app, name) = (APP, group.to_string());
        let Reflect { exclude_sender, history, history_bytes, .. } = opening.route.reflect;
        let remember = Remember { most: history, bytes: history_bytes };
        let remember = Some(remember).filter(|_| history > 0);
        let wish = remember.map(|_| Wish { history: true, ..Wish::default() });
        context.actions.push(Action::Join { app, name, most: usize::MAX, wish });
        Some(Connection(Box::new(Member { group, exclude_sender, remember })))
    }

    fn message(&mut self, context: &mut Context<'_>, kind: ws::Kind, payload: &mut [u8]) {
        if payload.len() > most(context.env) {
            // A model may have made it longer.
            return context.close(Closing::new(close::TOO_BIG, "the message is too big"));
        }
        let opcode = match kind {
            ws::Kind::Text => Opcode::Text,
            ws::Kind::Binary => Opcode::Binary,
        };
        let mut scratch = Vec::with_capacity(frame::HEADER_BYTES + payload.len());
        let frame = frame::build(opcode, &mut scratch, |out| out.extend_from_slice(payload));
        let event = Event {
            frame: Frozen::new(frame),
            squeezed: context.env.compresses.then(Arc::default),
            except: self.0.exclude_sender.then_some(context.conn),
            remember: self.0.remember,
            ..Event::default()
        };
        let name = self.0.group.to_string();
        context.actions.push(Action::Publish { app: APP, name, event, part: 0 });
    }

    fn joined(&mut self, _context: &mut Context<'_>, _name: &str, _outcome: JoinOutcome) {}

    fn not_subscribed(&mut self, _context: &mut Context<'_>, _name: &str) {}

    fn nudge(&mut self, _context: &mut Context<'_>) {}

    fn renewed(&mut self, _context: &mut Context<'_>) {}

    fn closing(why: Why) -> Closing {
        match why {
            Why::Silent => Closing::new(close::GOING_AWAY, "no sign of life"),
            Why::Draining => Closing::new(close::GOING_AWAY, "the server is shutting down"),
            Why::Slow => Closing::new(close::POLICY, "the client does not read what it is sent"),
        }
    }

    fn gone(&mut self, _env: &Env) {}

    fn limits(&self, env: &Env) -> ws::Limits {
        let limits = &env.config.limits;
        let most = most(env) as u64;
        ws::Limits {
            frame_bytes: limits.frame_bytes.min(most),
            message_bytes: limits.message_bytes.min(most),
            fragments: limits.fragments,
            allow_rsv1: false,
        }
    }

    fn request(
        _context: &mut Context<'_>,
        _app: u32,
        path: &str,
        _request: &mut http::Request<'_>,
    ) -> Answered {
        // A group has no API.
        let reply: Reply = apps::no_such_target(path);
        Answered::Now(reply)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Condition, Endpoint, Pattern};

    #[test]
    fn a_group_is_that_of_the_route_or_of_the_path() {
        let mut route = Route::to(Endpoint::Reflect);
        assert_eq!(group(&route, "/a"), group(&route, "/b"));
        route.reflect.group = Grouping::Path;
        assert_ne!(group(&route, "/a"), group(&route, "/b"));
        let when = Condition { path: Pattern::new("/a"), ..Condition::default() };
        let other = Route { when: vec![when], ..route.clone() };
        assert_ne!(group(&route, "/a"), group(&other, "/a"));
        let guarded = [("g".to_owned(), Vec::new())].into();
        assert_ne!(group(&Route { guarded, ..route.clone() }, "/a"), group(&route, "/a"));
        let listeners = vec!["l".to_owned()];
        assert_ne!(group(&Route { listeners, ..route.clone() }, "/a"), group(&route, "/a"));
    }
}
