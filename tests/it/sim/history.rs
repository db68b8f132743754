//! The events that were published and received in one run, and the rules of their order.

use super::client::{Client, Life};
use super::links::View;
use super::positions::Log;
use fastrand::Rng;
use std::collections::{BTreeMap, HashMap, HashSet};

/// The channels of a run. Only the first one has publishes that exclude a connection.
pub(super) const CHANNELS: [&str; 5] = ["zero", "one", "two", "private-three", "four"];

/// One published event.
struct Publish {
    channels: Vec<usize>,
    sent: u64,
    acked: bool,
    except: Option<String>,
    /// Whether it was published through a view.
    in_view: bool,
    /// The length of its data.
    bytes: usize,
}

/// The events that one subscription has received, from its success to its end.
#[derive(Default)]
pub(super) struct Span {
    channel: usize,
    since: u64,
    received: Vec<usize>,
    /// The same events as a set, for lookups.
    set: HashSet<usize>,
}

impl Span {
    pub(super) fn new(channel: usize, since: u64) -> Span {
        Span { channel, since, ..Span::default() }
    }
}

pub(super) struct History {
    publishes: Vec<Publish>,
    /// The logical time, which advances with every message sent or received.
    clock: u64,
    /// The socket ids that a publish can exclude.
    pub(super) sockets: Vec<String>,
    /// For each channel: which event came directly after which, separately for the views without
    /// long events, and which events came before which.
    next: Vec<BTreeMap<(bool, usize), usize>>,
    before: Vec<HashSet<(usize, usize)>>,
    /// The last event of a publisher in a channel.
    last: HashMap<(u64, usize), usize>,
    /// Whether the slow consumer policy drops events.
    drops: bool,
    /// The numbers of received events, by the kind of the subscriber's view.
    pub(super) received: [u64; View::KINDS],
    /// The number of resumes whose first missed event was published through a view.
    pub(super) recovered_of_view: u64,
    /// The number of publishes that were refused because their view may not publish.
    pub(super) refused: u64,
    /// The positions of events in the channels with a history.
    pub(super) log: Log,
}

impl History {
    pub(super) fn new(drops: bool) -> History {
        History {
            publishes: Vec::new(),
            clock: 0,
            sockets: Vec::new(),
            next: vec![BTreeMap::new(); CHANNELS.len()],
            before: vec![HashSet::new(); CHANNELS.len()],
            last: HashMap::new(),
            drops,
            received: [0; View::KINDS],
            recovered_of_view: 0,
            refused: 0,
            log: Log::new(drops),
        }
    }

    /// Advances the logical time and returns it.
    pub(super) fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// Whether an event was published through a view.
    pub(super) fn is_of_view(&self, id: usize) -> bool {
        self.publishes[id].in_view
    }

    /// Adds an event of the publisher `by`, which the connection `except` must not receive.
    pub(super) fn publish(
        &mut self,
        by: u64,
        channels: &[usize],
        except: Option<String>,
        in_view: bool,
    ) -> usize {
        let id = self.publishes.len();
        for &channel in channels {
            if let Some(earlier) = self.last.insert((by, channel), id) {
                self.before[channel].insert((earlier, id));
            }
        }
        let sent = self.tick();
        let (channels, acked, bytes) = (channels.to_vec(), false, 0);
        self.publishes.push(Publish { channels, sent, acked, except, in_view, bytes });
        id
    }

    /// The data of an event, which begins with its number, and some of which is long.
    pub(super) fn data_of(&mut self, id: usize, rng: &mut Rng) -> String {
        let padding = if rng.bool() { 0 } else { rng.usize(0..3000) };
        let data = format!("{id}:{}", "x".repeat(padding));
        self.publishes[id].bytes = data.len();
        data
    }

    /// Records that the event was acknowledged.
    pub(super) fn acked(&mut self, id: usize) {
        self.publishes[id].acked = true;
    }

    /// Records and checks that the connection `socket` received an event through a view.
    pub(super) fn note_messages(&mut self, span: &mut Span, id: usize, socket: &str, view: View) {
        let publish = self.publishes.get(id).expect("what is heard was published");
        assert!(publish.channels.contains(&span.channel), "event {id} on a channel of another");
        assert_ne!(publish.except.as_deref(), Some(socket), "event {id} at who was left out");
        assert!(view.expresses(publish.bytes), "event {id} is too long for {view:?}");
        assert!(span.set.insert(id), "event {id} is heard twice");
        span.received.push(id);
        self.received[view.kind()] += 1;
    }

    /// Adds the received events of a client and checks them. A client that is still subscribed must
    /// have all events.
    pub(super) fn check(&mut self, client: &Client) {
        for (span, is_open) in client.spans() {
            for pair in span.received.windows(2) {
                self.before[span.channel].insert((pair[0], pair[1]));
                // Subscriptions have no gaps, so each event has the same successor for all
                // subscribers whose views express the same events.
                if !self.drops && span.channel != 0 {
                    let after = (client.view.is_short(), pair[0]);
                    let next = *self.next[span.channel].entry(after).or_insert(pair[1]);
                    assert_eq!(next, pair[1], "behind {} of {}", pair[0], CHANNELS[span.channel]);
                }
            }
            if !is_open || client.life != Life::Open || self.drops {
                continue;
            }
            for (id, publish) in self.publishes.iter().enumerate() {
                let is_due = publish.acked
                    && publish.sent > span.since
                    && publish.channels.contains(&span.channel)
                    && client.view.expresses(publish.bytes)
                    && (publish.except.is_none() || publish.except != client.socket_id);
                assert!(
                    !is_due || span.set.contains(&id),
                    "client {} has missed event {id} of {}",
                    client.number,
                    CHANNELS[span.channel]
                );
            }
        }
    }

    /// Checks which positions were skipped in views, and returns the number of skipped events.
    pub(super) fn check_skipped(&self) -> u64 {
        self.log.check_skipped(|id| View::Broadcastt.expresses(self.publishes[id].bytes))
    }

    /// Checks that every channel has one order, the same for all subscribers, and that it keeps the
    /// order of each publisher.
    pub(super) fn check_order(&self) {
        for (channel, pairs) in self.before.iter().enumerate() {
            let mut waits: HashMap<usize, usize> = HashMap::new();
            let mut after: HashMap<usize, Vec<usize>> = HashMap::new();
            for &(first, second) in pairs {
                waits.entry(first).or_default();
                *waits.entry(second).or_default() += 1;
                after.entry(first).or_default().push(second);
            }
            let mut ready: Vec<usize> =
                waits.iter().filter(|(_, count)| **count == 0).map(|(id, _)| *id).collect();
            let mut placed = 0;
            while let Some(id) = ready.pop() {
                placed += 1;
                for other in after.get(&id).into_iter().flatten() {
                    let count = waits.get_mut(other).expect("it was counted");
                    *count -= 1;
                    if *count == 0 {
                        ready.push(*other);
                    }
                }
            }
            assert_eq!(placed, waits.len(), "no one order of {} fits all", CHANNELS[channel]);
        }
    }
}
