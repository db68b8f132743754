//! Tests of pictures: what later subscribers get, and that later updates continue it without a gap.

use super::super::picture::tests::{CLEARS, data, encodings, naive, retains};
use super::*;
use crate::codec::{Format, Value};
use proptest::prelude::*;
use std::collections::HashMap;

const NAME: &str = "topic";
const MERGE: Mode = Mode::Merge { null_deletes: false };
const LOG: Mode = Mode::Log { max: 4, clears: CLEARS };

fn number(key: &str, number: i64) -> Value {
    Value::map([(key, Value::Int(number))])
}

fn event(retain: Retain, value: Value) -> Event {
    let payload = match retain {
        Retain::Clear => EventPayload::Nothing,
        _ => EventPayload::Value(encodings(value)),
    };
    Event { payload, retain: Retention::Picture(retain), ..Event::default() }
}

fn retain_of(event: &Event) -> Retain {
    match event.retain {
        Retention::Picture(retain) => retain,
        _ => panic!("{event:?}"),
    }
}

fn request(format: Format) -> Option<JoinRequest> {
    Some(JoinRequest { picture: Some(format), ..JoinRequest::default() })
}

fn join<'n>(index: u32, name: &'n str, format: Format) -> Join<'n> {
    Join {
        slot: slot(index),
        app: 0,
        name,
        max: 100,
        is_public: false,
        request: request(format),
        form: Form::PUBLISHED,
    }
}

/// A single core.
fn alone(kept_max: usize) -> (Hub, OutgoingMail) {
    (Hub::new(0, 1, Hasher::new(1), kept_max), OutgoingMail::new(1))
}

fn publish(hub: &mut Hub, mail: &mut OutgoingMail, name: &str, event: &Event) -> Published {
    hub.publish(0, name, &mut event.clone(), None, NOW_MS, mail)
}

/// The picture that a subscriber gets now; the subscriber leaves again.
fn picture(hub: &mut Hub, mail: &mut OutgoingMail, name: &str) -> Option<Value> {
    let Joined::Now(Some(reply)) = hub.join(join(99, name, Format::Bson), NOW_MS, mail) else {
        panic!("one core joins at once");
    };
    assert!(hub.leave(slot(99), 0, name, mail));
    reply.picture.map(|picture| data(picture.encoded(Format::Bson), Format::Bson))
}

#[test]
fn picture_install_reaches_subscribers_only_if_heard() {
    let (mut hub, mut mail) = alone(1 << 20);
    assert!(matches!(hub.join(join(1, NAME, Format::Json), NOW_MS, &mut mail), Joined::Now(_)));
    let install =
        |received| event(Retain::Install { mode: LOG, received }, Value::Array(Vec::new()));
    let quiet = publish(&mut hub, &mut mail, NAME, &install(false));
    assert_eq!(quiet, Published::NotSubscribed);
    assert_eq!(picture(&mut hub, &mut mail, NAME), Some(Value::Array(Vec::new())));
    let loud = publish(&mut hub, &mut mail, NAME, &install(true));
    assert!(matches!(loud, Published::Ordered(_)));
}

#[test]
fn picture_clear_releases_the_channel() {
    let (mut hub, mut mail) = alone(1 << 20);
    let update = event(Retain::Update(MERGE), number("a", 1));
    assert!(matches!(publish(&mut hub, &mut mail, NAME, &update), Published::Ordered(_)));
    assert_eq!(hub.channel_count(), 1, "kept without a subscriber");
    assert!(hub.kept_bytes() > 0);
    let clear = Event::clear();
    assert_eq!(publish(&mut hub, &mut mail, NAME, &clear), Published::NotSubscribed);
    assert_eq!((hub.channel_count(), hub.kept_bytes()), (0, 0));
    assert_eq!(publish(&mut hub, &mut mail, NAME, &clear), Published::NotSubscribed);
    assert_eq!(hub.channel_count(), 0, "nothing comes of clearing nothing");
    // The end of a topic reaches its subscribers.
    assert!(matches!(publish(&mut hub, &mut mail, NAME, &update), Published::Ordered(_)));
    assert!(matches!(hub.join(join(1, NAME, Format::Json), NOW_MS, &mut mail), Joined::Now(_)));
    let end = Event { payload: EventPayload::Message(()), ..clear };
    assert!(matches!(publish(&mut hub, &mut mail, NAME, &end), Published::Ordered(_)));
    assert_eq!(picture(&mut hub, &mut mail, NAME), None);
    assert_eq!((hub.channel_count(), hub.kept_bytes()), (1, 0));
}

#[test]
fn pictures_and_cached_events_share_memory_and_the_oldest_are_dropped() {
    let (mut hub, mut mail) = alone(5000);
    let entry = |data: &str| CacheEntry { ttl_ms: 10_000, event: "e".into(), data: data.into() };
    let cached =
        |data: &str| Event { retain: Retention::Cache(Arc::new(entry(data))), ..Event::default() };
    let update =
        |bytes| event(Retain::Update(MERGE), Value::map([("a", Value::text(&"x".repeat(bytes)))]));
    publish(&mut hub, &mut mail, "cache-1", &cached(&"c".repeat(400)));
    publish(&mut hub, &mut mail, "one", &update(400));
    publish(&mut hub, &mut mail, "cache-2", &cached(&"c".repeat(400)));
    publish(&mut hub, &mut mail, "two", &update(400));
    let are_kept = |hub: &mut Hub, mail: &mut OutgoingMail| {
        let cached = ["cache-1", "cache-2"]
            .map(|name| hub.channel_info(&hub.name(0, name), NOW_MS).kept.is_some());
        (cached, ["one", "two"].map(|name| picture(hub, mail, name).is_some()))
    };
    assert_eq!(are_kept(&mut hub, &mut mail), ([true; 2], [true; 2]));
    hub.sweep(NOW_MS);
    assert!(hub.kept_bytes() <= 5000);
    // Encodings for subscribers may have caused the first entry to be dropped: start again, with
    // less memory.
    let _ = hub.losses();
    let (mut hub, mut mail) = alone(hub.kept_bytes());
    publish(&mut hub, &mut mail, "cache-1", &cached(&"c".repeat(400)));
    publish(&mut hub, &mut mail, "one", &update(400));
    publish(&mut hub, &mut mail, "cache-2", &cached(&"c".repeat(400)));
    publish(&mut hub, &mut mail, "two", &update(400));
    let mut left = hub.kept.max_bytes;
    for expected in [
        ([false, true], [true, true]),
        ([false, true], [false, true]),
        ([false, false], [false, true]),
        ([false, false], [false, false]),
    ] {
        left = left.min(hub.kept_bytes()) - 1;
        hub.kept.max_bytes = left;
        hub.sweep(NOW_MS);
        let channel_info = |name| hub.channel_info(&hub.name(0, name), NOW_MS).kept.is_some();
        let cached = ["cache-1", "cache-2"].map(channel_info);
        let pictured =
            ["one", "two"].map(|name| hub.find(0, name, hub.hasher.hash(0, name)).is_some());
        assert_eq!((cached, pictured), expected);
        left = hub.kept_bytes();
    }
    assert_eq!((hub.kept_bytes(), hub.channel_count(), hub.losses().kept), (0, 0, 4));
}

/// The picture is the only use of the channel: the channel is released, and its index is not used
/// again.
#[test]
fn picture_that_never_has_room_is_published_all_the_same() {
    let (mut hub, mut mail) = alone(0);
    let entry = CacheEntry { ttl_ms: 10_000, event: "e".into(), data: "d".into() };
    let cached = Event { retain: Retention::Cache(Arc::new(entry)), ..Event::default() };
    for event in [cached, event(Retain::Update(MERGE), number("a", 1))] {
        match publish(&mut hub, &mut mail, NAME, &event) {
            Published::Ordered(at) => assert!(hub.subscribers_at(at).is_empty()),
            other => panic!("{other:?}"),
        }
        assert_eq!((hub.channel_count(), hub.losses().kept), (0, 1));
    }
}

#[test]
fn picture_counts_lost_elements() {
    let (mut hub, mut mail) = alone(1 << 20);
    let five = Value::Array((0..5).map(Value::Int).collect());
    publish(&mut hub, &mut mail, NAME, &event(Retain::Update(LOG), five));
    assert_eq!(hub.losses(), Losses { kept: 0, elements: 1 });
    assert_eq!(hub.losses(), Losses::default());
}

/// Subscribers of two formats on three cores: what one core has encoded, the others reuse.
#[test]
fn encodings_are_shared_by_all_cores() {
    let mut world = Topic::new(3);
    for core in 0..3 {
        world.toggle(core, 0, Format::Json);
        world.toggle(core, 1, Format::MsgPack);
    }
    while world.carry(0) {}
    let event = event(Retain::Update(MERGE), number("a", 1));
    world.publish(0, &event);
    while world.carry(0) {}
    let mut frames: Vec<_> =
        world.clients.values().flat_map(|client| client.frames.clone()).collect();
    assert_eq!(frames.len(), 6);
    frames.sort_unstable();
    frames.dedup();
    assert_eq!(frames.len(), 2, "each is made once");
    let encodings = event.encodings().expect("forms");
    assert!(!encodings.is_made(Format::Bson), "nobody takes it");
    for format in [Format::Json, Format::MsgPack] {
        assert!(frames.contains(&(encodings.encoded(format).as_ptr() as usize)));
    }
}

/// A subscriber that merges what it gets.
#[derive(Default)]
struct Client {
    format: Format,
    /// Whether it has its join reply; before, it gets nothing.
    reply: bool,
    state: Option<Value>,
    /// The addresses of the frames that it got.
    frames: Vec<usize>,
}

/// A topic with clients on several cores, whose mail is delivered in any order.
struct Topic {
    cores: Cores,
    clients: HashMap<(u16, u32), Client>,
    /// The picture by the order of the home.
    model: Option<Value>,
    home: u16,
}

impl Topic {
    fn new(cores: u16) -> Topic {
        let cores = Cores::new(cores, 3, 1 << 20);
        let home = cores.home(NAME);
        Topic { cores, clients: HashMap::new(), model: None, home }
    }

    fn toggle(&mut self, core: u16, index: u32, format: Format) {
        let (hub, mail) = self.cores.at(core);
        if self.clients.remove(&(core, index)).is_some() {
            assert!(hub.leave(slot(index), 0, NAME, mail));
            return;
        }
        let mut client = Client { format, ..Client::default() };
        match hub.join(join(index, NAME, format), NOW_MS, mail) {
            Joined::Now(reply) => client.on_join_reply(reply.expect("a welcome")),
            Joined::Later => {}
            other => panic!("{other:?}"),
        }
        self.clients.insert((core, index), client);
    }

    fn ordered(&mut self, event: &Event) {
        let value = event.encodings().and_then(|encodings| encodings.value());
        self.model = naive(self.model.as_ref(), retain_of(event), value);
    }

    fn publish(&mut self, core: u16, event: &Event) {
        if core == self.home {
            self.ordered(event);
        }
        let (hub, mail) = self.cores.at(core);
        if let Published::Ordered(_) = hub.publish(0, NAME, &mut event.clone(), None, NOW_MS, mail)
        {
            self.deliver(core, event);
        }
    }

    /// Replaces the picture by one with the same content.
    fn compact(&mut self) {
        if let Some(model) = self.model.clone() {
            let retain = Retain::Install { mode: Mode::Replace, received: false };
            self.publish(self.home, &event(retain, model));
        }
    }

    fn deliver(&mut self, core: u16, event: &Event) {
        let name = self.cores.hubs[core as usize].name(0, NAME);
        for subscriber in self.cores.hubs[core as usize].subscribers(&name) {
            let client = self.clients.get_mut(&(core, subscriber.slot)).expect("a client");
            assert_eq!(client.reply, subscriber.is_active());
            if client.reply {
                client.receive(event);
            }
        }
    }

    /// Delivers the first message of one mailbox, which `pick` selects. Returns false if all are
    /// empty.
    fn carry(&mut self, pick: usize) -> bool {
        let Some((from, to, mail)) = self.cores.take(pick) else { return false };
        if let Mail::Up(Up::Publish { event, .. }) = &mail {
            self.ordered(&event.clone());
        }
        let (hub, outgoing) = self.cores.at(to);
        match mail {
            Mail::Up(up) => {
                if let Some((_, event)) = hub.request(from, up, NOW_MS, outgoing) {
                    self.deliver(to, &event);
                }
            }
            Mail::Down(Down::Deliver { event, .. }) => self.deliver(to, &event),
            Mail::Down(Down::JoinReply { request_id, slot, name, reply }) => {
                if hub.on_join_reply(request_id, slot, &name, true, outgoing) {
                    let client = self.clients.get_mut(&(to, slot.index)).expect("a client");
                    client.on_join_reply(reply.expect("nothing is crowded"));
                }
            }
            Mail::Down(other) => panic!("{other:?}"),
        }
        true
    }
}

impl Client {
    fn on_join_reply(&mut self, reply: JoinReply) {
        self.reply = true;
        self.state = reply.picture.map(|it| data(it.encoded(self.format), self.format));
    }

    /// Reads its frame and merges it as the topic's mode says.
    fn receive(&mut self, event: &Event) {
        let frame = event.encodings().map(|encodings| encodings.encoded(self.format));
        self.frames.extend(frame.map(|frame| frame.as_ptr() as usize));
        let value = frame.map(|frame| data(frame, self.format));
        self.state = naive(self.state.as_ref(), retain_of(event), value.as_ref());
    }
}

#[derive(Clone, Debug)]
enum Step {
    Toggle(u16, u32, Format),
    Publish(u16, Retain, Value),
    Compact,
    Carry(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let values = prop_oneof![
        ("[a-d]", 0..99_i64).prop_map(|(key, n)| number(&key, n)),
        ("[a-d]").prop_map(|key| Value::map([(&*key, Value::Null)])),
        (prop::sample::select(vec!["A", "U", "C"]), 0..99_i64).prop_map(|(what, n)| {
            Value::Array(vec![Value::map([("O", Value::text(what)), ("n", Value::Int(n))])])
        }),
    ];
    let format = prop::sample::select(Format::ALL.to_vec());
    let step = prop_oneof![
        3 => (0..3_u16, 0..4_u32, format).prop_map(|(core, at, it)| Step::Toggle(core, at, it)),
        4 => (0..3_u16, retains(), values).prop_map(|(core, it, v)| Step::Publish(core, it, v)),
        1 => Just(Step::Compact),
        8 => any::<usize>().prop_map(Step::Carry),
    ];
    prop::collection::vec(step, 0..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn picture_late_subscriber_gets_the_state_of_the_home(cores in 1..4_u16, steps in steps()) {
        let mut world = Topic::new(cores);
        for step in steps {
            match step {
                Step::Toggle(core, at, format) => world.toggle(core % cores, at, format),
                Step::Publish(core, mut retain, value) => {
                    // No subscriber may have a state that differs from the picture.
                    if let Retain::Install { received, .. } = &mut retain {
                        *received = true;
                    }
                    let mut event = event(retain, value);
                    if retain == Retain::Clear {
                        event.payload = EventPayload::Message(());
                    }
                    world.publish(core % cores, &event);
                }
                Step::Compact => world.compact(),
                Step::Carry(pick) => {
                    world.carry(pick);
                }
            }
        }
        while world.carry(0) {}
        for hub in &world.cores.hubs {
            let homes = hub.channels.iter().flatten().filter_map(|it| it.home.as_ref());
            let pictures = homes.filter_map(|home| home.picture.as_ref());
            let bytes: usize = pictures.map(|picture| picture.bytes()).sum();
            prop_assert_eq!(hub.kept.bytes, bytes, "what is held is what is counted");
        }
        for ((core, at), client) in &world.clients {
            prop_assert!(client.reply);
            prop_assert_eq!(&client.state, &world.model, "client {} of core {}", at, core);
        }
        world.toggle(0, 9, Format::MsgPack);
        while world.carry(0) {}
        prop_assert_eq!(&world.clients[&(0, 9)].state, &world.model);
    }
}
