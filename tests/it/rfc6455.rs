//! RFC 6455 by section: streams of octets and the events that a reader must report. Every stream is
//! read whole, cut at every octet, and octet by octet, and the naive [`model`] must agree.

mod model;

use polycast::ws::{
    FrameEvent, FrameLimits, MessageKind, Opcode, Reader, Role, Violation, close, frame,
};

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// An [`Event`] that owns its data.
#[derive(Clone, Debug, PartialEq)]
enum OwnedEvent {
    Need,
    Message(MessageKind, bool, Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
    Violation(Violation),
}

impl From<FrameEvent<'_>> for OwnedEvent {
    fn from(event: FrameEvent<'_>) -> OwnedEvent {
        match event {
            FrameEvent::Need => OwnedEvent::Need,
            FrameEvent::Message { kind, compressed, payload } => {
                OwnedEvent::Message(kind, compressed, payload.to_vec())
            }
            FrameEvent::Ping(payload) => OwnedEvent::Ping(payload.to_vec()),
            FrameEvent::Pong(payload) => OwnedEvent::Pong(payload.to_vec()),
            FrameEvent::Close { code, reason } => OwnedEvent::Close(code, reason.to_owned()),
            FrameEvent::Violation(violation) => OwnedEvent::Violation(violation),
        }
    }
}

/// Checks that `stream` gives the events `want`, however it is cut.
fn check_in(role: Role, limits: &FrameLimits, stream: &[u8], want: &[OwnedEvent]) {
    assert_eq!(model::read(role, limits, stream), want, "the model");
    assert_eq!(model::received(role, limits, [stream]), want, "whole");
    assert_eq!(model::received(role, limits, stream.chunks(1)), want, "octet by octet");
    let step = 1 + stream.len() / 2000;
    for cut in (0..=stream.len()).step_by(step) {
        let (a, b) = stream.split_at(cut);
        assert_eq!(model::received(role, limits, [a, b]), want, "cut at {cut}");
    }
}

/// Checks a stream as a server with the default limits.
fn check(stream: &[u8], want: &[OwnedEvent]) {
    check_in(Role::Server, &FrameLimits::default(), stream, want);
}

/// Checks that the violation is reported with the last octet of `stream` and not before.
fn check_at_once_in(
    role: Role,
    limits: &FrameLimits,
    stream: &[u8],
    violation: Violation,
    code: u16,
) {
    assert_eq!(violation.code(), code);
    check_in(role, limits, stream, &[OwnedEvent::Violation(violation)]);
    check_in(role, limits, &stream[..stream.len() - 1], &[]);
    let more = [stream, &[0; 20]].concat();
    check_in(role, limits, &more, &[OwnedEvent::Violation(violation)]);
}

fn check_at_once(stream: &[u8], violation: Violation, code: u16) {
    check_at_once_in(Role::Server, &FrameLimits::default(), stream, violation, code);
}

fn text(payload: &str) -> OwnedEvent {
    OwnedEvent::Message(MessageKind::Text, false, payload.as_bytes().to_vec())
}

fn binary(payload: &[u8]) -> OwnedEvent {
    OwnedEvent::Message(MessageKind::Binary, false, payload.to_vec())
}

/// A masked frame with the first octet `first`.
fn raw(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::push(&mut out, Opcode::Binary, payload, Some(KEY));
    out[0] = first;
    out
}

/// Several masked frames of a client, one after the other.
fn frames(frames: &[(u8, &[u8])]) -> Vec<u8> {
    frames.iter().flat_map(|(first, payload)| raw(*first, payload)).collect()
}

#[test]
fn s5_1_unmasked_client_frame_is_1002() {
    check_at_once(&[0x81, 0x05], Violation::Unmasked, 1002);
    check_at_once(&[0x89, 0x00], Violation::Unmasked, 1002);
}

#[test]
fn s5_1_masked_server_frame_is_1002() {
    let limits = FrameLimits::default();
    check_at_once_in(Role::Client, &limits, &[0x81, 0x85], Violation::Masked, 1002);
}

#[test]
fn s5_2_reserved_bits_are_1002() {
    for first in [0x91, 0xa1, 0xb1, 0xc1, 0xf1, 0xc2, 0xc9, 0xc8, 0xca, 0xc0] {
        check_at_once(&[first], Violation::ReservedBits, 1002);
    }
}

#[test]
fn s5_2_reserved_opcodes_are_1002() {
    for opcode in (3..=7).chain(11..=15) {
        check_at_once(&[0x80 | opcode], Violation::ReservedOpcode, 1002);
        check_at_once(&[opcode], Violation::ReservedOpcode, 1002);
    }
}

#[test]
fn s5_2_lengths_are_in_their_shortest_form() {
    check_at_once(&[0x82, 0xfe, 0x00, 125], Violation::OverlongLength, 1002);
    check_at_once(&[0x82, 0xfe, 0x00, 0x00], Violation::OverlongLength, 1002);
    check_at_once(&[0x82, 0xff, 0, 0, 0, 0, 0, 0], Violation::OverlongLength, 1002);
    check(&[0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 0], &[]);
    for len in [0, 1, 2, 3, 4, 5, 125, 126, 127, 255, 256, 65535, 65536, 65537] {
        let payload = (0..len).map(|i| i as u8).collect::<Vec<_>>();
        let stream = raw(0x82, &payload);
        let want = [binary(&payload)];
        assert_eq!(model::received(Role::Server, &FrameLimits::default(), [&stream[..]]), want);
        for cut in (0..=16).chain(stream.len().saturating_sub(16)..=stream.len()) {
            let (a, b) = stream.split_at(cut.min(stream.len()));
            assert_eq!(
                model::received(Role::Server, &FrameLimits::default(), [a, b]),
                want,
                "{len} {cut}"
            );
        }
    }
}

#[test]
fn s5_2_top_bit_of_a_length_is_1002() {
    check_at_once(&[0x82, 0xff, 0x80], Violation::NegativeLength, 1002);
    check_at_once(&[0x82, 0xff, 0xff], Violation::NegativeLength, 1002);
}

#[test]
fn s5_3_masking_goes_on_across_cuts() {
    let payload = (0..300u16).map(|i| i as u8).collect::<Vec<_>>();
    check(&raw(0x82, &payload), &[binary(&payload)]);
}

#[test]
fn s5_4_fragments_make_one_message() {
    let stream = frames(&[(0x01, b"Hel"), (0x00, b""), (0x00, b"l"), (0x80, b"o"), (0x82, b"x")]);
    check(&stream, &[text("Hello"), binary(b"x")]);
    check(&frames(&[(0x02, b""), (0x80, b"")]), &[binary(b"")]);
    check(&frames(&[(0x01, b""), (0x80, b"a")]), &[text("a")]);
}

#[test]
fn s5_4_control_frames_come_between_fragments() {
    let stream = frames(&[
        (0x89, b"first"),
        (0x01, b"Hel"),
        (0x89, b"ping"),
        (0x8a, b""),
        (0x80, b"lo"),
        (0x89, b""),
    ]);
    let ping = |p: &[u8]| OwnedEvent::Ping(p.to_vec());
    let want = [ping(b"first"), ping(b"ping"), OwnedEvent::Pong(vec![]), text("Hello"), ping(b"")];
    check(&stream, &want);
    let empty_so_far = frames(&[(0x01, b""), (0x89, b"ping"), (0x80, b"lo")]);
    check(&empty_so_far, &[ping(b"ping"), text("lo")]);
}

#[test]
fn s5_4_loose_continuation_is_1002() {
    check_at_once(&[0x80], Violation::LooseContinuation, 1002);
    check_at_once(&[0x00], Violation::LooseContinuation, 1002);
    let after_a_message = [&frames(&[(0x01, b"a"), (0x80, b"b")])[..], &[0x80]].concat();
    let want = [text("ab"), OwnedEvent::Violation(Violation::LooseContinuation)];
    check(&after_a_message, &want);
}

#[test]
fn s5_4_data_inside_a_message_is_1002() {
    for first in [0x81, 0x82, 0x01, 0x02] {
        let stream = [&frames(&[(0x01, b"a")])[..], &[first]].concat();
        check_at_once(&stream, Violation::InterruptedMessage, 1002);
    }
}

#[test]
fn s5_4_too_many_fragments_are_1009() {
    let limits = FrameLimits { fragments: 3, ..FrameLimits::default() };
    let three = frames(&[(0x02, b"a"), (0x00, b"b"), (0x80, b"c"), (0x82, b"d")]);
    check_in(Role::Server, &limits, &three, &[binary(b"abc"), binary(b"d")]);
    let four = [&frames(&[(0x02, b"a"), (0x00, b"b"), (0x00, b"c")])[..], &[0x80]].concat();
    check_at_once_in(Role::Server, &limits, &four, Violation::TooManyFragments, 1009);
}

#[test]
fn s5_5_fragmented_control_frame_is_1002() {
    for first in [0x08, 0x09, 0x0a] {
        check_at_once(&[first], Violation::FragmentedControl, 1002);
    }
}

#[test]
fn s5_5_control_frame_over_125_bytes_is_1002() {
    let max = vec![b'p'; 125];
    check(&raw(0x89, &max), &[OwnedEvent::Ping(max.clone())]);
    check(&raw(0x8a, &max), &[OwnedEvent::Pong(max.clone())]);
    for (opcode, code) in [(0x88, 126), (0x89, 126), (0x8a, 127), (0x89, 127)] {
        check_at_once(&[opcode, 0x80 | code], Violation::LongControl, 1002);
    }
}

#[test]
fn s5_5_1_close_is_read_and_ends_the_stream() {
    let close = |payload: &[u8]| frames(&[(0x88, payload), (0x81, b"late"), (0x83, b"")]);
    check(&close(b""), &[OwnedEvent::Close(None, String::new())]);
    check(&close(b"\x03\xe8"), &[OwnedEvent::Close(Some(1000), String::new())]);
    check(&close(b"\x03\xe8bye"), &[OwnedEvent::Close(Some(1000), "bye".into())]);
    let reason = "r".repeat(123);
    let payload = close::payload(4999, &reason);
    assert_eq!(payload.len(), 125);
    check(&close(&payload), &[OwnedEvent::Close(Some(4999), reason)]);
    let inside = frames(&[(0x01, b"a"), (0x88, b"\x03\xe9")]);
    check(&inside, &[OwnedEvent::Close(Some(1001), String::new())]);
}

#[test]
fn s5_5_1_half_a_close_code_is_1002() {
    check_at_once(&[0x88, 0x81], Violation::HalfCloseCode, 1002);
}

#[test]
fn s5_5_1_close_reason_is_utf8_or_1007() {
    let bad = |payload: &[u8], len: u8| {
        let mut stream = raw(0x88, payload);
        stream[1] = 0x80 | len;
        stream
    };
    check_at_once(&bad(b"\x03\xe8\xff", 3), Violation::ReasonNotUtf8, 1007);
    check_at_once(&bad(b"\x03\xe8ok\xed\xa0", 100), Violation::ReasonNotUtf8, 1007);
    check_at_once(&bad(b"\x03\xe8cut\xe2\x82", 7), Violation::ReasonNotUtf8, 1007);
}

#[test]
fn s5_5_2_ping_with_and_without_payload() {
    check(
        &frames(&[(0x89, b""), (0x89, b"\x00\xff")]),
        &[OwnedEvent::Ping(vec![]), OwnedEvent::Ping(vec![0x00, 0xff])],
    );
}

#[test]
fn s5_7_examples() {
    let hello = || text("Hello");
    let limits = FrameLimits::default();
    let single = [0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f];
    check_in(Role::Client, &limits, &single, &[hello()]);
    let masked = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    check(&masked, &[hello()]);
    let fragmented = [0x01, 0x03, 0x48, 0x65, 0x6c, 0x80, 0x02, 0x6c, 0x6f];
    check_in(Role::Client, &limits, &fragmented, &[hello()]);
    let ping = [0x89, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f];
    check_in(Role::Client, &limits, &ping, &[OwnedEvent::Ping(b"Hello".to_vec())]);
    let pong = [0x8a, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    check(&pong, &[OwnedEvent::Pong(b"Hello".to_vec())]);
    assert_eq!(&frame::frozen(Opcode::Binary, &[0; 256])[..4], &[0x82, 0x7e, 0x01, 0x00]);
    let long = frame::frozen(Opcode::Binary, &[0; 65536]);
    assert_eq!(&long[..10], &[0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0]);
}

#[test]
fn s7_4_close_codes_on_both_sides_of_every_bound() {
    let payload = |code: u16| code.to_be_bytes();
    for code in [1000, 1003, 1007, 1014, 3000, 3999, 4000, 4999] {
        check(&raw(0x88, &payload(code)), &[OwnedEvent::Close(Some(code), String::new())]);
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, u16::MAX] {
        check_at_once(&raw(0x88, &payload(code)), Violation::CloseCode(code), 1002);
        let mut long = raw(0x88, &payload(code));
        long[1] = 0x80 | 125;
        check_at_once(&long, Violation::CloseCode(code), 1002);
    }
}

#[test]
fn s8_1_text_that_is_not_utf8_is_1007_at_the_octet() {
    let cut = |first: u8, payload: &[u8], declared: u8| {
        let mut stream = raw(first, payload);
        stream[1] = 0x80 | declared;
        stream
    };
    let bad = b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4\x90";
    for first in [0x81, 0x01] {
        check_at_once(&cut(first, bad, 21), Violation::TextNotUtf8, 1007);
        check_at_once(&cut(first, b"\xff", 1), Violation::TextNotUtf8, 1007);
        check_at_once(&cut(first, b"a\xc0", 100), Violation::TextNotUtf8, 1007);
        check_at_once(&cut(first, b"\xed\xa0", 3), Violation::TextNotUtf8, 1007);
    }
    let across = [frames(&[(0x01, b"\xf0\x9f")]), cut(0x00, b"\x98\xff", 9)].concat();
    check_at_once(&across, Violation::TextNotUtf8, 1007);
}

#[test]
fn s8_1_a_code_point_may_be_cut_by_fragments_and_pings() {
    let stream = frames(&[(0x01, b"\xf0"), (0x89, b"\xff"), (0x00, b"\x9f\x98"), (0x80, b"\x80")]);
    check(&stream, &[OwnedEvent::Ping(vec![0xff]), text("\u{1f600}")]);
    let ends_early = frames(&[(0x01, b"\xf0\x9f"), (0x80, b"\x98")]);
    check_at_once(&ends_early, Violation::TextNotUtf8, 1007);
    check_at_once(&frames(&[(0x81, b"\xe2\x82")]), Violation::TextNotUtf8, 1007);
    check(&frames(&[(0x82, b"\xff\xc0"), (0x81, b"")]), &[binary(b"\xff\xc0"), text("")]);
}

#[test]
fn s10_4_a_frame_over_the_limit_is_1009_at_its_header() {
    let limits = FrameLimits { frame_bytes: 200, message_bytes: 300, ..FrameLimits::default() };
    check_in(Role::Server, &limits, &raw(0x82, &[7; 200]), &[binary(&[7; 200])]);
    check_at_once_in(Role::Server, &limits, &[0x82, 0xfe, 0, 201], Violation::TooBig, 1009);
    check_at_once_in(Role::Server, &limits, &[0x82, 0xfe, 1], Violation::TooBig, 1009);
    check_at_once_in(Role::Server, &limits, &[0x82, 0xff], Violation::TooBig, 1009);
    let gib = [0x82, 0xff, 0, 0, 0, 0, 0x40];
    check_at_once(&gib, Violation::TooBig, 1009);
    check(&[0x82, 0xff, 0, 0, 0, 0, 0x01, 0, 0, 0], &[]);
    check_at_once(&[0x82, 0xff, 0, 0, 0, 0, 0x01, 0, 0, 1], Violation::TooBig, 1009);
    let tiny = FrameLimits { frame_bytes: 5, ..limits };
    check_at_once_in(Role::Server, &tiny, &[0x82, 0x86], Violation::TooBig, 1009);
    check_in(Role::Server, &tiny, &raw(0x89, &[1; 9]), &[OwnedEvent::Ping(vec![1; 9])]);
}

#[test]
fn s10_4_a_message_over_the_limit_is_1009_at_the_header_that_exceeds_it() {
    let limits = FrameLimits { frame_bytes: 200, message_bytes: 300, ..FrameLimits::default() };
    let start = raw(0x02, &[7; 200]);
    let full = [&start[..], &raw(0x80, &[7; 100])].concat();
    check_in(Role::Server, &limits, &full, &[binary(&[7; 300])]);
    let over = [&start[..], &[0x80, 0x80 | 101]].concat();
    check_at_once_in(Role::Server, &limits, &over, Violation::TooBig, 1009);
}

#[test]
fn s10_4_a_declared_length_reserves_no_memory() {
    let limits = FrameLimits::default();
    let mut reader = Reader::new();
    let mut header = [0x82, 0xff, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 1, 2, 3, 4];
    assert_eq!(reader.next(Role::Server, &limits, &mut header), (14, FrameEvent::Need));
    assert_eq!(reader.held_bytes(), 0);
    let mut arrived = 0;
    for piece in [1, 10, 1000, 10_000, 50_000] {
        let mut input = vec![0; piece];
        let taken = reader.next(Role::Server, &limits, &mut input);
        assert_eq!(taken, (piece, FrameEvent::Need));
        arrived += piece;
        assert!(reader.held_bytes() <= (2 * arrived).max(128), "{arrived} arrived");
    }
}

#[test]
fn s10_4_sixteen_mebibytes_in_small_pieces() {
    let payload = "thirteen octs\u{20ac}".repeat(1 << 20).into_bytes();
    assert_eq!(payload.len(), 16 << 20);
    let stream = raw(0x81, &payload);
    let got = model::received(Role::Server, &FrameLimits::default(), stream.chunks(4096));
    assert!(got == [OwnedEvent::Message(MessageKind::Text, false, payload)]);
}

/// RFC 7692 section 6.2: an empty payload with the removed tail appended is an empty block, so the
/// message is empty. Mojolicious sends it.
#[test]
fn rfc7692_6_2_rsv1_without_any_payload_is_an_empty_message() {
    let limits = FrameLimits { allow_rsv1: true, ..FrameLimits::default() };
    for (first, kind) in [(0xc1, MessageKind::Text), (0xc2, MessageKind::Binary)] {
        let empty = OwnedEvent::Message(kind, true, Vec::new());
        check_in(Role::Server, &limits, &raw(first, b""), std::slice::from_ref(&empty));
        let parts = [raw(first & 0x7f, b""), raw(0x00, b""), raw(0x80, b"")].concat();
        check_in(Role::Server, &limits, &parts, std::slice::from_ref(&empty));
        let between = [raw(0x82, b"a"), raw(first, b""), raw(0x82, b"b")].concat();
        check_in(Role::Server, &limits, &between, &[binary(b"a"), empty, binary(b"b")]);
        check_at_once(&raw(first, b"")[..1], Violation::ReservedBits, 1002);
    }
}

#[test]
fn rfc7692_6_rsv1_is_for_the_first_frame_of_a_data_message_only() {
    let limits = FrameLimits { allow_rsv1: true, ..FrameLimits::default() };
    let check = |stream: &[u8], want: &[OwnedEvent]| check_in(Role::Server, &limits, stream, want);
    let compressed = |kind, payload: &[u8]| OwnedEvent::Message(kind, true, payload.to_vec());
    check(&frames(&[(0xc1, b"\xff\x00")]), &[compressed(MessageKind::Text, b"\xff\x00")]);
    check(
        &frames(&[(0xc2, b"\xff"), (0x81, b"a")]),
        &[compressed(MessageKind::Binary, b"\xff"), text("a")],
    );
    check(
        &frames(&[(0x41, b"\xff"), (0x80, b"\xfe")]),
        &[compressed(MessageKind::Text, b"\xff\xfe")],
    );
    for first in [0xc9, 0xc8, 0xca, 0xc0, 0xe1] {
        let stream = [first];
        check_at_once_in(Role::Server, &limits, &stream, Violation::ReservedBits, 1002);
    }
    let second = [&frames(&[(0x41, b"a")])[..], &[0xc0]].concat();
    check_at_once_in(Role::Server, &limits, &second, Violation::ReservedBits, 1002);
}

#[test]
fn rfc6455_frames_are_read_by_the_other_role() {
    for (mask, role) in [(Some(KEY), Role::Server), (None, Role::Client)] {
        let mut out = Vec::new();
        frame::push(&mut out, Opcode::Text, b"text", mask);
        frame::push(&mut out, Opcode::Ping, b"ping", mask);
        frame::push(&mut out, Opcode::Close, &close::payload(1001, "bye"), mask);
        let want = [
            text("text"),
            OwnedEvent::Ping(b"ping".to_vec()),
            OwnedEvent::Close(Some(1001), "bye".into()),
        ];
        check_in(role, &FrameLimits::default(), &out, &want);
    }
}
