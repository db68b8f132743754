//! The estimated work of verifying a token, computed before it is verified.

use super::{Algorithm, Guard, KeySet, TokenPolicy, strict};
use crate::work;
use serde_json::Value;

impl Guard {
    /// The work of [`Guard::check`] for this token, in the units of [`work`]: nanoseconds.
    pub fn price(&self, token: &str) -> u64 {
        match &self.remote {
            None => price(token, &self.policy, &self.keys),
            Some(remote) => {
                let fetched = remote.keys();
                price(token, &self.policy, fetched.as_deref().unwrap_or(&self.keys))
            }
        }
    }
}

/// The work of one token: a verification for every key that it would be tried with.
fn price(token: &str, policy: &TokenPolicy, keys: &KeySet) -> u64 {
    let tried = || {
        let header = strict::part(token.split('.').next()?)?;
        let algorithm = header.get("alg").and_then(Value::as_str).and_then(Algorithm::named)?;
        let kid = header.get("kid").and_then(Value::as_str);
        let fitting = keys.of(kid, algorithm).ok()?;
        Some(fitting.count() as u64 * signature(algorithm))
    };
    match token.len() > policy.token_bytes {
        true => work::TOKEN,
        false => work::TOKEN + tried().unwrap_or(0),
    }
}

/// The work of one verification, in nanoseconds.
fn signature(algorithm: Algorithm) -> u64 {
    algorithm.cost_us() * 1000
}

#[cfg(test)]
mod tests {
    use super::super::VerifyingKey;
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    fn token(header: &str) -> String {
        format!("{}.e30.AAAA", URL_SAFE_NO_PAD.encode(header))
    }

    #[test]
    fn price_of_a_token_counts_the_keys_that_it_is_tried_with() {
        let key = |kid: &str| {
            let key = VerifyingKey::from_secret(&[b'k'; 64]).expect("a key");
            key.named(Some(kid.to_owned()))
        };
        let keys = KeySet::new((0..8).map(|n| key(&format!("k{n}"))).collect());
        let policy = TokenPolicy { token_bytes: 200, ..TokenPolicy::default() };
        let of = |header: &str| price(&token(header), &policy, &keys);
        assert_eq!(of(r#"{"alg":"HS256","kid":"k1"}"#), work::TOKEN + 1000);
        assert_eq!(of(r#"{"alg":"HS256"}"#), work::TOKEN + 2 * 1000, "it is tried with two");
        assert_eq!(of(r#"{"alg":"ES384"}"#), work::TOKEN, "no key is of that kind");
        assert_eq!(price("x", &policy, &keys), work::TOKEN);
        let long = format!("{}{}", token(r#"{"alg":"HS256"}"#), "A".repeat(200));
        assert_eq!(price(&long, &policy, &keys), work::TOKEN, "it is not looked at");
    }
}
