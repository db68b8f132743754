//! What has no application: groups of `reflect`, and epochs of the Zilliqa dialect.

use super::*;
use crate::config::{EndpointKind, Route};
use crate::dialect::reflect;
use crate::hub::HistoryLimit;

fn with_history(world: &mut World, history: u32) {
    let mut route = Route::to(EndpointKind::Reflect);
    route.reflect.history = history;
    let config = Config { routes: vec![route], ..world.env.config.clone() };
    let env = Env::new(config, 0).expect("an environment");
    env.runtime.cluster.set(ClusterPhase::Joined);
    world.env = Arc::new(env);
}

#[test]
fn cluster_node_carries_groups_without_an_application() {
    let log: Rc<RefCell<SimLog>> = Rc::default();
    let (mut first, mut second) = (World::joined(1, &log), World::joined(2, &log));
    let group: Arc<str> = "[] [] {} ".into();
    for (history, ttl_s) in [(0, 60), (7, 3600)] {
        let limit = HistoryLimit { max: history, ttl_s: 3600, bytes: 1 };
        let retain = if history > 0 { Retention::History(limit) } else { Retention::Nothing };
        with_history(&mut first, history);
        let event = Event { retain, ..Frozen::new(b"said").into() };
        let proposal = Proposal::new(reflect::APP, group.clone(), event, None);
        first.node.propose(proposal, &first.env.clone(), first.now);
        let subject = "polycast.i.@reflect.%5B%5D%20%5B%5D%20%7B%7D%20".to_owned();
        for _ in 0..100 {
            first.turn();
            first.engine.store(true, 0);
            if log.borrow().last_subject() == Some(&(subject.clone(), Some(ttl_s))) {
                break;
            }
        }
        assert_eq!(log.borrow().last_subject(), Some(&(subject, Some(ttl_s))));
        for world in [&mut first, &mut second] {
            let before = world.applied.len();
            world.rest();
            assert_eq!(world.applied[before..], ["[] [] {}  said"]);
        }
    }
    // Each node keeps what its own configuration says.
    let event = || Event::from(Frozen::new(b"said"));
    with_history(&mut second, 3);
    for (world, max) in [(&first, 7), (&second, 3)] {
        let event = dialect::from_log(&world.env, (reflect::APP, &group), 0, event());
        assert!(matches!(event.retain, Retention::History(limit) if limit.max == max), "{event:?}");
    }
}

#[test]
fn cluster_node_refuses_events_of_what_the_log_has_no_name_for() {
    let mut world = World::joined(1, &Rc::default());
    let ack = Ack { slot: Slot { index: 0, generation: 1 }, ticket: 7, part: 0 };
    let (event, origin) = (Frozen::new(b"x").into(), Some((1, ack)));
    let proposal = Proposal::new(u32::MAX, "a", event, origin);
    world.node.propose(proposal, &world.env.clone(), world.now);
    world.turn();
    assert_eq!(world.outcomes, BTreeMap::from([(7, Some(Unpublished::Refused))]));
}

#[cfg(feature = "zilliqa")]
mod epochs {
    use super::*;
    use crate::cluster::epochs::WAITING;
    use crate::dialect::zilliqa::epoch::{Epoch, Strictness};
    use crate::dialect::zilliqa::{APP, CHANNEL, ZilliqaMessage};
    use crate::runtime::PIECE_BYTES;

    impl World {
        /// Publishes an epoch whose document has this many further bytes.
        fn publish_epoch(&mut self, number: u64, ticket: u32, bytes: usize) {
            let pad = "x".repeat(bytes);
            let text = format!(
                r#"{{"TxBlock":{{"header":{{"BlockNum":"{number}"}},"p":"{pad}"}},"TxHashes":[]}}"#
            );
            let epoch = Epoch::read(text, Strictness::Refuse).expect("an epoch");
            self.send_epoch(ticket, ZilliqaMessage::Epoch(Arc::new(epoch)));
        }

        fn send_epoch(&mut self, ticket: u32, message: ZilliqaMessage) {
            let ack = Ack { slot: Slot { index: 0, generation: 1 }, ticket, part: 0 };
            let (event, origin) = (Event::message(message.into()), Some((1, ack)));
            let proposal = Proposal::new(APP, CHANNEL, event, origin);
            self.node.propose(proposal, &self.env.clone(), self.now);
        }

        fn last_epoch(&self) -> Option<u64> {
            self.env.zilliqa.last()
        }
    }

    #[test]
    fn cluster_node_publishes_epochs_of_any_size_for_all_nodes() {
        let log: Rc<RefCell<SimLog>> = Rc::default();
        let (mut first, mut second) = (World::joined(1, &log), World::joined(2, &log));
        for (ticket, bytes) in [(1, 10), (2, PIECE_BYTES), (3, 5 * PIECE_BYTES)] {
            first.publish_epoch(ticket.into(), ticket, bytes);
            first.turn();
            assert!(!first.outcomes.contains_key(&ticket), "the engine has not stored it");
            first.rest();
            second.rest();
            assert_eq!(first.outcomes[&ticket], None);
        }
        assert_eq!((&*first.epochs, &*second.epochs), (&[1, 2, 3][..], &[1, 2, 3][..]));
        assert_eq!(first.env.zilliqa.history_bytes(), second.env.zilliqa.history_bytes());
        assert!(log.borrow().last_subject().is_some());
        for world in [&first, &second] {
            assert_eq!((world.counters.epochs.get(), world.counters.last_epoch.get()), (3, 3));
            assert_eq!(world.counters.cluster_skipped.get(), 0);
        }
        // The second node's epoch of the same number is one that the engine has.
        second.publish_epoch(3, 9, 5 * PIECE_BYTES);
        second.publish_epoch(2, 10, 1);
        second.rest();
        first.rest();
        assert_eq!((first.epochs.len(), second.epochs.len()), (3, 3));
        // A mark is for nobody, and counts as an epoch.
        second.send_epoch(11, ZilliqaMessage::Begin(7));
        second.rest();
        first.rest();
        assert_eq!((first.last_epoch(), first.epochs.len()), (Some(7), 3));
        // A node that comes later reads all of it.
        let third = World::joined(3, &log);
        assert_eq!((&*third.epochs, third.last_epoch()), (&[1, 2, 3][..], Some(7)));
        assert_eq!(first.env.zilliqa.history_bytes(), third.env.zilliqa.history_bytes());
    }

    #[test]
    fn cluster_node_reports_which_epochs_were_not_stored() {
        let log: Rc<RefCell<SimLog>> = Rc::default();
        let mut world = World::joined(1, &log);
        world.engine.detach(false, 0);
        world.turn();
        for number in 1..=WAITING as u32 {
            world.publish_epoch(number.into(), number, 10);
        }
        assert_eq!(world.counters.cluster_refused.get(), 0);
        world.publish_epoch(99, 99, 10);
        assert_eq!(world.counters.cluster_refused.get(), 1);
        world.turn();
        assert_eq!(world.outcomes, BTreeMap::from([(99, Some(Unpublished::Refused))]));
        world.wait(8100);
        assert_eq!(world.outcomes.len(), WAITING + 1, "together, not one after the other");
        assert!(world.outcomes.values().all(|it| *it == Some(Unpublished::Refused)));
        world.engine.attach();
        world.rest();
        assert_eq!((world.epochs.len(), world.last_epoch()), (0, None));
        world.publish_epoch(1, 100, 10);
        world.rest();
        assert_eq!((&*world.epochs, world.outcomes[&100]), (&[1][..], None));
    }

    /// One step of a world: it publishes the epoch after the last one of the log, or anything
    /// happens between it and the engine.
    fn step(world: &mut World, at: usize, ticket: &mut u32, rng: &mut fastrand::Rng) {
        let now_ms = world.now.ms;
        match rng.u8(..20) {
            0..4 => {
                *ticket += 1;
                let bytes = if rng.u8(..4) == 0 { PIECE_BYTES } else { 0 } + at;
                let next = world.last_epoch().map_or(1, |last| last + 1);
                world.publish_epoch(next, *ticket, bytes);
            }
            4..9 => world.engine.store(rng.u8(..10) > 0, now_ms),
            9 => world.engine.refuse(rng.bool(), now_ms),
            10..15 => world.engine.deliver(rng.usize(1..3)),
            15 if world.engine.is_up => world.engine.detach(rng.bool(), now_ms),
            15 | 16 => world.engine.attach(),
            _ => world.wait(rng.u64(1..1000)),
        }
        world.turn();
    }

    /// Lets everything that is under way come to its end.
    fn settle(world: &mut World) {
        if !world.engine.is_up {
            world.engine.attach();
        }
        world.rest();
        world.wait(8000);
        world.rest();
    }

    /// Two nodes publish epochs whose documents differ and are in pieces at times; one ends in the
    /// middle, and one comes late. Every node gets each epoch once and in order, and the same
    /// documents.
    #[test]
    fn cluster_sim_epochs_reach_all_nodes_once_and_in_order() {
        let mut count = 0;
        for seed in 0..25 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let log: Rc<RefCell<SimLog>> = Rc::default();
            let mut worlds = vec![World::joined(1, &log), World::joined(2, &log)];
            let mut ticket = 0;
            let steps = rng.usize(100..400);
            for number in 0..steps {
                if number == steps / 2 {
                    // What it had under way arrives, or does not.
                    let mut dead = worlds.remove(rng.usize(..2));
                    dead.engine.detach(rng.bool(), dead.now.ms);
                    worlds.push(World::new(3, &log));
                    worlds[1].now = worlds[0].now;
                    worlds[1].engine.attach();
                }
                let at = rng.usize(..2);
                step(&mut worlds[at], at, &mut ticket, &mut rng);
            }
            (0..2).for_each(|_| worlds.iter_mut().for_each(settle));
            let next = worlds[0].last_epoch().map_or(1, |last| last + 1);
            worlds[1].publish_epoch(next, ticket + 1, 0);
            for _ in 0..100 {
                worlds[1].rest();
                worlds[1].wait(100);
            }
            worlds[0].rest();
            for world in &worlds {
                assert_eq!(world.epochs, (1..=next).collect::<Vec<_>>(), "seed {seed}");
                assert_eq!(world.counters.cluster_skipped.get(), 0, "seed {seed}");
            }
            let bytes = worlds[0].env.zilliqa.history_bytes();
            assert_eq!(worlds[1].env.zilliqa.history_bytes(), bytes, "seed {seed}: the documents");
            count += next;
        }
        assert!(count > 80, "{count} epochs");
    }
}
