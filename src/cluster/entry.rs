//! The bytes of an entry of the log, format 1. Golden entries are in `tests/fixtures/cluster/`.
//!
//! ```text
//! entry   = format(1) node(8) number text(application's id) text(channel) number(of parts) part*
//! part    = kind(1) number(of bytes) bytes
//! event   = flags(1) [excluded(16)] [number(ttl in s)] [number(ttl in ms) text(event) text(data)]
//!           frame
//!         | flags(1) [excluded(16)] code(2) reason
//! member  = flags(1) node(8) text(user)
//!           [number(max) [text(info)] [number(of bytes) added removed]]
//! count   = node(8) number
//! views   = viewed*
//! viewed  = key(8) number
//! key     = number(of the event in the entry) key(16) request(16)
//!           number(of the event in the request)
//! node    = state(1) node(8) number(of the renewal) lowest(1) highest(1) digest(8)
//!           number(of connections) text(release) [more]
//! limit   = flags(1) epoch(8) number(of nodes) reserved*
//! reserved = node(8) number(of connections)
//! miss    = flags(1) node(8) number(the serial number up to which the log was received)
//! counting = node(8) [number(of the core) number(of cores)]
//! numbers = step(1) node(8) [number(of the question) number(of the core) number(of cores)]
//! epoch   = number(of the epoch) digest(8) number(of bytes of the document) number(offset) piece
//! own     = an event in the form of its dialect
//! picture = number(of the place) number(of the piece) number(of pieces) piece
//! text    = number(of bytes) bytes
//! ```
//!
//! The views follow the count of the same entry: they say how many of the subscribers have come
//! through which view. The key of a view is the same on all nodes, and the keys ascend.
//!
//! A key is the idempotency key of one of the events. The keys of an entry are in the order of
//! their events, at most one for each.
//!
//! A number is a varint: seven bits a byte, the low ones first. Other integers are little-endian.
//! A reader skips kinds of parts that it does not know. Nothing that an entry says is trusted: a
//! length beyond the end of the entry makes it malformed.
//!
//! An entry of a node has no application and no channel, and always has format 1, so that nodes of
//! all releases know of each other. What later releases add to it follows the rest.

mod counting;
mod epoch;
mod key;
mod limit;
mod node;
mod picture;
mod state;

pub use counting::{CountingPart, write_counting};
pub use epoch::EpochPart;
pub use key::KeyPart;
pub use limit::{LimitPart, write_limit};
pub use node::{NodePart, NodePhase};
pub use picture::PicturePart;
pub use state::{PresentPart, StatePart};

use crate::codec::compact::{
    push_number, push_text, take, take_byte, take_counted, take_number, take_text, take_u64,
};

/// The lowest and the highest format that this release writes and reads.
pub const FORMATS: (u8, u8) = (1, 1);
/// The format of entries of nodes.
const NODE_FORMAT: u8 = 1;
/// The kind of a part that is an event.
const EVENT: u8 = 1;
/// The kind of a part that says whether a user is on a node.
const MEMBER: u8 = 2;
/// The kind of a part that says how many subscribers a node has.
const COUNT: u8 = 3;
/// The kind of a part that is about the life of a node.
const NODE: u8 = 4;
/// The kind of a part that is a piece of an epoch.
const EPOCH: u8 = 5;
/// The kind of a part that is the idempotency key of an event.
const KEY: u8 = 6;
/// The kind of a part that is an event in the form of its dialect.
const OWN: u8 = 7;
/// The kind of a part that says what nodes have reserved of an application's connections.
const LIMIT: u8 = 10;
/// The kind of a part that is a piece of a picture.
const PICTURE: u8 = 9;
/// The kind of a part that says whether a node reports that an event is not cached.
const MISS: u8 = 12;
/// The kind of a part about an application whose numbers of subscribers are read, as releases
/// before leases write it.
const COUNTING: u8 = 11;
/// The kind of such a part.
const NUMBERS: u8 = 13;
/// The kind of a part that has the numbers of subscribers by view, after that of all.
const VIEWS: u8 = 14;

const EXCLUDES: u8 = 1;
const IS_CACHED: u8 = 2;
const CLOSES: u8 = 4;
const IS_REMEMBERED: u8 = 8;

const IS_PRESENT: u8 = 1;
const HAS_INFO: u8 = 2;
const HAS_FRAMES: u8 = 4;

/// The bytes are not an entry of a format that this release knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAnEntry {
    /// The format is another one.
    #[error("an entry of format {0}, which this release does not know")]
    Format(u8),
    /// The entry is cut off, or a part of it is malformed.
    #[error("an entry that is malformed")]
    Malformed,
}

/// An event as a part of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventPart<'e> {
    /// The numbers of the socket id of the connection that does not receive the event.
    pub excluded: Option<[u64; 2]>,
    /// What the event does.
    pub content: PartContent<'e>,
}

/// What an event does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartContent<'e> {
    /// It delivers a frame.
    Frame {
        /// How long the history of the channel remembers the event, in seconds, if it does. The log
        /// keeps it at least as long.
        remembered_s: Option<u32>,
        /// What a cache channel keeps of the event.
        cached: Option<CachedPart<'e>>,
        /// The frame.
        frame: &'e [u8],
    },
    /// It closes the connections of the subscribers.
    Close {
        /// The close code.
        code: u16,
        /// The close reason.
        reason: &'e str,
    },
}

/// What a cache channel keeps of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedPart<'e> {
    /// How long it is cached, in milliseconds.
    pub ttl_ms: u64,
    /// The event's name.
    pub event: &'e str,
    /// The event's data.
    pub data: &'e str,
}

/// An entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<'e> {
    /// The node that has written it.
    pub node: u64,
    /// Its number among the entries of that node.
    pub number: u64,
    /// The application's id.
    pub app: &'e str,
    /// The channel.
    pub channel: &'e str,
    /// The events.
    pub events: Vec<EventPart<'e>>,
    /// The idempotency keys of some of the events, in their order.
    pub keys: Vec<KeyPart>,
    /// What it says of members and numbers of subscribers.
    pub states: Vec<StatePart<'e>>,
    /// What it says of nodes.
    pub nodes: Vec<NodePart<'e>>,
    /// The pieces of epochs.
    pub epochs: Vec<EpochPart<'e>>,
    /// What nodes have reserved of the application's connections.
    pub limit: Option<LimitPart>,
    /// What it says of the statement of the application's numbers of subscribers.
    pub counting: Option<CountingPart>,
    /// The events in the form of their dialect.
    pub own: Vec<&'e [u8]>,
    /// The pieces of pictures.
    pub pictures: Vec<PicturePart<'e>>,
    /// The number of parts of unknown kinds, which were skipped.
    pub skipped: usize,
}

impl Entry<'_> {
    /// Whether it is about no application and no node: it was written to measure the engine.
    pub fn is_empty(&self) -> bool {
        self.app.is_empty() && self.nodes.is_empty() && self.skipped == 0
    }
}

/// Writes an event as a part.
pub fn part(event: &EventPart<'_>) -> Vec<u8> {
    let mut out = vec![0];
    if let Some([high, low]) = event.excluded {
        out[0] |= EXCLUDES;
        out.extend_from_slice(&high.to_le_bytes());
        out.extend_from_slice(&low.to_le_bytes());
    }
    match &event.content {
        PartContent::Frame { remembered_s, cached, frame } => {
            if let Some(ttl_s) = remembered_s {
                out[0] |= IS_REMEMBERED;
                push_number(&mut out, (*ttl_s).into());
            }
            if let Some(cached) = cached {
                out[0] |= IS_CACHED;
                push_number(&mut out, cached.ttl_ms);
                push_text(&mut out, cached.event);
                push_text(&mut out, cached.data);
            }
            out.extend_from_slice(frame);
        }
        PartContent::Close { code, reason } => {
            out[0] |= CLOSES;
            out.extend_from_slice(&code.to_le_bytes());
            out.extend_from_slice(reason.as_bytes());
        }
    }
    out
}

/// Writes a piece of an epoch as a part.
pub fn epoch_part(epoch: &EpochPart<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(epoch.piece.len() + 40);
    epoch.push(&mut out);
    out
}

/// Writes the entry with this number of a node, of these events, each as [`part`] has written it.
pub fn write<'p>(
    author: (u64, u64),
    app: &str,
    channel: &str,
    parts: impl ExactSizeIterator<Item = &'p [u8]>,
) -> Vec<u8> {
    write_with_keys((author, app, channel), parts, &[])
}

/// The same of events of which some have idempotency keys.
pub fn write_with_keys<'p>(
    head: ((u64, u64), &str, &str),
    parts: impl ExactSizeIterator<Item = &'p [u8]>,
    keys: &[KeyPart],
) -> Vec<u8> {
    let mut out = write_head(head, parts.len() + keys.len());
    parts.for_each(|part| push_part(&mut out, EVENT, part));
    keys.iter().for_each(|key| push_part(&mut out, KEY, &key.bytes()));
    out
}

/// Writes the entry with this number of a node, of these pieces of an epoch, each as
/// [`epoch_part`] has written it.
pub fn write_epoch<'p>(
    author: (u64, u64),
    app: &str,
    channel: &str,
    parts: impl ExactSizeIterator<Item = &'p [u8]>,
) -> Vec<u8> {
    write_parts((author, app, channel), EPOCH, parts)
}

/// Writes the entry with this number of a node, of these events in the form of their dialect.
pub fn write_own<'p>(
    author: (u64, u64),
    app: &str,
    channel: &str,
    parts: impl ExactSizeIterator<Item = &'p [u8]>,
) -> Vec<u8> {
    write_parts((author, app, channel), OWN, parts)
}

/// Writes a piece of a picture as a part.
pub fn picture_part(picture: &PicturePart<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(picture.piece.len() + 24);
    picture.push(&mut out);
    out
}

/// Writes the entry with this number of a node, of a piece of a picture, as [`picture_part`] has
/// written it.
pub fn write_picture(author: (u64, u64), app: &str, channel: &str, part: &[u8]) -> Vec<u8> {
    write_parts((author, app, channel), PICTURE, [part].into_iter())
}

fn write_parts<'p>(
    head: ((u64, u64), &str, &str),
    kind: u8,
    parts: impl ExactSizeIterator<Item = &'p [u8]>,
) -> Vec<u8> {
    let mut out = write_head(head, parts.len());
    parts.for_each(|part| push_part(&mut out, kind, part));
    out
}

/// Writes the beginning of an entry of so many parts.
fn write_head(((node, number), app, channel): ((u64, u64), &str, &str), parts: usize) -> Vec<u8> {
    let mut out = vec![FORMATS.0];
    out.extend_from_slice(&node.to_le_bytes());
    push_number(&mut out, number);
    push_text(&mut out, app);
    push_text(&mut out, channel);
    push_number(&mut out, parts as u64);
    out
}

fn push_part(out: &mut Vec<u8>, kind: u8, part: &[u8]) {
    out.push(kind);
    push_number(out, part.len() as u64);
    out.extend_from_slice(part);
}

/// Writes a state as a part.
pub fn state_part(state: &StatePart<'_>) -> Vec<u8> {
    match state {
        StatePart::Miss { node, is_missed, after } => {
            let mut out = vec![u8::from(*is_missed)];
            out.extend_from_slice(&node.to_le_bytes());
            push_number(&mut out, *after);
            out
        }
        StatePart::Count { node, count } => StatePart::count_bytes(*node, count),
        StatePart::Member { node, user, present } => {
            let mut out = vec![0];
            out.extend_from_slice(&node.to_le_bytes());
            push_text(&mut out, user);
            let Some(PresentPart { max, info, frames }) = present else { return out };
            out[0] |= IS_PRESENT;
            push_number(&mut out, *max);
            if let Some(info) = info {
                out[0] |= HAS_INFO;
                push_text(&mut out, info);
            }
            if let Some([added, removed]) = frames {
                out[0] |= HAS_FRAMES;
                push_number(&mut out, added.len() as u64);
                out.extend_from_slice(added);
                out.extend_from_slice(removed);
            }
            out
        }
    }
}

/// Writes the entry with this number of a process that has one state, as [`state_part`] has written
/// it: of a member or of a number of subscribers.
pub fn write_state(
    author: (u64, u64),
    app: &str,
    channel: &str,
    is_member: bool,
    part: &[u8],
) -> Vec<u8> {
    let head = (author, app, channel);
    if is_member {
        return write_parts(head, MEMBER, [part].into_iter());
    }
    let (count, views) = StatePart::split_count(part);
    let mut out = write_head(head, 1 + usize::from(!views.is_empty()));
    push_part(&mut out, COUNT, count);
    if !views.is_empty() {
        push_part(&mut out, VIEWS, views);
    }
    out
}

/// Writes the entry with this number of a process about a miss, as [`state_part`] has written it.
pub fn write_miss(author: (u64, u64), app: &str, channel: &str, part: &[u8]) -> Vec<u8> {
    write_parts((author, app, channel), MISS, [part].into_iter())
}

/// Writes the entry with this number of a node about itself, or about another node.
pub fn write_node((node, number): (u64, u64), part: &NodePart<'_>) -> Vec<u8> {
    let mut bytes = vec![part.state.byte()];
    bytes.extend_from_slice(&part.node.to_le_bytes());
    push_number(&mut bytes, part.renewal);
    bytes.extend_from_slice(&[part.formats.0, part.formats.1]);
    bytes.extend_from_slice(&part.apps.to_le_bytes());
    push_number(&mut bytes, part.connections);
    push_text(&mut bytes, part.release);
    let mut out = vec![NODE_FORMAT];
    out.extend_from_slice(&node.to_le_bytes());
    push_number(&mut out, number);
    push_text(&mut out, "");
    push_text(&mut out, "");
    out.extend_from_slice(&[1, NODE]);
    push_number(&mut out, bytes.len() as u64);
    out.extend_from_slice(&bytes);
    out
}

/// Gives an entry that was written another format. So far all formats have the same bytes besides.
pub fn set_format(entry: &mut [u8], format: u8) {
    if let Some(first) = entry.first_mut() {
        *first = format;
    }
}

/// Reads an entry.
///
/// # Errors
/// The entry has another format or is malformed.
pub fn read(bytes: &[u8]) -> Result<Entry<'_>, NotAnEntry> {
    read_formats(bytes, FORMATS)
}

/// Reads an entry of a format from the lowest to the highest of these, or one of a node or without
/// parts, which all releases read.
///
/// # Errors
/// As for [`read`].
pub fn read_formats(bytes: &[u8], (lowest, highest): (u8, u8)) -> Result<Entry<'_>, NotAnEntry> {
    let (format, rest) = bytes.split_first().ok_or(NotAnEntry::Malformed)?;
    let is_spoken = (lowest..=highest).contains(format);
    if !is_spoken && *format != NODE_FORMAT {
        return Err(NotAnEntry::Format(*format));
    }
    let entry = read_parts(rest).ok_or(NotAnEntry::Malformed)?;
    match is_spoken || !entry.nodes.is_empty() || entry.is_empty() {
        true => Ok(entry),
        false => Err(NotAnEntry::Format(*format)),
    }
}

fn read_parts(mut rest: &[u8]) -> Option<Entry<'_>> {
    let node = u64::from_le_bytes(take(&mut rest, 8)?.try_into().ok()?);
    let number = take_number(&mut rest)?;
    let (app, channel) = (take_text(&mut rest)?, take_text(&mut rest)?);
    let (mut events, mut states) = (Vec::new(), Vec::new());
    let (mut nodes, mut epochs, mut keys) = (Vec::new(), Vec::new(), Vec::new());
    let (mut own, mut pictures) = (Vec::new(), Vec::new());
    let (mut limit, mut counting, mut skipped) = (None, None, 0);
    for _ in 0..take_number(&mut rest)? {
        let kind = *take(&mut rest, 1)?.first()?;
        let bytes = take_counted(&mut rest)?;
        match kind {
            EVENT => events.push(read_event(bytes)?),
            MEMBER => states.push(read_member(bytes)?),
            COUNT => states.push(StatePart::read_count(bytes)?),
            VIEWS => states.last_mut()?.add_views(bytes)?,
            MISS => states.push(read_miss(bytes)?),
            NODE => nodes.push(read_node(bytes)?),
            EPOCH => epochs.push(EpochPart::read(bytes)?),
            KEY => keys.push(KeyPart::read(bytes)?),
            LIMIT => limit = Some(LimitPart::read(bytes)?),
            COUNTING => counting = Some(CountingPart::read_unleased(bytes)?),
            NUMBERS => counting = Some(CountingPart::read(bytes)?),
            OWN => own.push(bytes),
            PICTURE => pictures.push(PicturePart::read(bytes)?),
            _ => skipped += 1,
        }
    }
    let is_sound = rest.is_empty() && KeyPart::are_of(&keys, events.len());
    is_sound.then_some(Entry {
        node,
        number,
        app,
        channel,
        events,
        keys,
        states,
        nodes,
        epochs,
        limit,
        counting,
        own,
        pictures,
        skipped,
    })
}

/// Reads an event as [`part`] has written it; `None` if it is malformed.
pub fn read_event(mut rest: &[u8]) -> Option<EventPart<'_>> {
    let flags = *take(&mut rest, 1)?.first()?;
    if flags & !(EXCLUDES | IS_CACHED | CLOSES | IS_REMEMBERED) != 0 {
        return None;
    }
    let mut excluded = None;
    if flags & EXCLUDES != 0 {
        let mut number = || Some(u64::from_le_bytes(take(&mut rest, 8)?.try_into().ok()?));
        excluded = Some([number()?, number()?]);
    }
    if flags & CLOSES != 0 {
        let code = u16::from_le_bytes(take(&mut rest, 2)?.try_into().ok()?);
        let content = PartContent::Close { code, reason: str::from_utf8(rest).ok()? };
        return Some(EventPart { excluded, content });
    }
    let mut remembered_s = None;
    if flags & IS_REMEMBERED != 0 {
        remembered_s = Some(take_number(&mut rest)?.try_into().ok()?);
    }
    let mut cached = None;
    if flags & IS_CACHED != 0 {
        let ttl_ms = take_number(&mut rest)?;
        let (event, data) = (take_text(&mut rest)?, take_text(&mut rest)?);
        cached = Some(CachedPart { ttl_ms, event, data });
    }
    Some(EventPart { excluded, content: PartContent::Frame { remembered_s, cached, frame: rest } })
}

fn read_member(mut rest: &[u8]) -> Option<StatePart<'_>> {
    let flags = take_byte(&mut rest)?;
    let (node, user) = (take_u64(&mut rest)?, take_text(&mut rest)?);
    let present = match flags {
        0 => None,
        _ if flags & IS_PRESENT == 0 || flags & !(IS_PRESENT | HAS_INFO | HAS_FRAMES) != 0 => {
            return None;
        }
        _ => {
            let max = take_number(&mut rest)?;
            let info = match flags & HAS_INFO {
                0 => None,
                _ => Some(take_text(&mut rest)?),
            };
            let frames = match flags & HAS_FRAMES {
                0 => None,
                _ => Some([take_counted(&mut rest)?, std::mem::take(&mut rest)]),
            };
            Some(PresentPart { max, info, frames })
        }
    };
    rest.is_empty().then_some(StatePart::Member { node, user, present })
}

fn read_miss(mut rest: &[u8]) -> Option<StatePart<'_>> {
    let flags = take_byte(&mut rest)?;
    let (node, after) = (take_u64(&mut rest)?, take_number(&mut rest)?);
    let is_sound = flags <= 1 && rest.is_empty();
    is_sound.then_some(StatePart::Miss { node, is_missed: flags == 1, after })
}

fn read_node(mut rest: &[u8]) -> Option<NodePart<'_>> {
    let state = NodePhase::of(take_byte(&mut rest)?)?;
    let node = take_u64(&mut rest)?;
    let renewal = take_number(&mut rest)?;
    let formats = (take_byte(&mut rest)?, take_byte(&mut rest)?);
    let apps = take_u64(&mut rest)?;
    let connections = take_number(&mut rest)?;
    let release = take_text(&mut rest).filter(|it| it.len() <= node::RELEASE_BYTES)?;
    let is_sound = formats.0 <= formats.1;
    is_sound.then_some(NodePart { node, state, renewal, formats, apps, connections, release })
}

#[cfg(test)]
mod tests;
