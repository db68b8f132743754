//! Compression of messages (RFC 7692 section 7.2), on `zlib-rs`.
//!
//! Every loop here ends because each round either takes input or gives output, and says so when a
//! round does neither.

use flate2::{Compress, Compression as Level, Decompress, FlushCompress, FlushDecompress, Status};

/// What a compressor ends a message with, left out on the wire (section 7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
/// Speed before size: a fan-out server compresses what others wait for.
const LEVEL: u32 = 1;
/// Bytes by which output grows.
const BLOCK: usize = 16 * 1024;

/// Heap bytes that a compressor with a window of `bits` holds.
pub const fn deflater_bytes(bits: u8) -> usize {
    (1 << (bits + 2)) + (1 << 17)
}

/// Heap bytes that a decompressor holds.
pub const INFLATER_BYTES: usize = (1 << 15) + 16 * 1024;

/// Compresses messages.
pub struct Deflater {
    zlib: Compress,
    keep_window: bool,
}

impl Deflater {
    /// A compressor with a window of `2^bits` bytes, 9 to 15, which is kept from message to message
    /// if `keep_window` is set.
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

    /// Appends the compressed form of `message` to `out`. An empty message needs no compressor: it
    /// is one zero byte (section 7.2.3.6). `None` if the library gives up, which no input makes it
    /// do; send the message plain then.
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
            // A flush is complete when it has left room in the output.
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
    /// It is longer than the limit. Found out after at most one block more.
    TooBig,
    /// It is not a DEFLATE stream.
    Invalid,
}

/// Decompresses messages.
pub struct Inflater {
    zlib: Decompress,
    keep_window: bool,
}

impl Inflater {
    /// A decompressor for a peer which keeps its window from message to message if `keep_window`
    /// is set. It serves every window size.
    pub fn new(keep_window: bool) -> Inflater {
        Inflater { zlib: Decompress::new(false), keep_window }
    }

    /// Decompresses one whole message of at most `most` bytes into `out`, which is emptied first.
    ///
    /// # Errors
    /// [`InflateError`]; what is in `out` then is of no use.
    pub fn inflate(
        &mut self,
        message: &[u8],
        most: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), InflateError> {
        out.clear();
        if !self.keep_window {
            self.zlib.reset(false);
        }
        self.run(message, most, out)?;
        self.run(&TAIL, most, out)
    }

    fn run(
        &mut self,
        mut input: &[u8],
        most: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), InflateError> {
        loop {
            if out.len() == out.capacity() {
                // Doubled, but never by more than a block beyond the limit.
                let room = out.len().max(input.len()).max(BLOCK);
                let most = most.saturating_sub(out.len()).saturating_add(BLOCK);
                out.reserve_exact(room.min(most));
            }
            let (taken_before, given_before) = (self.zlib.total_in(), out.len());
            let status = self
                .zlib
                .decompress_vec(input, out, FlushDecompress::Sync)
                .map_err(|_| InflateError::Invalid)?;
            let taken = (self.zlib.total_in() - taken_before) as usize;
            input = &input[taken..];
            if out.len() > most {
                return Err(InflateError::TooBig);
            }
            match status {
                // A final block (section 7.2.3.4): what follows begins a new stream.
                Status::StreamEnd => {
                    self.zlib.reset(false);
                    if input.is_empty() {
                        return Ok(());
                    }
                }
                Status::Ok | Status::BufError if input.is_empty() && out.len() < out.capacity() => {
                    return Ok(());
                }
                Status::Ok | Status::BufError => {
                    let full = out.len() == out.capacity();
                    if taken == 0 && out.len() == given_before && !full {
                        return Err(InflateError::Invalid);
                    }
                }
            }
        }
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
    fn messages_of_all_sizes_come_back_with_every_window() {
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
        assert_eq!(inflate(&mut inflater, &[]), Ok(Vec::new()));
    }

    #[test]
    fn a_bomb_is_found_out_within_a_block_of_the_limit() {
        let zeros = vec![0; 64 * 1024 * 1024];
        let mut wire = Vec::new();
        assert_eq!(Deflater::new(15, false).deflate(&zeros, &mut wire), Some(()));
        assert!(wire.len() < zeros.len() / 100);
        let mut out = Vec::new();
        let most = 100_000;
        let result = Inflater::new(false).inflate(&wire, most, &mut out);
        assert_eq!(result, Err(InflateError::TooBig));
        let bound = most + BLOCK;
        assert!(out.capacity() <= bound, "{} > {bound}", out.capacity());
    }

    #[test]
    fn a_limit_holds_on_both_sides() {
        let message = sample(1000, true);
        let mut wire = Vec::new();
        assert_eq!(Deflater::new(15, false).deflate(&message, &mut wire), Some(()));
        let inflate = |most| Inflater::new(false).inflate(&wire, most, &mut Vec::new());
        assert_eq!(inflate(1000), Ok(()));
        assert_eq!(inflate(999), Err(InflateError::TooBig));
    }

    #[test]
    fn what_is_not_deflate_is_refused() {
        for bad in [&[0xff; 10][..], &[0x07, 1, 2, 3], &[0x00, 0x05, 0x00, 0x00, 0x00, 1]] {
            let result = Inflater::new(false).inflate(bad, 1000, &mut Vec::new());
            assert_eq!(result, Err(InflateError::Invalid), "{bad:?}");
        }
    }
}
