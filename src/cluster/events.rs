//! Events between the cores and the log: what a cluster carries of them.

use super::entry::{self, CachedPart, EventPart, PartContent};
use crate::dialect::{Env, Event, EventPayload, broadcastt, pusher};
use crate::hub::{CacheEntry, Excluded, Retention, SharedFrame};
use crate::mem::Frozen;
use std::sync::Arc;

/// How long a history remembers the event of a part, in seconds, if it does.
pub(super) fn remembered_s(part: &EventPart<'_>) -> Option<u32> {
    match part.content {
        PartContent::Frame { remembered_s, .. } => remembered_s,
        PartContent::Close { .. } => None,
    }
}

/// An event as a part of an entry, and how long it is cached or remembered, in seconds; `None` if a
/// cluster does not carry it.
pub fn part_of(event: &Event, env: &Env) -> Option<(Vec<u8>, u64)> {
    let excluded = event.except.map(|except| match except.connection() {
        Ok(conn) => env.socket_ids.numbers_of(conn),
        Err(numbers) => numbers,
    });
    let (cached, remembered_s) = match &event.retain {
        Retention::Nothing => (None, None),
        Retention::Cache(entry) => (Some(entry), None),
        Retention::History(limit) if limit.ttl_s > 0 => (None, Some(limit.ttl_s)),
        Retention::CacheAndHistory(entry, limit) => (Some(entry), Some(limit.ttl_s)),
        _ => return None,
    };
    let content = match &event.payload {
        EventPayload::Frame(shared) => {
            let cached =
                cached.map(|it| CachedPart { ttl_ms: it.ttl_ms, event: &it.event, data: &it.data });
            PartContent::Frame { remembered_s, cached, frame: &shared.frame }
        }
        EventPayload::Close(code, reason) => PartContent::Close { code: *code, reason },
        _ => return None,
    };
    let cached_s = cached.map_or(0, |it| it.ttl_ms.div_ceil(1000));
    let kept_s = cached_s.max(remembered_s.unwrap_or(0).into());
    Some((entry::part(&EventPart { excluded, content }), kept_s))
}

/// The event of a part that was stored `age_ms` ago.
pub fn event_of(part: EventPart<'_>, age_ms: u64, env: &Env) -> Event {
    let found = part.excluded.and_then(|numbers| env.socket_ids.find(numbers));
    let except = found.map(Excluded::from);
    match part.content {
        PartContent::Close { code, reason } => {
            let payload = EventPayload::Close(code, known_reason(reason));
            Event { payload, except, ..Event::default() }
        }
        PartContent::Frame { cached, frame, .. } => {
            let compressed = env.compresses.then(Default::default);
            let shared = SharedFrame { frame: Frozen::new(frame), compressed };
            let retain = cached.map_or(Retention::Nothing, |it| {
                let ttl_ms = it.ttl_ms.saturating_sub(age_ms);
                let (event, data) = (it.event.into(), it.data.into());
                Retention::Cache(Arc::new(CacheEntry { ttl_ms, event, data }))
            });
            Event { except, retain, ..shared.into() }
        }
    }
}

/// The reasons of closes that are published.
fn known_reason(text: &str) -> &'static str {
    let known = [pusher::DATA.codes.terminated, broadcastt::DATA.codes.terminated];
    known.into_iter().find(|reason| *reason == text).unwrap_or("")
}
