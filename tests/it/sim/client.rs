//! One simulated client: chooses its actions at random and checks what it receives.

use super::history::{CHANNELS, History, Span};
use super::positions::Positions;
use crate::peer::{ClientReader, Received, auth, framed, handshake, signed, text};
use fastrand::Rng;
use polycast::ws::Opcode;
use std::collections::{HashSet, VecDeque};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    Open,
    /// The client has sent a Close frame or something that the server answers with one. It sends
    /// nothing more.
    Closing,
    /// The client has ended its side.
    Ended,
    /// The client has reset the connection.
    Reset,
    Closed,
}

/// A request that waits for its response.
#[derive(Debug)]
enum Asked {
    Publish(usize),
    Nothing,
    Upgrade,
    Bad,
}

/// The state of one channel at the client.
#[derive(Default)]
struct Place {
    /// Whether a subscription was requested.
    joining: bool,
    joined: Option<Span>,
    /// The client has unsubscribed, and the server may not have processed it before it answers the
    /// ping of this number. Without a span, the subscription had not been confirmed.
    left: Option<(Option<Span>, u64)>,
}

pub(super) struct Client {
    pub(super) number: u64,
    /// The core and the index of the client's connection.
    pub(super) place: (usize, usize),
    pub(super) life: Life,
    pub(super) socket_id: Option<String>,
    reader: ClientReader,
    asked: VecDeque<Asked>,
    channels: Vec<Place>,
    past: Vec<Span>,
    /// The positions of a client that resumes, perhaps those of an earlier connection.
    pub(super) positions: Option<Positions>,
    pings: u64,
    /// Whether the client reads slowly.
    sluggish: bool,
    is_socket: bool,
    /// Whether the client publishes over its WebSocket, and whether it has authenticated for that.
    is_publisher: bool,
    is_authenticated: bool,
    /// The publishes over the WebSocket without an answer.
    unanswered: HashSet<usize>,
    /// Whether a 408 or a bad request has ended the client's requests.
    given_up: bool,
}

impl Client {
    pub(super) fn new(number: u64, rng: &mut Rng, history: &mut History) -> Client {
        Client {
            number,
            place: (0, 0),
            life: Life::Open,
            socket_id: None,
            reader: ClientReader::default(),
            asked: VecDeque::new(),
            channels: CHANNELS.iter().map(|_| Place::default()).collect(),
            past: Vec::new(),
            positions: history.log.of_new_client(rng),
            pings: 0,
            sluggish: rng.u32(0..6) == 0,
            is_socket: false,
            is_publisher: rng.u32(0..3) == 0,
            is_authenticated: false,
            unanswered: HashSet::new(),
            given_up: false,
        }
    }

    /// What the client has received on each channel, and whether the subscription still exists.
    pub(super) fn spans(&self) -> impl Iterator<Item = (&Span, bool)> {
        let joined = self.channels.iter().filter_map(|it| it.joined.as_ref());
        let left = self.channels.iter().filter_map(|it| it.left.as_ref()?.0.as_ref());
        let past = self.past.iter().chain(left).map(|span| (span, false));
        joined.map(|span| (span, true)).chain(past)
    }

    /// Whether the client does not read at this moment.
    pub(super) fn stalls(&self, rng: &mut Rng) -> bool {
        self.sluggish && rng.u32(0..12) != 0
    }

    pub(super) fn begins(&mut self, rng: &mut Rng) -> Vec<u8> {
        match rng.u32(0..3) {
            0 => Vec::new(),
            _ => self.upgrades(),
        }
    }

    fn upgrades(&mut self) -> Vec<u8> {
        self.asked.push_back(Asked::Upgrade);
        handshake("/app/app-key?protocol=7", "")
    }

    /// Chooses an action at random and returns the bytes to send.
    pub(super) fn acts(&mut self, rng: &mut Rng, history: &mut History, unix_s: u64) -> Vec<u8> {
        if matches!(self.asked.back(), Some(Asked::Upgrade)) || self.given_up {
            return Vec::new();
        }
        match (self.is_socket, self.socket_id.clone()) {
            (true, Some(_)) if self.is_authenticated && rng.bool() => {
                let count = [1, 3, 12][rng.usize(0..3)];
                (0..count).flat_map(|_| self.publishes_text(rng, history)).collect()
            }
            (true, Some(id)) => self.talks(rng, &id),
            (true, None) => Vec::new(),
            (false, _) => self.requests(rng, history, unix_s),
        }
    }

    // --- as a publisher ---

    fn requests(&mut self, rng: &mut Rng, history: &mut History, unix_s: u64) -> Vec<u8> {
        let count = match rng.u32(0..100) {
            0..60 => rng.u32(1..4),
            60..64 => 70,
            64..80 => 0,
            80..90 => {
                self.asked.push_back(Asked::Nothing);
                return b"GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n".to_vec();
            }
            90..94 => {
                let mut out = self.publishes(rng, history, unix_s);
                out.extend(self.upgrades());
                return out;
            }
            94..98 => {
                self.life = Life::Ended;
                [1, 3, 70][rng.usize(0..3)]
            }
            98 => {
                self.asked.push_back(Asked::Bad);
                self.given_up = true;
                return b"GET\r\n\r\n".to_vec();
            }
            _ => {
                self.life = Life::Reset;
                0
            }
        };
        (0..count).flat_map(|_| self.publishes(rng, history, unix_s)).collect()
    }

    fn publishes(&mut self, rng: &mut Rng, history: &mut History, unix_s: u64) -> Vec<u8> {
        let (id, members) = self.event_of(rng, history);
        self.asked.push_back(Asked::Publish(id));
        signed("POST", "/apps/1/events", format!("{{{members}}}").as_bytes(), unix_s)
    }

    /// A publish over the WebSocket.
    fn publishes_text(&mut self, rng: &mut Rng, history: &mut History) -> Vec<u8> {
        let (id, members) = self.event_of(rng, history);
        self.unanswered.insert(id);
        text(&format!(r#"{{"event":"polycast:publish","data":{{"id":{id},{members}}}}}"#))
    }

    /// A new event: its number, and the members of its publish.
    fn event_of(&mut self, rng: &mut Rng, history: &mut History) -> (usize, String) {
        let first = rng.usize(0..CHANNELS.len());
        let mut channels = vec![first];
        let mut except = None;
        if rng.u32(0..4) == 0 {
            let second = rng.usize(0..CHANNELS.len());
            channels.extend((second != first).then_some(second));
        } else if first == 0 && rng.bool() {
            except = rng.choice(history.sockets.iter()).cloned();
        }
        let id = history.publish(self.number, &channels, except.clone());
        let names: Vec<String> =
            channels.iter().map(|&channel| format!("\"{}\"", CHANNELS[channel])).collect();
        let except = except.map(|id| format!(",\"socket_id\":\"{id}\"")).unwrap_or_default();
        let padding = "x".repeat(if rng.bool() { 0 } else { rng.usize(0..3000) });
        let names = names.join(",");
        let members =
            format!("\"name\":\"e\",\"channels\":[{names}],\"data\":\"{id}:{padding}\"{except}");
        (id, members)
    }

    // --- as a subscriber ---

    fn talks(&mut self, rng: &mut Rng, socket_id: &str) -> Vec<u8> {
        let at = rng.usize(0..CHANNELS.len());
        match rng.u32(0..1000) {
            0..500 => self.subscribes(at, socket_id),
            500..650 => self.unsubscribes(at),
            650..800 => text(r#"{"event":"pusher:ping"}"#),
            800..840 => text("nonsense"),
            840..870 => (0..200).flat_map(|_| framed(Opcode::Ping, &[b'f'; 125])).collect(),
            870..900 => framed(Opcode::Pong, b""),
            900..910 => {
                self.life = Life::Closing;
                framed(Opcode::Close, &1000u16.to_be_bytes())
            }
            910..920 => {
                self.life = Life::Closing;
                vec![0xff; 9]
            }
            920..930 => {
                self.life = Life::Ended;
                self.subscribes(at, socket_id)
            }
            930..940 => {
                self.life = Life::Reset;
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    fn subscribes(&mut self, at: usize, socket_id: &str) -> Vec<u8> {
        let (place, name) = (&mut self.channels[at], CHANNELS[at]);
        let unconfirmed = matches!(place.left, Some((None, _)));
        if place.joining || unconfirmed {
            return Vec::new();
        }
        // A second subscription is an error, which changes nothing.
        place.joining = place.joined.is_none();
        let auth = match name.starts_with("private-") {
            true => auth(socket_id, name, None),
            false => String::new(),
        };
        text(&format!(
            r#"{{"event":"pusher:subscribe","data":{{"channel":"{name}","auth":"{auth}"}}}}"#
        ))
    }

    fn unsubscribes(&mut self, at: usize) -> Vec<u8> {
        let (place, name) = (&mut self.channels[at], CHANNELS[at]);
        if place.left.is_none() && (place.joining || place.joined.is_some()) {
            self.pings += 1;
            place.left = Some((place.joined.take(), self.pings));
            place.joining = false;
        } else if place.left.is_some() {
            return Vec::new();
        }
        let leave = format!(r#"{{"event":"pusher:unsubscribe","data":{{"channel":"{name}"}}}}"#);
        let mut out = text(&leave);
        out.extend(framed(Opcode::Ping, self.pings.to_string().as_bytes()));
        out
    }

    // --- receiving ---

    /// Checks received bytes and returns the bytes to reply with.
    pub(super) fn receive(&mut self, bytes: &[u8], history: &mut History) -> Vec<u8> {
        let mut reply = Vec::new();
        for received in self.reader.hear(bytes) {
            let now = history.tick();
            match received {
                Received::Answer { status, .. } => self.answered(status, history),
                Received::Text(text) => reply.extend(self.handle_message(&text, now, history)),
                Received::Ping(payload) => reply.extend(framed(Opcode::Pong, &payload)),
                Received::Pong(payload) => self.pong(&payload),
                Received::Close(code, reason) => {
                    let known = [1000, 1002, 4100, 4201];
                    let code = code.filter(|code| known.contains(code));
                    assert!(code.is_some(), "client {} is closed: {reason}", self.number);
                    if self.life == Life::Open {
                        self.life = Life::Closing;
                        reply.extend(framed(Opcode::Close, &1000u16.to_be_bytes()));
                    }
                }
                other => panic!("client {} receives {other:?}", self.number),
            }
        }
        reply
    }

    fn answered(&mut self, status: u16, history: &mut History) {
        if status == 408 {
            self.given_up = true;
            return;
        }
        let asked = self.asked.pop_front();
        match (asked, status) {
            (Some(Asked::Publish(id)), 200) => history.acked(id),
            (Some(Asked::Nothing), 404) | (Some(Asked::Bad), 400) => {}
            (Some(Asked::Upgrade), 101) => self.is_socket = true,
            (Some(Asked::Upgrade), 400) => self.given_up = true,
            (asked, status) => {
                panic!("client {} receives {status} for {asked:?}", self.number);
            }
        }
    }

    fn handle_message(&mut self, message: &str, now: u64, history: &mut History) -> Vec<u8> {
        if let Some((_, rest)) = message.split_once(r#"{\"socket_id\":\""#) {
            let id = rest.split('\\').next().unwrap_or("").to_owned();
            history.sockets.push(id.clone());
            let auth = auth(&id, "polycast:publisher", None);
            self.socket_id = Some(id);
            let mut out = self.positions.as_mut().map(|it| text(&it.resume())).unwrap_or_default();
            if self.is_publisher {
                let data = format!(r#"{{"auth":"{auth}","role":"publisher"}}"#);
                let event = "polycast:authenticate";
                out.extend(text(&format!(r#"{{"event":"{event}","data":{data}}}"#)));
            }
            return out;
        }
        if message == r#"{"event":"polycast:authenticated","data":{"role":"publisher"}}"# {
            self.is_authenticated = true;
            return Vec::new();
        }
        if let Some(rest) = message.strip_prefix(r#"{"event":"polycast:published","data":{"id":"#) {
            let id = rest.strip_suffix("}}").and_then(|id| id.parse().ok()).expect("a number");
            assert!(self.unanswered.remove(&id), "client {} hears {id} again", self.number);
            history.acked(id);
            return Vec::new();
        }
        if message.contains(r#""event":"pusher:ping""#) {
            return text(r#"{"event":"pusher:pong"}"#);
        }
        let Some((_, rest)) = message.split_once(r#""channel":""#) else {
            return Vec::new();
        };
        let name = rest.split('"').next().unwrap_or("");
        let channel = CHANNELS.iter().position(|it| *it == name).expect("a channel of the run");
        let log = &mut history.log;
        if message.contains("stream_id") && self.positions.is_none() {
            panic!("client {} has not asked for positions: {message}", self.number);
        }
        if message.contains(r#""event":"e""#) {
            let data = rest.split_once(r#""data":""#).expect("an event has data").1;
            let id = data.split(':').next().and_then(|id| id.parse().ok()).expect("a number");
            if let Some(positions) = &mut self.positions {
                positions.event(channel, message, id, log);
            }
            self.event(channel, id, history);
        } else if message.contains("subscription_succeeded") {
            if let Some(positions) = &mut self.positions {
                positions.succeeded(channel, message);
            }
            self.succeeded(channel, now);
        } else if message.contains("subscription_error") {
            self.channels[channel].joining = false;
            if let Some(positions) = &mut self.positions {
                positions.refused(channel);
            }
        } else {
            panic!("client {} receives {message}", self.number);
        }
        Vec::new()
    }

    fn event(&mut self, channel: usize, id: usize, history: &mut History) {
        let place = &mut self.channels[channel];
        let left = place.left.as_mut().and_then(|(span, _)| span.as_mut());
        let span = place.joined.as_mut().or(left);
        let Some(span) = span else {
            panic!(
                "client {} receives {id} of {}, from which it has unsubscribed",
                self.number, CHANNELS[channel]
            );
        };
        history.note_messages(span, id, self.socket_id.as_deref().unwrap_or(""));
    }

    fn succeeded(&mut self, channel: usize, since: u64) {
        let place = &mut self.channels[channel];
        let span = Span::new(channel, since);
        match &mut place.left {
            // The subscription was confirmed before the server read the unsubscribe.
            Some((it @ None, _)) => *it = Some(span),
            _ => {
                assert!(
                    place.joining,
                    "client {} has not requested this subscription",
                    self.number
                );
                place.joining = false;
                self.past.extend(place.left.take().and_then(|(span, _)| span));
                place.joined = Some(span);
            }
        }
    }

    fn pong(&mut self, payload: &[u8]) {
        let number = str::from_utf8(payload).ok().and_then(|text| text.parse::<u64>().ok());
        let Some(number) = number else { return };
        for place in &mut self.channels {
            if place.left.as_ref().is_some_and(|(_, ping)| *ping <= number) {
                self.past.extend(place.left.take().and_then(|(span, _)| span));
            }
        }
    }

    /// Checks that the server may end its side; `excused` says that a timeout has expired for some
    /// connection.
    pub(super) fn on_end_of_stream(&mut self, excused: bool) {
        let whole = self.reader.left() == 0 && self.asked.is_empty();
        assert!(
            excused || self.is_socket || self.given_up || self.life == Life::Reset || whole,
            "client {} ({:?}) was disconnected without a response to {:?}",
            self.number,
            self.life,
            self.asked
        );
        if self.life == Life::Open {
            self.life = Life::Closing;
        }
    }

    /// Checks that an open client waits for nothing when all work is done.
    pub(super) fn assert_idle(&self) {
        if self.life != Life::Open {
            return;
        }
        let number = self.number;
        assert!(
            self.given_up || self.asked.is_empty(),
            "client {number} waits for the responses to {:?}",
            self.asked
        );
        let unanswered = &self.unanswered;
        assert!(unanswered.is_empty(), "client {number} waits for the answers to {unanswered:?}");
        assert_eq!(self.reader.left(), 0, "client {number} has an incomplete message");
        let waits = self.channels.iter().any(|place| place.joining || place.left.is_some());
        assert!(!waits, "client {number} waits for a reply to a subscribe or unsubscribe");
    }
}
