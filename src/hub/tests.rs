//! Several hubs whose mail the test carries itself.

use super::*;
use crate::mem::Frozen;
use cores::{Cores, Mail};
use std::sync::Arc;

mod channel_events;
mod cores;
mod counting;
mod history;
mod kept;
mod logs;
mod misses;
mod nodes;
#[cfg(feature = "zenith")]
mod pictures;
mod relay;
mod resume;
mod rooms;
mod viewed;

/// The hub's types with a message that has no content.
type Hub = super::Hub<()>;
type Event = super::Event<()>;
type EventPayload = super::EventPayload<()>;
type Join<'n> = super::Join<'n, ()>;
type JoinRequest = super::JoinRequest<()>;
type Member = super::Member<()>;
type OutgoingMail = super::OutgoingMail<()>;
type Up = super::Up<()>;
type Down = super::Down<()>;

const NOW_MS: u64 = 1000;
/// One event of 600 bytes with its tables fits, and two do not.
const MAX_KEPT: usize = 2000;

struct World {
    cores: Cores,
    /// (core, slot, text) in the order of delivery.
    received: Vec<(u16, u32, String)>,
    joined: Vec<(u16, u32)>,
    /// (core, slot, members, cached) of each join reply from another core.
    on_join_reply: Vec<(u16, u32, Vec<String>, Option<String>)>,
}

fn slot(index: u32) -> Slot {
    Slot { index, generation: 1 }
}

impl World {
    fn new(cores: u16) -> World {
        World {
            cores: Cores::new(cores, 1, MAX_KEPT),
            received: Vec::new(),
            joined: Vec::new(),
            on_join_reply: Vec::new(),
        }
    }

    fn join(&mut self, core: u16, index: u32, name: &str) -> Joined {
        self.join_with(core, index, name, None)
    }

    fn join_with(
        &mut self,
        core: u16,
        index: u32,
        name: &str,
        request: Option<JoinRequest>,
    ) -> Joined {
        let join = Join {
            slot: slot(index),
            app: 0,
            name,
            max: 3,
            is_public: false,
            request,
            form: Form::PUBLISHED,
        };
        let (hub, mail) = self.cores.at(core);
        let joined = hub.join(join, NOW_MS, mail);
        self.hear_local();
        joined
    }

    fn hear_local(&mut self) {
        for core in 0..self.cores.hubs.len() {
            while let Some((name, event)) = self.cores.hubs[core].next_local() {
                self.deliver(core as u16, &name, &event);
            }
        }
    }

    fn leave(&mut self, core: u16, index: u32, name: &str) -> bool {
        let (hub, mail) = self.cores.at(core);
        let left = hub.leave(slot(index), 0, name, mail);
        self.hear_local();
        left
    }

    fn publish(&mut self, core: u16, name: &str, text: &str) {
        let mut event = Event::from(Frozen::new(text.as_bytes()));
        let (hub, mail) = self.cores.at(core);
        if let Published::Ordered(_) = hub.publish(0, name, &mut event, None, NOW_MS, mail) {
            let name = hub.name(0, name);
            self.deliver(core, &name, &event);
        }
    }

    fn deliver(&mut self, core: u16, name: &ChannelName, event: &Event) {
        let text = String::from_utf8_lossy(event.frame().expect("a frame")).into_owned();
        let subscribers = self.cores.hubs[core as usize].subscribers(name).iter();
        let except = event.except.and_then(|it| it.on(core)).map(|slot| slot.index);
        let receives = |it: &&Subscriber| it.receives(event.since_log);
        for subscriber in subscribers.filter(receives).filter(|it| Some(it.slot) != except) {
            self.received.push((core, subscriber.slot, text.clone()));
        }
    }

    fn deliver_mail(&mut self) {
        while let Some((from, to, mail)) = self.cores.take(0) {
            match mail {
                Mail::Up(up) => {
                    let (hub, mail) = self.cores.at(to);
                    if let Some((name, event)) = hub.request(from, up, NOW_MS, mail) {
                        self.deliver(to, &name, &event);
                    }
                    self.hear_local();
                }
                Mail::Down(down) => self.answer(to, down),
            }
        }
    }

    fn answer(&mut self, to: u16, down: Down) {
        let (hub, mail) = self.cores.at(to);
        match down {
            Down::Interested { request_id, name, .. } => {
                let joined = hub.interested(request_id, &name);
                self.joined.extend(joined.iter().map(|subscriber| (to, subscriber.slot)));
            }
            Down::Deliver { name, event } => self.deliver(to, &name, &event),
            Down::JoinReply { request_id, slot, name, reply } => {
                if hub.on_join_reply(request_id, slot, &name, reply.is_ok(), mail) {
                    let (users, cached) = users_and_cached(reply.unwrap_or_default());
                    self.on_join_reply.push((to, slot.index, users, cached));
                }
            }
            Down::LogBegan { home, log } => hub.log_began(home, log),
            Down::Answer { .. } | Down::Message { .. } => {}
        }
    }

    /// A name whose home is `core`.
    fn name_at(&self, core: u16) -> String {
        let hub = &self.cores.hubs[0];
        (0..)
            .map(|n| format!("channel-{n}"))
            .find(|name| hub.home_of(hub.hasher.hash(0, name)) == core)
            .expect("one of many names has this home")
    }
}

#[test]
fn hub_join_at_home_is_immediate_and_elsewhere_waits_for_the_home() {
    let mut world = World::new(2);
    let name = world.name_at(0);
    assert!(matches!(world.join(0, 1, &name), Joined::Now(None)));
    assert!(matches!(world.join(1, 1, &name), Joined::Later));
    assert!(matches!(world.join(1, 2, &name), Joined::Later));
    world.publish(0, &name, "before");
    assert_eq!(world.received, [(0, 1, "before".to_owned())]);
    world.deliver_mail();
    assert_eq!(world.joined, [(1, 1), (1, 2)]);
    assert!(matches!(world.join(1, 3, &name), Joined::Now(None)));
    world.received.clear();
    world.publish(1, &name, "after");
    world.deliver_mail();
    let mut hearers: Vec<_> = world.received.iter().map(|(core, slot, _)| (*core, *slot)).collect();
    hearers.sort_unstable();
    assert_eq!(hearers, [(0, 1), (1, 1), (1, 2), (1, 3)]);
}

#[test]
fn hub_second_join_changes_nothing_and_subscriptions_are_limited() {
    let mut world = World::new(1);
    assert!(matches!(world.join(0, 1, "a"), Joined::Now(None)));
    assert!(matches!(world.join(0, 1, "a"), Joined::Already));
    assert!(matches!(world.join(0, 1, "b"), Joined::Now(None)));
    assert!(matches!(world.join(0, 1, "c"), Joined::Now(None)));
    assert!(matches!(world.join(0, 1, "d"), Joined::SubscriptionLimit));
    assert!(world.leave(0, 1, "a"));
    assert!(!world.leave(0, 1, "a"));
    assert!(matches!(world.join(0, 1, "d"), Joined::Now(None)));
    world.publish(0, "a", "x");
    assert!(world.received.is_empty());
}

#[test]
fn hub_ignores_an_answer_to_an_older_interest() {
    let mut world = World::new(2);
    let name = world.name_at(0);
    assert!(matches!(world.join(1, 1, &name), Joined::Later));
    assert!(world.leave(1, 1, &name));
    assert!(matches!(world.join(1, 1, &name), Joined::Later));
    // The home has got: interest, forget, interest. A publish between the first answer and the
    // second need not arrive, so the first answer must not activate the subscription.
    let queues = world.cores.outgoing[1].to(0);
    assert_eq!(queues.up.len(), 3);
    let first = queues.up.pop_front().expect("the first question");
    world.cores.hubs[0].request(1, first, NOW_MS, &mut world.cores.outgoing[0]);
    let Some(Down::Interested { request_id, name: asked_name, .. }) =
        world.cores.outgoing[0].to(1).down.pop_front()
    else {
        panic!("the home answers");
    };
    assert!(world.cores.hubs[1].interested(request_id, &asked_name).is_empty());
    world.deliver_mail();
    assert_eq!(world.joined, [(1, 1)]);
}

#[test]
fn hub_proposal_waits_for_the_earlier_requests_to_its_channels_home() {
    let mut world = World::new(2);
    let [here, there] = [1, 0].map(|home| world.name_at(home));
    let times = StateTimes { linger_ms: 1, count_every_ms: 1, picture_ms: 1, hold_ms: 1 };
    world.cores.hubs[1].follow_log(times);
    let propose = |world: &mut World, name: &str| {
        let mut event = Frozen::new(b"x").into();
        let (hub, mail) = (&mut world.cores.hubs[1], &mut world.cores.outgoing[1]);
        hub.publish(0, name, &mut event, None, NOW_MS, mail);
        hub.next_proposal().expect("a proposal")
    };
    let first = propose(&mut world, &there);
    world.join(1, 1, &there);
    let [second, elsewhere] = [&there, &here].map(|name| propose(&mut world, name));
    world.join(1, 2, &there);
    let is_sent = |world: &World| {
        [&first, &second, &elsewhere].map(|it| world.cores.outgoing[1].is_sent(it.after))
    };
    assert_eq!(is_sent(&world), [true, false, true]);
    assert!(world.cores.outgoing[1].to(0).up.pop_front().is_some());
    assert_eq!(is_sent(&world), [true, true, true], "what comes later does not matter");
}

#[test]
fn hub_keeps_nothing_after_the_last_subscriber() {
    let mut world = World::new(3);
    for core in 0..3 {
        for index in 0..20 {
            for name in ["a", "b", "c"] {
                world.join(core, index, name);
            }
        }
    }
    world.deliver_mail();
    for core in 0..3 {
        for index in (0..20).rev() {
            let at = core as usize;
            assert_eq!(
                world.cores.hubs[at].leave_all(slot(index), &mut world.cores.outgoing[at]),
                3
            );
        }
    }
    world.deliver_mail();
    for hub in &world.cores.hubs {
        assert_eq!(hub.channel_count(), 0);
    }
}

fn users_and_cached(reply: JoinReply) -> (Vec<String>, Option<String>) {
    let users = reply.users.map(|users| users.iter().map(|(id, _)| id.to_string()).collect());
    let text = |frame: Frozen| String::from_utf8_lossy(&frame).into_owned();
    (users.unwrap_or_default(), reply.cached.flatten().map(text))
}

fn member(id: &str, max: usize) -> Option<JoinRequest> {
    let frame = |text: String| Frozen::new(text.as_bytes());
    let member = Member {
        id: id.into(),
        info: None,
        added: frame(format!("+{id}")).into(),
        removed: frame(format!("-{id}")).into(),
        max,
    };
    Some(JoinRequest { member: Some(Box::new(member)), ..JoinRequest::default() })
}

#[test]
fn presence_reports_a_user_once_to_members_on_all_cores() {
    let mut world = World::new(2);
    let name = world.name_at(0);
    let Joined::Now(Some(reply)) = world.join_with(0, 1, &name, member("ada", 0)) else {
        panic!("at home, at once");
    };
    assert_eq!(users_and_cached(reply).0, ["ada"]);
    assert!(matches!(world.join_with(1, 1, &name, member("bob", 0)), Joined::Later));
    world.publish(0, &name, "before");
    world.deliver_mail();
    assert_eq!(world.on_join_reply, [(1, 1, vec!["ada".to_owned(), "bob".to_owned()], None)]);
    // Bob gets neither what was published before his join reply nor his own addition.
    assert_eq!(world.received, [(0, 1, "before".to_owned()), (0, 1, "+bob".to_owned())]);
    world.received.clear();
    world.join_with(0, 2, &name, member("bob", 0));
    assert!(world.leave(1, 1, &name));
    world.deliver_mail();
    assert!(world.received.is_empty(), "bob is still there: {:?}", world.received);
    assert!(world.leave(0, 2, &name));
    world.deliver_mail();
    assert_eq!(world.received, [(0, 1, "-bob".to_owned())]);
    assert!(world.leave(0, 1, &name));
    world.deliver_mail();
    assert!(world.cores.hubs.iter().all(|hub| hub.channel_count() == 0));
}

#[test]
fn presence_replies_with_the_users_to_a_request_without_a_member() {
    let mut world = World::new(2);
    let name = world.name_at(0);
    let watch = || Some(JoinRequest::default());
    let Joined::Now(Some(nobody)) = world.join_with(0, 1, &name, watch()) else {
        panic!("at home, at once");
    };
    assert!(nobody.users.is_none(), "nobody is there");
    world.join_with(0, 2, &name, member("ada", 0));
    world.join_with(1, 1, &name, watch());
    world.deliver_mail();
    assert_eq!(world.on_join_reply, [(1, 1, vec!["ada".to_owned()], None)]);
    assert_eq!(world.received, [(0, 1, "+ada".to_owned())]);
    world.received.clear();
    assert!(world.leave(0, 1, &name));
    world.deliver_mail();
    assert!(world.received.is_empty(), "who watched is missed by nobody");
    assert!(world.leave(0, 2, &name));
    world.deliver_mail();
    assert_eq!(world.received, [(1, 1, "-ada".to_owned())]);
}

#[test]
fn presence_refuses_users_beyond_the_maximum_on_every_core() {
    let mut world = World::new(2);
    let name = world.name_at(0);
    world.join_with(0, 1, &name, member("ada", 1));
    assert!(matches!(world.join_with(0, 2, &name, member("bob", 1)), Joined::ChannelFull));
    assert!(matches!(world.join_with(1, 3, &name, member("bob", 1)), Joined::Later));
    world.deliver_mail();
    assert_eq!(world.cores.hubs[1].channel_count(), 0);
    assert!(world.received.is_empty());
    assert_eq!(
        world.cores.hubs[0].channel_info(&world.cores.hubs[0].name(0, &name), NOW_MS).users,
        1
    );
}

#[test]
fn hub_ignores_a_join_reply_after_the_connection_has_left() {
    let mut world = World::new(2);
    let name = world.name_at(0);
    world.join_with(1, 1, &name, member("ada", 0));
    assert!(world.leave(1, 1, &name));
    world.join_with(1, 1, &name, member("ada", 0));
    world.deliver_mail();
    assert_eq!(world.on_join_reply.len(), 1);
    world.publish(0, &name, "x");
    world.deliver_mail();
    assert_eq!(world.received, [(1, 1, "x".to_owned())]);
}

#[test]
fn cache_keeps_the_last_event_for_its_time_and_within_the_memory() {
    let mut world = World::new(2);
    let name = world.name_at(0);
    let keep = |len: usize| {
        let data = "d".repeat(len).into();
        let keep = CacheEntry { ttl_ms: 100, event: "".into(), data };
        Event { retain: Retention::Cache(Arc::new(keep)), ..Frozen::new(b"kept").into() }
    };
    let publish = |world: &mut World, name: &str, len| {
        world.cores.hubs[1].publish(
            0,
            name,
            &mut keep(len),
            None,
            NOW_MS,
            &mut world.cores.outgoing[1],
        );
        world.deliver_mail();
    };
    let request = || Some(JoinRequest { cached: true, ..JoinRequest::default() });
    publish(&mut world, &name, 10);
    world.join_with(1, 1, &name, request());
    world.deliver_mail();
    assert_eq!(world.on_join_reply.pop(), Some((1, 1, vec![], Some("kept".to_owned()))));
    assert!(world.leave(1, 1, &name));
    world.deliver_mail();
    assert_eq!(world.cores.hubs[0].channel_count(), 1, "kept without subscribers");
    world.cores.hubs[0].sweep(NOW_MS + 99);
    assert_eq!(world.cores.hubs[0].channel_count(), 1);
    world.cores.hubs[0].sweep(NOW_MS + 100);
    assert_eq!(world.cores.hubs[0].channel_count(), 0);
    // Two of these exceed the maximum.
    let other = (0..)
        .map(|n| format!("other-{n}"))
        .find(|other| world.cores.hubs[0].home_of(world.cores.hubs[0].hasher.hash(0, other)) == 0);
    publish(&mut world, &name, 600);
    publish(&mut world, &other.expect("one of many"), 600);
    assert_eq!(world.cores.hubs[0].channel_count(), 1, "the older one went");
}

#[test]
fn counts_at_the_home_cover_all_cores() {
    let mut world = World::new(3);
    let name = world.name_at(0);
    for core in 0..3 {
        for index in 0..4 {
            world.join(core, index, &name);
        }
    }
    let count = |world: &mut World| {
        for core in 0..3 {
            world.cores.hubs[core].report_counts(&mut world.cores.outgoing[core]);
        }
        world.deliver_mail();
        world.cores.hubs[0].channel_info(&world.cores.hubs[0].name(0, &name), NOW_MS).subscriptions
    };
    assert_eq!(count(&mut world), 12);
    world.leave(1, 0, &name);
    world.leave(2, 0, &name);
    assert_eq!(count(&mut world), 10);
    for index in 1..4 {
        world.leave(1, index, &name);
    }
    assert_eq!(count(&mut world), 7);
}

#[test]
fn presence_over_two_cores_equals_a_naive_model() {
    const USERS: u32 = 1000;
    const EACH: u32 = 3;
    let mut rng = fastrand::Rng::with_seed(4);
    let mut world = World::new(2);
    let name = world.name_at(1);
    // The members: slot index by (core, user, number of the connection).
    let mut present: std::collections::BTreeSet<(u16, u32)> = Default::default();
    for step in 0..10_000 {
        let index = rng.u32(0..USERS * EACH);
        let core = (index % 2) as u16;
        let id = format!("user-{}", index / EACH);
        if present.remove(&(core, index)) {
            assert!(world.leave(core, index, &name));
        } else {
            world.join_with(core, index, &name, member(&id, 0));
            present.insert((core, index));
        }
        if rng.u8(0..4) == 0 {
            world.deliver_mail();
        }
        if step % 500 == 499 {
            world.deliver_mail();
            let Answer::Users(users) = world.cores.hubs[1]
                .answer_query(&Query::Users { app: 0, name: name.as_str().into() }, NOW_MS)
            else {
                panic!("users");
            };
            let mut found: Vec<String> = users.iter().map(|(id, _)| id.to_string()).collect();
            found.sort_unstable();
            let expected: std::collections::BTreeSet<String> =
                present.iter().map(|(_, index)| format!("user-{}", index / EACH)).collect();
            assert_eq!(found, expected.into_iter().collect::<Vec<_>>(), "step {step}");
        }
        world.received.clear();
    }
}

fn watched(cores: u16, mask: EventMask) -> World {
    let mut world = World::new(cores);
    for hub in &mut world.cores.hubs {
        hub.watch(Arc::from([mask]), 0);
    }
    world
}

impl World {
    /// All channel events so far, home by home.
    fn channel_events(&mut self) -> Vec<ChannelEventKind> {
        for core in 0..self.cores.hubs.len() {
            self.cores.hubs[core].report_counts(&mut self.cores.outgoing[core]);
        }
        self.deliver_mail();
        let next = |hub: &mut Hub| hub.next_channel_event().map(|channel_event| channel_event.what);
        let hubs = self.cores.hubs.iter_mut();
        hubs.flat_map(|hub| std::iter::from_fn(move || next(hub))).collect()
    }
}

#[test]
fn channel_events_report_occupied_and_vacated_once_over_all_cores() {
    let mut world = watched(3, EventMask::OCCUPANCY | EventMask::COUNTS);
    world.join(0, 1, "a");
    assert_eq!(world.channel_events(), [ChannelEventKind::Occupied, ChannelEventKind::Count(1)]);
    world.join(1, 1, "a");
    world.join(1, 2, "a");
    world.join(2, 1, "a");
    let counts = world.channel_events();
    assert_eq!(counts.last(), Some(&ChannelEventKind::Count(4)));
    assert!(counts.iter().all(|what| matches!(what, ChannelEventKind::Count(2..=4))), "{counts:?}");
    world.leave(0, 1, "a");
    world.leave(1, 1, "a");
    world.leave(1, 2, "a");
    let counts = world.channel_events();
    assert_eq!(counts.last(), Some(&ChannelEventKind::Count(1)));
    assert!(!counts.contains(&ChannelEventKind::Vacated));
    world.leave(2, 1, "a");
    assert_eq!(world.channel_events(), [ChannelEventKind::Vacated, ChannelEventKind::Count(0)]);
    assert!(world.cores.hubs.iter().all(|hub| hub.channel_count() == 0));
}

#[test]
fn channel_events_leave_out_user_channels_and_unwanted_kinds() {
    let mut world = watched(2, EventMask::OCCUPANCY);
    world.join(0, 1, "#server-to-user-a");
    world.leave(0, 1, "#server-to-user-a");
    assert_eq!(world.channel_events(), []);
    let mut world = watched(2, EventMask::NONE);
    world.join(0, 1, "a");
    world.leave(0, 1, "a");
    assert_eq!(world.channel_events(), []);
}

#[test]
fn channel_events_of_members_come_between_occupied_and_vacated() {
    let everything = EventMask::OCCUPANCY | EventMask::MEMBERS;
    for core in [0, 1] {
        let mut world = watched(2, everything);
        for index in [1, 2] {
            world.join_with(core, index, "p", member("ada", 0));
            world.deliver_mail();
        }
        assert_eq!(
            world.channel_events(),
            [ChannelEventKind::Occupied, ChannelEventKind::MemberAdded("ada".into())]
        );
        world.leave(core, 1, "p");
        assert_eq!(world.channel_events(), []);
        world.leave(core, 2, "p");
        assert_eq!(
            world.channel_events(),
            [ChannelEventKind::MemberRemoved("ada".into()), ChannelEventKind::Vacated]
        );
    }
}

#[test]
fn channel_events_report_a_cache_miss_once_until_an_event_is_cached() {
    for core in [0, 1] {
        let mut world = watched(2, EventMask::MISSES);
        let request = || Some(JoinRequest { cached: true, ..JoinRequest::default() });
        world.join_with(core, 1, "c", request());
        world.join_with(core, 2, "c", request());
        assert_eq!(world.channel_events(), [ChannelEventKind::CacheMiss]);
        let keep = CacheEntry { ttl_ms: 1, event: "e".into(), data: "d".into() };
        let mut event = Event { retain: Retention::Cache(Arc::new(keep)), ..Event::default() };
        let at = usize::from(core);
        world.cores.hubs[at].publish(
            0,
            "c",
            &mut event,
            None,
            NOW_MS,
            &mut world.cores.outgoing[at],
        );
        world.deliver_mail();
        world.cores.hubs.iter_mut().for_each(|hub| hub.sweep(NOW_MS + 1));
        world.join_with(core, 3, "c", request());
        assert_eq!(world.channel_events(), [ChannelEventKind::CacheMiss]);
    }
}

#[test]
fn channel_events_report_a_cache_miss_again_after_the_channel_was_empty() {
    for core in [0, 1] {
        let mut world = watched(2, EventMask::MISSES);
        let request = || Some(JoinRequest { cached: true, ..JoinRequest::default() });
        world.join_with(core, 1, "c", request());
        world.deliver_mail();
        world.join_with(core, 2, "c", request());
        assert_eq!(world.channel_events(), [ChannelEventKind::CacheMiss]);
        world.leave(core, 1, "c");
        world.join_with(core, 1, "c", request());
        assert_eq!(world.channel_events(), [], "one subscriber has stayed");
        world.leave(core, 1, "c");
        world.leave(core, 2, "c");
        assert_eq!(world.channel_events(), []);
        world.join_with(core, 1, "c", request());
        assert_eq!(world.channel_events(), [ChannelEventKind::CacheMiss]);
    }
}

#[test]
fn channel_events_of_a_newly_wanted_kind_report_changes_only() {
    for core in [0, 1] {
        let mut world = watched(2, EventMask::NONE);
        let watch = |world: &mut World, mask: EventMask, version| {
            for hub in &mut world.cores.hubs {
                hub.watch(Arc::from([mask]), version);
            }
        };
        world.join(core, 1, "a");
        assert_eq!(world.channel_events(), []);
        watch(&mut world, EventMask::OCCUPANCY | EventMask::COUNTS, 1);
        world.join(core, 2, "a");
        assert_eq!(world.channel_events(), [ChannelEventKind::Count(2)], "it was occupied before");
        world.leave(core, 2, "a");
        world.leave(core, 1, "a");
        assert!(
            world
                .channel_events()
                .ends_with(&[ChannelEventKind::Vacated, ChannelEventKind::Count(0)])
        );
        world.join(core, 1, "a");
        assert_eq!(
            world.channel_events(),
            [ChannelEventKind::Occupied, ChannelEventKind::Count(1)]
        );
        // Unwanted for a while, and wanted again after the state has changed.
        watch(&mut world, EventMask::COUNTS, 2);
        world.leave(core, 1, "a");
        assert_eq!(world.channel_events(), [ChannelEventKind::Count(0)]);
        watch(&mut world, EventMask::OCCUPANCY, 3);
        world.join(core, 1, "a");
        assert_eq!(world.channel_events(), [ChannelEventKind::Occupied], "core {core}");
        world.leave(core, 1, "a");
        world.deliver_mail();
        let last =
            world.cores.hubs.iter_mut().find_map(Hub::next_channel_event).expect("a channel event");
        assert_eq!((last.what, last.version), (ChannelEventKind::Vacated, 3));
    }
}

#[test]
fn channel_events_report_large_counts_at_intervals() {
    let mut world = watched(1, EventMask::COUNTS);
    (0..100).for_each(|index| drop(world.join(0, index, "a")));
    assert_eq!(world.channel_events().len(), 100);
    (100..103).for_each(|index| drop(world.join(0, index, "a")));
    assert_eq!(world.channel_events(), []);
    world.cores.hubs[0].sweep(10_000);
    assert_eq!(world.channel_events(), [ChannelEventKind::Count(103)]);
    world.join(0, 200, "a");
    world.cores.hubs[0].sweep(14_999);
    assert_eq!(world.channel_events(), []);
    world.cores.hubs[0].sweep(15_000);
    assert_eq!(world.channel_events(), [ChannelEventKind::Count(104)]);
    world.join(0, 201, "a");
    (100..103).chain([200, 201]).for_each(|index| assert!(world.leave(0, index, "a")));
    assert_eq!(world.channel_events(), [ChannelEventKind::Count(100)]);
    world.cores.hubs[0].sweep(20_000);
    assert_eq!(world.channel_events(), []);
}
