//! The queue by its rows, and against a model of an engine that loses, refuses and is slow.

mod ends;

use super::ends::END_WAIT_MS;
use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const LIMITS: QueueLimits =
    QueueLimits { hold_bytes: 10_000, hold_ms: 8000, append_ms: 2000, in_flight: 2 };

fn channel(name: &str) -> QueueKey {
    (0, name.into()).into()
}

fn waiting(ack: u32) -> QueuedEvent<u32> {
    QueuedEvent { part: ack.to_le_bytes().to_vec(), key: None, ttl_s: Some(60), ack: Some(ack) }
}

fn queue(acks: &[(&str, u32)]) -> AppendQueue<u32> {
    let mut queue = AppendQueue::new(LIMITS);
    for (name, ack) in acks {
        queue.push(&channel(name), waiting(*ack), 0).expect("there is room");
    }
    queue
}

/// The number of the next entry and the events in it.
fn next(queue: &mut AppendQueue<u32>, now_ms: u64) -> Option<(u64, Vec<u32>)> {
    let pack = queue.next(now_ms)?;
    let ack = |part: &&[u8]| u32::from_le_bytes((*part).try_into().expect("four bytes"));
    Some((pack.number, pack.parts.iter().map(ack).collect()))
}

/// Who has waited for the events of an entry that is stored.
fn stored(queue: &mut AppendQueue<u32>, number: u64) -> Vec<u32> {
    queue.stored(number).map(|(_, acks)| acks).unwrap_or_default()
}

fn outcomes(failed: Vec<Failure<u32>>) -> Vec<(u32, Unpublished)> {
    failed.into_iter().filter_map(|(ack, _, why)| Some((ack?, why))).collect()
}

#[test]
fn cluster_queue_packs_what_waits_for_a_channel() {
    let mut queue = queue(&[("a", 1)]);
    assert_eq!(next(&mut queue, 0), Some((1, vec![1])));
    for ack in [2, 3] {
        queue.push(&channel("a"), waiting(ack), 0).expect("there is room");
    }
    assert_eq!(next(&mut queue, 0), None, "one entry of a channel is under way");
    assert_eq!(stored(&mut queue, 1), [1]);
    assert_eq!(next(&mut queue, 0), Some((2, vec![2, 3])));
    assert_eq!(stored(&mut queue, 2), [2, 3]);
    assert!(queue.is_empty() && queue.bytes() == 0);
    assert_eq!(stored(&mut queue, 2), [0; 0], "that was answered");
}

#[test]
fn cluster_queue_hands_over_the_keys_of_events_and_counts_their_bytes() {
    let mut queue = AppendQueue::new(LIMITS);
    let key = |key| EventKey { key, request: 0, index: 3 };
    for (ack, key) in [(1, None), (2, Some(key(7))), (3, Some(key(8)))] {
        let before = queue.bytes();
        let event = QueuedEvent { key: key.map(Box::new), ..waiting(ack) };
        queue.push(&channel("a"), event, 0).expect("there is room");
        let bytes = if key.is_some() { KEY_BYTES } else { 0 };
        assert_eq!(queue.bytes() - before, 4 + EVENT_BYTES + bytes);
    }
    let pack = queue.next(0).expect("an entry");
    let keys: Vec<_> = pack.keys.iter().map(|part| (part.event, part.key)).collect();
    assert_eq!(keys, [(1, key(7)), (2, key(8))]);
    assert!(queue.has(1) && !queue.has(2));
    queue.stored(1);
    assert!(!queue.has(1) && queue.bytes() == 0);
}

fn state(user: &str) -> QueueKey {
    QueueKey { state: Some(StateSubject::Member(user.into())), ..channel("a") }
}

#[test]
fn cluster_queue_states_are_ordered_by_subject_and_the_last_one_counts() {
    let mut queue = AppendQueue::new(QueueLimits { in_flight: 9, ..LIMITS });
    queue.push(&channel("a"), waiting(1), 0).expect("there is room");
    for (at, user) in ["ada", "bob", "ada"].iter().enumerate() {
        let part = QueuedEvent { ttl_s: None, ack: None, ..waiting(10 + at as u32) };
        queue.push(&state(user), part, 0).expect("there is room");
    }
    // The channel's events and the users do not wait for each other.
    assert_eq!(next(&mut queue, 0), Some((1, vec![1])));
    let pack = queue.next(0).expect("a state");
    assert_eq!((pack.number, pack.state, pack.ttl_s), (2, state("ada").state.as_ref(), None));
    assert_eq!(pack.parts, [12u32.to_le_bytes()], "in place of the first one");
    assert_eq!(next(&mut queue, 0), Some((3, vec![11])));
    // One of a subject is under way at a time, and a state may have no lifetime.
    for ack in [13, 14] {
        let part = QueuedEvent { ttl_s: None, ack: None, ..waiting(ack) };
        queue.push(&state("ada"), part, 0).expect("there is room");
    }
    assert_eq!(next(&mut queue, 0), None);
    assert_eq!(stored(&mut queue, 2), [0; 0]);
    let pack = queue.next(0).expect("the state that waited");
    assert_eq!((pack.ttl_s, pack.parts.len(), pack.parts[0][0]), (None, 1, 14));
    let failed = queue.tick(8000);
    let keys: Vec<QueueKey> = failed.into_iter().map(|(_, key, _)| key).collect();
    assert_eq!(keys.len(), 3);
    assert!([channel("a"), state("ada"), state("bob")].iter().all(|it| keys.contains(it)));
    assert!(queue.is_empty() && queue.bytes() == 0);
}

#[test]
fn cluster_queue_drops_states_and_keeps_events() {
    let mut queue = queue(&[("a", 1), ("b", 2)]);
    for user in ["ada", "bob"] {
        queue.push(&state(user), waiting(9), 0).expect("there is room");
    }
    assert_eq!(next(&mut queue, 0), Some((1, vec![1])));
    assert_eq!(stored(&mut queue, 1), [1]);
    assert_eq!(next(&mut queue, 0), Some((2, vec![2])));
    assert_eq!(next(&mut queue, 0), Some((3, vec![9])));
    queue.push(&state("ada"), waiting(9), 0).expect("there is room");
    queue.drop_states();
    assert_eq!(stored(&mut queue, 3), [0; 0], "nobody waits for it");
    assert_eq!(next(&mut queue, 0), None);
    assert_eq!(stored(&mut queue, 2), [2]);
    assert!(queue.is_empty() && queue.bytes() == 0 && queue.in_flight == 0);
}

#[test]
fn cluster_queue_packs_have_bounds() {
    let mut queue = AppendQueue::new(QueueLimits { hold_bytes: usize::MAX, ..LIMITS });
    for ack in 0..65 {
        queue.push(&channel("a"), waiting(ack), 0).expect("there is room");
    }
    assert_eq!(next(&mut queue, 0).map(|(_, acks)| acks.len()), Some(64));
    queue.stored(1);
    assert_eq!(next(&mut queue, 0).map(|(_, acks)| acks.len()), Some(1));
    queue.stored(2);
    let large = |ack| QueuedEvent {
        part: vec![0; PACK_BYTES / 2],
        key: None,
        ttl_s: Some(60),
        ack: Some(ack),
    };
    (0..3).for_each(|ack| queue.push(&channel("a"), large(ack), 0).expect("there is room"));
    let sizes: Vec<usize> = (3..6)
        .map(|number| {
            let parts = queue.next(0).map_or(0, |pack| pack.parts.len());
            queue.stored(number);
            parts
        })
        .collect();
    assert_eq!(sizes, [1, 1, 1], "each has more than half of the bytes");
}

/// The numbers of events of the entries that these sizes of events make one after the other.
fn packs_of(max_entry: usize, sizes: &[usize]) -> Vec<usize> {
    let mut queue = AppendQueue::new(QueueLimits { hold_bytes: usize::MAX, ..LIMITS });
    queue.set_max_entry(max_entry);
    for bytes in sizes {
        let part = vec![0; bytes - EVENT_BYTES];
        let event = QueuedEvent { part, key: None, ttl_s: Some(60), ack: Some(0) };
        queue.push(&channel("a"), event, 0).expect("there is room");
    }
    let mut packs = Vec::new();
    while let Some(pack) = queue.next(0) {
        let (number, count) = (pack.number, pack.parts.len());
        packs.push(count);
        queue.stored(number);
    }
    packs
}

#[test]
fn cluster_queue_packs_have_at_most_half_of_what_the_engine_accepts() {
    assert_eq!(packs_of(20_000, &[5000, 5000, 5000]), [2, 1]);
    assert_eq!(packs_of(19_999, &[5000, 5000, 5000]), [1, 1, 1]);
    assert_eq!(packs_of(30_000, &[5000, 5000, 5000]), [3]);
    // A larger event is tried alone, and delays no other one.
    assert_eq!(packs_of(10_000, &[2000, 8000, 2000, 2000, 20_000]), [1, 1, 2, 1]);
    assert_eq!(packs_of(0, &[200, 200]), [1, 1]);
    // The bound is that of all engines if they accept more.
    let half = PACK_BYTES / 2;
    assert_eq!(packs_of(usize::MAX, &[half, half, half]), [2, 1]);
    assert_eq!(packs_of(2 * PACK_BYTES, &[half, half + 1]), [1, 1]);
}

/// An event, or a state, of so many bytes in the queue.
fn of_size(bytes: usize) -> QueuedEvent<u32> {
    let part = vec![0; bytes - EVENT_BYTES];
    QueuedEvent { part, key: None, ttl_s: Some(60), ack: Some(0) }
}

#[test]
fn cluster_queue_has_a_bound_in_bytes() {
    let mut queue = AppendQueue::new(LIMITS);
    let push = |queue: &mut AppendQueue<u32>, key: &QueueKey, bytes| {
        let is_taken = queue.push(key, of_size(bytes), 0).is_ok();
        (is_taken, queue.bytes())
    };
    // Events have seven eighths.
    assert_eq!(push(&mut queue, &channel("a"), 8751), (false, 0));
    assert_eq!(push(&mut queue, &channel("a"), 8650), (true, 8650));
    assert_eq!(push(&mut queue, &channel("b"), 101), (false, 8650));
    assert_eq!(push(&mut queue, &channel("b"), 100), (true, 8750));
    assert_eq!(push(&mut queue, &channel("c"), EVENT_BYTES), (false, 8750));
    // States have the rest, too.
    assert_eq!(push(&mut queue, &state("ada"), 1251), (false, 8750));
    assert_eq!(push(&mut queue, &state("ada"), 1150), (true, 9900));
    assert_eq!(push(&mut queue, &state("bob"), 100), (true, 10_000));
    assert_eq!(push(&mut queue, &state("eve"), EVENT_BYTES), (false, 10_000));
    // What is stored has left room.
    assert_eq!(queue.next(0).map(|pack| pack.number), Some(1));
    queue.stored(1);
    assert_eq!(push(&mut queue, &state("eve"), EVENT_BYTES), (true, 1350 + EVENT_BYTES));
    assert_eq!(push(&mut queue, &channel("c"), 7400 - EVENT_BYTES), (true, 8750));
}

#[test]
fn cluster_queue_has_a_bound_in_bytes_of_what_waits_for_one_channel() {
    let mut queue = AppendQueue::new(LIMITS);
    let push = |queue: &mut AppendQueue<u32>, name: &str, bytes| {
        queue.push(&channel(name), of_size(bytes), 0).is_ok()
    };
    // What is under way is not counted.
    assert!(push(&mut queue, "a", 1000));
    assert_eq!(queue.next(0).map(|pack| (pack.number, pack.parts.len())), Some((1, 1)));
    // Half of all.
    assert!(push(&mut queue, "a", 4900) && !push(&mut queue, "a", 101));
    assert!(push(&mut queue, "a", 100) && !push(&mut queue, "a", EVENT_BYTES));
    assert!(push(&mut queue, "b", 2750), "another channel has its own share");
    // What fails is not counted any more.
    queue.lost();
    assert!(!push(&mut queue, "a", EVENT_BYTES), "it is sent again without another event");
    queue.tick(8000);
    assert!(queue.is_empty() && queue.bytes() == 0);
    // One event is taken alone, whatever its size.
    assert!(push(&mut queue, "a", 6000) && !push(&mut queue, "a", EVENT_BYTES));
    assert_eq!(queue.next(8000).map(|pack| pack.parts.len()), Some(1));
    assert!(push(&mut queue, "a", 2750));
    // A state takes nothing of the share of the channel, and has none itself.
    queue.stored(2);
    assert!(queue.push(&state("ada"), of_size(1000), 8000).is_ok());
    assert!(push(&mut queue, "a", 2250) && !push(&mut queue, "a", EVENT_BYTES));
    assert!(queue.push(&state("ada"), of_size(2000), 8000).is_ok());
    assert!(queue.push(&state("ada"), of_size(2000), 8000).is_ok());
    queue.tick(16_000);
    assert!(queue.is_empty() && queue.bytes() == 0);
}

#[test]
fn cluster_queue_has_a_bound_of_entries_under_way() {
    let mut queue = queue(&[("a", 1), ("b", 2), ("c", 3)]);
    assert!(next(&mut queue, 0).is_some() && next(&mut queue, 0).is_some());
    assert_eq!(next(&mut queue, 0), None);
    queue.stored(1);
    assert_eq!(next(&mut queue, 0), Some((3, vec![3])));
}

#[test]
fn cluster_queue_sends_again_what_is_not_answered() {
    let mut queue = queue(&[("a", 1)]);
    assert_eq!(next(&mut queue, 0), Some((1, vec![1])));
    assert_eq!((queue.tick(1999).len(), next(&mut queue, 1999)), (0, None));
    assert_eq!((queue.tick(2000).len(), next(&mut queue, 2000)), (0, Some((1, vec![1]))));
    queue.lost();
    assert_eq!(next(&mut queue, 2001), Some((1, vec![1])), "again after a lost connection");
}

#[test]
fn cluster_queue_outcome_of_each_fault() {
    // Never sent.
    let mut never = queue(&[("a", 1)]);
    assert_eq!(outcomes(never.tick(7999)), []);
    assert_eq!(outcomes(never.tick(8000)), [(1, Unpublished::Refused)]);
    assert!(never.is_empty() && never.bytes() == 0);
    // Refused each time.
    let mut refused = queue(&[("a", 1)]);
    for now_ms in [0, 100, 200] {
        refused.tick(now_ms);
        assert!(next(&mut refused, now_ms).is_some());
        assert_eq!(outcomes(refused.refused(1, true, now_ms)), []);
        assert_eq!(next(&mut refused, now_ms), None, "not at once");
    }
    assert_eq!(outcomes(refused.tick(8000)), [(1, Unpublished::Refused)]);
    // Refused for good.
    let mut full = queue(&[("a", 1)]);
    next(&mut full, 0);
    assert_eq!(outcomes(full.refused(1, false, 0)), [(1, Unpublished::Refused)]);
    // Not answered.
    let mut silent = queue(&[("a", 1)]);
    next(&mut silent, 0);
    assert_eq!(outcomes(silent.tick(8000)), [(1, Unpublished::Unknown)]);
    // Not answered once, and then refused for good.
    let mut unsure = queue(&[("a", 1)]);
    next(&mut unsure, 0);
    unsure.tick(2000);
    next(&mut unsure, 2000);
    assert_eq!(outcomes(unsure.refused(1, false, 2001)), [(1, Unpublished::Unknown)]);
}

/// Entries that are given up cost no more than those that were never sent, however many wait.
#[test]
fn cluster_queue_gives_many_entries_up_at_once() {
    const COUNT: u32 = 10_000;
    let limits = QueueLimits { hold_bytes: usize::MAX, in_flight: COUNT as usize, ..LIMITS };
    let took = |is_sent: bool| {
        let mut queue = AppendQueue::new(limits);
        for ack in 0..COUNT {
            queue.push(&channel(&ack.to_string()), waiting(ack), 0).expect("there is room");
        }
        while is_sent && queue.next(0).is_some() {}
        queue.lost();
        let begun = std::time::Instant::now();
        assert_eq!(queue.tick(8000).len(), COUNT as usize);
        assert!(queue.is_empty() && queue.ready.is_empty() && queue.in_flight == 0);
        begun.elapsed()
    };
    // On a busy machine a round may stand still for much longer than it takes.
    let best = |is_sent| (0..5).map(|_| took(is_sent)).min().expect("five rounds");
    let (waited, sent) = (best(false), best(true));
    assert!(sent < 40 * waited, "{sent:?} against {waited:?}");
}

/// A channel that was ready before is sent once, at its turn.
#[test]
fn cluster_queue_sends_a_channel_once_that_was_ready_before() {
    let mut queue = queue(&[("a", 1), ("b", 2)]);
    assert_eq!(next(&mut queue, 0), Some((1, vec![1])));
    queue.push(&channel("a"), waiting(3), 0).expect("there is room");
    queue.lost();
    // The answer to the first attempt comes although it was lost.
    assert_eq!(stored(&mut queue, 1), [1]);
    assert_eq!(queue.ready.len(), 2, "no channel is listed twice");
    queue.push(&channel("a"), waiting(4), 0).expect("there is room");
    assert_eq!(next(&mut queue, 0), Some((2, vec![2])));
    assert_eq!(next(&mut queue, 0), Some((3, vec![3, 4])));
    assert_eq!((next(&mut queue, 0), queue.in_flight), (None, 2));
    // A channel that was removed and comes back is listed twice until the next tick.
    queue.lost();
    assert_eq!(stored(&mut queue, 2), [2]);
    queue.push(&channel("b"), waiting(5), 0).expect("there is room");
    assert_eq!(queue.ready.len(), 3);
    queue.tick(100);
    assert_eq!(queue.ready.len(), 2);
    let mut both = [next(&mut queue, 100), next(&mut queue, 100)].map(|it| it.expect("an entry"));
    both.sort_unstable();
    assert_eq!(both, [(3, vec![3, 4]), (4, vec![5])]);
    assert_eq!(next(&mut queue, 100), None);
}

/// The acknowledgement that stands for the end of a member of a channel, without the number of
/// events before it and the channel's number times 256.
const END: u32 = 1 << 16;

/// What can happen between the queue and the engine.
#[derive(Clone, Copy, Debug)]
enum Step {
    Push(u8),
    /// A member of the channel joins or leaves.
    Join(u8),
    Leave(u8),
    Send,
    /// The engine takes the oldest entry on its way, and its answer arrives, or is lost.
    Store(bool),
    /// The engine refuses it, for now or for good.
    Refuse(bool),
    /// The connection is lost, with or without what is on its way.
    Lose(bool),
    Wait(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3u8).prop_map(Step::Push),
        1 => (0..3u8).prop_map(Step::Join),
        2 => (0..3u8).prop_map(Step::Leave),
        4 => Just(Step::Send),
        3 => any::<bool>().prop_map(Step::Store),
        1 => any::<bool>().prop_map(Step::Refuse),
        1 => any::<bool>().prop_map(Step::Lose),
        2 => (1..200u16).prop_map(Step::Wait),
        2 => (1..3000u16).prop_map(Step::Wait),
    ]
}

/// The engine, and what the publishers have got for an answer.
#[derive(Default)]
struct Model {
    on_the_way: VecDeque<(u64, Vec<u32>)>,
    stored: BTreeSet<u64>,
    log: Vec<u32>,
    pushed: u32,
    outcomes: BTreeMap<u32, Option<Unpublished>>,
    /// When each end was added, and those that were sent when they had waited for long enough.
    ends: BTreeMap<u32, u64>,
    late_ends: BTreeSet<u32>,
    now_ms: u64,
}

impl Model {
    fn record(&mut self, ack: u32, outcome: Option<Unpublished>) {
        assert!(self.outcomes.insert(ack, outcome).is_none(), "{ack} has two outcomes");
    }

    fn run(&mut self, step: Step, queue: &mut AppendQueue<u32>) {
        match step {
            Step::Push(name) => {
                self.pushed += 1;
                let ack = self.pushed;
                let pushed = queue.push(&channel(&name.to_string()), waiting(ack), self.now_ms);
                if pushed.is_err() {
                    self.record(ack, Some(Unpublished::Refused));
                }
            }
            Step::Join(name) | Step::Leave(name) => {
                let is_end = matches!(step, Step::Leave(_));
                let ack = END + u32::from(name) * 256 + self.pushed;
                let ack = if is_end { ack } else { 2 * END };
                let ttl_s = is_end.then_some(60);
                let key = QueueKey { state: state("ada").state, ..channel(&name.to_string()) };
                let part = QueuedEvent { ttl_s, ack: None, ..waiting(ack) };
                self.ends.insert(ack, self.now_ms);
                // One that is refused is stated again.
                let _ = queue.push(&key, part, self.now_ms);
            }
            Step::Send => {
                let Some((number, acks)) = next(queue, self.now_ms) else { return };
                let is_late = |it: &&u32| self.ends[it] + END_WAIT_MS <= self.now_ms;
                let ends = acks.iter().filter(|it| **it >= END);
                self.late_ends.extend(ends.filter(is_late));
                self.on_the_way.push_back((number, acks));
            }
            Step::Store(is_answered) => {
                let Some((number, acks)) = self.on_the_way.pop_front() else { return };
                if self.stored.insert(number) {
                    self.log.extend(acks);
                }
                if is_answered {
                    stored(queue, number).into_iter().for_each(|ack| self.record(ack, None));
                }
            }
            Step::Refuse(again) => {
                let Some((number, _)) = self.on_the_way.pop_front() else { return };
                if self.stored.contains(&number) {
                    // The engine knows that it has this one.
                    return stored(queue, number)
                        .into_iter()
                        .for_each(|ack| self.record(ack, None));
                }
                let failed = outcomes(queue.refused(number, again, self.now_ms));
                failed.into_iter().for_each(|(ack, why)| self.record(ack, Some(why)));
            }
            Step::Lose(with_all) => {
                if with_all {
                    self.on_the_way.clear();
                }
                queue.lost();
            }
            Step::Wait(ms) => {
                self.now_ms += u64::from(ms);
                let failed = outcomes(queue.tick(self.now_ms));
                failed.into_iter().for_each(|(ack, why)| self.record(ack, Some(why)));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Each event has one outcome, which is true of the log, and those that are acknowledged stand
    /// in the log in the order in which they were published on their channel, before the ends of
    /// members that came after them, unless an end has waited for half a second.
    #[test]
    fn cluster_queue_outcomes_are_true(steps in prop::collection::vec(step(), 1..120)) {
        let mut queue = AppendQueue::new(QueueLimits { hold_bytes: 4000, ..LIMITS });
        let (mut model, mut channels) = (Model::default(), BTreeMap::new());
        for step in steps {
            model.run(step, &mut queue);
            if let Step::Push(name) = step {
                channels.insert(model.pushed, name);
            }
            prop_assert!(queue.bytes() <= 4000);
            let waits = queue.channels.values().map(|it| (it.waiting_bytes, &it.waiting));
            for (bytes, waiting) in waits {
                prop_assert_eq!(bytes, waiting.iter().map(Event::bytes).sum::<usize>());
                prop_assert!(bytes <= 2000);
            }
        }
        // What is on its way arrives at last, and the rest is given up.
        while !model.on_the_way.is_empty() {
            model.run(Step::Store(false), &mut queue);
        }
        model.run(Step::Wait(8000), &mut queue);
        prop_assert!(queue.is_empty() && queue.bytes() == 0);
        prop_assert_eq!(model.outcomes.len(), model.pushed as usize);
        let count = |ack: u32| model.log.iter().filter(|it| **it == ack).count();
        for (ack, outcome) in &model.outcomes {
            match outcome {
                None => prop_assert_eq!(count(*ack), 1),
                Some(Unpublished::Refused) => prop_assert_eq!(count(*ack), 0),
                Some(Unpublished::Unknown) => prop_assert!(count(*ack) <= 1),
                Some(Unpublished::KeyUsed) => prop_assert!(false, "the queue knows no keys"),
            }
        }
        for name in 0..3u32 {
            let is_acknowledged =
                |ack: &&u32| u32::from(channels[*ack]) == name && model.outcomes[*ack].is_none();
            let before = |it: &u32| it % 256;
            let is_in_time = |it: &u32| !model.late_ends.contains(it);
            let is_end = |it: &u32| {
                (END..2 * END).contains(it) && it % END / 256 == name && is_in_time(it)
            };
            for (at, end) in model.log.iter().enumerate().filter(|(_, it)| is_end(it)) {
                let later = model.log[at..].iter().filter(|it| **it < END);
                prop_assert!(later.filter(is_acknowledged).all(|it| *it > before(end)));
            }
            let events = model.log.iter().filter(|it| **it < END);
            prop_assert!(events.filter(is_acknowledged).is_sorted());
        }
    }
}
