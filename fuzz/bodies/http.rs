//! A stream of requests gives the same requests however it is cut.

use super::pieces;
use polycast::http::{HeadLimits, Reader, RequestEvent};

pub(crate) fn run(data: &[u8]) {
    let Some((&[flags, seed], stream)) = data.split_first_chunk::<2>() else { return };
    let limits = match flags & 1 {
        0 => HeadLimits::default(),
        _ => HeadLimits { head_bytes: 128, body_bytes: 64, ..HeadLimits::default() },
    };
    let offers = flags & 2 != 0;
    let whole = message(&limits, offers, &[stream]);
    assert_eq!(message(&limits, offers, &pieces(stream, seed)), whole, "in pieces");
    let single: Vec<&[u8]> = stream.chunks(1).collect();
    assert_eq!(message(&limits, offers, &single), whole, "octet by octet");
}

fn message(limits: &HeadLimits, offers: bool, pieces: &[&[u8]]) -> Vec<String> {
    let mut reader = Reader::new();
    reader.offer(offers);
    let mut message = Vec::new();
    for piece in pieces {
        let mut bytes = piece.to_vec();
        let mut at = 0;
        loop {
            let (taken, event) = reader.next(limits, &mut bytes[at..]);
            at += taken;
            match event {
                RequestEvent::Need => break,
                // Whether the body was there when it was asked for.
                RequestEvent::Continue => {}
                RequestEvent::Head(head, _) => {
                    message.push(format!("{} {:?}", head.target, head.headers))
                }
                RequestEvent::Bad(error) => message.push(format!("{error:?}")),
                RequestEvent::Request(request) => message.push(format!(
                    "{} {} {} {:?} {:?} {:?} {:?}",
                    request.method,
                    request.path(),
                    request.query(),
                    request.authority(),
                    request.connection(),
                    request.headers,
                    request.body,
                )),
            }
        }
        assert_eq!(at, bytes.len(), "all is taken when more is needed");
    }
    message
}
