//! The tables of this dialect in a cluster: which back ends, sessions and states of feeds there
//! are. Each is the fold of what nodes state in the log, so all nodes have the same, and look-ups
//! stay local.
//!
//! A back end, and a session of a user, are members of channels that no client can name, so they
//! end with their connection or with their node. So is a back end whose end removes a picture. The
//! states of feeds are the picture of such a channel.

use super::client::Client;
use super::directory::Principal;
use super::members::{LoggedMember, LoggedMembers, MemberKey};
use super::messages::{TOO_MANY, ZenithMessage};
use super::peer::ZenithPeer;
use super::registry::{Served, State};
use super::rule::{Rule, retain_of};
use super::wire::{self, APP};
use crate::codec::Value;
use crate::dialect::{
    DialectContext, DialectMessage, Effect, Env, Event, EventPayload, JoinRequest, Member,
    MemberChange, UserStatus,
};
use crate::hub::{ConnId, Encodings, Form, Mode, PicturePiece, Retention, picture_value};
use std::collections::BTreeSet;
use std::sync::{Arc, MutexGuard, PoisonError};

/// The controller of the channels that no client can name.
pub(super) const HIDDEN: &str = "#";
/// The state of a feed whose back end has closed.
pub(super) const GONE: &str = "Inactive";
/// The channel whose picture has the states of feeds.
const FEEDS: &str = "#\0feeds";
/// The beginning of the names of channels whose members are back ends, and the sessions of a user.
const SERVED: &str = "#\0served\0";
const USER: &str = "#\0user\0";
/// The beginning of the names of channels whose members are the back ends whose end removes the
/// picture of the channel that follows.
const PICTURE: &str = "#\0picture\0";

/// A controller of a back end, a kind or `None` for all, how pictures are kept, and the scope.
type ServedInfo = (Box<str>, Option<Box<str>>, Box<str>, Box<str>);

/// What a back end has registered, as its member's info.
#[derive(Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub(super) struct RegisteredInfo {
    pub(super) authorises: bool,
    pub(super) served: Vec<ServedInfo>,
    pub(super) feeds: Vec<Box<str>>,
}

/// The effect that makes a connection a member of a channel that no client can name.
fn enter(context: &DialectContext<'_>, name: String, info: &str) -> Effect {
    let id: Arc<str> = wire::session(context.env, context.conn.into()).into();
    let change = |online| {
        let status = UserStatus { id: String::new(), online };
        MemberChange::Message(DialectMessage::Channels(Arc::new(status)))
    };
    let (added, removed) = (change(true), change(false));
    let member = Member { id, info: Some(info.into()), added, removed, max: 0 };
    let request = JoinRequest { member: Some(Box::new(member)), ..JoinRequest::default() };
    let (request, form) = (Some(request), Form::PUBLISHED);
    Effect::Join { app: APP, name, max: usize::MAX, request, form }
}

/// States what a back end has registered; `number` counts its registrations. Returns the channel of
/// which it becomes a member.
pub(super) fn state_registration(
    context: &mut DialectContext<'_>,
    number: usize,
    info: &RegisteredInfo,
) -> String {
    let name = format!("{SERVED}{number}");
    let info = serde_json::to_string(info).unwrap_or_default();
    let effect = enter(context, name.clone(), &info);
    context.effects.push(effect);
    name
}

/// The effect that makes a back end one of those whose end removes the picture of a channel.
pub(super) fn own_picture(context: &DialectContext<'_>, channel: &str) -> Effect {
    let source = context.env.links.resolve(APP, channel);
    let channel = source.map_or(channel.into(), |source| source.name);
    enter(context, format!("{PICTURE}{channel}"), "")
}

/// The channel whose picture ends with the members of this one.
pub fn owned_picture(channel: &str) -> Option<&str> {
    channel.strip_prefix(PICTURE)
}

/// The effect that changes the states of feeds on all nodes; `None` is the configured state.
pub(super) fn state_feeds(env: &Env, feeds: &[(Box<str>, Option<&str>)], part: u16) -> Effect {
    let (app, name) = (APP, FEEDS.to_owned());
    Effect::Publish { app, name, event: feeds_event(env, feeds), part }
}

fn feeds_event(env: &Env, feeds: &[(Box<str>, Option<&str>)]) -> Event {
    let status = |status: Option<&str>| status.map_or(Value::Null, Value::text);
    let members = feeds.iter().map(|(name, it)| (name.clone(), status(*it))).collect();
    let (controller, topic) = wire::split(FEEDS);
    let envelope = Arc::new(wire::envelope(controller, topic));
    let encodings = Encodings::new(envelope, Value::Map(members), env.compresses);
    let payload = match encodings {
        Ok(encodings) => EventPayload::Value(Arc::new(encodings)),
        // No configured name of a feed has U+0000.
        Err(_) => EventPayload::Nothing,
    };
    let retain = Retention::update(Some(Mode::Merge { null_deletes: true }));
    Event { payload, retain, ..Event::default() }
}

impl Client {
    /// Adds this connection to the sessions of a user, on all nodes.
    pub(super) fn state_session(&self, context: &mut DialectContext<'_>, principal: &Principal) {
        let name = format!("{USER}{}", principal.user);
        let effect = enter(context, name, &principal.sessions.to_string());
        context.effects.push(effect);
    }

    /// Removes this connection from the sessions of a user, on all nodes.
    pub(super) fn end_session(&self, context: &mut DialectContext<'_>, user: &str) {
        context.effects.push(Effect::Leave { app: APP, name: format!("{USER}{user}") });
    }
}

impl State {
    fn logged(&self) -> MutexGuard<'_, LoggedMembers> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a member. Returns the sessions that are too many.
    fn add(&self, channel: &str, peer: ZenithPeer, info: &str) -> (Vec<ZenithPeer>, Vec<Box<str>>) {
        if let Some(user) = channel.strip_prefix(USER) {
            return (self.enter(user, peer, info.parse().unwrap_or(0)), Vec::new());
        }
        if owned_picture(channel).is_some() {
            return Default::default();
        }
        let Ok(info) = serde_json::from_str::<RegisteredInfo>(info) else {
            return Default::default();
        };
        for (controller, kind, retain, scope) in info.served {
            let retain = retain_of(&retain).unwrap_or_default();
            let rule = Arc::new(Rule { retain, scope, ..Rule::default() });
            let authorises = info.authorises;
            self.register(&controller, Served { kind, conn: Some(peer), authorises, rule });
        }
        (Vec::new(), info.feeds)
    }

    fn remove(&self, channel: &str, peer: ZenithPeer) {
        match channel.strip_prefix(USER) {
            Some(user) => self.leave(user, peer),
            None if owned_picture(channel).is_some() => {}
            None => self.unregister(peer),
        }
    }

    fn remove_members(
        &self,
        is_removed: impl Fn(&LoggedMembers, &MemberKey, &LoggedMember) -> bool,
    ) -> RemovedMembers {
        let mut logged = self.logged();
        let all = logged.members.iter();
        let removed = all.filter(|(key, member)| is_removed(&logged, key, member));
        let removed: Vec<MemberKey> = removed.map(|(key, _)| key.clone()).collect();
        let mut ended = RemovedMembers::default();
        for key in removed {
            logged.unconfirmed.remove(&key);
            let Some(member) = logged.members.remove(&key) else { continue };
            self.remove(&key.0, member.peer);
            ended.feeds.extend(member.feeds);
            ended.pictures.extend(owned_picture(&key.0).map(str::to_owned));
        }
        ended
    }
}

/// What ends with members that are removed.
#[derive(Default)]
struct RemovedMembers {
    feeds: Vec<Box<str>>,
    /// The channels whose pictures end.
    pictures: BTreeSet<String>,
}

/// Notes a member of a channel that the log has on a node; `info` is `None` if it is not there any
/// more. Returns messages for connections of this process.
pub fn note_member(
    env: &Env,
    channel: &str,
    node: u64,
    (id, info): (&str, Option<&str>),
) -> Vec<(ConnId, DialectMessage)> {
    let state = &env.zenith.state;
    let Some(peer) = wire::parse_session(env, id) else { return Vec::new() };
    let key = (channel.into(), id.into());
    let mut logged = state.logged();
    logged.unconfirmed.remove(&key);
    let Some(info) = info else {
        if logged.members.remove(&key).is_some() {
            state.remove(channel, peer);
        }
        return Vec::new();
    };
    if let Some(known) = logged.members.get_mut(&key) {
        known.node = node;
        return Vec::new();
    }
    let (too_many, feeds) = state.add(channel, peer, info);
    logged.members.insert(key, LoggedMember { node, peer, feeds });
    let ours = too_many.into_iter().filter(|peer| peer.process == 0);
    ours.map(|peer| (peer.conn, ZenithMessage::Kick(TOO_MANY).into())).collect()
}

/// Notes that the log is read from its beginning.
pub fn begin_refresh(env: &Env) {
    let mut logged = env.zenith.state.logged();
    logged.unconfirmed = logged.members.keys().cloned().collect();
    logged.feeds.values_mut().for_each(|serial| *serial = 0);
}

/// Removes what a node has stated, which has ended, or without one what was not confirmed since
/// [`begin_refresh`]. Returns the channels and the events that report it to all nodes. A node that
/// has left (`has_left`) has itself removed the pictures of its back ends, when it closed them.
pub fn remove_node(env: &Env, node: Option<u64>, has_left: bool) -> Vec<(String, Event)> {
    let RemovedMembers { feeds, pictures } =
        env.zenith.state.remove_members(|logged, key, member| match node {
            Some(node) => member.node == node,
            None => logged.unconfirmed.contains(key),
        });
    let feeds = feeds.into_iter().filter(|feed| env.zenith.has_feed(feed));
    let feeds: Vec<_> = feeds.map(|feed| (feed, Some(GONE))).collect();
    let report = (!feeds.is_empty()).then(|| (FEEDS.to_owned(), feeds_event(env, &feeds)));
    let pictures = pictures.into_iter().filter(|_| !has_left);
    report.into_iter().chain(pictures.map(|channel| (channel, Event::clear()))).collect()
}

/// Notes an event at a place of the log. Returns the event that follows from it for another
/// channel.
pub fn note_event(env: &Env, channel: &str, event: &Event, serial: u64) -> Option<(String, Event)> {
    let value = event.encodings().filter(|_| channel == FEEDS)?.value()?;
    change_feeds(env, |logged, state| {
        let mut is_changed = false;
        for (name, status) in value.members().unwrap_or_default() {
            logged.feeds.insert(name.clone(), serial);
            is_changed |= state.set_feed(name, status.as_text());
        }
        is_changed
    })
}

/// Notes a piece of a picture of the log. Returns the event that follows from it for another
/// channel.
pub fn note_piece(env: &Env, channel: &str, piece: &PicturePiece) -> Option<(String, Event)> {
    if channel != FEEDS || piece.index > 0 || piece.count > 1 {
        return None;
    }
    let value =
        if piece.count == 0 { Some(Value::Map(Vec::new())) } else { picture_value(&piece.bytes) };
    let value = value?;
    change_feeds(env, |logged, state| {
        let mut is_changed = false;
        for (name, status) in value.members().unwrap_or_default() {
            let serial = logged.feeds.entry(name.clone()).or_default();
            if *serial <= piece.serial {
                *serial = piece.serial;
                is_changed |= state.set_feed(name, status.as_text());
            }
        }
        let is_over = |name: &str, serial: u64| serial < piece.serial && value.get(name).is_none();
        logged.feeds.retain(|name, serial| {
            let is_over = is_over(name, *serial);
            is_changed |= is_over && state.set_feed(name, None);
            !is_over
        });
        is_changed
    })
}

/// Changes the states of feeds, and tells the subscribers of this node if they have changed.
fn change_feeds(
    env: &Env,
    change: impl FnOnce(&mut LoggedMembers, &State) -> bool,
) -> Option<(String, Event)> {
    let state = &env.zenith.state;
    let is_changed = change(&mut state.logged(), state);
    is_changed.then(|| {
        let what = ZenithMessage::Feeds(env.zenith.feeds());
        (wire::channel("Zenith", "Feeds"), Event::message(what.into()))
    })
}

#[cfg(test)]
mod tests {
    use super::super::rule::Backend;
    use super::*;
    use crate::config::{Config, FileFormat};
    use crate::mem::Slot;

    fn env() -> Env {
        let text = "[zenith]\nfeeds = [{ name = 'A', class = 'News' }, \
                    { name = 'B', class = 'News' }]\n";
        let config = Config::parse_with(text, FileFormat::Toml, "t", &|_| None).expect("valid");
        let env = Env::new(config, 0).expect("an environment");
        env.runtime.cluster.set_process(1);
        env
    }

    fn peer(process: u64, index: u32) -> ZenithPeer {
        ZenithPeer { process, conn: ConnId { core: 0, slot: Slot { index, generation: 1 } } }
    }

    fn note(env: &Env, name: &str, (node, peer): (u64, ZenithPeer), info: Option<&str>) -> usize {
        let id = wire::session(env, peer);
        note_member(env, name, node, (&id, info)).len()
    }

    fn registration(feeds: &[&str]) -> String {
        let served = vec![("Market".into(), None, "Merge".into(), "".into())];
        let feeds = feeds.iter().map(|feed| (*feed).into()).collect();
        let info = RegisteredInfo { authorises: true, served, feeds };
        serde_json::to_string(&info).expect("JSON")
    }

    fn backend(env: &Env) -> Backend {
        env.zenith.state.served("Market", "Q").1
    }

    /// The pictures that are removed because of the end of a node.
    fn removed(env: &Env, node: Option<u64>, has_left: bool) -> Vec<String> {
        let reports = remove_node(env, node, has_left).into_iter();
        reports.filter(|(_, event)| event.removes_picture()).map(|(channel, _)| channel).collect()
    }

    #[test]
    fn zenith_pictures_end_with_the_node_of_their_back_end() {
        let env = env();
        let served = format!("{SERVED}1");
        let owned = ["Market\0S!a", "Market\0S!b"].map(|it| format!("{PICTURE}{it}"));
        note(&env, &served, (20, peer(2, 1)), Some(&registration(&[])));
        for (node, back_end) in [(20, peer(2, 1)), (20, peer(2, 2)), (30, peer(3, 1))] {
            owned.iter().for_each(|it| _ = note(&env, it, (node, back_end), Some("")));
        }
        // One of them has closed, and has itself removed its pictures.
        note(&env, &owned[1], (30, peer(3, 1)), None);
        assert_eq!(backend(&env), Backend::At(peer(2, 1), true), "it is registered still");
        assert_eq!(removed(&env, Some(40), false), [""; 0]);
        assert_eq!(removed(&env, Some(20), false), ["Market\0S!a", "Market\0S!b"], "once");
        assert_eq!(removed(&env, Some(20), false), [""; 0]);
        begin_refresh(&env);
        assert_eq!(removed(&env, None, false), ["Market\0S!a"]);
        note(&env, &owned[0], (50, peer(5, 1)), Some(""));
        assert_eq!(removed(&env, Some(50), true), [""; 0], "it has removed them");
        assert_eq!(removed(&env, Some(50), false), [""; 0]);
    }

    #[test]
    fn zenith_back_ends_are_those_that_nodes_have_stated() {
        let env = env();
        let served = format!("{SERVED}1");
        let (ours, other) = (peer(0, 1), peer(2, 1));
        note(&env, &served, (20, other), Some(&registration(&["A"])));
        note(&env, &served, (10, ours), Some(&registration(&[])));
        assert_eq!(backend(&env), Backend::At(other, true));
        assert!(env.zenith.state.has_peer(other));
        // The same again, by another id of its node.
        note(&env, &served, (21, other), Some(&registration(&["A"])));
        assert!(remove_node(&env, Some(20), false).is_empty());
        assert_eq!(backend(&env), Backend::At(other, true));
        let reports = remove_node(&env, Some(21), false);
        let [(channel, event)] = &reports[..] else { panic!("its feed") };
        assert_eq!(backend(&env), Backend::At(ours, true));
        assert!(!env.zenith.state.has_peer(other));
        assert!(note_event(&env, channel, event, 1).is_some());
        let feeds = format!("{:?}", env.zenith.feeds());
        assert!(feeds.contains("Inactive"), "{feeds}");
        note(&env, &served, (10, ours), None);
        assert_eq!(backend(&env), Backend::Away);
        note(&env, &served, (10, ours), None);
        assert_eq!(note_member(&env, &served, 10, ("no id", Some(""))).len(), 0);
    }

    #[test]
    fn zenith_newcomer_ends_the_oldest_session_on_its_node() {
        let env = env();
        let name = format!("{USER}ada");
        let sessions = || env.zenith.state.sessions("ada");
        assert_eq!(note(&env, &name, (10, peer(0, 1)), Some("2")), 0);
        assert_eq!(note(&env, &name, (20, peer(2, 1)), Some("2")), 0);
        assert_eq!(note(&env, &name, (20, peer(2, 2)), Some("2")), 1, "ours is too many");
        assert_eq!(note(&env, &name, (20, peer(2, 3)), Some("2")), 0, "its own node ends it");
        assert_eq!(sessions(), [peer(2, 2), peer(2, 3)]);
        note(&env, &name, (20, peer(2, 2)), None);
        assert_eq!(sessions(), [peer(2, 3)]);
        assert!(remove_node(&env, Some(20), false).is_empty());
        assert_eq!(sessions(), []);
    }

    #[test]
    fn zenith_members_that_are_not_confirmed_are_removed() {
        let env = env();
        let name = format!("{USER}ada");
        for index in [1, 2] {
            note(&env, &name, (20, peer(2, index)), Some("0"));
        }
        begin_refresh(&env);
        note(&env, &name, (20, peer(2, 2)), Some("0"));
        assert!(remove_node(&env, None, false).is_empty());
        assert_eq!(env.zenith.state.sessions("ada"), [peer(2, 2)]);
    }

    /// The states of the feeds A and B.
    fn states(env: &Env) -> [String; 2] {
        let feeds = env.zenith.feeds();
        let feeds = feeds.elements().expect("feeds").iter();
        let mut states = feeds.map(|it| it.get("Status").and_then(Value::as_text).unwrap_or(""));
        [(); 2].map(|()| states.next().unwrap_or("").to_owned())
    }

    #[test]
    fn zenith_states_of_feeds_are_those_of_the_last_change() {
        let env = env();
        let change = |name: &str, status, serial| {
            let event = feeds_event(&env, &[(name.into(), status)]);
            note_event(&env, FEEDS, &event, serial).is_some()
        };
        assert!(change("A", Some("Closed"), 64) && !change("A", Some("Closed"), 128));
        assert!(change("B", Some("Expired"), 192));
        assert_eq!(states(&env), ["Closed", "Expired"]);
        let piece = |serial, states: &[(&str, &str)]| {
            let members = states.iter().map(|(name, it)| ((*name).into(), Value::text(it)));
            let mut bytes = vec![2];
            crate::codec::compact::push(&Value::Map(members.collect()), &mut bytes);
            let count = u32::from(!states.is_empty());
            let bytes = if states.is_empty() { Vec::new() } else { bytes };
            PicturePiece { serial, index: 0, count, bytes: bytes.into() }
        };
        // A picture that was stated before the last change, and one after it.
        assert!(note_piece(&env, FEEDS, &piece(128, &[("A", "Closed")])).is_none());
        assert_eq!(states(&env), ["Closed", "Expired"]);
        let later = piece(256, &[("B", "Impaired")]);
        assert!(note_piece(&env, "Market\0A", &later).is_none());
        assert!(note_piece(&env, FEEDS, &later).is_some());
        assert_eq!(states(&env), ["Active", "Impaired"], "A has the configured state");
        assert!(change("B", None, 320));
        assert!(note_piece(&env, FEEDS, &piece(384, &[])).is_none());
        assert_eq!(states(&env), ["Active", "Active"]);
    }
}
