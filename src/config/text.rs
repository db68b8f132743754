//! Checks of texts: names, secrets, tokens and origins.

use std::collections::HashMap;

use crate::settings::error::{Error, Problem};
use crate::settings::secret::Secret;

/// Minimum length of a token, in characters, so that it cannot be guessed over a network.
const TOKEN_MIN: usize = 16;

/// Values that must be unique, each with the path of its key.
#[derive(Default)]
pub(super) struct Unique(HashMap<String, String>);

impl Unique {
    /// The path of the key that has `value`, if there is one.
    pub(super) fn place(&self, value: &str) -> Option<&String> {
        self.0.get(value)
    }

    /// Adds a value; refuses it if it is there already.
    pub(super) fn add(&mut self, value: &str, path: String) -> Result<(), Error> {
        match self.0.get(value) {
            Some(other) => {
                let problem = Problem::Duplicate { value: value.to_owned(), other: other.clone() };
                Err(Error::keyed(path, problem))
            }
            None => {
                self.0.insert(value.to_owned(), path);
                Ok(())
            }
        }
    }
}

/// Refuses a name with other characters than letters, digits, `_`, `.` and `-`.
pub(super) fn check_name(key: &str, name: &str) -> Result<(), Error> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    if name.is_empty() || !name.bytes().all(known) {
        return Err(shape(key, name, "one or more of A-Z, a-z, 0-9, `_`, `.` and `-`"));
    }
    Ok(())
}

/// Refuses an empty secret.
pub(super) fn check_secret(key: &str, secret: &Secret) -> Result<(), Error> {
    if secret.expose().trim().is_empty() {
        return Err(Error::keyed(key, Problem::Secret { accepted: "a string that is not empty" }));
    }
    Ok(())
}

/// Checks a token, which is sent in a query or a header and is the only protection: at least 16
/// visible ASCII characters, or empty.
pub(super) fn check_token(key: &str, token: &Secret) -> Result<(), Error> {
    let token = token.expose();
    let is_whole = token.bytes().all(|byte| byte.is_ascii_graphic());
    if !token.is_empty() && (token.len() < TOKEN_MIN || !is_whole) {
        let accepted = "an empty string, or at least 16 visible ASCII characters without spaces";
        return Err(Error::keyed(key, Problem::Secret { accepted }));
    }
    Ok(())
}

/// Checks an origin or origin pattern. A browser sends `scheme://host[:port]` in lower case, or
/// `null`.
pub(super) fn check_origin(key: &str, origin: &str) -> Result<(), Error> {
    let host = origin.split_once("://").map(|(_, host)| host);
    let whole = host.is_some_and(|host| !host.is_empty() && !host.contains('/'));
    let spelt = origin.bytes().all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase());
    if !spelt || !(whole || origin == "null" || origin.starts_with('*') && host.is_none()) {
        let accepted = "an origin in lower case without a path, such as `https://example.com`; `*` \
                        matches any run of characters";
        return Err(shape(key, origin, accepted));
    }
    Ok(())
}

/// Whether a text consists of characters of a path.
pub(super) fn is_path(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#".contains(&byte))
}

/// The error of a text of the wrong form.
pub(super) fn shape(key: impl Into<String>, found: &str, accepted: &'static str) -> Error {
    Error::keyed(key, Problem::Shape { found: found.to_owned(), accepted })
}
