//! One simulated client: chooses its actions at random and checks what it receives.

use super::history::{CHANNELS, History, Span};
use super::links::{PUBLISHED, REFUSED, View};
use super::positions::Positions;
use crate::peer::{ClientReader, Received, framed, handshake, signed, text};
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
    /// A publish through a view that may not publish.
    Refused,
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
    pub(super) view: View,
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
        let view = View::of_new_client(rng);
        let positions = history.log.of_new_client(view, rng);
        Client {
            number,
            view,
            place: (0, 0),
            life: Life::Open,
            socket_id: None,
            reader: ClientReader::default(),
            asked: VecDeque::new(),
            channels: CHANNELS.iter().map(|_| Place::default()).collect(),
            past: Vec::new(),
            positions,
            pings: 0,
            sluggish: rng.u32(0..6) == 0,
            is_socket: false,
            is_publisher: view.vendor() == "pusher" && rng.u32(0..3) == 0,
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
        handshake(&self.view.target(), "")
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
            (true, None) => match self.view {
                View::Plain(channel) => self.talks_plainly(channel, rng, history),
                _ => Vec::new(),
            },
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

    /// A publish by the HTTP API of the source's application, or of the one that has a view.
    fn publishes(&mut self, rng: &mut Rng, history: &mut History, unix_s: u64) -> Vec<u8> {
        let view = if rng.u32(0..3) == 0 { View::Second } else { View::Source };
        let members = if view == View::Second && rng.u32(0..6) == 0 {
            self.asked.push_back(Asked::Refused);
            // The channel on which the view may publish does not get the event either.
            let channels = [view.name(PUBLISHED[1]), view.name(REFUSED)];
            let id = history.publish(self.number, &[], None, true);
            format!("\"name\":\"e\",\"channels\":{channels:?},\"data\":\"{id}:\"")
        } else {
            let (id, members) = self.event_of(view, rng, history);
            self.asked.push_back(Asked::Publish(id));
            members
        };
        let path = format!("/apps/{}/events", view.app());
        signed("POST", &path, format!("{{{members}}}").as_bytes(), unix_s)
    }

    /// A publish over the WebSocket.
    fn publishes_text(&mut self, rng: &mut Rng, history: &mut History) -> Vec<u8> {
        let (id, members) = self.event_of(self.view, rng, history);
        self.unanswered.insert(id);
        text(&format!(r#"{{"event":"polycast:publish","data":{{"id":{id},{members}}}}}"#))
    }

    /// A new event under the names of a view: its number, and the members of its publish.
    fn event_of(&mut self, view: View, rng: &mut Rng, history: &mut History) -> (usize, String) {
        let any = |rng: &mut Rng| match view {
            View::Source => rng.usize(0..CHANNELS.len()),
            _ => PUBLISHED[rng.usize(0..PUBLISHED.len())],
        };
        let first = any(rng);
        let mut channels = vec![first];
        let mut except = None;
        if rng.u32(0..4) == 0 {
            let second = any(rng);
            channels.extend((second != first).then_some(second));
        } else if first == 0 && rng.bool() {
            except = rng.choice(history.sockets.iter()).cloned();
        }
        let id = history.publish(self.number, &channels, except.clone(), view != View::Source);
        let names: Vec<String> = channels.iter().map(|&channel| view.name(channel)).collect();
        let except = except.map(|id| format!(",\"socket_id\":\"{id}\"")).unwrap_or_default();
        let data = history.data_of(id, rng);
        let members = format!("\"name\":\"e\",\"channels\":{names:?},\"data\":\"{data}\"{except}");
        (id, members)
    }

    /// What a plain WebSocket sends.
    fn talks_plainly(&mut self, channel: usize, rng: &mut Rng, history: &mut History) -> Vec<u8> {
        match rng.u32(0..100) {
            // The sender does not receive the event, so this channel is one whose events need not
            // have the same successor for all.
            0..40 if channel == 0 => {
                let count = [1, 3, 12][rng.usize(0..3)];
                let mut publish = || {
                    let id = history.publish(self.number, &[channel], None, true);
                    text(&history.data_of(id, rng))
                };
                (0..count).flat_map(|_| publish()).collect()
            }
            40..50 => framed(Opcode::Pong, b""),
            95..97 => {
                self.life = Life::Closing;
                framed(Opcode::Close, &1000u16.to_be_bytes())
            }
            97 => {
                self.life = Life::Ended;
                Vec::new()
            }
            98 => {
                self.life = Life::Reset;
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    // --- as a subscriber ---

    fn talks(&mut self, rng: &mut Rng, socket_id: &str) -> Vec<u8> {
        let at = self.view.any_channel(rng);
        match rng.u32(0..1000) {
            0..500 => self.subscribes(at, socket_id),
            500..650 => self.unsubscribes(at),
            650..800 => text(&format!(r#"{{"event":"{}:ping"}}"#, self.view.vendor())),
            // This vendor permits few of those.
            800..840 if self.view != View::Broadcastt => text("nonsense"),
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
        let (place, name) = (&mut self.channels[at], self.view.name(at));
        let unconfirmed = matches!(place.left, Some((None, _)));
        if place.joining || unconfirmed {
            return Vec::new();
        }
        // A second subscription is an error, which changes nothing; this vendor confirms it again.
        if self.view == View::Broadcastt && place.joined.is_some() {
            return Vec::new();
        }
        place.joining = place.joined.is_none();
        let auth = match name.starts_with("private-") {
            true => self.view.auth(socket_id, &name),
            false => String::new(),
        };
        let vendor = self.view.vendor();
        text(&format!(
            r#"{{"event":"{vendor}:subscribe","data":{{"channel":"{name}","auth":"{auth}"}}}}"#
        ))
    }

    fn unsubscribes(&mut self, at: usize) -> Vec<u8> {
        let (place, name) = (&mut self.channels[at], self.view.name(at));
        if place.left.is_none() && (place.joining || place.joined.is_some()) {
            self.pings += 1;
            place.left = Some((place.joined.take(), self.pings));
            place.joining = false;
        } else if place.left.is_some() {
            return Vec::new();
        }
        let vendor = self.view.vendor();
        let leave = format!(r#"{{"event":"{vendor}:unsubscribe","data":{{"channel":"{name}"}}}}"#);
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
                    let known: &[u16] = match self.view {
                        View::Plain(_) => &[1000, 1001, 1002, 1008, 1013],
                        _ => &[1000, 1002, 4100, 4201],
                    };
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
            (Some(Asked::Refused), 403) => history.refused += 1,
            (Some(Asked::Nothing), 404) | (Some(Asked::Bad), 400) => {}
            (Some(Asked::Upgrade), 101) => self.is_socket = true,
            (Some(Asked::Upgrade), 400) => self.given_up = true,
            (asked, status) => {
                panic!("client {} receives {status} for {asked:?}", self.number);
            }
        }
    }

    fn handle_message(&mut self, message: &str, now: u64, history: &mut History) -> Vec<u8> {
        if let View::Plain(channel) = self.view {
            // The subscription is not confirmed, so it is taken to begin with the first event.
            self.channels[channel].joined.get_or_insert_with(|| Span::new(channel, now));
            let id = message.split(':').next().and_then(|id| id.parse().ok()).expect("a number");
            self.event(channel, id, history);
            return Vec::new();
        }
        if let Some((_, rest)) = message.split_once(r#"{\"socket_id\":\""#) {
            let id = rest.split('\\').next().unwrap_or("").to_owned();
            if self.view.vendor() == "pusher" {
                history.sockets.push(id.clone());
            }
            let auth = self.view.auth(&id, "polycast:publisher");
            self.socket_id = Some(id.clone());
            let mut out = self.positions.as_mut().map(|it| text(&it.resume())).unwrap_or_default();
            let resumed = self.positions.as_ref().map(Positions::resumed).unwrap_or_default();
            for channel in resumed {
                out.extend(self.subscribes(channel, &id));
            }
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
        let vendor = self.view.vendor();
        if message.contains(&format!(r#""event":"{vendor}:ping""#)) {
            return text(&format!(r#"{{"event":"{vendor}:pong"}}"#));
        }
        let Some((_, rest)) = message.split_once(r#""channel":""#) else {
            return Vec::new();
        };
        let name = rest.split('"').next().unwrap_or("");
        let channel = self.view.channel(name);
        let log = &mut history.log;
        if message.contains("stream_id") && self.positions.is_none() {
            panic!("client {} has not asked for positions: {message}", self.number);
        }
        if message.contains(r#""event":"e""#) {
            let data = rest.split_once(r#""data":""#).expect("an event has data").1;
            // Broadcastt writes a text as JSON in the data, which is JSON in a string.
            let data = data.trim_start_matches(['\\', '"']);
            let id = data.split(':').next().and_then(|id| id.parse().ok());
            let id = id.unwrap_or_else(|| panic!("no number: {message}"));
            if let Some(positions) = &mut self.positions {
                let before = log.recovered;
                positions.event(channel, message, id, log);
                let first_missed = log.recovered != before && history.is_of_view(id);
                history.recovered_of_view += u64::from(first_missed);
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
        history.note_messages(span, id, self.socket_id.as_deref().unwrap_or(""), self.view);
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
