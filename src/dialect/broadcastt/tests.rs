//! Tests with the vectors of Broadcastt's publishing library, and of every message that the server
//! sends.

use super::super::channels::data::Target;
use super::super::channels::messages;
use super::super::channels::signature::{self, AppKey, SignatureError, Signed};
use super::*;
use crate::crypto::{self, HmacKey};
use crate::hub::Users;

const NOW: u64 = 1_553_345_934;
const AUTH: &str = "auth_key=testkey&auth_timestamp=1553345934&auth_version=1.0";

fn keys() -> [AppKey; 1] {
    [AppKey::new("testkey", "testsecret")]
}

fn hmac(text: &str) -> String {
    let mac = HmacKey::new(b"testsecret").sign(&[text.as_bytes()]);
    String::from_utf8(crypto::hex::<32, 64>(&mac).to_vec()).unwrap()
}

fn run_at(
    method: &str,
    path: &str,
    query: &str,
    body: &str,
    now: u64,
) -> Result<(), SignatureError> {
    let signed = Signed { method, path, prefix: "", query, body: Some(body.as_bytes()) };
    signature::verify(&signed, DATA.signing, &keys(), now, Some(600))
}

fn run(method: &str, path: &str, query: &str, body: &str) -> Result<(), SignatureError> {
    run_at(method, path, query, body, NOW)
}

fn string(write: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    write(&mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn broadcastt_channel_tokens() {
    for (text, signature) in [
        ("1.1:test-channel", "67b492396edbe136bed8a131fd3c5ba7c28316a0a93c083973ecf69ceb2b474b"),
        (
            "98765.12345678:-azAZ9_=@,.;",
            "de12ed26697ecc190d34faaaf4af9090aac64eef5ace17096a757407a167cddf",
        ),
        (
            r#"1.1:test-channel:{"user_id":"id"}"#,
            "0fe707aa1078ae440c69cb38922998d561b90c321e9b96db48cde808022679c7",
        ),
        (
            r#"1.1:test-channel:{"user_id":"id","user_info":{"info-param":"info-value"}}"#,
            "7e8714a77b50ead51790766f17c3e6a7226e31f0b2b073df676820a7f1ada932",
        ),
    ] {
        assert_eq!(hmac(text), signature, "{text}");
    }
}

/// Path, MD5, body and signature of the requests that the publishing library sends, by version.
const POSTS: [(&str, &str, &str, &str); 3] = [
    (
        "/apps/111/event",
        "0d0d3a59ad6d117c7624b2fc9cfac7d5",
        r#"{"name":"test-event","data":"{\"test-key\":\"test-val\"}","channels":["test-channel","private-room"]}"#,
        "d4be422f6582e5f8d98afde12f66069caa57f47675fe0aca8acdff8f158170cd",
    ),
    (
        "/apps/111/events",
        "d3b0228ee424b2750508c8a363162622",
        r#"[{"channel":"test-channel","name":"test-event","data":"{\"test-key\":\"test-val\"}"},{"channel":"test-channel2","name":"test-event2","data":"{\"test-key\":\"test-val2\"}","socket_id":"1.1"}]"#,
        "c604947be3e49a42db2ffc14b11130878c674024db6550481cd59d4e3b3ed4c4",
    ),
    (
        "/apps/111/events",
        "8996a490a0717e0c2db9e18edb18d2ec",
        r#"{"batch":[{"channel":"test-channel","name":"test-event","data":"{\"test-key\":\"test-val\"}"}]}"#,
        "9bd40585edc2de372a87fef6b08298b91fb42f0ccaea0d520c676fc332307700",
    ),
];

#[test]
fn broadcastt_signed_requests() {
    for (path, md5, body, signature) in POSTS {
        let text = format!("{AUTH}&body_md5={md5}");
        assert_eq!(hmac(&format!("POST\n{path}\n{text}")), signature, "{path}");
        // In the order in which the library sends them: sorted by name, with the signature among
        // the others.
        let (key, rest) = text.split_once('&').unwrap();
        let query = format!("{key}&auth_signature={signature}&{rest}");
        assert_eq!(run("POST", path, &query, body), Ok(()), "{path}");
        let spaced = body.replacen(':', ": ", 1);
        assert_eq!(run("POST", path, &query, &spaced), Err(SignatureError::BodyMd5), "{path}");
        assert_eq!(run("GET", path, &query, body), Err(SignatureError::Signature), "{path}");
    }
    let query = format!(
        "{AUTH}&auth_signature=\
         f4d45991f11fc86f1bb4e30e195a55829194e36c45334dc04168e39bea761997\
         &filter_by_prefix=presence-&info=user_count"
    );
    assert_eq!(run("GET", "/apps/111/channels", &query, ""), Ok(()));
    // The library has this vector of a POST with neither a body nor a `body_md5`. The server
    // refuses it.
    let text = format!("POST\n/test/path\n{AUTH}&test_param_name=test_param_value");
    let signature = "8dc3014302fa10b7f7d5c7bd1c2798433530a8b602300750f1f9810d26b4e6cd";
    assert_eq!(hmac(&text), signature);
    let query = format!("{AUTH}&test_param_name=test_param_value&auth_signature={signature}");
    assert_eq!(run("POST", "/test/path", &query, ""), Err(SignatureError::BodyMd5Missing));
}

fn get(sent: &str, signed: &str) -> Result<(), SignatureError> {
    let signature = hmac(&format!("GET\n/p\n{signed}"));
    run("GET", "/p", &format!("{sent}&auth_signature={signature}"), "")
}

#[test]
fn broadcastt_signature_edge_cases() {
    let with = |more: &str| format!("{AUTH}{more}");
    for (sent, signed, valid) in [
        // Percent escapes are decoded, and a plus is a plus.
        ("&q=a%20b%2Cc", "&q=a b,c", true),
        ("&q=%C3%ab", "&q=\u{eb}", true),
        ("&q=a+b", "&q=a+b", true),
        ("&q=a+b", "&q=a b", false),
        ("&q=a%2Bb", "&q=a+b", true),
        ("&q=a%20b", "&q=a%20b", false),
        ("&q=a,b:@/?", "&q=a,b:@/?", true),
        // Names keep their case, and are sorted by their bytes.
        ("&Info=a", "&Info=a", false),
        ("&info=a", "&INFO=a", false),
        ("&zeta=1&info=2", "&info=2&zeta=1", true),
    ] {
        let want = if valid { Ok(()) } else { Err(SignatureError::Signature) };
        assert_eq!(get(&with(sent), &with(signed)), want, "{sent}");
    }
    // Upper case sorts before lower case.
    assert_eq!(get(&with("&Info=a"), &format!("Info=a&{AUTH}")), Ok(()));
    // A name in a different case is a different parameter.
    let upper = AUTH.replace("auth_key", "AUTH_KEY");
    assert_eq!(get(&upper, &upper), Err(SignatureError::Key));
    let other = AUTH.replace("1.0", "1.1");
    assert_eq!(get(&other, &other), Err(SignatureError::Version));
    let lacking = AUTH.replace("&auth_version=1.0", "");
    assert_eq!(get(&lacking, &lacking), Err(SignatureError::Version));
    let lacking = AUTH.replace("auth_timestamp=1553345934&", "");
    assert_eq!(get(&lacking, &lacking), Err(SignatureError::Timestamp));
    assert_eq!(run("GET", "/p", AUTH, ""), Err(SignatureError::Signature));
}

#[test]
fn signature_time_window_on_both_sides() {
    let query = format!("{AUTH}&auth_signature={}", hmac(&format!("GET\n/p\n{AUTH}")));
    for (now, valid) in
        [(NOW - 601, false), (NOW - 600, true), (NOW + 600, true), (NOW + 601, false)]
    {
        assert_eq!(run_at("GET", "/p", &query, "", now).is_ok(), valid, "{now}");
    }
}

#[test]
fn broadcastt_post_needs_its_digest() {
    let signed = |more: &str| {
        let text = format!("{AUTH}{more}");
        format!("{text}&auth_signature={}", hmac(&format!("POST\n/p\n{text}")))
    };
    let empty = "&body_md5=d41d8cd98f00b204e9800998ecf8427e";
    assert_eq!(run("POST", "/p", &signed(empty), ""), Ok(()));
    assert_eq!(run("POST", "/p", &signed(empty), "{}"), Err(SignatureError::BodyMd5));
    assert_eq!(run("POST", "/p", &signed(""), ""), Err(SignatureError::BodyMd5Missing));
    assert_eq!(run("POST", "/p", &signed(""), "{}"), Err(SignatureError::BodyMd5Missing));
}

#[test]
fn broadcastt_data_is_a_string_of_json() {
    assert_eq!(
        messages::established(&DATA, "123.456", 120),
        r#"{"event":"broadcastt:connection_established","data":"{\"socket_id\":\"123.456\",\"activity_timeout\":120}"}"#
    );
    assert_eq!(str::from_utf8(DATA.pong), Ok(r#"{"event":"broadcastt:pong","data":"{}"}"#));
    assert_eq!(
        string(|out| *out = words::error(4001, "no \"app\"")),
        r#"{"event":"broadcastt:error","data":"{\"code\":4001,\"message\":\"no \\\"app\\\"\"}"}"#
    );
    assert_eq!(
        string(|out| *out = messages::subscribed(&DATA, "news", b"{}")),
        r#"{"event":"broadcastt_internal:subscription_succeeded","channel":"news","data":"{}"}"#
    );
    assert_eq!(
        string(
            |out| *out = words::subscription_error("private-room", super::data::AUTH, "bad", 401)
        ),
        r#"{"event":"broadcastt:subscription_error","channel":"private-room","data":"{\"type\":\"AuthError\",\"error\":\"bad\",\"status\":401}"}"#
    );
    let users: Users = vec![
        (r#""u1""#.into(), Some(r#"{"name":"Ann"}"#.into())),
        ("42".into(), None),
        (r#""a\"b""#.into(), None),
    ];
    assert_eq!(
        string(|out| *out = words::roster(&users)),
        r#"{"presence":{"count":3,"ids":["u1",42,"a\"b"],"hash":{"u1":{"name":"Ann"},"42":null,"a\"b":null}}}"#
    );
    let info = Some(r#"{"name":"Bob"}"#);
    assert_eq!(
        string(|out| words::push_member_added(out, "presence-lobby", r#""u2""#, info)),
        r#"{"event":"broadcastt_internal:member_added","channel":"presence-lobby","data":"{\"user_id\":\"u2\",\"user_info\":{\"name\":\"Bob\"}}"}"#
    );
    assert_eq!(
        string(|out| words::push_member_added(out, "presence-lobby", "42", None)),
        r#"{"event":"broadcastt_internal:member_added","channel":"presence-lobby","data":"{\"user_id\":42}"}"#
    );
    assert_eq!(
        string(|out| words::push_member_removed(out, "presence-lobby", r#""u2""#)),
        r#"{"event":"broadcastt_internal:member_removed","channel":"presence-lobby","data":"{\"user_id\":\"u2\"}"}"#
    );
}

#[test]
fn broadcastt_user_id_keeps_its_type() {
    for (raw, content, id, quoted) in [
        ("42", "42", "42", r#""42""#),
        (r#""42""#, "42", r#""42""#, r#""42""#),
        (r#""\u0061\/""#, "a/", r#""a/""#, r#""a/""#),
    ] {
        assert_eq!(words::id(raw, content), id);
        assert_eq!(string(|out| words::push_quoted(out, id)), quoted);
    }
}

#[test]
fn broadcastt_data_that_is_not_json_becomes_a_string() {
    for (given, is_string, want) in [
        (r#"{"a":1}"#, true, r#"{"a":1}"#),
        (r#""str""#, true, r#""str""#),
        ("5", true, "5"),
        (" [1] ", true, " [1] "),
        ("plain", true, r#""plain""#),
        ("", true, r#""""#),
        ("{\"a\":1", true, r#""{\"a\":1""#),
        ("a\nb", true, r#""a\nb""#),
        (r#"{"a":1}"#, false, r#"{"a":1}"#),
    ] {
        assert_eq!(words::data(Cow::Borrowed(given), is_string), want, "{given}");
    }
    let deep = "[".repeat(5000) + &"]".repeat(5000);
    assert_eq!(words::data(Cow::Borrowed(&deep), true), deep);
    for (raw, want) in [
        (Some(r#"{"who":"ann"}"#), r#""{\"who\":\"ann\"}""#),
        (Some(r#""plain""#), r#""\"plain\"""#),
        (Some(r#""{\"a\":1}""#), r#""{\"a\":1}""#),
        (Some("5"), r#""5""#),
        (None, r#""{}""#),
    ] {
        let frame = string(|out| words::push_client_event(out, "client-a", "private-a", raw));
        let want = format!(r#"{{"event":"client-a","channel":"private-a","data":{want}}}"#);
        assert_eq!(frame, want);
    }
}

#[test]
fn broadcastt_paths_differ_from_pusher() {
    let named = |name: &'static str| Cow::Borrowed(name);
    for (path, target) in [
        ("/event", Some(Target::Events)),
        ("/events", Some(Target::Batch)),
        ("/channels", Some(Target::Channels)),
        ("/channel/news", Some(Target::Channel(named("news")))),
        ("/channel/a%40b", Some(Target::Channel(named("a@b")))),
        ("/channels/presence-a/users", Some(Target::Users(named("presence-a")))),
        ("/batch_events", None),
        ("/channels/news", None),
        ("/channel", None),
        ("/channel/", None),
        ("/channel/a/users", None),
        ("/event/x", None),
        ("/events/", None),
        ("/users/a/events", None),
        ("", None),
    ] {
        assert_eq!(DATA.target(path), target, "{path}");
    }
}

/// Every close code in the vendor's ranges 4000 to 4299 is preceded by an error event with the same
/// code.
#[test]
fn broadcastt_error_event_comes_before_the_close() {
    for (closing, code) in [
        (DATA.codes.tls_required.clone(), 4000),
        (DATA.codes.unknown_app.clone(), 4001),
        (DATA.codes.app_disabled.clone(), 4003),
        (DATA.codes.over_quota.clone(), 4004),
        (DATA.codes.no_such_path.clone(), 4005),
        (DATA.codes.too_many_errors.clone(), 4008),
        (DATA.codes.origin.clone(), 4009),
        (DATA.codes.unauthorised.clone(), 4009),
        (DATA.codes.too_slow.clone(), 4100),
        (DATA.codes.draining.clone(), 4200),
        (DATA.codes.silent.clone(), 4201),
    ] {
        assert_eq!(closing.code, code);
        let closing_event = Broadcastt::before_close(&closing, false).expect("an event");
        assert_eq!(closing_event, words::error(code, &closing.reason));
    }
    for (code, becomes) in [(1008, 4008), (1009, 4008), (1002, 1002), (4201, 4201)] {
        assert_eq!(DATA.translate(Closing::new(code, "x")).code, becomes);
    }
    assert_eq!(Broadcastt::before_close(&Closing::new(1003, "x"), false), None);
}
