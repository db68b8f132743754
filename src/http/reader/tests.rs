//! Transcripts: every one runs whole, cut in two at every byte, and byte by byte, and must give
//! the same events each time.

mod rules;

use proptest::prelude::*;

use super::*;
use crate::http::{Connection, HttpVersion};
use crate::limits::{HTTP_HEADERS, HTTP_HEADERS_MAX};

/// An event that owns its data.
#[derive(Clone, Debug, PartialEq)]
enum OwnedEvent {
    Request { line: String, headers: Vec<(String, Vec<u8>)>, body: Vec<u8>, keep_alive: bool },
    Bad(Error),
}

/// The result of a transcript: the events, the phase, and the bytes that were not consumed.
type Outcome = (Vec<OwnedEvent>, Phase, Vec<u8>);

/// Feeds `pieces` and collects the events. Stops after an upgrade request, as the session does.
fn run<'p>(limits: &HeadLimits, pieces: impl IntoIterator<Item = &'p [u8]>) -> Outcome {
    let (mut reader, mut seen, mut untaken) = (Reader::new(), Vec::new(), Vec::new());
    let mut upgraded = false;
    for piece in pieces {
        let mut input = piece.to_vec();
        if upgraded {
            untaken.extend(input);
            continue;
        }
        let mut pos = 0;
        loop {
            let rest = input.len() - pos;
            let (taken, event) = reader.next(limits, &mut input[pos..]);
            assert!(taken <= rest);
            pos += taken;
            match event {
                RequestEvent::Need => {
                    assert_eq!(pos, input.len(), "need takes everything");
                    break;
                }
                RequestEvent::Head(..) => panic!("nobody asked for it"),
                RequestEvent::Continue => assert_eq!(pos, input.len(), "no body byte is here"),
                RequestEvent::Bad(error) => {
                    assert_eq!(pos, input.len(), "nothing follows");
                    seen.push(OwnedEvent::Bad(error));
                }
                RequestEvent::Request(request) => {
                    upgraded = request.header("upgrade").is_some();
                    seen.push(own(&request));
                    if upgraded {
                        untaken.extend(&input[pos..]);
                        break;
                    }
                }
            }
        }
    }
    // The next call frees the buffer of the last request.
    if !upgraded {
        reader.next(limits, &mut []);
    }
    if reader.phase() == Phase::Idle && !upgraded {
        assert_eq!(reader.buffer.capacity(), 0, "an idle reader owns no heap");
    }
    (seen, reader.phase(), untaken)
}

fn own(request: &Request<'_>) -> OwnedEvent {
    let version = if request.version == HttpVersion::Http10 { "1.0" } else { "1.1" };
    OwnedEvent::Request {
        line: format!("{} {} {version}", request.method, request.target),
        headers: request.headers.iter().map(|(name, value)| (name.into(), value.into())).collect(),
        body: request.body.to_vec(),
        keep_alive: request.keep_alive,
    }
}

/// The outcome of `input`, the same at every cut.
fn outcome(limits: &HeadLimits, input: &[u8]) -> Outcome {
    let whole = run(limits, [input]);
    for cut in 0..=input.len() {
        let (head, tail) = input.split_at(cut);
        assert_eq!(run(limits, [head, tail]), whole, "cut at {cut} of {}", input.escape_ascii());
    }
    assert_eq!(run(limits, input.chunks(1)), whole, "bytes of {}", input.escape_ascii());
    whole
}

/// One line an event: `POST /path 1.1 [body]`, with ` close` if the connection ends there; or
/// the status and the error.
fn check_with(limits: &HeadLimits, input: &str, want: &[&str]) {
    let (seen, ..) = outcome(limits, input.as_bytes());
    let got: Vec<String> = seen
        .iter()
        .map(|seen| match seen {
            OwnedEvent::Request { line, body, keep_alive, .. } => {
                let close = if *keep_alive { "" } else { " close" };
                format!("{line} [{}]{close}", String::from_utf8_lossy(body))
            }
            OwnedEvent::Bad(error) => format!("{} {error:?}", error.status()),
        })
        .collect();
    assert_eq!(got, want, "{}", input.escape_debug());
}

fn check(input: &str, want: &[&str]) {
    check_with(&HeadLimits::default(), input, want);
}

/// A GET of HTTP/1.1 with a host and these further lines.
fn get(lines: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: h\r\n{lines}\r\n")
}

/// A POST of HTTP/1.1 with a host and this rest.
fn post(rest: &str) -> String {
    format!("POST /p HTTP/1.1\r\nHost: h\r\n{rest}")
}

#[test]
fn reader_returns_whole_requests() {
    check("", &[]);
    check(&get(""), &["GET / 1.1 []"]);
    check("GET /a?b=c HTTP/1.0\r\n\r\n", &["GET /a?b=c 1.0 [] close"]);
    check(&post("Content-Length: 0\r\n\r\n"), &["POST /p 1.1 []"]);
    check(&post("Content-Length: 5\r\n\r\nhello"), &["POST /p 1.1 [hello]"]);
    check(&post("content-length:005 \r\n\r\nhello"), &["POST /p 1.1 [hello]"]);
    check(&post("Content-Length: 5\r\n\r\nhell"), &[]);
    check("GET / HTTP/1.1\r\nHost: h\r\n", &[]);
}

#[test]
fn s9_3_2_pipelining() {
    let three = post("Content-Length: 2\r\n\r\nab") + &get("") + &get("Connection: close\r\n");
    check(&three, &["POST /p 1.1 [ab]", "GET / 1.1 []", "GET / 1.1 [] close"]);
    let chunked = post("Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nT: v\r\n\r\n");
    check(&(chunked + &get("")), &["POST /p 1.1 [x]", "GET / 1.1 []"]);
}

#[test]
fn s7_8_what_follows_an_upgrade_stays() {
    let input = get("Upgrade: websocket\r\n") + "\u{1}frame\r\n\r\n";
    let (seen, phase, untaken) = outcome(&HeadLimits::default(), input.as_bytes());
    assert_eq!((seen.len(), phase), (1, Phase::Idle));
    assert_eq!(untaken, b"\x01frame\r\n\r\n");
}

#[test]
fn s2_2_blank_lines_before_a_request() {
    check(&("\r\n".to_owned() + &get("")), &["GET / 1.1 []"]);
    check(&("\r\n\r\n".to_owned() + &get("")), &["GET / 1.1 []"]);
    check(&("\r\n\r\n\r\n".to_owned() + &get("")), &["400 BlankLines"]);
    let between = get("") + "\r\n\r\n" + &get("") + "\r\n\r\n" + &get("");
    check(&between, &["GET / 1.1 []"; 3]);
    check("\n", &["400 BareLineFeed"]);
    check(&("\r".to_owned() + &get("")), &["400 RequestLine"]);
}

#[test]
fn s7_1_chunked_bodies() {
    let head = post("Transfer-Encoding: chunked\r\n\r\n");
    check(&(head.clone() + "0\r\n\r\n"), &["POST /p 1.1 []"]);
    check(&(head.clone() + "3;x=y\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"), &["POST /p 1.1 [abcde]"]);
    check(&(head.clone() + "3\r\nabcd\r\n"), &["400 Chunk"]);
    check(&(head.clone() + "10000000000000000\r\n"), &["400 Chunk"]);
    check(&(head.clone() + "ffffffffffffffff\r\n"), &["413 BodyTooLarge"]);
    check(&(head + "3\r\nab"), &[]);
    check(&post("transfer-encoding: ,CHUNKED,\r\n\r\n0\r\n\r\n"), &["POST /p 1.1 []"]);
}

#[test]
fn reader_bounds_the_head_on_both_sides() {
    let head = get("A: b\r\n");
    let limits = |head_bytes| HeadLimits { head_bytes, body_bytes: 4, ..HeadLimits::default() };
    check_with(&limits(head.len()), &head, &["GET / 1.1 []"]);
    check_with(&limits(head.len() - 1), &head, &["431 HeadTooLarge"]);
    // Found at the limit, not when the end comes.
    check_with(&limits(head.len()), &head[..head.len() - 2], &[]);
    check_with(&limits(head.len() - 2), &head[..head.len() - 2], &["431 HeadTooLarge"]);
    check_with(&limits(16), "GET / HTTP/1.1\r\n", &["431 HeadTooLarge"]);
    check_with(&limits(15), "GET / HTTP/1.1\r\n", &["414 TargetTooLong"]);
    check_with(&limits(15), "GET /aaaaaaaaaaaaaaaaaaaa", &["414 TargetTooLong"]);
    // Blank lines in front are not part of the head, and the limit is per request.
    let two = format!("\r\n{head}\r\n\r\n{head}");
    check_with(&limits(head.len()), &two, &["GET / 1.1 []"; 2]);
}

#[test]
fn reader_bounds_the_body_on_both_sides() {
    let limits = HeadLimits { head_bytes: 80, body_bytes: 4, ..HeadLimits::default() };
    check_with(&limits, &post("Content-Length: 4\r\n\r\nabcd"), &["POST /p 1.1 [abcd]"]);
    check_with(&limits, &post("Content-Length: 5\r\n\r\nabcde"), &["413 BodyTooLarge"]);
    let head = post("Transfer-Encoding: chunked\r\n\r\n");
    let fits = head.clone() + "2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n";
    check_with(&limits, &fits, &["POST /p 1.1 [abcd]"]);
    check_with(&limits, &(head + "2\r\nab\r\n3\r\n"), &["413 BodyTooLarge"]);
}

#[test]
fn reader_bounds_the_number_of_fields_on_both_sides() {
    // `Host` is one of them.
    check(&get(&"A: b\r\n".repeat(HTTP_HEADERS - 1)), &["GET / 1.1 []"]);
    check(&get(&"A: b\r\n".repeat(HTTP_HEADERS)), &["431 TooManyHeaders"]);
    for head_fields in [1, 16, 23, 24, 25, HTTP_HEADERS + 1, HTTP_HEADERS_MAX] {
        let limits = HeadLimits { head_fields, ..HeadLimits::default() };
        let fields = |count| get(&"A: b\r\n".repeat(count));
        check_with(&limits, &fields(head_fields - 1), &["GET / 1.1 []"]);
        check_with(&limits, &fields(head_fields), &["431 TooManyHeaders"]);
    }
}

#[test]
fn reader_returns_nothing_after_a_refusal() {
    let (seen, phase, _) = outcome(&HeadLimits::default(), b"BAD\r\n\r\nGET / HTTP/1.0\r\n\r\n");
    assert_eq!((seen, phase), (vec![OwnedEvent::Bad(Error::RequestLine)], Phase::Failed));
}

#[test]
fn s10_1_1_continue_comes_once_and_only_while_the_body_is_away() {
    let limits = HeadLimits::default();
    let length = post("Expect: 100-Continue\r\nContent-Length: 2\r\n\r\n");
    let chunked = post("Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (head, body) in [(&length, "ab"), (&chunked, "2\r\nab\r\n0\r\n\r\n")] {
        for cut in 0..head.len() {
            let mut reader = Reader::new();
            let (first, second) = head.as_bytes().split_at(cut);
            assert!(matches!(reader.next(&limits, &mut first.to_vec()), (_, RequestEvent::Need)));
            assert!(matches!(
                reader.next(&limits, &mut second.to_vec()),
                (_, RequestEvent::Continue)
            ));
            assert_eq!(reader.phase(), Phase::Body);
            assert!(matches!(reader.next(&limits, &mut []), (0, RequestEvent::Need)));
            let mut body = body.as_bytes().to_vec();
            let (taken, event) = reader.next(&limits, &mut body);
            assert!(matches!(event, RequestEvent::Request(request) if request.body == b"ab"));
            assert_eq!(taken, body.len());
        }
    }
    for (input, what) in [
        (format!("{length}a"), "part of the body is here"),
        (post("Content-Length: 2\r\n\r\n"), "not asked for"),
        (post("Expect: 200-ok\r\nContent-Length: 2\r\n\r\n"), "another expectation"),
        (length.replace("1.1", "1.0"), "not in HTTP/1.0"),
    ] {
        let mut input = input.into_bytes();
        assert!(
            matches!(Reader::new().next(&limits, &mut input), (_, RequestEvent::Need)),
            "{what}"
        );
    }
    check(&post("Expect: 100-continue\r\n\r\n"), &["POST /p 1.1 []"]);
}

#[test]
fn reader_phase_is_what_it_waits_for() {
    let limits = HeadLimits::default();
    let mut reader = Reader::new();
    for (piece, want) in [
        ("", Phase::Idle),
        ("\r\n", Phase::Idle),
        ("\r", Phase::Head),
        ("\n", Phase::Idle),
        ("P", Phase::Head),
        ("OST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r", Phase::Head),
        ("\n", Phase::Body),
        ("a", Phase::Body),
        ("b", Phase::Idle),
        ("\n", Phase::Failed),
        ("GET / HTTP/1.0\r\n\r\n", Phase::Failed),
    ] {
        reader.next(&limits, &mut piece.as_bytes().to_vec());
        assert_eq!(reader.phase(), want, "{piece:?}");
    }
}

#[test]
fn request_target_ends_its_path_at_the_first_question_mark() {
    for (target, path, query) in [
        ("/", "/", ""),
        ("/a", "/a", ""),
        ("/a?", "/a", ""),
        ("/?b", "/", "b"),
        ("/a?b?", "/a", "b?"),
    ] {
        let mut input = format!("GET {target} HTTP/1.0\r\n\r\n").into_bytes();
        let mut reader = Reader::new();
        let (_, event) = reader.next(&HeadLimits::default(), &mut input);
        let RequestEvent::Request(request) = event else { panic!("{event:?}") };
        assert_eq!((request.path(), request.query()), (path, query), "{target}");
    }
}

#[test]
fn request_accessors_return_fields() {
    let mut input =
        b"GET http://one:1/a/b?c?d HTTP/1.1\r\nHost: two\r\nX-List: a, ,b\r\nx-list:,c \r\n\
        X-Raw: \xff\r\nX-Empty:\r\nX-Raw: ok\r\n\r\n"
            .to_vec();
    let mut reader = Reader::new();
    let (_, event) = reader.next(&HeadLimits::default(), &mut input);
    let RequestEvent::Request(request) = event else { panic!("{event:?}") };
    assert_eq!((request.path(), request.query()), ("/a/b", "c?d"));
    assert_eq!((request.authority(), request.header("HOST")), (Some("one:1"), Some("two")));
    assert_eq!(request.header_values("X-LIST").collect::<Vec<_>>(), ["a, ,b", ",c"]);
    assert_eq!(request.headers.tokens("x-list").collect::<Vec<_>>(), ["a", "b", "c"]);
    assert!(request.headers.has_token("x-list", "C") && !request.headers.has_token("x", "c"));
    assert_eq!(request.header("x-raw"), None, "the first is not text");
    assert_eq!(request.header_values("x-raw").collect::<Vec<_>>(), ["ok"]);
    assert_eq!(request.headers.tokens("x-raw").collect::<Vec<_>>(), ["", "ok"]);
    assert_eq!((request.header("x-empty"), request.header("x-none")), (Some(""), None));
    assert_eq!((request.headers.len(), request.headers.is_empty()), (6, false));
    assert_eq!(request.connection(), Connection::KeepAlive);
}

#[test]
fn reader_borrows_a_whole_request_from_the_input() {
    let mut input = post("Content-Length: 2\r\n\r\nab").into_bytes();
    let range = input.as_ptr_range();
    let mut reader = Reader::new();
    let (_, event) = reader.next(&HeadLimits::default(), &mut input);
    let RequestEvent::Request(request) = event else { panic!("{event:?}") };
    assert!(range.contains(&request.method.as_ptr()) && range.contains(&request.body.as_ptr()));
    assert_eq!(reader.buffer.capacity(), 0);
    assert!(size_of::<Reader>() <= 96, "{}", size_of::<Reader>());
}

#[test]
fn reader_refusal_is_a_whole_response() {
    let mut out = Vec::new();
    Error::BodyTooLarge.respond(&mut out);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "HTTP/1.1 413 Content Too Large\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Length: 23\r\nConnection: close\r\n\r\nrequest body too large\n"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A pipeline of requests with bodies of every kind, in random pieces.
    #[test]
    fn reader_returns_the_same_events_at_any_split(
        bodies in prop::collection::vec((0..4u8, prop::collection::vec(any::<u8>(), 0..40)), 1..6),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let mut input = Vec::new();
        for (kind, body) in &bodies {
            push_request(&mut input, *kind, body);
        }
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(input.len() + 1)).collect();
        cuts.sort_unstable();
        let mut pieces = Vec::new();
        let mut start = 0;
        for cut in cuts.into_iter().chain([input.len()]) {
            pieces.push(&input[start..cut]);
            start = cut;
        }
        let whole = run(&HeadLimits::default(), [&input[..]]);
        prop_assert_eq!(whole.0.len(), bodies.len());
        prop_assert_eq!(run(&HeadLimits::default(), pieces), whole);
    }

    /// Random text that partly looks like requests: the reader does not panic, and gives the same
    /// events at every cut.
    #[test]
    fn reader_refuses_noise_alike_at_every_cut(
        words in prop::collection::vec(prop::sample::select(NOISE), 0..20),
        head_bytes in 2..60usize,
    ) {
        let limits = HeadLimits { head_bytes, body_bytes: 8, ..HeadLimits::default() };
        outcome(&limits, words.concat().as_bytes());
    }
}

const NOISE: &[&str] = &[
    "GET / HTTP/1.1",
    "POST /p HTTP/1.0",
    "\r\n",
    "\r\n\r\n",
    "\n",
    "\r",
    "Host: h\r\n",
    "Content-Length: 3\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Expect: 100-continue\r\n",
    "3\r\nabc\r\n",
    "0\r\n\r\n",
    "a",
    ":",
    " ",
];

fn push_request(out: &mut Vec<u8>, kind: u8, body: &[u8]) {
    match kind {
        0 => return out.extend_from_slice(get("").as_bytes()),
        1 => out
            .extend_from_slice(post(&format!("Content-Length: {}\r\n\r\n", body.len())).as_bytes()),
        2 => out.extend_from_slice(
            format!("\r\nPUT / HTTP/1.0\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(),
        ),
        _ => {
            out.extend_from_slice(post("Transfer-Encoding: chunked\r\n\r\n").as_bytes());
            for chunk in body.chunks(7) {
                out.extend_from_slice(format!("{:x};e\r\n", chunk.len()).as_bytes());
                out.extend_from_slice(chunk);
                out.extend_from_slice(b"\r\n");
            }
            return out.extend_from_slice(b"0\r\nT: v\r\n\r\n");
        }
    }
    out.extend_from_slice(body);
}

#[test]
fn reader_returns_an_offered_head_and_then_the_whole_request() {
    let limits = HeadLimits { head_bytes: 200, body_bytes: 2, ..HeadLimits::default() };
    let heads = |input: &str, cut: usize| {
        let mut reader = Reader::new();
        reader.offer(true);
        let mut seen = Vec::new();
        let (first, second) = input.as_bytes().split_at(cut);
        for piece in [first, second, b""] {
            let (mut piece, mut at) = (piece.to_vec(), 0);
            loop {
                let (taken, event) = reader.next(&limits, &mut piece[at..]);
                at += taken;
                seen.push(match event {
                    RequestEvent::Need => break,
                    RequestEvent::Head(request, body) => {
                        assert!(request.body.is_empty());
                        let ended = if body.has_ended() { " without a body" } else { "" };
                        format!("head {}{ended}", request.path())
                    }
                    RequestEvent::Continue => "continue".to_owned(),
                    RequestEvent::Bad(error) => format!("{error:?}"),
                    RequestEvent::Request(it) => {
                        format!("{} {}", it.path(), String::from_utf8_lossy(it.body))
                    }
                });
            }
            assert_eq!(at, piece.len());
        }
        seen.join(", ")
    };
    let check = |input: &str, want: &str| {
        for cut in 0..=input.len() {
            assert_eq!(heads(input, cut), want, "{input:?} at {cut}");
        }
    };
    let chunks = "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n";
    check(&post("Content-Length: 2\r\n\r\nab"), "head /p, /p ab");
    check(&post("\r\n"), "head /p without a body, /p ");
    check(&post(chunks).repeat(2), "head /p, /p ab, head /p, /p ab");
    // The framing is checked for its form at once, and for its size when the body is gathered.
    check(&post("Content-Length: 3\r\n\r\nabc"), "head /p, BodyTooLarge");
    check(&post(&format!("Content-Length: 2\r\n{chunks}")), "TwoLengths");
    check("GET /g HTTP/1.1\r\nHost: h\r\n\r\n", "/g ");
    check("POST /o HTTP/1.0\r\nContent-Length: 2\r\n\r\nab", "/o ab");
    let expects = post("Expect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    assert_eq!(heads(&expects, expects.len()), "head /p, continue");
    assert_eq!(heads(&format!("{expects}ab"), expects.len() + 2), "head /p, /p ab");
}
