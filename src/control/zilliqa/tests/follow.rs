//! Pollers of the nodes of a cluster, and a log that each of them reads at its own pace.

use super::*;

/// The nodes of a cluster, and the epochs that its log has had.
struct Cluster {
    worlds: Vec<World>,
    log: Vec<u64>,
}

impl Cluster {
    fn new(count: usize) -> Cluster {
        let worlds = (0..count).map(|_| World::new(&[Shape::Zq1], None)).collect();
        Cluster { worlds, log: Vec::new() }
    }

    /// Lets the engine store what a node has published; the log takes only what is above its last.
    fn store(&mut self, node: usize) {
        let world = &mut self.worlds[node];
        let begun = world.kept.take().filter(|_| world.published.is_empty());
        let numbers = world.published.drain(..).map(|(number, _)| number);
        for number in begun.into_iter().chain(numbers) {
            if self.log.last().is_none_or(|last| *last < number) {
                self.log.push(number);
            }
        }
    }

    /// Runs all nodes for `ms` milliseconds, of which these poll.
    fn run(&mut self, ms: u64, polls: &[usize]) {
        for _ in 0..ms / 10 {
            for node in 0..self.worlds.len() {
                let last = self.log.last().copied();
                let world = &mut self.worlds[node];
                world.now_ms += 10;
                world.poller.follow(polls.contains(&node), last, world.now_ms);
                world.turn();
                assert!(world.published.len() <= 1, "one epoch is awaited at a time");
                self.store(node);
            }
        }
    }

    fn tips(&mut self, tip: u64) {
        self.worlds.iter_mut().for_each(|world| world.tips(tip));
    }

    fn polls(&self, node: usize) -> usize {
        self.worlds[node].calls("GetLatestTxBlock")
    }
}

#[test]
fn poller_of_one_node_leads_and_another_goes_on_when_it_has_ended() {
    let mut cluster = Cluster::new(2);
    cluster.run(2000, &[0]);
    assert_eq!(cluster.log, [100], "the log has the epoch behind which they are fetched");
    cluster.tips(110);
    cluster.run(5000, &[0]);
    assert_eq!(cluster.log, (100..=110).collect::<Vec<_>>());
    assert_eq!((cluster.polls(1), cluster.worlds[1].requests.len()), (0, 0));
    // Nobody polls while epochs are made; then the other node does.
    cluster.tips(115);
    cluster.run(3000, &[]);
    let before = cluster.polls(0);
    cluster.run(5000, &[1]);
    assert_eq!(cluster.log, (100..=115).collect::<Vec<_>>());
    assert_eq!(cluster.polls(0), before);
    // And back, with what the first had fetched long ago.
    cluster.tips(118);
    cluster.run(5000, &[0]);
    assert_eq!(cluster.log, (100..=118).collect::<Vec<_>>());
}

#[test]
fn poller_of_each_node_goes_on_after_what_others_have_published() {
    let mut cluster = Cluster::new(3);
    cluster.worlds[1].answer_ms = 30;
    cluster.worlds[2].answer_ms = 150;
    for tip in (100..160).step_by(7) {
        cluster.tips(tip);
        cluster.run(1500, &[0, 1, 2]);
        cluster.run(700, &[1, 2]);
    }
    cluster.run(5000, &[0, 1, 2]);
    assert_eq!(cluster.log, (100..=156).collect::<Vec<_>>());
    assert!((0..3).all(|node| cluster.polls(node) > 10));
}

/// An epoch that does not come back from the log stays awaited, and none is published after it.
#[test]
fn poller_awaits_the_log() {
    let mut world = World::new(&[Shape::Zq1], None);
    world.poller.follow(true, Some(100), 0);
    world.tips(105);
    world.run(5000);
    assert_eq!((world.numbers(), world.poller.awaited()), (vec![101], Some(101)));
    world.poller.follow(true, Some(100), world.now_ms);
    world.run(5000);
    assert_eq!(world.poller.awaited(), Some(101));
    world.poller.follow(true, Some(101), world.now_ms);
    assert_eq!(world.poller.awaited(), None);
    world.run(1000);
    assert_eq!((world.numbers(), world.poller.awaited()), (vec![101, 102], Some(102)));
    // A later one of another node.
    world.poller.follow(true, Some(104), world.now_ms);
    world.run(1000);
    assert_eq!(world.numbers(), [101, 102, 105]);
    world.poller.follow(false, Some(104), world.now_ms);
    assert_eq!(world.poller.awaited(), None);
}

/// A node that begins to poll skips as a restarted process does, but holds nothing back.
#[test]
fn poller_that_begins_skips_what_is_beyond_the_maximum() {
    let config = |replay| ZilliqaNode {
        replay,
        replay_wait_ms: 60_000,
        urls: vec![crate::config::Secret::new("http://n")],
        ..ZilliqaNode::default()
    };
    for (replay, skipped, first) in [(10, 0, 91), (9, 1, 92)] {
        let mut world = World::with(config(replay), &[Shape::Zq1], None);
        world.poller.follow(false, Some(80), 0);
        world.run(1000);
        world.poller.follow(true, Some(90), world.now_ms);
        world.run(3000);
        assert_eq!(world.numbers(), [first], "{replay}");
        assert_eq!(world.poller.counters.epochs_skipped.get(), skipped);
    }
}

/// Contracts are looked up on nodes that do not poll, too.
#[test]
fn poller_that_rests_answers_questions() {
    let mut world = World::new(&[Shape::Zq1], None);
    world.poller.follow(false, Some(100), 0);
    world.ask(&[[0x11; 20]]);
    world.run(3000);
    assert_eq!(world.received.len(), 1);
    assert_eq!((world.calls("GetSmartContractCode"), world.requests.len()), (1, 1));
    assert_eq!(world.poller.deadline_ms(world.now_ms), u64::MAX);
}

/// The state file, a node, or the log may say any number. There is no epoch after the last one.
#[test]
fn poller_fetches_nothing_after_the_last_number() {
    let mut world = World::new(&[Shape::Zq1], Some(u64::MAX));
    world.run(1000);
    assert_eq!((world.published.len(), world.calls("GetTxBlock")), (0, 0));
    for last in [u64::MAX - 1, u64::MAX] {
        let mut world = World::new(&[Shape::Zq1], None);
        for _ in 0..100 {
            world.now_ms += 10;
            world.poller.follow(true, Some(last), world.now_ms);
            world.turn();
        }
        assert_eq!((world.published.len(), world.calls("GetTxBlock")), (0, 0), "{last}");
    }
}
