//! A shard without a kernel: the user-mode cost of a delivery, an echo and a publish. `cargo bench
//! --bench fanout`.
//!
//! Sessions are opened and given input as a reactor does it; batches are taken and reported as
//! sent.

#[path = "rig/cpu.rs"]
mod cpu;
mod rig;

use cpu::Cpu;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use polycast::dialect::{Event, Up};
use polycast::mem::Frozen;
use rig::Rig;
use std::hint::black_box;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CHANNEL: &str = "news";
const SUBSCRIBERS: usize = 1000;

fn audience(cores: u16) -> Rig {
    let mut rig = Rig::new(0, &rig::common(cores));
    for _ in 0..SUBSCRIBERS {
        rig.subscriber(CHANNEL);
    }
    rig
}

/// Publishes in one event loop turn, each a signed HTTP request, to 1000 subscribers. The time is
/// that of one delivery.
fn deliveries(c: &mut Criterion<Cpu>) {
    let mut group = c.benchmark_group("deliver to 1000 over HTTP, publishes a turn:");
    for depth in [1, 8] {
        let mut rig = audience(1);
        let from = rig.open();
        let requests = rig::publish(CHANNEL, rig::DATA).repeat(depth);
        let frames = depth * SUBSCRIBERS;
        group.throughput(Throughput::Elements(frames as u64));
        group.bench_function(BenchmarkId::from_parameter(depth), |b| {
            b.iter(|| {
                rig.hear(from, &requests);
                let (segments, _) = rig.drain();
                assert_eq!(segments, frames + 1, "every frame, and one run of answers");
            });
        });
    }
    group.finish();
}

/// Deliveries as in [`deliveries`], without HTTP: the publishes come by mail from another core, and
/// this core is the channel's home.
fn requests(c: &mut Criterion<Cpu>) {
    let mut group = c.benchmark_group("deliver to 1000 by request, publishes a turn:");
    for depth in [1, 8] {
        let mut rig = audience(1);
        let common = rig::common(1);
        let name = common.hasher.name(0, CHANNEL);
        let frozen = Frozen::new(&rig::pushed(CHANNEL, rig::DATA));
        group.throughput(Throughput::Elements((depth * SUBSCRIBERS) as u64));
        group.bench_function(BenchmarkId::from_parameter(depth), |b| {
            b.iter(|| {
                for _ in 0..depth {
                    let event = Event::from(frozen.clone());
                    let request = Up::Publish { name: name.clone(), event, ack: None };
                    rig.shard.request(0, request, rig.now());
                }
                assert_eq!(rig.drain().0, depth * SUBSCRIBERS);
            });
        });
    }
    group.finish();
}

fn publish(c: &mut Criterion<Cpu>) {
    const DEPTH: usize = 16;
    let mut rig = Rig::new(0, &rig::common(1));
    let from = rig.open();
    let requests = rig::publish("nobody", rig::DATA).repeat(DEPTH);
    let mut group = c.benchmark_group("signed publish that nobody hears");
    group.throughput(Throughput::Elements(DEPTH as u64));
    group.bench_function("16 in one receive", |b| {
        b.iter(|| {
            rig.hear(from, black_box(&requests));
            rig.drain()
        });
    });
    group.finish();
}

fn echo(c: &mut Criterion<Cpu>) {
    let mut group = c.benchmark_group("echo");
    for size in [20, 512, 16 << 10] {
        let mut rig = Rig::new(0, &rig::common(1));
        let slot = rig.socket("/echo");
        let frame = rig::masked(&vec![b'a'; size]);
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::new("one message", size), |b| {
            b.iter(|| {
                rig.hear(slot, black_box(&frame));
                assert!(rig.drain().1 > size);
            });
        });
        // As the reactor delivers it: in pieces of a receive buffer.
        if size > 4096 {
            group.bench_function(BenchmarkId::new("one message in pieces of 4 KiB", size), |b| {
                b.iter(|| {
                    frame.chunks(4096).for_each(|piece| rig.hear(slot, black_box(piece)));
                    assert!(rig.drain().1 > size);
                });
            });
        }
    }
    group.finish();
}

/// Echoes on 200 WebSockets in turn, so that a session is as cold in the processor's cache as in
/// the event loop.
fn echo_round(c: &mut Criterion<Cpu>) {
    const SOCKETS: usize = 200;
    let mut rig = Rig::new(0, &rig::common(1));
    let slots: Vec<_> = (0..SOCKETS).map(|_| rig.socket("/echo")).collect();
    let frame = rig::masked(&[b'a'; 20]);
    let mut group = c.benchmark_group("echo");
    group.throughput(Throughput::Elements(SOCKETS as u64));
    group.bench_function("20 B to each of 200 sockets", |b| {
        b.iter(|| {
            slots.iter().for_each(|slot| rig.hear(*slot, &frame));
            assert_eq!(rig.drain().0, SOCKETS);
        });
    });
    group.finish();
}

fn connections(c: &mut Criterion<Cpu>) {
    let mut group = c.benchmark_group("connection");
    group.bench_function("open, upgrade, subscribe, close", |b| {
        let mut rig = Rig::new(0, &rig::common(1));
        rig.subscriber(CHANNEL);
        b.iter(|| rig.visit(CHANNEL));
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = cpu::criterion();
    targets = deliveries, requests, publish, echo, echo_round, connections
}
criterion_main!(benches);
