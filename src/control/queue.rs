//! What waits for one endpoint: a function of events, answers and time.
//!
//! Channels are spread over a few lanes. A lane sends one request at a time and tries it again
//! until it succeeds or is too old, so a channel's events arrive in their order, and lanes do not
//! wait for each other.
//!
//! At the bound the newest event of whichever source has the most is dropped, so that a client that
//! makes channels up loses its own events and not those of others. A channel that is occupied and
//! vacated, or the other way round, while the first of both waits is told neither.

use crate::mem::Shares;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;

/// Requests under way to one endpoint, unless it takes batches.
const LANES: usize = 8;
/// Events in one batch.
const BATCH_EVENTS: usize = 100;
/// Bytes of events in one batch, unless the first one alone has more.
const BATCH_BYTES: usize = 256 * 1024;
/// What an event takes up in memory beside its text.
const ENTRY_BYTES: usize = 64;
/// How long an event is tried.
pub(super) const GIVE_UP_MS: u64 = 5 * 60 * 1000;
/// The longest wait after the first failure; each further one doubles it.
const FIRST_REST_MS: u64 = 1000;
/// The longest wait of all.
const LONGEST_REST_MS: u64 = 60 * 1000;

/// How a queue treats its events.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueuePolicy {
    /// Bytes that may wait.
    pub(super) max_bytes: usize,
    /// How long an event may wait for others; without it each request has one event.
    pub(super) batch_ms: Option<u64>,
    /// Makes a body of the time and the events.
    pub(super) body: fn(u64, &[&[u8]]) -> Vec<u8>,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct WebhookQueue {
    policy: QueuePolicy,
    lanes: Vec<Lane>,
    bytes: usize,
    pushed: u64,
    /// Who has caused what waits in all lanes; not what is part of a request.
    shares: Shares,
    /// The last event of a channel that it is occupied or vacated, by its lane and number, if that
    /// waits and no member or client event of the channel came after it.
    occupancy: HashMap<Arc<str>, (usize, u64)>,
    /// Whether batches go without waiting to be full.
    hurried: bool,
}

#[derive(Debug, Default)]
struct Lane {
    /// By their number.
    waiting: BTreeMap<u64, Entry>,
    current: Option<Request>,
    flying: bool,
    /// Failures since the last success, and until when nothing is tried.
    failures: u32,
    rest_until_ms: u64,
}

/// An event that an endpoint is to be told.
#[derive(Clone, Debug)]
pub(super) struct WebhookEvent {
    pub(super) channel: Arc<str>,
    /// Who has caused it.
    pub(super) source: u64,
    /// What it says of whether the channel is occupied.
    pub(super) occupancy: Occupancy,
    /// The event as JSON.
    pub(super) text: Vec<u8>,
}

/// What an event says of whether its channel is occupied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Occupancy {
    Occupied,
    Vacated,
    /// Nothing; it is a count, or a miss.
    Silent,
    /// Nothing, but it only makes sense between an occupied and a vacated.
    Between,
}

/// What became of events when another one was added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pushed {
    /// Events that had to be dropped.
    pub(super) dropped: u64,
    /// Events that were undone by each other.
    pub(super) cancelled: u64,
}

#[derive(Debug)]
struct Entry {
    since_ms: u64,
    event: WebhookEvent,
}

impl Entry {
    fn bytes(&self) -> usize {
        self.event.text.len() + ENTRY_BYTES
    }
}

/// Events on their way.
#[derive(Debug)]
struct Request {
    /// Of its first event.
    since_ms: u64,
    events: u64,
    bytes: usize,
    body: Rc<[u8]>,
}

/// The lane of a request, and its body.
pub(super) type Job = (usize, Rc<[u8]>);

impl WebhookQueue {
    pub(super) fn new(policy: QueuePolicy) -> WebhookQueue {
        let count = if policy.batch_ms.is_some() { 1 } else { LANES };
        let lanes = (0..count).map(|_| Lane::default()).collect();
        WebhookQueue {
            policy,
            lanes,
            bytes: 0,
            pushed: 0,
            shares: Shares::default(),
            occupancy: HashMap::new(),
            hurried: false,
        }
    }

    pub(super) fn lanes(&self) -> usize {
        self.lanes.len()
    }

    /// Treats its events in another way from now on, but not in batches if it did not, nor one by
    /// one if it did; says how many had to be dropped.
    pub(super) fn renew(&mut self, policy: QueuePolicy) -> u64 {
        debug_assert_eq!(policy.batch_ms.is_some(), self.policy.batch_ms.is_some());
        self.policy = policy;
        self.make_room()
    }

    /// Takes an event, whose channel has this hash.
    pub(super) fn push(&mut self, hash: u64, event: WebhookEvent, now_ms: u64) -> Pushed {
        if event.text.len() + ENTRY_BYTES > self.policy.max_bytes {
            return Pushed { dropped: 1, ..Pushed::default() };
        }
        let at = (hash % self.lanes.len() as u64) as usize;
        if self.undo(&event) {
            return Pushed { cancelled: 2, ..Pushed::default() };
        }
        self.pushed += 1;
        let number = self.pushed;
        match event.occupancy {
            Occupancy::Occupied | Occupancy::Vacated => {
                self.occupancy.insert(event.channel.clone(), (at, number));
            }
            Occupancy::Between => drop(self.occupancy.remove(&event.channel)),
            Occupancy::Silent => {}
        }
        self.shares.add(event.source, number);
        let entry = Entry { since_ms: now_ms, event };
        self.bytes += entry.bytes();
        self.lanes[at].waiting.insert(number, entry);
        Pushed { dropped: self.make_room(), ..Pushed::default() }
    }

    /// Takes back the event that `event` undoes, if that waits.
    fn undo(&mut self, event: &WebhookEvent) -> bool {
        let opposite = match event.occupancy {
            Occupancy::Occupied => Occupancy::Vacated,
            Occupancy::Vacated => Occupancy::Occupied,
            Occupancy::Silent | Occupancy::Between => return false,
        };
        let Some((lane, number)) = self.occupancy.get(&event.channel).copied() else {
            return false;
        };
        let waits = self.lanes[lane].waiting.get(&number);
        if waits.is_none_or(|entry| entry.event.occupancy != opposite) {
            return false;
        }
        self.take(lane, number).is_some()
    }

    /// Takes an event out of its lane.
    fn take(&mut self, lane: usize, number: u64) -> Option<Entry> {
        let entry = self.lanes[lane].waiting.remove(&number)?;
        self.shares.remove(entry.event.source, number);
        if self.occupancy.get(&entry.event.channel) == Some(&(lane, number)) {
            self.occupancy.remove(&entry.event.channel);
        }
        self.bytes -= entry.bytes();
        Some(entry)
    }

    fn make_room(&mut self) -> u64 {
        let mut dropped = 0;
        while self.bytes > self.policy.max_bytes {
            match self.drop_one() {
                // All that is left is under way.
                0 => break,
                some => dropped += some,
            }
        }
        dropped
    }

    /// Drops the newest event of the source with the most events that wait; if none waits, a
    /// request that is not under way at this moment. Says how many events that were.
    fn drop_one(&mut self) -> u64 {
        if let Some(number) = self.shares.newest_of_busiest() {
            let holds = |lane: &Lane| lane.waiting.contains_key(&number);
            let Some(lane) = self.lanes.iter().position(holds) else { return 0 };
            return u64::from(self.take(lane, number).is_some());
        }
        let rests = |lane: &&mut Lane| !lane.flying && lane.current.is_some();
        let Some(lane) = self.lanes.iter_mut().find(rests) else { return 0 };
        let Some(request) = lane.current.take() else { return 0 };
        self.bytes -= request.bytes;
        request.events
    }

    /// The next request that can be made now.
    pub(super) fn next(&mut self, now_ms: u64, unix_ms: u64) -> Option<Job> {
        let ready = |lane: &Lane| self.ready_ms(lane) <= now_ms;
        let at = self.lanes.iter().position(ready)?;
        if self.lanes[at].current.is_none() {
            let request = self.gather(at, unix_ms)?;
            self.lanes[at].current = Some(request);
        }
        let lane = &mut self.lanes[at];
        lane.flying = true;
        lane.current.as_ref().map(|request| (at, request.body.clone()))
    }

    /// When the lane can make a request.
    fn ready_ms(&self, lane: &Lane) -> u64 {
        let waits_since = match (&lane.current, lane.waiting.first_key_value()) {
            _ if lane.flying => return u64::MAX,
            (Some(_), _) => return lane.rest_until_ms,
            (None, Some((_, entry))) => entry.since_ms,
            (None, None) => return u64::MAX,
        };
        let full = lane.waiting.len() >= BATCH_EVENTS || self.bytes >= BATCH_BYTES;
        match self.policy.batch_ms {
            Some(batch_ms) if !self.hurried && !full => {
                lane.rest_until_ms.max(waits_since + batch_ms)
            }
            _ => lane.rest_until_ms,
        }
    }

    /// The lane's request has succeeded.
    pub(super) fn succeeded(&mut self, lane: usize) {
        let lane = &mut self.lanes[lane];
        (lane.failures, lane.flying, lane.rest_until_ms) = (0, false, 0);
        if let Some(request) = lane.current.take() {
            self.bytes -= request.bytes;
        }
    }

    /// The lane's request has failed, and is tried again if `again` and if it is not too old.
    /// `jitter` is any number. Says how many events were given up.
    pub(super) fn failed(&mut self, lane: usize, again: bool, jitter: u64, now_ms: u64) -> u64 {
        let lane = &mut self.lanes[lane];
        lane.flying = false;
        let max_bytes = FIRST_REST_MS << lane.failures.min(16);
        let max_bytes = max_bytes.min(LONGEST_REST_MS);
        lane.failures += 1;
        lane.rest_until_ms = now_ms + max_bytes / 2 + jitter % (max_bytes / 2 + 1);
        let too_old =
            |request: &mut Request| !again || lane.rest_until_ms >= request.since_ms + GIVE_UP_MS;
        match lane.current.take_if(too_old) {
            Some(request) => {
                self.bytes -= request.bytes;
                request.events
            }
            None => 0,
        }
    }

    /// Sends what waits without waiting for more of it.
    pub(super) fn hurry(&mut self) {
        self.hurried = true;
    }

    /// When to look again.
    pub(super) fn deadline_ms(&self) -> u64 {
        self.lanes.iter().map(|lane| self.ready_ms(lane)).min().unwrap_or(u64::MAX)
    }

    /// Events that have not been delivered.
    pub(super) fn len(&self) -> u64 {
        let in_lane = |lane: &Lane| {
            lane.waiting.len() as u64 + lane.current.as_ref().map_or(0, |request| request.events)
        };
        self.lanes.iter().map(in_lane).sum()
    }

    /// Makes one request of what waits in a lane.
    fn gather(&mut self, at: usize, unix_ms: u64) -> Option<Request> {
        let max_bytes = if self.policy.batch_ms.is_some() { BATCH_EVENTS } else { 1 };
        let bytes_before = self.bytes;
        let mut taken: Vec<Entry> = Vec::new();
        let mut length = 0;
        while taken.len() < max_bytes
            && let Some((number, next)) = self.lanes[at].waiting.first_key_value()
        {
            length += next.event.text.len();
            if !taken.is_empty() && length > BATCH_BYTES {
                break;
            }
            let number = *number;
            taken.extend(self.take(at, number));
        }
        // A request counts until it is answered.
        self.bytes = bytes_before;
        let events: Vec<&[u8]> = taken.iter().map(|entry| entry.event.text.as_slice()).collect();
        Some(Request {
            since_ms: taken.first()?.since_ms,
            events: taken.len() as u64,
            bytes: taken.iter().map(Entry::bytes).sum(),
            body: (self.policy.body)(unix_ms, &events).into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(unix_ms: u64, events: &[&[u8]]) -> Vec<u8> {
        let mut out = format!("{unix_ms}:").into_bytes();
        out.extend(events.join(&b","[..]));
        out
    }

    fn queue(max_bytes: usize, batch_ms: Option<u64>) -> WebhookQueue {
        WebhookQueue::new(QueuePolicy { max_bytes, batch_ms, body })
    }

    fn event(channel: u64, text: &str) -> WebhookEvent {
        let occupancy = Occupancy::Silent;
        let channel = channel.to_string();
        WebhookEvent { channel: channel.as_str().into(), source: 1, occupancy, text: text.into() }
    }

    impl WebhookQueue {
        /// An event of the one source; says how many events had to be dropped.
        fn add(&mut self, channel: u64, text: &str, now_ms: u64) -> u64 {
            self.push(channel, event(channel, text), now_ms).dropped
        }
    }

    fn text(job: Option<Job>) -> Option<(usize, String)> {
        job.map(|(lane, body)| (lane, String::from_utf8_lossy(&body).into_owned()))
    }

    fn job(lane: usize, text: &str) -> Option<(usize, String)> {
        Some((lane, text.to_owned()))
    }

    #[test]
    fn webhook_queue_orders_events_of_a_channel() {
        let mut queue = queue(10_000, None);
        for (channel, event) in [(1, "a1"), (1, "a2"), (2, "b1")] {
            assert_eq!(queue.add(channel, event, 0), 0);
        }
        assert_eq!(text(queue.next(0, 7)), job(1, "7:a1"));
        assert_eq!(text(queue.next(0, 7)), job(2, "7:b1"));
        assert_eq!((text(queue.next(0, 7)), queue.deadline_ms()), (None, u64::MAX));
        queue.succeeded(1);
        assert_eq!(text(queue.next(0, 8)), job(1, "8:a2"));
        assert_eq!(queue.len(), 2);
        queue.succeeded(1);
        queue.succeeded(2);
        assert_eq!((queue.len(), queue.bytes), (0, 0));
    }

    #[test]
    fn webhook_queue_retries_with_backoff_for_five_minutes() {
        let mut queue = queue(10_000, None);
        queue.add(0, "a", 1000);
        queue.add(0, "b", 1000);
        let mut now_ms = 1000;
        let mut rests = Vec::new();
        let given_up = loop {
            assert_eq!(text(queue.next(now_ms, 5)), job(0, "5:a"));
            let given_up = queue.failed(0, true, u64::MAX, now_ms);
            if given_up > 0 {
                break given_up;
            }
            let due_ms = queue.deadline_ms();
            assert_eq!(text(queue.next(due_ms - 1, 6)), None);
            rests.push(due_ms - now_ms);
            now_ms = due_ms;
        };
        assert_eq!(given_up, 1);
        assert!(rests.is_sorted() && rests.len() > 8, "{rests:?}");
        assert!(rests.iter().all(|rest| (500..=60_000).contains(rest)), "{rests:?}");
        assert!((241_000..=301_000).contains(&now_ms), "{now_ms}");
        // The next one does not hammer the endpoint, and a success forgets all failures.
        let due_ms = queue.deadline_ms();
        assert!(due_ms >= now_ms + 30_000);
        assert_eq!(text(queue.next(due_ms, 6)), job(0, "6:b"));
        queue.succeeded(0);
        queue.add(0, "c", due_ms);
        assert_eq!(text(queue.next(due_ms, 6)), job(0, "6:c"));
        assert_eq!(queue.failed(0, false, 0, due_ms), 1);
        assert_eq!((queue.len(), queue.bytes), (0, 0));
    }

    #[test]
    fn webhook_queue_batch_waits_for_time_or_number() {
        let mut queue = queue(100_000, Some(50));
        queue.add(1, "a", 0);
        queue.add(2, "b", 40);
        assert_eq!((text(queue.next(49, 0)), queue.deadline_ms()), (None, 50));
        assert_eq!(text(queue.next(50, 9)), job(0, "9:a,b"));
        queue.add(2, "c", 60);
        assert_eq!(text(queue.next(200, 0)), None);
        queue.succeeded(0);
        queue.hurry();
        assert_eq!(text(queue.next(61, 9)), job(0, "9:c"));
        queue.succeeded(0);
        queue.hurried = false;
        (0..=BATCH_EVENTS).for_each(|_| assert_eq!(queue.add(0, "x", 100), 0));
        let (_, full) = text(queue.next(100, 9)).expect("enough");
        assert_eq!(full.matches('x').count(), BATCH_EVENTS);
        queue.succeeded(0);
        assert_eq!(text(queue.next(100, 9)), None);
        assert_eq!(text(queue.next(150, 9)), job(0, "9:x"));
    }

    #[test]
    fn beyond_the_bound_the_newest_of_the_busiest_goes_but_not_what_is_under_way() {
        let size = ENTRY_BYTES + 1;
        let mut queue = queue(3 * size, None);
        let of = |source, channel, text| WebhookEvent { source, ..event(channel, text) };
        let push = |queue: &mut WebhookQueue, source, channel, text| {
            queue.push(channel, of(source, channel, text), 0).dropped
        };
        // Exactly full: two of the one who makes channels up, one of somebody else.
        for (source, channel, text) in [(7, 0, "a"), (7, 1, "b"), (8, 2, "c")] {
            assert_eq!(push(&mut queue, source, channel, text), 0);
        }
        // Each further one of the first costs that one's newest, be it the one that has just come.
        assert_eq!(push(&mut queue, 7, 3, "d"), 1);
        assert_eq!(push(&mut queue, 7, 4, "e"), 1);
        assert_eq!(queue.len(), 3);
        // What is under way stays; one of somebody new costs the newest of the busiest.
        assert_eq!(text(queue.next(0, 0)), job(0, "0:a"));
        assert_eq!(text(queue.next(0, 0)), job(1, "0:b"));
        assert_eq!(push(&mut queue, 9, 5, "f"), 1, "all have one: the newest");
        assert_eq!(text(queue.next(0, 0)), job(2, "0:c"));
        assert_eq!(queue.failed(2, true, 0, 0), 0);
        assert_eq!(push(&mut queue, 9, 5, &"x".repeat(3 * size)), 1, "itself");
        assert_eq!(queue.len(), 3);
        // With a smaller bound even what is to be tried again goes, but not what is under way.
        let policy = QueuePolicy { max_bytes: size, ..queue.policy };
        assert_eq!((queue.renew(policy), queue.len()), (1, 2));
    }

    #[test]
    fn a_flood_of_one_source_costs_nobody_else_an_event() {
        let max_bytes = 1000 * (ENTRY_BYTES + 8);
        let mut queue = queue(max_bytes, None);
        let mut dropped = 0;
        for number in 0..100_000 {
            let channel = format!("made-up-{number}");
            let event = WebhookEvent {
                channel: channel.as_str().into(),
                source: 7,
                occupancy: Occupancy::Occupied,
                text: vec![b'x'; 8],
            };
            dropped += queue.push(number, event, 0).dropped;
        }
        assert_eq!((dropped, queue.len()), (99_000, 1000));
        let theirs = WebhookEvent { source: 8, text: b"theirs!!".to_vec(), ..event(3, "") };
        assert_eq!(queue.push(3, theirs, 0).dropped, 1);
        let mut delivered = Vec::new();
        while let Some((lane, body)) = queue.next(0, 0) {
            delivered.push(body);
            queue.succeeded(lane);
        }
        assert_eq!(delivered.len(), 1000);
        assert_eq!(delivered.iter().filter(|body| body.ends_with(b"theirs!!")).count(), 1);
        assert_eq!(queue.bytes, 0);
    }

    #[test]
    fn an_occupied_and_a_vacated_that_wait_cancel_each_other() {
        let mut queue = queue(10_000, None);
        let of = |channel, occupancy| WebhookEvent { occupancy, ..event(channel, "x") };
        let (occupied, vacated) = (Occupancy::Occupied, Occupancy::Vacated);
        let cancelled = |queue: &mut WebhookQueue, channel, occupancy| {
            queue.push(channel, of(channel, occupancy), 0).cancelled
        };
        assert_eq!(cancelled(&mut queue, 1, occupied), 0);
        assert_eq!(cancelled(&mut queue, 1, Occupancy::Silent), 0);
        assert_eq!(cancelled(&mut queue, 1, vacated), 2);
        assert_eq!((queue.len(), queue.occupancy.len()), (1, 0));
        // The other way round, too, and the same twice is no pair.
        assert_eq!(cancelled(&mut queue, 1, vacated), 0);
        assert_eq!(cancelled(&mut queue, 1, vacated), 0);
        assert_eq!(cancelled(&mut queue, 1, occupied), 2);
        // What only makes sense in between keeps both.
        assert_eq!(cancelled(&mut queue, 2, occupied), 0);
        assert_eq!(cancelled(&mut queue, 2, Occupancy::Between), 0);
        assert_eq!(cancelled(&mut queue, 2, vacated), 0);
        // What is under way does not cancel anything.
        assert_eq!(cancelled(&mut queue, 3, occupied), 0);
        while queue.next(0, 0).is_some() {}
        assert_eq!(cancelled(&mut queue, 3, vacated), 0);
    }
}
