//! A naive reader of complete streams: it buffers everything, reads one octet at a time and uses
//! only the standard library. Every reader must report the same events, however the stream is cut.

use polycast::ws::{FrameLimits, MessageKind, Opcode, Reader, Role, Violation, close, frame};
use proptest::prelude::*;

use super::{KEY, OwnedEvent};

struct Stream<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Stream<'_> {
    /// The next octet, or `None` at the end of the stream.
    fn octet(&mut self) -> Option<u8> {
        let octet = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(octet)
    }
}

struct Head {
    fin: bool,
    opcode: u8,
    rsv1: bool,
    key: [u8; 4],
    len: u64,
}

struct Open {
    kind: MessageKind,
    compressed: bool,
    payload: Vec<u8>,
    frames: u32,
}

/// The events of the stream, up to its end or to the first violation.
pub(super) fn read(role: Role, limits: &FrameLimits, bytes: &[u8]) -> Vec<OwnedEvent> {
    let mut received = Vec::new();
    let mut open = None;
    let mut stream = Stream { bytes, at: 0 };
    loop {
        match next(role, limits, &mut stream, &mut open) {
            Err(violation) => received.push(OwnedEvent::Violation(violation)),
            Ok(None) => {}
            Ok(Some(Some(event))) => {
                let closed = matches!(event, OwnedEvent::Close(..));
                received.push(event);
                if !closed {
                    continue;
                }
            }
            Ok(Some(None)) => continue,
        }
        return received;
    }
}

type Parsed<T> = Result<Option<T>, Violation>;

fn next(
    role: Role,
    limits: &FrameLimits,
    stream: &mut Stream<'_>,
    open: &mut Option<Open>,
) -> Parsed<Option<OwnedEvent>> {
    let Some(head) = head(role, limits, stream, open)? else {
        return Ok(None);
    };
    if head.opcode >= 8 {
        return control(&head, stream);
    }
    let message = open.get_or_insert_with(|| Open {
        kind: if head.opcode == 1 { MessageKind::Text } else { MessageKind::Binary },
        compressed: head.rsv1,
        payload: Vec::new(),
        frames: 0,
    });
    message.frames += 1;
    let text = message.kind == MessageKind::Text && !message.compressed;
    for i in 0..head.len {
        let Some(octet) = stream.octet() else {
            return Ok(None);
        };
        message.payload.push(octet ^ head.key[i as usize % 4]);
        let tail = message.payload.len().saturating_sub(300);
        let tail = (tail..).find(|&i| i == 0 || message.payload[i] & 0xc0 != 0x80);
        let checked = std::str::from_utf8(&message.payload[tail.unwrap_or(0)..]);
        if text && checked.is_err_and(|e| e.error_len().is_some()) {
            return Err(Violation::TextNotUtf8);
        }
    }
    if !head.fin {
        return Ok(Some(None));
    }
    let Some(Open { kind, compressed, payload, .. }) = open.take() else {
        return Ok(None);
    };
    if text && std::str::from_utf8(&payload).is_err() {
        return Err(Violation::TextNotUtf8);
    }
    Ok(Some(Some(OwnedEvent::Message(kind, compressed, payload))))
}

fn control(head: &Head, stream: &mut Stream<'_>) -> Parsed<Option<OwnedEvent>> {
    let mut payload = Vec::new();
    for i in 0..head.len as usize {
        let Some(octet) = stream.octet() else {
            return Ok(None);
        };
        payload.push(octet ^ head.key[i % 4]);
        if head.opcode == 8 && i >= 1 {
            let code = u16::from_be_bytes([payload[0], payload[1]]);
            if !close::on_the_wire(code) {
                return Err(Violation::CloseCode(code));
            }
            let reason = std::str::from_utf8(&payload[2..]);
            let last = i + 1 == head.len as usize;
            if reason.is_err_and(|e| last || e.error_len().is_some()) {
                return Err(Violation::ReasonNotUtf8);
            }
        }
    }
    Ok(Some(Some(match head.opcode {
        9 => OwnedEvent::Ping(payload),
        10 => OwnedEvent::Pong(payload),
        _ if payload.is_empty() => OwnedEvent::Close(None, String::new()),
        _ => OwnedEvent::Close(
            Some(u16::from_be_bytes([payload[0], payload[1]])),
            String::from_utf8_lossy(&payload[2..]).into_owned(),
        ),
    })))
}

fn head(
    role: Role,
    limits: &FrameLimits,
    stream: &mut Stream<'_>,
    open: &Option<Open>,
) -> Parsed<Head> {
    let Some(first) = stream.octet() else {
        return Ok(None);
    };
    let (fin, rsv1, opcode) = (first & 0x80 != 0, first & 0x40 != 0, first & 15);
    let wrong = [
        (first & 0x30 != 0, Violation::ReservedBits),
        (matches!(opcode, 3..=7 | 11..=15), Violation::ReservedOpcode),
        (rsv1 && !(limits.allow_rsv1 && matches!(opcode, 1 | 2)), Violation::ReservedBits),
        (opcode >= 8 && !fin, Violation::FragmentedControl),
        (opcode == 0 && open.is_none(), Violation::LooseContinuation),
        (matches!(opcode, 1 | 2) && open.is_some(), Violation::InterruptedMessage),
        (
            opcode < 8 && open.as_ref().map_or(0, |o| o.frames) >= limits.fragments,
            Violation::TooManyFragments,
        ),
    ];
    first_of(&wrong)?;
    let Some(second) = stream.octet() else {
        return Ok(None);
    };
    let (masked, code) = (second & 0x80 != 0, second & 0x7f);
    first_of(&[
        (role == Role::Server && !masked, Violation::Unmasked),
        (role == Role::Client && masked, Violation::Masked),
        (opcode >= 8 && code > 125, Violation::LongControl),
        (opcode == 8 && code == 1, Violation::HalfCloseCode),
    ])?;
    let used = open.as_ref().map_or(0, |open| open.payload.len() as u64);
    let room = if opcode >= 8 { 125 } else { limits.frame_bytes.min(limits.message_bytes - used) };
    let Some(len) = length(code, room, stream)? else {
        return Ok(None);
    };
    let mut key = [0; 4];
    for octet in key.iter_mut().filter(|_| masked) {
        let Some(next) = stream.octet() else {
            return Ok(None);
        };
        *octet = next;
    }
    Ok(Some(Head { fin, opcode, rsv1, key, len }))
}

fn first_of(wrong: &[(bool, Violation)]) -> Result<(), Violation> {
    wrong.iter().find(|(is, _)| *is).map_or(Ok(()), |(_, violation)| Err(*violation))
}

/// Reads the length one octet at a time. It is too big as soon as it would be with zeros in the
/// remaining octets.
fn length(code: u8, room: u64, stream: &mut Stream<'_>) -> Parsed<u64> {
    let (octets, min) = match code {
        126 => (2, 126),
        127 => (8, 65536),
        _ => (0, u64::from(code)),
    };
    first_of(&[(min > room, Violation::TooBig)])?;
    let mut len = min * u64::from(octets == 0);
    for i in 1..=octets {
        let Some(octet) = stream.octet() else {
            return Ok(None);
        };
        first_of(&[(octets == 8 && i == 1 && octet >= 0x80, Violation::NegativeLength)])?;
        len = len * 256 + u64::from(octet);
        let zeros = len << (8 * (octets - i));
        let overlong = if octets == 8 { i == 6 && len == 0 } else { i == 2 && len < 126 };
        first_of(&[(overlong, Violation::OverlongLength), (zeros > room, Violation::TooBig)])?;
    }
    Ok(Some(len))
}

/// The events that the reader reports for the stream in these pieces; the reader must take every
/// octet.
pub(super) fn received<'a>(
    role: Role,
    limits: &FrameLimits,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Vec<OwnedEvent> {
    let mut reader = Reader::new();
    let mut received = Vec::new();
    for piece in pieces {
        let mut piece = piece.to_vec();
        let mut at = 0;
        loop {
            let (taken, event) = reader.next(role, limits, &mut piece[at..]);
            at += taken;
            match OwnedEvent::from(event) {
                OwnedEvent::Need => break,
                event => received.push(event),
            }
        }
        assert_eq!(at, piece.len(), "Need must take everything");
        if !reader.mid_message() {
            assert_eq!(reader.held_bytes(), 0, "an idle reader owns no heap");
        }
    }
    received
}

/// A random frame: mostly valid, sometimes invalid.
fn any_frame() -> impl Strategy<Value = (u8, Vec<u8>)> {
    let first = prop_oneof![
        4 => Just(0x81u8), 4 => Just(0x82), 4 => Just(0x01), 2 => Just(0x02), 6 => Just(0x00),
        4 => Just(0x80), 3 => Just(0x89), 1 => Just(0x8a), 1 => Just(0x88), 1 => Just(0xc1),
        1 => any::<u8>(),
    ];
    let payload = prop_oneof![
        4 => "[a-z\u{20ac}\u{1f600}\u{e9}]{0,40}".prop_map(String::into_bytes),
        2 => "[ -~]{100,300}".prop_map(String::into_bytes),
        1 => proptest::collection::vec(any::<u8>(), 0..8),
        1 => (1000u16..1016).prop_map(|code| code.to_be_bytes().to_vec()),
    ];
    (first, payload)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn rfc6455_reader_equals_the_model_on_any_stream(
        list in proptest::collection::vec(any_frame(), 0..12),
        damage in proptest::option::weighted(0.3, (any::<prop::sample::Index>(), any::<u8>())),
        end in proptest::option::weighted(0.3, any::<prop::sample::Index>()),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..10),
        server in any::<bool>(),
        allow_rsv1 in any::<bool>(),
        message_bytes in prop_oneof![Just(150u64), Just(400), Just(1 << 20)],
        fragments in prop_oneof![Just(2u32), Just(100)],
    ) {
        let (role, mask) = if server { (Role::Server, Some(KEY)) } else { (Role::Client, None) };
        let limits = FrameLimits { frame_bytes: 1 << 20, message_bytes, fragments, allow_rsv1 };
        let mut stream = Vec::new();
        for (first, payload) in &list {
            let at = stream.len();
            frame::push(&mut stream, Opcode::Binary, payload, mask);
            stream[at] = *first;
        }
        if let Some((at, octet)) = damage && !stream.is_empty() {
            let at = at.index(stream.len());
            stream[at] = octet;
        }
        if let Some(end) = end {
            stream.truncate(end.index(stream.len() + 1));
        }
        let want = read(role, &limits, &stream);
        let mut at = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect::<Vec<_>>();
        at.extend([0, stream.len()]);
        at.sort_unstable();
        let pieces = at.windows(2).map(|pair| &stream[pair[0]..pair[1]]);
        prop_assert_eq!(&received(role, &limits, pieces), &want);
        prop_assert_eq!(&received(role, &limits, [&stream[..]]), &want);
        prop_assert_eq!(&received(role, &limits, stream.chunks(1)), &want);
    }
}
