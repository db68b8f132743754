//! A client of the simulation: it subscribes and publishes, and notes what it gets.

use super::judge::{Heard, Judge, Outcome};
use crate::peer::{ClientReader, Received, handshake, signed, text};
use fastrand::Rng;
use polycast::mem::Slot;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The channels.
pub(super) const CHANNELS: [&str; 3] = ["one", "two", "three"];
const EVENTS: &str = "/apps/1/events";

/// See the module's documentation.
pub(super) struct Client {
    /// Its core and its connection.
    pub(super) place: (usize, Slot),
    pub(super) reader: ClientReader,
    /// What it has sent and its core has not read.
    pub(super) unread: Vec<u8>,
    /// Whether it publishes by HTTP and does not subscribe.
    publishes: bool,
    /// The publishes that are not answered, the oldest first.
    asked: VecDeque<u64>,
    /// The channels whose subscriptions are not confirmed.
    joining: BTreeSet<&'static str>,
    /// The channels that it has left, until the answer to a ping shows that nothing more comes.
    leaving: VecDeque<&'static str>,
    /// What was received on each channel since the subscription was confirmed.
    heard: BTreeMap<&'static str, Heard>,
}

impl Client {
    pub(super) fn new(core: usize, slot: Slot, rng: &mut Rng) -> Client {
        Client {
            place: (core, slot),
            reader: ClientReader::default(),
            unread: Vec::new(),
            publishes: rng.u32(0..3) == 0,
            asked: VecDeque::new(),
            joining: BTreeSet::new(),
            leaving: VecDeque::new(),
            heard: BTreeMap::new(),
        }
    }

    /// The first bytes that it sends.
    pub(super) fn begins(&mut self) -> Vec<u8> {
        if self.publishes { Vec::new() } else { handshake("/app/app-key", "") }
    }

    /// Does something. Returns what it sends.
    pub(super) fn acts(&mut self, rng: &mut Rng, judge: &mut Judge, unix_s: u64) -> Vec<u8> {
        let channel = CHANNELS[rng.usize(0..CHANNELS.len())];
        if self.publishes {
            if self.asked.len() >= 3 {
                return Vec::new();
            }
            let number = judge.publishes();
            self.asked.push_back(number);
            let body = format!(r#"{{"name":"e","channel":"{channel}","data":"{number}"}}"#);
            return signed("POST", EVENTS, body.as_bytes(), unix_s);
        }
        if self.joining.contains(channel) || self.leaving.contains(&channel) {
            return Vec::new();
        }
        let data = format!(r#""data":{{"channel":"{channel}"}}"#);
        match self.heard.remove(channel) {
            None => {
                self.joining.insert(channel);
                text(&format!(r#"{{"event":"pusher:subscribe",{data}}}"#))
            }
            Some(heard) if rng.u32(0..4) == 0 => {
                // What comes from now on is not counted.
                judge.hears(channel, heard, false);
                self.leaving.push_back(channel);
                let end = text(&format!(r#"{{"event":"pusher:unsubscribe",{data}}}"#));
                // The answer to the ping comes behind all that was sent before.
                [end, text(r#"{"event":"pusher:ping","data":{}}"#)].concat()
            }
            Some(heard) => {
                self.heard.insert(channel, heard);
                Vec::new()
            }
        }
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
        let channel = CHANNELS.into_iter().find(|it| *it == channel);
        match (message["event"].as_str().expect("an event"), channel) {
            ("pusher_internal:subscription_succeeded", Some(channel)) => {
                assert!(self.joining.remove(channel), "{text}");
                self.heard.insert(channel, judge.begins());
            }
            ("e", Some(channel)) => {
                let number = message["data"].as_str().and_then(|it| it.parse().ok());
                let number = number.unwrap_or_else(|| panic!("not a number: {text}"));
                match self.heard.get_mut(channel) {
                    Some(heard) => heard.push(number),
                    None => assert!(self.leaving.contains(&channel), "{text}"),
                }
            }
            ("pusher:pong", _) => {
                self.leaving.pop_front().expect("it has left a channel");
            }
            ("pusher:connection_established" | "pusher:error", _) => {}
            other => panic!("{other:?}: {text}"),
        }
    }

    /// Its connection has ended.
    pub(super) fn leaves(&mut self, judge: &mut Judge) {
        for (channel, heard) in std::mem::take(&mut self.heard) {
            judge.hears(channel, heard, false);
        }
    }

    /// The simulation has ended, and everything was delivered.
    pub(super) fn stays(&mut self, judge: &mut Judge) {
        assert!(self.asked.is_empty(), "a publish is not answered: {:?}", self.asked);
        for (channel, heard) in std::mem::take(&mut self.heard) {
            judge.hears(channel, heard, true);
        }
    }
}
