//! Compression of messages (RFC 7692 section 7.2), with `zlib-rs`.
//!
//! Every loop here ends, because a round that neither consumes input nor produces output ends it.

use flate2::{Compress, Compression as Level, Decompress, FlushCompress, FlushDecompress, Status};

/// The octets that end a compressed message, which are removed on the wire (RFC 7692 section
/// 7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
/// The compression level: the fastest, because many peers wait for one compression in a fan-out.
const LEVEL: u32 = 1;
/// The minimum number of bytes by which an output buffer grows.
pub const BLOCK: usize = 16 * 1024;
/// The maximum number of final blocks in one message (RFC 7692 section 7.2.3.4). Each begins a new
/// stream, which takes much more work than its few bytes on the wire suggest.
const STREAMS: usize = 16;

/// The maximum number of octets that the decompressor gets at once.
const PIECE: usize = 16 * 1024;
/// The work of one octet of compressed input, in octets of output. A block without content costs
/// work without output, because its Huffman codes have to be read.
const WORK_PER_OCTET: usize = 16;

/// Heap bytes of a compressor with a window of `bits`: the window, the hash chains, the hash table,
/// pending output, and the symbols of a block.
pub const fn deflater_bytes(bits: u8) -> usize {
    (1 << (bits + 2)) + (128 + 64 + 48 + 8) * 1024
}

/// Heap bytes of a decompressor.
pub const INFLATER_BYTES: usize = (1 << 15) + 36 * 1024;

/// A compressor of messages.
pub struct Deflater {
    zlib: Compress,
    keep_window: bool,
}

impl Deflater {
    /// A compressor with a window of `2^bits` bytes, with `bits` from 9 to 15. The window is kept
    /// from message to message if `keep_window` is set.
    pub fn new(bits: u8, keep_window: bool) -> Deflater {
        let bits = bits.clamp(9, 15);
        Deflater {
            zlib: Compress::new_with_window_bits(Level::new(LEVEL), false, bits),
            keep_window,
        }
    }

    /// Whether the window is kept from message to message.
    pub fn keeps_window(&self) -> bool {
        self.keep_window
    }

    /// Appends the compressed `message` to `out`. An empty message is one zero byte (RFC 7692
    /// section 7.2.3.6). `None` if zlib fails, which no input should cause; the message is to be
    /// sent uncompressed then.
    pub fn deflate(&mut self, message: &[u8], out: &mut Vec<u8>) -> Option<()> {
        if message.is_empty() {
            out.push(0);
            return Some(());
        }
        if !self.keep_window {
            self.zlib.reset();
        }
        let start = self.zlib.total_in();
        out.reserve(message.len() / 2 + 64);
        loop {
            let taken = (self.zlib.total_in() - start) as usize;
            let before = out.len();
            self.zlib.compress_vec(&message[taken..], out, FlushCompress::Sync).ok()?;
            let done = (self.zlib.total_in() - start) as usize == message.len();
            // The flush is complete if zlib has left room in the output.
            if done && out.len() < out.capacity() {
                break;
            }
            if out.len() == before && (self.zlib.total_in() - start) as usize == taken {
                return None;
            }
            out.reserve(BLOCK);
        }
        out.truncate(out.len() - TAIL.len().min(out.len()));
        Some(())
    }
}

/// Why a message cannot be decompressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InflateError {
    /// The message is longer than the limit. At most one block more was written.
    TooBig,
    /// The message is not a valid DEFLATE stream.
    Invalid,
}

/// How far a message has been decompressed.
#[derive(Clone, Copy, Debug, Default)]
pub struct InflateProgress {
    /// The number of final blocks so far.
    streams: usize,
    /// Whether output of input that was consumed is still in the decompressor.
    pending: bool,
}

impl InflateProgress {
    /// Whether all output of the consumed input has been written.
    pub fn is_drained(&self) -> bool {
        !self.pending
    }
}

/// The limits of a message's output.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// The maximum length of the whole message in octets; more is an error.
    pub max: usize,
    /// The length of the output in octets at which [`Inflater::part`] stops for now. At most one
    /// block more is in memory.
    pub until: usize,
}

impl Room {
    /// Only the limit of the whole message.
    pub fn whole(max: usize) -> Room {
        Room { max, until: usize::MAX }
    }
}

/// A decompressor of messages.
pub struct Inflater {
    zlib: Decompress,
    keep_window: bool,
}

impl Inflater {
    /// A decompressor for a peer, which keeps the window from message to message if `keep_window`
    /// is set. It works with every window size.
    pub fn new(keep_window: bool) -> Inflater {
        Inflater { zlib: Decompress::new(false), keep_window }
    }

    /// Decompresses one whole message of at most `max_bytes` bytes into `out`, which is emptied
    /// first.
    ///
    /// # Errors
    /// [`InflateError`]; the content of `out` is not usable then.
    pub fn inflate(
        &mut self,
        message: &[u8],
        max_bytes: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), InflateError> {
        out.clear();
        if message.is_empty() {
            return Ok(());
        }
        let mut progress = self.begin();
        self.part(message, Room::whole(max_bytes), out, &mut progress, &mut usize::MAX.clone())?;
        self.end(max_bytes, out, progress)
    }

    /// Begins a message.
    pub fn begin(&mut self) -> InflateProgress {
        if !self.keep_window {
            self.zlib.reset(false);
        }
        InflateProgress::default()
    }

    /// Decompresses octets of a message from the front of `input`, and appends the output to `out`,
    /// until all input is done, `work` is used up, or `out` reaches `room.until`. Returns how many
    /// octets of `input` were consumed. More work remains while that is not all, or
    /// [`InflateProgress::is_drained`] is false.
    ///
    /// # Errors
    /// [`InflateError`]; the decompressor must not be used for another message then.
    pub fn part(
        &mut self,
        input: &[u8],
        room: Room,
        out: &mut Vec<u8>,
        progress: &mut InflateProgress,
        work: &mut usize,
    ) -> Result<usize, InflateError> {
        let mut at = 0;
        loop {
            if out.len() == out.capacity() {
                let left = room.max.min(room.until).saturating_sub(out.len());
                out.reserve_exact(BLOCK.max(out.len() / 2).min(left + BLOCK));
            }
            let (taken_before, given_before) = (self.zlib.total_in(), out.len());
            let piece = &input[at..input.len().min(at + PIECE)];
            let status = self
                .zlib
                .decompress_vec(piece, out, FlushDecompress::Sync)
                .map_err(|_| InflateError::Invalid)?;
            let taken = (self.zlib.total_in() - taken_before) as usize;
            at += taken;
            if out.len() > room.max {
                return Err(InflateError::TooBig);
            }
            let given = out.len() - given_before;
            *work = work.saturating_sub(taken * WORK_PER_OCTET + given);
            let full = out.len() == out.capacity();
            match status {
                // A final block (RFC 7692 section 7.2.3.4): the following octets begin a new
                // stream.
                Status::StreamEnd => {
                    progress.streams += 1;
                    if progress.streams > STREAMS {
                        return Err(InflateError::Invalid);
                    }
                    self.zlib.reset(false);
                    progress.pending = false;
                }
                Status::Ok | Status::BufError => {
                    if taken == 0 && given == 0 && !full && !piece.is_empty() {
                        return Err(InflateError::Invalid);
                    }
                    progress.pending = full;
                }
            }
            let done = at == input.len() && !progress.pending;
            if done || *work == 0 || out.len() >= room.until {
                return Ok(at);
            }
        }
    }

    /// Ends the message, which must have had at least one octet and be drained. Any further output
    /// belongs to a block that is not complete, which is an error.
    ///
    /// # Errors
    /// [`InflateError::Invalid`] if the last block is not complete or not valid,
    /// [`InflateError::TooBig`] if its output exceeds `max_bytes`.
    pub fn end(
        &mut self,
        max_bytes: usize,
        out: &mut Vec<u8>,
        mut progress: InflateProgress,
    ) -> Result<(), InflateError> {
        let len = out.len();
        self.part(&TAIL, Room::whole(max_bytes), out, &mut progress, &mut usize::MAX.clone())?;
        if out.len() == len { Ok(()) } else { Err(InflateError::Invalid) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(len: usize, noise: bool) -> Vec<u8> {
        let mut state = 1_u32;
        let mut byte = |at: usize| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if noise { (state >> 24) as u8 } else { b"abcdefgh"[at % 7] }
        };
        (0..len).map(&mut byte).collect()
    }

    #[test]
    fn deflate_round_trips_with_every_window() {
        for bits in 9..=15 {
            for keep in [false, true] {
                let (mut deflater, mut inflater) = (Deflater::new(bits, keep), Inflater::new(keep));
                for len in [0, 1, 5, 0, 0, 300, 511, 512, 513, 40_000, 0, 200_000] {
                    for noise in [false, true] {
                        let message = sample(len, noise);
                        let (mut wire, mut back) = (Vec::new(), Vec::new());
                        assert_eq!(deflater.deflate(&message, &mut wire), Some(()));
                        assert_eq!(inflater.inflate(&wire, len, &mut back), Ok(()));
                        assert!(back == message, "{bits} {keep} {len} {noise}");
                    }
                }
            }
        }
    }

    #[test]
    fn s7_2_3_the_examples_of_the_rfc() {
        let hello = b"Hello".to_vec();
        let inflate = |inflater: &mut Inflater, wire: &[u8]| {
            let mut out = Vec::new();
            inflater.inflate(wire, 100, &mut out).map(|()| out)
        };
        let compressed = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
        let mut inflater = Inflater::new(true);
        assert_eq!(inflate(&mut inflater, &compressed), Ok(hello.clone()));
        // 7.2.3.2: with the window kept, the second one is shorter.
        assert_eq!(inflate(&mut inflater, &[0xf2, 0x00, 0x11, 0x00, 0x00]), Ok(hello.clone()));
        // 7.2.3.3: a block without compression.
        let stored = [0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00];
        assert_eq!(inflate(&mut inflater, &stored), Ok(hello.clone()));
        // 7.2.3.4: a final block.
        let last = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00];
        assert_eq!(inflate(&mut inflater, &last), Ok(hello.clone()));
        // 7.2.3.5: two blocks.
        let two = [0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00];
        assert_eq!(inflate(&mut inflater, &two), Ok(hello));
        assert_eq!(inflate(&mut inflater, &[0x00]), Ok(Vec::new()));
        // Empty input does not change the window.
        assert_eq!(inflate(&mut inflater, &[]), Ok(Vec::new()));
        assert_eq!(inflate(&mut inflater, &[0xf2, 0x00, 0x11, 0x00, 0x00]), Ok(b"Hello".to_vec()));
    }

    #[test]
    fn inflate_bomb_is_found_within_a_block_of_the_limit() {
        let zeros = vec![0; 64 * 1024 * 1024];
        let mut wire = Vec::new();
        assert_eq!(Deflater::new(15, false).deflate(&zeros, &mut wire), Some(()));
        assert!(wire.len() < zeros.len() / 100);
        let mut out = Vec::new();
        let max_bytes = 100_000;
        let result = Inflater::new(false).inflate(&wire, max_bytes, &mut out);
        assert_eq!(result, Err(InflateError::TooBig));
        let bound = max_bytes + BLOCK;
        assert!(out.capacity() <= bound, "{} > {bound}", out.capacity());
    }

    #[test]
    fn inflate_bounds_final_blocks() {
        let inflate = |blocks: usize| {
            let message = [0x03, 0x00].repeat(blocks);
            Inflater::new(false).inflate(&message, 1000, &mut Vec::new())
        };
        assert_eq!(inflate(STREAMS), Ok(()));
        assert_eq!(inflate(STREAMS + 1), Err(InflateError::Invalid));
        assert_eq!(inflate(1 << 20), Err(InflateError::Invalid));
    }

    #[test]
    fn inflate_limit_on_both_sides() {
        let message = sample(1000, true);
        let mut wire = Vec::new();
        assert_eq!(Deflater::new(15, false).deflate(&message, &mut wire), Some(()));
        let inflate = |max_bytes| Inflater::new(false).inflate(&wire, max_bytes, &mut Vec::new());
        assert_eq!(inflate(1000), Ok(()));
        assert_eq!(inflate(999), Err(InflateError::TooBig));
    }

    #[test]
    fn inflate_refuses_a_message_that_ends_inside_a_block() {
        for cut in
            [&[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48][..], &[0x00, 0x64, 0x00, 0x9b, 0xff, 0x48]]
        {
            let result = Inflater::new(true).inflate(cut, 1000, &mut Vec::new());
            assert_eq!(result, Err(InflateError::Invalid), "{cut:?}");
        }
    }

    /// A message of empty blocks with dynamic Huffman codes (RFC 1951 section 3.2.7): they have no
    /// output, and each costs as much work as thousands of octets.
    fn empty_blocks(bytes: usize) -> Vec<u8> {
        // Not final, dynamic; 257 + 0 and 1 + 0 codes; lengths of 18, 0 and 1 in 1, 2 and 2 bits.
        let mut bits = vec![(0, 1), (2, 2), (0, 5), (0, 5), (14, 4)];
        // In the order 16 17 18 0 8 7 9 6 10 5 11 4 12 3 13 2 14 1.
        bits.extend([0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2].map(|it| (it, 3)));
        // 256 zeros: 138 and 118; then a 1 for the end of block and a 1 for a distance.
        bits.extend([(0, 1), (127, 7), (0, 1), (107, 7), (3, 2), (3, 2)]);
        // The end-of-block code.
        bits.push((0, 1));
        let mut block: Vec<u8> = Vec::new();
        for (value, width) in bits {
            block.extend((0..width).map(|bit| (value >> bit) as u8 & 1));
        }
        let all: Vec<u8> =
            block.iter().copied().cycle().take(bytes * 8 / block.len() * block.len()).collect();
        all.chunks(8)
            .map(|octet| octet.iter().enumerate().map(|(at, bit)| bit << at).sum())
            .collect()
    }

    #[test]
    fn inflate_work_is_spread_and_continues() {
        let zeros = vec![0; 1 << 20];
        let mut bomb = Vec::new();
        assert_eq!(Deflater::new(15, false).deflate(&zeros, &mut bomb), Some(()));
        let noise = sample(100_000, true);
        let mut dense = Vec::new();
        assert_eq!(Deflater::new(15, false).deflate(&noise, &mut dense), Some(()));
        let empty = empty_blocks(100_000);
        for (wire, expected, share) in
            [(&bomb, &zeros[..], 50_000), (&dense, &noise[..], 100_000), (&empty, &[][..], 100_000)]
        {
            let (mut inflater, mut out) = (Inflater::new(false), Vec::new());
            let mut progress = inflater.begin();
            let (mut at, mut shares) = (0, 0);
            while at < wire.len() || !progress.is_drained() {
                let (mut work, had) = (share, out.len());
                let taken = inflater.part(
                    &wire[at..],
                    Room::whole(1 << 20),
                    &mut out,
                    &mut progress,
                    &mut work,
                );
                let taken = taken.expect("deflate");
                at += taken;
                shares += 1;
                assert!(taken <= share / WORK_PER_OCTET + PIECE, "{taken} octets at once");
                assert!(out.len() - had <= share + BLOCK.max(had / 2), "{} octets", out.len());
                assert!(shares < 1000);
            }
            let max_bytes = (wire.len() * WORK_PER_OCTET + expected.len()) / share;
            assert!(shares > max_bytes / 8, "{shares} shares of {max_bytes}");
            assert_eq!(inflater.end(1 << 20, &mut out, progress), Ok(()));
            assert!(out == expected);
        }
    }

    #[test]
    fn inflate_stops_at_its_room_and_continues() {
        let zeros = vec![0; 300_000];
        let mut wire = Vec::new();
        assert_eq!(Deflater::new(15, false).deflate(&zeros, &mut wire), Some(()));
        let (mut inflater, mut out, mut at) = (Inflater::new(false), Vec::new(), 0);
        let mut progress = inflater.begin();
        for until in [1, 50_000, 100_000, 200_000] {
            let room = Room { max: zeros.len(), until };
            let work = &mut usize::MAX.clone();
            at += inflater.part(&wire[at..], room, &mut out, &mut progress, work).expect("deflate");
            assert!(out.len() >= until && out.capacity() <= until + BLOCK, "{}", out.capacity());
            assert!(at < wire.len() || !progress.is_drained(), "there is more");
        }
        let (room, work) = (Room::whole(zeros.len()), &mut usize::MAX.clone());
        at += inflater.part(&wire[at..], room, &mut out, &mut progress, work).expect("deflate");
        assert_eq!(at, wire.len());
        assert_eq!(inflater.end(zeros.len(), &mut out, progress), Ok(()));
        assert!(out == zeros);
    }

    #[test]
    fn deflate_memory_of_codecs_is_known() {
        const CHILD: &str = "POLYCAST_COUNT_HEAP";
        const EACH: usize = 100;
        let bits: Option<u8> = std::env::var(CHILD).ok().and_then(|bits| bits.parse().ok());
        let Some(bits) = bits else {
            // The measurement runs in a child process, where no other test changes the memory in
            // use.
            let name = "ws::deflate::tests::deflate_memory_of_codecs_is_known";
            for bits in [0, 9, 12, 15] {
                let test = std::env::current_exe().expect("this test");
                let child = std::process::Command::new(test)
                    .args([name, "--exact", "--nocapture"])
                    .env(CHILD, bits.to_string())
                    .output()
                    .expect("it runs");
                assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
            }
            return;
        };
        let resident = || {
            let text = std::fs::read_to_string("/proc/self/status").expect("Linux");
            let line = text.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
            let digits: String = line.chars().filter(char::is_ascii_digit).collect();
            digits.parse::<usize>().expect("a number") * 1024
        };
        let message = sample(80_000, true);
        let (mut wire, mut back) = (Vec::with_capacity(99_000), Vec::with_capacity(99_000));
        Deflater::new(15, false).deflate(&message, &mut wire).expect("deflate");
        Inflater::new(true).inflate(&wire, 99_000, &mut back).expect("inflate");
        let before = resident();
        let (mut deflaters, mut inflaters) = (Vec::new(), Vec::new());
        for _ in 0..EACH {
            if bits == 0 {
                let mut it = Inflater::new(true);
                it.inflate(&wire, 99_000, &mut back).expect("inflate");
                inflaters.push(it);
            } else {
                let mut it = Deflater::new(bits, true);
                wire.clear();
                it.deflate(&message, &mut wire).expect("deflate");
                deflaters.push(it);
            }
        }
        let each = (resident() - before) / EACH;
        let documented = if bits == 0 { INFLATER_BYTES } else { deflater_bytes(bits) };
        assert!(each <= documented + documented / 8, "{bits}: {each} bytes, and not {documented}");
        assert!(documented <= each + each / 3, "{bits}: {each} bytes, and not {documented}");
    }

    #[test]
    fn inflate_refuses_invalid_data() {
        for bad in [&[0xff; 10][..], &[0x07, 1, 2, 3], &[0x00, 0x05, 0x00, 0x00, 0x00, 1]] {
            let result = Inflater::new(false).inflate(bad, 1000, &mut Vec::new());
            assert_eq!(result, Err(InflateError::Invalid), "{bad:?}");
        }
    }
}
