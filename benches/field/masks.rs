//! Masking in place, compared with memcpy and with the masking functions of other crates.
//!
//! `cargo bench --manifest-path benches/field/Cargo.toml --bench masks`
//!
//! The payload is at the offset after a client's frame header, so it is never aligned. memcpy reads
//! one buffer and writes another.

#[path = "../rig/cpu.rs"]
mod cpu;

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

use cpu::Cpu;

/// The offset of memcpy's destination from its source, modulo a page. If the two are at the same
/// offset in their pages, the processor takes loads to depend on the stores before them (4K
/// aliasing), and memcpy is half as fast.
const HALF_PAGE: usize = 2048;

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const SIZES: [usize; 8] = [7, 64, 256, 1 << 10, 4 << 10, 16 << 10, 256 << 10, 1 << 20];

/// A masking function of a buffer and a key.
type Mask = fn(&mut [u8], [u8; 4]);

/// The masking functions that the crates export.
const MASKS: [(&str, Mask); 3] = [
    ("polycast", |buf, key| _ = polycast::simd::mask(buf, key, 0)),
    ("fastwebsockets", fastwebsockets::unmask),
    ("sockudo-ws", sockudo_ws::simd::apply_mask),
];

/// The length of a client's frame header in octets: 6 for a payload of up to 125 octets, then 8,
/// then 14.
fn header(len: usize) -> usize {
    match len {
        0..=125 => 6,
        126..=0xffff => 8,
        _ => 14,
    }
}

fn masks(c: &mut Criterion<Cpu>) {
    let mut group = c.benchmark_group("mask");
    for size in SIZES {
        let head = header(size);
        group.throughput(Throughput::Bytes(size as u64));
        let mut both = vec![7u8; 2 * (size + head) + HALF_PAGE];
        let (from, to) = both.split_at_mut(size + HALF_PAGE);
        let (from, to) = (&from[head..][..size], &mut to[head..][..size]);
        group.bench_function(BenchmarkId::new("memcpy", size), |b| {
            b.iter(|| black_box(&mut *to).copy_from_slice(black_box(from)));
        });
        for (name, mask) in MASKS {
            group.bench_function(BenchmarkId::new(name, size), |b| {
                b.iter(|| mask(black_box(&mut *to), black_box(KEY)));
            });
        }
    }
    group.finish();
}

fn short() -> Criterion<Cpu> {
    cpu::criterion()
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(300))
        .sample_size(20)
}

criterion_group!(name = benches; config = short(); targets = masks);
criterion_main!(benches);
