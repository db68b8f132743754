//! Events of linked channels: their content, and the events that are made of it.

use super::super::content::{Content, ContentData};
use super::super::env::Env;
use super::trigger;
use super::vendor::Vendor;
use crate::codec::raw::RawMembers;
use crate::dialect::Event;
use crate::ws::frame;

/// The content of an event, unless it is an event of the protocol itself.
pub(super) fn content<V: Vendor>(event: &Event) -> Option<Content<'_>> {
    let (_, payload) = frame::split(event.frame()?)?;
    let members = RawMembers::read(str::from_utf8(payload).ok()?)?;
    let name = members.text("event")?;
    if V::DATA.own_events.iter().any(|own| name.starts_with(own)) {
        return None;
    }
    let raw = || members.raw("data").unwrap_or("").into();
    let data = ContentData::Text(members.text("data").unwrap_or_else(raw));
    Some(Content { event: Some(name), data })
}

/// The event with this content on channel `name`, as the HTTP API would publish it.
pub(super) fn event<V: Vendor>(
    env: &Env,
    app: u32,
    name: &str,
    content: &Content<'_>,
) -> Option<Event> {
    let data = V::event_data(content.data.text()?, true);
    let event = content.event.as_deref()?;
    if V::DATA.own_events.iter().any(|own| event.starts_with(own)) {
        return None;
    }
    Some(trigger::published::<V>(env, app, name, (event, &data)))
}
