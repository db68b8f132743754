//! The ends of members, which wait for the events of their channel that were added before.

use super::*;

const MANY: QueueLimits = QueueLimits { in_flight: 9, hold_bytes: 1 << 20, ..LIMITS };

fn end(ack: u32) -> QueuedEvent<u32> {
    QueuedEvent { ack: None, ..waiting(ack) }
}

fn join(ack: u32) -> QueuedEvent<u32> {
    QueuedEvent { ttl_s: None, ..end(ack) }
}

/// A queue whose entry 1 has event 1 of channel `a` and is under way.
fn with_event() -> AppendQueue<u32> {
    let mut queue = AppendQueue::new(MANY);
    push(&mut queue, &channel("a"), waiting(1), 0);
    assert_eq!(next(&mut queue, 0), Some((1, vec![1])));
    queue
}

fn push(queue: &mut AppendQueue<u32>, key: &QueueKey, what: QueuedEvent<u32>, now_ms: u64) {
    queue.push(key, what, now_ms).expect("there is room");
}

/// All events and states that can be sent now, entry by entry.
fn sent(queue: &mut AppendQueue<u32>, now_ms: u64) -> Vec<Vec<u32>> {
    std::iter::from_fn(|| Some(next(queue, now_ms)?.1)).collect()
}

fn ends_of(queue: &AppendQueue<u32>) -> usize {
    queue.channels.values().map(|it| it.ends.len()).sum()
}

#[test]
fn cluster_queue_end_of_a_member_waits_for_the_events_before_it() {
    let mut queue = with_event();
    push(&mut queue, &channel("a"), waiting(2), 0);
    push(&mut queue, &state("ada"), end(10), 0);
    push(&mut queue, &channel("a"), waiting(3), 0);
    // Neither a join, nor a number, nor the end of a member of another channel waits.
    push(&mut queue, &state("bob"), join(11), 0);
    push(&mut queue, &QueueKey { state: Some(StateSubject::Count), ..channel("a") }, end(12), 0);
    push(&mut queue, &QueueKey { state: state("ada").state, ..channel("b") }, end(13), 0);
    assert_eq!(sent(&mut queue, 0), [[11], [12], [13]]);
    assert!((1..5).all(|number| queue.has(number)) && !queue.has_state(5));
    queue.stored(1);
    assert_eq!(sent(&mut queue, 0), [[2, 3]], "of the two it waits for the first");
    queue.stored(5);
    assert_eq!(sent(&mut queue, 0), [[10]]);
    assert!(queue.has_state(6) && ends_of(&queue) == 0);
    (2..7).for_each(|number| drop(queue.stored(number)));
    assert!(queue.is_empty() && queue.bytes() == 0 && queue.in_flight == 0);
}

#[test]
fn cluster_queue_end_of_a_member_waits_for_nothing_else() {
    let mut queue = AppendQueue::new(MANY);
    push(&mut queue, &state("ada"), end(10), 0);
    assert_eq!(sent(&mut queue, 0), [[10]], "there was no event");
    let mut queue = with_event();
    queue.stored(1);
    push(&mut queue, &state("ada"), end(10), 0);
    assert_eq!(sent(&mut queue, 0), [[10]], "all events are stored");
    let mut queue = with_event();
    push(&mut queue, &state("ada"), end(10), 0);
    push(&mut queue, &channel("a"), waiting(2), 0);
    queue.stored(1);
    assert_eq!(sent(&mut queue, 0), [[2], [10]], "a later event is not waited for");
    // Events that come later do not prolong this, even if one entry has earlier ones, too.
    let mut queue = with_event();
    let push_70 = |queue: &mut AppendQueue<u32>| {
        (0..70).for_each(|_| push(queue, &channel("a"), waiting(2), 0));
    };
    push_70(&mut queue);
    push(&mut queue, &state("ada"), end(10), 0);
    for (number, sizes) in [(1, vec![64]), (2, vec![64]), (3, vec![64, 1])] {
        push_70(&mut queue);
        queue.stored(number);
        assert_eq!(sent(&mut queue, 0).iter().map(Vec::len).collect::<Vec<_>>(), sizes);
    }
    assert!(queue.has_state(5));
}

#[test]
fn cluster_queue_end_of_a_member_outlives_events_that_fail() {
    // Refused for good.
    let mut queue = with_event();
    push(&mut queue, &state("ada"), end(10), 0);
    assert_eq!(outcomes(queue.refused(1, false, 0)), [(1, Unpublished::Refused)]);
    assert_eq!(sent(&mut queue, 0), [[10]]);
    // Refused for now, and lost: it is sent again, and waited for.
    let mut queue = with_event();
    push(&mut queue, &state("ada"), end(10), 0);
    queue.refused(1, true, 0);
    assert_eq!(sent(&mut queue, 0), [[0; 0]; 0]);
    queue.tick(100);
    assert_eq!(sent(&mut queue, 100), [[1]]);
    queue.lost();
    assert_eq!(sent(&mut queue, 100), [[1]]);
    // Given up after hold_ms, whether it is under way or was never sent.
    for is_sent in [true, false] {
        let mut queue = if is_sent { with_event() } else { AppendQueue::new(MANY) };
        if !is_sent {
            push(&mut queue, &channel("a"), waiting(1), 0);
        }
        push(&mut queue, &state("ada"), end(10), 7900);
        assert_eq!(outcomes(queue.tick(7999)), []);
        let why = if is_sent { Unpublished::Unknown } else { Unpublished::Refused };
        assert_eq!(outcomes(queue.tick(8000)), [(1, why)]);
        assert_eq!((ends_of(&queue), sent(&mut queue, 8000)), (0, vec![vec![10]]));
    }
}

/// The core has a limited number of states under way, and the user may come back.
#[test]
fn cluster_queue_end_of_a_member_waits_for_half_a_second_at_most() {
    let mut queue = with_event();
    push(&mut queue, &state("ada"), end(10), 100);
    push(&mut queue, &state("bob"), end(11), 101);
    queue.tick(599);
    assert_eq!((ends_of(&queue), sent(&mut queue, 599)), (2, vec![]));
    queue.tick(600);
    assert_eq!((ends_of(&queue), sent(&mut queue, 600)), (1, vec![vec![10]]));
    queue.tick(601);
    assert_eq!((ends_of(&queue), sent(&mut queue, 601)), (0, vec![vec![11]]));
    (1..4).for_each(|number| drop(queue.stored(number)));
    assert!(queue.is_empty() && queue.bytes() == 0 && queue.in_flight == 0);
}

#[test]
fn cluster_queue_end_of_a_member_that_waits_is_replaced() {
    let mut queue = with_event();
    for _ in 0..100 {
        push(&mut queue, &state("ada"), end(10), 0);
    }
    assert_eq!((ends_of(&queue), queue.bytes()), (1, 2 * (4 + EVENT_BYTES)));
    // A join in its place waits for nothing.
    push(&mut queue, &state("ada"), join(11), 0);
    assert_eq!((ends_of(&queue), sent(&mut queue, 0)), (0, vec![vec![11]]));
    // The next end waits for this join, and for the event.
    push(&mut queue, &state("ada"), end(12), 0);
    assert_eq!(sent(&mut queue, 0), [[0; 0]; 0]);
    queue.stored(2);
    assert_eq!(sent(&mut queue, 0), [[0; 0]; 0]);
    // Another one in its place waits for the events before that one.
    push(&mut queue, &channel("a"), waiting(2), 0);
    push(&mut queue, &state("ada"), end(13), 0);
    queue.stored(1);
    assert_eq!(sent(&mut queue, 0), [[2]]);
    queue.stored(3);
    assert_eq!(sent(&mut queue, 0), [[13]]);
    // An end that is free before its join is stored follows that.
    let mut queue = with_event();
    push(&mut queue, &state("ada"), join(11), 0);
    assert_eq!(sent(&mut queue, 0), [[11]]);
    push(&mut queue, &state("ada"), end(12), 0);
    queue.stored(1);
    assert_eq!(sent(&mut queue, 0), [[0; 0]; 0]);
    queue.stored(2);
    assert_eq!(sent(&mut queue, 0), [[12]]);
}

#[test]
fn cluster_queue_drops_ends_of_members_that_wait() {
    let mut queue = with_event();
    push(&mut queue, &state("ada"), end(10), 0);
    queue.drop_states();
    assert_eq!((ends_of(&queue), queue.bytes()), (0, 4 + EVENT_BYTES));
    push(&mut queue, &state("ada"), end(11), 0);
    assert_eq!(sent(&mut queue, 0), [[0; 0]; 0]);
    queue.stored(1);
    assert_eq!(sent(&mut queue, 0), [[11]]);
    queue.stored(2);
    assert!(queue.is_empty() && queue.bytes() == 0);
}
