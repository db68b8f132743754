//! The queue of events for one webhook endpoint. Time is an argument; there is no I/O here.
//!
//! Channels are spread over a few partitions by hash. A partition has one request in flight and
//! retries it until it succeeds or is too old. A channel's events therefore arrive in order, and
//! partitions do not wait for each other.
//!
//! At the byte limit, the queue drops the newest event of the source that has the most events, so
//! that a client that creates many channels loses its own events and not those of others. An
//! `occupied` and a `vacated` event of one channel cancel each other while the first of them is
//! queued.

use crate::mem::Shares;
use crate::time::Backoff;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;

/// Partitions of an endpoint without batches, so its maximum number of requests in flight.
const MAX_LANES: usize = 8;
/// The maximum number of events in one batch.
const BATCH_EVENTS: usize = 100;
/// The maximum bytes of events in one batch, unless the first event alone is larger.
const BATCH_BYTES: usize = 256 * 1024;
/// Bytes of memory that an event is counted for in addition to its text.
const ENTRY_BYTES: usize = 64;
/// How long after it was queued an event is still retried, in milliseconds.
pub(super) const GIVE_UP_MS: u64 = 5 * 60 * 1000;
/// The maximum wait after the first failure, in milliseconds; each further failure doubles it.
const FIRST_REST_MS: u64 = 1000;
/// The maximum wait after any failure, in milliseconds.
const LONGEST_REST_MS: u64 = 60 * 1000;

/// The limits and the format of one queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueuePolicy {
    /// The maximum bytes of undelivered events.
    pub(super) max_bytes: usize,
    /// How long an event waits for a batch to fill, in milliseconds; `None` sends one event per
    /// request.
    pub(super) batch_ms: Option<u64>,
    /// Builds a request body from the Unix time in milliseconds and the events.
    pub(super) body: fn(u64, &[&[u8]]) -> Vec<u8>,
}

/// The queue of one endpoint; see the module's documentation.
#[derive(Debug)]
pub(super) struct WebhookQueue {
    policy: QueuePolicy,
    partitions: Vec<Partition>,
    bytes: usize,
    pushed: u64,
    /// The queued events of all partitions by source, without those that are part of a request.
    shares: Shares,
    /// The partition and number of each channel's last `occupied` or `vacated` event, if that event
    /// is queued and no member or client event of the channel followed it.
    occupancy: HashMap<Arc<str>, (usize, u64)>,
    /// Whether batches are sent before they are full.
    hurried: bool,
}

#[derive(Debug, Default)]
struct Partition {
    /// Queued events by their number.
    waiting: BTreeMap<u64, Entry>,
    current: Option<Request>,
    flying: bool,
    /// Failures since the last success; no request is made before `rest_until_ms`.
    backoff: Backoff,
    rest_until_ms: u64,
}

/// An event to deliver to an endpoint.
#[derive(Clone, Debug)]
pub(super) struct WebhookEvent {
    pub(super) channel: Arc<str>,
    /// The source that caused the event; the queue's fairness is per source.
    pub(super) source: u64,
    /// Whether the event says that the channel is occupied or vacated.
    pub(super) occupancy: Occupancy,
    /// The event as JSON.
    pub(super) text: Vec<u8>,
}

/// What an event says about whether its channel is occupied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Occupancy {
    Occupied,
    Vacated,
    /// Nothing: a subscription count or a cache miss.
    Silent,
    /// Nothing, but the event only makes sense between an `occupied` and a `vacated` event.
    Between,
}

/// What a push removed from the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pushed {
    /// Events that were dropped at the byte limit.
    pub(super) dropped: u64,
    /// Events that cancelled each other.
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

/// The current request of a partition, in flight or waiting for a retry.
#[derive(Debug)]
struct Request {
    /// When its first event was queued, in milliseconds.
    since_ms: u64,
    events: u64,
    bytes: usize,
    body: Rc<[u8]>,
}

/// The partition and the body of a request.
pub(super) type QueuedRequest = (usize, Rc<[u8]>);

impl WebhookQueue {
    pub(super) fn new(policy: QueuePolicy) -> WebhookQueue {
        let count = if policy.batch_ms.is_some() { 1 } else { MAX_LANES };
        let partitions = (0..count).map(|_| Partition::default()).collect();
        WebhookQueue {
            policy,
            partitions,
            bytes: 0,
            pushed: 0,
            shares: Shares::default(),
            occupancy: HashMap::new(),
            hurried: false,
        }
    }

    pub(super) fn partitions(&self) -> usize {
        self.partitions.len()
    }

    /// Applies a new policy, which must have batches if and only if the old one has them. Returns
    /// how many events were dropped because the byte limit is smaller.
    pub(super) fn renew(&mut self, policy: QueuePolicy) -> u64 {
        debug_assert_eq!(policy.batch_ms.is_some(), self.policy.batch_ms.is_some());
        self.policy = policy;
        self.make_room()
    }

    /// Adds an event; `hash` is the hash of its channel, which selects the partition.
    pub(super) fn push(&mut self, hash: u64, event: WebhookEvent, now_ms: u64) -> Pushed {
        if event.text.len() + ENTRY_BYTES > self.policy.max_bytes {
            return Pushed { dropped: 1, ..Pushed::default() };
        }
        let at = (hash % self.partitions.len() as u64) as usize;
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
        self.partitions[at].waiting.insert(number, entry);
        Pushed { dropped: self.make_room(), ..Pushed::default() }
    }

    /// Removes the queued event that `event` cancels. Returns whether there was one.
    fn undo(&mut self, event: &WebhookEvent) -> bool {
        let opposite = match event.occupancy {
            Occupancy::Occupied => Occupancy::Vacated,
            Occupancy::Vacated => Occupancy::Occupied,
            Occupancy::Silent | Occupancy::Between => return false,
        };
        let Some((partition, number)) = self.occupancy.get(&event.channel).copied() else {
            return false;
        };
        let waits = self.partitions[partition].waiting.get(&number);
        if waits.is_none_or(|entry| entry.event.occupancy != opposite) {
            return false;
        }
        self.take(partition, number).is_some()
    }

    /// Removes a queued event from its partition.
    fn take(&mut self, partition: usize, number: u64) -> Option<Entry> {
        let entry = self.partitions[partition].waiting.remove(&number)?;
        self.shares.remove(entry.event.source, number);
        if self.occupancy.get(&entry.event.channel) == Some(&(partition, number)) {
            self.occupancy.remove(&entry.event.channel);
        }
        self.bytes -= entry.bytes();
        Some(entry)
    }

    fn make_room(&mut self) -> u64 {
        let mut dropped = 0;
        while self.bytes > self.policy.max_bytes {
            match self.drop_one() {
                // Only requests in flight are left.
                0 => break,
                some => dropped += some,
            }
        }
        dropped
    }

    /// Drops the newest queued event of the source that has the most. If no event is queued, drops
    /// a request that waits for a retry. Returns how many events were dropped.
    fn drop_one(&mut self) -> u64 {
        if let Some(number) = self.shares.newest_of_busiest() {
            let holds = |partition: &Partition| partition.waiting.contains_key(&number);
            let Some(partition) = self.partitions.iter().position(holds) else { return 0 };
            return u64::from(self.take(partition, number).is_some());
        }
        let rests = |partition: &&mut Partition| !partition.flying && partition.current.is_some();
        let Some(partition) = self.partitions.iter_mut().find(rests) else { return 0 };
        let Some(request) = partition.current.take() else { return 0 };
        self.bytes -= request.bytes;
        request.events
    }

    /// The next request that can be sent now. The partition is then busy until
    /// [`WebhookQueue::succeeded`] or [`WebhookQueue::failed`] is called.
    pub(super) fn next(&mut self, now_ms: u64, unix_ms: u64) -> Option<QueuedRequest> {
        let ready = |partition: &Partition| self.ready_ms(partition) <= now_ms;
        let at = self.partitions.iter().position(ready)?;
        if self.partitions[at].current.is_none() {
            let request = self.gather(at, unix_ms)?;
            self.partitions[at].current = Some(request);
        }
        let partition = &mut self.partitions[at];
        partition.flying = true;
        partition.current.as_ref().map(|request| (at, request.body.clone()))
    }

    /// When the partition can send a request, in milliseconds; `u64::MAX` if it has none or one is
    /// in flight.
    fn ready_ms(&self, partition: &Partition) -> u64 {
        let waits_since = match (&partition.current, partition.waiting.first_key_value()) {
            _ if partition.flying => return u64::MAX,
            (Some(_), _) => return partition.rest_until_ms,
            (None, Some((_, entry))) => entry.since_ms,
            (None, None) => return u64::MAX,
        };
        let full = partition.waiting.len() >= BATCH_EVENTS || self.bytes >= BATCH_BYTES;
        match self.policy.batch_ms {
            Some(batch_ms) if !self.hurried && !full => {
                partition.rest_until_ms.max(waits_since + batch_ms)
            }
            _ => partition.rest_until_ms,
        }
    }

    /// Removes the partition's request, which was delivered.
    pub(super) fn succeeded(&mut self, partition: usize) {
        let partition = &mut self.partitions[partition];
        partition.backoff.succeed();
        (partition.flying, partition.rest_until_ms) = (false, 0);
        if let Some(request) = partition.current.take() {
            self.bytes -= request.bytes;
        }
    }

    /// Notes that the partition's request failed. It is retried later if `again` is true and its
    /// first event is not too old by then. `jitter` is any random number. Returns how many events
    /// were given up.
    pub(super) fn failed(
        &mut self,
        partition: usize,
        again: bool,
        jitter: u64,
        now_ms: u64,
    ) -> u64 {
        let partition = &mut self.partitions[partition];
        partition.flying = false;
        let rest_ms = partition.backoff.fail(FIRST_REST_MS, LONGEST_REST_MS);
        partition.rest_until_ms = now_ms + rest_ms / 2 + jitter % (rest_ms / 2 + 1);
        let too_old = |request: &mut Request| {
            !again || partition.rest_until_ms >= request.since_ms + GIVE_UP_MS
        };
        match partition.current.take_if(too_old) {
            Some(request) => {
                self.bytes -= request.bytes;
                request.events
            }
            None => 0,
        }
    }

    /// Sends batches from now on without waiting until they are full.
    pub(super) fn hurry(&mut self) {
        self.hurried = true;
    }

    /// When [`WebhookQueue::next`] has a request, in milliseconds; `u64::MAX` if that needs an
    /// event or an outcome first.
    pub(super) fn deadline_ms(&self) -> u64 {
        self.partitions.iter().map(|partition| self.ready_ms(partition)).min().unwrap_or(u64::MAX)
    }

    /// The number of undelivered events, including those in flight.
    pub(super) fn len(&self) -> u64 {
        let in_partition = |partition: &Partition| {
            partition.waiting.len() as u64
                + partition.current.as_ref().map_or(0, |request| request.events)
        };
        self.partitions.iter().map(in_partition).sum()
    }

    /// Builds one request from the queued events of a partition.
    fn gather(&mut self, at: usize, unix_ms: u64) -> Option<Request> {
        let max_events = if self.policy.batch_ms.is_some() { BATCH_EVENTS } else { 1 };
        let bytes_before = self.bytes;
        let mut taken: Vec<Entry> = Vec::new();
        let mut length = 0;
        while taken.len() < max_events
            && let Some((number, next)) = self.partitions[at].waiting.first_key_value()
        {
            length += next.event.text.len();
            if !taken.is_empty() && length > BATCH_BYTES {
                break;
            }
            let number = *number;
            taken.extend(self.take(at, number));
        }
        // The bytes of a request count until it is delivered or given up.
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
        /// Adds an event of the one source; returns how many events were dropped.
        fn add(&mut self, channel: u64, text: &str, now_ms: u64) -> u64 {
            self.push(channel, event(channel, text), now_ms).dropped
        }
    }

    fn text(job: Option<QueuedRequest>) -> Option<(usize, String)> {
        job.map(|(partition, body)| (partition, String::from_utf8_lossy(&body).into_owned()))
    }

    fn job(partition: usize, text: &str) -> Option<(usize, String)> {
        Some((partition, text.to_owned()))
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
        // The next event waits as well; a success resets the failure count.
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
    fn webhook_queue_over_its_bound_drops_the_newest_of_the_busiest_source() {
        let size = ENTRY_BYTES + 1;
        let mut queue = queue(3 * size, None);
        let of = |source, channel, text| WebhookEvent { source, ..event(channel, text) };
        let push = |queue: &mut WebhookQueue, source, channel, text| {
            queue.push(channel, of(source, channel, text), 0).dropped
        };
        // Exactly full: two events of the source that creates channels, one event of another
        // source.
        for (source, channel, text) in [(7, 0, "a"), (7, 1, "b"), (8, 2, "c")] {
            assert_eq!(push(&mut queue, source, channel, text), 0);
        }
        // Each further event of the first source drops its own newest event, even the one just
        // added.
        assert_eq!(push(&mut queue, 7, 3, "d"), 1);
        assert_eq!(push(&mut queue, 7, 4, "e"), 1);
        assert_eq!(queue.len(), 3);
        // Requests in flight stay; an event of a new source drops the newest event of the busiest
        // one.
        assert_eq!(text(queue.next(0, 0)), job(0, "0:a"));
        assert_eq!(text(queue.next(0, 0)), job(1, "0:b"));
        assert_eq!(push(&mut queue, 9, 5, "f"), 1, "all have one: the newest");
        assert_eq!(text(queue.next(0, 0)), job(2, "0:c"));
        assert_eq!(queue.failed(2, true, 0, 0), 0);
        assert_eq!(push(&mut queue, 9, 5, &"x".repeat(3 * size)), 1, "itself");
        assert_eq!(queue.len(), 3);
        // A smaller limit also drops a request that waits for a retry, but not requests in flight.
        let policy = QueuePolicy { max_bytes: size, ..queue.policy };
        assert_eq!((queue.renew(policy), queue.len()), (1, 2));
    }

    #[test]
    fn webhook_queue_busy_source_loses_only_its_own_events() {
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
        while let Some((partition, body)) = queue.next(0, 0) {
            delivered.push(body);
            queue.succeeded(partition);
        }
        assert_eq!(delivered.len(), 1000);
        assert_eq!(delivered.iter().filter(|body| body.ends_with(b"theirs!!")).count(), 1);
        assert_eq!(queue.bytes, 0);
    }

    #[test]
    fn webhook_queue_occupied_and_vacated_cancel_each_other() {
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
        // It works in the other order, too; two equal events do not cancel each other.
        assert_eq!(cancelled(&mut queue, 1, vacated), 0);
        assert_eq!(cancelled(&mut queue, 1, vacated), 0);
        assert_eq!(cancelled(&mut queue, 1, occupied), 2);
        // An event of kind `Between` keeps both.
        assert_eq!(cancelled(&mut queue, 2, occupied), 0);
        assert_eq!(cancelled(&mut queue, 2, Occupancy::Between), 0);
        assert_eq!(cancelled(&mut queue, 2, vacated), 0);
        // A request in flight does not cancel anything.
        assert_eq!(cancelled(&mut queue, 3, occupied), 0);
        while queue.next(0, 0).is_some() {}
        assert_eq!(cancelled(&mut queue, 3, vacated), 0);
    }
}
