//! Masking, compared with memcpy of the same size in the same run: `cargo bench --bench mask`.
//!
//! Masking works in place, so it reads and writes one buffer; memcpy reads one buffer and writes
//! another. Both buffers are at the offset after a frame header, so they are never aligned.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// The offset of memcpy's destination from its source, modulo a page. If the two are at the same
/// offset in their pages, the processor takes loads to depend on the stores before them (4K
/// aliasing), and memcpy is half as fast.
const HALF_PAGE: usize = 2048;

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const SIZES: [usize; 9] = [20, 64, 125, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20];

/// The length of a client's frame header in octets: 6 for a payload of up to 125 octets, then 8,
/// then 14.
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
