//! Tests of signature verification: the vendor's published vectors, the differences between client
//! libraries, and every error.

use super::*;

const NOW: u64 = 1_760_000_000;
const AUTH: &str = "auth_key=key-3f1c&auth_timestamp=1760000000&auth_version=1.0";
const BODY: &str = r#"{"name":"e","channels":["c"],"data":"{\"a\":1}"}"#;
const BODY_HASH: &str = "&body_md5=f518eed1ef3e0be56159df91943672af";

fn keys() -> [AppKey; 2] {
    [AppKey::new("key-old", "secret-old"), AppKey::new("key-3f1c", "secret-9b7e")]
}

/// The signature of `METHOD\npath\nquery` with the secret of the published vectors.
fn sign(text: &str) -> String {
    let mac = AppKey::new("", "secret-9b7e").secret.sign(&[text.as_bytes()]);
    String::from_utf8(hex::<32, 64>(&mac).to_vec()).unwrap()
}

fn run(method: &str, path: &str, query: &str, body: &str) -> Result<(), SignatureError> {
    let body = body.as_bytes();
    verify(
        &Signed { method, path, prefix: "/ws", query, body: Some(body) },
        LENIENT,
        &keys(),
        NOW,
        Some(600),
    )
}

/// Verifies a GET of `/p` with `query` as sent, where `text` was signed.
fn check_get(query: &str, text: &str, want: Result<(), SignatureError>) {
    let query = format!("{query}&auth_signature={}", sign(&format!("GET\n/p\n{text}")));
    assert_eq!(run("GET", "/p", &query, ""), want, "{query}");
}

#[test]
fn signature_vectors_published_by_the_vendor() {
    let terminate = format!("{AUTH}&body_md5=99914b932bd37a50b983c5e7c90ae93b");
    for (method, path, query, body, signature) in [
        (
            "POST",
            "/apps/42/events",
            format!("{AUTH}{BODY_HASH}"),
            BODY,
            "19598f7a7641b7dd612ff4e7d5a26b546b18b0a3f88067f2c578ece07a30661b",
        ),
        (
            "GET",
            "/apps/42/channels",
            format!("{AUTH}&filter_by_prefix=presence-&info=user_count"),
            "",
            "f0057c066ec9553700eda881871c53ebf9dc9e01605f346d1600163265bf1ea8",
        ),
        (
            "POST",
            "/apps/42/users/ada/terminate_connections",
            terminate,
            "{}",
            "62c0d737a2368fb9d9569a5d68eb9aa9ff20cddb5bcf04e412aced9aac17febf",
        ),
    ] {
        let signed = format!("{query}&auth_signature={signature}");
        assert_eq!(run(method, path, &signed, body), Ok(()), "{path}");
        for (method, path) in [("PUT", path), (method, "/apps/43/events")] {
            assert_eq!(run(method, path, &signed, body), Err(SignatureError::Signature), "{path}");
        }
        // Changes the last digit of the signature.
        let flip = if signed.ends_with('1') { "2" } else { "1" };
        let forged = format!("{}{flip}", &signed[..signed.len() - 1]);
        assert_eq!(run(method, path, &forged, body), Err(SignatureError::Signature), "{path}");
    }
}

#[test]
fn signature_ignores_order_and_case_of_parameters() {
    let text = format!("{AUTH}&info=A&zeta=B");
    check_get(&text, &text, Ok(()));
    let turned = "zeta=B&info=A&auth_version=1.0&auth_timestamp=1760000000&auth_key=key-3f1c";
    check_get(turned, &text, Ok(()));
    check_get(&format!("{AUTH}&INFO=A&Zeta=B"), &text, Ok(()));
    check_get(&format!("{AUTH}&info=a&zeta=B"), &text, Err(SignatureError::Signature));
    let signature = sign(&format!("GET\n/p\n{text}"));
    let first = format!("Auth_Signature={signature}&{text}");
    assert_eq!(run("GET", "/p", &first, ""), Ok(()));
    // Parameters with equal names keep their order.
    let list = format!("{AUTH}&channels[]=b&channels[]=a");
    check_get(&list, &list, Ok(()));
    check_get(&format!("channels[]=b&{AUTH}&channels[]=a"), &list, Ok(()));
    check_get(&format!("channels[]=a&{AUTH}&channels[]=b"), &list, Err(SignatureError::Signature));
}

#[test]
fn signature_accepts_every_escaping() {
    for (sent, signed, want) in [
        ("&info=user_count%2Csubscription_count", "&info=user_count,subscription_count", true),
        ("&info=user_count,subscription_count", "&info=user_count,subscription_count", true),
        ("&info=a%2Cb", "&info=a%2Cb", true),
        ("&info=a%2cb", "&info=a%2Cb", false),
        ("&q=a+b%2Bc", "&q=a b+c", true),
        ("&q=a+b", "&q=a+b", true),
        ("&q=a+b%2C", "&q=a+b,", true),
        ("&q=a+b%2C", "&q=a+b%2C", true),
        ("&q=a%20b", "&q=a b", true),
        ("&q=Zo%C3%AB", "&q=Zoë", true),
        ("&q=%ff%", "&q=%ff%", true),
        ("&channels%5B%5D=a", "&channels[]=a", true),
        ("&q", "&q=", true),
        ("&q=a%2Cb", "&q=a;b", false),
    ] {
        let want = if want { Ok(()) } else { Err(SignatureError::Signature) };
        check_get(&format!("{AUTH}{sent}"), &format!("{AUTH}{signed}"), want);
    }
    check_get(&AUTH.replace("key-", "key%2D"), AUTH, Ok(()));
}

#[test]
fn signature_path_with_or_without_the_prefix() {
    for (received, signed, want) in [
        ("/p", "/p", true),
        ("/ws/p", "/ws/p", true),
        ("/ws/p", "/p", true),
        ("/p", "/ws/p", true),
        ("/ws/p", "/ws/ws/p", false),
        ("/a/p", "/p", false),
        ("/channels/a%40b", "/channels/a%40b", true),
        ("/channels/a@b,c=d;e", "/channels/a@b,c=d;e", true),
    ] {
        let query = format!("{AUTH}&auth_signature={}", sign(&format!("GET\n{signed}\n{AUTH}")));
        let want = if want { Ok(()) } else { Err(SignatureError::Signature) };
        assert_eq!(run("GET", received, &query, ""), want, "{received} {signed}");
    }
    // Without a configured prefix, only the path as received is tried.
    let query = format!("{AUTH}&auth_signature={}", sign(&format!("GET\n/p\n{AUTH}")));
    let request = Signed { method: "GET", path: "/p", prefix: "", query: &query, body: Some(b"") };
    assert_eq!(verify(&request, LENIENT, &keys(), NOW, Some(600)), Ok(()));
    let request = Signed { path: "/ws/p", ..request };
    assert_eq!(verify(&request, LENIENT, &keys(), NOW, Some(600)), Err(SignatureError::Signature));
}

#[test]
fn signature_time_window_on_both_sides() {
    let at = |given: &str| AUTH.replace("1760000000", given);
    let expired = |given| Err(SignatureError::Expired { given, now: NOW, tolerance: 600 });
    for (given, want) in [
        ("1759999400", Ok(())),
        ("1759999399", expired(NOW - 601)),
        ("1760000600", Ok(())),
        ("1760000601", expired(NOW + 601)),
        ("0", expired(0)),
        ("18446744073709551615", expired(u64::MAX)),
        ("18446744073709551616", Err(SignatureError::Timestamp)),
        ("-1760000000", Err(SignatureError::Timestamp)),
        ("+1760000000", Err(SignatureError::Timestamp)),
        ("1760000000.0", Err(SignatureError::Timestamp)),
        ("", Err(SignatureError::Timestamp)),
    ] {
        check_get(&at(given), &at(given), want);
    }
    let missing = "auth_key=key-3f1c&auth_version=1.0";
    check_get(missing, missing, Err(SignatureError::Timestamp));
    let text = expired(NOW - 601).unwrap_err().to_string();
    assert_eq!(
        text,
        "Timestamp expired: Given timestamp (1759999399) not within 600s of server time \
         (1760000000)"
    );
}

#[test]
fn signature_without_time_check_accepts_any_time() {
    let text = "auth_key=key-3f1c&auth_timestamp=1&auth_version=1.0";
    let query = format!("{text}&auth_signature={}", sign(&format!("GET\n/p\n{text}")));
    let request = Signed { method: "GET", path: "/p", prefix: "", query: &query, body: Some(b"") };
    assert_eq!(verify(&request, LENIENT, &keys(), NOW, None), Ok(()));
}

#[test]
fn signature_checks_the_body_digest() {
    let empty = "&body_md5=d41d8cd98f00b204e9800998ecf8427e";
    for (method, digest, body, want) in [
        ("POST", BODY_HASH, BODY, Ok(())),
        ("POST", "&body_md5=F518EED1EF3E0BE56159DF91943672AF", BODY, Ok(())),
        ("POST", "", BODY, Err(SignatureError::BodyMd5Missing)),
        ("POST", BODY_HASH, "{}", Err(SignatureError::BodyMd5)),
        ("POST", BODY_HASH, "", Err(SignatureError::BodyMd5)),
        ("POST", "&body_md5=", BODY, Err(SignatureError::BodyMd5)),
        ("POST", "", "", Ok(())),
        ("GET", empty, "", Ok(())),
        ("GET", "", "", Ok(())),
        ("GET", empty, "x", Err(SignatureError::BodyMd5)),
    ] {
        let text = format!("{AUTH}{digest}");
        let signature = sign(&format!("{method}\n/p\n{text}"));
        let query = format!("{text}&auth_signature={signature}");
        assert_eq!(run(method, "/p", &query, body), want, "{method} {digest} {body}");
    }
}

#[test]
fn signature_keys_and_versions() {
    for (from, to, want) in [
        ("auth_key=key-3f1c&", "", SignatureError::Key),
        ("key-3f1c", "", SignatureError::Key),
        ("key-3f1c", "key-3f1", SignatureError::Key),
        ("key-3f1c", "KEY-3F1C", SignatureError::Key),
        ("key-3f1c", "key-old", SignatureError::Signature),
        ("&auth_version=1.0", "", SignatureError::Version),
        ("version=1.0", "version=1.1", SignatureError::Version),
        ("version=1.0", "version=1", SignatureError::Version),
        ("auth_key", "auth_key=key-3f1c&auth_key", SignatureError::Repeated("auth_key")),
        ("auth_v", "AUTH_VERSION=1.0&auth_v", SignatureError::Repeated("auth_version")),
        ("auth_v", "auth_timestamp=1&auth_v", SignatureError::Repeated("auth_timestamp")),
        ("auth_v", "auth_signature=1&auth_v", SignatureError::Repeated("auth_signature")),
        ("auth_v", "body_md5=1&body_md5=1&auth_v", SignatureError::Repeated("body_md5")),
    ] {
        let text = AUTH.replace(from, to);
        check_get(&text, &text, Err(want));
        assert_eq!(want.status(), 401);
    }
    assert_eq!(run("GET", "/p", "", ""), Err(SignatureError::Key));
    assert_eq!(run("GET", "/p", AUTH, ""), Err(SignatureError::Signature));
    for signature in ["", "00", &"0".repeat(64), &"0".repeat(65)] {
        let query = format!("{AUTH}&auth_signature={signature}");
        assert_eq!(run("GET", "/p", &query, ""), Err(SignatureError::Signature), "{query}");
    }
    // The other key is accepted with its own secret.
    let text = AUTH.replace("key-3f1c", "key-old");
    let mac = keys()[0].secret.sign(&[b"GET\n/p\n", text.as_bytes()]);
    let mac = String::from_utf8(hex::<32, 64>(&mac).to_vec()).unwrap();
    assert_eq!(run("GET", "/p", &format!("{text}&auth_signature={mac}"), ""), Ok(()));
}

#[test]
fn signature_reports_the_first_error() {
    let all_wrong = "auth_timestamp=1&body_md5=1&auth_signature=1";
    let expired = SignatureError::Expired { given: 1, now: NOW, tolerance: 600 };
    for (more, want) in [
        ("", SignatureError::Key),
        ("&auth_key=key-3f1c", SignatureError::Version),
        ("&auth_key=key-3f1c&auth_version=1.0", expired),
    ] {
        assert_eq!(run("GET", "/p", &format!("{all_wrong}{more}"), ""), Err(want));
    }
    let forged = format!("{AUTH}&auth_signature=1");
    assert_eq!(run("POST", "/p", &forged, "x"), Err(SignatureError::BodyMd5Missing));
    // The signature is checked before the body is hashed.
    let forged = format!("{AUTH}&body_md5=1&auth_signature=1");
    assert_eq!(run("POST", "/p", &forged, &"x".repeat(1 << 20)), Err(SignatureError::Signature));
    let text = format!("{AUTH}&body_md5=1");
    let signed = format!("{text}&auth_signature={}", sign(&format!("POST\n/p\n{text}")));
    assert_eq!(run("POST", "/p", &signed, "x"), Err(SignatureError::BodyMd5));
}
