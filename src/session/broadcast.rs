//! Delivery of one event to the write queues of many peers, in the format and the compression of
//! each peer. On each core, each encoding is made into a handle once.

use super::queue::SEGMENT_BYTES;
use super::stage::Framing;
use super::{Context, QueueFull, Session, SessionEvent};
use crate::codec::Format;
use crate::dialect::{self, Env, Event, EventPayload, Why};
use crate::hub::{CompressedFrames, Encodings, EventForms, Form, SharedFrame};
use crate::limits::REPLY_BYTES;
use crate::mem::{Frozen, Handle};
use crate::ws::output::{BITS, Channel, Codecs};
use crate::ws::record::{EventId, FRAMINGS, RecordFraming};
use crate::ws::{MessageKind, Opcode, frame};

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
pub(super) struct Wrapped<'e> {
    frame: &'e Frozen,
    shared: Option<&'e CompressedFrames>,
    pub(super) plain: Handle,
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
    #[inline]
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
    pub(super) fn of(shared: &'e SharedFrame) -> Wrapped<'e> {
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
pub(super) fn id_of(event: &Event) -> Option<EventId> {
    event.forms.as_ref()?.position.map(EventId::from)
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
        let place = form.place;
        let form = form.of_data(events);
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
            Framing::Records(framing, ids) => {
                let own = ids.zip(id);
                let record = encoded.record(framing, id.filter(|_| own.is_none()));
                let line = own.as_ref().map(|(ids, id)| ids.line_with(place, *id));
                // A message of many short lines may make an event that is longer than any queue:
                // its receivers must not count as slow for that.
                let line_bytes = line.as_ref().map_or(0, |line| line.len() + SEGMENT_BYTES);
                if record.is_empty() || record.len() + line_bytes > bound {
                    return Ok(DeliveryOutcome::NotInFraming);
                }
                let line = line.map(|line| Handle::new(Frozen::new(&line)));
                queue.push_all(&mut line.into_iter().chain([record]).collect(), bound, now_ms)?;
                if let Some((ids, id)) = own {
                    ids.set(place, id);
                }
            }
            Framing::Plain => queue.push(&encoded.plain, bound, now_ms)?,
        }
        Ok(DeliveryOutcome::Queued)
    }

    /// Queues the picture of a channel as a reply, in the encoding for this peer. If more than
    /// `REPLY_BYTES` of replies would wait, the connection is closed, whatever the policy for slow
    /// consumers.
    pub(super) fn show(&mut self, picture: &Encodings, cx: &mut Context<'_>) {
        let format = self.stage.format();
        let encoded = Wrapped::new(picture.encoded(format), picture.compressed(format));
        self.queue_encoded(encoded, None, cx);
    }

    /// Queues the history of a channel as replies, the oldest event first.
    pub(super) fn recall(&mut self, history: &[SharedFrame], cx: &mut Context<'_>) {
        for entry in history {
            self.queue_encoded(Wrapped::of(entry), None, cx);
        }
    }

    /// Queues a message as a reply. `at` is its id in a stream of events, and the place of the
    /// channel in ids of several positions.
    pub(super) fn queue_encoded(
        &mut self,
        mut encoded: Wrapped<'_>,
        at: Option<(EventId, u8)>,
        cx: &mut Context<'_>,
    ) {
        if !self.is_open_socket() || encoded.plain.is_empty() {
            return;
        }
        if self.link.queue.replies() + encoded.plain.len() > REPLY_BYTES {
            cx.counters.slow_consumer_closed.add(1);
            return self.on(SessionEvent::CloseFor(Why::Slow), cx);
        }
        let queue = &mut self.link.queue;
        let frame = match self.stage.framing() {
            Framing::Plain => encoded.plain.clone(),
            Framing::Compressed(channel) => encoded.for_channel(channel, cx.codecs),
            Framing::Records(framing, ids) => {
                let own = ids.zip(at);
                let shared_id = at.filter(|_| own.is_none()).map(|(id, _)| id);
                let record = encoded.record(framing, shared_id);
                if let Some((ids, (id, place))) = own.filter(|_| !record.is_empty()) {
                    let line = Frozen::new(&ids.line_with(place, id));
                    queue.push_reply(&Handle::new(line), cx.now.ms);
                    ids.set(place, id);
                }
                record
            }
        };
        if frame.is_empty() {
            return cx.counters.http_streams_unsaid.add(1);
        }
        queue.push_reply(&frame, cx.now.ms);
    }
}

#[cfg(test)]
mod tests {
    use super::super::stage::Stage;
    use super::super::test_core::Core;
    use super::*;
    use crate::codec::{Envelope, Value};
    use crate::config::Config;
    use crate::hub::StreamPosition;
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

    #[cfg(feature = "zenith")]
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

    #[cfg(feature = "zenith")]
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
    pub(crate) fn positioned(payload: &str) -> Event {
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
            let form = Form { positioned, ..Form::PUBLISHED };
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
