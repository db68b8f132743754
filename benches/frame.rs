//! Parsing and unmasking, compared with tungstenite in the same run: `cargo bench --bench frame`.
//!
//! Each iteration receives the same stream of masked frames. To receive is to copy into the buffer
//! that the parser works on, for both: polycast's receive buffer and tungstenite's own. `whole`
//! receives 64 KiB at a time, `pieces` 1400 bytes, the payload of a TCP segment.

use std::hint::black_box;
use std::io::{self, Read, Write};
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use polycast::ws::{FrameEvent, FrameLimits, Opcode, Reader, Role, frame};
use tungstenite::protocol::{Role as TheirRole, WebSocket, WebSocketConfig};

/// The server's allocator, used for both.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const SIZES: [usize; 6] = [7, 20, 64, 1 << 10, 16 << 10, 1 << 20];
const PIECES: [(&str, usize); 2] = [("whole", 64 << 10), ("pieces", 1400)];

/// Masked frames with payloads of `size` bytes, 64 KiB of them but at least four, and their number.
fn stream(opcode: Opcode, size: usize) -> (Vec<u8>, usize) {
    let payload = vec![b'x'; size];
    let mut out = Vec::new();
    let count = ((64 << 10) / size).max(4);
    for _ in 0..count {
        frame::push(&mut out, opcode, &payload, Some(KEY));
    }
    (out, count)
}

fn ours(limits: &FrameLimits, stream: &[u8], piece: usize, buf: &mut [u8]) -> (usize, usize) {
    let mut reader = Reader::new();
    let mut sum = (0, 0);
    for part in stream.chunks(piece) {
        let buf = &mut buf[..part.len()];
        buf.copy_from_slice(part);
        let mut at = 0;
        loop {
            let (taken, event) = reader.next(Role::Server, limits, &mut buf[at..]);
            at += taken;
            match event {
                FrameEvent::Message { payload, .. } => sum = (sum.0 + 1, sum.1 + payload.len()),
                FrameEvent::Need => break,
                other => panic!("{other:?}"),
            }
        }
    }
    sum
}

/// A socket from which the stream is read, at most `piece` bytes at a time.
struct Wire<'a> {
    stream: &'a [u8],
    piece: usize,
}

impl Read for Wire<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.stream.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let len = self.piece.min(buf.len()).min(self.stream.len());
        let (now, later) = self.stream.split_at(len);
        buf[..len].copy_from_slice(now);
        self.stream = later;
        Ok(len)
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn theirs(config: WebSocketConfig, stream: &[u8], piece: usize) -> (usize, usize) {
    let wire = Wire { stream, piece };
    let mut socket = WebSocket::from_raw_socket(wire, TheirRole::Server, Some(config));
    let mut sum = (0, 0);
    while let Ok(message) = socket.read() {
        sum = (sum.0 + 1, sum.1 + message.len());
    }
    sum
}

fn frames(c: &mut Criterion) {
    let limits = FrameLimits::default();
    let mut buf = vec![0; 64 << 10];
    for (name, opcode) in [("text", Opcode::Text), ("binary", Opcode::Binary)] {
        for (cut, piece) in PIECES {
            let mut group = c.benchmark_group(format!("{name}/{cut}"));
            group.warm_up_time(Duration::from_millis(300));
            group.measurement_time(Duration::from_millis(1000));
            group.sample_size(20);
            for size in SIZES {
                let (stream, count) = stream(opcode, size);
                let want = (count, count * size);
                let config = WebSocketConfig::default().read_buffer_size(piece.max(4096));
                assert_eq!(ours(&limits, &stream, piece, &mut buf), want);
                assert_eq!(theirs(config, &stream, piece), want);
                group.throughput(Throughput::Elements(count as u64));
                group.bench_function(BenchmarkId::new("polycast", size), |b| {
                    b.iter(|| ours(&limits, black_box(&stream), piece, &mut buf));
                });
                group.bench_function(BenchmarkId::new("tungstenite", size), |b| {
                    b.iter(|| theirs(config, black_box(&stream), piece));
                });
            }
            group.finish();
        }
    }
}

criterion_group!(benches, frames);
criterion_main!(benches);
