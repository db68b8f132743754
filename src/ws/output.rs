//! Outgoing and incoming messages of one peer, compressed if permessage-deflate was negotiated.

pub use super::codecs::{BITS, Codecs, Compress};

use super::codecs::MESSAGE_WORK;
use super::deflate::{Deflater, Inflater, Room, deflater_bytes};
use super::event_ids::EventIds;
use super::extension::Agreed;
use super::frame::{self, Opcode};
use super::record::{EventId, RecordFraming, push_event, push_id};
use super::unpack::{self, UnpackTarget, Unpacked, Unpacking};
use super::{MessageKind, Violation, deflate, utf8};

/// Writes messages to one peer.
pub struct Output<'a> {
    /// The bytes written so far, which are whole frames or records.
    pub bytes: &'a mut Vec<u8>,
    /// The compressor, if messages are compressed.
    pub compress: Option<Compress<'a>>,
    /// The masking key of the next message, if this side is a client; it must be new for each
    /// message.
    pub mask: Option<[u8; 4]>,
    /// The framing of records, which replace frames for a peer without a WebSocket.
    pub records: Option<RecordFraming>,
    /// The positions that the ids of events have, for a stream of events of several channels.
    pub ids: Option<&'a EventIds>,
}

impl<'a> Output<'a> {
    /// An output without compression.
    pub fn plain(bytes: &'a mut Vec<u8>) -> Output<'a> {
        Output { bytes, compress: None, mask: None, records: None, ids: None }
    }

    /// Writes one message. False if the peer's record framing has no record for it.
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

    /// Writes one text message; for a peer with server-sent events, as an event with this id. In a
    /// stream of several channels, the id has the positions of all of them.
    pub fn text_with_id(&mut self, id: EventId, text: &[u8]) {
        if self.records == Some(RecordFraming::Events) {
            let line = self.ids.map_or_else(|| format!("id: {id}\n"), EventIds::line);
            push_event(self.bytes, MessageKind::Text, text, &line);
        } else {
            self.message(MessageKind::Text, text);
        }
    }

    /// Writes an id without an event, for a peer with server-sent events: the peer sends it when it
    /// connects again.
    pub fn id(&mut self, id: EventId) {
        if self.records == Some(RecordFraming::Events) {
            push_id(self.bytes, id);
        }
    }
}

/// The compression that one connection has negotiated, with the windows that it keeps; or the
/// record framing of a connection without a WebSocket.
pub struct Channel {
    agreed: Agreed,
    records: Option<RecordFraming>,
    /// The positions of the channels of a stream of events, if it has several.
    ids: Option<EventIds>,
    min_bytes: usize,
    deflater: Option<Box<Deflater>>,
    inflater: Option<Box<Inflater>>,
    /// A message that is not decompressed completely yet.
    unpacking: Option<Box<Unpacking>>,
}

impl Channel {
    /// The compression state of one connection. `None` if its windows exceed the core's memory
    /// limit.
    pub fn new(agreed: Agreed, min_bytes: usize, codecs: &mut Codecs) -> Option<Channel> {
        let bytes = bytes(&agreed);
        (codecs.hold(bytes) == bytes).then(|| Channel::of(agreed, None, min_bytes))
    }

    /// The state of a connection whose messages are records; nothing is compressed.
    pub fn of_records(framing: RecordFraming) -> Channel {
        Channel::of(Agreed::NOTHING, Some(framing), 0)
    }

    /// The same state for a stream of events whose ids have these positions.
    #[must_use]
    pub fn with_ids(self, ids: EventIds) -> Channel {
        Channel { ids: Some(ids).filter(|ids| !ids.is_empty()), ..self }
    }

    /// The positions that the ids of events have, for a stream of events of several channels.
    pub fn ids(&mut self) -> Option<&mut EventIds> {
        self.ids.as_mut()
    }

    fn of(agreed: Agreed, records: Option<RecordFraming>, min_bytes: usize) -> Channel {
        let (deflater, inflater, unpacking, ids) = (None, None, None, None);
        Channel { agreed, records, ids, min_bytes, deflater, inflater, unpacking }
    }

    /// The record framing, if the connection is no WebSocket.
    pub fn records(&self) -> Option<RecordFraming> {
        self.records
    }

    /// The negotiated parameters.
    pub fn agreed(&self) -> Agreed {
        self.agreed
    }

    /// Releases the memory that the connection was accounted for.
    pub fn release(&mut self, codecs: &mut Codecs) {
        codecs.release(bytes(&self.agreed));
        self.forget(codecs);
    }

    /// The window bits for which a broadcast may be compressed once for many peers. `None` if this
    /// connection keeps its compressor's window.
    pub fn shared_bits(&self) -> Option<u8> {
        (!self.agreed.we_keep).then_some(self.agreed.our_bits)
    }

    /// Messages shorter than this many bytes are not compressed.
    pub fn min_bytes(&self) -> usize {
        self.min_bytes
    }

    /// An output with the negotiated compression, or with the record framing.
    pub fn output<'a>(&'a mut self, bytes: &'a mut Vec<u8>, codecs: &'a mut Codecs) -> Output<'a> {
        if self.records.is_some() {
            let (records, ids) = (self.records, self.ids.as_ref());
            return Output { records, ids, ..Output::plain(bytes) };
        }
        let min_bytes = self.min_bytes;
        let bits = self.agreed.our_bits;
        let compress = if self.agreed.we_keep {
            let own = self.deflater.get_or_insert_with(|| Box::new(Deflater::new(bits, true)));
            codecs.compress_with(own, min_bytes)
        } else {
            codecs.compress(bits, min_bytes)
        };
        Output { compress: Some(compress), ..Output::plain(bytes) }
    }

    /// Decompresses a message of at most `max_bytes` bytes, or the rest of one of which parts came
    /// before. An empty message is not given to the decompressor: only the removed tail would
    /// remain, which would begin a block without an end. Return the memory with
    /// [`Codecs::give_back`].
    ///
    /// # Errors
    /// Why the message is refused.
    pub fn unpack(
        &mut self,
        kind: MessageKind,
        message: &[u8],
        max_bytes: u64,
        codecs: &mut Codecs,
    ) -> Result<Unpacked, Violation> {
        codecs.spend(MESSAGE_WORK);
        if let Some(unpacking) = &mut self.unpacking {
            unpacking.add(message, true);
            return self.continue_unpacking(max_bytes, codecs);
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
            return self.continue_unpacking(max_bytes, codecs);
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

    /// Decompresses the parts that have arrived of a message of at most `max_bytes` bytes, as far
    /// as the turn's work and the core's memory allow. The caller need not continue: the octets
    /// that are left wait for the next part or the end of the message.
    ///
    /// # Errors
    /// Why the message is refused.
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
        self.continue_unpacking(max_bytes, codecs)
    }

    /// Continues with a message that is [`Unpacked::Busy`].
    ///
    /// # Errors
    /// Why the message is refused.
    pub fn continue_unpacking(
        &mut self,
        max_bytes: u64,
        codecs: &mut Codecs,
    ) -> Result<Unpacked, Violation> {
        let Some(mut unpacking) = self.unpacking.take() else { return Ok(Unpacked::Part) };
        let max_bytes = usize::try_from(max_bytes).unwrap_or(usize::MAX);
        let kept = self.inflater.as_deref_mut();
        let unpacked = unpacking.continue_unpacking(&mut UnpackTarget { kept, codecs, max_bytes });
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

    /// Whether a message has arrived completely, and waits for a turn with work left or for the
    /// place for large messages.
    pub fn is_busy(&self) -> bool {
        self.unpacking.as_ref().is_some_and(|it| it.is_whole())
    }

    /// Whether a message has arrived completely, and does not have the place for large messages.
    pub fn awaits_place(&self) -> bool {
        self.unpacking.as_ref().is_some_and(|it| it.is_whole() && !it.has_place())
    }

    /// The compressed bytes of a message that waits to be decompressed.
    pub fn compressed_bytes(&self) -> usize {
        self.unpacking.as_ref().map_or(0, |it| it.compressed_bytes())
    }

    /// Whether a message has the core's place for large messages.
    pub fn has_place(&self) -> bool {
        self.unpacking.as_ref().is_some_and(|it| it.has_place())
    }

    /// Drops a message that is not decompressed completely, and releases its memory.
    pub fn forget(&mut self, codecs: &mut Codecs) {
        if let Some(mut unpacking) = self.unpacking.take() {
            unpacking.release(codecs);
        }
    }
}

/// Heap bytes of the windows that are kept by `agreed`.
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
        // Memory for one decompressor, and for the output of a message of 100 octets.
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
        assert_eq!(codecs.held_bytes(), 0);
        let end = second.unpack(MessageKind::Text, &[0], 100, &mut codecs);
        assert_eq!(end, Err(Violation::TextNotUtf8), "at the end at the latest");
        for dropped in [&mut first, &mut second] {
            assert_eq!(part(dropped, &bad[..5], &mut codecs), Ok(Unpacked::Part));
            assert_eq!(codecs.held_bytes(), one);
            dropped.release(&mut codecs);
            assert_eq!(codecs.held_bytes(), 0);
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
