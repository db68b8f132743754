//! Tests of histories with positions: what a subscriber that resumes gets, on one core and on
//! several, and when a history ends.

use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, HashMap};

const NAME: &str = "chat-1";
const LIMIT: HistoryLimit = HistoryLimit { max: 5, ttl_s: 10, bytes: 1000 };

fn event(text: &str) -> Event {
    Event { retain: Retention::History(LIMIT), ..Frozen::new(text.as_bytes()).into() }
}

fn join(index: u32, from: ResumeFrom) -> Join<'static> {
    let resume = Some(ResumeRequest { from, limit: LIMIT, view: 0 });
    Join {
        slot: slot(index),
        app: 0,
        name: NAME,
        max: 100,
        is_public: false,
        request: Some(JoinRequest { resume, ..JoinRequest::default() }),
        form: Form::POSITIONED,
    }
}

fn text_of(event: &Event) -> String {
    String::from_utf8_lossy(event.frame().expect("a frame")).into_owned()
}

fn position_of(event: &Event) -> StreamPosition {
    event.forms.as_ref().and_then(|forms| forms.position).expect("a position")
}

/// A missed event as a live one.
fn as_event(missed: &MissedEvent) -> Event {
    Event { forms: Some(missed.forms.clone()), ..missed.shared.clone().into() }
}

/// A process with one core.
struct Alone {
    hub: Hub,
    mail: OutgoingMail,
    now_ms: u64,
}

impl Alone {
    fn new(kept_max: usize) -> Alone {
        let hub = Hub::new(0, 1, Hasher::new(1), kept_max);
        Alone { hub, mail: OutgoingMail::new(1), now_ms: 0 }
    }

    fn resume(&mut self, index: u32, from: ResumeFrom) -> ResumeReply {
        match self.hub.join(join(index, from), self.now_ms, &mut self.mail) {
            Joined::Now(Some(JoinReply { resumed: Some(resumed), .. })) => *resumed,
            other => panic!("{other:?}"),
        }
    }

    /// The outcome of a request to resume, with the serial numbers at which it begins and of the
    /// missed events.
    fn outcome(&mut self, index: u32, from: ResumeFrom) -> (ResumeOutcome, u64, Vec<u64>) {
        let reply = self.resume(index, from);
        let missed = reply.missed.iter().map(|it| position_of(&as_event(it)).serial).collect();
        self.leave(index);
        (reply.outcome, reply.position.serial, missed)
    }

    fn leave(&mut self, index: u32) {
        assert!(self.hub.leave(slot(index), 0, NAME, &mut self.mail));
    }

    fn publish(&mut self, text: &str) -> Event {
        let mut event = event(text);
        self.hub.publish(0, NAME, &mut event, None, self.now_ms, &mut self.mail);
        event
    }

    fn sweep(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
        self.hub.sweep(now_ms);
    }
}

#[test]
fn resume_empty_histories_are_dropped_before_those_with_events() {
    let mut it = Alone::new(20_000);
    let start = it.resume(0, ResumeFrom::Present).position;
    it.publish("kept");
    it.leave(0);
    // A stranger makes up names that match the pattern.
    for number in 0..1000 {
        let name = format!("chat-x{number}");
        let request = join(1, ResumeFrom::Present);
        it.hub.join(Join { name: &name, ..request }, 0, &mut it.mail);
        assert!(it.hub.leave(slot(1), 0, &name, &mut it.mail));
        it.sweep(1);
    }
    assert!(it.hub.losses().kept > 900 && it.hub.kept_bytes() <= 20_000);
    let reply = it.resume(0, ResumeFrom::Position(start));
    assert_eq!((reply.outcome, reply.missed.len()), (ResumeOutcome::Recovered, 1));
}

#[test]
fn resume_begins_a_stream_and_gives_positions_to_later_events() {
    let mut it = Alone::new(1 << 20);
    let ResumeReply { position, outcome, missed } = it.resume(0, ResumeFrom::Present);
    assert_eq!((position.serial, outcome, missed.len()), (0, ResumeOutcome::Present, 0));
    for serial in 1..=3 {
        let event = it.publish("x");
        assert_eq!(position_of(&event), StreamPosition { serial, ..position });
    }
    assert_eq!(it.hub.history_totals().0, 3);
    let info = it.hub.channel_info(&it.hub.name(0, NAME), 0);
    assert_eq!(info.position, Some(StreamPosition { serial: 3, ..position }));
}

#[test]
fn resume_gives_no_positions_to_channels_whose_subscribers_have_none() {
    let mut it = Alone::new(1 << 20);
    it.hub.join(Join { request: None, ..join(0, ResumeFrom::Present) }, 0, &mut it.mail);
    assert!(it.publish("x").forms.is_none());
    let reply = it.resume(1, ResumeFrom::Rewind(9));
    assert_eq!(
        position_of(&as_event(&reply.missed[0])).serial,
        1,
        "kept, and given its position now"
    );
    assert_eq!(position_of(&it.publish("y")).serial, 2);
}

#[test]
fn resume_outcomes_on_both_sides_of_what_is_kept() {
    use ResumeOutcome::{Expired, Future, Malformed, NoneKept, OtherStream, Present, Recovered};
    let mut it = Alone::new(1 << 20);
    let start = it.resume(0, ResumeFrom::Present).position;
    let at = |serial| ResumeFrom::Position(StreamPosition { serial, ..start });
    assert_eq!(it.outcome(1, at(0)), (Recovered, 0, vec![]));
    assert_eq!(it.outcome(1, at(1)), (Future, 0, vec![]));
    (1..=3).for_each(|_| _ = it.publish("x"));
    assert_eq!(it.outcome(1, at(0)), (Recovered, 0, vec![1, 2, 3]), "the whole stream is kept");
    (4..=8).for_each(|_| _ = it.publish("x"));
    assert_eq!(it.outcome(1, at(0)), (Expired, 8, vec![]));
    assert_eq!(it.outcome(1, at(3)), (Expired, 8, vec![]));
    assert_eq!(it.outcome(1, at(4)), (Recovered, 4, vec![5, 6, 7, 8]));
    assert_eq!(it.outcome(1, at(7)), (Recovered, 7, vec![8]));
    assert_eq!(it.outcome(1, at(8)), (Recovered, 8, vec![]));
    assert_eq!(it.outcome(1, at(9)), (Future, 8, vec![]));
    let other = StreamPosition { stream: start.stream ^ 1, serial: 8 };
    assert_eq!(it.outcome(1, ResumeFrom::Position(other)), (OtherStream, 8, vec![]));
    assert_eq!(it.outcome(1, ResumeFrom::Malformed), (Malformed, 8, vec![]));
    assert_eq!(it.outcome(1, ResumeFrom::Present), (Present, 8, vec![]));
    assert_eq!(it.outcome(1, ResumeFrom::Rewind(0)), (NoneKept, 8, vec![]));
    assert_eq!(it.outcome(1, ResumeFrom::Rewind(2)), (Recovered, 6, vec![7, 8]));
    assert_eq!(it.outcome(1, ResumeFrom::Rewind(99)), (Recovered, 3, vec![4, 5, 6, 7, 8]));
}

#[test]
fn resume_after_events_have_expired_depends_on_the_last_one() {
    use ResumeOutcome::{Expired, Recovered};
    let mut it = Alone::new(1 << 20);
    let start = it.resume(0, ResumeFrom::Present).position;
    let at = |serial| ResumeFrom::Position(StreamPosition { serial, ..start });
    for now_ms in [0, 1000, 2000] {
        it.now_ms = now_ms;
        it.publish("x");
    }
    it.now_ms = 9_999;
    assert_eq!(it.outcome(1, at(1)).0, Recovered);
    // Not swept yet, and already treated as expired.
    it.now_ms = 10_000;
    assert_eq!(it.outcome(1, at(1)), (Expired, 3, vec![]));
    assert_eq!(it.outcome(1, at(2)), (Recovered, 2, vec![3]));
    it.sweep(12_000);
    assert_eq!(it.hub.history_totals().0, 0);
    assert_eq!(it.outcome(1, at(2)), (Expired, 3, vec![]));
    assert_eq!(it.outcome(1, at(3)), (Recovered, 3, vec![]), "nothing follows the last event");
}

#[test]
fn resume_stream_outlives_the_last_subscriber_for_its_time_only() {
    let mut it = Alone::new(1 << 20);
    let start = it.resume(0, ResumeFrom::Present).position;
    it.sweep(60_000);
    assert_eq!(it.hub.history_totals().0, 0);
    it.leave(0);
    it.sweep(69_999);
    let at = ResumeFrom::Position(start);
    assert_eq!(it.outcome(0, at).0, ResumeOutcome::Recovered, "a quiet channel has no event");
    it.sweep(70_000);
    assert_eq!(it.hub.channel_count(), 1, "the time has begun again");
    it.sweep(79_998);
    assert_eq!((it.hub.channel_count(), it.hub.picture_count()), (1, 1));
    it.sweep(79_999);
    assert_eq!((it.hub.channel_count(), it.hub.picture_count(), it.hub.kept_bytes()), (0, 0, 0));
    assert_eq!((it.hub.history_totals(), it.hub.kept.expiries.len()), ((0, 0), 0));
    let reply = it.resume(0, at);
    assert_eq!(reply.outcome, ResumeOutcome::OtherStream);
    assert_ne!(reply.position.stream, start.stream);
}

#[test]
fn resume_history_is_kept_without_subscribers() {
    let mut it = Alone::new(1 << 20);
    let start = it.resume(0, ResumeFrom::Present).position;
    it.leave(0);
    it.publish("a");
    it.sweep(9_000);
    it.publish("b");
    let reply = it.resume(1, ResumeFrom::Position(start));
    assert_eq!(
        reply.missed.iter().map(|it| text_of(&as_event(it))).collect::<Vec<_>>(),
        ["a", "b"]
    );
    it.leave(1);
    it.sweep(19_000);
    assert_eq!(it.hub.channel_count(), 0);
}

/// A subscriber without positions keeps the stream as well.
#[test]
fn resume_stream_lives_while_any_subscriber_is_there() {
    let mut it = Alone::new(1 << 20);
    let start = it.resume(0, ResumeFrom::Present).position;
    it.hub.join(Join { request: None, ..join(1, ResumeFrom::Present) }, 0, &mut it.mail);
    it.publish("a");
    it.leave(0);
    (0..200).for_each(|n| it.sweep(n * 1000));
    let at = StreamPosition { serial: 1, ..start };
    assert_eq!(it.resume(0, ResumeFrom::Position(at)).outcome, ResumeOutcome::Recovered);
}

#[test]
fn resume_shares_the_forms_of_live_events() {
    let mut it = Alone::new(1 << 20);
    let start = it.resume(0, ResumeFrom::Present).position;
    let live = it.publish("a");
    let again = it.resume(1, ResumeFrom::Position(start));
    let both = [live.forms.expect("forms"), again.missed[0].forms.clone()];
    assert!(Arc::ptr_eq(&both[0], &both[1]));
}

#[test]
fn resume_bounds_are_the_configured_ones_of_now() {
    let mut it = Alone::new(1 << 20);
    let start = it.resume(0, ResumeFrom::Present).position;
    (0..4).for_each(|_| _ = it.publish("0123456789"));
    let resume = |bytes, serial| {
        let from = ResumeFrom::Position(StreamPosition { serial, ..start });
        let limit = HistoryLimit { bytes, ..LIMIT };
        let request = JoinRequest {
            resume: Some(ResumeRequest { from, limit, view: 0 }),
            ..Default::default()
        };
        Join { request: Some(request), ..join(1, from) }
    };
    for (bytes, serial, outcome) in [
        (40, 1, ResumeOutcome::Recovered),
        (39, 1, ResumeOutcome::Expired),
        (39, 2, ResumeOutcome::Recovered),
    ] {
        let joined = it.hub.join(resume(bytes, serial), 0, &mut it.mail);
        let Joined::Now(Some(reply)) = joined else { panic!("{joined:?}") };
        assert_eq!(reply.resumed.expect("a reply").outcome, outcome, "{bytes} {serial}");
        it.leave(1);
    }
}

#[test]
fn resume_histories_share_the_kept_bytes_and_the_oldest_go_first() {
    let mut it = Alone::new(1 << 20);
    let publish = |it: &mut Alone, n: u32| {
        let mut event = event(&"x".repeat(100));
        it.hub.publish(0, &format!("chat-{n}"), &mut event, None, 0, &mut it.mail);
    };
    publish(&mut it, 0);
    let each = it.hub.kept_bytes();
    it.hub.kept.max_bytes = each * 4;
    (1..6).for_each(|n| publish(&mut it, n));
    assert_eq!((it.hub.losses().kept, it.hub.history_totals()), (2, (4, each * 4)));
    let is_kept = |it: &Alone, n: u32| {
        it.hub.channel_info(&it.hub.name(0, &format!("chat-{n}")), 0).position.is_some()
    };
    assert_eq!([0, 1, 2, 5].map(|n| is_kept(&it, n)), [false, false, true, true]);
    assert_eq!(it.hub.channel_count(), 4);
}

/// Sweeps examine none of 100 000 histories that are not due.
#[test]
fn resume_histories_that_are_not_due_are_not_looked_at() {
    let mut it = Alone::new(usize::MAX);
    for n in 0..100_000 {
        it.hub.publish(0, &format!("chat-{n}"), &mut event("x"), None, 0, &mut it.mail);
    }
    (0..10_000).step_by(250).for_each(|now_ms| it.sweep(now_ms));
    assert_eq!((it.hub.kept.examined, it.hub.channel_count()), (0, 100_000));
    // Each costs two units of work: it is examined, and loses an event.
    it.sweep(10_000);
    assert_eq!((it.hub.kept.examined, it.hub.channel_count()), (5_000, 95_000));
    (0..19).for_each(|_| it.sweep(10_000));
    assert_eq!((it.hub.kept_bytes(), it.hub.channel_count()), (0, 0));
}

#[test]
fn resume_sweep_removes_a_bounded_number_of_events() {
    let mut it = Alone::new(usize::MAX);
    let limit = HistoryLimit { max: 20_000, ttl_s: 10, bytes: 1 << 20 };
    for _ in 0..15_000 {
        let mut event = Event { retain: Retention::History(limit), ..event("x") };
        it.hub.publish(0, NAME, &mut event, None, 0, &mut it.mail);
    }
    it.sweep(10_000);
    assert_eq!(it.hub.history_totals().0, 15_000 - 9_999);
    it.sweep(10_000);
    assert_eq!(it.hub.history_totals().0, 0);
}

#[test]
fn resume_histories_end_when_their_application_changes() {
    let mut it = Alone::new(1 << 20);
    let start = it.resume(0, ResumeFrom::Present).position;
    it.publish("a");
    it.hub.publish(7, NAME, &mut event("other"), None, 0, &mut it.mail);
    it.hub.end_histories(0);
    assert_eq!((it.hub.history_totals().0, it.hub.picture_count()), (1, 1));
    let event = it.publish("b");
    assert_eq!(position_of(&event).serial, 1, "its subscriber still gets positions");
    assert_ne!(position_of(&event).stream, start.stream);
}

#[test]
fn resume_pages_of_a_history() {
    let mut it = Alone::new(1 << 20);
    let query = |it: &Alone, after: Option<StreamPosition>, max| {
        let query = Query::History { app: 0, name: NAME.into(), after, max, view: 0 };
        let Answer::History(page) = it.hub.answer_query(&query, it.now_ms) else { panic!() };
        let page = page?;
        let serials = page.events.iter().map(|(serial, _)| *serial).collect::<Vec<_>>();
        Some((serials, page.position.serial, page.complete))
    };
    assert_eq!(query(&it, None, 9), None);
    let start = it.resume(0, ResumeFrom::Present).position;
    let at = |serial| Some(StreamPosition { serial, ..start });
    assert_eq!(query(&it, None, 9), Some((vec![], 0, true)));
    (0..3).for_each(|_| _ = it.publish("x"));
    assert_eq!(query(&it, None, 9), Some((vec![1, 2, 3], 3, true)));
    assert_eq!(query(&it, None, 2), Some((vec![1, 2], 2, true)));
    assert_eq!(query(&it, at(2), 2), Some((vec![3], 3, true)));
    assert_eq!(query(&it, at(3), 2), Some((vec![], 3, true)));
    assert_eq!(query(&it, at(4), 2), Some((vec![], 3, false)));
    (0..4).for_each(|_| _ = it.publish("x"));
    assert_eq!(query(&it, None, 9), Some((vec![3, 4, 5, 6, 7], 7, false)));
    assert_eq!(query(&it, at(2), 9), Some((vec![3, 4, 5, 6, 7], 7, false)));
    assert_eq!(query(&it, at(3), 9), Some((vec![4, 5, 6, 7], 7, true)));
    let other = Some(StreamPosition { stream: !start.stream, serial: 3 });
    assert_eq!(query(&it, other, 1), Some((vec![3], 3, false)));
    it.now_ms = 10_000;
    assert_eq!(query(&it, at(3), 9), Some((vec![], 7, false)), "expired, and not swept yet");
    assert_eq!(query(&it, at(7), 9), Some((vec![], 7, true)));
}

/// A channel on several cores, whose mail is delivered in any order. Clients reconnect with the
/// last position that they have got.
struct Chat {
    cores: Cores,
    /// What each client has: its last position, and whether its join was answered.
    clients: HashMap<(u16, u32), Client>,
    /// The events in the order of the home, by position.
    ordered: BTreeMap<(u64, u64), String>,
    published: u32,
    now_ms: u64,
    recovered: u32,
}

#[derive(Default)]
struct Client {
    last: Option<StreamPosition>,
    is_joined: bool,
    is_active: bool,
    /// Whether the client has got no event since it joined.
    is_fresh: bool,
}

/// The index of the clients that do not ask for positions.
const PLAIN: u32 = 2;

impl Client {
    fn on_reply(&mut self, reply: JoinReply) -> Vec<Event> {
        let resumed = reply.resumed.expect("a reply to the request");
        if resumed.outcome == ResumeOutcome::Recovered {
            assert_eq!(Some(resumed.position), self.last);
        } else {
            assert!(resumed.missed.is_empty());
        }
        self.last = Some(resumed.position);
        self.is_active = true;
        resumed.missed.iter().map(as_event).collect()
    }

    fn receive(&mut self, event: &Event, ordered: &BTreeMap<(u64, u64), String>) {
        assert!(self.is_active, "before its join is answered");
        let (last, position) = (self.last.expect("a position"), position_of(event));
        if position.stream == last.stream {
            assert_eq!(position.serial, last.serial + 1, "no gap and no repetition");
        }
        assert_eq!(ordered[&(position.stream, position.serial)], text_of(event));
        self.last = Some(position);
    }
}

impl Chat {
    fn new(cores: u16, seed: u64) -> Chat {
        Chat {
            cores: Cores::new(cores, seed, 1 << 20),
            clients: HashMap::new(),
            ordered: BTreeMap::new(),
            published: 0,
            now_ms: 0,
            recovered: 0,
        }
    }

    fn toggle(&mut self, core: u16, index: u32) {
        let (hub, mail) = self.cores.at(core);
        let client = self.clients.entry((core, index)).or_default();
        let is_plain = index == PLAIN;
        if client.is_joined {
            assert!(hub.leave(slot(index), 0, NAME, mail));
            (client.is_joined, client.is_active) = (false, false);
            return;
        }
        (client.is_joined, client.is_fresh) = (true, true);
        let from = client.last.map_or(ResumeFrom::Present, ResumeFrom::Position);
        let request = join(index, from).request.filter(|_| !is_plain);
        match hub.join(Join { request, ..join(index, from) }, self.now_ms, mail) {
            Joined::Now(None) => client.is_active = true,
            Joined::Now(reply) => self.on_reply(core, index, reply.expect("a reply")),
            Joined::Later => {}
            other => panic!("{other:?}"),
        }
    }

    fn on_reply(&mut self, core: u16, index: u32, reply: JoinReply) {
        let client = self.clients.get_mut(&(core, index)).expect("a client");
        if index == PLAIN {
            return client.is_active = true;
        }
        let is_recovered = reply.resumed.as_ref().map(|it| it.outcome);
        self.recovered += u32::from(is_recovered == Some(ResumeOutcome::Recovered));
        for event in client.on_reply(reply) {
            client.receive(&event, &self.ordered);
        }
    }

    fn publish(&mut self, core: u16) {
        self.published += 1;
        let mut event = event(&self.published.to_string());
        let (hub, mail) = self.cores.at(core);
        if let Published::Ordered(_) = hub.publish(0, NAME, &mut event, None, self.now_ms, mail) {
            self.order(core, &event);
        }
    }

    /// Notes an event that its home has ordered, and delivers it there.
    fn order(&mut self, home: u16, event: &Event) {
        let name = self.cores.hubs[home as usize].name(0, NAME);
        let info = self.cores.hubs[home as usize].channel_info(&name, self.now_ms);
        let at = info.position.expect("a position after an event");
        assert_eq!(self.ordered.insert((at.stream, at.serial), text_of(event)), None);
        self.deliver(home, event);
    }

    fn deliver(&mut self, core: u16, event: &Event) {
        let at = self.position_of_text(event);
        let hub = &self.cores.hubs[core as usize];
        let name = hub.name(0, NAME);
        for it in hub.subscribers(&name).iter().filter(|it| it.is_active()) {
            let client = self.clients.get_mut(&(core, it.slot)).expect("a client");
            match it.slot == PLAIN {
                true => {
                    assert!(client.is_active, "before its join is answered");
                    client.is_fresh = false;
                    client.last = at;
                }
                false => client.receive(event, &self.ordered),
            }
        }
    }

    /// Delivers the first message of one mailbox, which `pick` selects. Returns false if all are
    /// empty.
    fn carry(&mut self, pick: usize) -> bool {
        let Some((from, to, mail)) = self.cores.take(pick) else { return false };
        let (hub, outgoing) = self.cores.at(to);
        match mail {
            Mail::Up(up) => {
                if let Some((_, event)) = hub.request(from, up, self.now_ms, outgoing) {
                    self.order(to, &event);
                }
            }
            Mail::Down(Down::Deliver { event, .. }) => self.deliver(to, &event),
            Mail::Down(Down::JoinReply { request_id, slot, name, reply }) => {
                if hub.on_join_reply(request_id, slot, &name, true, outgoing) {
                    self.on_reply(to, slot.index, reply.expect("room"));
                }
            }
            Mail::Down(Down::Interested { request_id, name, granted }) => {
                assert!(granted);
                for it in hub.interested(request_id, &name) {
                    assert_eq!(it.slot, PLAIN);
                    self.clients.get_mut(&(to, PLAIN)).expect("a client").is_active = true;
                }
            }
            Mail::Down(other) => panic!("{other:?}"),
        }
        true
    }

    fn position_of_text(&self, event: &Event) -> Option<StreamPosition> {
        let text = text_of(event);
        let ((stream, serial), _) = self.ordered.iter().find(|(_, it)| **it == text)?;
        Some(StreamPosition { stream: *stream, serial: *serial })
    }

    fn sweep(&mut self, ms: u64) {
        self.now_ms += ms;
        self.cores.hubs.iter_mut().for_each(|hub| hub.sweep(self.now_ms));
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Toggle(u16, u32),
    Publish(u16),
    Carry(usize),
    Sweep(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..3_u16, 0..3_u32).prop_map(|(core, at)| Step::Toggle(core, at)),
        4 => (0..3_u16).prop_map(Step::Publish),
        9 => any::<usize>().prop_map(Step::Carry),
        1 => (0..6000_u64).prop_map(Step::Sweep),
    ];
    prop::collection::vec(step, 0..200)
}

fn run(cores: u16, seed: u64, steps: Vec<Step>) -> u32 {
    let mut world = Chat::new(cores, seed);
    for step in steps {
        match step {
            Step::Toggle(core, at) => world.toggle(core % cores, at),
            Step::Publish(core) => world.publish(core % cores),
            Step::Sweep(ms) => world.sweep(ms),
            Step::Carry(pick) => _ = world.carry(pick),
        }
    }
    while world.carry(0) {}
    // At rest every subscriber has reached the end of the stream.
    let name = world.cores.hubs[0].name(0, NAME);
    let end =
        world.cores.hubs.iter().find_map(|hub| hub.channel_info(&name, world.now_ms).position);
    for ((_, index), client) in world.clients.iter().filter(|(_, client)| client.is_joined) {
        let is_quiet = *index == PLAIN && client.is_fresh;
        assert!(client.is_active);
        // A client without positions has got the last event, or none since it joined.
        assert!(client.last == end || is_quiet, "{:?} of {end:?}", client.last);
    }
    for hub in &world.cores.hubs {
        let homes = hub.channels.iter().flatten().filter_map(|it| it.home.as_ref());
        let held: Vec<_> = homes.filter_map(|home| home.history.as_ref()).collect();
        let bytes = held.iter().map(|it| it.memory()).sum::<usize>();
        let events = held.iter().map(|it| it.len()).sum::<usize>();
        assert_eq!((hub.kept.bytes, hub.history_totals()), (bytes, (events, bytes)));
        assert!(events <= LIMIT.max as usize);
    }
    for (core, at) in world.clients.keys().copied().collect::<Vec<_>>() {
        if world.clients[&(core, at)].is_joined {
            world.toggle(core, at);
        }
    }
    while world.carry(0) {}
    (0..4).for_each(|_| world.sweep(10_000));
    for hub in &world.cores.hubs {
        assert_eq!((hub.kept_bytes(), hub.channel_count()), (0, 0));
        assert!(hub.kept.expiries.is_empty() && hub.kept.pictures.is_empty());
    }
    world.recovered
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn resume_on_several_cores_has_no_gap_and_no_repetition(
        cores in 1..4_u16,
        seed in 0..8_u64,
        steps in steps(),
    ) {
        run(cores, seed, steps);
    }
}

/// The random steps above do recover positions, also over cores.
#[test]
fn resume_on_several_cores_recovers() {
    let mut random = fastrand::Rng::with_seed(3);
    let mut recovered = 0;
    for seed in 0..50 {
        let steps = (0..200).map(|_| match random.u8(..6) {
            0 | 1 => Step::Toggle(random.u16(..3), random.u32(..3)),
            2 => Step::Publish(random.u16(..3)),
            _ => Step::Carry(random.usize(..)),
        });
        recovered += run(3, seed, steps.collect());
    }
    assert!(recovered > 100, "{recovered}");
}

#[test]
fn resume_is_counted_at_the_home_and_subscribers_by_view_on_each_core() {
    let mut it = Alone::new(1 << 20);
    let start = it.resume(0, ResumeFrom::Present).position;
    for text in ["a", "b", "c", "d", "e", "f", "g"] {
        it.publish(text);
    }
    let after = |serial| ResumeFrom::Position(StreamPosition { serial, ..start });
    it.outcome(1, after(5));
    it.outcome(1, ResumeFrom::Rewind(1));
    // The five last events are kept, so the second one is not.
    it.outcome(1, after(1));
    it.outcome(1, ResumeFrom::Malformed);
    it.outcome(1, after(9));
    it.outcome(1, ResumeFrom::Present);
    for (index, view) in [(2, 3), (3, 0), (4, 3)] {
        let form = Form { view, ..Form::PUBLISHED };
        it.hub.join(
            Join { form, request: None, ..join(index, ResumeFrom::Present) },
            0,
            &mut it.mail,
        );
    }
    let query = |name: &str| Query::Usage { app: 0, name: name.into() };
    let Answer::Usage(usage) = it.hub.answer_query(&query(NAME), 0) else { panic!() };
    assert_eq!(usage.views, [(0, 2), (3, 2)]);
    let history = usage.history.expect("a history");
    assert_eq!((history.recovered, history.not_recovered), (2, 3));
    assert_eq!((history.events, history.position.serial), (5, 7));
    assert_eq!(history.bytes, it.hub.history_totals().1);
    let Answer::Usage(usage) = it.hub.answer_query(&query("other"), 0) else { panic!() };
    assert_eq!(usage, ChannelUsage::default());
}

fn in_view(index: u32, view: u16, from: ResumeFrom) -> Join<'static> {
    let resume = Some(ResumeRequest { from, limit: LIMIT, view });
    let request = Some(JoinRequest { resume, ..JoinRequest::default() });
    Join { request, form: Form { view, ..Form::POSITIONED }, ..join(index, from) }
}

/// The forms of a linked channel's live events are those of all its views; the history keeps only
/// those that replays have needed, and is charged for one of each view.
#[test]
fn resume_through_views_shares_forms_and_is_charged_for_them() {
    let mut it = Alone::new(1 << 20);
    let start = it.resume(0, ResumeFrom::Present).position;
    let live = EventForms::new(None);
    let mut linked = Event { forms: Some(Arc::new(live)), ..event("0123456789") };
    it.hub.publish(0, NAME, &mut linked, None, it.now_ms, &mut it.mail);
    assert_eq!(position_of(&linked).serial, 1);
    let bytes = |it: &Alone| it.hub.history_totals().1;
    let unformed = bytes(&it);
    let replay = |it: &mut Alone, index, view| {
        let join = in_view(index, view, ResumeFrom::Position(start));
        match it.hub.join(join, it.now_ms, &mut it.mail) {
            Joined::Now(Some(JoinReply { resumed: Some(reply), .. })) => {
                reply.missed[0].forms.clone()
            }
            other => panic!("{other:?}"),
        }
    };
    let (one, two) = (replay(&mut it, 1, 5), replay(&mut it, 2, 5));
    assert!(Arc::ptr_eq(&one, &two), "made once for all replays");
    assert!(!Arc::ptr_eq(&one, linked.forms.as_ref().expect("forms")));
    let (first, each) = (bytes(&it), |it: &Alone, before| bytes(it) - before);
    assert!(first > unformed + 10);
    replay(&mut it, 3, 6);
    let second = each(&it, first);
    replay(&mut it, 4, 6);
    assert_eq!(bytes(&it), first + second, "the same view");
    replay(&mut it, 5, 7);
    assert!(second > 10 && each(&it, first + second) > 10);
    assert!(it.hub.kept_bytes() >= bytes(&it));
}

#[test]
fn resume_before_the_last_events_has_a_maximum() {
    let mut it = Alone::new(1 << 20);
    let start = it.resume(0, ResumeFrom::Present).position;
    (1..=5).for_each(|_| _ = it.publish("x"));
    let old = StreamPosition { stream: start.stream ^ 1, serial: 2 };
    let at = StreamPosition { serial: 1, ..start };
    for (last, max, serials) in [
        (None, 2, vec![4, 5]),
        (None, 0, vec![]),
        (None, 9, vec![1, 2, 3, 4, 5]),
        (Some(old), 2, vec![4, 5]),
        (Some(at), 2, vec![2, 3, 4, 5]),
    ] {
        let found = it.outcome(1, ResumeFrom::Kept(last, max));
        assert_eq!(found.2, serials, "{last:?} {max}");
    }
}
