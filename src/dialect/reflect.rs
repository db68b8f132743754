//! Groups without a protocol: each message that a member sends is delivered unchanged to all
//! members of its group, the sender included unless the route excludes it.

use super::{
    ChannelHistory, Closing, Content, Dialect, DialectApi, DialectContext, DialectEvent,
    DialectPolicy, Effect, Env, JoinOutcome, Opening, Rejection, Why, bare, history_of,
};
use crate::config::{Condition, EndpointKind, Grouping, Reflect, Route};
use crate::dialect::{Event, JoinRequest};
use crate::http::NormalPath;
use crate::hub::{
    Form, HistoryLimit, ResumeFrom, ResumeOutcome, ResumeReply, ResumeRequest, Retention,
};
use crate::ws::{self, close};

/// The application number of all groups, which are channels of the hub; no configured application
/// has it.
pub const APP: u32 = u32::MAX - 2;

/// One member of a group.
#[derive(Debug)]
pub struct Connection(Box<Member>);

#[derive(Debug)]
struct Member {
    group: Box<str>,
    exclude_sender: bool,
    history_limit: Option<HistoryLimit>,
    /// Whether the member has sent the id of the last message that it has received.
    resumes: bool,
}

/// The channel name of a group. It contains the route's listeners, conditions and guards instead of
/// the route's position in the configuration, because a reload changes them less often.
fn group(route: &Route, path: &str) -> Box<str> {
    let path = NormalPath::new(path);
    let path = match route.reflect.group {
        Grouping::Route => "",
        // The normalised path that selected the route, so that a guarded group has only one name.
        Grouping::Path => path.matched(),
    };
    (group_prefix(route) + path).into()
}

/// What the names of all groups of a route begin with. It depends on nothing but the values in the
/// configuration, because the nodes of a cluster, of two releases at times, must find the same.
pub(super) fn group_prefix(route: &Route) -> String {
    let Route { listeners, when, guarded, .. } = route;
    let condition = |it: &Condition| {
        let Condition { protocol, scheme, authority, path, query } = it;
        [protocol, scheme, authority, path, query].map(|pattern| pattern.as_str().to_owned())
    };
    let when: Vec<_> = when.iter().map(condition).collect();
    format!("{listeners:?} {when:?} {guarded:?} ")
}

/// How much of a group's history is kept, if it has one. In a cluster every node keeps a message
/// for the same time, also while the group has no member on it.
fn history_limit(env: &Env, group: &Reflect) -> Option<HistoryLimit> {
    let ttl_s = history_s(env).unwrap_or(0) as u32;
    let limit = HistoryLimit { max: group.history, ttl_s, bytes: group.history_bytes };
    (group.history > 0).then_some(limit)
}

/// How long a cluster keeps a message of a history, in seconds; `None` without a cluster.
fn history_s(env: &Env) -> Option<u64> {
    env.config.cluster.as_ref().map(|cluster| cluster.history_s)
}

/// See [`super::into_log`].
pub(super) fn into_log(env: &Env, event: Event) -> (Event, u64) {
    match event.retain {
        Retention::History(_) => {
            let kept_s = history_s(env).unwrap_or(0);
            (Event { retain: Retention::Nothing, ..event }, kept_s)
        }
        _ => (event, 0),
    }
}

/// See [`super::from_log`].
pub(super) fn from_log(env: &Env, group: &str, age_ms: u64, event: Event) -> Event {
    let limit = limit_of(env, group).filter(|limit| u64::from(limit.ttl_s) * 1000 > age_ms);
    Event { retain: limit.map_or(Retention::Nothing, Retention::History), ..event }
}

/// How much of the history of the group with this name is kept, by the present configuration.
fn limit_of(env: &Env, group: &str) -> Option<HistoryLimit> {
    let mut routes = env.config.routes.iter();
    let route = routes.find(|route| {
        route.endpoint == EndpointKind::Reflect && group.starts_with(&group_prefix(route))
    });
    route.and_then(|route| history_limit(env, &route.reflect))
}

/// What a new member requests of the history of its group. One that receives server-sent events is
/// sent what it has missed since its last event, or, as any new member, the whole history. If the
/// group is a view, the history is that of its source, and a new member is sent as many messages as
/// the route says.
fn request(env: &Env, opening: &Opening<'_>, group: &str) -> Option<(JoinRequest, Form)> {
    let reflect = &opening.route.reflect;
    let (limit, max) = match env.links.resolve(APP, group) {
        Some(_) => (history_of(env, APP, group)?.limit, reflect.history),
        None => (history_limit(env, reflect)?, u32::MAX),
    };
    let resume = |last| {
        let resume = ResumeRequest { from: ResumeFrom::Kept(last, max), limit, view: 0 };
        JoinRequest { resume: Some(resume), ..JoinRequest::default() }
    };
    match (opening.receives_events, max) {
        (true, _) => {
            let last = match bare::from(opening) {
                ResumeFrom::Position(position) => Some(position),
                _ => None,
            };
            Some((resume(last), Form::POSITIONED))
        }
        (false, 0) => None,
        (false, u32::MAX) => {
            Some((JoinRequest { history: true, ..JoinRequest::default() }, Form::PUBLISHED))
        }
        (false, _) => Some((resume(None), Form::PUBLISHED)),
    }
}

impl Dialect for Connection {
    fn open(context: &mut DialectContext<'_>, opening: &Opening<'_>) -> Option<Connection> {
        if context.draining {
            context.close(Connection::closing(Why::Draining));
            return None;
        }
        let group = group(opening.route, opening.path);
        let (app, name) = (APP, group.to_string());
        let Reflect { exclude_sender, .. } = opening.route.reflect;
        let history_limit = history_limit(context.env, &opening.route.reflect);
        let (request, form) = match request(context.env, opening, &group) {
            Some((request, form)) => (Some(request), form),
            None => (None, Form::PUBLISHED),
        };
        context.effects.push(Effect::Join { app, name, max: usize::MAX, request, form });
        let from = bare::from(opening);
        if form.positioned && from == ResumeFrom::Malformed {
            context.count_malformed_id();
        }
        let resumes = form.positioned && from != ResumeFrom::Present;
        Some(Connection(Box::new(Member { group, exclude_sender, history_limit, resumes })))
    }

    fn message(
        &mut self,
        context: &mut DialectContext<'_>,
        kind: ws::MessageKind,
        payload: &mut [u8],
    ) {
        if !context.env.links.may_publish(APP, &self.0.group) {
            return context.close(Closing::new(close::POLICY, "the group accepts no messages"));
        }
        let event = match bare::published(context.env, kind, payload) {
            Ok(event) => event,
            Err(closing) => return context.close(closing),
        };
        let event = Event {
            except: self.0.exclude_sender.then_some(context.conn.into()),
            retain: self.0.history_limit.map_or(Retention::Nothing, Retention::History),
            ..event
        };
        let name = self.0.group.to_string();
        context.effects.push(Effect::Publish { app: APP, name, event, part: 0 });
    }

    fn on(&mut self, context: &mut DialectContext<'_>, event: DialectEvent<'_>) {
        match event {
            DialectEvent::Reload => {
                self.0.history_limit = limit_of(context.env, &self.0.group);
            }
            DialectEvent::Joined { outcome: JoinOutcome::Joined(Some(reply)), .. } => {
                let is_too_large = |it: &ResumeReply| it.outcome == ResumeOutcome::TooLarge;
                let resumed = reply.resumed.filter(|it| self.0.resumes && is_too_large(it));
                if let Some(resumed) = resumed {
                    bare::close_for_gap(context, &resumed);
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

// A group has no HTTP API.
impl DialectApi for Connection {
    fn subprotocol<'a>(env: &Env, _opening: &Opening<'a>) -> Result<Option<&'a str>, Rejection> {
        env.check_joined().map(|()| None)
    }

    fn content(event: &Event) -> Option<Content<'_>> {
        bare::content(event)
    }

    fn history(env: &Env, _app: u32, name: &str) -> Option<ChannelHistory> {
        let limit = limit_of(env, name)?;
        Some(ChannelHistory { limit, rewind: limit.max })
    }

    /// A message in the history of its group, if the route has one.
    fn linked_event(env: &Env, _app: u32, name: &str, content: &Content<'_>) -> Option<Event> {
        let limit = limit_of(env, name);
        let retain = limit.map_or(Retention::Nothing, Retention::History);
        Some(Event { retain, ..bare::linked_event(env, content) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Pattern};

    #[test]
    fn reflect_group_is_by_route_or_by_path() {
        let mut route = Route::to(EndpointKind::Reflect);
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

    /// The nodes of a cluster, of two releases at times, must find the same name.
    #[test]
    fn reflect_group_names_stay_as_they_are() {
        let when = Condition {
            protocol: Pattern::new("p"),
            scheme: Pattern::new("wss"),
            authority: Pattern::new("h"),
            path: Pattern::new("/a/*"),
            query: Pattern::new("q=1"),
        };
        let mut route = Route { when: vec![when], ..Route::to(EndpointKind::Reflect) };
        route.listeners = vec!["l".to_owned()];
        route.guarded = [("g".to_owned(), vec!["r".to_owned()])].into();
        route.reflect.group = Grouping::Path;
        let name = r#"["l"] [["p", "wss", "h", "/a/*", "q=1"]] {"g": ["r"]} /a/b"#;
        assert_eq!(&*group(&route, "/a/b"), name);
    }

    /// An environment with one group of `history` messages, in a cluster.
    fn clustered(history: u32) -> (Env, Box<str>) {
        let mut route = Route::to(EndpointKind::Reflect);
        route.reflect.history = history;
        let group = group(&route, "/");
        let cluster = config::Cluster { history_s: 100, ..config::Cluster::default() };
        let routes = vec![route];
        let cluster = Some(Box::new(cluster));
        let config = config::Config { cluster, routes, ..config::Config::demo() };
        (Env::new(config, 0).expect("an environment"), group)
    }

    #[test]
    fn reflect_history_in_a_cluster_is_what_the_node_that_reads_says() {
        let frame = || Event::from(crate::mem::Frozen::new(b"x"));
        for (history, history_s) in [(0, 0), (5, 100)] {
            let (env, group) = clustered(history);
            let limit = limit_of(&env, &group);
            let retain = limit.map_or(Retention::Nothing, Retention::History);
            let (event, kept_s) = into_log(&env, Event { retain, ..frame() });
            assert!(matches!(event.retain, Retention::Nothing), "{event:?}");
            assert_eq!(kept_s, history_s);
        }
        let (env, group) = clustered(5);
        let retained = |group: &str, age_ms| match from_log(&env, group, age_ms, frame()).retain {
            Retention::History(limit) => Some((limit.max, limit.ttl_s, limit.bytes)),
            _ => None,
        };
        assert_eq!(retained(&group, 0), Some((5, 100, 1 << 20)));
        assert_eq!(retained(&group, 99_999), Some((5, 100, 1 << 20)));
        assert_eq!(retained(&group, 100_000), None, "it has expired");
        assert_eq!(retained("another", 0), None);
    }

    #[test]
    fn reflect_members_that_miss_messages_are_closed_to_come_back() {
        assert_eq!(Connection::closing(Why::Gap).code, close::RESTART);
    }
}
