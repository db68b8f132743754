//! A client of the simulation: it subscribes and publishes, and notes what it gets.

use super::judge::{Ended, EventRun, Judge, Outcome, Publish};
use crate::peer::{APP, ClientReader, Received, SECOND, auth_of, handshake, signed, text};
use fastrand::Rng;
use polycast::mem::Slot;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The channels of the two applications. The last one of each has members.
const CHANNELS: [[&str; 4]; 2] =
    [["one", "two", "three", "presence-four"], ["five", "six", "seven", "presence-eight"]];
/// The number of users.
const USERS: u32 = 4;
const EVENTS: [&str; 2] = ["/apps/1/events", "/apps/2/events"];

/// See the module's documentation.
pub(super) struct Client {
    /// Its application: 0 is the one that all nodes have.
    pub(super) app: usize,
    /// Its core and its connection.
    pub(super) place: (usize, Slot),
    pub(super) reader: ClientReader,
    /// What it has sent and its core has not read.
    pub(super) unread: Vec<u8>,
    /// Whether it publishes by HTTP and does not subscribe.
    publishes: bool,
    socket_id: String,
    /// Whether it has outlived the place of its node in the log, so that it does not count.
    pub(super) is_void: bool,
    /// Whether it was admitted when connections were last counted.
    pub(super) was_admitted: bool,
    /// The user that it is in the channel with members.
    user: String,
    /// The members of that channel as it knows them, while it is one.
    members: Option<BTreeSet<String>>,
    /// The publishes that are not answered, the oldest first.
    asked: VecDeque<u64>,
    /// The channels whose subscriptions are not confirmed.
    joining: BTreeSet<&'static str>,
    /// The channels that it has left, until the answer to a ping shows that nothing more comes.
    leaving: VecDeque<&'static str>,
    /// What was received on each channel since the subscription was confirmed.
    run: BTreeMap<&'static str, EventRun>,
}

impl Client {
    pub(super) fn new(app: usize, core: usize, slot: Slot, rng: &mut Rng) -> Client {
        Client {
            app,
            place: (core, slot),
            reader: ClientReader::default(),
            unread: Vec::new(),
            publishes: rng.u32(0..3) == 0,
            socket_id: String::new(),
            is_void: false,
            was_admitted: false,
            user: format!("u{}", rng.u32(0..USERS)),
            members: None,
            asked: VecDeque::new(),
            joining: BTreeSet::new(),
            leaving: VecDeque::new(),
            run: BTreeMap::new(),
        }
    }

    /// A client that subscribes.
    pub(super) fn subscriber(app: usize, core: usize, slot: Slot, rng: &mut Rng) -> Client {
        Client { publishes: false, ..Client::new(app, core, slot, rng) }
    }

    pub(super) fn subscribes(&self) -> bool {
        !self.publishes
    }

    /// Whether its connection was admitted.
    pub(super) fn is_admitted(&self) -> bool {
        !self.socket_id.is_empty()
    }

    /// The first bytes that it sends.
    pub(super) fn begins(&mut self) -> Vec<u8> {
        let key = self.keys().1;
        if self.publishes { Vec::new() } else { handshake(&format!("/app/{key}"), "") }
    }

    /// The id, key and secret of its application.
    fn keys(&self) -> (&'static str, &'static str, &'static str) {
        [APP, SECOND][self.app]
    }

    /// The channel of its application that has members.
    fn room(&self) -> &'static str {
        CHANNELS[self.app][3]
    }

    /// Does something; a subscription that it gives up has `ended` so. Returns what it sends.
    pub(super) fn acts(
        &mut self,
        rng: &mut Rng,
        judge: &mut Judge,
        unix_s: u64,
        ended: Ended,
    ) -> Vec<u8> {
        let channels = &CHANNELS[self.app];
        let channel = channels[rng.usize(0..channels.len())];
        if self.publishes {
            if self.asked.len() >= 3 {
                return Vec::new();
            }
            let Publish { number, channel, key, .. } =
                judge.publishes(rng, channels, channel, unix_s);
            self.asked.push_back(number);
            let data = number.to_string();
            let mut body = serde_json::json!({ "name": "e", "channel": channel, "data": data });
            if let Some(key) = key {
                body["idempotency_key"] = key.to_string().into();
            }
            return signed("POST", EVENTS[self.app], body.to_string().as_bytes(), unix_s);
        }
        if self.socket_id.is_empty()
            || self.joining.contains(channel)
            || self.leaving.contains(&channel)
        {
            return Vec::new();
        }
        let data = format!(r#""data":{{"channel":"{channel}"}}"#);
        match self.run.remove(channel) {
            None => {
                self.joining.insert(channel);
                self.subscribe(channel)
            }
            Some(run) if rng.u32(0..4) == 0 => {
                // What comes from now on is not counted.
                judge.notes_run(channel, run, ended);
                let is_room = channel == self.room();
                self.members.take_if(|_| is_room);
                self.leaving.push_back(channel);
                let end = text(&format!(r#"{{"event":"pusher:unsubscribe",{data}}}"#));
                // The answer to the ping comes after all that was sent before.
                [end, text(r#"{"event":"pusher:ping","data":{}}"#)].concat()
            }
            Some(run) => {
                self.run.insert(channel, run);
                Vec::new()
            }
        }
    }

    /// Joins the channel that has members, unless it is there. Returns what it sends.
    pub(super) fn joins_room(&mut self) -> Vec<u8> {
        let room = self.room();
        let is_known = self.joining.contains(room) || self.leaving.contains(&room);
        if self.publishes || !self.is_admitted() || is_known || self.run.contains_key(room) {
            return Vec::new();
        }
        self.joining.insert(room);
        self.subscribe(room)
    }

    fn subscribe(&self, channel: &str) -> Vec<u8> {
        let mut data = serde_json::json!({ "channel": channel });
        if channel == self.room() {
            let (_, key, secret) = self.keys();
            let user = serde_json::json!({ "user_id": self.user }).to_string();
            let signed = format!("{channel}:{user}");
            data["auth"] = auth_of(key, secret, &self.socket_id, &signed).into();
            data["channel_data"] = user.into();
        }
        text(&serde_json::json!({ "event": "pusher:subscribe", "data": data }).to_string())
    }

    /// Notes what it has received. Returns whether the server has closed the connection.
    pub(super) fn reads(&mut self, received: Vec<Received>, judge: &mut Judge) -> bool {
        let mut is_closed = false;
        for it in received {
            match it {
                Received::Answer { status: 101, .. } => {}
                Received::Answer { status, body, .. } => {
                    let number = self.asked.pop_front().expect("it has asked");
                    let outcome = match status {
                        200 => Outcome::Stored,
                        503 => Outcome::Refused,
                        504 => Outcome::Unknown,
                        409 if body.contains("in progress") => Outcome::InProgress,
                        409 => Outcome::KeyUsed,
                        _ => panic!("{status} {body}"),
                    };
                    judge.answers(number, outcome);
                }
                Received::Text(text) => self.reads_text(&text, judge),
                Received::Close(..) => is_closed = true,
                Received::Ping(_) => {}
                other => panic!("{other:?}"),
            }
        }
        is_closed
    }

    fn reads_text(&mut self, text: &str, judge: &mut Judge) {
        let message: serde_json::Value = serde_json::from_str(text).expect("JSON");
        let channel = message["channel"].as_str().unwrap_or_default();
        let channel = CHANNELS[self.app].into_iter().find(|it| *it == channel);
        match (message["event"].as_str().expect("an event"), channel) {
            ("pusher_internal:subscription_succeeded", Some(channel)) => {
                assert!(self.joining.remove(channel), "{text}");
                self.run.insert(channel, judge.begins());
                if channel == self.room() {
                    let ids = data(&message)["presence"]["ids"].clone();
                    let members: BTreeSet<String> = serde_json::from_value(ids).expect("ids");
                    assert!(members.contains(&self.user), "{text}");
                    self.members = Some(members);
                }
            }
            ("pusher:subscription_error", Some(channel)) => {
                assert!(self.joining.remove(channel), "{text}");
            }
            ("pusher_internal:member_added", Some(_)) => {
                let Some(members) = &mut self.members else { return self.is_leaving(text) };
                let id = data(&message)["user_id"].as_str().expect("a user").to_owned();
                assert!(members.insert(id), "present already: {text} {members:?}");
            }
            ("pusher_internal:member_removed", Some(_)) => {
                let Some(members) = &mut self.members else { return self.is_leaving(text) };
                let id = data(&message)["user_id"].as_str().expect("a user").to_owned();
                assert!(members.remove(&id), "not present: {text} {members:?}");
            }
            ("e", Some(channel)) => {
                let number = message["data"].as_str().and_then(|it| it.parse().ok());
                let number = number.unwrap_or_else(|| panic!("not a number: {text}"));
                match self.run.get_mut(channel) {
                    Some(run) => run.push(number),
                    None => assert!(self.leaving.contains(&channel), "{text}"),
                }
            }
            ("pusher:pong", _) => {
                self.leaving.pop_front().expect("it has left a channel");
            }
            ("pusher:connection_established", _) => {
                let id = data(&message)["socket_id"].as_str().expect("an id").to_owned();
                self.socket_id = id;
            }
            ("pusher:error", _) => {}
            other => panic!("{other:?}: {text}"),
        }
    }

    /// Asserts that it has left the channel with members, and that more may come until the answer
    /// to its ping.
    fn is_leaving(&self, text: &str) {
        assert!(self.leaving.contains(&self.room()), "{text}");
    }

    /// Its connection has ended.
    pub(super) fn leaves(&mut self, ended: Ended, judge: &mut Judge) {
        self.asked.drain(..).for_each(|number| judge.is_unanswered(number));
        for (channel, run) in std::mem::take(&mut self.run) {
            judge.notes_run(channel, run, ended);
        }
    }

    /// The simulation has ended, and everything was delivered.
    pub(super) fn stays(&mut self, judge: &mut Judge) {
        assert!(self.asked.is_empty(), "a publish is not answered: {:?}", self.asked);
        assert!(self.joining.is_empty(), "subscriptions are not answered: {:?}", self.joining);
        if let Some(members) = self.members.take() {
            judge.is_member(self.room(), &self.user, members);
        }
        for (channel, run) in std::mem::take(&mut self.run) {
            judge.notes_run(channel, run, Ended::Open);
        }
    }
}

/// The data of a message, which is JSON in a text.
fn data(message: &serde_json::Value) -> serde_json::Value {
    let text = message["data"].as_str().expect("a text");
    serde_json::from_str(text).expect("JSON")
}
