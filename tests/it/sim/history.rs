//! All that was published and heard in one run, and the rules that it must keep.

use super::client::{Client, Life};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Channels of a run. Only the first one sees publishes that leave a connection out.
pub(super) const CHANNELS: [&str; 5] = ["zero", "one", "two", "private-three", "four"];

/// One event.
struct Publish {
    channels: Vec<usize>,
    sent: u64,
    acked: bool,
    except: Option<String>,
}

/// What one subscription has heard, from its success to its end.
#[derive(Default)]
pub(super) struct Span {
    channel: usize,
    since: u64,
    heard: Vec<usize>,
    /// The same, to be looked up.
    set: HashSet<usize>,
}

impl Span {
    pub(super) fn new(channel: usize, since: u64) -> Span {
        Span { channel, since, ..Span::default() }
    }
}

pub(super) struct History {
    publishes: Vec<Publish>,
    /// Logical time: every word said or heard is an instant.
    clock: u64,
    /// Who can be left out.
    pub(super) sockets: Vec<String>,
    /// Per channel, which events stood directly before which, and which merely before.
    next: Vec<BTreeMap<usize, usize>>,
    before: Vec<HashSet<(usize, usize)>>,
    /// The last event of a publisher in a channel.
    last: HashMap<(u64, usize), usize>,
    /// Whether the policy lets slow consumers miss events.
    drops: bool,
    heard: u64,
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
            heard: 0,
        }
    }

    /// The next instant.
    pub(super) fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// Events heard by anyone.
    pub(super) fn heard(&self) -> u64 {
        self.heard
    }

    /// A new event of `by`, which one connection may not hear.
    pub(super) fn publish(&mut self, by: u64, channels: &[usize], except: Option<String>) -> usize {
        let id = self.publishes.len();
        for &channel in channels {
            if let Some(earlier) = self.last.insert((by, channel), id) {
                self.before[channel].insert((earlier, id));
            }
        }
        let sent = self.tick();
        self.publishes.push(Publish { channels: channels.to_vec(), sent, acked: false, except });
        id
    }

    /// The event was acknowledged.
    pub(super) fn acked(&mut self, id: usize) {
        self.publishes[id].acked = true;
    }

    /// One event was heard by `socket`.
    pub(super) fn hears(&mut self, span: &mut Span, id: usize, socket: &str) {
        let publish = self.publishes.get(id).expect("what is heard was published");
        assert!(publish.channels.contains(&span.channel), "event {id} on a channel of another");
        assert_ne!(publish.except.as_deref(), Some(socket), "event {id} at who was left out");
        assert!(span.set.insert(id), "event {id} is heard twice");
        span.heard.push(id);
        self.heard += 1;
    }

    /// Takes in what a client has heard; of one that is still there, nothing may be missing.
    pub(super) fn check(&mut self, client: &Client) {
        for (span, is_open) in client.spans() {
            for pair in span.heard.windows(2) {
                self.before[span.channel].insert((pair[0], pair[1]));
                // Subscriptions have no gaps, so that neighbours are neighbours for everybody.
                if !self.drops && span.channel != 0 {
                    let next = *self.next[span.channel].entry(pair[0]).or_insert(pair[1]);
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

    /// Every channel has one order that everybody has heard, and every publisher kept to.
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
