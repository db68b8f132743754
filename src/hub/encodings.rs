//! One event in several formats, each encoded at most once, and only if a subscriber needs it.
//!
//! A dialect whose clients choose among formats publishes a value in place of a frame. The first
//! core with a subscriber of a format encodes the value; all other cores share that frame.

use super::frames::CompressedFrames;
use crate::codec::{Envelope, EnvelopeBody, Error, Format, Value};
use crate::mem::Frozen;
use crate::ws::Opcode;
use crate::ws::frame;
use std::sync::{Arc, OnceLock};

/// A published value and its frames; see the module's documentation.
#[derive(Debug)]
pub struct Encodings {
    content: Option<Content>,
    made: [OnceLock<Frozen>; Format::ALL.len()],
    /// The compressed frames of each format, if an endpoint compresses.
    compressed: Option<Box<[CompressedFrames; Format::ALL.len()]>>,
}

#[derive(Debug)]
struct Content {
    envelope: Arc<Envelope>,
    value: Value,
}

impl Encodings {
    /// The message that has `value` in `envelope`. `compresses` says whether an endpoint
    /// compresses.
    ///
    /// # Errors
    /// A format cannot express the envelope or the value: see [`Value::check`].
    pub fn new(
        envelope: Arc<Envelope>,
        value: Value,
        compresses: bool,
    ) -> Result<Encodings, Error> {
        envelope.check()?;
        value.check()?;
        let content = Some(Content { envelope, value });
        Ok(Encodings { content, ..Encodings::empty(compresses) })
    }

    /// Encodings without a value; the hub adds the frames of a picture one by one.
    pub fn empty(compresses: bool) -> Encodings {
        Encodings {
            content: None,
            made: Default::default(),
            compressed: compresses.then(Default::default),
        }
    }

    /// The frame in a format: a text message in JSON, a binary message in the others. Empty if
    /// there is no value and no frame.
    pub fn encoded(&self, format: Format) -> &Frozen {
        self.made[format.index()].get_or_init(|| match &self.content {
            Some(Content { envelope, value }) => {
                freeze(format, envelope, &EnvelopeBody::Value(value))
            }
            None => Frozen::default(),
        })
    }

    /// Adds the frame in a format, made by `make`, unless it exists. Returns the bytes added.
    pub(super) fn make(&self, format: Format, make: impl FnOnce() -> Frozen) -> usize {
        let encoded = &self.made[format.index()];
        let was_made = encoded.get().is_some();
        let bytes = encoded.get_or_init(make).len();
        if was_made { 0 } else { bytes }
    }

    /// Whether the frame in a format has been made.
    pub fn is_made(&self, format: Format) -> bool {
        self.made[format.index()].get().is_some()
    }

    /// The compressed frames of the frame in a format.
    pub fn compressed(&self, format: Format) -> Option<&CompressedFrames> {
        self.compressed.as_ref().map(|compressed| &compressed[format.index()])
    }

    /// The published value.
    pub fn value(&self) -> Option<&Value> {
        self.content.as_ref().map(|content| &content.value)
    }

    pub(super) fn envelope(&self) -> Option<&Arc<Envelope>> {
        self.content.as_ref().map(|content| &content.envelope)
    }

    pub(super) fn compresses(&self) -> bool {
        self.compressed.is_some()
    }
}

/// The frame of one message. Empty if the format cannot express it, which [`Encodings::new`] has
/// excluded for messages below 2 GiB.
pub(super) fn freeze(format: Format, envelope: &Envelope, body: &EnvelopeBody<'_>) -> Frozen {
    let opcode = if format.is_text() { Opcode::Text } else { Opcode::Binary };
    let mut written = Ok(());
    let mut scratch = Vec::with_capacity(512);
    let frame = frame::build(opcode, &mut scratch, |out| {
        written = envelope.encode(format, body, out);
    });
    match written {
        Ok(()) => Frozen::new(frame),
        Err(_) => Frozen::default(),
    }
}

#[cfg(feature = "zenith")]
#[cfg(test)]
mod tests {
    use super::*;

    fn envelope() -> Arc<Envelope> {
        let members = vec![("Topic".into(), Value::text("t"))];
        Arc::new(Envelope { members, key: "Data".into() })
    }

    #[test]
    fn encodings_write_each_format_once_and_only_on_demand() {
        let encodings = Encodings::new(envelope(), Value::Int(1), true).expect("sound");
        assert!(Format::ALL.iter().all(|format| !encodings.is_made(*format)));
        let frame = encodings.encoded(Format::MsgPack).clone();
        let (opcode, payload) = frame::split(&frame).expect("a frame");
        assert_eq!(opcode, Opcode::Binary);
        assert_eq!(payload, b"\x82\xa5Topic\xa1t\xa4Data\x01");
        assert_eq!(frame.as_ptr(), encodings.encoded(Format::MsgPack).as_ptr(), "the same again");
        assert!(!encodings.is_made(Format::Json) && !encodings.is_made(Format::Bson));
        let text = frame::split(encodings.encoded(Format::Json)).expect("a frame");
        assert_eq!(text, (Opcode::Text, &br#"{"Topic":"t","Data":1}"#[..]));
        assert!(encodings.compressed(Format::Bson).is_some());
        assert_eq!(encodings.make(Format::Json, || panic!("it is there")), 0);
        assert_eq!(encodings.make(Format::Bson, || Frozen::new(b"abc")), 3);
    }

    #[test]
    fn encodings_refuse_what_a_format_cannot_express() {
        let nul = Value::Array(vec![Value::map([("a\0", Value::Null)])]);
        let encodings = Encodings::new(envelope(), nul, false);
        assert_eq!(encodings.err(), Some(Error::Key));
        let key = Envelope { members: Vec::new(), key: "\0".into() };
        let encodings = Encodings::new(Arc::new(key), Value::Null, false);
        assert_eq!(encodings.err(), Some(Error::Key));
        assert!(Encodings::empty(false).encoded(Format::Json).is_empty());
    }
}
