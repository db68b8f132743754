//! Tokens of any bytes: only a token that the key has signed is accepted, and its claims are read
//! as a naive reader reads them.

use polycast::claims::Claims;
use polycast::crypto::{HmacKey, encode_base64};
use polycast::jwt::{KeySet, TokenPolicy, VerifyingKey, verify};

const NOW_S: u64 = 1_760_000_000;
const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

pub(crate) fn run(data: &[u8]) {
    let Some((&shape, rest)) = data.split_first() else { return };
    let policy = TokenPolicy {
        issuer: if shape & 1 == 0 { String::new() } else { "i".to_owned() },
        audience: if shape & 2 == 0 { String::new() } else { "a".to_owned() },
        roles: "scope".to_owned(),
        identity: "sub".to_owned(),
        leeway_s: u64::from(shape >> 6),
        token_bytes: 4096,
        ..TokenPolicy::default()
    };
    let keys = KeySet::new(VerifyingKey::from_secret(SECRET).into_iter().collect());
    let _ = KeySet::from_set(rest);
    let _ = VerifyingKey::from_pem(&String::from_utf8_lossy(rest));
    let token = match shape >> 2 & 3 {
        // Unchanged: it is not signed, unless the fuzzer has found the key.
        0 => return drop(verify(&String::from_utf8_lossy(rest), &policy, &keys, NOW_S)),
        // Claims, signed.
        1 => signed(br#"{"alg":"HS256"}"#, rest),
        2 => signed(rest, br#"{"sub":"ada"}"#),
        // Signed, and changed in one place.
        _ => {
            let token = signed(br#"{"alg":"HS256"}"#, br#"{"sub":"ada","scope":"a b"}"#);
            let (Some(&at), Some(&to)) = (rest.first(), rest.get(1)) else { return };
            let mut bytes = token.clone().into_bytes();
            let at = usize::from(at) % bytes.len();
            bytes[at] = to & 0x7f;
            let changed = String::from_utf8(bytes).expect("ASCII");
            let outcome = verify(&changed, &policy, &keys, NOW_S);
            assert!(outcome.is_err() || changed == token, "{changed}");
            return;
        }
    };
    let outcome = verify(&token, &policy, &keys, NOW_S);
    let Ok(claims) = outcome else { return };
    if shape >> 2 & 3 == 1 {
        read(&claims, &policy, rest);
    }
}

/// An accepted token was valid, by a reader that takes the last of two members.
fn read(claims: &Claims, policy: &TokenPolicy, text: &[u8]) {
    let mut text = text.to_vec();
    let value = simd_json::to_owned_value(&mut text);
    use simd_json::prelude::*;
    let value = value.expect("what is believed is JSON");
    let exp = value.get("exp").and_then(|it| it.cast_f64());
    assert!(exp.is_none_or(|at| at + policy.leeway_s as f64 > NOW_S as f64));
    assert_eq!(exp.is_some(), claims.expires_s.is_some());
    if !policy.issuer.is_empty() {
        assert_eq!(value.get("iss").and_then(|it| it.as_str()), Some("i"));
    }
    let sub = value.get("sub").and_then(|it| it.as_str()).filter(|it| !it.is_empty());
    assert!(sub.is_none_or(|sub| claims.identity.as_deref() == Some(sub)));
}

fn signed(header: &[u8], claims: &[u8]) -> String {
    let message = format!("{}.{}", b64(header), b64(claims));
    let signature = b64(&HmacKey::new(SECRET).sign(&[message.as_bytes()]));
    format!("{message}.{signature}")
}

fn b64(bytes: &[u8]) -> String {
    let text = encode_base64(bytes).replace('+', "-").replace('/', "_");
    text.trim_end_matches('=').to_owned()
}
