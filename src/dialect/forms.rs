//! The forms of an event besides the frame as it was published.

use super::api::ChannelHistory;
use super::connection::{content, history, linked_event};
use super::content::Content;
use super::env::Env;
use super::log::direct_of;
use crate::codec::Format;
use crate::dialect::{Event, EventPayload};
use crate::hub::{
    EventForms, Form, HistoryLimit, HistoryPage, LogPlace, Retention, SharedFrame, StreamPosition,
};
use crate::mem::Frozen;
use crate::ws::{Opcode, frame};
use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;

/// What becomes of an event that is published under a name.
#[derive(Debug)]
pub enum LinkedPublish {
    /// It is published as it is.
    AsItIs,
    /// The name is that of a view: this event is published on the source's channel.
    Source {
        /// The number of the source's application.
        app: u32,
        /// The name of the source's channel.
        name: String,
        /// The event in the source's dialect.
        event: Event,
    },
    /// The name is that of a view that may not publish, or the source's dialect cannot express the
    /// event.
    Refused,
}

/// Prepares an event for its publication under a name that may belong to a link: an event of a
/// source gets room for its further forms.
pub fn linked_publish(env: &Env, app: u32, name: &str, event: &mut Event) -> LinkedPublish {
    if direct_of(event).is_some() {
        // A message to one connection, which only has a place in the log under this name.
        return LinkedPublish::AsItIs;
    }
    let Some(resolved) = env.links.resolve(app, name) else {
        if env.links.is_source(app, name) {
            event.forms = Some(Arc::new(EventForms::new(None)));
        }
        return LinkedPublish::AsItIs;
    };
    let unnamed = env.links.source_of(resolved.view).map(|(_, unnamed)| unnamed);
    let translated = content(env, app, event)
        .filter(|_| resolved.publish)
        .map(|content| named(content, unnamed.unwrap_or("message")))
        .and_then(|content| linked_event(env, resolved.app, &resolved.name, &content));
    match translated {
        Some(translated) => {
            let forms = Some(Arc::new(EventForms::new(None)));
            let (except, key) = (event.except, event.key.take());
            let event = Event { except, forms, key, ..translated };
            LinkedPublish::Source { app: resolved.app, name: resolved.name, event }
        }
        None => LinkedPublish::Refused,
    }
}

/// Prepares an event that has come from the log of a cluster, with its place there: this process's
/// configuration says which forms subscribers may need, and how much a history keeps of it.
pub fn event_from_log(
    env: &Env,
    (app, name): (u32, &str),
    event: &mut Event,
    place: Option<LogPlace>,
) {
    if env.links.is_source(app, name) {
        event.forms = Some(Arc::new(EventForms::new(None)));
    }
    let Some(ttl_s) = place.and_then(|place| place.ttl_s) else { return };
    let Some(ChannelHistory { limit, .. }) = history(env, app, name) else { return };
    let limit = HistoryLimit { ttl_s: limit.ttl_s.min(ttl_s), ..limit };
    event.retain = match std::mem::take(&mut event.retain) {
        Retention::Cache(entry) => Retention::CacheAndHistory(entry, limit),
        _ => Retention::History(limit),
    };
}

/// How much is kept of the events of the channel that a name leads to, which is the source's if the
/// name is that of a view.
pub fn history_of(env: &Env, app: u32, name: &str) -> Option<ChannelHistory> {
    match env.links.resolve(app, name) {
        Some(source) => history(env, source.app, &source.name),
        None => history(env, app, name),
    }
}

/// Puts the events of a page into the form of the view through which it was asked for. Events that
/// the view cannot express are left out, as they are for its subscribers.
pub fn page_in_view(env: &Env, page: &mut HistoryPage) {
    let Some((view, name)) = &page.view else { return };
    for (_, shared) in &mut page.events {
        let event = Event::from(shared.clone());
        *shared = in_view(env, name, &event, *view, Format::Json).unwrap_or_default();
    }
    page.events.retain(|(_, shared)| !shared.frame.is_empty());
}

/// Makes a form of an event of the channel that its source calls `name`. An empty frame means that
/// subscribers of this form do not receive the event.
pub fn make_form(env: &Env, name: &str, event: &Event, form: Form, format: Format) -> SharedFrame {
    let position = event.forms.as_ref().and_then(|forms| forms.position);
    let shared = match (form.view, &event.payload) {
        (0, EventPayload::Frame(shared)) => Some(shared.clone()),
        (0, _) => None,
        (view, _) => in_view(env, name, event, view, format),
    };
    match (shared, position) {
        (Some(shared), Some(position)) if form.positioned => positioned(&shared, position),
        (shared, _) => shared.unwrap_or_default(),
    }
}

/// The frame of an event for the subscribers of a view, unless its dialect cannot express it.
fn in_view(env: &Env, name: &str, event: &Event, view: u16, format: Format) -> Option<SharedFrame> {
    let (source, _) = env.links.source_of(view)?;
    let (app, unnamed) = env.links.view(view)?;
    let content = named(content(env, source, event)?, unnamed);
    let name = env.links.name_in(view, name)?;
    match linked_event(env, app, &name, &content)?.payload {
        EventPayload::Frame(shared) => Some(shared),
        EventPayload::Value(encodings) => {
            let compressed = encodings.compressed(format).is_some().then(Arc::default);
            Some(SharedFrame { frame: encodings.encoded(format).clone(), compressed })
        }
        _ => None,
    }
}

fn named<'e>(content: Content<'e>, unnamed: &'e str) -> Content<'e> {
    Content { event: content.event.or(Some(Cow::Borrowed(unnamed))), ..content }
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

    /// The payload of the positioned form of a text message.
    fn form_of(payload: &str) -> String {
        let frame = Frozen::new(&frame::frozen(Opcode::Text, payload.as_bytes()));
        let forms = EventForms::new(Some(StreamPosition { stream: 0x2a, serial: 41 }));
        let event = Event { forms: Some(Arc::new(forms)), ..Event::from(frame) };
        let form = Form::POSITIONED;
        let made = make_form(
            &Env::new(Config::demo(), 1).expect("an environment"),
            "c",
            &event,
            form,
            Format::Json,
        );
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
