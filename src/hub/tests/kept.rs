//! Tests of kept events: when they are dropped, how many of them sweeps examine, and the bytes that
//! are counted for them.

use super::super::cache::overhead;
use super::*;
use crate::mem::Frozen;
use std::sync::Arc;

fn event(ttl_ms: u64) -> Event {
    let keep = CacheEntry { ttl_ms, event: "e".into(), data: "d".into() };
    Event { retain: Retention::Cache(Arc::new(keep)), ..Frozen::new(b"frame").into() }
}

struct Alone {
    hub: Hub,
    mail: OutgoingMail,
}

impl Alone {
    fn new(kept_max: usize) -> Alone {
        Alone { hub: Hub::new(0, 1, Hasher::new(1), kept_max), mail: OutgoingMail::new(1) }
    }

    fn publish(&mut self, name: &str, ttl_ms: u64, now_ms: u64) {
        self.hub.publish(0, name, &mut event(ttl_ms), None, now_ms, &mut self.mail);
    }

    fn is_kept(&self, name: &str, now_ms: u64) -> bool {
        self.hub.channel_info(&self.hub.name(0, name), now_ms).kept.is_some()
    }
}

/// Sweeps examine none of 300 000 events that are not due.
#[test]
fn kept_events_that_are_not_due_are_not_looked_at() {
    let mut it = Alone::new(usize::MAX);
    for n in 0..300_000 {
        it.publish(&format!("cache-{n}"), 60_000 + n % 7, 0);
    }
    for now_ms in (0..60_000).step_by(250) {
        it.hub.sweep(now_ms);
    }
    assert_eq!((it.hub.kept.keepers.visited, it.hub.channel_count()), (0, 300_000));
    // Events that are due are dropped in several sweeps, and no others are examined.
    it.hub.sweep(60_000);
    assert_eq!((it.hub.kept.keepers.visited, it.hub.channel_count()), (1000, 299_000));
    for _ in 0..299 {
        it.hub.sweep(60_006);
    }
    assert_eq!((it.hub.kept.keepers.visited, it.hub.channel_count()), (300_000, 0));
    assert_eq!(it.hub.kept_bytes(), 0);
}

#[test]
fn kept_events_of_mixed_times_are_forgotten_each_at_its_own() {
    let mut it = Alone::new(usize::MAX);
    let mut random = fastrand::Rng::with_seed(8);
    let mut due: Vec<(String, u64)> = Vec::new();
    for n in 0..500 {
        let (name, ttl_ms) = (format!("cache-{n}"), random.u64(1..2000));
        it.publish(&name, ttl_ms, n);
        due.push((name, n + ttl_ms));
    }
    for now_ms in 500..3500 {
        if now_ms % 5 == 0 {
            // A new event makes the time of expiry earlier or later, or is cached after the expiry.
            let (name, until_ms) = &mut due[random.usize(..500)];
            let ttl_ms = random.u64(1..2000);
            it.publish(name, ttl_ms, now_ms);
            *until_ms = now_ms + ttl_ms;
        }
        it.hub.sweep(now_ms);
        let left = due.iter().filter(|(_, until_ms)| *until_ms > now_ms).count();
        assert_eq!(it.hub.channel_count(), left, "at {now_ms}");
    }
    it.hub.sweep(10_000);
    assert_eq!((it.hub.channel_count(), it.hub.kept_bytes()), (0, 0));
}

/// An event that is renewed often is examined once in each period of its time to live, and not at
/// each renewal.
#[test]
fn kept_event_that_is_renewed_is_seldom_looked_at() {
    let mut it = Alone::new(usize::MAX);
    for now_ms in 0..10_000 {
        it.publish("cache-a", 1000, now_ms);
        it.hub.sweep(now_ms);
    }
    assert!(it.hub.kept.keepers.visited <= 11, "{}", it.hub.kept.keepers.visited);
    assert!(it.is_kept("cache-a", 10_998));
    it.hub.sweep(10_998);
    assert_eq!(it.hub.channel_count(), 1);
    it.hub.sweep(10_999);
    assert_eq!((it.hub.channel_count(), it.hub.kept_bytes()), (0, 0));
}

#[test]
fn kept_bytes_count_tables_and_the_oldest_makes_room() {
    let mut it = Alone::new(usize::MAX);
    it.publish("cache-a", 1000, 0);
    let one = it.hub.kept_bytes();
    assert_eq!(one, "frame".len() + 2 + overhead::<()>(&it.hub.name(0, "cache-a")));
    assert!((600..1500).contains(&one), "{one}");
    it.publish("cache-a", 1000, 5);
    assert_eq!(it.hub.kept_bytes(), one, "in place of the one before");
    let mut it = Alone::new(3 * one);
    for name in ["cache-a", "cache-b", "cache-c"] {
        it.publish(name, 1000, 0);
    }
    assert_eq!((it.hub.channel_count(), it.hub.losses().kept), (3, 0));
    it.publish("cache-d", 1000, 0);
    assert_eq!((it.hub.channel_count(), it.hub.losses().kept), (3, 1));
    assert!(!it.is_kept("cache-a", 0) && it.is_kept("cache-b", 0) && it.is_kept("cache-d", 0));
    let mut it = Alone::new(one - 1);
    it.publish("cache-a", 1000, 0);
    assert_eq!((it.hub.channel_count(), it.hub.kept_bytes(), it.hub.losses().kept), (0, 0, 1));
}
