//! Tests of subscriptions over a change of the cluster's log: an event that this node has delivered
//! out of one log, and that is in the next one, too, goes only to those who have not got it.

use super::*;

fn start(generation: u16) -> LogStart {
    let stream = u64::from(generation);
    LogStart { generation, stream, read_until: 0, known_after: 0, void_until: 0 }
}

impl World {
    fn begin_log(&mut self, core: u16, generation: u16) {
        let (hub, mail) = self.cores.at(core);
        hub.begin_log(start(generation), mail);
    }

    fn apply(&mut self, core: u16, name: &str, sequence: u64, was_delivered: bool) {
        let mut event = Event::from(Frozen::new(sequence.to_string().as_bytes()));
        let serial = log_serial(sequence, 0).expect("a small number");
        let place = LogPlace { serial, age_ms: 0, ttl_s: None, was_delivered };
        let (hub, mail) = self.cores.at(core);
        if hub.apply(0, name, (&mut event, Some(place)), NOW_MS, mail).is_some() {
            let name = hub.name(0, name);
            self.deliver(core, &name, &event);
        }
    }

    /// Who has received something since the last call.
    fn hearers(&mut self) -> Vec<(u16, u32)> {
        self.deliver_mail();
        let mut hearers: Vec<_> = std::mem::take(&mut self.received)
            .iter()
            .map(|(core, slot, _)| (*core, *slot))
            .collect();
        hearers.sort_unstable();
        hearers
    }
}

/// With how many cores, and which one is the home, does not matter.
#[test]
fn hub_log_events_of_before_reach_only_subscriptions_of_this_log() {
    let mut world = World::new(3);
    let name = world.name_at(0);
    (0..3).for_each(|core| world.begin_log(core, 1));
    for core in [0, 1] {
        world.join(core, 1, &name);
        world.deliver_mail();
    }
    world.apply(0, &name, 1, false);
    assert_eq!(world.hearers(), [(0, 1), (1, 1)]);
    // The answers to these requests come under the next log.
    world.join_with(1, 2, &name, Some(JoinRequest::default()));
    world.join(2, 1, &name);
    world.begin_log(0, 2);
    // On another core a subscription without a request begins where that core is.
    world.join(1, 3, &name);
    world.join(0, 2, &name);
    world.deliver_mail();
    world.join(1, 4, &name);
    let all = [(0, 1), (0, 2), (1, 1), (1, 2), (1, 3), (1, 4), (2, 1)];
    let of_this_log = [(0, 2), (1, 2), (1, 4), (2, 1)];
    world.apply(0, &name, 1, true);
    assert_eq!(world.hearers(), of_this_log);
    world.apply(0, &name, 2, false);
    assert_eq!(world.hearers(), all);
    // The core's own change of the log changes nothing for channels with another home.
    (1..3).for_each(|core| world.begin_log(core, 2));
    world.apply(0, &name, 3, true);
    assert_eq!(world.hearers(), of_this_log);
    world.begin_log(0, 3);
    world.apply(0, &name, 1, true);
    assert_eq!(world.hearers(), []);
    // Whoever gets nothing more does not get this either.
    world.join(0, 9, &name);
    world.cores.hubs[0].mute();
    world.apply(0, &name, 2, true);
    assert_eq!(world.hearers(), []);
}

#[test]
fn hub_log_numbers_of_subscriptions_have_seven_bits() {
    for (later, receives) in [(127, false), (128, true)] {
        let mut world = World::new(1);
        world.begin_log(0, 1);
        world.join(0, 1, "a");
        world.begin_log(0, 1 + later);
        world.apply(0, "a", 1, true);
        assert_eq!(!world.hearers().is_empty(), receives, "{later}");
    }
}
