//! The forms of an event besides the frame as it was published.

use super::env::Env;
use crate::codec::Format;
use crate::hub::{Event, EventPayload, Form, SharedFrame, StreamPosition};
use crate::mem::Frozen;
use crate::ws::{Opcode, frame};
use std::fmt::Write as _;

/// Makes a form of an event. An empty frame means that subscribers of this form do not receive the
/// event.
pub fn make_form(_env: &Env, event: &Event, form: Form, _format: Format) -> SharedFrame {
    let position = event.forms.as_ref().and_then(|forms| forms.position);
    match (&event.payload, position) {
        (EventPayload::Frame(shared), Some(position)) if form.view == 0 && form.positioned => {
            positioned(shared, position)
        }
        _ => SharedFrame::default(),
    }
}

/// The frame with the members `stream_id` and `serial` at the end of its JSON object. A frame that
/// is no JSON object in one text message stays as it is.
fn positioned(shared: &SharedFrame, position: StreamPosition) -> SharedFrame {
    let Some((Opcode::Text, payload)) = frame::split(&shared.frame) else { return shared.clone() };
    let Some(members) = payload.trim_ascii_end().strip_suffix(b"}") else { return shared.clone() };
    let mut end = String::new();
    let comma = if members.trim_ascii() == b"{" { "" } else { "," };
    let StreamPosition { stream, serial } = position;
    let _ = write!(end, r#"{comma}"stream_id":"{stream:016x}","serial":{serial}}}"#);
    let mut scratch = Vec::with_capacity(frame::HEADER_BYTES + members.len() + end.len());
    let frame = frame::build(Opcode::Text, &mut scratch, |out| {
        out.extend_from_slice(members);
        out.extend_from_slice(end.as_bytes());
    });
    let compressed = shared.compressed.is_some().then(Default::default);
    SharedFrame { frame: Frozen::new(frame), compressed }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::hub::EventForms;
    use std::sync::Arc;

    /// The payload of the positioned form of a text message.
    fn form_of(payload: &str) -> String {
        let frame = Frozen::new(&frame::frozen(Opcode::Text, payload.as_bytes()));
        let forms = EventForms::new(Some(StreamPosition { stream: 0x2a, serial: 41 }));
        let event = Event { forms: Some(Arc::new(forms)), ..Event::from(frame) };
        let form = Form { view: 0, positioned: true };
        let made = make_form(&Env::new(Config::demo(), 1), &event, form, Format::Json);
        let (opcode, payload) = frame::split(&made.frame).expect("a frame");
        assert_eq!(opcode, Opcode::Text);
        String::from_utf8(payload.to_vec()).expect("text")
    }

    #[test]
    fn forms_positioned_event_has_two_more_members() {
        let position = r#""stream_id":"000000000000002a","serial":41}"#;
        assert_eq!(form_of(r#"{"event":"e"}"#), format!(r#"{{"event":"e",{position}"#));
        assert_eq!(form_of("{\"a\":1} \n"), format!(r#"{{"a":1,{position}"#));
        assert_eq!(form_of("{}"), format!("{{{position}"));
        assert_eq!(form_of("[1]"), "[1]");
    }
}
