//! A configuration for a new server: the example with fresh secrets.

use ring::rand::{SecureRandom, SystemRandom};

use super::reference::example;

/// The values in the example that a server must not use, each with the number of random bytes that
/// take its place.
const PLACEHOLDERS: [(&str, usize); 4] = [
    ("\"change-this-key\"", 10),
    ("\"change-this-secret\"", 32),
    ("\"change-this-token\"", 24),
    ("\"change-this-token-too\"", 24),
];

/// The sections whose empty token is replaced, with the number of random bytes.
const TOKENS: [(&str, usize); 2] = [("\n[console]\n", 24), ("\n[metrics]\n", 24)];

/// The system has no random numbers.
#[derive(Debug, thiserror::Error)]
#[error("the system gives no random numbers, so no secrets can be made")]
pub struct NoRandomness;

/// The example configuration with fresh secrets from the system's random numbers: the key and the
/// secret of the application, the tokens of the console and of the counters, and those in comments.
///
/// # Errors
/// The system has no random numbers.
pub fn generate() -> Result<String, NoRandomness> {
    let mut text = example();
    for (placeholder, bytes) in PLACEHOLDERS {
        text = text.replace(placeholder, &format!("\"{}\"", random(bytes)?));
    }
    for (section, bytes) in TOKENS {
        const EMPTY: &str = "\ntoken = \"\"\n";
        let Some(start) = text.find(section) else { continue };
        if let Some(at) = text[start..].find(EMPTY).map(|at| start + at) {
            let token = format!("\ntoken = \"{}\"\n", random(bytes)?);
            text.replace_range(at..at + EMPTY.len(), &token);
        }
    }
    Ok(text)
}

/// Random bytes in hexadecimal digits.
fn random(bytes: usize) -> Result<String, NoRandomness> {
    let mut random = vec![0; bytes];
    SystemRandom::new().fill(&mut random).map_err(|_| NoRandomness)?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}
