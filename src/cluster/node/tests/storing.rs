//! Engines that can be reached and store nothing.

use super::*;

impl World {
    /// Lets time pass until `until_ms`, in which the engine refuses whatever is sent for now.
    fn refuse_until(&mut self, until_ms: u64) {
        while self.now.ms < until_ms {
            self.wait(100.min(until_ms - self.now.ms));
            (0..9).for_each(|_| self.engine.refuse(true, self.now.ms));
            self.engine.deliver(1);
        }
        self.turn();
    }

    fn is_up(&self) -> bool {
        self.counters.cluster_up.get() == 1
    }
}

#[test]
fn cluster_node_whose_renewals_are_refused_for_hold_ms_is_away_until_one_is_stored() {
    let mut world = World::joined(1, &Rc::default());
    world.publish("a", 1, "refused");
    let away_ms = world.node.nodes.renewed_ms() + world.node.hold_ms;
    world.refuse_until(away_ms - 1);
    assert!(!world.node.nodes.may_append(world.now.ms), "it is fenced before");
    assert_eq!((world.phase(), world.is_up()), (ClusterPhase::Joined, true));
    world.refuse_until(away_ms);
    assert_eq!((world.phase(), world.is_up()), (ClusterPhase::Away, false));
    assert!(!world.env.runtime.cluster.is_ready());
    world.refuse_until(away_ms + 60_000);
    assert_eq!((world.phase(), world.is_up()), (ClusterPhase::Away, false));
    assert_eq!(world.outcomes, BTreeMap::from([(1, Some(Unpublished::Refused))]));
    assert_eq!(world.counters.cluster_lost.get(), 0, "the connection is as before");
    world.publish("a", 2, "stored");
    world.wait(1000);
    world.rest();
    assert_eq!((world.phase(), world.is_up()), (ClusterPhase::Joined, true));
    assert_eq!((&world.applied[..], world.outcomes[&2]), (&["a stored".to_owned()][..], None));
}

/// An engine that is lost again and again in less than `hold_ms`, and stores nothing between.
#[test]
fn cluster_node_whose_engine_comes_back_and_stores_nothing_is_away() {
    let mut world = World::joined(1, &Rc::default());
    let away_ms = world.node.nodes.renewed_ms() + world.node.hold_ms;
    while world.now.ms < away_ms {
        assert_eq!(world.phase(), ClusterPhase::Joined);
        world.engine.detach(false, world.now.ms);
        world.wait(100.min(away_ms - world.now.ms));
        world.engine.attach();
        world.refuse_until(away_ms.min(world.now.ms + 1900));
    }
    assert_eq!(world.phase(), ClusterPhase::Away);
    // To be reached is not enough.
    world.engine.detach(false, world.now.ms);
    world.turn();
    world.engine.attach();
    world.refuse_until(away_ms + 1000);
    assert_eq!((world.phase(), world.is_up()), (ClusterPhase::Away, false));
    world.wait(1000);
    world.rest();
    assert_eq!(world.phase(), ClusterPhase::Joined);
}

#[test]
fn cluster_node_that_stood_still_is_not_away_because_of_that() {
    let mut world = World::joined(1, &Rc::default());
    world.wait(60_000);
    assert!(!world.node.nodes.may_append(world.now.ms));
    assert_eq!((world.phase(), world.is_up()), (ClusterPhase::Joined, true));
    world.rest();
    assert_eq!(world.phase(), ClusterPhase::Joined);
}

/// The log line is only right if the engine has had the time to answer.
#[test]
fn cluster_node_is_refused_if_renewals_are_sent_and_not_stored() {
    let mut world = World::joined(1, &Rc::default());
    let renewed_ms = world.node.nodes.renewed_ms();
    let is_refused = |world: &World| world.node.nodes.is_refused(world.now.ms);
    world.refuse_until(renewed_ms + 3000);
    assert!(!is_refused(&world));
    world.refuse_until(renewed_ms + 3001);
    assert!(is_refused(&world), "three fifths of dead_ms");
    world.engine.detach(false, world.now.ms);
    world.turn();
    world.wait(20_000);
    assert_eq!((world.phase(), is_refused(&world)), (ClusterPhase::Away, false));
    world.engine.attach();
    world.turn();
    let returned_ms = world.now.ms;
    world.refuse_until(returned_ms + 3000);
    assert_eq!((world.phase(), is_refused(&world)), (ClusterPhase::Away, false));
    world.refuse_until(returned_ms + 3001);
    assert_eq!((world.phase(), is_refused(&world)), (ClusterPhase::Away, true));
}
