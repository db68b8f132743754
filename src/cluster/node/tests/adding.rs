//! Applications that a reload adds to a node after others have had them for some time.

use super::*;
use crate::dialect::Admission;
use crate::hub::EventKey;
use crate::hub::{CountedKind, CountingStep};

type Log = Rc<RefCell<SimLog>>;

/// A configuration with so many applications, the first of which is that of the demo. Each further
/// one has this maximum number of connections.
fn config(apps: usize, limit: usize) -> Config {
    let cluster = Cluster { engine: vec!["nats://a:1".to_owned()], ..Cluster::default() };
    let mut config = Config { cluster: Some(Box::new(cluster)), ..Config::demo() };
    for number in 2..=apps {
        let mut app = config.apps[0].clone();
        (app.id, app.key) = (number.to_string(), format!("key-{number}"));
        app.limits.connections = limit;
        config.apps.push(app);
    }
    config
}

impl World {
    /// A node with so many applications that has joined.
    fn with_apps(id: u64, log: &Log, apps: usize) -> World {
        let env = Arc::new(Env::new(config(apps, 0), 0).expect("an environment"));
        let mut world = World::of(id, log, env);
        world.engine.attach();
        world.rest();
        assert_eq!(world.phase(), ClusterPhase::Joined);
        world
    }

    /// The node's thread has a configuration with so many applications.
    fn reload(&mut self, apps: usize) {
        self.env = Arc::new(self.env.reloaded(config(apps, 0)).expect("it is valid"));
    }

    /// And so have all cores.
    fn renew_cores(&mut self) {
        let runtime = &self.env.runtime;
        (0..2).for_each(|core| runtime.cluster.note_version(core, runtime.version));
    }

    fn publish_in(&mut self, app: u32, ticket: u32, text: &str) {
        let channel = format!("app-{app}");
        self.propose_in(app, &channel, ticket, Frozen::new(text.as_bytes()).into());
    }

    /// The cores take what is for them. Returns the applications that they have taken.
    fn take_added(&mut self) -> Vec<u32> {
        let mut taken = Vec::new();
        for app in 0..self.env.apps.iter().count() as u32 {
            let word = format!("AddedApp {{ app: {app}, ");
            let is_read = |note: &String| note.contains(&word) && note.contains("is_read: true");
            for _ in self.notes.iter().filter(|(_, note)| is_read(note)) {
                self.env.apps.get(app).note_core();
                taken.push(app);
            }
        }
        self.notes.clear();
        taken
    }

    fn added_readings(&self) -> u64 {
        self.counters.cluster_added_readings.get()
    }
}

fn pair(log: &Log) -> (World, World) {
    (World::with_apps(1, log, 2), World::with_apps(2, log, 1))
}

#[test]
fn cluster_node_reads_what_it_has_skipped_of_an_added_application() {
    let log = Log::default();
    let (mut first, mut second) = pair(&log);
    for (ticket, app) in [(1, 1), (2, 0), (3, 1)] {
        first.publish_in(app, ticket, &ticket.to_string());
        first.rest();
    }
    first.state_in(1, "presence-a", user("ada", true));
    let asked = Statement::Counting(CountedKind::Totals, CountingStep::Asked(0));
    first.state_in(1, "", asked);
    first.rest();
    second.rest();
    assert_eq!(second.applied, ["app-0 2"]);
    second.taken();
    let skipped = second.counters.cluster_skipped.get();
    second.reload(2);
    // An entry comes before a core knows the application.
    first.publish_in(1, 4, "4");
    first.rest();
    second.rest();
    assert_eq!((second.added_readings(), second.applied.len()), (0, 1));
    assert_eq!(second.counters.cluster_skipped.get(), skipped + 1);
    second.renew_cores();
    second.notes.clear();
    second.turn();
    assert_eq!(second.added_readings(), 1);
    assert!(!second.env.apps.get(1).is_read());
    // Live entries come meanwhile, and take effect in the order of the log.
    first.publish_in(1, 5, "5");
    first.publish_in(0, 6, "6");
    first.rest();
    second.rest();
    assert_eq!(second.applied, ["app-0 2", "app-1 1", "app-1 3", "app-1 4", "app-1 5", "app-0 6"]);
    let states = second.taken();
    assert!(states.contains(&"presence-a +ada false".to_owned()), "{states:?}");
    let question = "0 Counting { numbers: CountedNumbers { app: 1, kind: Totals }, step: Asked(";
    assert!(states.iter().any(|it| it.starts_with(question)), "{states:?}");
    let forgets = |note: &str| note.contains("Refresh") || note.contains("Restate");
    assert!(!second.notes.iter().any(|(_, note)| forgets(note)), "{:?}", second.notes);
    assert_eq!((second.gaps, second.counters.cluster_repeated.get()), (0, 0));
    assert_eq!(second.take_added(), [1, 1]);
    assert!(second.env.apps.get(1).is_read());
    assert_eq!((second.added_readings(), first.added_readings()), (1, 0));
    assert_eq!(second.node.follower.position(), log.borrow().last);
}

/// The node that is reloaded first reads nothing, and serves as soon as its cores know the
/// application.
#[test]
fn cluster_node_reads_nothing_of_an_added_application_that_nobody_has_used() {
    let log = Log::default();
    let mut world = World::with_apps(1, &log, 1);
    world.publish_in(0, 1, "1");
    world.rest();
    world.notes.clear();
    world.reload(2);
    world.rest();
    assert_eq!(world.take_added(), [0; 0], "no core has it");
    assert_eq!(world.node.deadline_ms(), world.now.ms + 50);
    world.renew_cores();
    world.turn();
    assert_eq!((world.take_added(), world.added_readings()), (vec![1, 1], 0));
    assert!(world.env.apps.get(1).is_read());
    assert!(world.node.deadline_ms() > world.now.ms + 50, "it looks no more");
}

/// Keys have the times of the entries, and not that of the reading.
#[test]
fn cluster_node_decides_about_keys_of_an_added_application_as_the_others_did() {
    let log = Log::default();
    let (mut first, mut second) = pair(&log);
    for (ticket, request, wait_ms) in [(1, 7, 119_000), (2, 8, 1000), (3, 9, 0)] {
        let key = Some(Box::new(EventKey { key: 5, request, index: 0 }));
        let text = ticket.to_string();
        first.propose_in(1, "app-1", ticket, Event { key, ..Frozen::new(text.as_bytes()).into() });
        first.rest();
        first.wait(wait_ms);
    }
    first.publish_in(1, 4, "4");
    first.rest();
    second.rest();
    second.reload(2);
    second.renew_cores();
    second.rest();
    assert_eq!(first.applied, ["app-1 1", "app-1 3", "app-1 4"]);
    assert_eq!(second.applied, first.applied);
}

/// What a node reads later has been in the log twice, and has the key of an earlier request.
#[test]
fn cluster_node_applies_entries_of_an_added_application_once() {
    let log = Log::default();
    let (mut first, mut second) = pair(&log);
    let keyed = |request: u128, text: &str| {
        let key = Some(Box::new(EventKey { key: 5, request, index: 0 }));
        Event { key, ..Frozen::new(text.as_bytes()).into() }
    };
    first.propose_in(1, "app-1", 1, keyed(7, "first"));
    first.rest();
    let at = log.borrow().entries.iter().position(is_event).expect("an event");
    log.borrow_mut().repeat(at, 0);
    // The same key, from a node that does not know it, for another request and the same one.
    let mut third = World::with_apps(3, &log, 2);
    third.node.keys = LoggedKeys::default();
    third.propose_in(1, "app-1", 1, keyed(8, "another"));
    third.propose_in(1, "app-1", 2, keyed(7, "first"));
    third.rest();
    second.rest();
    second.reload(2);
    second.renew_cores();
    second.rest();
    assert_eq!(second.applied, ["app-1 first"]);
    // The node knows the key from then on.
    second.propose_in(1, "app-1", 3, keyed(8, "another"));
    second.turn();
    assert_eq!(second.outcomes[&3], Some(Unpublished::KeyUsed));
}

/// The times of keys are not changed when old entries are read again.
#[test]
fn cluster_node_keeps_the_times_of_keys_when_it_reads_the_log_again() {
    let log = Log::default();
    let (mut first, mut second) = pair(&log);
    first.state("a", user("ada", true));
    first.publish_in(1, 1, "1");
    first.rest();
    for world in [&mut first, &mut second] {
        world.now = NodeTime { ms: world.now.ms + 100_000, unix_ms: world.now.unix_ms + 100_000 };
        world.rest();
    }
    let key = || Some(Box::new(EventKey { key: 5, request: 7, index: 0 }));
    second.propose("a", 2, Event { key: key(), ..Frozen::new(b"2").into() });
    second.rest();
    second.reload(2);
    second.renew_cores();
    second.rest();
    assert_eq!(second.added_readings(), 1);
    second.wait(60_000);
    second.rest();
    second.publish_in(0, 3, "3");
    second.rest();
    second.propose("a", 4, Event { key: key(), ..Frozen::new(b"2").into() });
    second.rest();
    assert_eq!(second.counters.cluster_key_repeats.get(), 1, "it is a minute old");
}

/// An application that is removed and added again was never unknown.
#[test]
fn cluster_node_reads_nothing_of_an_application_that_comes_back() {
    let log = Log::default();
    let (mut first, mut second) = (World::with_apps(1, &log, 2), World::with_apps(2, &log, 2));
    second.reload(1);
    second.renew_cores();
    first.publish_in(1, 1, "1");
    first.rest();
    second.rest();
    second.reload(2);
    first.publish_in(1, 2, "2");
    first.rest();
    second.rest();
    assert_eq!((second.applied.len(), second.added_readings()), (2, 0));
    assert!(second.env.apps.get(1).is_read());
}

/// One that is removed while it is read, and added again, is read to the end.
#[test]
fn cluster_node_goes_on_reading_an_application_that_is_removed_meanwhile() {
    let log = Log::default();
    let (mut first, mut second) = pair(&log);
    for ticket in 1..=3 {
        first.publish_in(1, ticket, &ticket.to_string());
        first.rest();
    }
    second.rest();
    for apps in [2, 1, 2] {
        second.reload(apps);
        second.renew_cores();
        second.turn();
        second.engine.deliver(1);
        second.turn();
    }
    second.rest();
    assert_eq!(second.applied, ["app-1 1", "app-1 2", "app-1 3"]);
    assert_eq!((second.take_added(), second.added_readings()), (vec![1, 1], 1));
    assert!(second.env.apps.get(1).is_read());
}

/// A node replaces the entry of a limit only when it has read it, and admits nobody before.
#[test]
fn cluster_node_knows_what_is_reserved_of_an_added_application() {
    let log = Log::default();
    let limited = |apps| config(apps, 10);
    let mut worlds: Vec<World> = [(1, 2), (2, 1)]
        .into_iter()
        .map(|(id, apps)| {
            let env = Arc::new(Env::new(limited(apps), 0).expect("an environment"));
            World::of(id, &log, env)
        })
        .collect();
    let mut now_ms = 1000;
    let mut run = |worlds: &mut [World], ms: u64| {
        for _ in 0..ms / 20 {
            now_ms += 20;
            for world in worlds.iter_mut() {
                world.now = NodeTime { ms: now_ms, unix_ms: now_ms };
                if !world.engine.is_up {
                    world.engine.attach();
                }
                world.turn();
                (0..20).for_each(|_| world.engine.store(true, now_ms));
                (0..20).for_each(|_| world.engine.deliver(1));
                world.turn();
                let Some(app) = world.env.apps.find(1) else { continue };
                while app.waiting() > 0 && app.admit_waiting(now_ms) {}
            }
            let open = |world: &World| world.env.apps.find(1).map_or(0, |app| app.connections());
            assert!(worlds.iter().map(open).sum::<usize>() <= 10);
        }
    };
    run(&mut worlds, 6000);
    for _ in 0..7 {
        assert_ne!(worlds[0].env.apps.get(1).admit(6000), Admission::Full);
    }
    run(&mut worlds, 500);
    assert_eq!(worlds[0].env.apps.get(1).connections(), 7);
    worlds[1].env = Arc::new(worlds[1].env.reloaded(limited(2)).expect("it is valid"));
    for _ in 0..7 {
        assert_eq!(worlds[1].env.apps.get(1).admit(6500), Admission::Waits);
    }
    run(&mut worlds, 500);
    assert_eq!(worlds[1].counters.cluster_reservations.get(), 0, "it would know nothing of others");
    worlds[1].renew_cores();
    run(&mut worlds, 100);
    assert_eq!((worlds[1].take_added(), worlds[1].added_readings()), (vec![1, 1], 1));
    run(&mut worlds, 3000);
    let open = [0, 1].map(|at: usize| worlds[at].env.apps.get(1).connections());
    assert_eq!(open, [7, 3]);
    let sent = worlds[1].counters.cluster_reservations.get();
    assert!((1..6).contains(&sent), "{sent} entries");
}

/// A new log, and a gap, while the log is read: all of the new one takes effect once, and what was
/// read before is marked as such.
#[test]
fn cluster_node_reads_an_added_application_from_another_log() {
    for loses in [true, false] {
        let log = Log::default();
        let (mut first, mut second) = pair(&log);
        for ticket in 1..=4 {
            first.publish_in(1, ticket, &ticket.to_string());
            first.rest();
        }
        first.state_in(1, "presence-a", user("ada", true));
        first.rest();
        second.rest();
        second.reload(2);
        second.renew_cores();
        second.turn();
        for _ in 0..100 {
            if second.applied.len() < 2 {
                second.engine.deliver(1);
                second.turn();
            }
        }
        assert_eq!(second.applied.len(), 2);
        let bodies: Vec<_> =
            log.borrow().entries.iter().filter(|it| is_event(it)).cloned().collect();
        second.engine.detach(false, second.now.ms);
        second.turn();
        if loses {
            first.engine.detach(false, first.now.ms);
            first.turn();
            log.borrow_mut().lose();
            // An event that was sent again, and others.
            let mut log = log.borrow_mut();
            for (last, (.., body)) in bodies.into_iter().skip(1).enumerate() {
                log.last = last as u64 + 1;
                let sequence = log.last;
                log.entries.push((sequence, first.now.ms, body));
            }
        } else {
            first.publish_in(1, 5, "5");
            first.rest();
            let NodeTime { ms, unix_ms } = second.now;
            second.now = NodeTime { ms: ms + KEEP_MS, unix_ms: unix_ms + KEEP_MS };
        }
        second.engine.attach();
        second.rest();
        match loses {
            true => assert_eq!(
                second.applied,
                ["app-1 1", "app-1 2", "app-1 2 again", "app-1 3", "app-1 4"]
            ),
            false => {
                let all = [1, 2, 3, 4, 5].map(|n| format!("app-1 {n}"));
                assert_eq!((&second.applied[..], second.gaps), (&all[..], 2));
                let states = second.taken();
                assert!(states.contains(&"presence-a +ada false".to_owned()), "{states:?}");
            }
        }
        assert!(second.take_added().contains(&1) && second.env.apps.get(1).is_read(), "{loses}");
        assert_eq!((second.added_readings(), second.node.added.position()), (1, None));
    }
}

/// Nodes with three, one and two applications, with any faults, and with reloads of each at any
/// time. Returns them at rest, when all have three, and how often an application had to wait until
/// another one was read.
fn reloaded(seed: u64, log: &Log) -> ([World; 3], u64) {
    let (mut rng, mut waited) = (fastrand::Rng::with_seed(seed), 0);
    let mut worlds = [3, 1, 2].map(|apps| World::with_apps(10 + apps as u64, log, apps));
    let mut published = 0;
    for _ in 0..rng.usize(50..400) {
        let at = rng.usize(..3);
        let world = &mut worlds[at];
        let now_ms = world.now.ms;
        let apps = world.env.apps.iter().filter(|(_, app)| app.is_read()).count() as u32;
        match rng.u8(..22) {
            0..6 => {
                published += 1;
                world.publish_in(rng.u32(..apps), published, &published.to_string());
            }
            6..10 => world.engine.store(rng.u8(..10) > 0, now_ms),
            10 => world.engine.refuse(rng.bool(), now_ms),
            11..15 => world.engine.deliver(rng.usize(1..3)),
            15 if world.engine.is_up => world.engine.detach(rng.bool(), now_ms),
            15 | 16 => world.engine.attach(),
            17 if world.env.config.apps.len() < 3 => {
                world.reload(world.env.config.apps.len() + 1);
            }
            18 => world.renew_cores(),
            _ => world.wait(rng.u64(1..1500)),
        }
        world.turn();
        let added = &world.node.added;
        waited += u64::from(added.position().is_some() && added.is_waiting());
        if rng.bool() {
            world.take_added();
        }
    }
    for world in &mut worlds {
        if !world.engine.is_up {
            world.engine.attach();
        }
        world.reload(3);
        world.renew_cores();
        world.rest();
        world.wait(8000);
        world.rest();
    }
    for world in &mut worlds {
        world.rest();
        world.take_added();
    }
    (worlds, waited)
}

/// The events of an application that the log has.
fn stored_of(app: u32, log: &SimLog) -> Vec<String> {
    let mut stored = Vec::new();
    for (.., body) in &log.entries {
        let entry = entry::read(body).expect("an entry");
        for part in entry.events.iter().filter(|_| entry.channel == format!("app-{app}")) {
            let PartContent::Frame { frame, .. } = &part.content else { panic!("a close") };
            stored.push(format!("{} {}", entry.channel, String::from_utf8_lossy(frame)));
        }
    }
    stored
}

/// Every node applies the events of each application once and in the order of the log, whenever it
/// comes to know the application.
#[test]
fn cluster_sim_added_applications_are_read_once_and_in_order() {
    let (mut readings, mut waited) = (0, 0);
    for seed in 0..200 {
        let log = Log::default();
        let (worlds, waits) = reloaded(seed, &log);
        waited += waits;
        for world in &worlds {
            readings += world.added_readings();
            assert!(world.env.apps.iter().all(|(_, app)| app.is_read()), "seed {seed}");
            for app in 0..3 {
                let is_of_app = |it: &&String| it.starts_with(&format!("app-{app} "));
                let applied: Vec<_> = world.applied.iter().filter(is_of_app).cloned().collect();
                assert_eq!(applied, stored_of(app, &log.borrow()), "seed {seed}, {app}");
            }
        }
    }
    assert!(readings > 100 && waited > 0, "{readings} {waited}");
}
