//! The channel map of one core: `cargo bench --bench hub`.
//!
//! A time is that of one operation, which the benchmark's name states, in a map that already has
//! the content that the name states. The benchmark itself moves the mail between cores.

#[path = "rig/cpu.rs"]
mod cpu;

use cpu::Cpu;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use polycast::dialect::{Event, Hub, Join, OutgoingMail};
use polycast::hub::{Form, Hasher, HistoryLimit, Joined, Published, Retention};
use polycast::mem::{Frozen, Slot};
use std::hint::black_box;

const APP: u32 = 0;
const MAX_EVENTS: usize = 1 << 20;
const NOW_MS: u64 = 1000;

fn slot(index: u32) -> Slot {
    Slot { index, generation: 1 }
}

fn event() -> Event {
    Frozen::new(&[b'x'; 112]).into()
}

fn is_now(joined: Joined) -> bool {
    matches!(joined, Joined::Now(_))
}

struct Core {
    hub: Hub,
    mail: OutgoingMail,
}

impl Core {
    fn new(core: u16, cores: u16) -> Core {
        Core { hub: Hub::new(core, cores, Hasher::new(7), 0), mail: OutgoingMail::new(cores) }
    }

    fn join(&mut self, index: u32, name: &str) -> Joined {
        let join = Join {
            slot: slot(index),
            app: APP,
            name,
            max: MAX_EVENTS,
            is_public: false,
            request: None,
            form: Form::PUBLISHED,
        };
        self.hub.join(join, NOW_MS, &mut self.mail)
    }

    fn leave(&mut self, index: u32, name: &str) -> bool {
        self.hub.leave(slot(index), APP, name, &mut self.mail)
    }
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("room-{n:06}")).collect()
}

fn joins(c: &mut Criterion<Cpu>) {
    let mut group = c.benchmark_group("join and leave");
    for present in [1, 1000] {
        let mut core = Core::new(0, 1);
        (0..present).for_each(|index| assert!(is_now(core.join(index, "room"))));
        group.bench_function(BenchmarkId::new("a channel of", present), |b| {
            b.iter(|| {
                core.join(black_box(present), "room");
                core.leave(black_box(present), "room")
            });
        });
    }
    let mut core = Core::new(0, 1);
    group.bench_function("a channel of its own", |b| {
        b.iter(|| {
            core.join(black_box(1), "room");
            core.leave(black_box(1), "room")
        });
    });
    group.bench_function("a connection with 100 channels ends", |b| {
        let names = names(100);
        b.iter_batched_ref(
            || {
                let mut core = Core::new(0, 1);
                names.iter().for_each(|name| assert!(is_now(core.join(1, name))));
                core
            },
            |core| core.hub.leave_all(slot(1), &mut core.mail),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn publishes(c: &mut Criterion<Cpu>) {
    let mut group = c.benchmark_group("publish to");
    for count in [0, 1, 1000] {
        let mut core = Core::new(0, 1);
        (0..count).for_each(|index| assert!(is_now(core.join(index, "room"))));
        let mut event = event();
        let mut found: Vec<u32> = Vec::new();
        group.throughput(Throughput::Elements(u64::from(count).max(1)));
        group.bench_function(BenchmarkId::from_parameter(count), |b| {
            b.iter(|| {
                found.clear();
                let published = core.hub.publish(
                    APP,
                    black_box("room"),
                    &mut event,
                    None,
                    NOW_MS,
                    &mut core.mail,
                );
                if let Published::Ordered(at) = published {
                    found.extend(core.hub.subscribers_at(at).iter().map(|it| it.slot));
                }
                found.len()
            });
        });
    }
    group.finish();
}

fn many_channels(c: &mut Criterion<Cpu>) {
    const COUNT: usize = 100_000;
    let names = names(COUNT);
    let mut core = Core::new(0, 1);
    for (index, name) in names.iter().enumerate() {
        core.join(index as u32, name);
    }
    // A stride that visits every name, each far from the one before.
    let mut at = 0;
    let mut next = || {
        at = (at + 61_803) % COUNT;
        (at as u32, &*names[at])
    };
    let mut event = event();
    let mut group = c.benchmark_group("100000 channels of one");
    group.bench_function("publish", |b| {
        b.iter(|| {
            match core.hub.publish(APP, next().1, &mut event, None, NOW_MS, &mut core.mail) {
                Published::Ordered(at) => core.hub.subscribers_at(at).len(),
                _ => 0,
            }
        });
    });
    group.bench_function("leave and join again", |b| {
        b.iter(|| {
            let (index, name) = next();
            core.leave(index, name);
            core.join(index, name)
        });
    });
    group.finish();
}

/// A publish on a channel that keeps its last events, beside one that keeps none. Each event has a
/// frame of its own, as published events have.
fn history(c: &mut Criterion<Cpu>) {
    let mut group = c.benchmark_group("publish, events kept:");
    for (kept, subscribers) in [(0, 0), (100, 0), (10_000, 0), (0, 1), (100, 1), (10_000, 1)] {
        let mut core = Core { hub: Hub::new(0, 1, Hasher::new(7), 1 << 30), ..Core::new(0, 1) };
        (0..subscribers).for_each(|index| assert!(is_now(core.join(index, "room"))));
        let limit = HistoryLimit { max: kept, ttl_s: 120, bytes: 1 << 24 };
        let mut publish = || {
            let retain = if kept == 0 { Retention::Nothing } else { Retention::History(limit) };
            let mut event = Event { retain, ..event() };
            core.hub.publish(APP, black_box("room"), &mut event, None, NOW_MS, &mut core.mail)
        };
        (0..2 * kept).for_each(|_| {
            black_box(publish());
        });
        let id = BenchmarkId::new(kept.to_string(), format!("{subscribers} subscribers"));
        group.bench_function(id, |b| b.iter(&mut publish));
    }
    group.finish();
}

/// A publish from its origin to the home, and from there to the one interested core, which is the
/// origin.
fn across(c: &mut Criterion<Cpu>) {
    let mut cores = [Core::new(0, 2), Core::new(1, 2)];
    // A name of which core 1 is the home.
    let homes = names(64);
    let name = homes.iter().find(|name| matches!(cores[0].join(1, name), Joined::Later)).cloned();
    let name = name.unwrap_or_default();
    let carry = |cores: &mut [Core; 2]| {
        let [origin, home] = cores;
        while let Some(request) = origin.mail.to(1).up.pop_front() {
            let ordered = home.hub.request(0, request, NOW_MS, &mut home.mail);
            black_box(ordered.map(|(name, _)| home.hub.subscribers(&name).len()));
        }
        let mut received = 0;
        while let Some(answer) = home.mail.to(0).down.pop_front() {
            use polycast::dialect::Down;
            received += match answer {
                Down::Deliver { name, .. } => origin.hub.subscribers(&name).len(),
                Down::Interested { request_id, name, .. } => {
                    origin.hub.interested(request_id, &name).len()
                }
                Down::LogBegan { .. }
                | Down::JoinReply { .. }
                | Down::Message { .. }
                | Down::Answer { .. } => 0,
            };
        }
        received
    };
    carry(&mut cores);
    let mut event = event();
    let mut group = c.benchmark_group("across cores");
    group.bench_function("publish, order, deliver to 1", |b| {
        b.iter(|| {
            let Core { hub, mail } = &mut cores[0];
            hub.publish(APP, black_box(&name), &mut event, None, NOW_MS, mail);
            carry(&mut cores)
        });
    });
    group.bench_function("join, its event, leave, its event", |b| {
        cores[0].leave(1, &name);
        carry(&mut cores);
        b.iter(|| {
            cores[0].join(1, &name);
            let received = carry(&mut cores);
            cores[0].leave(1, &name);
            carry(&mut cores);
            received
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = cpu::criterion();
    targets = joins, publishes, history, many_channels, across
}
criterion_main!(benches);
