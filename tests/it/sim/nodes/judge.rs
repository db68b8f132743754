//! Compares what all clients were answered and have received with the log.

use super::limit::LimitJudge;
use fastrand::Rng;
use polycast::cluster::entry::{self, Entry, PartContent};
use polycast::cluster::sim::SimLog;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// For how long after its first request a key is used again, in seconds. The time of a key is two
/// minutes from the entry on, which comes later.
const REPEAT_S: u64 = 60;

/// The answer to a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Stored,
    Refused,
    Unknown,
    /// A request with its key is not answered yet on the same node.
    InProgress,
    /// Its key belongs to another request.
    KeyUsed,
}

/// A publish: the number that is its data, its channel, and the number of which it has the key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Publish {
    pub(super) number: u64,
    pub(super) channel: &'static str,
    pub(super) key: Option<u64>,
    since_s: u64,
}

/// How a subscription has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// By its client, or with its node.
    ByClient,
    /// By the server, which may have noticed a gap.
    ByServer,
    /// Not at all.
    Open,
}

/// The numbers of the events that a subscriber has received.
#[derive(Debug)]
pub(super) struct EventRun {
    /// The life of the log in which the subscription was confirmed.
    epoch: usize,
    numbers: Vec<u64>,
}

impl EventRun {
    pub(super) fn push(&mut self, number: u64) {
        self.numbers.push(number);
    }
}

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Judge {
    published: u64,
    answers: BTreeMap<u64, Vec<Outcome>>,
    /// The publishes with keys that are sent again.
    keyed: Vec<Publish>,
    /// The requests of which the log has keys, since the log began and before, and the keys with
    /// the events' numbers in their requests.
    owners: HashMap<u128, u128>,
    old_owners: HashMap<u128, BTreeSet<u128>>,
    keys: HashSet<(u128, u16)>,
    /// The publishes whose clients have left before the answer.
    unanswered: BTreeSet<u64>,
    /// Events that only nodes publish that do not know of the key's request in a log that is lost.
    uncertain: BTreeSet<u64>,
    /// The events of each channel in the order of the log, for each life of the log.
    logs: Vec<BTreeMap<String, Vec<u64>>>,
    /// The entries that were seen: their nodes and numbers, and the last sequence number.
    seen: HashSet<(u64, u64)>,
    last: u64,
    run: Vec<(&'static str, EventRun, Ended)>,
    /// The users who are members at the end, and the members as each of them knows them.
    members: BTreeMap<&'static str, BTreeSet<String>>,
    known: Vec<(&'static str, BTreeSet<String>)>,
    /// Judge the numbers of connections of the two applications.
    pub(super) limits: [LimitJudge; 2],
    pub(super) received: u64,
    pub(super) stored: u64,
    pub(super) refused: u64,
    pub(super) unknown: u64,
    /// Events of the log that were skipped because of their keys.
    pub(super) skipped: u64,
    /// Requests that were refused because of their keys.
    pub(super) key_used: u64,
}

impl Judge {
    /// What a client publishes: a new event with a key or without, one that was published before,
    /// or a new event with the key of an earlier one in one of these channels.
    pub(super) fn publishes(
        &mut self,
        rng: &mut Rng,
        channels: &[&'static str],
        channel: &'static str,
        unix_s: u64,
    ) -> Publish {
        self.keyed.retain(|it| unix_s < it.since_s + REPEAT_S);
        let of_app: Vec<_> =
            self.keyed.iter().filter(|it| channels.contains(&it.channel)).collect();
        let earlier = rng.choice(&of_app).map(|it| **it);
        let is_new = self.keyed.len() < 5 && rng.bool();
        match (rng.u32(0..10), earlier) {
            (0..4, Some(earlier)) if !is_new => earlier,
            (4, Some(earlier)) if !is_new => {
                self.published += 1;
                Publish { number: self.published, ..earlier }
            }
            (choice, _) => {
                self.published += 1;
                let number = self.published;
                let key = (choice < 5).then_some(number);
                let publish = Publish { number, channel, key, since_s: unix_s };
                self.keyed.extend(key.map(|_| publish));
                publish
            }
        }
    }

    pub(super) fn answers(&mut self, number: u64, outcome: Outcome) {
        self.answers.entry(number).or_default().push(outcome);
    }

    /// A client has left before its publish was answered.
    pub(super) fn is_unanswered(&mut self, number: u64) {
        self.unanswered.insert(number);
    }

    /// A subscription is confirmed.
    pub(super) fn begins(&self) -> EventRun {
        EventRun { epoch: self.logs.len().saturating_sub(1), numbers: Vec::new() }
    }

    /// What a subscriber has received until its end, or until the end of the simulation.
    pub(super) fn notes_run(&mut self, channel: &'static str, run: EventRun, ended: Ended) {
        self.run.push((channel, run, ended));
    }

    /// A user is a member at the end of the simulation, and knows these members.
    pub(super) fn is_member(&mut self, channel: &'static str, user: &str, known: BTreeSet<String>) {
        self.members.entry(channel).or_default().insert(user.to_owned());
        self.known.push((channel, known));
    }

    /// The number of users who are members at the end.
    pub(super) fn members(&self) -> u64 {
        self.members.values().map(|users| users.len() as u64).sum()
    }

    /// Reads the entries that were stored since the last call.
    pub(super) fn observe(&mut self, log: &SimLog) {
        if self.logs.is_empty() {
            self.logs.push(BTreeMap::new());
        }
        for (sequence, _, body) in &log.history {
            if *sequence <= self.last {
                continue;
            }
            self.last = *sequence;
            let entry = entry::read(body).expect("an entry");
            self.limits.iter_mut().for_each(|limit| limit.observe(&entry));
            if !self.seen.insert((entry.node, entry.number)) {
                continue;
            }
            for (at, part) in entry.events.iter().enumerate() {
                let PartContent::Frame { frame, .. } = part.content else { continue };
                let text = String::from_utf8_lossy(frame);
                let data = text.split(r#""data":""#).nth(1).expect("data");
                let number = data.split('"').next().and_then(|it| it.parse().ok());
                let number = number.expect("a number");
                if self.takes_effect(&entry, at, number) {
                    let events = self.logs.last_mut().expect("one is there");
                    events.entry(entry.channel.to_owned()).or_default().push(number);
                }
            }
        }
    }

    /// Whether an event of an entry takes effect: its key is new, or belongs to its request and has
    /// not published it.
    fn takes_effect(&mut self, entry: &Entry<'_>, at: usize, number: u64) -> bool {
        let Some(key) = entry.keys.iter().find(|it| it.event == at).map(|it| it.key) else {
            return true;
        };
        let mut old_owners = self.old_owners.get(&key.key).into_iter().flatten();
        if old_owners.any(|it| *it != key.request) {
            self.uncertain.insert(number);
        }
        let is_owner = *self.owners.entry(key.key).or_insert(key.request) == key.request;
        let takes = is_owner && self.keys.insert((key.key, key.index));
        self.skipped += u64::from(!takes);
        takes
    }

    /// The engine has lost its log.
    pub(super) fn lost(&mut self, ms: u64) {
        self.limits.iter_mut().for_each(|limit| limit.lost(ms));
        self.logs.push(BTreeMap::new());
        self.seen.clear();
        self.last = 0;
        self.keys.clear();
        for (key, request) in self.owners.drain() {
            self.old_owners.entry(key).or_default().insert(request);
        }
    }

    /// Checks everything that was noted.
    pub(super) fn check(&mut self) {
        let mut stored = BTreeSet::new();
        let mut again = BTreeSet::new();
        for log in &self.logs {
            let mut own = BTreeSet::new();
            for number in log.values().flatten() {
                assert!(own.insert(*number), "{number} is in one log twice");
                again.extend((!stored.insert(*number)).then_some(*number));
            }
        }
        // An event whose answer was lost with the log is sent again, by its node or its client. Who
        // has it already does not receive it from the new log.
        again.extend(&self.uncertain);
        for log in self.logs.iter_mut().flat_map(BTreeMap::values_mut) {
            log.retain(|number| !again.contains(number));
        }
        for (_, run, _) in &mut self.run {
            let mut own = BTreeSet::new();
            assert!(run.numbers.iter().all(|it| own.insert(*it)), "one twice: {run:?}");
            run.numbers.retain(|number| !again.contains(number));
        }
        for (number, outcomes) in &self.answers {
            let is_stored = stored.contains(number);
            let count = |outcome| outcomes.iter().filter(|it| **it == outcome).count() as u64;
            self.stored += count(Outcome::Stored);
            self.refused += count(Outcome::Refused);
            self.unknown += count(Outcome::Unknown);
            self.key_used += count(Outcome::KeyUsed);
            if count(Outcome::Stored) > 0 {
                assert!(is_stored, "{number} was acknowledged and is not in the log");
            }
            let is_never =
                outcomes.iter().all(|it| matches!(it, Outcome::Refused | Outcome::KeyUsed));
            let is_known = !self.uncertain.contains(number) && !self.unanswered.contains(number);
            if is_never && is_known {
                assert!(!is_stored, "{number} was refused and is in the log: {outcomes:?}");
            }
        }
        for (channel, known) in &self.known {
            let members = self.members.get(channel);
            assert_eq!(Some(known), members, "the members of {channel} at the end");
        }
        for (channel, run, ended) in &self.run {
            self.received += run.numbers.len() as u64;
            self.check_subscriber(channel, run, *ended);
        }
    }

    /// A subscriber has received the log from some place on without a hole, and to its end if it
    /// is still there. When the engine loses its log, what a node had not received is lost; of the
    /// next log the subscriber receives everything. A subscriber that is closed because of a gap
    /// may receive some events after it, until it is its turn to be closed.
    fn check_subscriber(&self, channel: &str, run: &EventRun, ended: Ended) {
        let (is_open, is_closed) = (ended == Ended::Open, ended == Ended::ByServer);
        let empty = Vec::new();
        let log = |epoch: usize| self.logs.get(epoch).and_then(|it| it.get(channel));
        let mut rest = &run.numbers[..];
        let last = self.logs.len().saturating_sub(1);
        // When the subscription was confirmed, its node may have had a rest of a log before.
        for epoch in 0..=last {
            let log = log(epoch).unwrap_or(&empty);
            let own = rest.iter().take_while(|number| log.contains(number)).count();
            let (part, behind) = rest.split_at(own);
            rest = behind;
            let begin = match part.first() {
                Some(first) => log.iter().position(|it| it == first).expect("it is in the log"),
                None => log.len(),
            };
            if is_closed {
                let mut log = log.iter();
                let is_ordered = part.iter().all(|it| log.any(|other| other == it));
                assert!(is_ordered, "{channel} of epoch {epoch}: {log:?} of {run:?}");
                continue;
            }
            assert_eq!(
                log.get(begin..begin + own),
                Some(part),
                "{channel} of epoch {epoch}: {log:?} of {run:?}"
            );
            if epoch > run.epoch && own > 0 {
                assert_eq!(begin, 0, "the new log's beginning is missing: {part:?} of {log:?}");
            }
            if epoch == last && is_open && own > 0 {
                assert_eq!(begin + own, log.len(), "the end is missing: {part:?} of {log:?}");
            }
            if epoch == last && is_open && epoch > run.epoch {
                assert_eq!(own, log.len(), "{part:?} of the new log {log:?}");
            }
        }
        assert!(rest.is_empty(), "{rest:?} of {run:?} are out of order or not in the log");
    }
}
