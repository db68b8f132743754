//! Where a node goes on in the log after it was behind, and what it does meanwhile.

use super::*;

impl World {
    /// Lets the node and the engine work for this time, with five entries delivered in 100 ms.
    fn work(&mut self, ms: u64) {
        for _ in 0..ms / 100 {
            self.wait(100);
            (0..5).for_each(|_| self.engine.store(true, self.now.ms));
            for _ in 0..5 {
                self.engine.deliver(1);
                self.turn();
            }
        }
    }

    fn readings(&self) -> usize {
        self.notes.iter().filter(|(core, note)| *core == 0 && note == "RefreshBegin").count()
    }
}

/// Both nodes work for 20 s.
fn catch_up(first: &mut World, second: &mut World) {
    for _ in 0..200 {
        first.work(100);
        second.work(100);
        second.engine.log.borrow_mut().expire_due(first.now.ms);
    }
    let last = second.engine.log.borrow().last;
    assert!(last - second.node.follower.position() < 5, "it has caught up");
}

/// The log has holes, where entries were replaced. After a long absence they are one gap, and the
/// log is read once, however long the reading takes.
#[test]
fn cluster_node_that_comes_back_reads_a_log_with_holes_once() {
    let log: Rc<RefCell<SimLog>> = Rc::default();
    let (mut first, mut second) = (World::joined(1, &log), World::joined(2, &log));
    for user_id in 0..100 {
        first.state("a", user(&user_id.to_string(), true));
    }
    first.rest();
    second.rest();
    second.engine.detach(false, second.now.ms);
    second.turn();
    second.notes.clear();
    second.taken();
    for _ in 0..KEEP_MS / 1000 + 1 {
        first.work(1000);
        second.wait(1000);
    }
    second.engine.attach();
    catch_up(&mut first, &mut second);
    assert_eq!((second.gaps, second.readings()), (2, 1), "one gap on each of two cores");
    let count = second.taken().iter().filter(|it| it.starts_with("a +")).count();
    assert_eq!(count, 100);
}

/// The engine is away from all nodes for longer than it keeps entries. Nothing can have been
/// stored meanwhile, so nobody misses anything, however long after the first node another one
/// reaches the engine.
#[test]
fn cluster_p8_engine_that_was_away_for_long_lets_no_node_miss_anything() {
    let away = |world: &mut World| {
        world.engine.detach(false, world.now.ms);
        world.turn();
        world.notes.clear();
    };
    for (later_ms, has_missed) in [(0, false), (5000, false), (5000, true), (KEEP_MS, false)] {
        let log: Rc<RefCell<SimLog>> = Rc::default();
        let (mut first, mut second) = (World::joined(1, &log), World::joined(2, &log));
        first.rest();
        second.rest();
        first.rest();
        away(&mut second);
        if has_missed {
            first.publish("a", 1, "missed");
            first.rest();
        }
        away(&mut first);
        first.wait(KEEP_MS + 10_000);
        second.wait(KEEP_MS + 10_000);
        log.borrow_mut().expire_due(first.now.ms);
        first.engine.attach();
        first.work(100);
        for _ in 0..later_ms / 100 {
            first.work(100);
            second.wait(100);
        }
        first.publish("a", 2, "after");
        first.work(100);
        log.borrow_mut().expire_due(first.now.ms);
        second.engine.attach();
        catch_up(&mut first, &mut second);
        // What was stored a minute ago may have expired, as far as the second one knows.
        let is_gap = has_missed || later_ms == KEEP_MS;
        let (gaps, readings) = if is_gap { (2, 1) } else { (0, 0) };
        assert_eq!((second.gaps, second.readings()), (gaps, readings), "{later_ms} {has_missed}");
        assert_eq!((first.gaps, first.readings()), (0, 0), "{later_ms} {has_missed}");
        let all = ["a missed", "a after"];
        assert_eq!(first.applied, all[usize::from(!has_missed)..]);
        assert_eq!(second.applied, ["a after"]);
    }
}

/// What the engine says of the end of its log may be older than an answer or a delivery that has
/// come meanwhile. That is not taken for a loss; a real one is.
#[test]
fn cluster_node_asks_again_before_it_believes_that_the_log_has_lost_its_end() {
    for (is_read, is_lost) in [(false, false), (true, false), (false, true)] {
        let log: Rc<RefCell<SimLog>> = Rc::default();
        let mut world = World::joined(1, &log);
        world.publish("a", 1, "one");
        world.turn();
        world.engine.store(true, 0);
        if is_read {
            (0..3).for_each(|_| world.engine.deliver(1));
        }
        if is_lost {
            world.turn();
            let mut log = log.borrow_mut();
            log.entries.pop();
            log.last -= 1;
        }
        world.engine.attach_late(u64::from(!is_lost));
        world.turn();
        assert_eq!(world.counters.cluster_epochs.get(), 0, "it has asked");
        // The next one is older than what has come since, too.
        world.publish("a", 2, "two");
        world.turn();
        if !is_lost {
            world.engine.store(true, 0);
            world.turn();
        }
        world.rest();
        let counters = &world.counters;
        assert_eq!(counters.cluster_epochs.get(), u64::from(is_lost), "{is_read}");
        assert_eq!(counters.cluster_repeated.get(), 0);
        let all = ["a one", "a two"];
        assert_eq!(world.applied, all[usize::from(is_lost)..]);
        assert_eq!(world.gaps, 0);
    }
}

/// Entries expire before a slow node gets them: its subscribers are closed when that is noticed,
/// and when it has caught up. Then it reads the log again.
#[test]
fn cluster_node_that_has_lagged_reads_the_log_again_at_its_end() {
    let log: Rc<RefCell<SimLog>> = Rc::default();
    let (mut first, mut second) = (World::joined(1, &log), World::joined(2, &log));
    first.rest();
    second.rest();
    second.notes.clear();
    for ticket in 0..70 {
        first.publish("a", ticket, "one");
        first.work(1000);
        // The second one is not sent anything.
        second.wait(1000);
        (0..5).for_each(|_| second.engine.store(true, second.now.ms));
        log.borrow_mut().expire_due(first.now.ms);
    }
    assert_eq!(second.gaps, 0);
    catch_up(&mut first, &mut second);
    assert!((4..=6).contains(&second.gaps), "{} on two cores", second.gaps);
    assert_eq!(second.readings(), 2);
}

/// While the engine is away and nothing waits for it, the node has a turn each second.
#[test]
fn cluster_node_without_the_engine_sleeps_between_turns() {
    let mut world = World::joined(1, &Rc::default());
    let hold_ms = world.node.hold_ms;
    world.engine.detach(false, world.now.ms);
    world.turn();
    let away_ms = world.now.ms + hold_ms;
    let next = |world: &World| (world.node.deadline_ms() - world.now.ms, world.phase());
    assert_eq!(next(&world), (1000, ClusterPhase::Joined));
    world.wait(hold_ms - 300);
    assert_eq!(next(&world), (300, ClusterPhase::Joined));
    world.wait(300);
    assert_eq!(world.now.ms, away_ms);
    assert_eq!(next(&world), (1000, ClusterPhase::Away));
    world.wait(60_000);
    assert_eq!(next(&world), (1000, ClusterPhase::Away));
    world.publish("a", 1, "one");
    assert!(world.node.deadline_ms() <= world.now.ms + 100, "an event waits");
}

/// What a node has stated of an application comes back also if a reload has removed that.
#[test]
fn cluster_node_lets_its_cores_know_of_states_of_removed_applications() {
    let mut world = World::joined(1, &Rc::default());
    world.state("a", user("ada", true));
    world.turn();
    let mut config = world.env.config.clone();
    config.apps[0].id = "other".into();
    config.apps[0].key = "other-key".into();
    world.env = Arc::new(world.env.reloaded(config).expect("it is valid"));
    world.rest();
    world.state("a", user("ada", false));
    world.rest();
    assert_eq!(world.taken(), ["a +ada true", "a -ada true"]);
    assert_eq!(world.counters.cluster_skipped.get(), 0);
}
