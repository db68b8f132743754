//! The bytes between a process and the one that replaces it.
//!
//! ```text
//! record   = number of bytes(4) kind(1) content
//! kept     = app channel flags(1) [left_ms(8) event data frame]
//!            [stream(8) serial(8) count(4) {left_ms(8) frame}]
//! proposed = number(8) flags(1) app channel part
//! ordered  = position app channel part
//! own      = number(8) position
//! refused  = number(8)
//! position = stream(8) serial(8), or zeros if there is none
//! ```
//!
//! Integers are little-endian; a text, a frame and a part follow the number of their bytes (4). A
//! part is one of an entry of a cluster's log ([`crate::cluster::entry`]).

use crate::cluster::entry::{self, EventPart};
use crate::hub::{CacheEntry, KeptChannel, KeptHistory, StreamPosition};
use crate::mem::Frozen;
use std::sync::Arc;

/// The version of these bytes. Two processes with different ones exchange nothing.
pub(crate) const RELAY_VERSION: u32 = 1;
/// The maximum number of bytes of a record.
pub(super) const RECORD_MAX: usize = 256 * 1024 * 1024;

const KEPT: u8 = 1;
const KEPT_END: u8 = 2;
const PROPOSED: u8 = 3;
const ORDERED: u8 = 4;
const OWN: u8 = 5;
const REFUSED: u8 = 6;

const HAS_CACHED: u8 = 1;
const HAS_HISTORY: u8 = 2;

/// What one process sends to the other.
#[derive(Debug)]
pub(super) enum Record<'r> {
    /// What a channel of the application with this id keeps; the number in it is not set.
    Kept(&'r str, KeptChannel),
    /// Everything that is kept was sent.
    KeptEnd,
    /// An event that the replacement is to order.
    Proposed {
        number: u64,
        /// Whether it belongs into the channel's history.
        in_history: bool,
        event: ChannelPart<'r>,
    },
    /// An event that the replacement has ordered.
    Ordered { position: Option<StreamPosition>, event: ChannelPart<'r> },
    /// The proposal with this number is ordered.
    Own { number: u64, position: Option<StreamPosition> },
    /// The proposal with this number is of an application that the replacement does not have.
    Refused { number: u64 },
}

/// An event as a part of an entry, with its channel.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ChannelPart<'r> {
    /// The application's id.
    pub(super) app: &'r str,
    pub(super) channel: &'r str,
    pub(super) part: &'r [u8],
}

impl<'r> ChannelPart<'r> {
    /// The event; `None` if it is malformed.
    pub(super) fn event(&self) -> Option<EventPart<'r>> {
        entry::read_event(self.part)
    }
}

/// Appends a record.
///
/// # Errors
/// It would be longer than [`RECORD_MAX`], and is left out.
pub(super) fn write(out: &mut Vec<u8>, record: &Record<'_>) -> Result<(), ()> {
    let begin = out.len();
    out.extend_from_slice(&[0; 4]);
    match record {
        Record::Kept(app, kept) => {
            out.push(KEPT);
            write_kept(out, app, kept);
        }
        Record::KeptEnd => out.push(KEPT_END),
        Record::Proposed { number, in_history, event } => {
            out.push(PROPOSED);
            out.extend_from_slice(&number.to_le_bytes());
            out.push((*in_history).into());
            write_part(out, event);
        }
        Record::Ordered { position, event } => {
            out.push(ORDERED);
            write_position(out, *position);
            write_part(out, event);
        }
        Record::Own { number, position } => {
            out.push(OWN);
            out.extend_from_slice(&number.to_le_bytes());
            write_position(out, *position);
        }
        Record::Refused { number } => {
            out.push(REFUSED);
            out.extend_from_slice(&number.to_le_bytes());
        }
    }
    let bytes = out.len() - begin - 4;
    if bytes > RECORD_MAX {
        out.truncate(begin);
        return Err(());
    }
    out[begin..begin + 4].copy_from_slice(&(bytes as u32).to_le_bytes());
    Ok(())
}

fn write_part(out: &mut Vec<u8>, event: &ChannelPart<'_>) {
    write_bytes(out, event.app.as_bytes());
    write_bytes(out, event.channel.as_bytes());
    write_bytes(out, event.part);
}

fn write_position(out: &mut Vec<u8>, position: Option<StreamPosition>) {
    let StreamPosition { stream, serial } =
        position.unwrap_or(StreamPosition { stream: 0, serial: 0 });
    out.extend_from_slice(&stream.to_le_bytes());
    out.extend_from_slice(&serial.to_le_bytes());
}

fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn write_kept(out: &mut Vec<u8>, app: &str, kept: &KeptChannel) {
    write_bytes(out, app.as_bytes());
    write_bytes(out, kept.name.as_bytes());
    let has_cached = if kept.cached.is_some() { HAS_CACHED } else { 0 };
    out.push(has_cached | if kept.history.is_some() { HAS_HISTORY } else { 0 });
    if let Some((frame, entry)) = &kept.cached {
        out.extend_from_slice(&entry.ttl_ms.to_le_bytes());
        write_bytes(out, entry.event.as_bytes());
        write_bytes(out, entry.data.as_bytes());
        write_bytes(out, frame);
    }
    if let Some(KeptHistory { position, events }) = &kept.history {
        write_position(out, Some(*position));
        out.extend_from_slice(&(events.len() as u32).to_le_bytes());
        for (frame, left_ms) in events {
            out.extend_from_slice(&left_ms.to_le_bytes());
            write_bytes(out, frame);
        }
    }
}

/// The number of bytes of the first record with its head, if its head is there.
///
/// # Errors
/// The record would be too long.
pub(super) fn length(bytes: &[u8]) -> Result<Option<usize>, ()> {
    let Some(head) = bytes.first_chunk() else { return Ok(None) };
    let length = u32::from_le_bytes(*head) as usize;
    if length > RECORD_MAX { Err(()) } else { Ok(Some(4 + length)) }
}

/// Reads a record without the number of its bytes; `None` if it is malformed.
pub(super) fn read(bytes: &[u8]) -> Option<Record<'_>> {
    let mut rest = bytes;
    let record = match take_byte(&mut rest)? {
        KEPT => read_kept(&mut rest)?,
        KEPT_END => Record::KeptEnd,
        PROPOSED => {
            let number = take_number(&mut rest)?;
            let in_history = take_byte(&mut rest)? != 0;
            Record::Proposed { number, in_history, event: take_part(&mut rest)? }
        }
        ORDERED => {
            let position = take_position(&mut rest)?;
            Record::Ordered { position, event: take_part(&mut rest)? }
        }
        OWN => {
            let number = take_number(&mut rest)?;
            Record::Own { number, position: take_position(&mut rest)? }
        }
        REFUSED => Record::Refused { number: take_number(&mut rest)? },
        _ => return None,
    };
    rest.is_empty().then_some(record)
}

fn read_kept<'r>(rest: &mut &'r [u8]) -> Option<Record<'r>> {
    let app = take_text(rest)?;
    let name: Arc<str> = take_text(rest)?.into();
    let flags = take_byte(rest)?;
    let mut kept = KeptChannel { app: 0, name, cached: None, history: None };
    if flags & HAS_CACHED != 0 {
        let ttl_ms = take_number(rest)?;
        let (event, data) = (take_text(rest)?.into(), take_text(rest)?.into());
        let frame = Frozen::new(take_counted(rest)?);
        kept.cached = Some((frame, CacheEntry { ttl_ms, event, data }));
    }
    if flags & HAS_HISTORY != 0 {
        let position = take_position(rest)?.unwrap_or(StreamPosition { stream: 0, serial: 0 });
        let count = u32::from_le_bytes(*take(rest, 4)?.first_chunk()?);
        let mut events = Vec::new();
        for _ in 0..count {
            let left_ms = take_number(rest)?;
            events.push((Frozen::new(take_counted(rest)?), left_ms));
        }
        kept.history = Some(KeptHistory { position, events });
    }
    Some(Record::Kept(app, kept))
}

fn take<'r>(rest: &mut &'r [u8], count: usize) -> Option<&'r [u8]> {
    let (taken, behind) = rest.split_at_checked(count)?;
    *rest = behind;
    Some(taken)
}

fn take_byte(rest: &mut &[u8]) -> Option<u8> {
    take(rest, 1)?.first().copied()
}

fn take_number(rest: &mut &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(*take(rest, 8)?.first_chunk()?))
}

fn take_counted<'r>(rest: &mut &'r [u8]) -> Option<&'r [u8]> {
    let count = u32::from_le_bytes(*take(rest, 4)?.first_chunk()?);
    take(rest, count as usize)
}

fn take_text<'r>(rest: &mut &'r [u8]) -> Option<&'r str> {
    str::from_utf8(take_counted(rest)?).ok()
}

fn take_part<'r>(rest: &mut &'r [u8]) -> Option<ChannelPart<'r>> {
    let (app, channel) = (take_text(rest)?, take_text(rest)?);
    Some(ChannelPart { app, channel, part: take_counted(rest)? })
}

fn take_position(rest: &mut &[u8]) -> Option<Option<StreamPosition>> {
    let (stream, serial) = (take_number(rest)?, take_number(rest)?);
    Some(((stream, serial) != (0, 0)).then_some(StreamPosition { stream, serial }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::entry::PartContent;

    const POSITION: Option<StreamPosition> = Some(StreamPosition { stream: 7, serial: u64::MAX });

    fn part() -> Vec<u8> {
        let content = PartContent::Frame { remembered_s: None, cached: None, frame: b"frame" };
        entry::part(&EventPart { excluded: Some([1, 2]), content })
    }

    fn kept() -> KeptChannel {
        let entry = CacheEntry { ttl_ms: 9, event: "e".into(), data: "d".into() };
        let frame = Frozen::new;
        KeptChannel {
            app: 3,
            name: "c".into(),
            cached: Some((frame(b"cached"), entry)),
            history: Some(KeptHistory {
                position: StreamPosition { stream: 1, serial: 2 },
                events: vec![(frame(b"one"), 5), (frame(b""), 6)],
            }),
        }
    }

    /// One record of each kind, and a kept channel with each half.
    fn all(part: &[u8]) -> Vec<Record<'_>> {
        let event = || ChannelPart { app: "1", channel: "c", part };
        vec![
            Record::Kept("1", kept()),
            Record::Kept("1", KeptChannel { cached: None, ..kept() }),
            Record::Kept("1", KeptChannel { history: None, ..kept() }),
            Record::KeptEnd,
            Record::Proposed { number: 1, in_history: true, event: event() },
            Record::Proposed { number: u64::MAX, in_history: false, event: event() },
            Record::Ordered { position: POSITION, event: event() },
            Record::Ordered { position: None, event: event() },
            Record::Own { number: 3, position: POSITION },
            Record::Refused { number: 4 },
        ]
    }

    #[test]
    fn relay_records_are_read_as_they_were_written() {
        let part = part();
        let mut out = Vec::new();
        all(&part).iter().for_each(|record| write(&mut out, record).unwrap());
        let (mut rest, mut read_back) = (&out[..], Vec::new());
        while let Ok(Some(length)) = length(rest) {
            // The number of a kept channel's application is that of the reader.
            let text = format!("{:?}", read(&rest[4..length]).unwrap());
            read_back.push(text.replace("app: 0,", "app: 3,"));
            rest = &rest[length..];
        }
        let written: Vec<String> = all(&part).iter().map(|it| format!("{it:?}")).collect();
        assert_eq!(read_back, written);
        assert!(rest.is_empty());
    }

    #[test]
    fn relay_records_that_are_cut_or_too_long_are_malformed() {
        let part = part();
        for record in all(&part) {
            let mut out = Vec::new();
            write(&mut out, &record).unwrap();
            let body = &out[4..];
            for cut in 0..body.len() {
                assert!(read(&body[..cut]).is_none(), "{record:?} at {cut}");
            }
            let longer = [body, b"x"].concat();
            assert!(read(&longer).is_none(), "{record:?}");
        }
        assert!(read(&[99]).is_none(), "an unknown kind");
        let head = |length: usize| (length as u32).to_le_bytes();
        assert_eq!(length(&head(RECORD_MAX)), Ok(Some(RECORD_MAX + 4)));
        assert_eq!(length(&head(RECORD_MAX + 1)), Err(()));
        assert_eq!(length(&head(1)[..3]), Ok(None));
    }
}
