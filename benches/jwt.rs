//! Measures the refusal of a token with a wrong signature, by algorithm.

#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../tests/keys/signer.rs"]
mod signer;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use criterion::{Criterion, criterion_group, criterion_main};
use polycast::jwt::{Algorithm, Flaw, KeySet, TokenPolicy, VerifyingKey, verify};
use signer::Private;
use std::hint::black_box;

macro_rules! pem {
    ($name:literal) => {
        include_str!(concat!("../tests/keys/", $name))
    };
}

fn refuse(criterion: &mut Criterion) {
    let policy = TokenPolicy { token_bytes: 8192, ..TokenPolicy::default() };
    let secret = [7; 64];
    for algorithm in [
        Algorithm::HS256,
        Algorithm::ES256,
        Algorithm::ES384,
        Algorithm::EdDSA,
        Algorithm::RS256,
        Algorithm::PS512,
    ] {
        let (private, public) = match algorithm {
            Algorithm::HS256 => (Private::from_secret(&secret), VerifyingKey::from_secret(&secret)),
            Algorithm::ES256 => of(pem!("p256.pem"), pem!("p256.pub"), algorithm),
            Algorithm::ES384 => of(pem!("p384.pem"), pem!("p384.pub"), algorithm),
            Algorithm::EdDSA => of(pem!("ed25519.pem"), pem!("ed25519.pub"), algorithm),
            _ => of(pem!("rsa.pem"), pem!("rsa.pub"), algorithm),
        };
        let keys = KeySet::new(vec![public.expect("a key")]);
        let b64 = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let header = b64(&format!(r#"{{"alg":"{algorithm:?}"}}"#));
        let signature = private.sign(&format!("{header}.{}", b64("{}")), algorithm);
        let token = format!("{header}.{}.{signature}", b64(r#"{"sub":"eve"}"#));
        assert_eq!(verify(&token, &policy, &keys, 0), Err(Flaw::Signature));
        criterion.bench_function(&format!("jwt_refuse_{algorithm:?}"), |bencher| {
            bencher.iter(|| verify(black_box(&token), &policy, &keys, 0));
        });
    }
}

fn of(
    private: &str,
    public: &str,
    with: Algorithm,
) -> (Private, Result<VerifyingKey, &'static str>) {
    (Private::from_pem(private, with), VerifyingKey::from_pem(public))
}

criterion_group!(benches, refuse);
criterion_main!(benches);
