//! Tests of the maximum number of channels of an application, of the lists of channels, and of the
//! memory that is freed.

use super::super::rooms::Claim;
use super::*;
use std::sync::Arc;

struct Alone {
    hub: Hub,
    mail: OutgoingMail,
}

impl Alone {
    fn new(bounds: &[usize]) -> Alone {
        let mut hub = Hub::new(0, 1, Hasher::new(1), 1 << 20);
        hub.bound_channels(Arc::from(bounds));
        Alone { hub, mail: OutgoingMail::new(1) }
    }

    fn join(&mut self, index: u32, app: u32, name: &str, is_public: bool) -> Joined {
        let join = Join {
            slot: slot(index),
            app,
            name,
            max: usize::MAX,
            is_public,
            request: None,
            form: Form::PUBLISHED,
        };
        self.hub.join(join, 0, &mut self.mail)
    }

    fn is_let_in(&mut self, index: u32, name: &str, is_public: bool) -> bool {
        match self.join(index, 0, name, is_public) {
            Joined::Now(_) => true,
            Joined::NoRoom => false,
            other => panic!("{name}: {other:?}"),
        }
    }

    fn listed(&self, app: u32, prefix: &str) -> Vec<String> {
        let (prefix, max) = (prefix.into(), usize::MAX);
        let query = Query::Channels { app, prefix, max, counts: false };
        let Answer::Channels(list) = self.hub.answer_query(&query, 0) else { panic!("a list") };
        let mut names: Vec<String> = list.iter().map(|(name, _)| name.text().into()).collect();
        names.sort();
        names
    }
}

/// A connection with many subscriptions may occupy three quarters of the channels, and connections
/// with few may occupy nine tenths; the rest is for signed subscriptions. An occupied channel can
/// always be joined.
#[test]
fn channels_of_an_application_are_bounded_by_who_asks() {
    let mut it = Alone::new(&[100]);
    let made = (0..200).filter(|n| it.is_let_in(1, &format!("made-up-{n}"), true)).count();
    assert_eq!(made, 75);
    let few = (0..200).filter(|n| it.is_let_in(100 + n / 8, &format!("few-{n}"), true)).count();
    assert_eq!((few, it.hub.occupied_channels(0)), (15, 90));
    assert!(it.is_let_in(2, "made-up-1", true), "others are in it already");
    let signed = (0..200).filter(|n| it.is_let_in(3, &format!("private-{n}"), false)).count();
    assert_eq!((signed, it.hub.occupied_channels(0)), (10, 100));
    assert!(it.is_let_in(4, "private-1", false), "others are in it already");
    // A channel that is free again may be occupied only by those whose limit allows it.
    assert!(it.hub.leave(slot(1), 0, "made-up-2", &mut it.mail));
    assert!(!it.is_let_in(1, "made-up-2", true) && !it.is_let_in(5, "made-up-2", true));
    assert!(it.is_let_in(6, "private-11", false) && !it.is_let_in(6, "private-12", false));
    // Other applications have bounds of their own, or none.
    assert!(matches!(it.join(1, 1, "anything", true), Joined::Now(_)));
    it.hub.leave_all(slot(1), &mut it.mail);
    assert_eq!((it.hub.occupied_channels(0), it.hub.occupied_channels(1)), (27, 0));
}

#[test]
fn channels_that_only_keep_an_event_are_not_counted() {
    let mut it = Alone::new(&[1]);
    let keep = CacheEntry { ttl_ms: 100, event: "e".into(), data: "d".into() };
    let event = Event { retain: Retention::Cache(Arc::new(keep)), ..Event::default() };
    it.hub.publish(0, "cache-a", &mut event.clone(), None, 0, &mut it.mail);
    assert!(it.is_let_in(1, "private-a", false));
    assert!(!it.is_let_in(1, "cache-a", false), "nobody is in it");
    assert!(it.listed(0, "").iter().eq(["private-a"]));
}

/// A connection on another core than the channel's home is refused, and leaves no state.
#[test]
fn channels_beyond_the_bound_are_refused_over_cores() {
    let mut world = World::new(2);
    // An even share is 4; an eighth and eight more make 12.
    world.cores.hubs.iter_mut().for_each(|hub| hub.bound_channels(Arc::from([8])));
    let names: Vec<String> = {
        let hub = &world.cores.hubs[0];
        let all = (0..).map(|n| format!("channel-{n}"));
        all.filter(|name| hub.home(0, name) == 1).take(13).collect()
    };
    for (index, name) in names.iter().enumerate() {
        assert!(matches!(world.join(0, index as u32, name), Joined::Later));
    }
    let mut refused = Vec::new();
    while let Some((from, to, mail)) = world.cores.take(0) {
        let (hub, outgoing) = world.cores.at(to);
        match mail {
            Mail::Up(up) => _ = hub.request(from, up, 0, outgoing),
            Mail::Down(Down::Interested { request_id, name, granted }) => match granted {
                true => assert_eq!(hub.interested(request_id, &name).len(), 1),
                false => {
                    for index in hub.join_refused(request_id, &name) {
                        assert!(hub.leave(slot(index), 0, name.text(), outgoing));
                        refused.push(index);
                    }
                }
            },
            Mail::Down(_) => {}
        }
    }
    assert_eq!((refused, world.cores.hubs[1].occupied_channels(0)), (vec![12], 12));
    assert_eq!(
        (world.cores.hubs[0].channel_count(), world.cores.hubs[1].channel_count()),
        (12, 12)
    );
    // The same with a join request.
    world.join_with(
        0,
        12,
        &names[12],
        Some(JoinRequest { cached: true, ..JoinRequest::default() }),
    );
    let Some(up) = world.cores.outgoing[0].to(1).up.pop_front() else { panic!("a question") };
    world.cores.hubs[1].request(0, up, 0, &mut world.cores.outgoing[1]);
    let Some(Down::JoinReply { reply, .. }) = world.cores.outgoing[1].to(0).down.pop_front() else {
        panic!("an answer")
    };
    assert!(matches!(reply, Err(JoinRefusal::NoRoom)));
}

#[test]
fn channels_are_listed_by_application() {
    let mut it = Alone::new(&[]);
    for n in 0..50 {
        it.join(1, 0, &format!("a-{n}"), true);
        it.join(2, 1, &format!("b-{n}"), true);
    }
    it.join(3, 0, "#server-to-user-ada", false);
    assert_eq!((it.listed(0, "").len(), it.listed(0, "a-4").len()), (50, 11));
    assert_eq!((it.hub.rooms_of(0).count(), it.hub.rooms_of(1).count()), (50, 50));
    for n in (0..50).step_by(2) {
        it.hub.leave(slot(1), 0, &format!("a-{n}"), &mut it.mail);
    }
    assert_eq!((it.listed(0, "").len(), it.listed(1, "").len()), (25, 50));
    it.hub.leave_all(slot(1), &mut it.mail);
    it.hub.leave_all(slot(2), &mut it.mail);
    assert_eq!((it.listed(0, ""), it.listed(1, "")), (vec![], vec![]));
}

#[test]
fn channel_lists_of_few_applications_are_kept_while_empty() {
    let mut it = Alone::new(&[]);
    for app in 0..100 {
        it.join(1, app, "a", true);
    }
    assert_eq!(it.hub.rooms.len(), 100);
    it.hub.leave_all(slot(1), &mut it.mail);
    assert_eq!(it.hub.rooms.len(), 64);
    it.join(1, 99, "a", true);
    assert_eq!((it.listed(99, "").len(), it.listed(0, "").len()), (1, 0));
}

/// Channels that stay are still found, listed, counted and dropped in time after the tables have
/// become smaller.
#[test]
fn channel_tables_shrink_while_some_channels_stay() {
    let mut it = Alone::new(&[usize::MAX]);
    let keep = CacheEntry { ttl_ms: 5000, event: "e".into(), data: "d".into() };
    let event = Event { retain: Retention::Cache(Arc::new(keep)), ..Event::default() };
    for n in 0..100_000 {
        it.join(1, 0, &format!("flood-{n}"), true);
        if n % 1000 == 999 {
            it.join(2, 0, &format!("stays-{n}"), true);
            it.join(3, 0, &format!("stays-{n}"), true);
            it.hub.publish(0, &format!("cache-{n}"), &mut event.clone(), None, 0, &mut it.mail);
        }
    }
    it.hub.leave_all(slot(1), &mut it.mail);
    let (places, index) = (it.hub.channels.capacity(), it.hub.index.allocation_size());
    assert!(places > 100_000 && index > 500_000);
    for _ in 0..20 {
        it.hub.sweep(1000);
    }
    assert!(it.hub.channels.capacity() <= 1024, "{}", it.hub.channels.capacity());
    assert!(it.hub.index.allocation_size() <= 16 * 1024);
    assert_eq!((it.hub.channel_count(), it.listed(0, "stays-").len()), (200, 100));
    for n in (999..100_000).step_by(1000) {
        let name = it.hub.name(0, &format!("stays-{n}"));
        assert_eq!(it.hub.subscribers(&name).len(), 2);
        assert!(it.hub.is_subscribed(slot(3), 0, name.text()));
        let cache = it.hub.name(0, &format!("cache-{n}"));
        assert!(it.hub.channel_info(&cache, 1000).kept.is_some());
    }
    assert!(it.hub.leave(slot(3), 0, "stays-999", &mut it.mail));
    assert_eq!(it.hub.leave_all(slot(2), &mut it.mail), 100);
    assert_eq!((it.hub.occupied_channels(0), it.listed(0, "").len()), (99, 99));
    it.hub.sweep(5000);
    assert_eq!((it.hub.channel_count(), it.hub.kept_bytes()), (99, 0));
    assert_eq!(it.hub.leave_all(slot(3), &mut it.mail), 99);
    assert_eq!(it.hub.channel_count(), 0);
    assert!(it.hub.channels.capacity() <= 256 && it.hub.index.allocation_size() <= 4096);
}

#[test]
fn channel_claims_have_their_parts() {
    assert_eq!(Claim::new(false, 1000), Claim::Signed);
    assert_eq!((Claim::new(true, 15), Claim::new(true, 16)), (Claim::Few, Claim::Many));
}
