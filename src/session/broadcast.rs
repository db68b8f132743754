//! Delivery of one event to the write queues of many peers, in the format and the compression of
//! each peer. On each core, each encoding is made into a handle once.

use super::stage::Framing;
use super::{Context, QueueFull, Session};
use crate::codec::Format;
use crate::dialect::{self, Env, Event, EventPayload, Why};
use crate::hub::{
    CompressedFrames, Encodings, EventForms, Form, MissedEvent, ResumeOutcome, ResumeReply,
    SharedFrame,
};
use crate::limits::{REPLAY_BYTES, REPLY_BYTES};
use crate::mem::{Frozen, Handle};
use crate::stats::Counters;
use crate::work::{self, WorkKind};
use crate::ws::output::{BITS, Channel, Codecs};
use crate::ws::record::{EventId, FRAMINGS, RecordFraming};
use crate::ws::{MessageKind, Opcode, frame};
use memchr::memchr2_iter;

/// The maximum number of bytes that a position adds to a frame: its members, and a longer header.
const POSITION_BYTES: usize = 80;

/// The bytes that a line break adds to a server-sent event: the name of the field of the next line.
const LINE_BYTES: usize = b"data: ".len();

/// One event on one core, with its encodings. Each encoding is made into a handle once, for all
/// connections that receive it.
pub struct Broadcast<'e> {
    content: BroadcastContent<'e>,
    /// The id of the event for streams of events, if its channel has a history.
    id: Option<EventId>,
    /// The other forms of the event; `None` if it has none.
    others: Option<Box<OtherForms<'e>>>,
}

enum BroadcastContent<'e> {
    /// One frame, the same for all connections.
    Frame(Wrapped<'e>),
    /// A value in the format of each connection.
    Value(Box<Formed<'e>>),
}

/// The outcome of the delivery of an event to one subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryOutcome {
    /// It is in the write queue.
    Queued,
    /// The framing of the peer's stream cannot carry the message.
    NotInFraming,
    /// The dialect of the view through which the peer has subscribed cannot express the event.
    NotInView,
    /// The event is for other subscribers: those of the channel's own dialect, or of other formats.
    NotMeant,
}

/// The forms of an event besides the published one, as far as this core has needed them.
struct OtherForms<'e> {
    event: &'e Event,
    /// The name of the channel.
    name: &'e str,
    forms: &'e EventForms,
    env: &'e Env,
    wrapped: Vec<(Form, Format, Wrapped<'e>)>,
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
    /// The message as records, made on this core. Boxed because streams are rare.
    records: Option<Box<SharedRecords>>,
}

/// The records of one message, which all HTTP streams on a core share.
#[derive(Default)]
struct SharedRecords {
    of_framings: [Option<Handle>; FRAMINGS],
    /// The record with the id of the event.
    with_id: Option<Handle>,
}

impl<'e> Broadcast<'e> {
    /// Takes this core's handle of the event's frame, or a value of which no encoding is made yet.
    /// `None` if the event has neither.
    /// `name` is the channel's.
    pub fn new(event: &'e Event, name: &'e str, env: &'e Env) -> Option<Broadcast<'e>> {
        let content = match &event.payload {
            EventPayload::Frame(shared) => BroadcastContent::Frame(Wrapped::of(shared)),
            EventPayload::Value(encodings) => BroadcastContent::of_value(encodings),
            _ => return None,
        };
        let others = event
            .forms
            .as_deref()
            .map(|forms| Box::new(OtherForms { event, name, forms, env, wrapped: Vec::new() }));
        Some(Broadcast { content, id: id_of(event), others })
    }

    /// The encoding for a subscriber.
    ///
    /// # Errors
    /// Why the subscriber does not receive the event.
    fn encoded(&mut self, form: Form, format: Format) -> Result<&mut Wrapped<'e>, DeliveryOutcome> {
        let is_published = form.view == 0 && !(form.positioned && self.id.is_some());
        let encoded = match (&mut self.content, &mut self.others) {
            (BroadcastContent::Frame(frame), _) if is_published => frame,
            (BroadcastContent::Value(formed), _) if is_published => formed.encoded(format),
            (_, None) => return Err(DeliveryOutcome::NotMeant),
            (_, Some(others)) => others.encoded(form, format),
        };
        match encoded.plain.is_empty() {
            false => Ok(encoded),
            true if form.view == 0 => Err(DeliveryOutcome::NotMeant),
            true => Err(DeliveryOutcome::NotInView),
        }
    }
}

impl<'e> BroadcastContent<'e> {
    /// A value, of which no encoding is made yet.
    fn of_value(encodings: &'e Encodings) -> BroadcastContent<'e> {
        let formed = Formed { encodings, wrapped: [const { None }; Format::ALL.len()] };
        BroadcastContent::Value(Box::new(formed))
    }
}

impl<'e> OtherForms<'e> {
    fn encoded(&mut self, form: Form, format: Format) -> &mut Wrapped<'e> {
        let known = self.wrapped.iter().position(|it| (it.0, it.1) == (form, format));
        let at = known.unwrap_or_else(|| {
            let make = || dialect::make_form(self.env, self.name, self.event, form, format);
            let wrapped = Wrapped::of(self.forms.get(form, format, make));
            self.wrapped.push((form, format, wrapped));
            self.wrapped.len() - 1
        });
        &mut self.wrapped[at].2
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

    /// The frame's message as a record; empty if the framing cannot carry it. `id` is the id of the
    /// event for a peer that receives ids.
    fn record(&mut self, framing: RecordFraming, id: Option<EventId>) -> Handle {
        let records = self.records.get_or_insert_default();
        let record = match id {
            Some(_) => &mut records.with_id,
            None => &mut records.of_framings[framing.index()],
        };
        let reframe = || Handle::new(Frozen::new(&framing.reframe(self.frame, id)));
        record.get_or_insert_with(reframe).clone()
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

/// The id of an event in a stream of events: its position, if its channel has a history.
fn id_of(event: &Event) -> Option<EventId> {
    event.forms.as_ref()?.position.map(EventId::from)
}

/// Counts a request to resume, unless it has only asked for the present position.
fn count_resume(outcome: ResumeOutcome, counters: &Counters) {
    let counter = match outcome {
        ResumeOutcome::Present => return,
        ResumeOutcome::Recovered | ResumeOutcome::NoneKept => &counters.history_recovered,
        ResumeOutcome::Malformed => &counters.history_malformed,
        ResumeOutcome::OtherStream => &counters.history_other_stream,
        ResumeOutcome::Future => &counters.history_future,
        ResumeOutcome::Expired => &counters.history_expired,
        ResumeOutcome::TooLarge => &counters.history_too_large,
    };
    counter.add(1);
}

impl Session {
    /// Queues a broadcast in the encoding for this peer.
    ///
    /// # Errors
    /// More than `bound` bytes of broadcasts would wait; the broadcast was not queued.
    pub fn deliver(
        &mut self,
        broadcast: &mut Broadcast<'_>,
        form: Form,
        codecs: &mut Codecs,
        bound: usize,
        now_ms: u64,
    ) -> Result<DeliveryOutcome, QueueFull> {
        // An event of a stream of events has its position beside its data.
        let events = self.stage.is_event_stream();
        let id = broadcast.id.filter(|_| events && form.positioned);
        let form = Form { positioned: form.positioned && !events, ..form };
        let encoded = match broadcast.encoded(form, self.stage.format()) {
            // Escapes may make the form of a view longer than any queue: its receivers must not
            // count as slow for that.
            Ok(encoded) if form.view != 0 && encoded.plain.len() > bound => {
                return Ok(DeliveryOutcome::NotInView);
            }
            Ok(encoded) => encoded,
            Err(outcome) => return Ok(outcome),
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
                let record = encoded.record(framing, id);
                // A message of many short lines may make an event that is longer than any queue:
                // its receivers must not count as slow for that.
                if record.is_empty() || record.len() > bound {
                    return Ok(DeliveryOutcome::NotInFraming);
                }
                queue.push(&record, bound, now_ms)?;
            }
            Framing::Plain => queue.push(&encoded.plain, bound, now_ms)?,
        }
        Ok(DeliveryOutcome::Queued)
    }

    /// Queues the picture of a channel as a reply, in the encoding for this peer. If more than
    /// `REPLY_BYTES` of replies would wait, the connection is closed, whatever the policy for slow
    /// consumers.
    pub fn show(&mut self, picture: &Encodings, cx: &mut Context<'_>) {
        let format = self.stage.format();
        let encoded = Wrapped::new(picture.encoded(format), picture.compressed(format));
        self.queue_encoded(encoded, None, cx);
    }

    /// Queues the history of a channel as replies, the oldest event first.
    pub fn recall(&mut self, history: &[SharedFrame], cx: &mut Context<'_>) {
        for entry in history {
            self.queue_encoded(Wrapped::of(entry), None, cx);
        }
    }

    /// Takes the missed events out of a reply, for [`Session::replay`]. If they do not fit the
    /// replies that may wait for this peer, the reply says that nothing was resumed.
    pub fn take_replay(&mut self, resumed: &mut ResumeReply, cx: &Context<'_>) -> Vec<MissedEvent> {
        let is_stream = matches!(self.stage.framing(), Framing::Records(_));
        let frame = |event: &MissedEvent| {
            let frame = &event.shared.frame;
            // A server-sent event begins each line anew.
            let breaks = if is_stream { memchr2_iter(b'\n', b'\r', frame).count() } else { 0 };
            frame.len() + POSITION_BYTES + LINE_BYTES * breaks
        };
        let bytes: usize = resumed.missed.iter().map(frame).sum();
        if bytes > 0 && self.link.queue.replies() + bytes > REPLAY_BYTES {
            resumed.give_up();
        }
        cx.work.charge(WorkKind::Delivery, work::DELIVERY * resumed.missed.len() as u64);
        count_resume(resumed.outcome, cx.counters);
        std::mem::take(&mut resumed.missed)
    }

    /// Queues events that the peer has missed as replies, in the form in which it receives the
    /// channel's events. `name` is that of the channel.
    pub fn replay(
        &mut self,
        missed: Vec<MissedEvent>,
        name: &str,
        form: Form,
        cx: &mut Context<'_>,
    ) {
        let (format, env) = (self.stage.format(), cx.env);
        let events = self.stage.is_event_stream();
        let form = Form { positioned: form.positioned && !events, ..form };
        for MissedEvent { shared, forms } in missed {
            let event = Event { forms: Some(forms.clone()), ..Event::from(shared) };
            let id = id_of(&event).filter(|_| events);
            let make = || dialect::make_form(env, name, &event, form, format);
            let frame = match &event.payload {
                EventPayload::Frame(shared) if form == Form::PUBLISHED => shared,
                _ => forms.get(form, format, make),
            };
            self.queue_encoded(Wrapped::of(frame), id, cx);
        }
    }

    /// Queues a message as a reply; `id` is its id in a stream of events.
    fn queue_encoded(
        &mut self,
        mut encoded: Wrapped<'_>,
        id: Option<EventId>,
        cx: &mut Context<'_>,
    ) {
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
            Framing::Records(framing) => encoded.record(framing, id),
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
    use crate::hub::{ConnId, StreamPosition};
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

    fn of_value(encodings: &Encodings) -> Broadcast<'_> {
        Broadcast { content: BroadcastContent::of_value(encodings), id: None, others: None }
    }

    fn formed<'b, 'e>(broadcast: &'b mut Broadcast<'e>) -> &'b mut Formed<'e> {
        match &mut broadcast.content {
            BroadcastContent::Value(formed) => formed,
            BroadcastContent::Frame(_) => panic!("a frame"),
        }
    }

    #[test]
    fn broadcast_is_encoded_and_compressed_by_the_first_core_that_needs_it() {
        let event = event(true);
        let (here, there) = (event.clone(), event.clone());
        let [mut here, mut there] = [of_value(&here), of_value(&there)];
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
        let mut broadcast = of_value(&event);
        let encoded = formed(&mut broadcast).encoded(Format::MsgPack);
        assert_eq!(encoded.compressed(15, &mut Codecs::new(0)).as_ptr(), encoded.plain.as_ptr());
        assert_eq!(encoded.plain[0], 0x82);
    }

    #[test]
    fn broadcast_record_is_made_once_for_each_framing() {
        let frame = Frozen::new(&frame::frozen(Opcode::Text, b"{\n}"));
        let shared = SharedFrame { frame, compressed: None };
        let mut broadcast = Wrapped::of(&shared);
        let [one, two] = [(); 2].map(|()| broadcast.record(RecordFraming::Json, None));
        assert_eq!((&*one, one.as_ptr()), (&b"4\r\n{ }\n\r\n"[..], two.as_ptr()));
        assert!(broadcast.record(RecordFraming::Lines, None).is_empty());
        assert_eq!(&*broadcast.record(RecordFraming::Lengths, None), b"7\r\n\0\0\0\x03{\n}\r\n");
    }

    #[test]
    fn broadcast_record_with_an_id_is_for_those_who_receive_ids() {
        let frame = Frozen::new(&frame::frozen(Opcode::Text, b"{}"));
        let shared = SharedFrame { frame, compressed: None };
        let mut broadcast = Wrapped::of(&shared);
        let id = Some(EventId { stream: 1, serial: 2 });
        let [one, two] = [(); 2].map(|()| broadcast.record(RecordFraming::Events, id));
        assert_eq!(&*one, b"21\r\nid: 0000000000000001:2\ndata: {}\n\n\r\n");
        assert_eq!(one.as_ptr(), two.as_ptr());
        let [one, two] = [(); 2].map(|()| broadcast.record(RecordFraming::Events, None));
        assert_eq!((&*one, one.as_ptr()), (&b"a\r\ndata: {}\n\n\r\n"[..], two.as_ptr()));
    }

    /// An event of a channel with a history, whose payload is a text message.
    fn positioned(payload: &str) -> Event {
        let frame = Frozen::new(&frame::frozen(Opcode::Text, payload.as_bytes()));
        let forms = EventForms::new(Some(StreamPosition { stream: 0x2a, serial: 41 }));
        Event { forms: Some(Arc::new(forms)), ..Event::from(frame) }
    }

    #[test]
    fn broadcast_event_is_shared_by_a_thousand_streams() {
        let mut core = Core::new();
        let event = positioned("{\"event\":\"e\"}");
        let env = Env::new(Config::demo(), 1).expect("sound");
        let mut broadcast = Broadcast::new(&event, "news", &env).expect("a frame");
        let mut deliver = |positioned, core: &mut Core| {
            let mut session = core.session();
            session.stage = Stage::event_stream();
            let form = Form { view: 0, positioned };
            let queued = session.deliver(&mut broadcast, form, &mut core.codecs, 1 << 20, 0);
            assert_eq!(queued, Ok(DeliveryOutcome::Queued));
            let batch = session.link.take_batch(&mut Vec::new()).expect("a batch");
            let bytes: Vec<u8> = batch.iter().flat_map(|it| it.to_vec()).collect();
            (batch[0].as_ptr(), String::from_utf8(bytes).expect("text"))
        };
        for (positioned, id) in [(true, "id: 000000000000002a:41\n"), (false, "")] {
            let first = deliver(positioned, &mut core);
            // The position stands beside the data, which is that of every other subscriber.
            let event = format!("{id}data: {{\"event\":\"e\"}}\n\n");
            assert_eq!(first.1, format!("{:x}\r\n{event}\r\n", event.len()));
            for _ in 0..1000 {
                assert_eq!(deliver(positioned, &mut core).0, first.0);
            }
        }
    }

    #[test]
    fn broadcast_event_that_fits_no_queue_does_not_close_its_receivers() {
        let mut core = Core::new();
        let event = positioned(&"\n".repeat(100));
        let env = Env::new(Config::demo(), 1).expect("sound");
        let mut broadcast = Broadcast::new(&event, "news", &env).expect("a frame");
        let mut session = core.session();
        session.stage = Stage::event_stream();
        let bytes = "2c4\r\n".len() + 101 * "data: \n".len() + "\n\r\n".len();
        let mut deliver = |bound| {
            let form = Form::PUBLISHED;
            session.deliver(&mut broadcast, form, &mut core.codecs, bound, 0)
        };
        assert_eq!(deliver(bytes - 1), Ok(DeliveryOutcome::NotInFraming));
        assert_eq!(deliver(bytes), Ok(DeliveryOutcome::Queued));
        assert_eq!(deliver(bytes), Err(QueueFull), "the first one waits");
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
                sender: SocketAddr::from(([127, 0, 0, 1], 1)),
                charged: false,
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
            let form = Form::PUBLISHED;
            session.deliver(&mut of_value(event), form, &mut core.codecs, bound, 0)
        };
        assert_eq!(deliver(&mut session, &mut core, &event, bytes - 1), Err(QueueFull));
        assert_eq!(deliver(&mut session, &mut core, &event, bytes), Ok(DeliveryOutcome::Queued));
        let batch = session.link.take_batch(&mut Vec::new()).expect("a batch");
        let at = encodings.encoded(Format::Json).as_ptr();
        assert_eq!(batch.iter().map(|it| it.as_ptr()).collect::<Vec<_>>(), [at, at]);
        // An event without an encoding is not sent.
        let none = Encodings::empty(false);
        session.show(&none, &mut core.cx());
        assert_eq!(deliver(&mut session, &mut core, &none, 0), Ok(DeliveryOutcome::NotMeant));
        assert!(session.link.queue.take_batch().is_none());
    }

    #[test]
    fn broadcast_replay_beyond_its_bound_is_given_up() {
        let position = StreamPosition { stream: 7, serial: 4 };
        let event = |serial| {
            let text = format!(r#"{{"event":"e","n":{serial}}}"#);
            let forms = EventForms::new(Some(StreamPosition { serial, ..position }));
            let frame = Frozen::new(&frame::frozen(Opcode::Text, text.as_bytes()));
            let shared = SharedFrame { frame, compressed: None };
            MissedEvent { shared, forms: Arc::new(forms) }
        };
        let missed: Vec<MissedEvent> = (5..8).map(event).collect();
        let frame = |event: &MissedEvent| event.shared.frame.len() + POSITION_BYTES;
        let bytes: usize = missed.iter().map(frame).sum();
        for (waiting, fits) in [(REPLAY_BYTES - bytes, true), (REPLAY_BYTES - bytes + 1, false)] {
            let mut core = Core::new();
            let mut session = core.session();
            session.link.queue.push_reply(&Handle::new(Frozen::new(&vec![0; waiting])), 0);
            let outcome = ResumeOutcome::Recovered;
            let mut reply = ResumeReply { position, outcome, missed: missed.clone() };
            let taken = session.take_replay(&mut reply, &core.cx());
            let serial = reply.position.serial;
            let count = taken.len();
            session.replay(taken, "c", Form { view: 0, positioned: true }, &mut core.cx());
            assert!(session.is_open_socket());
            let replayed = session.link.queue.replies() - waiting;
            assert!(replayed <= bytes);
            let too_large = core.counters.history_too_large.get();
            match fits {
                true => assert_eq!((count, serial, too_large), (3, 4, 0)),
                false => {
                    assert_eq!((count, serial, too_large, replayed), (0, 7, 1, 0));
                    assert_eq!(reply.outcome, ResumeOutcome::TooLarge);
                }
            }
        }
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
