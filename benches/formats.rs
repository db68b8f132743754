//! One event in several formats, and pictures: `cargo bench --bench formats`.
//!
//! It measures a publish by the number of formats that its subscribers use; an update of a large
//! picture, and a new subscriber after it; whether the fan-out of an event that has to be encoded
//! costs more than that of an existing frame; and whether subscribers through several views of a
//! linked channel cost more than those through one.

#[path = "rig/cpu.rs"]
mod cpu;
#[path = "rig/linked.rs"]
mod linked;
mod rig;

use cpu::Cpu;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use polycast::codec::json::Scratch;
use polycast::codec::{DecodeLimits, Envelope, Format, Value, decode, encode};
use polycast::dialect::{Event, EventPayload, Hub, Join, JoinRequest, OutgoingMail, Up};
use polycast::hub::{Encodings, Form, Hasher, Joined, Mode, Retention};
use polycast::mem::{Frozen, Slot};
use rig::Rig;
use std::hint::black_box;
use std::sync::Arc;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const APP: u32 = 0;
const NOW_MS: u64 = 1000;
const TOPIC: &str = "Security!XYZ.MKT";
const CHANNEL: &str = "news";
const SUBSCRIBERS: usize = 1000;
const FIELDS: usize = 10_000;
const MERGE: Mode = Mode::Merge { null_deletes: false };

fn envelope() -> Arc<Envelope> {
    let members = [("Controller", Value::text("Market")), ("Topic", Value::text(TOPIC))].map(
        |(key, value)| {
            let key: Box<str> = key.into();
            (key, value)
        },
    );
    Arc::new(Envelope { members: members.into(), key: "Data".into() })
}

/// A change of three fields, one of which is a decimal.
fn change() -> Value {
    Value::map([
        ("Last", Value::number_text("10.60").unwrap_or(Value::Null)),
        ("Volume", Value::Int(70_000)),
        ("Trend", Value::text("Up")),
    ])
}

fn event(envelope: &Arc<Envelope>, value: Value, retain: Retention) -> Event {
    let payload = match Encodings::new(envelope.clone(), value, false) {
        Ok(encodings) => EventPayload::Value(Arc::new(encodings)),
        Err(_) => EventPayload::Nothing,
    };
    Event { payload, retain, ..Event::default() }
}

fn codecs(c: &mut Criterion<Cpu>) {
    let mut group = c.benchmark_group("codec");
    let message = Value::map([
        ("Controller", Value::text("Market")),
        ("Topic", Value::text(TOPIC)),
        ("Data", change()),
    ]);
    let mut scratch = Scratch::default();
    for format in Format::ALL {
        let mut bytes = Vec::new();
        assert_eq!(encode(format, &message, &mut bytes), Ok(()));
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(BenchmarkId::new("decode", format!("{format:?}")), |b| {
            b.iter_batched_ref(
                || bytes.clone(),
                |bytes| decode(format, bytes, &DecodeLimits::default(), &mut scratch),
                BatchSize::SmallInput,
            );
        });
        group.bench_function(BenchmarkId::new("encode", format!("{format:?}")), |b| {
            let mut out = Vec::new();
            b.iter(|| {
                out.clear();
                encode(format, black_box(&message), &mut out)
            });
        });
    }
    group.finish();
}

fn publishes(c: &mut Criterion<Cpu>) {
    let mut group = c.benchmark_group("publish, formats in use:");
    let envelope = envelope();
    for count in 0..=Format::ALL.len() {
        let (mut hub, mut mail) = (Hub::new(0, 1, Hasher::new(7), 0), OutgoingMail::new(1));
        group.bench_function(BenchmarkId::from_parameter(count), |b| {
            b.iter(|| {
                let event = event(&envelope, change(), Retention::Nothing);
                let encodings = event.encodings().map(Arc::clone);
                hub.publish(APP, TOPIC, &mut event.clone(), None, NOW_MS, &mut mail);
                let frame =
                    |format: &Format| encodings.as_ref().map(|it| it.encoded(*format).len());
                Format::ALL.iter().take(count).filter_map(frame).sum::<usize>()
            });
        });
    }
    group.finish();
}

fn picture(c: &mut Criterion<Cpu>) {
    let mut group = c.benchmark_group("a picture of 10 000 fields");
    let envelope = envelope();
    let (mut hub, mut mail) = (Hub::new(0, 1, Hasher::new(7), 1 << 30), OutgoingMail::new(1));
    let field = |at: usize, number: i64| {
        Value::Map(vec![(format!("Field{at:05}").into(), Value::Int(number))])
    };
    let mut publish = |hub: &mut Hub, value: Value| {
        let event = event(&envelope, value, Retention::update(Some(MERGE)));
        hub.publish(APP, TOPIC, &mut event.clone(), None, NOW_MS, &mut mail)
    };
    for at in 0..FIELDS {
        publish(&mut hub, field(at, 0));
    }
    let mut number = 0;
    group.bench_function("one field changes", |b| {
        b.iter(|| {
            number += 1;
            publish(&mut hub, field(number as usize % FIELDS, number))
        });
    });
    let (mut small, value) = (Hub::new(0, 1, Hasher::new(7), 1 << 30), field(0, 0));
    publish(&mut small, value);
    group.bench_function("the same in a picture of one", |b| {
        b.iter(|| {
            number += 1;
            publish(&mut small, field(0, number))
        });
    });
    let mut mail = OutgoingMail::new(1);
    for format in Format::ALL {
        let request = || Some(JoinRequest { picture: Some(format), ..JoinRequest::default() });
        let slot = Slot { index: 1, generation: 1 };
        let mut visit = |hub: &mut Hub| {
            let join = Join {
                slot,
                app: APP,
                name: TOPIC,
                max: 1,
                is_public: false,
                request: request(),
                form: Form::PUBLISHED,
            };
            let Joined::Now(Some(reply)) = hub.join(join, NOW_MS, &mut mail) else { return None };
            assert!(hub.leave(slot, APP, TOPIC, &mut mail));
            reply.picture.map(|picture| picture.encoded(format).len())
        };
        group.bench_function(BenchmarkId::new("join unchanged", format!("{format:?}")), |b| {
            b.iter(|| visit(&mut hub));
        });
        group.bench_function(BenchmarkId::new("change and join", format!("{format:?}")), |b| {
            let mut change_post = OutgoingMail::new(1);
            let envelope = self::envelope();
            b.iter(|| {
                number += 1;
                let value = field(number as usize % FIELDS, number);
                let event = event(&envelope, value, Retention::update(Some(MERGE)));
                hub.publish(APP, TOPIC, &mut event.clone(), None, NOW_MS, &mut change_post);
                visit(&mut hub)
            });
        });
    }
    group.finish();
}

/// Fan-out to 1000 subscribers, as in the benchmark `fanout`: of an existing frame, and of a value
/// that is encoded for this event. Both have the same number of bytes.
fn fanout(c: &mut Criterion<Cpu>) {
    let mut group = c.benchmark_group("deliver to 1000 by request");
    group.throughput(Throughput::Elements(SUBSCRIBERS as u64));
    let common = rig::common(1);
    let mut rig = Rig::new(0, &common);
    for _ in 0..SUBSCRIBERS {
        rig.subscriber(CHANNEL);
    }
    let name = common.hasher.name(APP, CHANNEL);
    let envelope = envelope();
    let made = event(&envelope, change(), Retention::Nothing);
    let frame =
        made.encodings().map_or_else(Frozen::default, |it| it.encoded(Format::Json).clone());
    group.bench_function("a frame", |b| {
        b.iter(|| {
            let event = Event::from(frame.clone());
            let request = Up::Publish { name: name.clone(), event, ack: None };
            rig.shard.request(0, request, rig.now());
            assert_eq!(rig.drain().0, SUBSCRIBERS);
        });
    });
    group.bench_function("a value", |b| {
        b.iter(|| {
            let event = event(&envelope, change(), Retention::Nothing);
            let request = Up::Publish { name: name.clone(), event, ack: None };
            rig.shard.request(0, request, rig.now());
            assert_eq!(rig.drain().0, SUBSCRIBERS);
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = cpu::criterion();
    targets = codecs, publishes, picture, fanout, linked::views
}
criterion_main!(benches);
