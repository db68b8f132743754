//! Messages without a protocol around them: what the dialects have in common whose clients exchange
//! bare messages.

use super::closing::{Closing, Why};
use super::content::{Content, ContentData};
use super::context::{DialectContext, Opening};
use super::env::Env;
use super::protocol::DialectPolicy;
use crate::dialect::Event;
use crate::hub::{ResumeFrom, ResumeReply, SharedFrame};
use crate::mem::Frozen;
use crate::ws::record::EventId;
use crate::ws::{self, Opcode, close, frame};
use std::sync::Arc;

/// How many messages of the maximum size fit a client's write queue. If it were one, a client that
/// has not yet read the previous message would be a slow consumer.
const QUEUED: usize = 4;

/// Why a client is closed that cannot be sent all that it has missed.
const MISSED: &str = "missed messages are not kept any more";

/// The maximum payload bytes of one message.
fn max_bytes(env: &Env) -> usize {
    (env.config.limits.write_queue_bytes / QUEUED).saturating_sub(frame::HEADER_BYTES)
}

/// The event that delivers a client's message unchanged.
///
/// # Errors
/// The message is longer than the frame limits allow, because a schema model of the route has made
/// it longer.
pub(super) fn published(
    env: &Env,
    kind: ws::MessageKind,
    payload: &[u8],
) -> Result<Event, Closing> {
    if payload.len() > max_bytes(env) {
        return Err(Closing::new(close::TOO_BIG, "the message is too big"));
    }
    let opcode = match kind {
        ws::MessageKind::Text => Opcode::Text,
        ws::MessageKind::Binary => Opcode::Binary,
    };
    Ok(event_of(env, opcode, payload))
}

fn event_of(env: &Env, opcode: Opcode, payload: &[u8]) -> Event {
    let mut scratch = Vec::with_capacity(frame::HEADER_BYTES + payload.len());
    let frame = frame::build(opcode, &mut scratch, |out| out.extend_from_slice(payload));
    let compressed = env.compresses.then(Arc::default);
    SharedFrame { frame: Frozen::new(frame), compressed }.into()
}

/// Where a stream of events resumes, by the id of the last event that its client has received.
pub(super) fn from(opening: &Opening<'_>) -> ResumeFrom {
    match opening.last_event_id().map(|text| EventId::read(&text)) {
        None => ResumeFrom::Present,
        Some(Some(id)) => ResumeFrom::Position(id.into()),
        Some(None) => ResumeFrom::Malformed,
    }
}

/// Ends a stream of events whose client has missed messages that it cannot be sent. It begins again
/// after the present position, because it would be closed for the same reason otherwise.
pub(super) fn close_for_gap(context: &mut DialectContext<'_>, resumed: &ResumeReply) {
    context.out.id(resumed.position.into());
    context.close(Closing::new(close::RESTART, MISSED));
}

/// The content of such an event.
pub(super) fn content(event: &Event) -> Option<Content<'_>> {
    let data = match frame::split(event.frame()?)? {
        (Opcode::Text, payload) => ContentData::Text(str::from_utf8(payload).ok()?.into()),
        (_, payload) => ContentData::Binary(payload),
    };
    Some(Content { event: None, data })
}

/// The message that has only the data of an event.
pub(super) fn linked_event(env: &Env, content: &Content<'_>) -> Event {
    match (&content.data, content.data.text()) {
        (ContentData::Binary(payload), _) => event_of(env, Opcode::Binary, payload),
        (_, text) => event_of(env, Opcode::Text, text.as_deref().unwrap_or("").as_bytes()),
    }
}

/// The limits and timeouts of a client.
#[inline]
pub(super) fn policy(env: &Env) -> DialectPolicy {
    let limits = &env.config.limits;
    let max_bytes = max_bytes(env) as u64;
    let mut policy = DialectPolicy::new(env, limits.message_bytes.min(max_bytes));
    policy.frames.frame_bytes = limits.frame_bytes.min(max_bytes);
    policy
}

/// The close code and reason for a close by the server.
pub(super) fn closing(why: Why) -> Closing {
    match why {
        Why::Silent => Closing::new(close::GOING_AWAY, "no sign of life"),
        Why::Draining => Closing::new(close::GOING_AWAY, "the server is shutting down"),
        Why::Slow => Closing::new(close::POLICY, "the client does not read what it is sent"),
        Why::Gap => Closing::new(close::RESTART, MISSED),
    }
}
