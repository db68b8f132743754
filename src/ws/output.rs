//! Messages on their way to one peer, compressed if that was agreed on.

use super::deflate::{Deflater, InflateError, Inflater, Room, deflater_bytes};
use super::extension::Agreed;
use super::frame::{self, Header, Opcode};
use super::place::LargePlace;
use super::record::RecordFraming;
use super::unpack::{self, SMALL, SMALL_WORK, UnpackTarget, Unpacked, Unpacking};
use super::{MessageKind, Violation, deflate, utf8};

/// Where messages for one peer are written.
pub struct Output<'a> {
    /// The bytes so far, whole frames.
    pub bytes: &'a mut Vec<u8>,
    /// How messages are compressed, if they are.
    pub compress: Option<Compress<'a>>,
    /// The masking key of the next message: a client's, fresh for each.
    pub mask: Option<[u8; 4]>,
    /// What messages are in place of frames, for a peer without a WebSocket.
    pub records: Option<RecordFraming>,
}

/// A compressor at work for one peer.
pub struct Compress<'a> {
    /// The compressor.
    pub deflater: &'a mut Deflater,
    /// Memory to use again.
    pub scratch: &'a mut Vec<u8>,
    /// Shorter messages stay plain, in bytes.
    pub min_bytes: usize,
    /// What the turn has left of its share of work.
    work: &'a mut usize,
}

impl<'a> Output<'a> {
    /// An output that compresses nothing.
    pub fn plain(bytes: &'a mut Vec<u8>) -> Output<'a> {
        Output { bytes, compress: None, mask: None, records: None }
    }

    /// Writes one message; false if the peer's framing has no record for it.
    pub fn message(&mut self, kind: MessageKind, payload: &[u8]) -> bool {
        if let Some(framing) = self.records {
            return framing.push(self.bytes, kind, payload);
        }
        let opcode = match kind {
            MessageKind::Text => Opcode::Text,
            MessageKind::Binary => Opcode::Binary,
        };
        match &mut self.compress {
            Some(compress) if payload.len() >= compress.min_bytes => {
                if !compress.push(self.bytes, opcode, payload, self.mask) {
                    frame::push(self.bytes, opcode, payload, self.mask);
                }
            }
            _ => frame::push(self.bytes, opcode, payload, self.mask),
        }
        true
    }
}

impl Compress<'_> {
    /// Appends `payload` as one compressed frame; false if the plain one is no longer. A
    /// compressor that keeps its window has no choice any more: what went through it must be sent.
    fn push(
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

/// The compressors and decompressors of one core, for all peers with whom no window is kept.
pub struct Codecs {
    deflaters: [Option<Box<Deflater>>; BITS],
    inflater: Box<Inflater>,
    scratch: Vec<u8>,
    inflated: Vec<u8>,
    /// What is left of this turn's share of work.
    work: usize,
    /// Heap bytes of kept windows and of what is being decompressed, and with how many of them no
    /// more is given; the one large message is not kept from growing beyond it.
    held: usize,
    held_max: usize,
    /// Who decompresses a large message.
    pub large: LargePlace,
    /// Bytes of decompressed messages that were freed, since the start.
    freed: u64,
}

/// Window sizes, 9 to 15 bits.
pub const BITS: usize = 7;
/// What a core does in one turn before it looks after its other connections, in octets of
/// decompressed output: some milliseconds.
const TURN_WORK: usize = 4 * 1024 * 1024;
/// What a message costs at least, in the same: a compressor's tables are cleared for it.
const MESSAGE_WORK: usize = 4 * 1024;
/// And each octet that is compressed.
const DEFLATE_WORK: usize = 4;
/// Memory for decompressed messages that is kept.
const KEPT_BYTES: usize = 64 * 1024;

impl Codecs {
    /// Codecs for a core on which kept windows, and what is decompressed of messages that are not
    /// done with, may hold `held_max` bytes of heap.
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

    /// Heap bytes of kept windows and of what is being decompressed.
    pub fn held_bytes(&self) -> usize {
        self.held
    }

    /// Bytes of decompressed messages that were freed, since the start.
    pub fn freed_bytes(&self) -> u64 {
        self.freed
    }

    /// A new turn of the reactor begins.
    pub fn new_turn(&mut self) {
        self.work = TURN_WORK;
        if self.scratch.capacity() > KEPT_BYTES {
            self.scratch = Vec::new();
        }
    }

    /// Whether this turn has done as much as a turn may.
    pub fn is_spent(&self) -> bool {
        self.work == 0
    }

    /// What is left of this turn's share, in octets of decompressed output.
    pub fn turn_work(&self) -> usize {
        self.work
    }

    pub(super) fn work_left(&self) -> usize {
        self.work
    }

    pub(super) fn spend(&mut self, work: usize) {
        self.work = self.work.saturating_sub(work);
    }

    /// Accounts for heap that a peer holds: all of it, or nothing if there is no room.
    pub(super) fn hold(&mut self, bytes: usize) -> usize {
        let held = if self.held + bytes <= self.held_max { bytes } else { 0 };
        self.held += held;
        held
    }

    /// Accounts for heap that is held whether there is room or not.
    pub(super) fn charge(&mut self, bytes: usize) {
        self.held += bytes;
    }

    /// Gives back what was accounted for.
    pub(super) fn release(&mut self, bytes: usize) {
        self.held -= bytes;
    }

    /// Decompresses a whole message of a peer that keeps no window, if that is no more than a
    /// small one takes. Give the memory back with [`Codecs::give_back`].
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

    /// A decompressor for a message that takes longer than a turn.
    pub(super) fn lend(&mut self) -> Box<Inflater> {
        std::mem::replace(&mut self.inflater, Box::new(Inflater::new(false)))
    }

    fn compress(&mut self, bits: u8, min_bytes: usize) -> Compress<'_> {
        let at = usize::from(bits.clamp(9, 15) - 9);
        let deflater =
            self.deflaters[at].get_or_insert_with(|| Box::new(Deflater::new(bits, false)));
        Compress { deflater, scratch: &mut self.scratch, min_bytes, work: &mut self.work }
    }

    /// The compressed form of a whole unmasked frame of one message, for peers with a window of
    /// `bits`; `None` if it would not be shorter.
    pub fn compress_frame(&mut self, plain: &[u8], bits: u8) -> Option<Vec<u8>> {
        let (opcode, payload) = frame::split(plain)?;
        let mut out = Vec::new();
        self.compress(bits, 0).push(&mut out, opcode, payload, None).then_some(out)
    }
}

/// What one connection has agreed on, with the windows that it keeps; or the framing of one that
/// is no WebSocket.
pub struct Channel {
    agreed: Agreed,
    records: Option<RecordFraming>,
    min_bytes: usize,
    deflater: Option<Box<Deflater>>,
    inflater: Option<Box<Inflater>>,
    /// A message that could not be decompressed at once.
    unpacking: Option<Box<Unpacking>>,
}

impl Channel {
    /// The compression of one connection, unless its windows are more than the core may hold.
    pub fn new(agreed: Agreed, min_bytes: usize, codecs: &mut Codecs) -> Option<Channel> {
        let bytes = bytes(&agreed);
        (codecs.hold(bytes) == bytes).then(|| Channel::of(agreed, None, min_bytes))
    }

    /// A connection whose messages are records: nothing is compressed.
    pub fn of_records(framing: RecordFraming) -> Channel {
        Channel::of(Agreed::NOTHING, Some(framing), 0)
    }

    fn of(agreed: Agreed, records: Option<RecordFraming>, min_bytes: usize) -> Channel {
        Channel { agreed, records, min_bytes, deflater: None, inflater: None, unpacking: None }
    }

    /// The framing of the records of a connection that is no WebSocket.
    pub fn records(&self) -> Option<RecordFraming> {
        self.records
    }

    /// What was agreed on.
    pub fn agreed(&self) -> Agreed {
        self.agreed
    }

    /// Gives back what the connection was accounted for.
    pub fn release(&mut self, codecs: &mut Codecs) {
        codecs.release(bytes(&self.agreed));
        self.forget(codecs);
    }

    /// The window for which a broadcast may be compressed once for many, if it may.
    pub fn shared_bits(&self) -> Option<u8> {
        (!self.agreed.we_keep).then_some(self.agreed.our_bits)
    }

    /// Messages shorter than this many bytes stay plain.
    pub fn min_bytes(&self) -> usize {
        self.min_bytes
    }

    /// An output that compresses as agreed on.
    pub fn output<'a>(&'a mut self, bytes: &'a mut Vec<u8>, codecs: &'a mut Codecs) -> Output<'a> {
        if self.records.is_some() {
            return Output { records: self.records, ..Output::plain(bytes) };
        }
        let min_bytes = self.min_bytes;
        let bits = self.agreed.our_bits;
        let compress = if self.agreed.we_keep {
            let own = self.deflater.get_or_insert_with(|| Box::new(Deflater::new(bits, true)));
            let (scratch, work) = (&mut codecs.scratch, &mut codecs.work);
            Compress { deflater: own, scratch, min_bytes, work }
        } else {
            codecs.compress(bits, min_bytes)
        };
        Output { compress: Some(compress), ..Output::plain(bytes) }
    }

    /// Decompresses a message of at most `max_bytes` bytes, or the end of one of which parts came
    /// before. One without any octet is empty, and nothing for a decompressor: what is left out
    /// at the end of each message would be the beginning of a block behind nothing. Give the
    /// memory back with [`Codecs::give_back`].
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn unpack(
        &mut self,
        kind: MessageKind,
        message: &[u8],
        max_bytes: u64,
        codecs: &mut Codecs,
    ) -> Result<Unpacked, Violation> {
        codecs.work = codecs.work.saturating_sub(MESSAGE_WORK);
        if let Some(unpacking) = &mut self.unpacking {
            unpacking.add(message, true);
            return self.go_on(max_bytes, codecs);
        }
        if message.is_empty() {
            return Ok(Unpacked::Whole(kind, Vec::new()));
        }
        if !codecs.large.is_free() {
            let mut unpacking = Unpacking::whole(kind, message);
            if self.agreed.peer_keeps {
                unpacking.begin(self.own_inflater());
            }
            self.unpacking = Some(Box::new(unpacking));
            return self.go_on(max_bytes, codecs);
        }
        let max_usize = usize::try_from(max_bytes).unwrap_or(usize::MAX);
        let mut out = std::mem::take(&mut codecs.inflated);
        out.clear();
        let keeps = self.agreed.peer_keeps;
        let inflater = match keeps {
            true => self.inflater.get_or_insert_with(|| Box::new(Inflater::new(true))),
            false => &mut codecs.inflater,
        };
        let mut progress = inflater.begin();
        let (room, work) = (Room::whole(max_usize), &mut codecs.work);
        let taken = inflater.part(message, room, &mut out, &mut progress, work);
        let taken = taken.map_err(unpack::violation)?;
        if taken < message.len() || !progress.is_drained() {
            let own = (!keeps).then(|| codecs.lend());
            let rest = &message[taken..];
            let unpacking = Unpacking::after(kind, own, progress, out, rest, codecs);
            self.unpacking = Some(Box::new(unpacking));
            return Ok(Unpacked::Busy);
        }
        inflater.end(max_usize, &mut out, progress).map_err(unpack::violation)?;
        if kind == MessageKind::Text && !utf8::valid(&out) {
            return Err(Violation::TextNotUtf8);
        }
        Ok(Unpacked::Whole(kind, out))
    }

    /// Decompresses what has come of a message of at most `max_bytes` bytes, as far as that is for
    /// free: nothing is to be done about what is left.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn unpack_part(
        &mut self,
        kind: MessageKind,
        part: &[u8],
        max_bytes: u64,
        codecs: &mut Codecs,
    ) -> Result<Unpacked, Violation> {
        if self.unpacking.is_none() {
            let keeps = self.agreed.peer_keeps;
            if keeps {
                self.own_inflater().begin();
            }
            self.unpacking = Some(Box::new(Unpacking::new(kind, keeps, codecs)));
        }
        if let Some(unpacking) = &mut self.unpacking {
            unpacking.add(part, false);
        }
        self.go_on(max_bytes, codecs)
    }

    /// Goes on with a message that is [`Unpacked::Busy`].
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn go_on(&mut self, max_bytes: u64, codecs: &mut Codecs) -> Result<Unpacked, Violation> {
        let Some(mut unpacking) = self.unpacking.take() else { return Ok(Unpacked::Part) };
        let max_bytes = usize::try_from(max_bytes).unwrap_or(usize::MAX);
        let kept = self.inflater.as_deref_mut();
        let unpacked = unpacking.go_on(&mut UnpackTarget { kept, codecs, max_bytes });
        match unpacked {
            Ok(Unpacked::Part | Unpacked::Busy) => self.unpacking = Some(unpacking),
            _ => unpacking.release(codecs),
        }
        unpacked
    }

    /// The decompressor of a peer that keeps its window.
    fn own_inflater(&mut self) -> &mut Inflater {
        self.inflater.get_or_insert_with(|| Box::new(Inflater::new(true)))
    }

    /// Whether a message is whole, and waits for a turn with work to spare, or for the place for
    /// large ones.
    pub fn is_busy(&self) -> bool {
        self.unpacking.as_ref().is_some_and(|it| it.is_whole())
    }

    /// Whether a message is whole, and another one of the core has the place for large ones.
    pub fn awaits_place(&self) -> bool {
        self.unpacking.as_ref().is_some_and(|it| it.is_whole() && !it.has_place())
    }

    /// Bytes of a message that waits to be decompressed.
    pub fn compressed_bytes(&self) -> usize {
        self.unpacking.as_ref().map_or(0, |it| it.compressed_bytes())
    }

    /// Whether a message has the core's place for large ones.
    pub fn has_place(&self) -> bool {
        self.unpacking.as_ref().is_some_and(|it| it.has_place())
    }

    /// Gives up what is not whole.
    pub fn forget(&mut self, codecs: &mut Codecs) {
        if let Some(mut unpacking) = self.unpacking.take() {
            unpacking.release(codecs);
        }
    }
}

impl Codecs {
    /// Takes the memory of a decompressed message back.
    pub fn give_back(&mut self, memory: Vec<u8>) {
        if memory.capacity() <= KEPT_BYTES {
            self.inflated = memory;
        } else {
            self.freed += memory.capacity() as u64;
        }
    }
}

/// Heap bytes of the windows that `agreed` keeps.
fn bytes(agreed: &Agreed) -> usize {
    let ours = if agreed.we_keep { deflater_bytes(agreed.our_bits) } else { 0 };
    ours + if agreed.peer_keeps { deflate::INFLATER_BYTES } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::super::extension::{Compression, negotiate};
    use super::super::{FrameEvent, FrameLimits, Reader, Role};
    use super::*;

    fn agreed(compression: Compression) -> Agreed {
        negotiate(["permessage-deflate"].into_iter(), compression).ok().flatten().expect("agreed")
    }

    #[test]
    fn output_bounds_dedicated_windows_and_shared_ones_are_free() {
        let dedicated = agreed(Compression::Dedicated);
        let one = bytes(&dedicated);
        let mut codecs = Codecs::new(2 * one);
        let mut first = Channel::new(dedicated, 0, &mut codecs).expect("room");
        assert!(Channel::new(dedicated, 0, &mut codecs).is_some());
        assert!(Channel::new(dedicated, 0, &mut codecs).is_none());
        assert!(Channel::new(agreed(Compression::Shared), 0, &mut codecs).is_some());
        first.release(&mut codecs);
        assert!(Channel::new(dedicated, 0, &mut codecs).is_some());
    }

    #[test]
    fn output_checks_unfinished_messages_while_memory_lasts() {
        let shared = agreed(Compression::Shared);
        // A decompressor, and the output of a message of 100 octets.
        let one = deflate::INFLATER_BYTES + 100 + deflate::BLOCK;
        let mut codecs = Codecs::new(one);
        let bad = [0x00, 0x01, 0x00, 0xfe, 0xff, 0xff];
        let mut first = Channel::new(shared, 0, &mut codecs).expect("nothing is kept");
        let mut second = Channel::new(shared, 0, &mut codecs).expect("nothing is kept");
        let part = |it: &mut Channel, part: &[u8], codecs: &mut Codecs| {
            it.unpack_part(MessageKind::Text, part, 100, codecs)
        };
        assert_eq!(part(&mut first, &bad[..5], &mut codecs), Ok(Unpacked::Part));
        assert_eq!(part(&mut second, &bad, &mut codecs), Ok(Unpacked::Part), "it waits");
        assert_eq!(part(&mut first, &bad[5..], &mut codecs), Err(Violation::TextNotUtf8));
        assert_eq!(codecs.held, 0);
        let end = second.unpack(MessageKind::Text, &[0], 100, &mut codecs);
        assert_eq!(end, Err(Violation::TextNotUtf8), "at the end at the latest");
        for gone in [&mut first, &mut second] {
            assert_eq!(part(gone, &bad[..5], &mut codecs), Ok(Unpacked::Part));
            assert_eq!(codecs.held, one);
            gone.release(&mut codecs);
            assert_eq!(codecs.held, 0);
        }
        let long = part(&mut first, &[0; 101], &mut codecs);
        assert_eq!(long, Err(Violation::TooBig), "however little comes out");
    }

    #[test]
    fn output_compresses_messages_from_the_minimum_on() {
        let mut codecs = Codecs::new(0);
        let mut channel = Channel::new(agreed(Compression::Shared), 10, &mut codecs).expect("room");
        let mut bytes = Vec::new();
        let mut output = channel.output(&mut bytes, &mut codecs);
        output.message(MessageKind::Text, b"aaaaaaaaa");
        output.message(MessageKind::Text, &[b'a'; 100]);
        output.message(MessageKind::Binary, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 0]);
        let limits = FrameLimits { allow_rsv1: true, ..FrameLimits::default() };
        let mut reader = Reader::new();
        let mut at = 0;
        let mut marks = Vec::new();
        loop {
            let (taken, event) = reader.next(Role::Client, &limits, &mut bytes[at..]);
            at += taken;
            let FrameEvent::Message { compressed, payload, .. } = event else { break };
            if compressed {
                let back = channel.unpack(MessageKind::Text, payload, 100, &mut codecs);
                assert_eq!(back, Ok(Unpacked::Whole(MessageKind::Text, vec![b'a'; 100])));
            }
            marks.push(compressed);
        }
        assert_eq!(marks, [false, true, false], "what gets no shorter stays plain");
    }

    #[test]
    fn output_compresses_a_frame_for_each_window() {
        let mut codecs = Codecs::new(0);
        let plain = frame::frozen(Opcode::Text, &[b'x'; 500]);
        let compressed = codecs.compress_frame(&plain, 15).expect("shorter");
        assert!(compressed.len() < 50);
        assert_eq!(compressed[0], 0xc1);
        let noise: Vec<u8> = (0..100_u8).map(|n| n.wrapping_mul(167)).collect();
        assert!(codecs.compress_frame(&frame::frozen(Opcode::Binary, &noise), 9).is_none());
    }
}
