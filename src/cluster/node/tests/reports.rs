//! What a node publishes because another one, or a back end of its own, has ended.

use super::super::membership::REPORTS;
use super::*;

const TOPIC: &str = "Market\0S!a";

fn app_of(world: &World) -> u32 {
    world.env.app_of_log_id("@zenith").expect("its number")
}

/// How many removals of a picture the log has.
fn removals(log: &Rc<RefCell<SimLog>>) -> usize {
    let is_removal = |(.., body): &(u64, u64, Vec<u8>)| {
        entry::read(body).is_ok_and(|entry| entry.channel == TOPIC && !entry.own.is_empty())
    };
    log.borrow().entries.iter().filter(|entry| is_removal(entry)).count()
}

#[test]
fn cluster_node_reports_of_ends_are_published_in_turns() {
    let mut world = World::joined(1, &Rc::default());
    let app = app_of(&world);
    for n in 0..=REPORTS {
        world.node.reports.push_back((app, format!("Market\0S!{n}"), Event::clear()));
    }
    world.turn();
    assert_eq!(world.node.reports.len(), 1);
    world.turn();
    assert_eq!(world.node.reports.len(), 0);
    world.rest();
}

#[test]
fn cluster_node_reports_of_ends_wait_for_room() {
    let log: Rc<RefCell<SimLog>> = Rc::default();
    let mut world = World::joined(1, &log);
    let report = (app_of(&world), TOPIC.to_owned(), Event::clear());
    let bound = world.env.config.cluster.as_deref().expect("a cluster").hold_bytes / 4 * 3;
    world.engine.detach(false, 0);
    world.turn();
    let (mut ticket, text) = (0, "x".repeat(50_000));
    while !world.node.queue.is_almost_full() {
        ticket += 1;
        world.publish(&format!("c{ticket}"), ticket, &text);
    }
    assert!(world.node.queue.bytes() >= bound && bound > 0);
    world.node.reports.push_back(report);
    world.turn();
    assert_eq!((world.node.reports.len(), removals(&log)), (1, 0));
    world.engine.attach();
    world.rest();
    assert_eq!((world.node.reports.len(), removals(&log)), (0, 1));
}

/// A removal that was not stored is published again when the log has that the back end has ended,
/// and only then.
#[test]
fn cluster_node_removal_of_a_picture_that_was_not_stored_is_published_again() {
    for is_away in [false, true] {
        let log: Rc<RefCell<SimLog>> = Rc::default();
        let mut world = World::joined(1, &log);
        let app = app_of(&world);
        if is_away {
            world.engine.detach(false, 0);
            world.turn();
        }
        let proposal = Proposal::new(app, TOPIC, Event::clear(), None);
        world.node.propose(proposal, &world.env.clone(), world.now);
        if is_away {
            let hold_ms = world.env.config.cluster.as_deref().expect("a cluster").hold_ms;
            world.wait(hold_ms + 200);
            assert_eq!(world.counters.cluster_refused.get(), 1);
            world.engine.attach();
        }
        world.rest();
        assert_eq!(removals(&log), usize::from(!is_away));
        let leave = Statement::Member { user: "0.1.1.0000000000000001".into(), member: None };
        let name = format!("#\0picture\0{TOPIC}").into();
        world.node.propose_state(&StateProposal { app, name, state: leave }, world.now);
        world.rest();
        assert_eq!(removals(&log), 1);
    }
}
