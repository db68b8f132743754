//! Clients that resume after a reconnect, and the rules of positions: an event has one position in
//! all views, and a client that has recovered gets every later event that its view expresses once,
//! from the position that it sent, perhaps through another view.

use super::history::CHANNELS;
use super::links::View;
use fastrand::Rng;
use polycast::stats::Counters;
use std::collections::{HashMap, HashSet};

/// The number of events of a channel's history, and of its channels, in the configuration of a run.
const EVENTS: u64 = 30;
const BYTES: u64 = 20_000;
const HISTORIES: u64 = 2;
/// The names by which clients resume: the source's and those of two views. A history is charged a
/// form of each event for each of them.
const FORMS: u64 = 3;
/// The memory of one history besides the bytes of its frames.
const TABLES: u64 = 2048 + EVENTS * (128 + FORMS * 448);

type Position = (String, u64);

/// What the clients of a run have learnt of positions.
pub(super) struct Log {
    events: HashMap<Position, usize>,
    /// The positions of clients that are gone, for those that come.
    pool: Vec<[Option<Position>; CHANNELS.len()]>,
    /// Whether the slow consumer policy drops events.
    drops: bool,
    /// The positions between two that a client of a short view has received one after the other.
    skipped: HashSet<Position>,
    /// The numbers of positions that were recovered with missed events, by the kind of the view.
    pub(super) recovered: [u64; View::KINDS],
}

impl Log {
    pub(super) fn new(drops: bool) -> Log {
        let (skipped, recovered) = (HashSet::new(), [0; View::KINDS]);
        Log { events: HashMap::new(), pool: Vec::new(), drops, skipped, recovered }
    }

    /// The state of a new client: most clients resume, and most of these continue for an earlier
    /// one.
    pub(super) fn of_new_client(&mut self, view: View, rng: &mut Rng) -> Option<Positions> {
        if matches!(view, View::Plain(_)) {
            return None;
        }
        if rng.u32(0..4) == 0 {
            return None;
        }
        let mut last = match self.pool.is_empty() || rng.u32(0..5) == 0 {
            true => Default::default(),
            false => self.pool.swap_remove(rng.usize(0..self.pool.len())),
        };
        if rng.u32(0..8) == 0 {
            let channel = if view == View::Source { 1 } else { 4 };
            last[channel] = Some(("0123456789abcdef".to_owned(), 3));
        }
        Some(Positions { view, last, ..Positions::default() })
    }

    /// Takes back the positions of a client that is gone.
    pub(super) fn forget_client(&mut self, positions: Option<Positions>) {
        self.pool.extend(positions.map(|it| it.last));
    }

    /// Checks that only events that are not `short` were skipped in short views, and returns how
    /// many of the skipped positions are known.
    pub(super) fn check_skipped(&self, is_short: impl Fn(usize) -> bool) -> u64 {
        let known = self.skipped.iter().filter_map(|it| self.events.get(it));
        known.inspect(|id| assert!(!is_short(**id), "a view has skipped event {id}")).count() as u64
    }

    /// Checks the bounds of the histories of one core after a sweep.
    pub(super) fn check_bounds(&self, counters: &Counters) {
        assert!(counters.history_events.get() <= HISTORIES * EVENTS);
        assert!(counters.history_bytes.get() <= HISTORIES * ((1 + FORMS) * BYTES + TABLES));
        assert!(counters.history_bytes.get() <= counters.kept_bytes.get());
    }
}

/// The positions of one client.
#[derive(Default)]
pub(super) struct Positions {
    view: View,
    /// The last position of each channel.
    last: [Option<Position>; CHANNELS.len()],
    /// What the client has sent, until the subscription is answered.
    sent: [Option<Position>; CHANNELS.len()],
    /// Whether the client continues at the position that it sent, and has missed nothing.
    continues: [bool; CHANNELS.len()],
}

impl Positions {
    /// The first message of the client.
    pub(super) fn resume(&mut self) -> String {
        // A view has no name for some channels, whose positions are left to later clients.
        self.sent = std::array::from_fn(|at| self.last[at].clone().filter(|_| self.view.has(at)));
        let sent = self.sent.iter().enumerate().filter_map(|(channel, it)| {
            let (stream, serial) = it.as_ref()?;
            let name = self.view.name(channel);
            Some(format!(r#""{name}":{{"stream_id":"{stream}","serial":{serial}}}"#))
        });
        let positions = sent.collect::<Vec<_>>().join(",");
        format!(r#"{{"event":"polycast:resume","data":{{"channel_positions":{{{positions}}}}}}}"#)
    }

    /// The channels whose positions the client has sent: it subscribes to them at once, as clients
    /// do after a reconnect.
    pub(super) fn resumed(&self) -> Vec<usize> {
        (0..CHANNELS.len()).filter(|channel| self.sent[*channel].is_some()).collect()
    }

    pub(super) fn succeeded(&mut self, channel: usize, message: &str) {
        let sent = self.sent[channel].take();
        let has_history = ["one", "four"].contains(&CHANNELS[channel]);
        assert_eq!(message.contains("stream_id"), has_history, "{message}");
        if !has_history {
            return;
        }
        let recovered = message.ends_with(r#","recovered":true}"#);
        let position = position(message);
        assert!(!recovered || sent == position, "{sent:?}: {message}");
        self.continues[channel] = recovered;
        self.last[channel] = position;
    }

    pub(super) fn refused(&mut self, channel: usize) {
        self.sent[channel] = None;
    }

    pub(super) fn event(&mut self, channel: usize, message: &str, id: usize, log: &mut Log) {
        let Some((stream, serial)) = position(message) else {
            let has_history = ["one", "four"].contains(&CHANNELS[channel]);
            return assert!(!has_history, "no position: {message}");
        };
        let known = *log.events.entry((stream.clone(), serial)).or_insert(id);
        assert_eq!(known, id, "two events have the position {stream}:{serial}");
        let (last, before) = self.last[channel].as_ref().expect("the subscription has a position");
        if *last == stream && !log.drops {
            assert!(serial > *before, "a repetition at {message}");
            assert!(self.view.is_short() || serial == before + 1, "a gap at {message}");
            log.skipped.extend((before + 1..serial).map(|serial| (stream.clone(), serial)));
        }
        let recovered = std::mem::take(&mut self.continues[channel]);
        log.recovered[self.view.kind()] += u64::from(recovered);
        self.last[channel] = Some((stream, serial));
    }
}

/// The position at the end of a message.
fn position(message: &str) -> Option<Position> {
    let (stream, rest) = message.split_once(r#","stream_id":""#)?.1.split_once('"')?;
    let serial = rest.strip_prefix(r#","serial":"#)?;
    let end = serial.find(|it: char| !it.is_ascii_digit())?;
    Some((stream.to_owned(), serial[..end].parse().ok()?))
}
