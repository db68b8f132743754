//! The files by which the process logs in at the engine.

use crate::config::secret_file;
use crate::config::tls::in_file;
use crate::settings::error::{Error, Problem};
use crate::settings::secret::Secret;
use crate::tls;
use std::path::Path;

#[cfg_attr(not(feature = "cluster-nats"), path = "login/nats/absent.rs")]
mod nats;

/// What NATS is shown in place of a user or a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NatsIdentity {
    /// A JWT and the seed of its key, as the text of a file for credentials.
    Credentials(Secret),
    /// The seed of a user's key.
    Seed(Secret),
}

/// Reads a certificate with its chain and its key, and checks that they fit.
pub(super) fn pair(cert_file: &Path, key_file: &Path) -> Result<tls::Pair, Error> {
    let chain = tls::pem_chain(cert_file).map_err(in_file("cert_file"))?;
    let pair = chain.with_key(key_file).map_err(in_file("key_file"))?;
    pair.check().map_err(in_file("key_file"))?;
    Ok(pair)
}

/// Reads the seed of `nkey_file`.
pub(super) fn seed(file: &Path) -> Result<NatsIdentity, Error> {
    read("nkey_file", file, nkey)
}

/// Reads the JWT and the seed of `creds_file`.
pub(super) fn credentials(file: &Path) -> Result<NatsIdentity, Error> {
    read("creds_file", file, jwt)
}

/// Reads a file, of which `identity` says what is in it, or what is wrong with it.
fn read(
    key: &str,
    file: &Path,
    identity: fn(&str) -> Result<NatsIdentity, &'static str>,
) -> Result<NatsIdentity, Error> {
    let wrong = |words: String| Error::keyed(key, Problem::Other(words));
    let text = secret_file::read(file).map_err(|error| wrong(error.to_string()))?;
    identity(&text).map_err(|words| wrong(format!("{} {words}", file.display())))
}

/// The identity by the text of a file with a seed, which may have lines around it.
fn nkey(text: &str) -> Result<NatsIdentity, &'static str> {
    let seed = text.lines().map(str::trim).find(|line| line.starts_with("SU"));
    let seed = seed.ok_or("contains no seed of a user's nkey, which begins with SU")?;
    match nats::is_seed(seed) {
        true => Ok(NatsIdentity::Seed(Secret::new(seed))),
        false => Err("contains a seed of an nkey that is damaged"),
    }
}

/// The identity by the text of a file for credentials.
fn jwt(text: &str) -> Result<NatsIdentity, &'static str> {
    // Its last line must have an end.
    let text = format!("{text}\n");
    match nats::is_credentials(&text) {
        true => Ok(NatsIdentity::Credentials(Secret::new(text))),
        false => {
            Err("does not contain a user's JWT and the seed of its nkey, as `nsc` writes them")
        }
    }
}

#[cfg(all(feature = "cluster-nats", feature = "cluster-redis"))]
#[cfg(test)]
mod tests;
