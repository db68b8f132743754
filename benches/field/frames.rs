//! Receiving masked frames (parsing, unmasking and checking text), compared with other crates.
//!
//! `cargo bench --manifest-path benches/field/Cargo.toml --bench frames`

#[path = "../rig/cpu.rs"]
mod cpu;

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use polycast::ws::Opcode;
use polycast_field::{Input, all};

use cpu::Cpu;

/// The server's allocator, used for all crates.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SIZES: [usize; 7] = [7, 64, 256, 1 << 10, 4 << 10, 16 << 10, 1 << 20];

/// Text with code points of all four UTF-8 lengths.
const WORDS: &str = "plain, k\u{f6}nnen, \u{43c}\u{438}\u{440}, \u{4e16}\u{754c}, \u{1f600}; ";

/// Text of `size` octets; with `wide`, it is not only ASCII.
fn text(size: usize, wide: bool) -> Vec<u8> {
    let mut text = String::with_capacity(size + WORDS.len());
    while wide && text.len() + WORDS.len() <= size {
        text.push_str(WORDS);
    }
    while text.len() < size {
        text.push('x');
    }
    text.into_bytes()
}

fn frames(c: &mut Criterion<Cpu>) {
    for (name, opcode, wide) in [
        ("binary", Opcode::Binary, false),
        ("text", Opcode::Text, false),
        ("unicode", Opcode::Text, true),
    ] {
        let cuts = [("whole", Input::whole as fn(_, &_) -> _), ("pieces", Input::pieces)];
        for (cut, input) in cuts {
            let mut group = c.benchmark_group(format!("{name}-{cut}"));
            for size in SIZES {
                let input = input(opcode, &text(size, wide));
                group.throughput(Throughput::Elements(input.count as u64));
                for (name, mut receiver) in all(&input) {
                    assert_eq!(receiver.receive(), (input.count, input.payload), "{name}");
                    group.bench_function(BenchmarkId::new(name, size), |b| {
                        b.iter(|| receiver.receive());
                    });
                }
            }
            group.finish();
        }
    }
}

fn short() -> Criterion<Cpu> {
    cpu::criterion()
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(300))
        .sample_size(20)
}

criterion_group!(name = benches; config = short(); targets = frames);
criterion_main!(benches);
