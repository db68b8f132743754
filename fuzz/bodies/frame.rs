//! A stream of frames gives the same events however it is cut.

use super::pieces;
use polycast::ws::{FrameEvent, FrameLimits, Reader, Role};

pub(crate) fn run(data: &[u8]) {
    let Some((&[flags, seed], stream)) = data.split_first_chunk::<2>() else { return };
    let role = if flags & 1 == 0 { Role::Server } else { Role::Client };
    let limits = match flags & 2 {
        0 => FrameLimits::default(),
        _ => FrameLimits { frame_bytes: 200, message_bytes: 300, fragments: 3, allow_rsv1: true },
    };
    let whole = message(role, &limits, &[stream]);
    assert_eq!(message(role, &limits, &pieces(stream, seed)), whole, "in pieces");
    let single: Vec<&[u8]> = stream.chunks(1).collect();
    assert_eq!(message(role, &limits, &single), whole, "octet by octet");
}

/// The kind of an event, and its payload if it is a message.
pub(super) type OwnedEvent = (String, Vec<u8>);

pub(super) fn describe(event: &FrameEvent<'_>) -> OwnedEvent {
    match event {
        FrameEvent::Message { kind, compressed, payload } => {
            (format!("{kind:?} {compressed}"), payload.to_vec())
        }
        event => (format!("{event:?}"), Vec::new()),
    }
}

pub(super) fn message(role: Role, limits: &FrameLimits, pieces: &[&[u8]]) -> Vec<OwnedEvent> {
    let mut reader = Reader::new();
    let mut message = Vec::new();
    for piece in pieces {
        let mut bytes = piece.to_vec();
        let mut at = 0;
        loop {
            let (taken, event) = reader.next(role, limits, &mut bytes[at..]);
            at += taken;
            match event {
                FrameEvent::Need => break,
                event => message.push(describe(&event)),
            }
        }
        assert_eq!(at, bytes.len(), "all is taken when more is needed");
        assert!(reader.held_bytes() as u64 <= 2 * limits.message_bytes + 1024, "memory");
    }
    message
}
