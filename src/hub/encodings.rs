//! One event in several formats, each made at most once, and only if somebody takes it.
//!
//! A dialect whose clients choose among formats publishes a value in place of a frame. The first
//! core that has a subscriber of a format writes the value in it; all other cores share that frame.
//! What the event does to the picture of its channel, which those are given who subscribe later,
//! is said by its [`Retain`]; `picture.rs` does it.

use super::mail::CompressedFrames;
use crate::codec::{Envelope, EnvelopeBody, Error, Format, Value};
use crate::mem::Frozen;
use crate::ws::Opcode;
use crate::ws::frame;
use std::sync::{Arc, OnceLock};

/// How a channel's picture is made of what is published on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The last value is the picture.
    Replace,
    /// The members of a map replace those of the same key; other members stay. A value that is no
    /// map replaces the picture.
    Merge {
        /// Whether a member that is null is taken out of the picture; else null is its value.
        null_deletes: bool,
    },
    /// The elements of an array follow those that are there; what is before the last clearing one
    /// is forgotten. A value that is no array replaces the picture.
    Log {
        /// Elements that the picture may have; of more, the oldest go and are counted. A clearing
        /// one at the front stays.
        max: u32,
        /// What marks an element as a clearing one.
        clears: Clears,
    },
}

/// Members of a map, key and text, of which each says that all before is void.
pub type Clears = &'static [(&'static str, &'static str)];

/// What an event does to the picture of its channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Retain {
    /// Nothing.
    #[default]
    Nothing,
    /// It is part of the picture from now on.
    Update(Mode),
    /// It is the picture from now on, whatever was before.
    Install {
        /// How later events are added to it.
        mode: Mode,
        /// Whether the subscribers hear it; if not, it says what they know.
        heard: bool,
    },
    /// There is no picture any more. The subscribers do not hear it.
    Clear,
}

/// A published value, and its frames.
///
/// Put it into [`super::Event::encodings`]; the event's `frame` stays empty then. The topic ends by
/// an
/// event that has [`Encodings::clear`] and, in [`super::Event::message`], what the subscribers'
/// dialects
/// need to know: both happen at one place in the channel's order.
#[derive(Debug)]
pub struct Encodings {
    content: Option<Content>,
    retain: Retain,
    made: [OnceLock<Frozen>; Format::ALL.len()],
    /// The compressed forms of each, where some endpoint compresses.
    compressed: Option<Box<[CompressedFrames; Format::ALL.len()]>>,
}

#[derive(Debug)]
struct Content {
    envelope: Arc<Envelope>,
    value: Value,
}

impl Encodings {
    /// The message that has `value` in `envelope`. `compresses` says whether some endpoint does.
    ///
    /// # Errors
    /// Not every format can say it: see [`Value::check`].
    pub fn new(
        envelope: Arc<Envelope>,
        value: Value,
        retain: Retain,
        compresses: bool,
    ) -> Result<Encodings, Error> {
        envelope.check()?;
        value.check()?;
        let content = Some(Content { envelope, value });
        Ok(Encodings { content, retain, ..Encodings::empty(compresses) })
    }

    /// Forgets the picture.
    pub fn clear() -> Encodings {
        Encodings { retain: Retain::Clear, ..Encodings::empty(false) }
    }

    /// No form, to be filled by [`Encodings::make`].
    pub(super) fn empty(compresses: bool) -> Encodings {
        Encodings {
            content: None,
            retain: Retain::Nothing,
            made: Default::default(),
            compressed: compresses.then(Default::default),
        }
    }

    /// The frame in a format: a text message of JSON, a binary one of the others. Empty if there
    /// is none.
    pub fn encoded(&self, format: Format) -> &Frozen {
        self.made[format.index()].get_or_init(|| match &self.content {
            Some(Content { envelope, value }) => {
                freeze(format, envelope, &EnvelopeBody::Value(value))
            }
            None => Frozen::default(),
        })
    }

    /// The frame in a format that is made by `make` if it is not there; says how many bytes it
    /// has, if it was made.
    pub(super) fn make(&self, format: Format, make: impl FnOnce() -> Frozen) -> usize {
        let encoded = &self.made[format.index()];
        let was_made = encoded.get().is_some();
        let bytes = encoded.get_or_init(make).len();
        if was_made { 0 } else { bytes }
    }

    /// Whether the frame in a format is there.
    pub fn is_made(&self, format: Format) -> bool {
        self.made[format.index()].get().is_some()
    }

    /// The compressed forms of the frame in a format.
    pub fn compressed(&self, format: Format) -> Option<&CompressedFrames> {
        self.compressed.as_ref().map(|compressed| &compressed[format.index()])
    }

    /// Whether the subscribers hear it.
    pub fn is_heard(&self) -> bool {
        match self.retain {
            Retain::Nothing | Retain::Update(_) => true,
            Retain::Install { heard, .. } => heard,
            Retain::Clear => false,
        }
    }

    /// Whether there is a picture from now on.
    pub fn is_kept(&self) -> bool {
        matches!(self.retain, Retain::Update(_) | Retain::Install { .. })
    }

    /// What it does to the picture.
    pub fn retain(&self) -> Retain {
        self.retain
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

/// A frame of one message; empty if the format cannot say it, which [`Encodings::new`] has ruled
/// out
/// for all but 2 GiB.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope() -> Arc<Envelope> {
        let members = vec![("Topic".into(), Value::text("t"))];
        Arc::new(Envelope { members, key: "Data".into() })
    }

    #[test]
    fn each_format_is_written_once_and_only_if_it_is_asked_for() {
        let encodings =
            Encodings::new(envelope(), Value::Int(1), Retain::Nothing, true).expect("sound");
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
    fn what_a_format_cannot_say_is_refused_before_it_is_published() {
        let nul = Value::Array(vec![Value::map([("a\0", Value::Null)])]);
        let encodings = Encodings::new(envelope(), nul, Retain::Nothing, false);
        assert_eq!(encodings.err(), Some(Error::Key));
        let key = Envelope { members: Vec::new(), key: "\0".into() };
        let encodings = Encodings::new(Arc::new(key), Value::Null, Retain::Nothing, false);
        assert_eq!(encodings.err(), Some(Error::Key));
        assert!(Encodings::clear().encoded(Format::Json).is_empty());
    }

    #[test]
    fn who_hears_it_follows_from_what_it_does_to_the_picture() {
        let mode = Mode::Replace;
        for (retain, heard, kept) in [
            (Retain::Nothing, true, false),
            (Retain::Update(mode), true, true),
            (Retain::Install { mode, heard: true }, true, true),
            (Retain::Install { mode, heard: false }, false, true),
            (Retain::Clear, false, false),
        ] {
            let encodings = Encodings::new(envelope(), Value::Null, retain, false).expect("sound");
            assert_eq!((encodings.is_heard(), encodings.is_kept()), (heard, kept), "{retain:?}");
        }
    }
}
