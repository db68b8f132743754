//! The forms of an event besides the frame as it was published: the frame with its position in the
//! channel's history, and the frames for the subscribers of linked channels.
//!
//! A subscriber chooses its form when it joins. Each form is made at most once for each event, by
//! the first core with a subscriber that needs it, and all cores share it. The caller of
//! [`EventForms::get`] makes a form.

use super::frames::SharedFrame;
use crate::codec::Format;
use crate::ws::record::EventId;
use std::sync::OnceLock;

/// The form in which a subscriber receives the events of a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Form {
    /// The number of the link's view through which the subscriber has joined, or 0 if it has joined
    /// the channel itself.
    pub view: u16,
    /// Whether events carry their position in the channel's history.
    pub positioned: bool,
    /// The place of the channel's position in the ids of the subscriber's stream of events, from 1;
    /// 0 if an id is the position of one channel, or if the subscriber has no such stream.
    pub place: u8,
}

impl Form {
    /// The frame as it was published.
    pub const PUBLISHED: Form = Form { view: 0, positioned: false, place: 0 };

    /// The channel's own events, with their positions.
    pub const POSITIONED: Form = Form { positioned: true, ..Form::PUBLISHED };

    /// The form of an event's data: that of an event in a stream of events has no position, which
    /// is in the id of the event instead. All subscribers with this form share the data.
    #[must_use]
    pub fn of_data(self, is_stream: bool) -> Form {
        Form { positioned: self.positioned && !is_stream, place: 0, ..self }
    }
}

/// The position of an event in the history of its channel. Positions of two streams cannot be
/// compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamPosition {
    /// The number of the stream, drawn at random when the history begins.
    pub stream: u64,
    /// The serial number of the event, from 1, rising by one for each event.
    pub serial: u64,
}

impl From<StreamPosition> for EventId {
    fn from(position: StreamPosition) -> EventId {
        EventId { stream: position.stream, serial: position.serial }
    }
}

impl From<EventId> for StreamPosition {
    fn from(id: EventId) -> StreamPosition {
        StreamPosition { stream: id.stream, serial: id.serial }
    }
}

/// The forms of one event that have been made, in a list that only grows.
#[derive(Debug, Default)]
pub struct EventForms {
    /// The position of the event, if its channel has a history.
    pub position: Option<StreamPosition>,
    first: OnceLock<Box<Node>>,
}

#[derive(Debug)]
struct Node {
    form: Form,
    format: Format,
    made: OnceLock<SharedFrame>,
    next: OnceLock<Box<Node>>,
}

impl EventForms {
    /// No form is made yet.
    pub fn new(position: Option<StreamPosition>) -> EventForms {
        EventForms { position, first: OnceLock::new() }
    }

    /// The frame of a form, in a format if the form has several; made by `make` if no core has made
    /// it. Other cores that need it at the same time wait. An empty frame means that subscribers of
    /// this form do not receive the event.
    pub fn get(
        &self,
        form: Form,
        format: Format,
        make: impl FnOnce() -> SharedFrame,
    ) -> &SharedFrame {
        let mut link = &self.first;
        loop {
            let fresh =
                || Box::new(Node { form, format, made: OnceLock::new(), next: OnceLock::new() });
            let node = link.get_or_init(fresh);
            if node.form == form && node.format == format {
                return node.made.get_or_init(make);
            }
            link = &node.next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::Frozen;

    fn frame(text: &str) -> SharedFrame {
        SharedFrame { frame: Frozen::new(text.as_bytes()), compressed: None }
    }

    #[test]
    fn forms_are_made_once_each() {
        let forms = EventForms::new(None);
        let view = |view| Form { view, ..Form::PUBLISHED };
        let positioned = Form { view: 1, ..Form::POSITIONED };
        for round in 0..2 {
            for (form, format, text) in [
                (view(1), Format::Json, "1 json"),
                (view(1), Format::Bson, "1 bson"),
                (view(2), Format::Json, "2 json"),
                (positioned, Format::Json, "1 json with its position"),
            ] {
                let make = || if round == 0 { frame(text) } else { panic!("{text} again") };
                assert_eq!(&*forms.get(form, format, make).frame, text.as_bytes());
            }
        }
    }

    #[test]
    fn forms_made_by_several_cores_at_once_are_one() {
        let forms = EventForms::new(None);
        let made = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for core in 0..4u16 {
                let (forms, made) = (&forms, &made);
                scope.spawn(move || {
                    for step in 0..100 {
                        let form = Form { view: (step * 7 + core) % 20, ..Form::PUBLISHED };
                        forms.get(form, Format::Json, || {
                            made.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                            frame("form")
                        });
                    }
                });
            }
        });
        assert_eq!(made.into_inner(), 20);
    }
}
