//! Tests of accepted tokens, and of the known ways to forge one.

use super::*;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use std::sync::Arc;

#[path = "../../tests/keys/signer.rs"]
mod signer;

use signer::Private;

macro_rules! pem {
    ($name:literal) => {
        include_str!(concat!("../../tests/keys/", $name))
    };
}

const NOW_S: u64 = 1_760_000_000;
const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn policy() -> TokenPolicy {
    TokenPolicy {
        issuer: "https://auth.example.com".to_owned(),
        audience: "api".to_owned(),
        roles: "scope".to_owned(),
        identity: "sub".to_owned(),
        token_bytes: 8192,
        ..TokenPolicy::default()
    }
}

fn good() -> Value {
    json!({"iss": "https://auth.example.com", "aud": "api", "sub": "ada", "exp": NOW_S + 60,
           "scope": "read write"})
}

fn private(algorithm: Algorithm) -> Private {
    match algorithm {
        Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => Private::from_secret(SECRET),
        Algorithm::ES256 => Private::from_pem(pem!("p256.pem"), algorithm),
        Algorithm::ES384 => Private::from_pem(pem!("p384.pem"), algorithm),
        Algorithm::EdDSA => Private::from_pem(pem!("ed25519.pem"), algorithm),
        _ => Private::from_pem(pem!("rsa.pem"), algorithm),
    }
}

/// A token with this header and these claims, valid or not.
fn signed_text(header: &str, claims: &str, algorithm: Algorithm) -> String {
    let message = format!("{}.{}", b64(header), b64(claims));
    let signature = private(algorithm).sign(&message, algorithm);
    format!("{message}.{signature}")
}

fn signed(header: &Value, claims: &Value, algorithm: Algorithm) -> String {
    signed_text(&header.to_string(), &claims.to_string(), algorithm)
}

fn token(claims: &Value) -> String {
    signed(&json!({"alg": "ES256", "typ": "JWT"}), claims, Algorithm::ES256)
}

fn with(name: &str, value: Value) -> String {
    let mut claims = good();
    claims[name] = value;
    token(&claims)
}

fn without(name: &str) -> String {
    let mut claims = good();
    claims.as_object_mut().unwrap().remove(name);
    token(&claims)
}

fn all_keys() -> KeySet {
    let public = [pem!("rsa.pub"), pem!("p256.pub"), pem!("p384.pub"), pem!("ed25519.pub")];
    let mut keys: Vec<VerifyingKey> = public.map(|pem| VerifyingKey::from_pem(pem).unwrap()).into();
    keys.push(VerifyingKey::from_secret(SECRET).unwrap());
    KeySet::new(keys)
}

fn check(token: &str) -> Result<Claims, Flaw> {
    verify(token, &policy(), &all_keys(), NOW_S)
}

#[track_caller]
fn refused(token: &str, flaw: Flaw) {
    assert_eq!(check(token), Err(flaw), "{token}");
}

const ALL: [Algorithm; 12] = [
    Algorithm::HS256,
    Algorithm::HS384,
    Algorithm::HS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::EdDSA,
];

#[test]
fn jwt_algorithms_verify_only_their_own_signatures() {
    for algorithm in ALL {
        let header = json!({ "alg": format!("{algorithm:?}") });
        let token = signed(&header, &good(), algorithm);
        let claims = check(&token).unwrap_or_else(|flaw| panic!("{algorithm:?}: {flaw}"));
        assert_eq!(claims.identity.as_deref(), Some("ada"));
        assert_eq!(claims.roles, ["read", "write"]);
        assert_eq!(claims.expires_s, Some(NOW_S + 60));
        for other in ALL.into_iter().filter(|other| *other != algorithm) {
            let header = json!({ "alg": format!("{other:?}") });
            let forged = signed(&header, &good(), algorithm);
            assert_eq!(check(&forged), Err(Flaw::Signature), "{algorithm:?} as {other:?}");
            let only = TokenPolicy { algorithms: vec![other], ..policy() };
            assert_eq!(verify(&token, &only, &all_keys(), NOW_S), Err(Flaw::Algorithm));
        }
    }
    let header = json!({"alg": "Ed25519"});
    assert!(check(&signed(&header, &good(), Algorithm::EdDSA)).is_ok());
}

#[test]
fn jwt_algorithm_none_is_refused() {
    for name in ["none", "None", "NONE", "nOnE", "", "HS1", "ES512", "ES256K", "es256", "RSA-OAEP"]
    {
        let head = b64(json!({ "alg": name }).to_string());
        let claims = b64(good().to_string());
        refused(&format!("{head}.{claims}."), Flaw::Algorithm);
        refused(&signed(&json!({ "alg": name }), &good(), Algorithm::ES256), Flaw::Algorithm);
    }
    refused(&signed(&json!({"typ": "JWT"}), &good(), Algorithm::ES256), Flaw::Algorithm);
    refused(&signed(&json!({"alg": ["ES256"]}), &good(), Algorithm::ES256), Flaw::Algorithm);
}

#[test]
fn jwt_public_key_is_not_a_secret() {
    let header = b64(json!({"alg": "HS256"}).to_string());
    let message = format!("{header}.{}", b64(good().to_string()));
    let key = private(Algorithm::RS256);
    for secret in [pem!("rsa.pub").as_bytes(), pem!("rsa.pub").trim().as_bytes(), key.public()] {
        let signature = Private::from_secret(secret).sign(&message, Algorithm::HS256);
        let forged = format!("{message}.{signature}");
        let only = KeySet::new(vec![VerifyingKey::from_pem(pem!("rsa.pub")).unwrap()]);
        assert_eq!(verify(&forged, &policy(), &only, NOW_S), Err(Flaw::Algorithm));
        refused(&forged, Flaw::Signature);
    }
}

#[test]
fn jwt_refuses_empty_and_wrong_signatures() {
    let token = token(&good());
    let (message, signature) = token.rsplit_once('.').unwrap();
    let bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let mut flipped = bytes.clone();
    flipped[10] ^= 1;
    // The order of the curve's group: neither number of a signature may be equal to it or zero.
    let order = "FFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551";
    let order: Vec<u8> =
        (0..64).step_by(2).map(|at| u8::from_str_radix(&order[at..at + 2], 16).unwrap()).collect();
    let der = [&[0x30, 68, 2, 32][..], &bytes[..32], &[2, 32], &bytes[32..]].concat();
    for forged in [
        vec![],
        vec![0; 64],
        [&bytes[..32], &[0; 32]].concat(),
        [&[0; 32], &bytes[32..]].concat(),
        [&order[..], &order].concat(),
        bytes[..63].to_vec(),
        [&bytes[..], &[0]].concat(),
        flipped,
        der,
    ] {
        refused(&format!("{message}.{}", b64(forged)), Flaw::Signature);
    }
    // ECDSA signatures are malleable: the order minus the second number gives another valid
    // signature. It lets the client do no more than the first.
    let mut other = bytes.clone();
    let mut borrow = false;
    for (byte, of_order) in other[32..].iter_mut().zip(&order).rev() {
        let (difference, first) = of_order.overflowing_sub(*byte);
        let (difference, second) = difference.overflowing_sub(borrow.into());
        (*byte, borrow) = (difference, first || second);
    }
    assert_ne!(other, bytes);
    let other = format!("{message}.{}", b64(other));
    assert!(check(&other).is_ok());
    for junk in ["=", "==", "*", " ", "A"] {
        refused(&format!("{token}{junk}"), Flaw::Signature);
    }
    for algorithm in [Algorithm::RS256, Algorithm::PS256, Algorithm::EdDSA, Algorithm::HS256] {
        let header = b64(json!({ "alg": format!("{algorithm:?}") }).to_string());
        let message = format!("{header}.{}", b64(good().to_string()));
        for forged in [vec![], vec![0; 32], vec![0; 64], vec![0; 256], vec![1; 256]] {
            refused(&format!("{message}.{}", b64(forged)), Flaw::Signature);
        }
    }
}

#[test]
fn jwt_ignores_keys_in_the_token() {
    let mine = private(Algorithm::ES384);
    for (name, value) in [
        ("jwk", json!({"kty": "EC", "crv": "P-384", "x": "AA", "y": "AA"})),
        ("jku", json!("https://evil.example/jwks.json")),
        ("x5u", json!("https://evil.example/cert.pem")),
        ("x5c", json!(["AAAA"])),
        ("typ", json!("at+jwt")),
        ("cty", json!("JWT")),
        ("extra", json!({"a": [1]})),
    ] {
        let header = json!({"alg": "ES256", name: value});
        assert!(check(&signed(&header, &good(), Algorithm::ES256)).is_ok(), "{name}");
        let header = json!({"alg": "ES384", name: value});
        let message = format!("{}.{}", b64(header.to_string()), b64(good().to_string()));
        let signature = mine.sign(&message, Algorithm::ES384);
        let others = KeySet::new(vec![VerifyingKey::from_pem(pem!("p256.pub")).unwrap()]);
        let forged = format!("{message}.{signature}");
        assert_eq!(verify(&forged, &policy(), &others, NOW_S), Err(Flaw::Algorithm), "{name}");
    }
    let header = json!({"alg": "ES256", "crit": ["b64"], "b64": false});
    refused(&signed(&header, &good(), Algorithm::ES256), Flaw::Header);
}

#[test]
fn jwt_key_is_chosen_by_kid() {
    let key =
        |pem, kid: Option<&str>| VerifyingKey::from_pem(pem).unwrap().named(kid.map(str::to_owned));
    let named =
        KeySet::new(vec![key(pem!("p384.pub"), Some("a")), key(pem!("p256.pub"), Some("b"))]);
    let mixed = KeySet::new(vec![key(pem!("p384.pub"), Some("a")), key(pem!("p256.pub"), None)]);
    let under = |kid: Value, keys: &KeySet| {
        let header = json!({"alg": "ES256", "kid": kid});
        verify(&signed(&header, &good(), Algorithm::ES256), &policy(), keys, NOW_S).err()
    };
    assert_eq!(under(json!("b"), &named), None);
    assert_eq!(under(json!("a"), &named), Some(Flaw::Algorithm));
    for unknown in ["c", "", "B", "b\0", "../../dev/null", "b' OR '1'='1", "/etc/passwd"] {
        assert_eq!(under(json!(unknown), &named), Some(Flaw::Key), "{unknown}");
        assert_eq!(under(json!(unknown), &mixed), None, "{unknown}");
    }
    for other in [json!(1), json!(null), json!(["b"]), json!({"b": 1})] {
        assert_eq!(under(other, &named), Some(Flaw::Header));
    }
    let plain = token(&good());
    assert!(verify(&plain, &policy(), &named, NOW_S).is_ok(), "the one that fits");
    assert_eq!(verify(&plain, &policy(), &KeySet::default(), NOW_S), Err(Flaw::Key));
}

#[test]
fn jwt_without_kid_tries_a_few_keys() {
    let other = |n: u8| VerifyingKey::from_secret(&[n; 32]).unwrap();
    let header = json!({"alg": "HS256"});
    let token = signed(&header, &good(), Algorithm::HS256);
    for (before, fits) in [(0, true), (1, true), (2, false)] {
        let mut keys: Vec<VerifyingKey> = (0..before).map(other).collect();
        keys.push(VerifyingKey::from_secret(SECRET).unwrap());
        let outcome = verify(&token, &policy(), &KeySet::new(keys), NOW_S);
        assert_eq!(outcome.is_ok(), fits, "{before}");
    }
}

#[test]
fn jwt_repeated_members_are_refused() {
    let header = r#"{"alg":"ES256"}"#;
    for claims in [
        r#"{"iss":"https://auth.example.com","aud":"api","sub":"ada","sub":"eve"}"#,
        r#"{"iss":"https://auth.example.com","aud":"api","a":{"b":1,"b":2}}"#,
        r#"{"iss":"https://auth.example.com","aud":"api","s\u0075b":"ada","sub":"eve"}"#,
        r#"{"iss":"https://auth.example.com","aud":"api","a":[{"b":1,"b":1}]}"#,
    ] {
        refused(&signed_text(header, claims, Algorithm::ES256), Flaw::Claims);
    }
    let claims = good().to_string();
    for header in [r#"{"alg":"ES256","alg":"none"}"#, r#"{"alg":"ES256","kid":"a","kid":"b"}"#] {
        refused(&signed_text(header, &claims, Algorithm::ES256), Flaw::Header);
    }
}

#[test]
fn jwt_times_on_both_sides() {
    let at = |name: &str, at: u64, leeway_s: u64| {
        verify(&with(name, json!(at)), &TokenPolicy { leeway_s, ..policy() }, &all_keys(), NOW_S)
            .err()
    };
    assert_eq!(at("exp", NOW_S + 1, 0), None);
    assert_eq!(at("exp", NOW_S, 0), Some(Flaw::Expired));
    assert_eq!(at("exp", NOW_S - 9, 10), None);
    assert_eq!(at("exp", NOW_S - 10, 10), Some(Flaw::Expired));
    for name in ["nbf", "iat"] {
        assert_eq!(at(name, NOW_S, 0), None);
        assert_eq!(at(name, NOW_S + 1, 0), Some(Flaw::NotYet));
        assert_eq!(at(name, NOW_S + 10, 10), None);
        assert_eq!(at(name, NOW_S + 11, 10), Some(Flaw::NotYet));
    }
    let leeway = TokenPolicy { leeway_s: 10, ..policy() };
    let claims = verify(&token(&good()), &leeway, &all_keys(), NOW_S).unwrap();
    assert_eq!(claims.expires_s, Some(NOW_S + 70));
    assert_eq!(check(&without("exp")).unwrap().expires_s, None);
    assert_eq!(check(&with("exp", json!(NOW_S as f64 + 0.5))).unwrap().expires_s, Some(NOW_S));
    assert!(check(&with("exp", json!(1e300))).is_ok());
    refused(&with("exp", json!(-1)), Flaw::Expired);
    for name in ["exp", "nbf", "iat"] {
        for other in [json!("1760000060"), json!(null), json!(true), json!([]), json!({})] {
            refused(&with(name, other), Flaw::Claims);
        }
    }
    let claims = r#"{"iss":"https://auth.example.com","aud":"api","exp":1e999}"#;
    refused(&signed_text(r#"{"alg":"ES256"}"#, claims, Algorithm::ES256), Flaw::Claims);
}

#[test]
fn jwt_issuer_and_audience() {
    refused(&without("iss"), Flaw::Issuer);
    refused(&with("iss", json!("https://auth.example.com/")), Flaw::Issuer);
    refused(&with("iss", json!(["https://auth.example.com"])), Flaw::Issuer);
    refused(&without("aud"), Flaw::Audience);
    refused(&with("aud", json!("apis")), Flaw::Audience);
    refused(&with("aud", json!([])), Flaw::Audience);
    refused(&with("aud", json!(["a", ["api"]])), Flaw::Audience);
    refused(&with("aud", json!({"api": 1})), Flaw::Claims);
    assert!(check(&with("aud", json!(["other", "api"]))).is_ok());
    let open = TokenPolicy { issuer: String::new(), audience: String::new(), ..policy() };
    let flaw_of = |token: &str| verify(token, &open, &all_keys(), NOW_S).err();
    assert_eq!(flaw_of(&token(&json!({"sub": "ada"}))), None);
    // RFC 7519 section 4.1.3: a token with an audience is refused by a recipient without a name.
    assert_eq!(flaw_of(&with("aud", json!("api"))), Some(Flaw::Audience));
    assert_eq!(flaw_of(&with("aud", json!(""))), None);
}

#[test]
fn jwt_claims_are_found_by_path() {
    let roles = |path: &str, claims: &Value| {
        let policy = TokenPolicy { roles: path.to_owned(), ..policy() };
        verify(&token(claims), &policy, &all_keys(), NOW_S).unwrap().roles
    };
    let mut claims = good();
    claims["realm"] = json!({"access": {"roles": ["a", 1, "b c"]}, "text": " a \t b\n"});
    claims["https://example.com/roles"] = json!(["literal"]);
    assert_eq!(roles("realm.access.roles", &claims), ["a", "b c"]);
    assert_eq!(roles("realm.text", &claims), ["a", "b"]);
    assert_eq!(roles("https://example.com/roles", &claims), ["literal"]);
    for nothing in ["realm", "realm.none", "none.x", "exp", "scope.x", "", "."] {
        assert!(roles(nothing, &claims).is_empty(), "{nothing}");
    }
    let mut by = policy();
    by.identity = "who.id".to_owned();
    by.attributes = [("name", "who.name"), ("n", "who.n"), ("none", "x.y")]
        .map(|(name, path)| (name.to_owned(), path.to_owned()))
        .into();
    claims["who"] = json!({"id": 7, "name": "Ada", "n": [1]});
    let found = verify(&token(&claims), &by, &all_keys(), NOW_S).unwrap();
    assert_eq!(found.identity.as_deref(), Some("7"));
    let pairs: Vec<_> = found.attributes.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    assert_eq!(pairs, [("name", "Ada"), ("n", "[1]")]);
    assert_eq!(check(&with("sub", json!(""))).unwrap().identity, None);
    assert_eq!(check(&with("sub", json!(["ada"]))).unwrap().identity, None);
}

#[test]
fn jwt_refuses_malformed_tokens() {
    for text in ["", ".", "..", "...", "a.b", "a.b.c.d", "..c", "a..c", "é.é.é"] {
        assert!(check(text).is_err(), "{text}");
    }
    let whole = token(&good());
    refused(&whole.replacen('.', ".x.", 1), Flaw::Shape);
    for part in ["[]", "1", "null", "{", "{} x", "\u{feff}{}"] {
        refused(&signed_text(part, "{}", Algorithm::ES256), Flaw::Header);
        refused(&signed_text(r#"{"alg":"ES256"}"#, part, Algorithm::ES256), Flaw::Claims);
    }
    let deep = format!("{}{}", "[".repeat(2000), "]".repeat(2000));
    let deep = format!(r#"{{"alg":"ES256","a":{deep}}}"#);
    refused(&signed_text(&deep, "{}", Algorithm::ES256), Flaw::Header);
    // Padding, the other alphabet, and non-zero bits at the end would give one token a second
    // encoding.
    let header = b64(r#"{"alg":"ES256"}"#);
    assert!(check(&whole).is_ok());
    refused(&format!("{header}=.{}", whole.split_once('.').unwrap().1), Flaw::Header);
}

#[test]
fn jwt_token_length_is_bounded() {
    let token = token(&good());
    let bound = |token_bytes| TokenPolicy { token_bytes, ..policy() };
    assert!(verify(&token, &bound(token.len()), &all_keys(), NOW_S).is_ok());
    let flaw = verify(&token, &bound(token.len() - 1), &all_keys(), NOW_S);
    assert_eq!(flaw, Err(Flaw::TooLong));
}

/// The JWK of a public key.
fn jwk(algorithm: Algorithm) -> Jwk {
    let key = private(algorithm);
    let point = key.public();
    let (x, y) = point[1..].split_at((point.len() - 1) / 2);
    let crv = if x.len() == 32 { "P-256" } else { "P-384" };
    let (kty, crv) = ("EC".to_owned(), crv.to_owned());
    Jwk { kty, crv, x: b64(x), y: b64(y), ..Jwk::default() }
}

#[test]
fn jwks_algorithm_may_be_missing_but_not_wrong() {
    let key = |change: &dyn Fn(&mut Jwk)| {
        let mut jwk = jwk(Algorithm::ES256);
        change(&mut jwk);
        VerifyingKey::from_jwk(&jwk)
    };
    for (alg, fits) in [("", true), ("ES256", true), ("ES384", false), ("HS256", false)] {
        assert_eq!(key(&|it| it.alg = alg.to_owned()).is_ok(), fits, "{alg}");
    }
    assert!(key(&|it| it.usage = "sig".to_owned()).is_ok());
    assert!(key(&|it| it.usage = "enc".to_owned()).is_err());
    assert!(key(&|it| it.key_ops = vec!["sign".to_owned(), "verify".to_owned()]).is_ok());
    assert!(key(&|it| it.key_ops = vec!["sign".to_owned()]).is_err());
    assert!(key(&|it| it.kty = "RSA".to_owned()).is_err());
    assert!(key(&|it| it.crv = "P-384".to_owned()).is_err());
    assert!(key(&|it| it.crv = "secp256k1".to_owned()).is_err());
    assert!(key(&|it| it.x.push('A')).is_err());
    assert!(key(&|it| it.x = b64([0; 32])).is_err(), "not on the curve");
    assert!(key(&|it| it.x = b64([1; 31])).is_err());
    let public = KeySet::new(vec![key(&|_| {}).unwrap()]);
    assert!(verify(&token(&good()), &policy(), &public, NOW_S).is_ok());
    let okp = |x: &[u8]| {
        let (kty, crv, x) = ("OKP".to_owned(), "Ed25519".to_owned(), b64(x));
        VerifyingKey::from_jwk(&Jwk { kty, crv, x, ..Jwk::default() })
    };
    assert!(okp(private(Algorithm::EdDSA).public()).is_ok());
    for len in [0, 31, 33] {
        assert!(okp(&vec![1; len]).is_err(), "{len}");
    }
}

#[test]
fn jwt_rsa_keys_and_secrets_have_a_minimum_length() {
    assert!(VerifyingKey::from_pem(pem!("rsa.pub")).is_ok());
    assert!(VerifyingKey::from_pem(pem!("rsa_short.pub")).is_err());
    let rsa = |n: &[u8], e: &[u8]| {
        let (kty, n, e) = ("RSA".to_owned(), b64(n), b64(e));
        VerifyingKey::from_jwk(&Jwk { kty, n, e, ..Jwk::default() })
    };
    let n = |len| vec![0xff; len];
    for (len, fits) in [(255, false), (256, true), (512, true), (513, false)] {
        assert_eq!(rsa(&n(len), &[1, 0, 1]).is_ok(), fits, "{len}");
    }
    assert!(rsa(&[&[0, 0], &n(256)[..]].concat(), &[1, 0, 1]).is_ok());
    assert!(rsa(&[&n(255)[..], &[2]].concat(), &[1, 0, 1]).is_err(), "even");
    for e in [&[][..], &[0], &[1], &[2], &[1, 0, 0, 0, 1]] {
        assert!(rsa(&n(256), e).is_err(), "{e:?}");
    }
    for (len, want) in [(31, 0), (32, 1), (47, 1), (48, 2), (63, 2), (64, 3)] {
        let key = VerifyingKey::from_secret(&vec![7; len]);
        let fits = |it: &Algorithm| key.as_ref().is_ok_and(|key| key.fits(&[*it]));
        assert_eq!(ALL[..3].iter().filter(|it| fits(it)).count(), want, "{len}");
    }
}

#[test]
fn jwt_pem_must_be_a_public_key() {
    for pem in [
        pem!("rsa.pem"),
        pem!("p256.pem"),
        pem!("ed25519.pem"),
        pem!("p521.pub"),
        "",
        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        "-----BEGIN RSA PUBLIC KEY-----\nMAA=\n-----END RSA PUBLIC KEY-----\n",
        "-----BEGIN RSA PUBLIC KEY-----\nMIP///8=\n-----END RSA PUBLIC KEY-----\n",
    ] {
        assert!(VerifyingKey::from_pem(pem).is_err(), "{pem}");
    }
}

#[test]
fn jwks_keeps_usable_keys() {
    let ours = jwk(Algorithm::ES256);
    let ours = json!({"kty": "EC", "crv": "P-256", "x": ours.x, "y": ours.y, "kid": "a", "z": 1});
    let secret = json!({"kty": "oct", "k": b64(SECRET), "kid": "s"});
    let anomaly = json!({"kty": "EC", "crv": "P-521", "x": "AA", "y": "AA", "kid": "b"});
    let len = |keys: Value| {
        KeySet::from_set(json!({ "keys": keys }).to_string().as_bytes()).map(|keys| keys.len())
    };
    assert_eq!(len(json!([ours, secret, anomaly, 1, null, {"kty": 1}])), Some(1));
    assert_eq!(len(json!([secret])), None, "a secret that everybody can fetch");
    assert_eq!(len(json!([])), None);
    assert_eq!(len(json!(vec![ours.clone(); 64])), Some(64));
    assert_eq!(len(json!(vec![ours.clone(); 65])), Some(64));
    for text in ["", "[]", "{}", "{\"keys\":{}}", "<html>", "{\"keys\":[],\"keys\":[]}"] {
        assert!(KeySet::from_set(text.as_bytes()).is_none(), "{text}");
    }
}

#[test]
fn jwks_is_requested_for_a_missing_key_and_old_keys_stay() {
    let remotes = Remotes::default();
    let notified = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let theirs = notified.clone();
    remotes
        .notifier()
        .attach(move || _ = theirs.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
    let notified = || notified.load(std::sync::atomic::Ordering::Relaxed);
    let remote = remotes.at("https://auth.example.com/jwks", false, "", 1000, 100);
    let guard = Guard::new("g".to_owned(), policy(), KeySet::default(), Some(remote.clone()));
    let header = json!({"alg": "ES256", "kid": "a"});
    let token = signed(&header, &good(), Algorithm::ES256);
    assert_eq!(guard.check(&token, NOW_S), Err(Unverified::NoKeys));
    assert_eq!(guard.check(&token, NOW_S), Err(Unverified::NoKeys));
    assert!(remote.refresh.is_wanted() && notified() == 1, "once, until it is begun");
    remote.refresh.begin();
    let named = |kid: &str| {
        let key = VerifyingKey::from_pem(pem!("p256.pub")).unwrap();
        KeySet::new(vec![key.named(Some(kid.to_owned()))])
    };
    remote.put(named("a"));
    assert!(guard.check(&token, NOW_S).is_ok() && !remote.refresh.is_wanted());
    remote.put(named("b"));
    assert_eq!(guard.check(&token, NOW_S), Err(Unverified::Flaw(Flaw::Key)));
    assert!(remote.refresh.is_wanted() && notified() == 2);
    // A new configuration keeps the keys that were fetched.
    remotes.replace(vec![remote]);
    let again = remotes.at("https://auth.example.com/jwks", false, "", 2000, 100);
    assert_eq!(again.keys().map(|keys| keys.len()), Some(1));
    assert!(remotes.at("https://other.example/", false, "", 2000, 100).keys().is_none());
}

#[test]
fn jwt_claims_that_are_required_are_there_and_not_null() {
    let flaw_of = |require: &[&str], claims: &Value| {
        let require = require.iter().map(|it| (*it).to_owned()).collect();
        let policy = TokenPolicy { require, ..policy() };
        verify(&token(claims), &policy, &all_keys(), NOW_S).err()
    };
    let mut claims = good();
    claims["realm"] = json!({"id": 0, "none": null});
    for (require, want) in [
        (&[][..], None),
        (&["exp"], None),
        (&["exp", "sub", "realm.id"], None),
        (&["exp", "nbf"], Some(Flaw::Missing)),
        (&["realm.none"], Some(Flaw::Missing)),
        (&["realm.other"], Some(Flaw::Missing)),
    ] {
        assert_eq!(flaw_of(require, &claims), want, "{require:?}");
    }
    claims.as_object_mut().unwrap().remove("exp");
    assert_eq!(flaw_of(&[], &claims), None, "by default, a token may be for ever");
    assert_eq!(flaw_of(&["exp"], &claims), Some(Flaw::Missing));
}

#[test]
fn jwt_keys_of_pem_in_each_of_its_forms() {
    let section = |label: &str, der: &[u8]| {
        let body = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
    };
    let rsa = private(Algorithm::RS256);
    let pkcs1 = VerifyingKey::from_pem(&section("RSA PUBLIC KEY", rsa.public())).unwrap();
    let token = signed(&json!({"alg": "RS256"}), &good(), Algorithm::RS256);
    assert!(verify(&token, &policy(), &KeySet::new(vec![pkcs1]), NOW_S).is_ok());
    assert!(VerifyingKey::from_pem(&section("RSA PRIVATE KEY", rsa.public())).is_err());
    assert!(VerifyingKey::from_pem(&section("PUBLIC KEY", rsa.public())).is_err());
    let with_more = [rsa.public(), &[0]].concat();
    assert!(VerifyingKey::from_pem(&section("RSA PUBLIC KEY", &with_more)).is_err());
    // A certificate of a key, made by another program.
    let pair = rcgen::KeyPair::from_pem(pem!("p256.pem")).unwrap();
    let certificate = rcgen::CertificateParams::default().self_signed(&pair).unwrap().pem();
    let key = VerifyingKey::from_pem(&certificate).unwrap();
    let token = super::tests::token(&good());
    assert!(verify(&token, &policy(), &KeySet::new(vec![key]), NOW_S).is_ok());
    // Text in front of a PEM section is ignored.
    assert!(VerifyingKey::from_pem(&format!("Issuer: example\n{certificate}")).is_ok());
}

#[test]
fn jwt_secrets_are_not_in_debug_texts() {
    let key = VerifyingKey::from_secret(b"nobody-knows-nobody-knows-nobody-knows").unwrap();
    let text = format!("{:?} {:?}", key, KeySet::new(vec![key.clone()]));
    assert!(text.contains("HS256") && !text.contains("nobody") && !text.contains("110"));
}

#[test]
fn jwt_refused_token_is_not_verified_again_until_keys_change() {
    let remotes = Remotes::default();
    let remote = remotes.at("https://auth.example.com/jwks", false, "", 1000, 100);
    let guard = Guard::new("g".to_owned(), policy(), KeySet::default(), Some(remote.clone()));
    remote.put(KeySet::new(vec![VerifyingKey::from_pem(pem!("p384.pub")).unwrap()]));
    let header = json!({"alg": "ES384"});
    let forged = format!("{}A", signed(&header, &good(), Algorithm::ES384));
    let flaw = |token: &str, at_s| guard.check(token, at_s).err();
    let signature = Some(Unverified::Flaw(Flaw::Signature));
    assert_eq!(flaw(&forged, NOW_S), signature);
    let again = || {
        let (mut count, begun) = (0, std::time::Instant::now());
        while begun.elapsed().as_millis() < 20 {
            assert_eq!(flaw(&forged, NOW_S), signature);
            count += 1;
        }
        count
    };
    // ES384 is too slow for more than 200 verifications in 20 ms, so the refusals came from the
    // table. On a busy machine the test may stand still for such a time.
    assert!((0..50).any(|_| again() > 200));
    let good = signed(&header, &good(), Algorithm::ES384);
    assert_eq!(flaw(&good, NOW_S), None, "a valid token is not refused because of another one");
    // A token whose key is fetched later.
    let later = signed(&json!({"alg": "ES256"}), &super::tests::good(), Algorithm::ES256);
    assert_eq!(flaw(&later, NOW_S), Some(Unverified::Flaw(Flaw::Algorithm)));
    let wrong = VerifyingKey::from_pem(pem!("p384.pub")).unwrap().named(Some("k".to_owned()));
    remote.put(KeySet::new(vec![wrong, VerifyingKey::from_pem(pem!("p256.pub")).unwrap()]));
    assert_eq!(flaw(&later, NOW_S), None);
    assert_eq!(flaw(&good, NOW_S), None);
}
