//! Events of linked channels: their content, and the events that are made of it.

use super::super::content::{Content, ContentData};
use super::super::env::Env;
use super::vendor::Vendor;
use super::{positions, trigger};
use crate::codec::raw::RawMembers;
use crate::dialect::Event;
use crate::hub::Retention;
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

/// The event with this content on channel `name`, as the HTTP API would publish it. `None` if it is
/// longer than the application accepts.
pub(super) fn event<V: Vendor>(
    env: &Env,
    app: u32,
    name: &str,
    content: &Content<'_>,
) -> Option<Event> {
    let config = &env.apps.get(app).config;
    let text = content.data.text().filter(|text| text.len() <= config.limits.event_bytes)?;
    let data = V::event_data(text, true);
    let event = content.event.as_deref()?;
    if V::DATA.own_events.iter().any(|own| event.starts_with(own)) {
        return None;
    }
    let published = trigger::published::<V>(env, app, name, (event, &data));
    if !event.starts_with("client-") {
        return Some(published);
    }
    // As of any client event, the history may keep it, but no cache.
    let limit = config.history_of(name).filter(|history| history.client_events);
    let retain = limit
        .map_or(Retention::Nothing, |history| Retention::History(positions::limit_of(history)));
    Some(Event { retain, ..published })
}
