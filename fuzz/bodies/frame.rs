//! A stream of frames says the same however it is cut.

use super::pieces;
use polycast::ws::{Event, Limits, Reader, Role};

pub(crate) fn run(data: &[u8]) {
    let Some((&[flags, seed], stream)) = data.split_first_chunk::<2>() else { return };
    let role = if flags & 1 == 0 { Role::Server } else { Role::Client };
    let limits = match flags & 2 {
        0 => Limits::default(),
        _ => Limits { frame_bytes: 200, message_bytes: 300, fragments: 3, allow_rsv1: true },
    };
    let whole = told(role, &limits, &[stream]);
    assert_eq!(told(role, &limits, &pieces(stream, seed)), whole, "in pieces");
    let single: Vec<&[u8]> = stream.chunks(1).collect();
    assert_eq!(told(role, &limits, &single), whole, "octet by octet");
}

/// What an event says, and its payload if it is a message.
pub(super) type Told = (String, Vec<u8>);

pub(super) fn tell(event: &Event<'_>) -> Told {
    match event {
        Event::Message { kind, compressed, payload } => {
            (format!("{kind:?} {compressed}"), payload.to_vec())
        }
        event => (format!("{event:?}"), Vec::new()),
    }
}

pub(super) fn told(role: Role, limits: &Limits, pieces: &[&[u8]]) -> Vec<Told> {
    let mut reader = Reader::new();
    let mut told = Vec::new();
    for piece in pieces {
        let mut bytes = piece.to_vec();
        let mut at = 0;
        loop {
            let (taken, event) = reader.next(role, limits, &mut bytes[at..]);
            at += taken;
            match event {
                Event::Need => break,
                event => told.push(tell(&event)),
            }
        }
        assert_eq!(at, bytes.len(), "all is taken when more is needed");
        assert!(reader.held_bytes() as u64 <= 2 * limits.message_bytes + 1024, "memory");
    }
    told
}
