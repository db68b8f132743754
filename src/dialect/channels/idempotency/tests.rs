//! Tests of the idempotency keys, on both sides of each bound.

use super::*;
use crate::codec::json::Scratch;

const WIDE: Bounds = Bounds { keys: 1000, bytes: 1 << 20 };
const BEGIN_MS: u64 = 1_000_000;

fn keys() -> Arc<IdempotencyKeys> {
    Arc::new(IdempotencyKeys::new(Arc::default()))
}

fn reply(len: usize) -> HttpReply {
    HttpReply { status: 200, body: Cow::Owned(vec![b'x'; len]), allow: None }
}

/// The first request with a key.
fn first(keys: &Arc<IdempotencyKeys>, key: u128, now_ms: u64, bounds: Bounds) -> FirstRequest {
    match keys.look_up(key, 1, now_ms, bounds) {
        KeyLookup::First(first) => first,
        other => panic!("{key}: {other:?}"),
    }
}

fn is_replay(keys: &Arc<IdempotencyKeys>, key: u128, now_ms: u64, bounds: Bounds) -> bool {
    match keys.look_up(key, 1, now_ms, bounds) {
        KeyLookup::Replay(_) => true,
        // It is dropped without an answer, so the key is removed again.
        KeyLookup::First(_) => false,
        other => panic!("{key}: {other:?}"),
    }
}

#[test]
fn idempotency_key_is_kept_for_two_minutes_from_its_first_request() {
    for (after_ms, replayed) in [(0, true), (119_999, true), (120_000, false), (500_000, false)] {
        let keys = keys();
        let begun = first(&keys, 7, BEGIN_MS, WIDE);
        begun.complete(&reply(3));
        match keys.look_up(7, 1, BEGIN_MS + after_ms, WIDE) {
            KeyLookup::Replay(found) => assert!(replayed && found == reply(3), "{after_ms}"),
            KeyLookup::First(_) => assert!(!replayed, "{after_ms}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn idempotency_key_in_progress_and_of_another_request_are_refused() {
    let keys = keys();
    let begun = first(&keys, 7, BEGIN_MS, WIDE);
    assert!(matches!(keys.look_up(7, 1, BEGIN_MS, WIDE), KeyLookup::InProgress));
    assert!(matches!(keys.look_up(7, 2, BEGIN_MS, WIDE), KeyLookup::Mismatch));
    begun.complete(&reply(0));
    assert!(matches!(keys.look_up(7, 2, BEGIN_MS, WIDE), KeyLookup::Mismatch));
    assert!(is_replay(&keys, 7, BEGIN_MS, WIDE));
    let counts = keys.sweep(BEGIN_MS);
    assert_eq!((counts.replays, counts.refused, counts.keys), (1, 3, 1));
}

#[test]
fn idempotency_key_of_a_refused_request_is_free_again() {
    let keys = keys();
    drop(first(&keys, 7, BEGIN_MS, WIDE));
    assert_eq!(keys.sweep(BEGIN_MS), IdempotencyCounts::default());
    // Another body may follow.
    assert!(matches!(keys.look_up(7, 2, BEGIN_MS, WIDE), KeyLookup::First(_)));
}

/// The events are published, although nobody received the answer.
#[test]
fn idempotency_key_of_a_lost_connection_keeps_the_plain_answer() {
    let keys = keys();
    let mut begun = first(&keys, 7, BEGIN_MS, WIDE);
    begun.accept(reply(2));
    assert!(matches!(keys.look_up(7, 1, BEGIN_MS, WIDE), KeyLookup::InProgress));
    drop(begun);
    match keys.look_up(7, 1, BEGIN_MS, WIDE) {
        KeyLookup::Replay(found) => assert_eq!(found, reply(2)),
        other => panic!("{other:?}"),
    }
}

/// What was refused is not published, so its repetition must not be answered with success.
#[test]
fn idempotency_key_of_a_request_whose_events_were_refused_is_free_again() {
    let keys = keys();
    let mut begun = first(&keys, 7, BEGIN_MS, WIDE);
    begun.accept(reply(2));
    begun.refuse();
    assert!(matches!(keys.look_up(7, 2, BEGIN_MS, WIDE), KeyLookup::First(_)));
}

#[test]
fn idempotency_key_in_a_cluster_keeps_no_answer_before_the_log_has_decided() {
    let keys = keys();
    let mut begun = first(&keys, 7, BEGIN_MS, WIDE);
    assert_eq!(begun.event_key(1), None);
    begun.let_log_decide(8, 9);
    let key = Some(Box::new(EventKey { key: 8, request: 9, index: 1 }));
    assert_eq!(begun.event_key(1), key);
    // Its connection is lost.
    begun.accept(reply(2));
    drop(begun);
    let mut again = first(&keys, 7, BEGIN_MS, WIDE);
    again.let_log_decide(8, 9);
    again.accept(reply(2));
    again.complete(&reply(3));
    match keys.look_up(7, 1, BEGIN_MS, WIDE) {
        KeyLookup::Replay(found) => assert_eq!(found, reply(3)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn idempotency_key_in_a_log_is_one_of_its_application() {
    let digests = [("1", "k"), ("2", "k"), ("1", "l"), ("1k", ""), ("", "1k")]
        .map(|(app, key)| hash_logged_key(app, key.as_bytes()));
    let unique: std::collections::HashSet<u128> = digests.into_iter().collect();
    assert_eq!(unique.len(), digests.len());
}

#[test]
fn idempotency_number_of_keys_is_bounded_and_the_oldest_goes_first() {
    let bounds = Bounds { keys: 10, ..WIDE };
    let keys = keys();
    for key in 0..10 {
        first(&keys, key, BEGIN_MS, bounds).complete(&reply(0));
    }
    assert!((0..10).all(|key| is_replay(&keys, key, BEGIN_MS, bounds)));
    assert_eq!((keys.sweep(BEGIN_MS).keys, keys.sweep(BEGIN_MS).dropped), (10, 0));
    first(&keys, 10, BEGIN_MS, bounds).complete(&reply(0));
    assert_eq!((keys.sweep(BEGIN_MS).keys, keys.sweep(BEGIN_MS).dropped), (10, 1));
    assert!((1..=10).all(|key| is_replay(&keys, key, BEGIN_MS, bounds)));
    assert!(!is_replay(&keys, 0, BEGIN_MS, bounds));
}

#[test]
fn idempotency_bytes_of_answers_are_bounded() {
    let bounds = Bounds { bytes: 1000, ..WIDE };
    let keys = keys();
    for key in 0..10 {
        first(&keys, key, BEGIN_MS, bounds).complete(&reply(100));
    }
    assert_eq!((keys.sweep(BEGIN_MS).keys, keys.sweep(BEGIN_MS).dropped), (10, 0));
    first(&keys, 10, BEGIN_MS, bounds).complete(&reply(1));
    assert_eq!((keys.sweep(BEGIN_MS).keys, keys.sweep(BEGIN_MS).dropped), (10, 1));
    assert!(!is_replay(&keys, 0, BEGIN_MS, bounds) && is_replay(&keys, 1, BEGIN_MS, bounds));
    // An answer of the whole size displaces all others, a larger one none.
    first(&keys, 11, BEGIN_MS, bounds).complete(&reply(1001));
    assert_eq!(keys.sweep(BEGIN_MS).keys, 10);
    first(&keys, 12, BEGIN_MS, bounds).complete(&reply(1000));
    assert_eq!(keys.sweep(BEGIN_MS).keys, 1);
    assert!(is_replay(&keys, 12, BEGIN_MS, bounds));
}

#[test]
fn idempotency_answer_to_a_removed_request_is_not_given_to_its_successor() {
    let bounds = Bounds { keys: 1, ..WIDE };
    let keys = keys();
    let old = first(&keys, 7, BEGIN_MS, bounds);
    let other = first(&keys, 8, BEGIN_MS, bounds);
    let new = first(&keys, 7, BEGIN_MS, bounds);
    old.complete(&reply(1));
    drop(other);
    assert!(matches!(keys.look_up(7, 1, BEGIN_MS, bounds), KeyLookup::InProgress));
    new.complete(&reply(2));
    assert!(is_replay(&keys, 7, BEGIN_MS, bounds));
}

/// 10 000 new keys a second, five times as many as are kept: the number of keys, and the memory,
/// stay bounded.
#[test]
fn idempotency_flood_of_keys_stays_bounded() {
    let bounds = Bounds { keys: 20_000, bytes: 1 << 20 };
    let bytes = Arc::<AtomicUsize>::default();
    let keys = Arc::new(IdempotencyKeys::new(bytes.clone()));
    let mut now_ms = BEGIN_MS;
    for key in 0..100_000_u128 {
        now_ms = BEGIN_MS + (key / 10) as u64;
        first(&keys, key, now_ms, bounds).complete(&reply(20));
        if key.is_multiple_of(2500) {
            let held = keys.sweep(now_ms).keys;
            assert!(held <= 20_000, "{held}");
            assert!(bytes.load(Ordering::Relaxed) <= 20_000 * KEY_BYTES + (1 << 20));
        }
    }
    let counts = keys.sweep(now_ms);
    assert_eq!(counts.keys + counts.dropped, 100_000);
    // All of them go when their time is over, a part of them at each sweep.
    let mut sweeps = 0;
    while keys.sweep(now_ms + KEEP_MS).keys > 0 {
        sweeps += 1;
    }
    assert!(sweeps <= 20_000 / EXPIRED_PER_SWEEP, "{sweeps}");
    assert_eq!(bytes.load(Ordering::Relaxed), 0);
}

/// Two cores use the same keys at once: each key has exactly one first request.
#[test]
fn idempotency_key_has_one_first_request_on_all_cores() {
    let keys = keys();
    let firsts = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for key in 0..500 {
                    if let KeyLookup::First(first) = keys.look_up(key, 1, BEGIN_MS, WIDE) {
                        firsts.fetch_add(1, Ordering::Relaxed);
                        first.complete(&reply(0));
                    }
                }
            });
        }
    });
    assert_eq!(firsts.into_inner(), 500);
}

fn read(header: Option<&str>, body: &str) -> Result<Option<String>, String> {
    let mut body = body.as_bytes().to_vec();
    let read = Scratch::default().parse(&mut body, |body| {
        let key = read_key(header.map(str::as_bytes), body).map_err(|text| text.into_owned())?;
        Ok(key.map(|key| String::from_utf8_lossy(key).into_owned()))
    });
    read.expect("JSON")
}

#[test]
fn idempotency_key_has_1_to_128_printable_characters() {
    let of = |key: &str| format!(r#"{{"idempotency_key":"{key}"}}"#);
    let (longest, longer) = ("k".repeat(128), "k".repeat(129));
    assert_eq!(read(None, &of("k")), Ok(Some("k".to_owned())));
    assert_eq!(read(None, &of(&longest)), Ok(Some(longest.clone())));
    assert_eq!(read(Some(&longest), "{}"), Ok(Some(longest.clone())));
    assert_eq!(read(None, &of(" ~")), Ok(Some(" ~".to_owned())));
    for bad in ["", &longer, "\\u001f", "\\u007f", "ä"] {
        assert!(read(None, &of(bad)).is_err(), "{bad}");
    }
    assert!(read(Some(""), "{}").is_err());
    assert!(read(Some("\t"), "{}").is_err());
    assert!(read(None, r#"{"idempotency_key":7}"#).is_err());
    assert_eq!(read(None, r#"{"idempotency_key":null}"#), Ok(None));
    assert_eq!(read(None, "[]"), Ok(None));
    assert_eq!(read(Some("a"), &of("a")), Ok(Some("a".to_owned())));
    assert!(read(Some("a"), &of("b")).is_err());
}

#[test]
fn idempotency_fingerprint_covers_target_and_members() {
    let of = |target, body: &str| {
        let mut body = body.as_bytes().to_vec();
        let of = |body: JsonText<'_, '_>| fingerprint(target, body, &[MEMBER]);
        Scratch::default().parse(&mut body, of).expect("JSON")
    };
    let one = of("events", r#"{"a":1,"b":[2]}"#);
    assert_eq!(one, of("events", r#"{ "a": 1, "b": [2], "idempotency_key": "k" }"#));
    assert_ne!(one, of("batch", r#"{"a":1,"b":[2]}"#));
    assert_ne!(one, of("events", r#"{"a":1,"b":[3]}"#));
    assert_ne!(one, of("events", r#"{"a":1,"c":[2]}"#));
    assert_ne!(one, of("events", r#"{"a":1,"b":[2],"x":0}"#));
    assert_ne!(of("events", "[1]"), of("events", "[2]"));
}
