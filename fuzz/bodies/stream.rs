//! A streamed body gives the same messages however it is cut, and each can be written as a record.

use super::pieces;
use polycast::http::{self, Body, BodyChunk};
use polycast::ws::record::{Reader, RecordEvent, RecordFraming};
use polycast::ws::{FrameLimits, MessageKind};

pub(crate) fn run(data: &[u8]) {
    let Some((&[flags, seed], stream)) = data.split_first_chunk::<2>() else { return };
    let framing = match flags & 3 {
        0 => RecordFraming::Json,
        1 => RecordFraming::Lines,
        _ => RecordFraming::Lengths,
    };
    let limits = match flags & 4 {
        0 => FrameLimits::default(),
        _ => FrameLimits { message_bytes: 20, ..FrameLimits::default() },
    };
    let whole = message(framing, &limits, &[stream]);
    assert_eq!(message(framing, &limits, &pieces(stream, seed)), whole, "in pieces");
    let single: Vec<&[u8]> = stream.chunks(1).collect();
    assert_eq!(message(framing, &limits, &single), whole, "octet by octet");
    // In chunks of any size it is the same, up to the first error.
    let size = usize::from(seed) + 1;
    let mut chunked = Vec::new();
    for piece in stream.chunks(size) {
        chunked.extend_from_slice(format!("{:x};a=b\r\n", piece.len()).as_bytes());
        chunked.extend_from_slice(piece);
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    assert_eq!(unchunked(&chunked, seed), Some(stream.to_vec()));
    // Any bytes in place of chunks cause no panic.
    let _ = unchunked(stream, seed);
}

/// Checks that an event has the lines of the message, and that nothing in the message is a field of
/// its own.
fn check_event(kind: MessageKind, payload: &[u8]) {
    let mut record = Vec::new();
    let is_text = kind == MessageKind::Text;
    assert_eq!(RecordFraming::Events.push(&mut record, kind, payload), is_text);
    if !is_text {
        return;
    }
    let record = String::from_utf8(record).expect("text");
    let (_, event) = record.split_once("\r\n").expect("a chunk");
    let event = event.strip_suffix("\n\n\r\n").expect("the end of an event");
    let lines = event.split('\n').map(|line| line.strip_prefix("data: ").expect("data"));
    let text = std::str::from_utf8(payload).expect("text");
    let breaks = text.replace("\r\n", "\n").replace('\r', "\n");
    assert_eq!(lines.collect::<Vec<_>>().join("\n"), breaks);
}

/// The outcome: messages, keep-alive records and errors. Each message is written back as a record.
fn message(framing: RecordFraming, limits: &FrameLimits, pieces: &[&[u8]]) -> Vec<String> {
    let mut reader = Reader::new(framing);
    let mut message = Vec::new();
    for piece in pieces {
        let mut bytes = piece.to_vec();
        let mut at = 0;
        loop {
            let (taken, found) = reader.next(limits, &bytes[at..]);
            match found {
                RecordEvent::Message(kind, place) => {
                    let payload = reader.payload(place, &mut bytes[at..]);
                    message.push(format!("{kind:?} {payload:?}"));
                    let mut record = Vec::new();
                    let output = framing.push(&mut record, kind, payload);
                    assert!(output || payload.contains(&b'\r'), "{payload:?}");
                    check_event(kind, payload);
                }
                RecordEvent::Violation(_) => {
                    message.push(format!("{found:?}"));
                    return message;
                }
                RecordEvent::Alive => message.push("alive".to_owned()),
                RecordEvent::Need => {}
            }
            at += taken;
            if found == RecordEvent::Need {
                break;
            }
        }
        assert_eq!(at, bytes.len(), "all is taken when more is needed");
        assert!(reader.held_bytes() as u64 <= 2 * limits.message_bytes + 1024, "memory");
    }
    match reader.end(limits) {
        RecordEvent::Need => {}
        RecordEvent::Message(kind, place) => {
            message.push(format!("{kind:?} {:?}", reader.payload(place, &mut [])));
        }
        found => message.push(format!("{found:?}").to_lowercase()),
    }
    message
}

/// The data of a body of chunks, if it is well-formed and whole.
fn unchunked(chunks: &[u8], seed: u8) -> Option<Vec<u8>> {
    let mut body = chunked_body()?;
    let mut data = Vec::new();
    for piece in pieces(chunks, seed) {
        let mut at = 0;
        while at < piece.len() && !body.has_ended() {
            let BodyChunk { from, to } = body.look(64, &piece[at..]).ok()?;
            assert!(from <= to && to <= piece.len() - at);
            data.extend_from_slice(&piece[at + from..at + to]);
            body.took(to - from);
            at += to.max(1).min(piece.len() - at);
        }
    }
    body.has_ended().then_some(data)
}

fn chunked_body() -> Option<Body> {
    let mut head = *b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut reader = http::Reader::new();
    reader.offer(true);
    match reader.next(&http::HeadLimits::default(), &mut head) {
        (_, http::RequestEvent::Head(_, body)) => Some(body),
        _ => None,
    }
}
