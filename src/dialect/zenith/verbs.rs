//! What a back end may ask for, by HTTP or by WebSocket: one container for each.

use super::APP;
use super::realm::ServiceEntry;
use super::told::{Told, told};
use super::words::{self, Container, codes};
use crate::codec::Value;
use crate::config;
use crate::dialect::{Action, Context, Env};
use crate::hub::{self, Clears, ConnId, Event, Forms, Mode, Retain};
use std::sync::Arc;

/// Something to be done.
pub(super) enum Order {
    /// Data for a channel, or the end of its picture.
    Data(String, Arc<Forms>),
    /// A topic ends, with an error or without, for all who have it or for some.
    End(String, Option<Value>, Whom),
    /// A user's sessions end.
    Kick(Box<str>),
    /// A feed's state.
    Feed(Box<str>, Box<str>),
}

impl Order {
    /// Whether it is ordered by a channel's home.
    pub(super) fn is_published(&self) -> bool {
        matches!(self, Order::Data(..) | Order::End(_, _, Whom::All))
    }
}

/// Who loses a topic.
pub(super) enum Whom {
    /// All subscribers.
    All,
    /// The sessions of a user.
    User(Box<str>),
    /// One session.
    Session(ConnId),
}

/// Why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// In the words of the protocol.
    pub(super) code: &'static str,
    /// For people.
    pub(super) text: &'static str,
}

const KICKED: &str = "the session was ended by the back end";

/// What marks an element of a list as one that voids all before it.
const CLEARS: Clears = &[("O", "C"), ("O", "I"), ("Operation", "Clear")];

/// Reads one container of a back end.
pub(super) fn read(env: &Env, service: &ServiceEntry, it: Container) -> Result<Order, Refusal> {
    let refuse = |code, text| Err(Refusal { code, text });
    match it.action.as_deref().unwrap_or(words::PUBLISH) {
        "Kick" => match it.user {
            Some(Value::Text(user)) => Ok(Order::Kick(user)),
            _ => refuse(codes::DATA, "Kick needs UserID, a string"),
        },
        "Feed" => {
            let status = it.data.as_ref().and_then(Value::as_text).unwrap_or("");
            if !env.zenith.has_feed(it.topic()) {
                return refuse(codes::UNKNOWN, "no feed of this name is configured");
            }
            if !config::FEED_STATES.contains(&status) {
                return refuse(codes::DESERIALISE, "Data is no state of a feed");
            }
            Ok(Order::Feed(it.topic().into(), status.into()))
        }
        "Publish" | "Snapshot" | "Clear" | "End" => topic_order(env, service, it),
        _ => refuse(codes::UNKNOWN, "Action is unknown"),
    }
}

fn topic_order(env: &Env, service: &ServiceEntry, it: Container) -> Result<Order, Refusal> {
    let refuse = |code, text| Err(Refusal { code, text });
    let realm = &env.zenith;
    let Some(topic) = &it.topic else { return refuse(codes::UNKNOWN, "Topic is missing") };
    if it.controller.len() + topic.len() > realm.config.topic_length {
        return refuse(codes::LIMITED, "the topic is too long");
    }
    if !service.may_serve(&it.controller) {
        return refuse(codes::AUTHORITY, "the service may not serve this controller");
    }
    let Some(rule) = realm.look(&it.controller, topic).rule else {
        return refuse(codes::UNKNOWN, "no such topic is configured or registered");
    };
    if rule.data.is_some() {
        return refuse(codes::UNKNOWN, "the topic's data stands in the configuration");
    }
    let name = words::channel(&it.controller, topic);
    let retain = match &it.retain {
        None => rule.retain,
        Some(word) => match word.as_text().and_then(retain_of) {
            Some(retain) => retain,
            None => return refuse(codes::DESERIALISE, "Retain is unknown"),
        },
    };
    let mode = match retain {
        config::Retain::Merge => Some(Mode::Merge { null_deletes: rule.null_deletes }),
        config::Retain::Log => {
            Some(Mode::Log { most: realm.config.log_elements as u32, clears: CLEARS })
        }
        config::Retain::Replace => Some(Mode::Replace),
        config::Retain::None => None,
    };
    let retain = match it.action.as_deref() {
        Some("End") => {
            let whom = Whom::of(it.session.as_ref(), it.user.as_ref());
            return match whom {
                Some(whom) => Ok(Order::End(name, it.error, whom)),
                None => refuse(codes::DESERIALISE, "End is for a Session or a UserID, or for all"),
            };
        }
        Some("Clear") => return Ok(Order::Data(name, Arc::new(Forms::clear()))),
        Some("Snapshot") => Retain::Install { mode: mode.unwrap_or(Mode::Replace), heard: false },
        _ => mode.map_or(Retain::Nothing, Retain::Update),
    };
    let Some(data) = it.data.filter(|data| !data.is_null()) else {
        return refuse(codes::DATA, "Data is missing or null");
    };
    let envelope = Arc::new(words::envelope(&it.controller, topic));
    match Forms::new(envelope, data, retain, env.compresses) {
        Ok(forms) => Ok(Order::Data(name, Arc::new(forms))),
        Err(_) => refuse(codes::DESERIALISE, "Data cannot be written in every format"),
    }
}

impl Whom {
    fn of(session: Option<&Value>, user: Option<&Value>) -> Option<Whom> {
        match (session, user) {
            (None, None) => Some(Whom::All),
            (Some(Value::Text(session)), None) => words::parse_session(session).map(Whom::Session),
            (None, Some(Value::Text(user))) => Some(Whom::User(user.clone())),
            _ => None,
        }
    }
}

/// A word for what is kept.
pub(super) fn retain_of(word: &str) -> Option<config::Retain> {
    match word {
        "Replace" => Some(config::Retain::Replace),
        "Merge" => Some(config::Retain::Merge),
        "Log" => Some(config::Retain::Log),
        "None" => Some(config::Retain::None),
        _ => None,
    }
}

/// Does it; says how many sessions it ends.
pub(super) fn carry_out(context: &mut Context<'_>, order: Order, part: u16) -> usize {
    match order {
        Order::Data(name, forms) => {
            let event = Event { forms: Some(forms), ..Event::default() };
            context.actions.push(Action::Publish { app: APP, name, event, part });
            0
        }
        Order::End(name, error, whom) => {
            let what = told(Told::End { channel: name.as_str().into(), error });
            let sessions = match whom {
                Whom::All => return end_for_all(context, name, what, part),
                Whom::User(user) => context.env.zenith.state.sessions(&user),
                Whom::Session(session) => vec![session],
            };
            // Behind what was said of the topic before.
            let told = |to| {
                let (name, what) = (name.clone(), what.clone());
                Action::TellBehind { app: APP, name, to, what }
            };
            context.actions.extend(sessions.into_iter().map(told));
            0
        }
        Order::Kick(user) => {
            let sessions = context.env.zenith.state.sessions(&user);
            for &to in &sessions {
                context.actions.push(Action::Tell { to, what: told(Told::Kick(KICKED)) });
            }
            sessions.len()
        }
        Order::Feed(name, status) => {
            if context.env.zenith.state.set_feed(&name, Some(&status)) {
                context.actions.push(feeds_told(context.env, part));
            }
            0
        }
    }
}

/// Ends a topic for all, and its picture.
fn end_for_all(context: &mut Context<'_>, name: String, what: hub::Told, part: u16) -> usize {
    let forms = Some(Arc::new(Forms::clear()));
    let event = Event { forms, told: Some(what), ..Event::default() };
    context.actions.push(Action::Publish { app: APP, name, event, part });
    0
}

/// Tells all subscribers of `Zenith/Feeds` how the feeds are.
pub(super) fn feeds_told(env: &Env, part: u16) -> Action {
    let what = told(Told::Feeds(env.zenith.feeds()));
    let event = Event { told: Some(what), ..Event::default() };
    Action::Publish { app: APP, name: words::channel("Zenith", "Feeds"), event, part }
}
