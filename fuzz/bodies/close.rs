//! Payloads of close frames, read and written, and the closing handshake.

use super::{Script, pieces};
use polycast::ws::close::{self, CloseHandshake};
use polycast::ws::{FrameEvent, FrameLimits, Opcode, Reader, Role, Violation, frame};

pub(crate) fn run(data: &[u8]) {
    let Some((&[shape, seed], rest)) = data.split_first_chunk::<2>() else { return };
    match shape % 3 {
        0 => read(rest, seed),
        1 => write(rest),
        _ => shake(rest),
    }
}

/// The ranges of RFC 6455 section 7.4 and of the registry.
fn may_be_sent(code: u16) -> bool {
    (1000..=4999).contains(&code) && !(1015..3000).contains(&code) && !(1004..=1006).contains(&code)
}

fn read(payload: &[u8], seed: u8) {
    let want = match payload {
        [] => Ok((None, "")),
        [_] => Err(Violation::HalfCloseCode),
        [high, low, reason @ ..] => match (u16::from_be_bytes([*high, *low]), reason) {
            (code, _) if !may_be_sent(code) => Err(Violation::CloseCode(code)),
            (code, reason) => match str::from_utf8(reason) {
                Ok(reason) => Ok((Some(code), reason)),
                Err(_) => Err(Violation::ReasonNotUtf8),
            },
        },
    };
    assert_eq!(close::parse(payload), want);
    if payload.len() > 125 {
        return;
    }
    if let Ok((Some(code), reason)) = want {
        assert_eq!(&close::payload(code, reason)[..], payload, "written again");
    }
    let mut stream = Vec::new();
    frame::push(&mut stream, Opcode::Close, payload, Some([seed, 2, 3, 4]));
    let want = match want {
        Ok((code, reason)) => FrameEvent::Close { code, reason },
        Err(violation) => FrameEvent::Violation(violation),
    };
    let mut reader = Reader::new();
    let mut received = false;
    for piece in pieces(&stream, seed) {
        let mut piece = piece.to_vec();
        let (taken, event) = reader.next(Role::Server, &FrameLimits::default(), &mut piece);
        if event != FrameEvent::Need {
            assert_eq!(event, want);
            assert!(!std::mem::replace(&mut received, true), "told twice");
        }
        assert_eq!(taken, piece.len(), "nothing is left behind a close frame");
    }
    assert!(received);
}

fn write(data: &[u8]) {
    let Some((code, reason)) = data.split_first_chunk::<2>() else { return };
    let (code, reason) = (u16::from_be_bytes(*code), String::from_utf8_lossy(reason));
    assert_eq!(close::on_the_wire(code), may_be_sent(code));
    let payload = close::payload(code, &reason);
    if !may_be_sent(code) {
        return assert!(payload.is_empty());
    }
    let Ok((Some(back), kept)) = close::parse(&payload) else { panic!("{payload:?}") };
    assert_eq!(back, code);
    let cut = reason.strip_prefix(kept).expect("the beginning of the reason");
    // Cut only where the next character would not fit.
    let next = cut.chars().next().map_or(124, |it| kept.len() + it.len_utf8());
    assert!(kept.len() <= 123 && next > 123, "{} of {}", kept.len(), reason.len());
}

/// Each side's one close frame, noted as two facts.
fn shake(data: &[u8]) {
    let mut handshake = CloseHandshake::default();
    let (mut sent, mut received) = (false, false);
    let mut script = Script(data);
    while let Some(op) = script.byte() {
        if op & 1 == 0 {
            assert_eq!(handshake.send(), !sent);
            sent = true;
        } else {
            assert_eq!(handshake.receive(), !received && !sent, "what is owed");
            received = true;
        }
        assert_eq!(handshake.may_send_data(), !sent && !received);
        assert_eq!(handshake == CloseHandshake::Done, sent && received);
    }
}
