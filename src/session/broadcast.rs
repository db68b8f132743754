//! Delivery of one event to the write queues of many peers, in the format and the compression of
//! each peer. On each core, each encoding is made into a handle once.

use super::stage::Framing;
use super::{Context, QueueFull, Session};
use crate::codec::Format;
use crate::dialect::Why;
use crate::hub::{CompressedFrames, Encodings, SharedFrame};
use crate::limits::REPLY_BYTES;
use crate::mem::{Frozen, Handle};
use crate::ws::output::{BITS, Channel, Codecs};
use crate::ws::record::{FRAMINGS, RecordFraming};
use crate::ws::{MessageKind, Opcode, frame};

/// One event on one core, with its encodings. Each encoding is made into a handle once, for all
/// connections that receive it.
pub struct Broadcast<'e>(BroadcastContent<'e>);

enum BroadcastContent<'e> {
    /// One frame, the same for all connections.
    Frame(Wrapped<'e>),
    /// A value in the format of each connection.
    Value(Box<Formed<'e>>),
}

/// An event in several formats.
struct Formed<'e> {
    encodings: &'e Encodings,
    wrapped: [Option<Wrapped<'e>>; Format::ALL.len()],
}

/// A frame and its compressed versions.
struct Wrapped<'e> {
    frame: &'e Frozen,
    shared: Option<&'e CompressedFrames>,
    plain: Handle,
    compressed: [Option<Handle>; BITS],
    /// The message as a record of each framing, made on this core. Boxed because streams are rare.
    records: Option<Box<[Option<Handle>; FRAMINGS]>>,
}

impl<'e> Broadcast<'e> {
    /// Takes this core's handle of the frame.
    pub fn of_frame(shared: &'e SharedFrame) -> Broadcast<'e> {
        Broadcast(BroadcastContent::Frame(Wrapped::of(shared)))
    }

    /// A value, of which no encoding is made yet.
    pub fn of_value(encodings: &'e Encodings) -> Broadcast<'e> {
        let formed = Formed { encodings, wrapped: [const { None }; Format::ALL.len()] };
        Broadcast(BroadcastContent::Value(Box::new(formed)))
    }
}

impl<'e> Formed<'e> {
    fn encoded(&mut self, format: Format) -> &mut Wrapped<'e> {
        let encodings = self.encodings;
        let wrap = || Wrapped::new(encodings.encoded(format), encodings.compressed(format));
        self.wrapped[format.index()].get_or_insert_with(wrap)
    }
}

impl<'e> Wrapped<'e> {
    fn of(shared: &'e SharedFrame) -> Wrapped<'e> {
        Wrapped::new(&shared.frame, shared.compressed.as_deref())
    }

    fn new(frame: &'e Frozen, shared: Option<&'e CompressedFrames>) -> Wrapped<'e> {
        let plain = Handle::new(frame.clone());
        Wrapped { frame, shared, plain, compressed: [const { None }; BITS], records: None }
    }

    /// The frame with the compression that was negotiated with one peer.
    fn for_channel(&mut self, channel: &mut Channel, codecs: &mut Codecs) -> Handle {
        let plain = &self.plain;
        if plain.len() < channel.min_bytes() {
            return plain.clone();
        }
        if let Some(bits) = channel.shared_bits() {
            return self.compressed(bits, codecs);
        }
        let Some((opcode, payload)) = frame::split(plain) else { return plain.clone() };
        let kind = if opcode == Opcode::Text { MessageKind::Text } else { MessageKind::Binary };
        let mut own = Vec::new();
        channel.output(&mut own, codecs).message(kind, payload);
        Handle::new(Frozen::new(&own))
    }

    /// The frame's message as a record; empty if the framing cannot carry it.
    fn record(&mut self, framing: RecordFraming) -> Handle {
        let records = self.records.get_or_insert_default();
        let reframe = || Handle::new(Frozen::new(&framing.reframe(self.frame)));
        records[framing.index()].get_or_insert_with(reframe).clone()
    }

    /// The frame compressed for peers with a window of `bits` bits.
    fn compressed(&mut self, bits: u8, codecs: &mut Codecs) -> Handle {
        let (frame, plain, Some(shared)) = (self.frame, &self.plain, self.shared) else {
            return self.plain.clone();
        };
        let encoded = &mut self.compressed[usize::from(bits.clamp(9, 15) - 9)];
        let wrap = || match shared.encoded(frame, bits, codecs) {
            encoded if encoded.as_ptr() == frame.as_ptr() => plain.clone(),
            encoded => Handle::new(encoded.clone()),
        };
        encoded.get_or_insert_with(wrap).clone()
    }
}

impl Session {
    /// Queues a broadcast in the encoding for this peer. Returns false if the peer's framing cannot
    /// carry the message.
    ///
    /// # Errors
    /// More than `bound` bytes of broadcasts would wait; the broadcast was not queued.
    pub fn deliver(
        &mut self,
        broadcast: &mut Broadcast<'_>,
        codecs: &mut Codecs,
        bound: usize,
        now_ms: u64,
    ) -> Result<bool, QueueFull> {
        let encoded = match &mut broadcast.0 {
            BroadcastContent::Frame(frame) => frame,
            BroadcastContent::Value(formed) => match formed.encoded(self.stage.format()) {
                encoded if encoded.plain.is_empty() => return Ok(true),
                encoded => encoded,
            },
        };
        let queue = &mut self.link.queue;
        match self.stage.framing() {
            Framing::Compressed(channel) => {
                // Check for room first: a message that was compressed with a kept window must be
                // sent.
                if !queue.has_room(encoded.plain.len(), bound) {
                    return Err(QueueFull);
                }
                let frame = encoded.for_channel(channel, codecs);
                queue.push(&frame, usize::MAX, now_ms)?;
            }
            Framing::Records(framing) => {
                let record = encoded.record(framing);
                if record.is_empty() {
                    return Ok(false);
                }
                queue.push(&record, bound, now_ms)?;
            }
            Framing::Plain => queue.push(&encoded.plain, bound, now_ms)?,
        }
        Ok(true)
    }

    /// Queues the picture of a channel as a reply, in the encoding for this peer. If more than
    /// `REPLY_BYTES` of replies would wait, the connection is closed, whatever the policy for slow
    /// consumers.
    pub fn show(&mut self, picture: &Encodings, cx: &mut Context<'_>) {
        let format = self.stage.format();
        self.queue_encoded(Wrapped::new(picture.encoded(format), picture.compressed(format)), cx);
    }

    /// Queues the history of a channel as replies, the oldest event first.
    pub fn recall(&mut self, history: &[SharedFrame], cx: &mut Context<'_>) {
        for entry in history {
            self.queue_encoded(Wrapped::of(entry), cx);
        }
    }

    fn queue_encoded(&mut self, mut encoded: Wrapped<'_>, cx: &mut Context<'_>) {
        if !self.is_open_socket() || encoded.plain.is_empty() {
            return;
        }
        if self.link.queue.replies() + encoded.plain.len() > REPLY_BYTES {
            cx.counters.slow_consumer_closed.add(1);
            return self.close_for(Why::Slow, cx);
        }
        let frame = match self.stage.framing() {
            Framing::Plain => encoded.plain.clone(),
            Framing::Compressed(channel) => encoded.for_channel(channel, cx.codecs),
            Framing::Records(framing) => encoded.record(framing),
        };
        if frame.is_empty() {
            return cx.counters.http_streams_unsaid.add(1);
        }
        self.link.queue.push_reply(&frame, cx.now.ms);
    }
}

#[cfg(test)]
mod tests {
    use super::super::stage::Stage;
    use super::super::{MaskKeys, ProxyEffect};
    use super::*;
    use crate::codec::json::Scratch;
    use crate::codec::{Envelope, Value};
    use crate::config::Config;
    use crate::dialect::{CoreState, EffectList, Env};
    use crate::hub::ConnId;
    use crate::mem::Slot;
    use crate::stats::Counters;
    use crate::time::Now;
    use crate::work::Meter;
    use std::net::SocketAddr;
    use std::sync::Arc;

    fn event(compresses: bool) -> Arc<Encodings> {
        let envelope = Envelope { members: Vec::new(), key: "Data".into() };
        let value = Value::text(&"x".repeat(500));
        let encodings = Encodings::new(Arc::new(envelope), value, compresses);
        Arc::new(encodings.expect("sound"))
    }

    fn formed<'b, 'e>(broadcast: &'b mut Broadcast<'e>) -> &'b mut Formed<'e> {
        match &mut broadcast.0 {
            BroadcastContent::Value(formed) => formed,
            BroadcastContent::Frame(_) => panic!("a frame"),
        }
    }

    #[test]
    fn broadcast_is_encoded_and_compressed_by_the_first_core_that_needs_it() {
        let event = event(true);
        let (here, there) = (event.clone(), event.clone());
        let [mut here, mut there] = [Broadcast::of_value(&here), Broadcast::of_value(&there)];
        let mut codecs = Codecs::new(0);
        let mut frames = [&mut here, &mut there].map(|broadcast| {
            let encoded = formed(broadcast).encoded(Format::Bson);
            (encoded.plain.as_ptr(), encoded.compressed(15, &mut codecs))
        });
        assert_eq!(frames[0].0, frames[1].0);
        assert_eq!(frames[0].1.as_ptr(), frames[1].1.as_ptr());
        assert_eq!(frames[0].1[0], 0xc2, "compressed and binary");
        assert!(frames[0].1.len() < 100);
        assert!(!event.is_made(Format::Json) && !event.is_made(Format::MsgPack));
        frames[0].1 = formed(&mut there).encoded(Format::Json).compressed(9, &mut codecs);
        assert_eq!(frames[0].1[0], 0xc1, "compressed and text");
    }

    #[test]
    fn broadcast_without_compression_has_one_encoding() {
        let event = event(false);
        let mut broadcast = Broadcast::of_value(&event);
        let encoded = formed(&mut broadcast).encoded(Format::MsgPack);
        assert_eq!(encoded.compressed(15, &mut Codecs::new(0)).as_ptr(), encoded.plain.as_ptr());
        assert_eq!(encoded.plain[0], 0x82);
    }

    #[test]
    fn broadcast_record_is_made_once_for_each_framing() {
        let frame = Frozen::new(&frame::frozen(Opcode::Text, b"{\n}"));
        let shared = SharedFrame { frame, compressed: None };
        let mut broadcast = Wrapped::of(&shared);
        let [one, two] = [(); 2].map(|()| broadcast.record(RecordFraming::Json));
        assert_eq!((&*one, one.as_ptr()), (&b"4\r\n{ }\n\r\n"[..], two.as_ptr()));
        assert!(broadcast.record(RecordFraming::Lines).is_empty());
        assert_eq!(&*broadcast.record(RecordFraming::Lengths), b"7\r\n\0\0\0\x03{\n}\r\n");
    }

    /// What a session needs, for a core without any other connection.
    struct Core {
        env: Env,
        json: Scratch,
        codecs: Codecs,
        counters: Counters,
        core_state: CoreState,
        shared: Vec<Handle>,
        effects: EffectList,
        proxy_effects: Vec<ProxyEffect>,
        keys: MaskKeys,
        work: Meter,
    }

    impl Core {
        fn new() -> Core {
            Core {
                env: Env::new(Config::demo(), 1).unwrap(),
                json: Scratch::default(),
                codecs: Codecs::new(0),
                counters: Counters::default(),
                core_state: CoreState::default(),
                shared: Vec::new(),
                effects: EffectList::new(),
                proxy_effects: Vec::new(),
                keys: MaskKeys::default(),
                work: Meter::default(),
            }
        }

        fn cx(&mut self) -> Context<'_> {
            Context {
                waiting_bytes: 0,
                now: Now { ms: 1, unix_s: 1 },
                conn: ConnId { core: 0, slot: Slot { index: 0, generation: 1 } },
                peer: SocketAddr::from(([127, 0, 0, 1], 1)),
                listener: 0,
                env: &self.env,
                json: &mut self.json,
                codecs: &mut self.codecs,
                core_state: &mut self.core_state,
                shared: &mut self.shared,
                effects: &mut self.effects,
                proxy_effects: &mut self.proxy_effects,
                keys: &mut self.keys,
                counters: &self.counters,
                work: &self.work,
                failures: 0,
                draining: false,
                congested: false,
                secure: false,
                identity: None,
            }
        }

        /// A WebSocket whose endpoint takes JSON.
        fn session(&self) -> Session {
            let peer = SocketAddr::from(([127, 0, 0, 1], 1));
            let mut session = Session::new(peer, 0, Now { ms: 1, unix_s: 1 }, &self.env);
            session.stage = Stage::echo();
            session
        }
    }

    #[test]
    fn broadcast_picture_is_a_reply_before_later_events() {
        let mut core = Core::new();
        let mut session = core.session();
        let event = event(false);
        let encodings = &*event;
        session.show(encodings, &mut core.cx());
        let bytes = encodings.encoded(Format::Json).len();
        assert_eq!(session.link.queue.replies(), bytes);
        assert!(session.link.queue.has_room(1, 1), "it is no broadcast");
        let deliver = |session: &mut Session, core: &mut Core, event: &Encodings, bound| {
            session.deliver(&mut Broadcast::of_value(event), &mut core.codecs, bound, 0)
        };
        assert_eq!(deliver(&mut session, &mut core, &event, bytes - 1), Err(QueueFull));
        assert_eq!(deliver(&mut session, &mut core, &event, bytes), Ok(true));
        let batch = session.link.take_batch(&mut Vec::new()).expect("a batch");
        let at = encodings.encoded(Format::Json).as_ptr();
        assert_eq!(batch.iter().map(|it| it.as_ptr()).collect::<Vec<_>>(), [at, at]);
        // An event without an encoding is not sent.
        let none = Encodings::empty(false);
        session.show(&none, &mut core.cx());
        assert_eq!(deliver(&mut session, &mut core, &none, 0), Ok(true));
        assert!(session.link.queue.take_batch().is_none());
    }

    #[test]
    fn broadcast_waiting_pictures_are_bounded() {
        let mut core = Core::new();
        let mut session = core.session();
        let event = event(false);
        let encodings = &*event;
        let bytes = encodings.encoded(Format::Json).len();
        let max = Handle::new(Frozen::new(&vec![0; 1 << 20]));
        let rest = Handle::new(Frozen::new(&vec![0; (1 << 20) - bytes]));
        (1..REPLY_BYTES >> 20).for_each(|_| session.link.queue.push_reply(&max, 0));
        session.link.queue.push_reply(&rest, 0);
        session.show(encodings, &mut core.cx());
        assert_eq!(session.link.queue.replies(), REPLY_BYTES);
        assert!(session.is_open_socket());
        session.show(encodings, &mut core.cx());
        assert!(!session.is_open_socket());
        assert_eq!(core.counters.slow_consumer_closed.get(), 1);
    }
}
