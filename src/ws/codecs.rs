//! The compressors and decompressors of one core, and the account of the work and the memory that
//! they take. This module knows neither messages that arrive in parts nor connections.

use super::deflate::{Deflater, InflateError, Inflater, Room};
use super::frame::{self, Header, Opcode};
use super::place::LargePlace;

/// A compressor, as it is used for one peer.
pub struct Compress<'a> {
    /// The compressor.
    pub deflater: &'a mut Deflater,
    /// Memory for the compressed payload, which is reused.
    pub scratch: &'a mut Vec<u8>,
    /// Messages shorter than this many bytes are not compressed.
    pub min_bytes: usize,
    /// The work that is left in this event loop turn, in octets of decompressed output.
    work: &'a mut usize,
}

impl Compress<'_> {
    /// Appends `payload` as one compressed frame. False if the uncompressed frame is to be sent,
    /// because it is not longer or compression failed. A compressor that keeps its window appends
    /// the compressed frame even if it is longer, because bytes that have entered the window must
    /// be sent.
    pub(super) fn push(
        &mut self,
        out: &mut Vec<u8>,
        opcode: Opcode,
        payload: &[u8],
        mask: Option<[u8; 4]>,
    ) -> bool {
        self.scratch.clear();
        let work = MESSAGE_WORK + DEFLATE_WORK * payload.len();
        *self.work = self.work.saturating_sub(work);
        if self.deflater.deflate(payload, self.scratch).is_none() {
            return false;
        }
        if self.scratch.len() >= payload.len() && !self.deflater.keeps_window() {
            return false;
        }
        let len = self.scratch.len() as u64;
        let header = Header { fin: true, rsv1: true, opcode, mask, len };
        frame::push_with(out, &header, self.scratch);
        true
    }
}

/// The compressors and decompressors of one core, shared by all peers with whom no window is kept.
pub struct Codecs {
    deflaters: [Option<Box<Deflater>>; BITS],
    pub(super) inflater: Box<Inflater>,
    scratch: Vec<u8>,
    pub(super) inflated: Vec<u8>,
    /// The work that is left in this event loop turn.
    pub(super) work: usize,
    /// Heap bytes of kept windows and of messages being decompressed, and the limit at which no
    /// more are granted. The one large message may exceed the limit.
    held: usize,
    held_max: usize,
    /// The place for the one large message that a core decompresses at a time.
    pub large: LargePlace,
    /// Bytes of decompressed messages that were freed, since the start.
    freed: u64,
}

/// The maximum output, in octets, of a complete message while another one has the place for large
/// messages.
pub(super) const SMALL: usize = 64 * 1024;
/// The maximum work on a small message, in octets of output: that of some 60 000 octets of input.
pub(super) const SMALL_WORK: usize = 16 * SMALL;
/// The number of window sizes: 9 to 15 bits.
pub const BITS: usize = 7;
/// The maximum work of one event loop turn, in octets of decompressed output: some milliseconds.
const TURN_WORK: usize = 4 * 1024 * 1024;
/// The minimum work of a message in octets of decompressed output: a compressor's tables are
/// cleared for it.
pub(super) const MESSAGE_WORK: usize = 4 * 1024;
/// The work of compressing one octet, in octets of decompressed output.
const DEFLATE_WORK: usize = 4;
/// The largest buffer, in bytes, that is kept for reuse between messages.
const KEPT_BYTES: usize = 64 * 1024;

impl Codecs {
    /// Codecs for a core on which kept windows and messages being decompressed may hold `held_max`
    /// heap bytes.
    pub fn new(held_max: usize) -> Codecs {
        Codecs {
            deflaters: [const { None }; BITS],
            inflater: Box::new(Inflater::new(false)),
            scratch: Vec::new(),
            inflated: Vec::new(),
            work: TURN_WORK,
            held: 0,
            held_max,
            large: LargePlace::default(),
            freed: 0,
        }
    }

    /// Heap bytes of kept windows and of messages being decompressed.
    pub fn held_bytes(&self) -> usize {
        self.held
    }

    /// Bytes of decompressed messages that were freed, since the start.
    pub fn freed_bytes(&self) -> u64 {
        self.freed
    }

    /// Begins an event loop turn, with its full share of work.
    pub fn new_turn(&mut self) {
        self.work = TURN_WORK;
        if self.scratch.capacity() > KEPT_BYTES {
            self.scratch = Vec::new();
        }
    }

    /// Whether the share of work of this turn is used up.
    pub fn is_spent(&self) -> bool {
        self.work == 0
    }

    /// The work that is left in this turn, in octets of decompressed output.
    pub fn turn_work(&self) -> usize {
        self.work
    }

    pub(super) fn work_left(&self) -> usize {
        self.work
    }

    pub(super) fn spend(&mut self, work: usize) {
        self.work = self.work.saturating_sub(work);
    }

    /// Accounts for `bytes` of heap and returns `bytes`; returns 0 and accounts for nothing if that
    /// would exceed the limit.
    pub(super) fn hold(&mut self, bytes: usize) -> usize {
        let held = if self.held + bytes <= self.held_max { bytes } else { 0 };
        self.held += held;
        held
    }

    /// Accounts for `bytes` of heap even if that exceeds the limit.
    pub(super) fn charge(&mut self, bytes: usize) {
        self.held += bytes;
    }

    /// Subtracts `bytes` that were accounted for.
    pub(super) fn release(&mut self, bytes: usize) {
        self.held -= bytes;
    }

    /// Decompresses a whole message of a peer that keeps no window, if the message is small. `None`
    /// if it is not: its output would be longer than `SMALL`, or take more work than `SMALL_WORK`.
    /// Return the memory with [`Codecs::give_back`].
    ///
    /// # Errors
    /// Why the message cannot be decompressed.
    pub(super) fn attempt(
        &mut self,
        message: &[u8],
        max: usize,
    ) -> Result<Option<Vec<u8>>, InflateError> {
        let mut out = std::mem::take(&mut self.inflated);
        out.clear();
        let inflater = &mut self.inflater;
        let mut progress = inflater.begin();
        let (room, mut share) = (Room { max, until: SMALL }, SMALL_WORK);
        let taken = inflater.part(message, room, &mut out, &mut progress, &mut share)?;
        self.work = self.work.saturating_sub(SMALL_WORK - share);
        if taken < message.len() || !progress.is_drained() {
            self.give_back(out);
            return Ok(None);
        }
        inflater.end(max, &mut out, progress)?;
        Ok(Some(out))
    }

    /// Hands out the core's decompressor, for a message that takes longer than a turn, and replaces
    /// it by a new one.
    pub(super) fn lend(&mut self) -> Box<Inflater> {
        std::mem::replace(&mut self.inflater, Box::new(Inflater::new(false)))
    }

    /// A compressor that keeps no window.
    pub(super) fn compress(&mut self, bits: u8, min_bytes: usize) -> Compress<'_> {
        let at = usize::from(bits.clamp(9, 15) - 9);
        let deflater =
            self.deflaters[at].get_or_insert_with(|| Box::new(Deflater::new(bits, false)));
        Compress { deflater, scratch: &mut self.scratch, min_bytes, work: &mut self.work }
    }

    /// A connection's own compressor, which keeps its window.
    pub(super) fn compress_with<'a>(
        &'a mut self,
        deflater: &'a mut Deflater,
        min_bytes: usize,
    ) -> Compress<'a> {
        Compress { deflater, scratch: &mut self.scratch, min_bytes, work: &mut self.work }
    }

    /// The compressed frame for a whole unmasked frame of one message, for peers with a window of
    /// `bits`. `None` if it would not be shorter.
    pub fn compress_frame(&mut self, plain: &[u8], bits: u8) -> Option<Vec<u8>> {
        let (opcode, payload) = frame::split(plain)?;
        let mut out = Vec::new();
        self.compress(bits, 0).push(&mut out, opcode, payload, None).then_some(out)
    }

    /// Takes back the memory of a decompressed message, for reuse.
    pub fn give_back(&mut self, memory: Vec<u8>) {
        if memory.capacity() <= KEPT_BYTES {
            self.inflated = memory;
        } else {
            self.freed += memory.capacity() as u64;
        }
    }
}
