//! Masking beside memcpy of the same size, in one run: `cargo bench --bench mask`.
//!
//! Masking works in place, so it reads and writes one buffer; memcpy reads one and writes another.
//! Both buffers are at the offset that a frame header leaves them at, never at a round address.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// memcpy writes this far from where it reads, modulo a page: at the same place in two pages the
/// processor takes its loads for the stores before them, and memcpy is half as fast.
const HALF_PAGE: usize = 2048;

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const SIZES: [usize; 9] = [20, 64, 125, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20];

/// A client's frame header: six octets up to 125 of payload, then eight, then fourteen.
fn header(len: usize) -> usize {
    match len {
        0..=125 => 6,
        126..=0xffff => 8,
        _ => 14,
    }
}

fn masks(c: &mut Criterion) {
    let mut group = c.benchmark_group("mask");
    group.warm_up_time(Duration::from_millis(200));
    group.measurement_time(Duration::from_millis(600));
    group.sample_size(20);
    for size in SIZES {
        let head = header(size);
        group.throughput(Throughput::Bytes(size as u64));
        let mut both = vec![7u8; 2 * (size + head) + HALF_PAGE];
        let (from, to) = both.split_at_mut(size + HALF_PAGE);
        let (from, to) = (&from[head..][..size], &mut to[head..][..size]);
        group.bench_function(BenchmarkId::new("memcpy", size), |b| {
            b.iter(|| black_box(&mut *to).copy_from_slice(black_box(from)));
        });
        for (name, version) in polycast::simd::versions() {
            if name == "mask" {
                continue;
            }
            group.bench_function(BenchmarkId::new(name, size), |b| {
                b.iter(|| version(black_box(&mut *to), black_box(KEY), 0));
            });
        }
        group.bench_function(BenchmarkId::new("mask", size), |b| {
            b.iter(|| polycast::simd::mask(black_box(&mut *to), black_box(KEY), 0));
        });
    }
    group.finish();
}

criterion_group!(benches, masks);
criterion_main!(benches);
