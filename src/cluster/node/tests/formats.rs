//! Two releases in one cluster: what is written while both are there, and after the older one has
//! ended.

use super::*;

/// The formats of the older release, and of the newer one.
const OLD: (u8, u8) = (1, 1);
const NEW: (u8, u8) = (1, 2);

impl World {
    /// A process of a release that speaks these formats, which has reached the engine.
    fn of_release(id: u64, formats: (u8, u8), log: &Rc<RefCell<SimLog>>) -> World {
        let mut world = World::new(id, log);
        world.node.nodes.set_formats(formats);
        world.engine.attach();
        world
    }

    /// The words for what it has applied since the last call.
    fn heard(&mut self) -> Vec<String> {
        std::mem::take(&mut self.applied)
    }

    fn may_write(&self) -> bool {
        self.node.nodes.may_append(self.now.ms)
    }
}

/// Lets these processes run for so long; others stand still, or have ended.
fn pass(worlds: &mut [&mut World], ms: u64) {
    let mut now_ms = worlds.iter().map(|it| it.now.ms).max().unwrap_or(0);
    let end_ms = now_ms + ms;
    while now_ms < end_ms {
        now_ms += 50;
        for world in worlds.iter_mut() {
            world.now = NodeTime { ms: now_ms, unix_ms: now_ms };
            for _ in 0..3 {
                world.turn();
                while world.engine.has_work() {
                    world.engine.store(true, now_ms);
                    world.engine.deliver(9);
                    world.turn();
                }
            }
        }
    }
}

/// The format of the last entry with events or states.
fn last_format(log: &Rc<RefCell<SimLog>>) -> u8 {
    let log = log.borrow();
    let is_of_node = |body: &[u8]| entry::read(body).is_ok_and(|entry| !entry.nodes.is_empty());
    let last = log.history.iter().rev().find(|(.., body)| !is_of_node(body));
    last.expect("an entry").2[0]
}

#[test]
fn cluster_p18_highest_format_of_all_living_nodes_is_written() {
    let log = Rc::default();
    let mut old = World::of_release(1, OLD, &log);
    let mut new = World::of_release(2, NEW, &log);
    pass(&mut [&mut old, &mut new], 1000);
    assert_eq!([old.phase(), new.phase()], [ClusterPhase::Joined; 2]);
    new.publish("a", 1, "one");
    new.state("presence-a", user("ada", true));
    pass(&mut [&mut old, &mut new], 100);
    assert_eq!(last_format(&log), 1);
    for world in [&mut old, &mut new] {
        assert_eq!(world.heard(), ["a one"]);
        assert!(world.taken().iter().any(|it| it.starts_with("presence-a +ada")));
    }
    // As long as the older one may be alive its format is written.
    pass(&mut [&mut new], 4000);
    new.publish("a", 2, "two");
    pass(&mut [&mut new], 100);
    assert_eq!((last_format(&log), new.counters.cluster_nodes.get()), (1, 2));
    pass(&mut [&mut new], 3000);
    assert_eq!(new.counters.cluster_nodes.get(), 1);
    let mut third = World::of_release(3, NEW, &log);
    pass(&mut [&mut new, &mut third], 1000);
    third.publish("a", 3, "three");
    pass(&mut [&mut new, &mut third], 100);
    assert_eq!(last_format(&log), 2);
    third.state("presence-a", user("bob", true));
    pass(&mut [&mut new, &mut third], 100);
    assert_eq!(last_format(&log), 2);
    assert_eq!(
        (new.heard(), third.heard().pop()),
        (vec!["a two".into(), "a three".into()], Some("a three".into()))
    );
    assert!(new.taken().iter().any(|it| it.starts_with("presence-a +bob")));
    for world in [&new, &third] {
        let counters = &world.counters;
        assert_eq!((counters.cluster_skipped.get(), world.gaps), (0, 0));
    }
}

/// A release that does not speak the format in use waits, with `/ready` 503, until the nodes that
/// write it have ended, also if all of them end at once, so that no node declares them dead.
#[test]
fn cluster_p18_older_release_joins_when_it_can() {
    let log = Rc::default();
    let mut new = World::of_release(1, NEW, &log);
    pass(&mut [&mut new], 1000);
    new.publish("a", 1, "one");
    pass(&mut [&mut new], 100);
    assert_eq!(last_format(&log), 2);
    let mut old = World::of_release(2, OLD, &log);
    pass(&mut [&mut new, &mut old], 30_000);
    assert_eq!((old.phase(), old.env.runtime.cluster.is_ready()), (ClusterPhase::Joining, false));
    assert_eq!((old.heard(), old.counters.cluster_skipped.get()), (vec![], 1));
    assert_eq!((new.counters.cluster_nodes.get(), old.may_write()), (1, false));
    // It stands still for a long time, so it does not know whether the others live.
    pass(&mut [&mut new], 20_000);
    old.now = new.now;
    old.turn();
    pass(&mut [&mut new, &mut old], 3000);
    assert_eq!((old.phase(), new.counters.cluster_nodes.get()), (ClusterPhase::Joining, 1));
    pass(&mut [&mut old], 9000);
    assert_eq!(old.phase(), ClusterPhase::Joining);
    pass(&mut [&mut old], 2000);
    assert_eq!((old.phase(), old.env.runtime.cluster.is_ready()), (ClusterPhase::Joined, true));
    old.publish("a", 2, "two");
    pass(&mut [&mut old], 100);
    assert_eq!((last_format(&log), old.heard()), (1, vec!["a two".into()]));
    // The newer one comes back, too.
    let mut new = World::of_release(3, NEW, &log);
    pass(&mut [&mut old, &mut new], 6000);
    new.publish("a", 3, "three");
    pass(&mut [&mut old, &mut new], 100);
    assert_eq!((last_format(&log), old.heard()), (1, vec!["a three".into()]));
}

/// A node of the older release that stood still was declared dead, and the others have gone on in a
/// format that it cannot read. It closes its subscribers, who have missed something.
#[test]
fn cluster_p18_older_node_that_was_away_leaves_the_cluster() {
    let log = Rc::default();
    let mut old = World::of_release(1, OLD, &log);
    let mut new = World::of_release(2, NEW, &log);
    pass(&mut [&mut old, &mut new], 1000);
    pass(&mut [&mut new], 20_000);
    new.publish("a", 1, "one");
    pass(&mut [&mut new], 100);
    assert_eq!(last_format(&log), 2);
    pass(&mut [&mut new, &mut old], 5000);
    assert_eq!(old.phase(), ClusterPhase::Joining, "it is none of the nodes");
    assert_eq!((old.heard(), old.counters.cluster_skipped.get()), (vec![], 1));
    assert!(old.gaps > 0, "its subscribers are closed");
    old.publish("a", 2, "two");
    pass(&mut [&mut new, &mut old], 9000);
    assert_eq!(old.outcomes[&2], Some(Unpublished::Refused));
    assert_eq!((new.heard(), new.counters.cluster_nodes.get()), (vec!["a one".into()], 1));
    pass(&mut [&mut old], 11_000);
    assert_eq!(old.phase(), ClusterPhase::Joined);
    old.publish("a", 3, "three");
    pass(&mut [&mut old], 100);
    assert_eq!((last_format(&log), old.heard()), (1, vec!["a three".into()]));
}

/// Both are there again before anything was written in the newer format.
#[test]
fn cluster_p18_older_node_that_missed_nothing_goes_on() {
    let log = Rc::default();
    let mut old = World::of_release(1, OLD, &log);
    let mut other = World::of_release(2, OLD, &log);
    let mut new = World::of_release(3, NEW, &log);
    pass(&mut [&mut old, &mut other, &mut new], 1000);
    pass(&mut [&mut other, &mut new], 20_000);
    new.publish("a", 1, "one");
    pass(&mut [&mut other, &mut new], 100);
    pass(&mut [&mut other, &mut new, &mut old], 1000);
    assert_eq!((old.phase(), old.counters.cluster_new_ids.get()), (ClusterPhase::Joined, 1));
    assert_eq!((old.heard(), old.gaps), (vec!["a one".into()], 0));
}

#[test]
fn cluster_node_skips_parts_of_unknown_kinds_and_counts_them() {
    let log: Rc<RefCell<SimLog>> = Rc::default();
    let mut world = World::joined(1, &log);
    let mut body = entry::write((2, 1), "1", "a", [&b"\0x"[..]].into_iter());
    // Of the application's id and the channel each one byte, and of the parts their number.
    let count = body.len() - 5;
    assert_eq!(body[count], 1);
    body[count] = 3;
    body.extend([200, 2, 7, 7, 201, 0]);
    {
        let mut log = log.borrow_mut();
        log.last += 1;
        let last = log.last;
        log.entries.push((last, 0, body));
    }
    world.rest();
    assert_eq!((world.heard(), world.counters.cluster_skipped.get()), (vec!["a x".into()], 2));
    assert_eq!(world.gaps, 0);
}
