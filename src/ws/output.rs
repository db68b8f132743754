//! Messages on their way to one peer, compressed if that was agreed on.

use super::deflate::{Deflater, InflateError, Inflater, deflater_bytes};
use super::extension::Agreed;
use super::frame::{self, Header, Opcode};
use super::record::Framing;
use super::{Kind, deflate};

/// Where messages for one peer are written.
pub struct Output<'a> {
    /// The bytes so far, whole frames.
    pub bytes: &'a mut Vec<u8>,
    /// How messages are compressed, if they are.
    pub squeeze: Option<Squeeze<'a>>,
    /// The masking key of the next message: a client's, fresh for each.
    pub mask: Option<[u8; 4]>,
    /// What messages are in place of frames, for a peer without a WebSocket.
    pub records: Option<Framing>,
}

/// A compressor at work for one peer.
pub struct Squeeze<'a> {
    /// The compressor.
    pub deflater: &'a mut Deflater,
    /// Memory to use again.
    pub scratch: &'a mut Vec<u8>,
    /// Shorter messages stay plain, in bytes.
    pub least: usize,
}

impl<'a> Output<'a> {
    /// An output that compresses nothing.
    pub fn plain(bytes: &'a mut Vec<u8>) -> Output<'a> {
        Output { bytes, squeeze: None, mask: None, records: None }
    }

    /// Writes one message; false if the peer's framing has no record for it.
    pub fn message(&mut self, kind: Kind, payload: &[u8]) -> bool {
        if let Some(framing) = self.records {
            return framing.push(self.bytes, kind, payload);
        }
        let opcode = match kind {
            Kind::Text => Opcode::Text,
            Kind::Binary => Opcode::Binary,
        };
        match &mut self.squeeze {
            Some(squeeze) if payload.len() >= squeeze.least => {
                if !squeeze.push(self.bytes, opcode, payload, self.mask) {
                    frame::push(self.bytes, opcode, payload, self.mask);
                }
            }
            _ => frame::push(self.bytes, opcode, payload, self.mask),
        }
        true
    }
}

impl Squeeze<'_> {
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
    inflater: Inflater,
    scratch: Vec<u8>,
    inflated: Vec<u8>,
    /// Bytes that were decompressed since [`Codecs::new_turn`].
    in_turn: usize,
    /// Heap bytes that peers with kept windows hold, and may hold together.
    dedicated: usize,
    dedicated_most: usize,
}

/// Window sizes, 9 to 15 bits.
pub const BITS: usize = 7;
/// Bytes that a core decompresses in one turn before it looks after its other connections.
const TURN_BYTES: usize = 4 * 1024 * 1024;
/// Memory for decompressed messages that is kept.
const KEPT_BYTES: usize = 64 * 1024;

impl Codecs {
    /// Codecs for a core on which kept windows may hold `dedicated_most` bytes of heap.
    pub fn new(dedicated_most: usize) -> Codecs {
        Codecs {
            deflaters: [const { None }; BITS],
            inflater: Inflater::new(false),
            scratch: Vec::new(),
            inflated: Vec::new(),
            in_turn: 0,
            dedicated: 0,
            dedicated_most,
        }
    }

    /// A new turn of the reactor begins.
    pub fn new_turn(&mut self) {
        self.in_turn = 0;
    }

    /// Whether this turn has decompressed as much as a turn may.
    pub fn is_spent(&self) -> bool {
        self.in_turn >= TURN_BYTES
    }

    fn deflater(&mut self, bits: u8) -> (&mut Deflater, &mut Vec<u8>) {
        let at = usize::from(bits.clamp(9, 15) - 9);
        let deflater =
            self.deflaters[at].get_or_insert_with(|| Box::new(Deflater::new(bits, false)));
        (deflater, &mut self.scratch)
    }

    /// The compressed form of a whole unmasked frame of one message, for peers with a window of
    /// `bits`; `None` if it would not be shorter.
    pub fn squeeze_frame(&mut self, plain: &[u8], bits: u8) -> Option<Vec<u8>> {
        let (opcode, payload) = frame::split(plain)?;
        let (deflater, scratch) = self.deflater(bits);
        let mut out = Vec::new();
        let mut squeeze = Squeeze { deflater, scratch, least: 0 };
        squeeze.push(&mut out, opcode, payload, None).then_some(out)
    }
}

/// What one connection has agreed on, with the windows that it keeps; or the framing of one that
/// is no WebSocket.
pub struct Channel {
    agreed: Agreed,
    records: Option<Framing>,
    least: usize,
    deflater: Option<Box<Deflater>>,
    inflater: Option<Box<Inflater>>,
}

impl Channel {
    /// The compression of one connection, unless its windows are more than the core may hold.
    pub fn new(agreed: Agreed, least: usize, codecs: &mut Codecs) -> Option<Channel> {
        let bytes = bytes(&agreed);
        if codecs.dedicated + bytes > codecs.dedicated_most {
            return None;
        }
        codecs.dedicated += bytes;
        Some(Channel { agreed, records: None, least, deflater: None, inflater: None })
    }

    /// A connection whose messages are records: nothing is compressed.
    pub fn of_records(framing: Framing) -> Channel {
        Channel {
            agreed: Agreed::NOTHING,
            records: Some(framing),
            least: 0,
            deflater: None,
            inflater: None,
        }
    }

    /// The framing of the records of a connection that is no WebSocket.
    pub fn records(&self) -> Option<Framing> {
        self.records
    }

    /// What was agreed on.
    pub fn agreed(&self) -> Agreed {
        self.agreed
    }

    /// Gives back what the connection was accounted for.
    pub fn release(&self, codecs: &mut Codecs) {
        codecs.dedicated -= bytes(&self.agreed);
    }

    /// The window for which a broadcast may be compressed once for many, if it may.
    pub fn shared_bits(&self) -> Option<u8> {
        (!self.agreed.we_keep).then_some(self.agreed.our_bits)
    }

    /// Messages shorter than this many bytes stay plain.
    pub fn least(&self) -> usize {
        self.least
    }

    /// An output that compresses as agreed on.
    pub fn output<'a>(&'a mut self, bytes: &'a mut Vec<u8>, codecs: &'a mut Codecs) -> Output<'a> {
        if self.records.is_some() {
            return Output { records: self.records, ..Output::plain(bytes) };
        }
        let least = self.least;
        let bits = self.agreed.our_bits;
        let (deflater, scratch) = if self.agreed.we_keep {
            let own = self.deflater.get_or_insert_with(|| Box::new(Deflater::new(bits, true)));
            (&mut **own, &mut codecs.scratch)
        } else {
            codecs.deflater(bits)
        };
        let squeeze = Some(Squeeze { deflater, scratch, least });
        Output { squeeze, ..Output::plain(bytes) }
    }

    /// Decompresses one message of at most `most` bytes. Give the memory back with
    /// [`Codecs::give_back`].
    pub fn inflate(
        &mut self,
        message: &[u8],
        most: u64,
        codecs: &mut Codecs,
    ) -> Result<Vec<u8>, InflateError> {
        let mut out = std::mem::take(&mut codecs.inflated);
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let inflater = if self.agreed.peer_keeps {
            self.inflater.get_or_insert_with(|| Box::new(Inflater::new(true)))
        } else {
            &mut codecs.inflater
        };
        let result = inflater.inflate(message, most, &mut out);
        codecs.in_turn += out.len() + message.len();
        result.map(|()| out)
    }
}

impl Codecs {
    /// Takes the memory of a decompressed message back.
    pub fn give_back(&mut self, memory: Vec<u8>) {
        if memory.capacity() <= KEPT_BYTES {
            self.inflated = memory;
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
    use super::super::{Event, Limits, Reader, Role};
    use super::*;

    fn agreed(compression: Compression) -> Agreed {
        negotiate(["permessage-deflate"].into_iter(), compression).ok().flatten().expect("agreed")
    }

    #[test]
    fn kept_windows_are_bounded_and_shared_ones_cost_nothing() {
        let dedicated = agreed(Compression::Dedicated);
        let one = bytes(&dedicated);
        let mut codecs = Codecs::new(2 * one);
        let first = Channel::new(dedicated, 0, &mut codecs).expect("room");
        assert!(Channel::new(dedicated, 0, &mut codecs).is_some());
        assert!(Channel::new(dedicated, 0, &mut codecs).is_none());
        assert!(Channel::new(agreed(Compression::Shared), 0, &mut codecs).is_some());
        first.release(&mut codecs);
        assert!(Channel::new(dedicated, 0, &mut codecs).is_some());
    }

    #[test]
    fn short_messages_stay_plain_and_longer_ones_are_marked() {
        let mut codecs = Codecs::new(0);
        let mut channel = Channel::new(agreed(Compression::Shared), 10, &mut codecs).expect("room");
        let mut bytes = Vec::new();
        let mut output = channel.output(&mut bytes, &mut codecs);
        output.message(Kind::Text, b"aaaaaaaaa");
        output.message(Kind::Text, &[b'a'; 100]);
        output.message(Kind::Binary, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 0]);
        let limits = Limits { allow_rsv1: true, ..Limits::default() };
        let mut reader = Reader::new();
        let mut at = 0;
        let mut marks = Vec::new();
        loop {
            let (taken, event) = reader.next(Role::Client, &limits, &mut bytes[at..]);
            at += taken;
            let Event::Message { compressed, payload, .. } = event else { break };
            if compressed {
                let back = channel.inflate(payload, 100, &mut codecs);
                assert_eq!(back.as_deref(), Ok(&[b'a'; 100][..]));
            }
            marks.push(compressed);
        }
        assert_eq!(marks, [false, true, false], "what gets no shorter stays plain");
    }

    #[test]
    fn a_frame_is_squeezed_once_for_each_window() {
        let mut codecs = Codecs::new(0);
        let plain = frame::frozen(Opcode::Text, &[b'x'; 500]);
        let squeezed = codecs.squeeze_frame(&plain, 15).expect("shorter");
        assert!(squeezed.len() < 50);
        assert_eq!(squeezed[0], 0xc1);
        let noise: Vec<u8> = (0..100_u8).map(|n| n.wrapping_mul(167)).collect();
        assert!(codecs.squeeze_frame(&frame::frozen(Opcode::Binary, &noise), 9).is_none());
    }
}
