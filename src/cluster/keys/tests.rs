//! Keys of the log, on both sides of each bound, and against a model.

use super::KeyDecision::{Publish, Repeated, Used};
use super::*;
use proptest::prelude::*;

const BEGIN_MS: u64 = 1_700_000_000_000;
const WIDE: KeyBounds = KeyBounds { keys: 1000, bytes: 1 << 20 };

fn event(key: u128, request: u128, index: u16) -> EventKey {
    EventKey { key, request, index }
}

/// Keys of a log whose last entry is of this time.
fn keys_at(ms: u64) -> LoggedKeys {
    let mut keys = LoggedKeys::default();
    keys.note_time(ms, 0);
    keys
}

#[test]
fn cluster_key_lets_each_event_of_its_request_take_effect_once() {
    let mut keys = keys_at(BEGIN_MS);
    for index in [0, 1, 63, 64, 127, 128, u16::MAX] {
        assert_eq!(keys.look_up(0, &event(1, 7, index), 0), None, "{index}");
        assert_eq!(keys.decide(0, &event(1, 7, index), WIDE), Publish, "{index}");
        assert_eq!(keys.decide(0, &event(1, 7, index), WIDE), Repeated, "{index}");
        assert_eq!(keys.look_up(0, &event(1, 7, index), 0), Some(Repeated), "{index}");
    }
    // The events between them are not there.
    for index in [2, 62, 65, 126, 129, u16::MAX - 1] {
        assert_eq!(keys.decide(0, &event(1, 7, index), WIDE), Publish, "{index}");
    }
    assert_eq!(keys.count(), 1);
    // Another key, and the same key of another application.
    assert_eq!(keys.decide(0, &event(2, 7, 0), WIDE), Publish);
    assert_eq!(keys.decide(1, &event(1, 7, 0), WIDE), Publish);
    assert_eq!(keys.count(), 3);
}

#[test]
fn cluster_key_belongs_to_the_request_that_the_log_has_first() {
    let mut keys = keys_at(BEGIN_MS);
    assert_eq!(keys.decide(0, &event(1, 7, 0), WIDE), Publish);
    for index in [0, 1, 64] {
        assert_eq!(keys.decide(0, &event(1, 8, index), WIDE), Used);
        assert_eq!(keys.look_up(0, &event(1, 8, index), 0), Some(Used));
    }
    assert_eq!(keys.decide(0, &event(1, 7, 1), WIDE), Publish, "its own further events");
}

#[test]
fn cluster_key_is_kept_for_two_minutes_of_the_log() {
    let over = BEGIN_MS + KEY_S * 1000;
    for (ms, decision) in [(over - 1, Repeated), (over, Publish)] {
        let mut keys = keys_at(BEGIN_MS);
        assert_eq!(keys.decide(0, &event(1, 7, 0), WIDE), Publish);
        // A repetition does not make it longer.
        keys.note_time(BEGIN_MS + 60_000, 0);
        assert_eq!(keys.decide(0, &event(1, 7, 0), WIDE), Repeated);
        keys.note_time(ms, 0);
        let known = (decision == Repeated).then_some(Repeated);
        assert_eq!(keys.look_up(0, &event(1, 7, 0), 0), known);
        assert_eq!(keys.decide(0, &event(1, 7, 0), WIDE), decision);
        assert_eq!(keys.count(), 1);
    }
    // Then another request may have it.
    let mut keys = keys_at(BEGIN_MS);
    keys.decide(0, &event(1, 7, 0), WIDE);
    keys.note_time(over, 0);
    assert_eq!(keys.decide(0, &event(1, 8, 0), WIDE), Publish);
    assert_eq!(keys.decide(0, &event(1, 7, 0), WIDE), Used);
}

/// While the engine is away no entry shows how its time goes on.
#[test]
fn cluster_key_is_looked_up_by_the_time_since_the_last_entry() {
    let mut keys = LoggedKeys::default();
    keys.note_time(BEGIN_MS, 5000);
    keys.decide(0, &event(1, 7, 0), WIDE);
    let over = 5000 + KEY_S * 1000;
    assert_eq!(keys.look_up(0, &event(1, 7, 0), over - 1), Some(Repeated));
    assert_eq!(keys.look_up(0, &event(1, 7, 0), over), None);
    // The log decides by its entries only.
    keys.note_time(BEGIN_MS + 1, over);
    assert_eq!(keys.decide(0, &event(1, 7, 0), WIDE), Repeated);
}

#[test]
fn cluster_key_is_known_with_another_log_and_ends_by_its_time() {
    let mut keys = keys_at(BEGIN_MS);
    keys.decide(0, &event(1, 7, 0), WIDE);
    keys.begin_log();
    // The clock of the other engine is late.
    keys.note_time(BEGIN_MS - 50_000, 0);
    assert_eq!(keys.decide(0, &event(1, 7, 0), WIDE), Repeated);
    assert_eq!(keys.decide(0, &event(2, 7, 0), WIDE), Publish);
    // The second one has come later and ends earlier.
    keys.note_time(BEGIN_MS - 50_000 + KEY_S * 1000, 0);
    assert_eq!(keys.decide(0, &event(2, 7, 0), WIDE), Publish);
    assert_eq!(keys.decide(0, &event(1, 7, 0), WIDE), Repeated);
    keys.note_time(BEGIN_MS + KEY_S * 1000, 0);
    keys.expire();
    assert_eq!(keys.look_up(0, &event(1, 7, 0), 0), None);
    assert_eq!(keys.count(), 1);
}

/// The engine's clock was an hour ahead for a moment.
#[test]
fn cluster_key_lives_as_long_as_others_after_the_clock_was_ahead() {
    let mut keys = keys_at(BEGIN_MS);
    keys.note_time(BEGIN_MS + 3_600_000, 0);
    assert_eq!(keys.decide(0, &event(1, 7, 0), WIDE), Publish);
    keys.note_time(BEGIN_MS + 1000, 0);
    assert_eq!(keys.decide(0, &event(1, 7, 0), WIDE), Repeated, "it was published a moment ago");
    assert_eq!(keys.decide(0, &event(2, 7, 0), WIDE), Publish);
    let over = BEGIN_MS + 1000 + KEY_S * 1000;
    for (ms, decision) in [(over - 1, Repeated), (over, Publish)] {
        keys.note_time(ms, 0);
        for key in 1..=2 {
            assert_eq!(keys.decide(0, &event(key, 7, 0), WIDE), decision, "{key}");
        }
    }
}

/// The clocks of several servers of the engine differ a little.
#[test]
fn cluster_key_time_does_not_go_back_by_a_little() {
    for (back_ms, decision) in [(CLOCKS_MS, Publish), (CLOCKS_MS + 1, Repeated)] {
        let mut keys = keys_at(BEGIN_MS);
        keys.decide(0, &event(1, 7, 0), WIDE);
        keys.note_time(BEGIN_MS + KEY_S * 1000, 0);
        keys.note_time(BEGIN_MS + KEY_S * 1000 - back_ms, 0);
        assert_eq!(keys.decide(0, &event(1, 7, 0), WIDE), decision, "{back_ms}");
    }
}

#[test]
fn cluster_key_number_of_keys_is_bounded_and_the_oldest_goes_first() {
    let bounds = KeyBounds { keys: 3, ..WIDE };
    let mut keys = keys_at(BEGIN_MS);
    for key in 1..=3 {
        assert_eq!(keys.decide(0, &event(key, 7, 0), bounds), Publish);
    }
    assert_eq!((keys.count(), keys.take_dropped()), (3, 0));
    assert_eq!(keys.decide(0, &event(1, 7, 0), bounds), Repeated);
    assert_eq!(keys.decide(0, &event(4, 7, 0), bounds), Publish);
    assert_eq!((keys.count(), keys.take_dropped(), keys.take_dropped()), (3, 1, 0));
    assert_eq!(keys.decide(0, &event(2, 7, 0), bounds), Repeated);
    assert_eq!(keys.decide(0, &event(1, 7, 0), bounds), Publish, "it was the oldest");
    // A smaller bound after a reload; 0 is as 1.
    let none = KeyBounds { keys: 0, ..WIDE };
    assert_eq!(keys.decide(0, &event(9, 7, 0), none), Publish);
    assert_eq!((keys.count(), keys.take_dropped()), (1, 4));
    assert_eq!(keys.decide(0, &event(9, 7, 0), none), Repeated);
    // Another application has a bound of its own.
    assert_eq!(keys.decide(1, &event(1, 7, 0), none), Publish);
    assert_eq!(keys.count(), 2);
}

#[test]
fn cluster_key_memory_of_requests_with_many_events_is_bounded() {
    // Each has one word besides the first.
    let bounds = KeyBounds { bytes: 16, ..WIDE };
    let mut keys = keys_at(BEGIN_MS);
    let empty = keys.bytes();
    for key in 1..=2 {
        assert_eq!(keys.decide(0, &event(key, 7, 127), bounds), Publish);
    }
    assert_eq!((keys.count(), keys.take_dropped()), (2, 0));
    assert_eq!(keys.bytes(), empty + 2 * KEY_BYTES + 16);
    assert_eq!(keys.decide(0, &event(3, 7, 63), bounds), Publish, "it needs no further word");
    assert_eq!(keys.take_dropped(), 0);
    assert_eq!(keys.decide(0, &event(4, 7, 64), bounds), Publish);
    assert_eq!((keys.count(), keys.take_dropped()), (3, 1));
    assert_eq!(keys.decide(0, &event(1, 7, 127), bounds), Publish, "it was the oldest");
    // One that is larger than all may be is not kept, nor is anything else.
    assert_eq!(keys.decide(0, &event(5, 7, 192), bounds), Publish);
    assert_eq!((keys.count(), keys.bytes()), (0, empty));
    assert_eq!(keys.decide(0, &event(5, 7, 192), bounds), Publish);
}

#[test]
fn cluster_key_memory_ends_with_the_time_of_the_keys() {
    let mut keys = keys_at(BEGIN_MS);
    for key in 0..EXPIRED_AT_ONCE as u128 + 1 {
        let bounds = KeyBounds { keys: usize::MAX, ..WIDE };
        assert_eq!(keys.decide(0, &event(key, 7, 64), bounds), Publish);
    }
    keys.note_time(BEGIN_MS + KEY_S * 1000 - 1, 0);
    keys.expire();
    assert_eq!(keys.count(), EXPIRED_AT_ONCE + 1);
    keys.note_time(BEGIN_MS + KEY_S * 1000, 0);
    keys.expire();
    assert_eq!(keys.count(), 1, "some at a time");
    keys.expire();
    assert_eq!((keys.count(), keys.bytes(), keys.apps.len(), keys.take_dropped()), (0, 0, 0, 0));
}

proptest! {
    /// A node that starts has the entries that the log still keeps, and decides as the others do:
    /// on an event that was published, a repetition, and a publish after the key's time.
    #[test]
    fn cluster_key_decisions_are_those_of_a_node_that_starts_later(
        repeated_ms in 0..KEY_S * 1000,
        again_ms in 0u64..600_000,
        started_ms in 0u64..600_000,
    ) {
        let times = [0, repeated_ms, repeated_ms + again_ms];
        let (mut all, mut late) = (LoggedKeys::default(), LoggedKeys::default());
        for ms in times {
            let decide = |keys: &mut LoggedKeys| {
                keys.note_time(BEGIN_MS + ms, 0);
                keys.decide(0, &event(1, 7, 0), WIDE)
            };
            let decision = decide(&mut all);
            // The log has removed what is older when the node starts.
            if ms + KEPT_LONGER_S * 1000 > started_ms {
                let other = decide(&mut late);
                // What was stored before that has no effect there any more.
                prop_assert!(decision == other || ms < started_ms, "{ms}: {decision:?} {other:?}");
            }
        }
    }
}
