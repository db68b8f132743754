//! Publishers: back ends that publish over a WebSocket instead of by signed HTTP requests.
//!
//! A connection authenticates once, by a signature with the application's secret, and then sends
//! any number of publishes without waiting for their answers. Each publish has an id that its
//! answer repeats. A publish is answered when the homes of all its channels have ordered it, so
//! answers may come in another order than the publishes.
//!
//! A publish has one part for each event on each channel. A part is the number of 16 bits by which
//! the channel's home acknowledges that event. The parts of a connection are numbered from 1, and
//! after the highest numbers they begin with 1 again.

use super::super::effects::Effects;
use super::super::reply::Finish;
use super::idempotency::MEMBER;
use super::publish::{PublishReply, PublishSource};
use super::reply::{ApiRefusal, KEY_USED};
use super::vendor::Vendor;
use crate::codec::json::{JsonText, push_string};
use crate::hub::{Answer, Unpublished};
use std::collections::VecDeque;
use std::fmt;
use std::io::Write;

/// The event that publishes.
pub(super) const PUBLISH: &str = "polycast:publish";
/// The members that differ when the same publish is repeated.
const SKIPPED: &[&str] = &[MEMBER, "id"];
/// The maximum length of an id that is a string, in bytes.
const ID_LENGTH: usize = 64;
/// The number of publishes, counted from the oldest one without an answer, at which nothing more is
/// read.
const MAX_UNANSWERED: usize = 1024;
/// The maximum number of events of one publish: the largest `limits.channels_per_trigger`.
const MAX_PARTS: u16 = 10_000;
/// The number of parts, counted from the first part of the oldest publish without an answer, above
/// which nothing more is read. No number may be given to a second part while the first one is not
/// acknowledged. One more publish may follow a count just below this limit, and before the numbers
/// begin again up to [`MAX_PARTS`] are left out: see the assertion below.
const MAX_SPAN: u16 = 40_000;
/// The estimated memory of unanswered publishes that ask for `info`, in bytes, above which nothing
/// more is read.
const MAX_HELD_BYTES: usize = 1024 * 1024;
/// The estimated memory of one part of such a publish, in bytes.
const PART_BYTES: usize = 320;

const _: () = assert!(MAX_SPAN as u32 + 2 * MAX_PARTS as u32 <= u16::MAX as u32);

/// The state of a connection that has authenticated as a publisher.
pub(super) struct Publisher {
    /// The signature, which a reload of the configuration verifies again.
    pub(super) auth: Box<str>,
    /// The publishes since the oldest one without an answer, in the order of their parts.
    unanswered: VecDeque<Unanswered>,
    /// The part that the next publish begins with. It is never 0, which means that no
    /// acknowledgement is wanted.
    next_part: u16,
    /// The estimated memory of what waits for answers about channels, in bytes.
    held: usize,
}

struct Unanswered {
    first_part: u16,
    parts: u16,
    /// The number of parts without an answer.
    missing: u16,
    id: PublishId,
    /// Why a part was not published, in a cluster.
    unpublished: Option<Unpublished>,
    later: Option<Box<Later>>,
}

/// A reply that is made from the answers about channels.
struct Later {
    finish: Finish,
    answers: Vec<(u16, Answer)>,
}

/// The publisher's id of a publish.
#[derive(Clone, Debug, PartialEq, Eq)]
enum PublishId {
    Missing,
    Int(i64),
    /// Any other number, or a string, as JSON.
    Json(Box<str>),
}

/// What follows a message of a publisher at once.
pub(super) enum PublishOutcome {
    /// Nothing: the answer follows when the homes have acknowledged it.
    Pending,
    /// This message is the answer.
    Answered(Vec<u8>),
    /// This message is the answer; nothing was published.
    Refused(Vec<u8>),
    /// The data is a string of JSON, which is to be read in place of it.
    Inner(String),
}

impl fmt::Debug for Publisher {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unanswered = &self.unanswered.len();
        out.debug_struct("Publisher").field("unanswered", unanswered).finish_non_exhaustive()
    }
}

impl PublishId {
    /// Reads the id of a publish; `Missing` if it has none that is allowed.
    fn read(data: JsonText<'_, '_>) -> PublishId {
        let Some(id) = data.get("id") else { return PublishId::Missing };
        if let Some(int) = id.int() {
            return PublishId::Int(int);
        }
        let is_short = |text: &str| (1..=ID_LENGTH).contains(&text.len());
        if !id.is_number() && !id.text().is_some_and(is_short) {
            return PublishId::Missing;
        }
        let mut json = Vec::new();
        id.push_to(&mut json);
        String::from_utf8(json).map_or(PublishId::Missing, |json| PublishId::Json(json.into()))
    }

    fn push(&self, out: &mut Vec<u8>) {
        match self {
            PublishId::Missing => out.extend_from_slice(b"null"),
            PublishId::Int(int) => {
                // Writing to a vector cannot fail.
                let _ = write!(out, "{int}");
            }
            PublishId::Json(json) => out.extend_from_slice(json.as_bytes()),
        }
    }

    /// The acknowledgement, with the members of the HTTP API's reply, which is an object.
    fn published(&self, reply: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + reply.len());
        out.extend_from_slice(br#"{"event":"polycast:published","data":{"id":"#);
        self.push(&mut out);
        match reply.strip_prefix(b"{") {
            Some(members) if members != b"}" => {
                out.push(b',');
                out.extend_from_slice(members);
            }
            _ => out.push(b'}'),
        }
        out.push(b'}');
        out
    }

    fn failed(&self, (status, message): &ApiRefusal) -> Vec<u8> {
        let mut out = br#"{"event":"polycast:publish_failed","data":{"id":"#.to_vec();
        self.push(&mut out);
        out.extend_from_slice(format!(r#","status":{status},"message":"#).as_bytes());
        push_string(&mut out, message);
        out.extend_from_slice(b"}}");
        out
    }
}

impl Unanswered {
    fn new(first_part: u16, parts: u16, id: PublishId, later: Option<Box<Later>>) -> Unanswered {
        Unanswered { first_part, parts, missing: parts, id, unpublished: None, later }
    }
}

impl Publisher {
    pub(super) fn new(auth: &str) -> Publisher {
        Publisher { auth: auth.into(), unanswered: VecDeque::new(), next_part: 1, held: 0 }
    }

    /// Whether nothing more is read until earlier publishes are answered.
    pub(super) fn is_full(&self) -> bool {
        self.unanswered.len() >= MAX_UNANSWERED
            || self.held > MAX_HELD_BYTES
            || self
                .unanswered
                .front()
                .is_some_and(|oldest| self.next_part.wrapping_sub(oldest.first_part) > MAX_SPAN)
    }

    /// The memory of the unanswered publishes, in bytes.
    pub(super) fn held_bytes(&self) -> usize {
        self.unanswered.capacity() * size_of::<Unanswered>() + self.held
    }

    /// Handles the data of a publish. [`PublishSource::first_part`] and [`PublishSource::skipped`]
    /// of `source` are replaced.
    pub(super) fn publish<V: Vendor>(
        &mut self,
        source: PublishSource<'_>,
        data: Option<JsonText<'_, '_>>,
        is_draining: bool,
        effects: &mut Effects<'_>,
    ) -> PublishOutcome {
        let refuse = |id: &PublishId, why| PublishOutcome::Refused(id.failed(&why));
        let Some(data) = data.filter(|data| data.is_object()) else {
            let why = (400, "data must be a JSON object".into());
            return match data.and_then(|data| data.text()) {
                Some(text) => PublishOutcome::Inner(text.to_owned()),
                None => refuse(&PublishId::Missing, why),
            };
        };
        let id = PublishId::read(data);
        if id == PublishId::Missing {
            let text = format!("id must be a number or a string of 1 to {ID_LENGTH} bytes");
            return refuse(&id, (400, text.into()));
        }
        if is_draining {
            return refuse(&id, (503, "The server is shutting down".into()));
        }
        let first_part = match self.next_part.checked_add(MAX_PARTS) {
            Some(_) => self.next_part,
            None => 1,
        };
        let source = PublishSource { first_part, skipped: SKIPPED, ..source };
        let before = effects.mark();
        let accepted = match data.get("batch") {
            Some(_) => source.batch::<V>(data, effects),
            None => source.event::<V>(data, effects),
        };
        let accepted = match accepted {
            Ok(accepted) => accepted,
            Err(why) => {
                effects.truncate(before);
                return refuse(&id, why);
            }
        };
        let parts = accepted.parts;
        let later = match accepted.reply {
            PublishReply::Now(reply) if parts == 0 => {
                return PublishOutcome::Answered(id.published(&reply.body));
            }
            // Nothing has to wait for an empty batch.
            PublishReply::Later(finish) if parts == 0 => {
                return PublishOutcome::Answered(id.published(&finish(Vec::new()).body));
            }
            PublishReply::Now(_) => None,
            PublishReply::Later(finish) => {
                self.held += usize::from(parts) * PART_BYTES;
                Some(Box::new(Later { finish, answers: Vec::new() }))
            }
        };
        self.next_part = first_part + parts;
        self.unanswered.push_back(Unanswered::new(first_part, parts, id, later));
        PublishOutcome::Pending
    }

    /// Notes the acknowledgement of a part. Returns the answer to the publish if it was the last
    /// one.
    pub(super) fn acknowledged(&mut self, part: u16, answer: Answer) -> Option<Vec<u8>> {
        let base = self.unanswered.front()?.first_part;
        let offset = part.wrapping_sub(base);
        let after =
            self.unanswered.partition_point(|it| it.first_part.wrapping_sub(base) <= offset);
        let unanswered = self.unanswered.get_mut(after.checked_sub(1)?)?;
        let within = part.wrapping_sub(unanswered.first_part);
        if within >= unanswered.parts || unanswered.missing == 0 {
            return None;
        }
        unanswered.missing -= 1;
        match (answer, &mut unanswered.later) {
            // 504 takes precedence over 503: if it is not known whether one part was published,
            // that another part was refused does not matter.
            (Answer::Unpublished(_, why), _) => {
                unanswered.unpublished = unanswered.unpublished.max(Some(why));
            }
            (answer, Some(later)) => later.answers.push((within, answer)),
            _ => {}
        }
        if unanswered.missing > 0 {
            return None;
        }
        let later = unanswered.later.take();
        self.held -= later.as_ref().map_or(0, |_| usize::from(unanswered.parts) * PART_BYTES);
        let text = match (later, unanswered.unpublished) {
            (later, Some(why)) => {
                let failed = vec![(0, Answer::Unpublished("".into(), why))];
                later.map(|later| (later.finish)(failed));
                unanswered.id.failed(&not_published(why))
            }
            (None, None) => unanswered.id.published(b"{}"),
            (Some(later), None) => {
                let reply = (later.finish)(later.answers);
                unanswered.id.published(&reply.body)
            }
        };
        while self.unanswered.front().is_some_and(|oldest| oldest.missing == 0) {
            self.unanswered.pop_front();
        }
        if self.unanswered.is_empty() && self.unanswered.capacity() > 64 {
            self.unanswered = VecDeque::new();
        }
        Some(text)
    }
}

/// The error for a publish of which at least one event was not published.
fn not_published(why: Unpublished) -> ApiRefusal {
    match why {
        Unpublished::Refused => (503, "some events were not published; try again".into()),
        Unpublished::Unknown => (504, "it is not known whether some events were published".into()),
        Unpublished::KeyUsed => (409, KEY_USED.into()),
    }
}

/// Whether the message is a publish.
pub(super) fn is_publish(message: JsonText<'_, '_>) -> bool {
    message.get("event").and_then(|event| event.text()) == Some(PUBLISH)
}

#[cfg(test)]
mod tests;
