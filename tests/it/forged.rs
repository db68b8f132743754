//! Handshakes with forged tokens: the known attacks on JSON Web Tokens, beside the valid tokens
//! that they are derived from.

use crate::machine::{Machine, UNIX_S, config};
use crate::peer::{Received, handshake};
use crate::signer::Private;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use polycast::jwt::Algorithm;
use serde_json::{Value, json};
use std::net::Ipv4Addr;

macro_rules! pem {
    ($name:literal) => {
        include_str!(concat!("../keys/", $name))
    };
}

/// The key ids and the algorithms of the guard's keys.
const OURS: [(&str, Algorithm); 3] =
    [("rsa", Algorithm::RS256), ("ec", Algorithm::ES256), ("ed", Algorithm::EdDSA)];

fn server() -> Machine {
    let keys = [("rsa", pem!("rsa.pub")), ("ec", pem!("p256.pub")), ("ed", pem!("ed25519.pub"))];
    let keys = keys.map(|(kid, pem)| format!("{{ kid = '{kid}', pem = '''{pem}''' }}"));
    Machine::new(config(&format!(
        "[[guards]]\nname = 'g'\nissuer = 'https://auth.example.com'\naudience = 'api'\n\
         keys = [{}]\ntoken_bytes = 4096\nleeway_s = 0\n\
         [guards.credentials]\nquery = {{ t = '{{credentials}}' }}\n\
         cookies = {{ t = '{{credentials}}' }}\nprotocol = 'bearer.{{credentials}}'\n\
         [[routes]]\nguarded = {{ g = [] }}\nendpoint = 'echo'\n",
        keys.join(", ")
    )))
}

/// The status of the response to a handshake with these header lines.
fn asks(machine: &mut Machine, target: &str, fields: &str) -> u16 {
    // Use a new address after each failure, because the failures of an address are limited per
    // second.
    let tries = machine.counters.guard_bad_token.get() as u32;
    let at = machine.open_from(Ipv4Addr::from(0x0a00_0000 + tries));
    machine.receive(at, &handshake(target, fields));
    match machine.wire(at).received.first() {
        Some(Received::Answer { status, .. }) => *status,
        other => panic!("{other:?}"),
    }
}

fn login(machine: &mut Machine, token: &str) -> u16 {
    asks(machine, "/", &format!("Authorization: Bearer {token}\r\n"))
}

#[track_caller]
fn refused(machine: &mut Machine, token: &str) {
    let before = machine.counters.guard_bad_token.get();
    assert_eq!(login(machine, token), 403, "{token}");
    assert_eq!(machine.counters.guard_bad_token.get(), before + 1, "{token}");
}

#[track_caller]
fn let_in(machine: &mut Machine, token: &str) {
    assert_eq!(login(machine, token), 101, "{token}");
}

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn good() -> Value {
    json!({"iss": "https://auth.example.com", "aud": "api", "sub": "ada", "exp": UNIX_S + 60})
}

fn message(header: &str, claims: &str) -> String {
    format!("{}.{}", b64(header), b64(claims))
}

fn private(algorithm: Algorithm) -> Private {
    let pem = match algorithm {
        Algorithm::ES256 => pem!("p256.pem"),
        Algorithm::ES384 => pem!("p384.pem"),
        Algorithm::EdDSA => pem!("ed25519.pem"),
        _ => pem!("rsa.pem"),
    };
    Private::from_pem(pem, algorithm)
}

fn sealed(message: String, key: &Private, algorithm: Algorithm) -> String {
    let signature = key.sign(&message, algorithm);
    format!("{message}.{signature}")
}

fn signed_text(header: &str, claims: &str, algorithm: Algorithm) -> String {
    sealed(message(header, claims), &private(algorithm), algorithm)
}

fn signed(header: &Value, claims: &Value, algorithm: Algorithm) -> String {
    signed_text(&header.to_string(), &claims.to_string(), algorithm)
}

/// A valid token with these claims, as the issuer signs it.
fn issued(claims: &Value) -> String {
    signed(&json!({"alg": "ES256", "kid": "ec"}), claims, Algorithm::ES256)
}

fn with(name: &str, value: Value) -> String {
    let mut claims = good();
    claims[name] = value;
    issued(&claims)
}

/// The token without its signature as text, and the bytes of the signature.
fn split(token: &str) -> (&str, Vec<u8>) {
    let (message, signature) = token.rsplit_once('.').unwrap();
    (message, URL_SAFE_NO_PAD.decode(signature).unwrap())
}

fn unhex(text: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(byte).collect()
}

/// The sum of two big-endian numbers of the same length, or their difference if `sign` is -1.
fn combine(a: &[u8], b: &[u8], sign: i16) -> Vec<u8> {
    let (mut out, mut carry) = (a.to_vec(), 0);
    for (digit, other) in out.iter_mut().zip(b).rev() {
        let sum = i16::from(*digit) + sign * i16::from(*other) + carry;
        (*digit, carry) = (sum.rem_euclid(256) as u8, sum.div_euclid(256));
    }
    out
}

#[test]
fn jwt_good_tokens_are_accepted() {
    let mut it = server();
    for (kid, algorithm) in OURS {
        let named = json!({"alg": format!("{algorithm:?}"), "kid": kid, "typ": "JWT"});
        let_in(&mut it, &signed(&named, &good(), algorithm));
        let nameless = json!({"alg": format!("{algorithm:?}")});
        let_in(&mut it, &signed(&nameless, &good(), algorithm));
    }
    it.end();
}

#[test]
fn jwt_without_algorithm_or_signature_is_refused() {
    let mut it = server();
    for name in ["none", "None", "NONE", "nOnE", "none ", "\0none", "", "HS256", "es256", "ES512"] {
        for kid in [None, Some("ec")] {
            let header = json!({"alg": name, "kid": kid});
            let header = if kid.is_none() { json!({"alg": name}) } else { header };
            let unsigned = message(&header.to_string(), &good().to_string());
            refused(&mut it, &format!("{unsigned}."));
            refused(&mut it, &unsigned);
            refused(&mut it, &signed(&header, &good(), Algorithm::ES256));
        }
    }
    for header in [json!({}), json!({"alg": null}), json!({"alg": ["none"]}), json!({"alg": true})]
    {
        refused(&mut it, &signed(&header, &good(), Algorithm::ES256));
    }
    for (kid, algorithm) in OURS {
        let header = json!({"alg": format!("{algorithm:?}"), "kid": kid});
        let unsigned = message(&header.to_string(), &good().to_string());
        refused(&mut it, &format!("{unsigned}."));
        refused(&mut it, &unsigned);
    }
    it.end();
}

#[test]
fn jwt_public_values_are_no_secrets() {
    let mut it = server();
    let rsa = private(Algorithm::RS256);
    let body = |pem: &str| {
        let lines = pem.lines().filter(|line| !line.starts_with('-'));
        STANDARD.decode(lines.collect::<String>()).unwrap()
    };
    for (kid, secret) in [
        ("rsa", pem!("rsa.pub").as_bytes().to_vec()),
        ("rsa", pem!("rsa.pub").trim().as_bytes().to_vec()),
        ("rsa", pem!("rsa.pub").replace('\n', "\r\n").into_bytes()),
        ("rsa", body(pem!("rsa.pub"))),
        ("rsa", rsa.public().to_vec()),
        ("ec", pem!("p256.pub").as_bytes().to_vec()),
        ("ec", body(pem!("p256.pub"))),
        ("ed", body(pem!("ed25519.pub"))),
        ("ec", Vec::new()),
        ("ec", b"secret".to_vec()),
        ("none", Vec::new()),
    ] {
        for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            for header in [
                json!({"alg": format!("{algorithm:?}"), "kid": kid}),
                json!({"alg": format!("{algorithm:?}")}),
            ] {
                let message = message(&header.to_string(), &good().to_string());
                refused(&mut it, &sealed(message, &Private::from_secret(&secret), algorithm));
            }
        }
    }
    it.end();
}

#[test]
fn jwt_key_is_used_for_its_own_algorithms_only() {
    let mut it = server();
    let all = [Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::ES384];
    for signer in all.into_iter().chain([Algorithm::EdDSA]) {
        for (kid, _) in OURS {
            for says in ["RS256", "PS512", "ES256", "ES384", "EdDSA", "Ed25519", "ES256K"] {
                let header = json!({"alg": says, "kid": kid});
                let ours = matches!(
                    (signer, kid, says),
                    (Algorithm::RS256, "rsa", "RS256")
                        | (Algorithm::ES256, "ec", "ES256")
                        | (Algorithm::EdDSA, "ed", "EdDSA" | "Ed25519")
                );
                let status = login(&mut it, &signed(&header, &good(), signer));
                assert_eq!(status == 101, ours, "{signer:?} {kid} {says}: {status}");
            }
        }
    }
    it.end();
}

#[test]
fn jwt_key_ids_are_only_names() {
    let mut it = server();
    for kid in [
        "",
        " ec",
        "EC",
        "ec\0",
        "ec\n",
        "\u{202e}ce",
        "../../../../dev/null",
        "/proc/sys/kernel/randomize_va_space",
        "C:\\Windows\\win.ini",
        "file:///etc/passwd",
        "https://evil.example/key.pem",
        "ec' OR '1'='1",
        "x' UNION SELECT 'secret'; -- ",
        "|/bin/sleep 10",
        "$(id)",
        "${jndi:ldap://evil.example/a}",
        "*",
        "%00",
        &"k".repeat(2000),
    ] {
        let header = json!({"alg": "ES256", "kid": kid});
        refused(&mut it, &signed(&header, &good(), Algorithm::ES256));
        // The secrets that an empty file or an attacker's database row would provide.
        for secret in ["", "secret", "\0"] {
            let header = json!({"alg": "HS256", "kid": kid});
            let message = message(&header.to_string(), &good().to_string());
            let secret = Private::from_secret(secret.as_bytes());
            refused(&mut it, &sealed(message, &secret, Algorithm::HS256));
        }
    }
    for kid in [json!(null), json!(0), json!(["ec"]), json!({"ec": 1}), json!(true)] {
        let header = json!({"alg": "ES256", "kid": kid});
        refused(&mut it, &signed(&header, &good(), Algorithm::ES256));
    }
    it.end();
}

#[test]
fn jwt_keys_in_the_token_are_not_used() {
    let mut it = server();
    let key = private(Algorithm::ES384);
    let (x, y) = key.public()[1..].split_at(48);
    let jwk = json!({"kty": "EC", "crv": "P-384", "x": b64(x), "y": b64(y), "kid": "ec"});
    for (name, value) in [
        ("jwk", jwk),
        ("jku", json!("https://evil.example/jwks.json")),
        ("x5u", json!("https://evil.example/cert.pem")),
        ("x5c", json!([STANDARD.encode(b"certificate")])),
        ("x5t", json!("AAAA")),
    ] {
        for kid in ["ec", "evil"] {
            let header = json!({"alg": "ES384", "kid": kid, name: value});
            refused(&mut it, &signed(&header, &good(), Algorithm::ES384));
        }
        // On a valid token these header parameters have no effect.
        let header = json!({"alg": "ES256", "kid": "ec", name: value});
        let_in(&mut it, &signed(&header, &good(), Algorithm::ES256));
    }
    for more in [r#""crit":[]"#, r#""crit":["exp"],"exp":1"#, r#""b64":false,"crit":["b64"]"#] {
        let header = format!(r#"{{"alg":"ES256","kid":"ec",{more}}}"#);
        refused(&mut it, &signed_text(&header, &good().to_string(), Algorithm::ES256));
    }
    it.end();
}

#[test]
fn jwt_claims_for_other_times_or_audiences_are_refused() {
    let mut it = server();
    let_in(&mut it, &with("nbf", json!(UNIX_S)));
    let_in(&mut it, &with("exp", json!(UNIX_S + 1)));
    let_in(&mut it, &with("aud", json!(["other", "api"])));
    for (name, value) in [
        ("exp", json!(UNIX_S)),
        ("exp", json!(0)),
        ("exp", json!(-1)),
        ("exp", json!(format!("{}", UNIX_S + 60))),
        ("exp", json!(null)),
        ("exp", json!([UNIX_S + 60])),
        ("nbf", json!(UNIX_S + 1)),
        ("iat", json!(UNIX_S + 1)),
        ("nbf", json!("0")),
        ("aud", json!("apis")),
        ("aud", json!("API")),
        ("aud", json!(["other"])),
        ("aud", json!([])),
        ("aud", json!(null)),
        ("aud", json!({"api": true})),
        ("iss", json!("https://auth.example.com.evil.example")),
        ("iss", json!("https://auth.example.com/")),
        ("iss", json!(["https://auth.example.com"])),
        ("iss", json!(null)),
    ] {
        refused(&mut it, &with(name, value));
    }
    for name in ["iss", "aud"] {
        let mut claims = good();
        claims.as_object_mut().unwrap().remove(name);
        refused(&mut it, &issued(&claims));
    }
    // An expiry in the header does not extend that of the claims.
    let header = json!({"alg": "ES256", "kid": "ec", "exp": UNIX_S + 60});
    let mut claims = good();
    claims["exp"] = json!(UNIX_S - 60);
    refused(&mut it, &signed(&header, &claims, Algorithm::ES256));
    it.end();
}

#[test]
fn jwt_repeated_members_and_non_objects_are_refused() {
    let mut it = server();
    let header = r#"{"alg":"ES256","kid":"ec"}"#;
    let claims = good().to_string();
    let inside = &claims[1..claims.len() - 1];
    for twice in [
        format!(r#"{{{inside},"sub":"admin"}}"#),
        format!(r#"{{"exp":1,{inside}}}"#),
        format!(r#"{{{inside},"\u0073ub":"admin"}}"#),
        format!(r#"{{{inside},"x":{{"a":1,"a":2}}}}"#),
        format!("[{claims}]"),
        format!("{claims}{claims}"),
        format!("{claims}\0"),
        format!("\u{feff}{claims}"),
        "null".to_owned(),
        String::new(),
    ] {
        refused(&mut it, &signed_text(header, &twice, Algorithm::ES256));
    }
    for header in [
        r#"{"alg":"none","alg":"ES256","kid":"ec"}"#,
        r#"{"alg":"ES256","alg":"none","kid":"ec"}"#,
        r#"{"alg":"ES256","kid":"rsa","kid":"ec"}"#,
        r#"{"alg":"ES256","kid":"ec","\u0061lg":"ES256"}"#,
        r#"["ES256"]"#,
        r#"{"alg":"ES256","kid":"ec"}{}"#,
    ] {
        refused(&mut it, &signed_text(header, &claims, Algorithm::ES256));
    }
    let deep = format!(r#"{{{inside},"x":{}{}}}"#, "[".repeat(500), "]".repeat(500));
    refused(&mut it, &signed_text(header, &deep, Algorithm::ES256));
    let bytes = [b"{\"sub\":\"\xff\"}".as_slice(), b"{\"sub\":\"\xed\xa0\x80\"}"];
    for claims in bytes {
        let message = format!("{}.{}", b64(header), b64(claims));
        refused(&mut it, &sealed(message, &private(Algorithm::ES256), Algorithm::ES256));
    }
    it.end();
}

#[test]
fn jwt_malformed_curve_signatures_are_refused() {
    let mut it = server();
    let token = issued(&good());
    let (message, signature) = split(&token);
    let (r, s) = signature.split_at(32);
    let order = unhex("FFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551");
    let (zero, one) = (vec![0; 32], [vec![0; 31], vec![1]].concat());
    for forged in [
        vec![0; 64],
        [&zero, s].concat(),
        [r, &zero].concat(),
        [&one[..], &zero].concat(),
        [&zero[..], &one].concat(),
        [&order[..], &order].concat(),
        [&order[..], s].concat(),
        [r, &order].concat(),
        vec![0xff; 64],
        [s, r].concat(),
        signature[..63].to_vec(),
        [&signature[..], &[0]].concat(),
        [&[0; 32], &signature[..], &[0; 32]].concat(),
        [&[0x30, 68, 2, 32][..], r, &[2, 32], s].concat(),
    ] {
        refused(&mut it, &format!("{message}.{}", b64(forged)));
    }
    // ECDSA verifies both signatures (r, s) and (r, n - s); the claims of the token are the same.
    let other = [r, &combine(&order, s, -1)].concat();
    assert_ne!(other, signature);
    let_in(&mut it, &format!("{message}.{}", b64(other)));

    let token = signed(&json!({"alg": "EdDSA", "kid": "ed"}), &good(), Algorithm::EdDSA);
    let (message, signature) = split(&token);
    let (r, s) = signature.split_at(32);
    let mut order = unhex("1000000000000000000000000000000014DEF9DEA2F79CD65812631A5CF5D3ED");
    // The numbers of Ed25519 are little-endian.
    let s: Vec<u8> = s.iter().rev().copied().collect();
    let mut larger = combine(&s, &order, 1);
    larger.reverse();
    order.reverse();
    // Points of small order as R, and zero as s.
    let small = ["01", "00", "26E8958FC2B227B045C3F489F2EF98F0D5DFAC05D3C63339B13802886D53FC05"];
    let small = small.map(|text| unhex(&format!("{text:0<64}")));
    for forged in [
        [r, &larger].concat(),
        [r, &order].concat(),
        [r, &zero].concat(),
        [&small[0][..], &zero].concat(),
        [&small[1][..], &zero].concat(),
        [&small[2][..], &zero].concat(),
        signature[..63].to_vec(),
        signature[..32].to_vec(),
        [&signature[..], &[0]].concat(),
        Vec::new(),
    ] {
        refused(&mut it, &format!("{message}.{}", b64(forged)));
    }
    let token = signed(&json!({"alg": "RS256", "kid": "rsa"}), &good(), Algorithm::RS256);
    let (message, signature) = split(&token);
    let one = [vec![0; 255], vec![1]].concat();
    for forged in [
        vec![0; 256],
        one,
        vec![0xff; 256],
        signature[1..].to_vec(),
        [&[0], &signature[..]].concat(),
        [&signature[..], &[0]].concat(),
    ] {
        refused(&mut it, &format!("{message}.{}", b64(forged)));
    }
    it.end();
}

#[test]
fn jwt_other_encodings_of_a_good_token_are_refused() {
    let mut it = server();
    let token = issued(&good());
    let_in(&mut it, &token);
    let parts: Vec<&str> = token.split('.').collect();
    for at in 0..3 {
        let bytes = URL_SAFE_NO_PAD.decode(parts[at]).unwrap();
        let mut other = |text: String| {
            let mut parts = parts.clone();
            let is_same = text == parts[at];
            parts[at] = &text;
            if !is_same {
                refused(&mut it, &parts.join("."));
            }
        };
        other(URL_SAFE.encode(&bytes));
        other(STANDARD.encode(&bytes));
        other(format!("{}=", parts[at]));
        other(format!("{}==", parts[at]));
        for junk in [" ", "\t", "*", "%3D", "A", "\u{e9}"] {
            other(format!("{}{junk}", &parts[at][..8]) + &parts[at][8..]);
        }
        // Unused bits after the last byte that are not zero.
        if !bytes.len().is_multiple_of(3) {
            const ALPHABET: &[u8] =
                b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
            let last = *parts[at].as_bytes().last().unwrap();
            let place = ALPHABET.iter().position(|it| *it == last).unwrap();
            let next = char::from(ALPHABET[place + 1]);
            other(format!("{}{next}", &parts[at][..parts[at].len() - 1]));
        }
    }
    // Other serializations of a JWS, and texts that only resemble one.
    let [header, claims, signature] = parts[..] else { panic!("three parts") };
    for text in [
        format!("{header}.{claims}.{signature}.{signature}"),
        format!("{header}.{claims}.{signature}."),
        format!(".{header}.{claims}.{signature}"),
        format!("{header}..{claims}.{signature}"),
        format!("{header}.{claims}"),
        format!("{header}.{claims}.{signature},{header}.{claims}.{signature}"),
        format!("{header}.{claims}.{signature} x"),
        format!("\"{token}\""),
        json!({"protected": header, "payload": claims, "signature": signature}).to_string(),
        format!("{header}.{}.{}.{}.{signature}", b64("key"), b64("iv"), claims),
    ] {
        refused(&mut it, &text);
    }
    it.end();
}

#[test]
fn jwt_one_changed_character_is_refused() {
    let mut it = server();
    let token = issued(&good());
    for at in (0..token.len()).step_by(5) {
        let new = if &token[at..at + 1] == "B" { "C" } else { "B" };
        refused(&mut it, &format!("{}{new}{}", &token[..at], &token[at + 1..]));
        refused(&mut it, &format!("{}{}", &token[..at], &token[at + 1..]));
    }
    it.end();
}

#[test]
fn jwt_long_tokens_and_line_breaks_are_refused() {
    let mut it = server();
    let padded = |bytes: usize| {
        let mut claims = good();
        claims["x"] = json!("y".repeat(bytes));
        issued(&claims)
    };
    let_in(&mut it, &padded(2000));
    refused(&mut it, &padded(4000));
    let long = padded(64 * 1024);
    assert_eq!(login(&mut it, &long), 431, "longer than any head");
    let token = issued(&good());
    // The end of a line ends the field: the next line is another field, or the request is
    // malformed.
    assert_eq!(asks(&mut it, "/", &format!("Authorization: Bearer {token}\r\nX: y\r\n")), 101);
    for fields in [
        format!("Authorization: Bearer {token}\n\r\n"),
        format!("Authorization: Bearer {token}\0\r\n"),
        format!("Authorization: Bearer {token}\r\n x\r\n"),
        format!("Authorization : Bearer {token}\r\n"),
    ] {
        assert_ne!(asks(&mut it, "/", &fields), 101, "{fields:?}");
    }
    for target in
        [format!("/?t={token}%0A"), format!("/?t={token}%00"), format!("/?t=%0D%0A{token}")]
    {
        assert_eq!(asks(&mut it, &target, ""), 403, "{target}");
    }
    assert_eq!(asks(&mut it, &format!("/?t={token}"), ""), 101);
}

#[test]
fn jwt_of_two_tokens_the_first_counts() {
    let mut it = server();
    let (good, bad) = (issued(&good()), with("exp", json!(1)));
    let target = |token: &str| format!("/?t={token}");
    let cookie = |token: &str| format!("Cookie: t={token}\r\n");
    let header = |token: &str| format!("Authorization: Bearer {token}\r\n");
    let protocol = |token: &str| format!("Sec-WebSocket-Protocol: bearer.{token}\r\n");
    for (target, fields, status) in [
        ("/".to_owned(), cookie(&good) + &header(&bad), 101),
        ("/".to_owned(), header(&good) + &cookie(&bad), 403),
        (target(&bad), header(&good), 101),
        (target(&good), header(&bad), 403),
        (target(&good), protocol(&bad), 101),
        (target(&bad), protocol(&good), 403),
        ("/".to_owned(), header(&bad) + &header(&good), 403),
        ("/".to_owned(), format!("Cookie: t={bad}; t={good}\r\n"), 403),
        (format!("/?t={bad}&t={good}"), String::new(), 403),
    ] {
        assert_eq!(asks(&mut it, &target, &fields), status, "{target} {fields}");
    }
}
