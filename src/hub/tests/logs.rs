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
    // A muted subscription does not get this event either.
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

/// An event that changes nothing brings its publisher an answer, and is not proposed.
#[test]
fn hub_log_takes_no_event_without_an_effect() {
    let (mut hub, mut mail) = (Hub::new(0, 1, Hasher::new(1), MAX_KEPT), OutgoingMail::new(1));
    hub.follow_log(StateTimes {
        linger_ms: 3000,
        count_every_ms: 1000,
        picture_ms: 5000,
        hold_ms: 8000,
    });
    let nothing = Event { payload: EventPayload::Nothing, ..Event::default() };
    for (mut event, expected) in [
        (nothing, Published::NotSubscribed),
        (Event::clear(), Published::Sent),
        (Event::default(), Published::Sent),
    ] {
        let published = hub.publish(0, "a", &mut event, None, NOW_MS, &mut mail);
        assert_eq!(published, expected, "{event:?}");
        assert_eq!(hub.next_proposal().is_some(), expected == Published::Sent);
    }
}

/// What a subscriber of channel `a` is answered.
fn resumed(
    (hub, mail): (&mut Hub, &mut OutgoingMail),
    index: u32,
    from: ResumeFrom,
    limit: HistoryLimit,
) -> ResumeReply {
    let resume = Some(ResumeRequest { from, limit, view: 0 });
    let join = Join {
        slot: slot(index),
        app: 0,
        name: "a",
        max: 3,
        is_public: false,
        request: Some(JoinRequest { resume, ..JoinRequest::default() }),
        form: Form::POSITIONED,
    };
    let Joined::Now(Some(reply)) = hub.join(join, NOW_MS, mail) else { panic!() };
    *reply.resumed.expect("an answer")
}

/// An event that was read so late that it may be in the log twice is kept, and no client may resume
/// after an earlier position: it would come again if another node has it at an earlier place.
#[test]
fn hub_log_event_that_was_read_late_is_kept_and_ends_what_may_be_resumed() {
    const TTL_S: u32 = 20;
    for (age_ms, is_recovered) in [(2999, true), (3000, false)] {
        let (mut hub, mut mail) = (Hub::new(0, 1, Hasher::new(1), 1 << 20), OutgoingMail::new(1));
        let late = LogStart { read_until: 9, known_after: 9, ..start(1) };
        hub.begin_log(late, &mut mail);
        let limit = HistoryLimit { max: 9, ttl_s: TTL_S, bytes: 1000 };
        let serial = |sequence| log_serial(sequence, 0).expect("a small number");
        for (sequence, age_ms) in [(4, 0), (5, age_ms)] {
            let mut event = Event::from(Frozen::new(b"e"));
            event.retain = Retention::History(limit);
            let serial = serial(sequence);
            let place = LogPlace { serial, age_ms, ttl_s: Some(TTL_S), was_delivered: false };
            hub.apply(0, "a", (&mut event, Some(place)), NOW_MS, &mut mail);
        }
        hub.reach(LogMark::new(1, 9));
        let stream = late.stream;
        let mut resume = |index, from| {
            let resumed = resumed((&mut hub, &mut mail), index, from, limit);
            (resumed.outcome == ResumeOutcome::Recovered, resumed.missed.len())
        };
        let at =
            |sequence| ResumeFrom::Position(StreamPosition { stream, serial: serial(sequence) });
        assert_eq!(resume(1, at(4)), (is_recovered, usize::from(is_recovered)), "{age_ms}");
        assert_eq!(resume(2, ResumeFrom::Rewind(9)), (true, 2), "both are kept");
    }
}

/// While a node reads what it does not deliver, no client is sent the last events, because those
/// that follow would be missing.
#[test]
fn hub_log_that_is_read_late_sends_no_last_events_before_its_end() {
    for (reached, expected) in [(8, 0), (9, 1)] {
        let (mut hub, mut mail) = (Hub::new(0, 1, Hasher::new(1), 1 << 20), OutgoingMail::new(1));
        hub.begin_log(LogStart { read_until: 9, known_after: 9, ..start(1) }, &mut mail);
        let limit = HistoryLimit { max: 9, ttl_s: 60, bytes: 1000 };
        let mut event = Event::from(Frozen::new(b"e"));
        event.retain = Retention::History(limit);
        let serial = log_serial(4, 0).expect("a small number");
        let place = LogPlace { serial, age_ms: 0, ttl_s: Some(60), was_delivered: false };
        hub.apply(0, "a", (&mut event, Some(place)), NOW_MS, &mut mail);
        hub.reach(LogMark::new(1, reached));
        for (index, from) in [(1, ResumeFrom::Rewind(9)), (2, ResumeFrom::Kept(None, 9))] {
            let resumed = resumed((&mut hub, &mut mail), index, from, limit);
            assert_eq!(resumed.missed.len(), expected, "{from:?} at {reached}");
            let is_behind = resumed.position.serial < serial;
            assert_eq!(is_behind, expected > 0, "{from:?} at {reached}");
        }
    }
}

/// Of an application that a reload has added, a node does not know what had expired before it has
/// read the log again.
#[test]
fn hub_log_of_an_added_application_is_known_after_what_has_expired() {
    const FLOOR: u64 = 5 * 64 + 63;
    let limit = HistoryLimit { max: 9, ttl_s: 60, bytes: 1000 };
    for (added, serial, is_known) in [(0, FLOOR - 1, false), (0, FLOOR, true), (1, FLOOR - 1, true)]
    {
        let (mut hub, mut mail) = (Hub::new(0, 1, Hasher::new(1), 1 << 20), OutgoingMail::new(1));
        hub.begin_log(start(1), &mut mail);
        hub.begin_added(added, 5);
        hub.reach(LogMark::new(1, 9));
        let at = StreamPosition { stream: 1, serial };
        let page = hub.history_page((0, None), Some(at), 9, NOW_MS).expect("a page");
        let from = ResumeFrom::Position(at);
        let outcome = resumed((&mut hub, &mut mail), 1, from, limit).outcome;
        let found = (page.complete, outcome == ResumeOutcome::Recovered);
        assert_eq!(found, (is_known, is_known), "{added} {serial}");
        // The floor was that of the log before.
        hub.begin_log(start(2), &mut mail);
        hub.reach(LogMark::new(2, 9));
        let at = Some(StreamPosition { stream: 2, serial });
        assert!(hub.history_page((0, None), at, 9, NOW_MS).expect("a page").complete);
    }
}

/// An event of such an application that may be in the log twice ends what may be resumed, too.
#[test]
fn hub_log_event_of_an_added_application_may_have_been_read_late() {
    const TTL_S: u32 = 20;
    for (known_after, is_recovered) in [(4, true), (5, false)] {
        let (mut hub, mut mail) = (Hub::new(0, 1, Hasher::new(1), 1 << 20), OutgoingMail::new(1));
        hub.begin_log(start(1), &mut mail);
        hub.begin_added(0, known_after);
        let limit = HistoryLimit { max: 9, ttl_s: TTL_S, bytes: 1000 };
        let serial = |sequence| log_serial(sequence, 0).expect("a small number");
        for (sequence, age_ms) in [(4, 0), (5, 3000)] {
            let mut event = Event::from(Frozen::new(b"e"));
            event.retain = Retention::History(limit);
            let serial = serial(sequence);
            let place = LogPlace { serial, age_ms, ttl_s: Some(TTL_S), was_delivered: false };
            hub.apply(0, "a", (&mut event, Some(place)), NOW_MS, &mut mail);
        }
        hub.begin_added(0, 0);
        hub.reach(LogMark::new(1, 9));
        let from = ResumeFrom::Position(StreamPosition { stream: 1, serial: serial(4) });
        let resumed = resumed((&mut hub, &mut mail), 1, from, limit);
        assert_eq!(resumed.outcome == ResumeOutcome::Recovered, is_recovered, "{known_after}");
    }
}
