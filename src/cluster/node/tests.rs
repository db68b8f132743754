//! Nodes on a simulated engine, in virtual time.

mod adding;
mod counting;
mod dialects;
mod formats;
mod history;
mod keys;
mod limits;
mod lives;
mod reading;
#[cfg(feature = "zenith")]
mod reports;
mod storing;

use super::super::events::event_of;
use super::super::sim::{SimEngine, SimLog};
use super::*;
use crate::cluster::entry::PartContent;
use crate::config::{ClusterAcks, Config};
use crate::dialect::{Event, EventPayload, Member, StateProposal, pusher};
use crate::hub::{Ack, CacheEntry, ClientEvent, Excluded, Retention, Statement};
use crate::mem::Frozen;
use crate::mem::Slot;
use crate::runtime::ClusterPhase;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

const KEEP_MS: u64 = 60_000;

fn env() -> Arc<Env> {
    env_with(ClusterAcks::Engine)
}

fn env_with(acks: ClusterAcks) -> Arc<Env> {
    let cluster = Cluster { engine: vec!["nats://a:1".to_owned()], acks, ..Cluster::default() };
    let config = Config { cluster: Some(Box::new(cluster)), ..Config::demo() };
    Arc::new(Env::new(config, 0).expect("an environment"))
}

/// A node with its connection, and what its cores have got.
struct World {
    node: ClusterNode,
    engine: SimEngine,
    env: Arc<Env>,
    counters: Arc<Counters>,
    applied: Vec<String>,
    epochs: Vec<u64>,
    /// The outcome of each event, by its ticket.
    outcomes: BTreeMap<u32, Option<Unpublished>>,
    gaps: usize,
    /// What all cores have got about nodes.
    notes: Vec<(u16, String)>,
    /// What is not of an event, in words.
    states: Vec<String>,
    now: NodeTime,
}

impl World {
    fn new(id: u64, log: &Rc<RefCell<SimLog>>) -> World {
        World::of(id, log, env())
    }

    fn of(id: u64, log: &Rc<RefCell<SimLog>>, env: Arc<Env>) -> World {
        let counters = Arc::new(Counters::default());
        let setup = NodeSetup { id, hasher: Hasher::new(7), cores: 2, counters: counters.clone() };
        let cluster = env.config.cluster.as_deref().expect("a cluster");
        World {
            node: ClusterNode::new(setup, cluster, 0),
            engine: SimEngine::new(log),
            env: env.clone(),
            counters,
            applied: Vec::new(),
            epochs: Vec::new(),
            outcomes: BTreeMap::new(),
            gaps: 0,
            notes: Vec::new(),
            states: Vec::new(),
            now: NodeTime { ms: 0, unix_ms: 0 },
        }
    }

    fn propose(&mut self, channel: &str, ticket: u32, event: Event) {
        self.propose_in(0, channel, ticket, event);
    }

    fn propose_in(&mut self, app: u32, channel: &str, ticket: u32, event: Event) {
        let slot = Slot { index: 0, generation: 1 };
        let origin = Some((1, Ack { slot, ticket, part: 0 }));
        let proposal = Proposal::new(app, channel, event, origin);
        self.node.propose(proposal, &self.env.clone(), self.now);
    }

    fn publish(&mut self, channel: &str, ticket: u32, text: &str) {
        self.propose(channel, ticket, Frozen::new(text.as_bytes()).into());
    }

    fn turn(&mut self) {
        self.node.turn(&mut self.engine, &self.env, self.now);
        while let Some((core, arrival)) = self.node.next_arrival() {
            match arrival {
                Arrival::Apply { app, channel, event, place } => {
                    assert_eq!(core, Hasher::new(7).home(app, &channel, 2));
                    if let Some((number, _)) = zilliqa::logged_epoch(&event) {
                        self.epochs.push(number);
                        continue;
                    }
                    let frame = event.frame().map(|frame| frame.to_vec()).unwrap_or_default();
                    let text = String::from_utf8(frame).expect("text");
                    let again = place.is_some_and(|place| place.was_delivered);
                    let again = if again { " again" } else { "" };
                    self.applied.push(format!("{channel} {text}{again}"));
                }
                Arrival::Settled { ack, failed } => {
                    assert_eq!(core, 1);
                    let before = self.outcomes.insert(ack.ticket, failed.map(|(_, why)| why));
                    assert_eq!(before, None, "{} has two outcomes", ack.ticket);
                }
                Arrival::Gap => self.gaps += 1,
                Arrival::Log(_) => {}
                other => {
                    self.notes.push((core, format!("{other:?}")));
                    self.note(core, &other);
                }
            }
        }
    }

    fn note(&mut self, core: u16, arrival: &Arrival) {
        let home = |app: u32, channel: &str| {
            assert_eq!(core, Hasher::new(7).home(app, channel, 2));
        };
        let words = match arrival {
            Arrival::Member { app, channel, author, user, member } => {
                home(*app, channel);
                let sign = if member.is_some() { '+' } else { '-' };
                format!("{channel} {sign}{user} {}", author.is_ours)
            }
            Arrival::Count { app, channel, author, count } => {
                home(*app, channel);
                format!("{channel} {} {}", count.all, author.is_ours)
            }
            Arrival::Unstated { app, channel, user, why } => {
                home(*app, channel);
                format!("{channel} {user:?} {why:?}")
            }
            Arrival::Published { app, channel, client_event } => {
                home(*app, channel);
                format!("{channel} {}", client_event.event)
            }
            // Each core gets it.
            other => format!("{core} {other:?}"),
        };
        self.states.push(words);
    }

    fn state(&mut self, channel: &str, state: Statement<crate::dialect::DialectMessage>) {
        self.state_in(0, channel, state);
    }

    fn state_in(
        &mut self,
        app: u32,
        channel: &str,
        state: Statement<crate::dialect::DialectMessage>,
    ) {
        let proposal = StateProposal { app, name: channel.into(), state };
        self.node.propose_state(&proposal, self.now);
    }

    fn taken(&mut self) -> Vec<String> {
        std::mem::take(&mut self.states)
    }

    fn wait(&mut self, ms: u64) {
        self.now.ms += ms;
        self.now.unix_ms += ms;
        self.turn();
    }

    fn phase(&self) -> ClusterPhase {
        self.env.runtime.cluster.phase()
    }

    /// A node that has joined.
    fn joined(id: u64, log: &Rc<RefCell<SimLog>>) -> World {
        let mut world = World::new(id, log);
        world.turn();
        assert_eq!(world.phase(), ClusterPhase::Joining);
        world.engine.attach();
        world.rest();
        assert_eq!(world.phase(), ClusterPhase::Joined);
        world
    }

    /// Runs without faults until nothing is under way.
    fn rest(&mut self) {
        for _ in 0..100_000 {
            self.turn();
            self.engine.store(true, self.now.ms);
            self.engine.deliver(1);
            if self.node.is_idle() && !self.engine.has_work() {
                return;
            }
            if self.engine.is_up {
                self.wait(1);
            }
            if !self.engine.has_work() {
                return self.turn();
            }
        }
        panic!("it does not come to rest");
    }
}

/// Whether an entry of the log has events.
fn is_event((.., body): &(u64, u64, Vec<u8>)) -> bool {
    entry::read(body).is_ok_and(|entry| !entry.events.is_empty())
}

#[test]
fn cluster_node_applies_what_it_publishes_when_it_comes_back() {
    let log = Rc::default();
    let (mut first, mut second) = (World::joined(1, &log), World::joined(2, &log));
    first.publish("a", 1, "one");
    first.turn();
    assert_eq!((first.applied.len(), first.outcomes.len()), (0, 0), "the engine has not stored it");
    first.rest();
    second.rest();
    assert_eq!(first.outcomes, BTreeMap::from([(1, None)]));
    assert_eq!((&first.applied, &second.applied), (&vec!["a one".into()], &vec!["a one".into()]));
}

#[test]
fn cluster_node_member_leaves_after_the_events_that_were_published_before() {
    let log: Rc<RefCell<SimLog>> = Rc::default();
    let mut world = World::joined(1, &log);
    world.publish("presence-a", 1, "first");
    world.turn();
    // The first event is under way, so the last one of the member waits.
    world.publish("presence-a", 2, "last");
    world.state("presence-a", user("ada", false));
    world.state("presence-a", user("bob", true));
    world.publish("presence-a", 3, "after");
    world.rest();
    let mut order = Vec::new();
    for (.., body) in &log.borrow().history {
        let entry = entry::read(body).expect("an entry");
        order.extend(std::iter::repeat_n("event", entry.events.len()));
        order.extend(entry.states.iter().map(|state| match state {
            entry::StatePart::Member { present: Some(_), .. } => "join",
            entry::StatePart::Member { present: None, .. } => "leave",
            _ => "another",
        }));
    }
    assert_eq!(order, ["event", "join", "event", "event", "leave"]);
}

fn user(id: &str, is_here: bool) -> Statement<crate::dialect::DialectMessage> {
    let frame = |text: &[u8]| Frozen::new(text).into();
    let member =
        Member { id: id.into(), info: None, added: frame(b"+"), removed: frame(b"-"), max: 0 };
    Statement::Member { user: id.into(), member: is_here.then(|| Arc::new(member)) }
}

#[test]
fn cluster_node_states_replace_earlier_ones_and_are_read_by_all() {
    let log: Rc<RefCell<SimLog>> = Rc::default();
    let (mut first, mut second) = (World::joined(1, &log), World::joined(2, &log));
    let before = log.borrow().entries.len();
    first.state("presence-a", Statement::Count(1.into()));
    first.state("presence-a", user("ada", true));
    first.rest();
    second.rest();
    assert_eq!(first.taken(), ["presence-a 1 true", "presence-a +ada true"]);
    assert_eq!(second.taken(), ["presence-a 1 false", "presence-a +ada false"]);
    first.state("presence-a", user("ada", false));
    first.rest();
    assert_eq!(first.taken(), ["presence-a -ada true"]);
    // A node that comes later reads what is true now, and beats besides.
    let later = World::joined(3, &log).taken();
    assert_eq!(later, ["presence-a 1 false", "presence-a -ada false"]);
    assert!(log.borrow().entries.len() <= before + 3, "each subject has one entry");
}

/// A state that is read but not answered, as when no replica of the engine acknowledges it, is
/// followed by the next one at once, and never reported as not stored.
#[test]
fn cluster_node_states_that_are_read_need_no_answer() {
    let mut world = World::joined(1, &Rc::default());
    for is_here in [true, false, true] {
        world.state("presence-a", user("ada", is_here));
        world.turn();
        world.engine.store(false, 0);
        for _ in 0..3 {
            world.engine.deliver(1);
            world.turn();
        }
    }
    let all = ["presence-a +ada true", "presence-a -ada true", "presence-a +ada true"];
    assert_eq!(world.taken(), all);
    assert!(world.node.is_idle());
    world.wait(20_000);
    assert_eq!(world.taken(), [""; 0]);
}

#[test]
fn cluster_node_states_that_are_not_stored_are_reported() {
    let mut world = World::joined(1, &Rc::default());
    world.engine.detach(false, 0);
    world.turn();
    world.state("presence-a", user("ada", true));
    world.state("a", Statement::Count(1.into()));
    world.wait(7999);
    assert_eq!(world.taken(), [""; 0]);
    world.wait(101);
    let mut failed = world.taken();
    failed.sort();
    assert_eq!(failed, ["a None Refused", "presence-a Some(\"ada\") Refused"]);
}

#[test]
fn cluster_node_reports_a_client_event_when_it_is_stored() {
    let mut world = World::joined(1, &Rc::default());
    let (event, from) = ("client-a".into(), "1.1".into());
    let client_event = Arc::new(ClientEvent { event, data: None, from, user: None });
    let event = Event { notify: Some(client_event), ..Frozen::new(b"f").into() };
    let proposal = Proposal::new(0, "private-a", event, None);
    world.node.propose(proposal.clone(), &world.env.clone(), world.now);
    world.turn();
    assert_eq!(world.taken(), [""; 0]);
    world.rest();
    assert_eq!(world.taken(), ["private-a client-a"]);
    // One that is not stored is not reported.
    world.engine.detach(false, 0);
    world.node.propose(proposal, &world.env.clone(), world.now);
    world.turn();
    world.wait(8100);
    assert_eq!(world.taken(), [""; 0]);
}

#[test]
fn cluster_node_death_ends_its_states() {
    let log: Rc<RefCell<SimLog>> = Rc::default();
    let (mut first, mut second) = (World::joined(1, &log), World::joined(2, &log));
    first.state("presence-a", user("ada", true));
    first.rest();
    second.rest();
    second.taken();
    let until = second.now.ms + 8000;
    while second.now.ms < until {
        second.wait(100);
        second.rest();
    }
    let words = second.taken();
    for core in 0..2 {
        let words_of = format!("{core} NodeGone(StateAuthor {{ node: 1, is_ours: true }})");
        assert!(words.contains(&words_of), "{words:?}");
    }
    // Its states are removed from the log, and count no more.
    let has_state =
        |it: &(u64, u64, Vec<u8>)| !entry::read(&it.2).expect("an entry").states.is_empty();
    assert!(!log.borrow().entries.iter().any(has_state));
}

#[test]
fn cluster_node_excludes_a_connection_of_its_own_only() {
    let log = Rc::default();
    let (mut first, mut second) = (World::joined(1, &log), World::joined(2, &log));
    // All nodes of this test have the same key of socket ids, so the other one's is another key.
    let conn = crate::hub::ConnId { core: 1, slot: Slot { index: 3, generation: 9 } };
    let own = Event { except: Some(conn.into()), ..Frozen::new(b"own").into() };
    let part = part_of(&own, &first.env).expect("it is carried").0;
    let bytes = entry::write((1, 1), "1", "a", [&*part].into_iter());
    let read = |world: &World| {
        let entry = entry::read(&bytes).expect("an entry");
        event_of(entry.events[0].clone(), 0, &world.env).except
    };
    assert_eq!(read(&first), Some(Excluded::from(conn)));
    let other = crate::dialect::SocketIds::new([9; 16]);
    Arc::get_mut(&mut second.env).expect("nobody else has it").socket_ids = other;
    assert_ne!(read(&second), Some(Excluded::from(conn)));
    first.rest();
}

#[test]
fn cluster_node_carries_cached_events_and_closes() {
    let world = World::joined(1, &Rc::default());
    let there = |event: &Event, age_ms: u64| {
        let (part, kept_s) = part_of(event, &world.env)?;
        let bytes = entry::write((1, 1), "1", "a", [&*part].into_iter());
        let entry = entry::read(&bytes).ok()?;
        Some((event_of(entry.events[0].clone(), age_ms, &world.env), kept_s))
    };
    let entry = CacheEntry { ttl_ms: 1500, event: "e".into(), data: "d".into() };
    let retain = Retention::Cache(Arc::new(entry));
    let cached = Event { retain, ..Frozen::new(b"frame").into() };
    let (event, kept_s) = there(&cached, 500).expect("it is carried");
    let Retention::Cache(entry) = &event.retain else { panic!("{event:?}") };
    assert_eq!((kept_s, entry.ttl_ms, &*entry.event, &*entry.data), (2, 1000, "e", "d"));
    assert_eq!(event.frame().map(|it| it.to_vec()), Some(b"frame".to_vec()));
    let payload = EventPayload::Close(4009, pusher::DATA.codes.terminated);
    let close = Event { payload, ..Event::default() };
    let (event, _) = there(&close, 0).expect("it is carried");
    assert!(matches!(event.payload, EventPayload::Close(4009, text) if !text.is_empty()));
    // What a cluster does not carry is refused.
    assert!(there(&Event::clear(), 0).is_none());
}

#[test]
fn cluster_node_reports_what_was_not_stored() {
    let log = Rc::default();
    let mut world = World::joined(1, &log);
    world.engine.detach(false, 0);
    world.turn();
    world.publish("a", 1, "never sent");
    world.wait(7999);
    assert_eq!((world.phase(), world.outcomes.len()), (ClusterPhase::Joined, 0));
    world.wait(101);
    assert_eq!(world.outcomes, BTreeMap::from([(1, Some(Unpublished::Refused))]));
    assert_eq!(world.phase(), ClusterPhase::Away);
    world.engine.attach();
    world.rest();
    assert_eq!(world.phase(), ClusterPhase::Joined);
    world.publish("a", 2, "no answer");
    world.turn();
    world.wait(8000);
    assert_eq!(world.outcomes[&2], Some(Unpublished::Unknown));
    // It arrives after all.
    world.rest();
    assert_eq!(world.applied, ["a no answer"]);
}

#[test]
fn cluster_node_queue_that_is_full_refuses_at_once() {
    let mut world = World::joined(1, &Rc::default());
    world.engine.detach(false, 0);
    world.turn();
    let text = "x".repeat(1_000_000);
    (0..8).for_each(|ticket| world.publish(&format!("c{ticket}"), ticket, &text));
    world.state("presence-a", user("ada", true));
    world.turn();
    // Seven of them have room in seven eighths of 8 MiB, with what each takes besides its text.
    assert_eq!(world.outcomes, BTreeMap::from([(7, Some(Unpublished::Refused))]));
    assert_eq!(world.counters.cluster_refused.get(), 1);
    world.engine.attach();
    world.rest();
    assert_eq!(world.taken(), ["presence-a +ada true"], "states have room");
}

#[test]
fn cluster_node_channel_with_many_events_leaves_room_for_others() {
    let mut world = World::joined(1, &Rc::default());
    world.engine.detach(false, 0);
    world.turn();
    let text = "x".repeat(1_000_000);
    (0..6).for_each(|ticket| world.publish("a", ticket, &text));
    (10..13).for_each(|ticket| world.publish("b", ticket, &text));
    world.turn();
    // Four of a channel have room in 4 MiB.
    let refused = [4, 5].map(|ticket| (ticket, Some(Unpublished::Refused)));
    assert_eq!(world.outcomes, BTreeMap::from(refused));
    assert_eq!(world.counters.cluster_refused.get(), 2);
    world.engine.attach();
    world.rest();
    assert_eq!((world.applied.len(), world.counters.cluster_refused.get()), (7, 2));
}

#[test]
fn cluster_node_refuses_events_when_the_log_is_almost_full() {
    let mut world = World::joined(1, &Rc::default());
    let bound = (1 << 30) / 100 * 80;
    for (ticket, bytes, outcome) in
        [(1, bound - 1, None), (2, bound, Some(Unpublished::Refused)), (3, bound - 1, None)]
    {
        world.engine.size(bytes);
        world.turn();
        world.publish("a", ticket, "event");
        world.rest();
        assert_eq!(world.outcomes[&ticket], outcome, "{bytes}");
        assert_eq!(world.counters.cluster_log_bytes.get(), bytes);
    }
    // States have more room, and their ends all of it.
    let bound = (1 << 30) / 100 * 95;
    for (bytes, user_id, takes) in
        [(bound - 1, "ada", true), (bound, "bob", false), (bound - 1, "cyd", true)]
    {
        world.engine.size(bytes);
        world.turn();
        world.state("presence-a", user(user_id, true));
        world.rest();
        let taken = world.taken().join(" ");
        assert_eq!(taken.contains(&format!("+{user_id} true")), takes, "{taken}");
    }
    world.engine.size(u64::MAX);
    world.turn();
    world.state("presence-a", user("ada", false));
    world.rest();
    let taken = world.taken().join(" ");
    assert!(taken.contains("-ada"), "{taken}");
    // This node renews its entry all the same.
    let renewals = world.counters.cluster_node_renewals.get();
    world.wait(1000);
    world.rest();
    assert!(world.counters.cluster_node_renewals.get() > renewals);
}

#[test]
fn cluster_node_skips_what_it_cannot_read() {
    let log: Rc<RefCell<SimLog>> = Rc::default();
    let mut world = World::joined(1, &log);
    let foreign = entry::write((2, 1), "no such application", "a", [&b"\0x"[..]].into_iter());
    for body in [foreign, b"\x02".to_vec(), vec![]] {
        let mut log = log.borrow_mut();
        log.last += 1;
        let last = log.last;
        log.entries.push((last, 0, body));
    }
    world.rest();
    assert_eq!((world.applied.len(), world.counters.cluster_skipped.get()), (0, 3));
    assert_eq!(world.node.follower.position(), log.borrow().last);
}

/// `polycast doctor` writes such entries to measure the engine.
#[test]
fn cluster_node_takes_no_notice_of_entries_without_parts() {
    let log: Rc<RefCell<SimLog>> = Rc::default();
    let mut world = World::joined(1, &log);
    let counts = |world: &World| {
        let counters = &world.counters;
        (counters.cluster_entries.get(), counters.cluster_skipped.get())
    };
    let before = counts(&world);
    log.borrow_mut().last += 1;
    let last = log.borrow().last;
    log.borrow_mut().entries.push((last, 0, entry::write((9, 1), "", "", [].into_iter())));
    world.rest();
    assert_eq!((counts(&world), world.node.follower.position()), (before, log.borrow().last));
}

/// An engine that has lost a server may store an entry again that is sent again.
#[test]
fn cluster_node_applies_an_entry_once_that_the_log_has_twice() {
    let log: Rc<RefCell<SimLog>> = Rc::default();
    let (mut first, mut second) = (World::joined(1, &log), World::joined(2, &log));
    for ticket in 1..=2 {
        first.publish("a", ticket, &ticket.to_string());
        first.rest();
    }
    {
        let mut log = log.borrow_mut();
        let (.., body) = log.entries.iter().find(|it| is_event(it)).expect("an event").clone();
        log.last += 1;
        let last = log.last;
        log.entries.push((last, 0, body));
    }
    for world in [&mut first, &mut second] {
        world.rest();
        assert_eq!(world.applied, ["a 1", "a 2"]);
        assert_eq!(world.counters.cluster_repeated.get(), 1);
        assert_eq!(world.node.follower.position(), log.borrow().last);
    }
}

/// An event that is sent again when the log is lost may be in two logs. It has a place in the next
/// one on all nodes, and the cores know whether it was delivered before.
#[test]
fn cluster_node_applies_an_entry_of_a_lost_log_in_the_next_one() {
    let log: Rc<RefCell<SimLog>> = Rc::default();
    let (mut first, mut second) = (World::joined(1, &log), World::joined(2, &log));
    first.publish("a", 1, "one");
    first.turn();
    first.engine.store(false, 0);
    second.rest();
    for world in [&mut first, &mut second] {
        world.engine.detach(false, 0);
        world.turn();
    }
    log.borrow_mut().lose();
    for world in [&mut first, &mut second] {
        world.engine.attach();
        world.rest();
    }
    second.rest();
    // And twice in the same log it is repeated.
    let at = log.borrow().entries.iter().position(is_event).expect("an event");
    log.borrow_mut().repeat(at, 0);
    for world in [&mut first, &mut second] {
        world.rest();
    }
    assert_eq!(first.outcomes, BTreeMap::from([(1, None)]));
    assert_eq!(first.applied, ["a one"]);
    assert_eq!(second.applied, ["a one", "a one again"]);
    let repeated = [&first, &second].map(|world| world.counters.cluster_repeated.get());
    assert_eq!(repeated, [1, 2]);
}

/// A log that has lost its end still has its beginning, which is read again.
#[test]
fn cluster_node_applies_an_entry_of_the_end_that_the_log_has_lost() {
    let log: Rc<RefCell<SimLog>> = Rc::default();
    let mut world = World::joined(1, &log);
    for ticket in 1..=2 {
        world.publish("a", ticket, &ticket.to_string());
        world.rest();
    }
    world.engine.detach(false, 0);
    world.turn();
    let bodies: Vec<_> = log.borrow().entries.iter().filter(|it| is_event(it)).cloned().collect();
    {
        let mut log = log.borrow_mut();
        log.last = bodies[0].0;
        log.entries.retain(|(sequence, ..)| *sequence <= bodies[0].0);
    }
    world.engine.attach();
    world.rest();
    // Both come once more; the log has the first one, and not the second.
    for (.., body) in bodies {
        let mut log = log.borrow_mut();
        log.last += 1;
        let last = log.last;
        log.entries.push((last, 0, body));
    }
    world.rest();
    assert_eq!(world.applied, ["a 1", "a 2", "a 2 again"]);
}

#[test]
fn cluster_node_that_comes_back_after_entries_have_expired_has_a_gap() {
    // The follower's tests have the exact bound.
    for (away_ms, gaps) in [(KEEP_MS - 2100, 0), (KEEP_MS - 1900, 2)] {
        let log: Rc<RefCell<SimLog>> = Rc::default();
        let (mut first, mut second) = (World::joined(1, &log), World::joined(2, &log));
        first.rest();
        second.engine.detach(false, 0);
        second.turn();
        let since = second.now.ms;
        first.publish("a", 1, "one");
        first.rest();
        second.now.ms = since + away_ms;
        second.engine.attach();
        log.borrow_mut().expire(if gaps > 0 { u64::MAX } else { 0 });
        second.rest();
        assert_eq!((second.gaps, second.applied.len()), (gaps, 1 - gaps / 2), "{away_ms}");
    }
}

/// A node that is declared dead, and one whose log was lost: all cores learn of it in order.
#[test]
fn cluster_node_lets_its_cores_know_of_deaths_and_other_logs() {
    let log: Rc<RefCell<SimLog>> = Rc::default();
    let (mut first, mut second) = (World::joined(1, &log), World::joined(2, &log));
    let run = |world: &mut World, ms: u64| {
        for _ in 0..ms / 100 {
            world.wait(100);
            (0..5).for_each(|_| world.engine.store(true, world.now.ms));
            (0..20).for_each(|_| world.engine.deliver(1));
            world.turn();
        }
    };
    for world in [&mut first, &mut second] {
        run(world, 1000);
        assert_eq!(world.notes, []);
    }
    second.engine.detach(false, second.now.ms);
    second.turn();
    second.publish("a", 1, "before it knows");
    run(&mut first, 10_000);
    let on_both = |text: &str| [0, 1].map(|core| (core, text.to_owned()));
    let died = |is_ours| format!("NodeGone(StateAuthor {{ node: 2, is_ours: {is_ours} }})");
    assert_eq!(first.notes, on_both(&died(true)));
    let ended = second.now.ms + 10_000;
    second.now = NodeTime { ms: ended, unix_ms: ended };
    second.engine.attach();
    run(&mut second, 100);
    assert_eq!(second.notes, [on_both(&died(false)), on_both("Restate")].concat());
    assert_eq!(second.outcomes, BTreeMap::from([(1, Some(Unpublished::Refused))]));
    assert_eq!(second.env.runtime.cluster.nodes().len(), 2);
    // Whoever has the lower id leads, and reports what the other log does not have.
    first.notes.clear();
    second.notes.clear();
    for world in [&mut first, &mut second] {
        world.engine.detach(false, world.now.ms);
        world.turn();
    }
    log.borrow_mut().lose();
    first.now = second.now;
    for world in [&mut first, &mut second] {
        world.engine.attach();
        run(world, 100);
        assert_eq!(world.notes, [on_both("RefreshBegin"), on_both("Restate")].concat());
        world.notes.clear();
    }
    for _ in 0..70 {
        run(&mut first, 100);
        run(&mut second, 100);
    }
    let now_leads = second.env.runtime.cluster.is_leader();
    assert_ne!(first.env.runtime.cluster.is_leader(), now_leads);
    for (world, is_ours) in [(&first, !now_leads), (&second, now_leads)] {
        assert_eq!(world.notes, on_both(&format!("RefreshEnd {{ is_ours: {is_ours} }}")));
    }
}

/// Any faults between two nodes and the engine: both apply the log, once and in its order, and
/// outcomes are true.
#[test]
fn cluster_sim_nodes_apply_the_log_once_and_in_order() {
    for seed in 0..100 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let log: Rc<RefCell<SimLog>> = Rc::default();
        let mut worlds = [World::joined(1, &log), World::joined(2, &log)];
        let mut published = 0;
        for _ in 0..rng.usize(50..400) {
            let at = rng.usize(..2);
            let world = &mut worlds[at];
            let now_ms = world.now.ms;
            match rng.u8(..20) {
                0..6 => {
                    published += 1;
                    let channel = ["a", "b", "c"][rng.usize(..3)];
                    world.publish(channel, published, &published.to_string());
                }
                6..10 => world.engine.store(rng.u8(..10) > 0, now_ms),
                10 => world.engine.refuse(rng.bool(), now_ms),
                11..15 => world.engine.deliver(rng.usize(1..3)),
                15 if world.engine.is_up => world.engine.detach(rng.bool(), now_ms),
                // After a delivery that was lost the state of the log is asked for again.
                15 | 16 => world.engine.attach(),
                _ => world.wait(rng.u64(1..1500)),
            }
            world.turn();
        }
        for world in &mut worlds {
            if !world.engine.is_up {
                world.engine.attach();
            }
            world.rest();
            world.wait(8000);
            world.rest();
        }
        worlds[0].rest();
        judge(&worlds, &log.borrow(), seed);
    }
}

fn judge(worlds: &[World], log: &SimLog, seed: u64) {
    let mut stored = Vec::new();
    for (.., body) in &log.entries {
        let entry = entry::read(body).expect("an entry");
        for part in &entry.events {
            let PartContent::Frame { frame, .. } = &part.content else { panic!("a close") };
            stored.push(format!("{} {}", entry.channel, String::from_utf8_lossy(frame)));
        }
    }
    for world in worlds {
        assert_eq!(world.applied, stored, "seed {seed}");
        assert_eq!(world.gaps, 0);
        for (ticket, outcome) in &world.outcomes {
            let ends = format!(" {ticket}");
            let count = stored.iter().filter(|it| it.ends_with(&ends)).count();
            match outcome {
                None => assert_eq!(count, 1, "seed {seed}: {ticket} was acknowledged"),
                Some(Unpublished::Refused) => assert_eq!(count, 0, "seed {seed}: {ticket}"),
                Some(Unpublished::Unknown) => assert!(count <= 1, "seed {seed}: {ticket}"),
                Some(Unpublished::KeyUsed) => panic!("no event has a key"),
            }
        }
    }
}

#[test]
fn cluster_node_goes_on_with_another_log() {
    let log: Rc<RefCell<SimLog>> = Rc::default();
    let mut world = World::joined(1, &log);
    for ticket in 1..=3 {
        world.publish("a", ticket, &ticket.to_string());
        world.rest();
    }
    world.engine.detach(false, 0);
    log.borrow_mut().lose();
    world.engine.attach();
    world.rest();
    world.publish("a", 4, "4");
    world.rest();
    assert_eq!(world.applied, ["a 1", "a 2", "a 3", "a 4"]);
    assert_eq!((world.counters.cluster_epochs.get(), world.gaps), (1, 0));
}
