//! What waits for one endpoint: a function of events, answers and time.
//!
//! Channels are spread over a few lanes. A lane sends one request at a time and tries it again
//! until it succeeds or is too old, so a channel's events arrive in their order, and lanes do not
//! wait for each other.

use std::collections::VecDeque;
use std::rc::Rc;

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
    /// Whether batches go without waiting to be full.
    hurried: bool,
}

#[derive(Debug, Default)]
struct Lane {
    waiting: VecDeque<Entry>,
    current: Option<Request>,
    flying: bool,
    /// Failures since the last success, and until when nothing is tried.
    failures: u32,
    rest_until_ms: u64,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    since_ms: u64,
    event: Vec<u8>,
}

impl Entry {
    fn bytes(&self) -> usize {
        self.event.len() + ENTRY_BYTES
    }
}

/// Events on their way.
#[derive(Debug)]
struct Request {
    /// Of its first event.
    number: u64,
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
        WebhookQueue { policy, lanes, bytes: 0, pushed: 0, hurried: false }
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

    /// Takes an event of the channel with this hash; says how many events had to be dropped.
    pub(super) fn push(&mut self, channel: u64, event: Vec<u8>, now_ms: u64) -> u64 {
        self.pushed += 1;
        let entry = Entry { number: self.pushed, since_ms: now_ms, event };
        if entry.bytes() > self.policy.max_bytes {
            return 1;
        }
        self.bytes += entry.bytes();
        let lane = (channel % self.lanes.len() as u64) as usize;
        self.lanes[lane].waiting.push_back(entry);
        self.make_room()
    }

    fn make_room(&mut self) -> u64 {
        let mut dropped = 0;
        while self.bytes > self.policy.max_bytes {
            match self.drop_oldest() {
                // All that is left is under way.
                0 => break,
                some => dropped += some,
            }
        }
        dropped
    }

    /// Drops what has waited the longest and is not under way at this moment, if there is such a
    /// thing. There is when an event has just been pushed.
    fn drop_oldest(&mut self) -> u64 {
        let age = |lane: &Lane| match &lane.current {
            Some(request) if !lane.flying => request.number,
            _ => lane.waiting.front().map_or(u64::MAX, |entry| entry.number),
        };
        let Some(lane) = self.lanes.iter_mut().min_by_key(|lane| age(lane)) else { return 0 };
        if !lane.flying
            && let Some(request) = lane.current.take()
        {
            self.bytes -= request.bytes;
            return request.events;
        }
        match lane.waiting.pop_front() {
            Some(entry) => {
                self.bytes -= entry.bytes();
                1
            }
            None => 0,
        }
    }

    /// The next request that can be made now.
    pub(super) fn next(&mut self, now_ms: u64, unix_ms: u64) -> Option<Job> {
        let ready = |lane: &Lane| self.ready_ms(lane) <= now_ms;
        let at = self.lanes.iter().position(ready)?;
        let lane = &mut self.lanes[at];
        if lane.current.is_none() {
            lane.current = Some(gather(lane, &self.policy, unix_ms)?);
        }
        lane.flying = true;
        lane.current.as_ref().map(|request| (at, request.body.clone()))
    }

    /// When the lane can make a request.
    fn ready_ms(&self, lane: &Lane) -> u64 {
        let waits_since = match (&lane.current, lane.waiting.front()) {
            _ if lane.flying => return u64::MAX,
            (Some(_), _) => return lane.rest_until_ms,
            (None, Some(entry)) => entry.since_ms,
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
}

/// Makes one request of what waits in a lane.
fn gather(lane: &mut Lane, policy: &QueuePolicy, unix_ms: u64) -> Option<Request> {
    let max_bytes = if policy.batch_ms.is_some() { BATCH_EVENTS } else { 1 };
    let mut taken = vec![lane.waiting.pop_front()?];
    let mut length = taken[0].event.len();
    while taken.len() < max_bytes
        && let Some(next) =
            lane.waiting.pop_front_if(|next| length + next.event.len() <= BATCH_BYTES)
    {
        length += next.event.len();
        taken.push(next);
    }
    let events: Vec<&[u8]> = taken.iter().map(|entry| entry.event.as_slice()).collect();
    Some(Request {
        number: taken[0].number,
        since_ms: taken[0].since_ms,
        events: taken.len() as u64,
        bytes: taken.iter().map(Entry::bytes).sum(),
        body: (policy.body)(unix_ms, &events).into(),
    })
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
            assert_eq!(queue.push(channel, event.into(), 0), 0);
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
        queue.push(0, "a".into(), 1000);
        queue.push(0, "b".into(), 1000);
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
        queue.push(0, "c".into(), due_ms);
        assert_eq!(text(queue.next(due_ms, 6)), job(0, "6:c"));
        assert_eq!(queue.failed(0, false, 0, due_ms), 1);
        assert_eq!((queue.len(), queue.bytes), (0, 0));
    }

    #[test]
    fn webhook_queue_batch_waits_for_time_or_number() {
        let mut queue = queue(100_000, Some(50));
        queue.push(1, "a".into(), 0);
        queue.push(2, "b".into(), 40);
        assert_eq!((text(queue.next(49, 0)), queue.deadline_ms()), (None, 50));
        assert_eq!(text(queue.next(50, 9)), job(0, "9:a,b"));
        queue.push(2, "c".into(), 60);
        assert_eq!(text(queue.next(200, 0)), None);
        queue.succeeded(0);
        queue.hurry();
        assert_eq!(text(queue.next(61, 9)), job(0, "9:c"));
        queue.succeeded(0);
        queue.hurried = false;
        (0..=BATCH_EVENTS).for_each(|_| assert_eq!(queue.push(0, "x".into(), 100), 0));
        let (_, full) = text(queue.next(100, 9)).expect("enough");
        assert_eq!(full.matches('x').count(), BATCH_EVENTS);
        queue.succeeded(0);
        assert_eq!(text(queue.next(100, 9)), None);
        assert_eq!(text(queue.next(150, 9)), job(0, "9:x"));
    }

    #[test]
    fn webhook_queue_drops_the_oldest_beyond_the_bound() {
        let size = ENTRY_BYTES + 1;
        let mut queue = queue(3 * size, None);
        for (channel, event) in [(0, "a"), (1, "b"), (0, "c")] {
            assert_eq!(queue.push(channel, event.into(), 0), 0);
        }
        assert_eq!(text(queue.next(0, 0)), job(0, "0:a"));
        assert_eq!(queue.push(0, "d".into(), 0), 1);
        assert_eq!(text(queue.next(0, 0)), None, "b was older than c");
        assert_eq!(queue.failed(0, true, 0, 0), 0);
        assert_eq!(queue.push(0, "e".into(), 0), 1);
        let due_ms = queue.deadline_ms();
        assert_eq!(text(queue.next(due_ms, 0)), job(0, "0:c"), "a was the oldest");
        assert_eq!(queue.push(0, vec![b'x'; 3 * size], 0), 1);
        assert_eq!(queue.len(), 3);
    }
}
