//! Messages as records of HTTP bodies in place of WebSocket frames, for a request with a streamed
//! body and its streamed response, or for a response that is a stream of server-sent events.

use super::{FrameLimits, MessageKind, Violation, frame, utf8};
use std::fmt;

/// How the records of a body are delimited, by the body's media type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordFraming {
    /// `application/x-ndjson`: each record is a line of JSON. In messages to the client, line
    /// breaks, which are valid only between the tokens of JSON, become spaces.
    Json,
    /// `text/plain`, or any other text type: each record is a line. A message to the client with a
    /// line break in it cannot be sent.
    Lines,
    /// `application/octet-stream`: each record is a length of four bytes, big-endian, and that
    /// number of bytes. The client's records are binary messages; both text and binary messages are
    /// sent to it.
    Lengths,
    /// `text/event-stream`: each record is an event (WHATWG HTML, section 9.2), whose lines of
    /// data are the lines of a text message. A binary message cannot be sent. Only messages to the
    /// client have this framing.
    Events,
}

/// The number of framings.
pub const FRAMINGS: usize = 4;

/// The media type of server-sent events.
pub const EVENT_STREAM: &str = "text/event-stream";

/// The beginning of a stream of events: a comment, which makes proxies pass the head on, and the
/// time in milliseconds after which the client connects again.
const EVENTS_START: &[u8] = b": events\nretry: 1000\n";

/// A heartbeat in a stream of events, which is a comment.
const EVENTS_ALIVE: &[u8] = b": ping\n\n";

/// The length value of a heartbeat, which is not a message, like an empty line in the other
/// framings.
const NO_MESSAGE: u32 = u32::MAX;

/// The size of a length field in bytes.
const LENGTH: usize = 4;

/// The trailer field with the close code and the reason, for which the server ends the response.
pub const TRAILER: &str = "Polycast-Close";

impl RecordFraming {
    /// The framing for bodies of a media type, whose parameters are ignored. `None` if the type has
    /// no framing.
    pub fn of(media_type: &str) -> Option<RecordFraming> {
        let essence = media_type.split(';').next()?.trim().to_ascii_lowercase();
        match essence.as_str() {
            "application/x-ndjson" => Some(RecordFraming::Json),
            "application/octet-stream" => Some(RecordFraming::Lengths),
            text if text.starts_with("text/") => Some(RecordFraming::Lines),
            _ => None,
        }
    }

    /// The media type of the response.
    pub fn media_type(self) -> &'static str {
        match self {
            RecordFraming::Json => "application/x-ndjson",
            RecordFraming::Lines => "text/plain; charset=utf-8",
            RecordFraming::Lengths => "application/octet-stream",
            RecordFraming::Events => EVENT_STREAM,
        }
    }

    /// The framing's number, less than [`FRAMINGS`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// Appends a message as one record in one chunk. False if the framing has no record for the
    /// message: [`RecordFraming::Json`] and [`RecordFraming::Lines`] have none for a binary or
    /// empty message, [`RecordFraming::Lines`] none for one with a line break, and
    /// [`RecordFraming::Events`] none for a binary message.
    pub fn push(self, out: &mut Vec<u8>, kind: MessageKind, payload: &[u8]) -> bool {
        let breaks = |byte: &u8| matches!(byte, b'\n' | b'\r');
        match self {
            RecordFraming::Events => return push_event(out, kind, payload, ""),
            RecordFraming::Lengths => {
                let length = u32::try_from(payload.len()).unwrap_or(NO_MESSAGE);
                if length == NO_MESSAGE {
                    return false;
                }
                push_chunk(out, &[&length.to_be_bytes(), payload]);
            }
            _ if kind == MessageKind::Binary || payload.is_empty() => return false,
            _ if !payload.iter().any(breaks) => {
                push_chunk(out, &[payload, b"\n"]);
            }
            RecordFraming::Lines => return false,
            RecordFraming::Json => {
                let start = out.len() + push_chunk(out, &[payload, b"\n"]);
                out[start..start + payload.len()]
                    .iter_mut()
                    .filter(|byte| breaks(byte))
                    .for_each(|byte| *byte = b' ');
            }
        }
        true
    }

    /// The record of the message in a frozen frame; empty if the framing has no record for it. Of
    /// the framings, only [`RecordFraming::Events`] writes the id.
    pub fn reframe(self, frame: &[u8], id: Option<EventId>) -> Vec<u8> {
        let mut out = Vec::new();
        let Some((opcode, payload)) = frame::split(frame) else { return out };
        let kind =
            if opcode == super::Opcode::Text { MessageKind::Text } else { MessageKind::Binary };
        match self {
            RecordFraming::Events => push_event(&mut out, kind, payload, &line_of(id)),
            _ => self.push(&mut out, kind, payload),
        };
        out
    }

    /// Appends what comes before the first message. `id` is the id that a client of a stream of
    /// events has sent, which it would not send again otherwise until it has received another one
    /// (WHATWG HTML, section 9.2.6: a stream begins without an id). It must be one line.
    pub fn push_start(self, out: &mut Vec<u8>, id: Option<&str>) {
        match (self, id) {
            (RecordFraming::Events, Some(id)) => {
                push_chunk(out, &[EVENTS_START, b"id: ", id.as_bytes(), b"\n\n"]);
            }
            (RecordFraming::Events, None) => {
                push_chunk(out, &[EVENTS_START, b"\n"]);
            }
            _ => {}
        }
    }

    /// Appends a heartbeat, which is not a message.
    pub fn push_alive(self, out: &mut Vec<u8>) {
        match self {
            RecordFraming::Events => push_chunk(out, &[EVENTS_ALIVE]),
            RecordFraming::Json | RecordFraming::Lines => push_chunk(out, &[b"\n"]),
            RecordFraming::Lengths => push_chunk(out, &[&NO_MESSAGE.to_be_bytes()]),
        };
    }
}

/// The id of an event: the number of a stream of events, and the position in it. After a connection
/// was lost, the client sends the id of the last event that it has received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventId {
    /// The number of the stream.
    pub stream: u64,
    /// The serial number of the event.
    pub serial: u64,
}

impl EventId {
    /// Reads an id as [`EventId`] is displayed. `None` if `text` is not such an id.
    pub fn read(text: &str) -> Option<EventId> {
        let (stream, serial) = text.split_once(':')?;
        let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let is_number = serial.bytes().all(|byte| byte.is_ascii_digit())
            && (serial.len() == 1 || !serial.starts_with('0'));
        if stream.len() != 16 || !stream.bytes().all(is_hex) || !is_number {
            return None;
        }
        let stream = u64::from_str_radix(stream, 16).ok()?;
        Some(EventId { stream, serial: serial.parse().ok()? })
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}:{}", self.stream, self.serial)
    }
}

/// The line of an event with its id; empty if it has none.
fn line_of(id: Option<EventId>) -> String {
    id.map(|id| format!("id: {id}\n")).unwrap_or_default()
}

/// Appends an id that is not the id of an event: after a lost connection the client sends this id,
/// unless it has received a later one. It receives no event.
pub(super) fn push_id(out: &mut Vec<u8>, id: EventId) {
    push_chunk(out, &[line_of(Some(id)).as_bytes(), b"\n"]);
}

/// Appends a message as one event in one chunk, after the line `id`, which may be empty; false if
/// the message is binary. Each of CR LF, CR and LF ends a line of data.
pub(super) fn push_event(out: &mut Vec<u8>, kind: MessageKind, payload: &[u8], id: &str) -> bool {
    if kind == MessageKind::Binary {
        return false;
    }
    const DATA: &[u8] = b"data: ";
    let Some(first) = memchr::memchr2(b'\r', b'\n', payload) else {
        push_chunk(out, &[id.as_bytes(), DATA, payload, b"\n\n"]);
        return true;
    };
    let mut event = Vec::with_capacity(id.len() + DATA.len() + payload.len() + 64);
    event.extend_from_slice(id.as_bytes());
    let (mut rest, mut end) = (payload, Some(first));
    while let Some(at) = end {
        event.extend_from_slice(DATA);
        event.extend_from_slice(&rest[..at]);
        event.push(b'\n');
        let length = if rest[at..].starts_with(b"\r\n") { 2 } else { 1 };
        rest = &rest[at + length..];
        end = memchr::memchr2(b'\r', b'\n', rest);
    }
    push_chunk(out, &[&event, DATA, rest, b"\n\n"]);
    true
}

/// Appends the last chunk, and, if `code` is set, the trailer field with this close code (RFC 6455
/// section 7.4) and reason. `code` is `None` if the response ends because the request does.
pub fn push_end(out: &mut Vec<u8>, code: Option<u16>, reason: &str) {
    out.extend_from_slice(b"0\r\n");
    if let Some(code) = code {
        let start = out.len();
        out.extend_from_slice(format!("{TRAILER}: {code} {reason}").trim_end().as_bytes());
        // A control character could end the field and begin another one.
        out[start..]
            .iter_mut()
            .filter(|byte| byte.is_ascii_control())
            .for_each(|byte| *byte = b' ');
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends a chunk (RFC 9112 section 7.1) of these parts. Returns the length of its size line in
/// bytes.
pub(super) fn push_chunk(out: &mut Vec<u8>, parts: &[&[u8]]) -> usize {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let head = format!("{length:x}\r\n");
    out.reserve(head.len() + length + 2);
    out.extend_from_slice(head.as_bytes());
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out.extend_from_slice(b"\r\n");
    head.len()
}

/// Reads the records of one body, which arrives in pieces of any length.
///
/// A record that is whole within a piece is not copied. Of other records, the bytes so far are
/// kept, with the length field where there is one.
#[derive(Debug)]
pub struct Reader {
    framing: RecordFraming,
    buf: Vec<u8>,
    /// A message in `buf` was returned by the last call; the next call empties it.
    given: bool,
}

/// The result of [`Reader::next`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordEvent {
    /// The whole piece was consumed, and no record is complete.
    Need,
    /// A message, whose payload is returned by [`Reader::payload`].
    Message(MessageKind, PayloadPlace),
    /// A heartbeat.
    Alive,
    /// The client has violated the framing or a limit. Nothing more must be read.
    Violation(Violation),
}

/// Where the payload of a message is, from start to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadPlace {
    /// In the piece that was read.
    Piece(usize, usize),
    /// In the reader's buffer.
    Buffer(usize, usize),
}

impl Reader {
    /// A reader at the beginning of a body.
    pub fn new(framing: RecordFraming) -> Reader {
        Reader { framing, buf: Vec::new(), given: false }
    }

    /// The framing of the body.
    pub fn framing(&self) -> RecordFraming {
        self.framing
    }

    /// Whether a record has begun and is not complete.
    pub fn mid_record(&self) -> bool {
        !self.given && !self.buf.is_empty()
    }

    /// The heap bytes that the reader holds.
    pub fn held_bytes(&self) -> usize {
        self.buf.capacity()
    }

    /// Frees the buffer; nothing more is read.
    pub fn discard(&mut self) {
        self.buf = Vec::new();
    }

    /// The payload of the message that the last call of [`Reader::next`] found in `piece`.
    pub fn payload<'a>(&'a mut self, place: PayloadPlace, piece: &'a mut [u8]) -> &'a mut [u8] {
        match place {
            PayloadPlace::Piece(start, end) => &mut piece[start..end],
            PayloadPlace::Buffer(start, end) => &mut self.buf[start..end],
        }
    }

    /// Reads up to the end of the next record. Returns how many bytes of `piece` were consumed, and
    /// the result.
    pub fn next(&mut self, limits: &FrameLimits, piece: &[u8]) -> (usize, RecordEvent) {
        self.take_back();
        match self.framing {
            RecordFraming::Lengths => self.measured(limits, piece),
            _ => self.line(limits, piece),
        }
    }

    /// Reads the end of the body. Bytes after the last line break are a line; an incomplete record
    /// with a length is a violation.
    pub fn end(&mut self, limits: &FrameLimits) -> RecordEvent {
        self.take_back();
        match self.framing {
            _ if self.buf.is_empty() => RecordEvent::Need,
            RecordFraming::Lengths => RecordEvent::Violation(Violation::CutRecord),
            _ => self.line(limits, b"\n").1,
        }
    }

    fn take_back(&mut self) {
        if std::mem::take(&mut self.given) {
            self.buf = Vec::new();
        }
    }

    fn line(&mut self, limits: &FrameLimits, piece: &[u8]) -> (usize, RecordEvent) {
        let max_bytes = usize::try_from(limits.message_bytes).unwrap_or(usize::MAX);
        let Some(at) = piece.iter().position(|&byte| byte == b'\n') else {
            // One byte more, because a carriage return may be the first half of a line break.
            if self.buf.len().saturating_add(piece.len()) > max_bytes.saturating_add(1) {
                return (piece.len(), RecordEvent::Violation(Violation::TooBig));
            }
            self.buf.extend_from_slice(piece);
            return (piece.len(), RecordEvent::Need);
        };
        let whole = self.buf.is_empty();
        if !whole {
            self.buf.extend_from_slice(&piece[..at]);
            self.given = true;
        }
        let line = if whole { &piece[..at] } else { &self.buf[..] };
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let found = match line.len() {
            0 => RecordEvent::Alive,
            len if len > max_bytes => RecordEvent::Violation(Violation::TooBig),
            _ if !utf8::valid(line) => RecordEvent::Violation(Violation::TextNotUtf8),
            len if whole => RecordEvent::Message(MessageKind::Text, PayloadPlace::Piece(0, len)),
            len => RecordEvent::Message(MessageKind::Text, PayloadPlace::Buffer(0, len)),
        };
        (at + 1, found)
    }

    fn measured(&mut self, limits: &FrameLimits, piece: &[u8]) -> (usize, RecordEvent) {
        let mut taken = 0;
        let length = match piece.first_chunk::<LENGTH>() {
            Some(length) if self.buf.is_empty() => {
                taken = LENGTH;
                *length
            }
            _ => {
                taken += self.gather(LENGTH, piece);
                match self.buf.first_chunk::<LENGTH>() {
                    Some(length) => *length,
                    None => return (taken, RecordEvent::Need),
                }
            }
        };
        let number = u32::from_be_bytes(length);
        if number == NO_MESSAGE {
            self.given = true;
            return (taken, RecordEvent::Alive);
        }
        if u64::from(number) > limits.message_bytes {
            return (piece.len(), RecordEvent::Violation(Violation::TooBig));
        }
        let end = number as usize;
        if self.buf.is_empty() && piece.len() - taken >= end {
            let place = PayloadPlace::Piece(taken, taken + end);
            return (taken + end, RecordEvent::Message(MessageKind::Binary, place));
        }
        if self.buf.is_empty() {
            self.buf.extend_from_slice(&length);
        }
        taken += self.gather(LENGTH + end, &piece[taken..]);
        if self.buf.len() < LENGTH + end {
            return (taken, RecordEvent::Need);
        }
        self.given = true;
        (
            taken,
            RecordEvent::Message(MessageKind::Binary, PayloadPlace::Buffer(LENGTH, LENGTH + end)),
        )
    }

    /// Appends bytes of `piece` to `buf` until that has `wanted` bytes. Returns how many were
    /// appended.
    fn gather(&mut self, wanted: usize, piece: &[u8]) -> usize {
        let more = wanted.saturating_sub(self.buf.len()).min(piece.len());
        self.buf.extend_from_slice(&piece[..more]);
        more
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use RecordFraming::{Events, Json, Lengths, Lines};

    const LIMITS: FrameLimits =
        FrameLimits { frame_bytes: 8, message_bytes: 8, fragments: 1, allow_rsv1: false };

    /// The records of a body that arrives in pieces of `size` bytes: messages as text, `.` for a
    /// heartbeat, and the violation at the end, if there is one.
    fn read(framing: RecordFraming, body: &[u8], size: usize) -> String {
        let mut reader = Reader::new(framing);
        let mut records = Vec::new();
        let mut on_event = |reader: &mut Reader, found, piece: &mut [u8]| match found {
            RecordEvent::Need => false,
            RecordEvent::Message(_, place) => {
                records.push(String::from_utf8_lossy(reader.payload(place, piece)).into_owned());
                true
            }
            RecordEvent::Alive => {
                records.push(".".to_owned());
                true
            }
            RecordEvent::Violation(violation) => {
                records.push(format!("{violation:?}"));
                false
            }
        };
        for piece in body.chunks(size) {
            let mut piece = piece.to_vec();
            let mut at = 0;
            loop {
                let (taken, found) = reader.next(&LIMITS, &piece[at..]);
                let goes_on = on_event(&mut reader, found, &mut piece[at..]);
                at += taken;
                if matches!(found, RecordEvent::Violation(_)) {
                    return records.join(",");
                }
                if !goes_on {
                    assert_eq!(at, piece.len(), "all is taken when more is needed");
                    break;
                }
            }
            assert!(reader.held_bytes() <= 64, "memory");
        }
        let found = reader.end(&LIMITS);
        if on_event(&mut reader, found, &mut []) {
            assert_eq!(reader.end(&LIMITS), RecordEvent::Need, "once");
        }
        records.join(",")
    }

    fn check(framing: RecordFraming, body: &[u8], want: &str) {
        for size in 1..=body.len().max(1) {
            assert_eq!(read(framing, body, size), want, "{body:?} by {size}");
        }
    }

    #[test]
    fn record_lines_at_every_cut() {
        check(Lines, b"one\ntwo\r\n\n\r\nlast", "one,two,.,.,last");
        check(Lines, b"", "");
        check(Lines, b"a\rb\n", "a\rb");
        check(Lines, "é\n".as_bytes(), "é");
        check(Json, b"{}\n[1]\n", "{},[1]");
        check(Lines, b"ok\n\xff\nmore\n", "ok,TextNotUtf8");
        check(Lines, b"\xc3", "TextNotUtf8");
    }

    #[test]
    fn record_lines_are_bounded() {
        check(Lines, b"12345678\n", "12345678");
        check(Lines, b"12345678\r\n", "12345678");
        check(Lines, b"12345678", "12345678");
        check(Lines, b"123456789\n", "TooBig");
        check(Lines, b"123456789", "TooBig");
        check(Lines, b"1234567890", "TooBig");
    }

    #[test]
    fn record_lengths_at_every_cut() {
        check(Lengths, b"\0\0\0\x03one\0\0\0\0\0\0\0\x02ab", "one,,ab");
        check(Lengths, b"\xff\xff\xff\xff\0\0\0\x01x\xff\xff\xff\xff", ".,x,.");
        check(Lengths, b"\0\0\0\x0812345678", "12345678");
        check(Lengths, b"\0\0\0\x09123456789", "TooBig");
        check(Lengths, b"\xff\xff\xff\xfe", "TooBig");
        check(Lengths, b"\0\0\0\x03on", "CutRecord");
        check(Lengths, b"\0\0", "CutRecord");
    }

    fn check_push(framing: RecordFraming, kind: MessageKind, payload: &[u8], want: Option<&[u8]>) {
        let mut out = b"before".to_vec();
        assert_eq!(framing.push(&mut out, kind, payload), want.is_some(), "{payload:?}");
        assert_eq!(&out[6..], want.unwrap_or_default());
        let opcode = if kind == MessageKind::Text {
            super::super::Opcode::Text
        } else {
            super::super::Opcode::Binary
        };
        let id = (framing != Events).then_some(EventId { stream: 1, serial: 2 });
        assert_eq!(framing.reframe(&frame::frozen(opcode, payload), id), want.unwrap_or_default());
    }

    #[test]
    fn record_is_one_chunk() {
        check_push(Lines, MessageKind::Text, b"hello", Some(b"6\r\nhello\n\r\n"));
        check_push(Lines, MessageKind::Text, b"two\nlines", None);
        check_push(Lines, MessageKind::Text, b"a\r", None);
        check_push(Lines, MessageKind::Text, b"", None);
        check_push(Lines, MessageKind::Binary, b"x", None);
        check_push(Json, MessageKind::Text, b"{\r\n}", Some(b"5\r\n{  }\n\r\n"));
        check_push(Json, MessageKind::Text, b"[\n10,\n\"a\"\n]", Some(b"c\r\n[ 10, \"a\" ]\n\r\n"));
        check_push(Json, MessageKind::Text, b"", None);
        check_push(Json, MessageKind::Binary, b"{}", None);
        check_push(Lengths, MessageKind::Binary, b"\n", Some(b"5\r\n\0\0\0\x01\n\r\n"));
        check_push(Lengths, MessageKind::Text, b"", Some(b"4\r\n\0\0\0\0\r\n"));
    }

    /// An event has one line of data for each line of the message, whichever line break ends it,
    /// and the client joins the lines with LF.
    #[test]
    fn record_event_has_a_line_of_data_for_each_line() {
        for (payload, data) in [
            ("", "data: \n"),
            ("one", "data: one\n"),
            (" x:y", "data:  x:y\n"),
            ("a\nb", "data: a\ndata: b\n"),
            ("a\rb", "data: a\ndata: b\n"),
            ("a\r\nb", "data: a\ndata: b\n"),
            ("a\n\rb", "data: a\ndata: \ndata: b\n"),
            ("a\r\r\nb", "data: a\ndata: \ndata: b\n"),
            ("\n", "data: \ndata: \n"),
            ("a\r\n", "data: a\ndata: \n"),
            ("a\r", "data: a\ndata: \n"),
            ("é\u{2028}\u{85}", "data: é\u{2028}\u{85}\n"),
            ("id: 1\n\nevent: x", "data: id: 1\ndata: \ndata: event: x\n"),
        ] {
            let chunk = format!("{:x}\r\n{data}\n\r\n", data.len() + 1);
            check_push(Events, MessageKind::Text, payload.as_bytes(), Some(chunk.as_bytes()));
            let frame = frame::frozen(super::super::Opcode::Text, payload.as_bytes());
            let id = "id: 000000000000002a:7\n";
            let chunk = format!("{:x}\r\n{id}{data}\n\r\n", id.len() + data.len() + 1);
            let record = Events.reframe(&frame, Some(EventId { stream: 42, serial: 7 }));
            assert_eq!(String::from_utf8(record), Ok(chunk), "{payload:?}");
        }
        check_push(Events, MessageKind::Binary, b"x", None);
        check_push(Events, MessageKind::Binary, b"", None);
    }

    #[test]
    fn record_event_id_is_read_as_it_is_written() {
        for id in [
            EventId { stream: 0, serial: 0 },
            EventId { stream: 0x2a, serial: 41 },
            EventId { stream: u64::MAX, serial: u64::MAX },
        ] {
            assert_eq!(EventId::read(&id.to_string()), Some(id), "{id}");
        }
        assert_eq!(EventId { stream: 0x2a, serial: 41 }.to_string(), "000000000000002a:41");
        for text in [
            "",
            ":",
            "000000000000002a",
            "000000000000002a:",
            "00000000000002a:41",
            "0000000000000002a:41",
            "000000000000002A:41",
            "+00000000000002a:41",
            "000000000000002a:041",
            "000000000000002a:+41",
            "000000000000002a:18446744073709551616",
            "000000000000002a:41 ",
            "000000000000002a:4:1",
        ] {
            assert_eq!(EventId::read(text), None, "{text}");
        }
    }

    #[test]
    fn record_heartbeats_and_ends() {
        let written = |write: &dyn Fn(&mut Vec<u8>)| {
            let mut out = Vec::new();
            write(&mut out);
            out
        };
        assert_eq!(written(&|out| Json.push_alive(out)), b"1\r\n\n\r\n");
        assert_eq!(written(&|out| Lengths.push_alive(out)), b"4\r\n\xff\xff\xff\xff\r\n");
        assert_eq!(written(&|out| Events.push_alive(out)), b"8\r\n: ping\n\n\r\n");
        let start = b"16\r\n: events\nretry: 1000\n\n\r\n";
        assert_eq!(written(&|out| Events.push_start(out, None)), start);
        let start = b"1c\r\n: events\nretry: 1000\nid: x\n\n\r\n";
        assert_eq!(written(&|out| Events.push_start(out, Some("x"))), start);
        assert_eq!(written(&|out| Json.push_start(out, Some("x"))), b"");
        assert_eq!(written(&|out| push_end(out, None, "")), b"0\r\n\r\n");
        assert_eq!(
            written(&|out| push_end(out, Some(1008), "a\r\nB: c")),
            b"0\r\nPolycast-Close: 1008 a  B: c\r\n\r\n"
        );
        assert_eq!(
            written(&|out| push_end(out, Some(1000), "")),
            b"0\r\nPolycast-Close: 1000\r\n\r\n"
        );
    }

    #[test]
    fn record_media_types() {
        for (text, framing) in [
            ("application/x-ndjson", Some(Json)),
            ("Application/X-NDJSON; charset=utf-8", Some(Json)),
            ("text/plain", Some(Lines)),
            ("text/csv ;header=absent", Some(Lines)),
            ("application/octet-stream", Some(Lengths)),
            ("application/json", None),
            ("application/x-www-form-urlencoded", None),
            ("", None),
        ] {
            assert_eq!(RecordFraming::of(text), framing, "{text}");
        }
        for framing in [Json, Lines, Lengths] {
            assert_eq!(RecordFraming::of(framing.media_type()), Some(framing));
            assert!(framing.index() < FRAMINGS);
        }
        assert!(Events.index() < FRAMINGS);
        assert_eq!(Events.media_type(), EVENT_STREAM);
    }
}
