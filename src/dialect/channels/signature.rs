//! Verification of signed HTTP API requests, whose query has `auth_key`, `auth_timestamp`,
//! `auth_version`, `body_md5` and `auth_signature`.
//!
//! The signature is the HMAC-SHA256, keyed by the secret of `auth_key`, of
//!
//! ```text
//! METHOD \n path \n k=v&k=v
//! ```
//!
//! with all parameters except `auth_signature`, sorted by name, their values not escaped. Names are
//! converted to lower case if the vendor's rules say so. Client libraries differ in what they
//! escape, in whether `+` is a space, and in whether the signed path includes the configured
//! prefix. Each such reading is tried in turn, the most likely one first, so that a usual request
//! costs one HMAC.

use crate::crypto::{HmacKey, constant_time_eq, hex, md5};
use crate::http::query::{self, PlusSign};

/// A request whose signature is to be verified.
#[derive(Clone, Copy, Debug)]
pub struct Signed<'a> {
    /// The method as received.
    pub method: &'a str,
    /// The path as received.
    pub path: &'a str,
    /// The configured path prefix, such as `/ws`, or empty.
    pub prefix: &'a str,
    /// The query as received, without the `?`.
    pub query: &'a str,
    /// The body as received. Verify before a parser modifies it in place. `None` if only the head
    /// has arrived: its signature covers `body_md5`, which the body is compared with later.
    pub body: Option<&'a [u8]>,
}

/// One key of an application, with its secret.
#[derive(Clone, Debug)]
pub struct AppKey {
    /// The key as clients send it in `auth_key`.
    pub text: Box<str>,
    /// The secret, prepared for HMAC.
    pub secret: HmacKey,
}

impl AppKey {
    /// Creates a key from its text and its secret.
    pub fn new(text: &str, secret: &str) -> AppKey {
        AppKey { text: text.into(), secret: HmacKey::new(secret.as_bytes()) }
    }
}

/// How a vendor's signatures differ.
#[derive(Clone, Copy, Debug)]
pub struct SigningRules {
    /// Whether parameter names are converted to lower case before signing.
    pub lower_names: bool,
    /// Whether other readings than plain percent-decoding are tried.
    pub lenient: bool,
    /// Whether a `POST` with an empty body must have a `body_md5`, too.
    pub always_md5: bool,
}

impl SigningRules {
    /// What a `+` in a query value stands for: a space if lenient, else itself.
    pub(super) fn plus(self) -> PlusSign {
        if self.lenient { PlusSign::Space } else { PlusSign::Literal }
    }
}

/// The rules that accept the requests of all Pusher Channels libraries.
pub const LENIENT: SigningRules =
    SigningRules { lower_names: true, lenient: true, always_md5: false };

/// Why a request's signature is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// A parameter that must be unique occurs twice.
    #[error("Parameter {0} given more than once")]
    Repeated(&'static str),
    /// `auth_key` is missing or not a key of this application.
    #[error("Unknown auth_key")]
    Key,
    /// `auth_version` is missing or not `1.0`.
    #[error("Unsupported auth_version: 1.0 is required")]
    Version,
    /// `auth_timestamp` is missing or not a number of seconds.
    #[error("Invalid auth_timestamp: seconds since 1970 are required")]
    Timestamp,
    /// `auth_timestamp` differs too much from the server's clock. Times are in seconds since 1970.
    #[error(
        "Timestamp expired: Given timestamp ({given}) not within {tolerance}s of server time \
         ({now})"
    )]
    Expired {
        /// The client's `auth_timestamp`.
        given: u64,
        /// The server's clock.
        now: u64,
        /// The largest difference allowed, in seconds.
        tolerance: u64,
    },
    /// The request has a body and no `body_md5`.
    #[error("body_md5 is required with a body")]
    BodyMd5Missing,
    /// `body_md5` is not the MD5 of the body.
    #[error("body_md5 does not match the body")]
    BodyMd5,
    /// `auth_signature` is missing or wrong.
    #[error("Invalid auth_signature")]
    Signature,
}

impl SignatureError {
    /// The HTTP status of the reply: 401.
    pub fn status(self) -> u16 {
        401
    }
}

/// Verifies `request` against the `keys` of its application. `now_unix_s` is the current time in
/// seconds since 1970. `tolerance_s` is the largest difference between it and `auth_timestamp`, in
/// seconds; with `None` the timestamp is not checked, so a recorded request can be replayed at any
/// time.
///
/// # Errors
/// The first check that fails: uniqueness of the parameters, key, version, timestamp, presence of
/// `body_md5`, signature, body. The body is checked last, so that a client without the secret
/// cannot make the server hash long bodies.
pub fn verify(
    request: &Signed<'_>,
    rules: SigningRules,
    keys: &[AppKey],
    now_unix_s: u64,
    tolerance_s: Option<u64>,
) -> Result<(), SignatureError> {
    let readings = if rules.lenient { Reading::all(request.query) } else { &[Reading::Url] };
    let mut form = Form::read(request.query, readings[0], rules)?;
    let name = form.get(Parameter::Key);
    let key =
        keys.iter().find(|key| name == Some(key.text.as_bytes())).ok_or(SignatureError::Key)?;
    if form.get(Parameter::Version) != Some(b"1.0") {
        return Err(SignatureError::Version);
    }
    if let Some(tolerance) = tolerance_s {
        check_time(form.get(Parameter::Timestamp), now_unix_s, tolerance)?;
    }
    if let Some(body) = request.body {
        let may_lack = body.is_empty() && !(rules.always_md5 && request.method == "POST");
        if form.get(Parameter::BodyMd5).is_none() && !may_lack {
            return Err(SignatureError::BodyMd5Missing);
        }
    }
    for (at, reading) in readings.iter().enumerate() {
        if at > 0 {
            form = Form::read(request.query, *reading, rules)?;
        }
        if form.is_signed_by(key, request) {
            return request
                .body
                .map_or(Ok(()), |body| check_body(form.get(Parameter::BodyMd5), body));
        }
    }
    Err(SignatureError::Signature)
}

fn check_time(given: Option<&[u8]>, now: u64, tolerance: u64) -> Result<(), SignatureError> {
    let digits = given.filter(|text| text.iter().all(u8::is_ascii_digit));
    let text = digits.and_then(|text| str::from_utf8(text).ok());
    let given: u64 = text.and_then(|text| text.parse().ok()).ok_or(SignatureError::Timestamp)?;
    if now.abs_diff(given) > tolerance {
        return Err(SignatureError::Expired { given, now, tolerance });
    }
    Ok(())
}

/// Compares `body_md5` with the body, even an empty one: one SDK sends the MD5 of an empty body
/// with a `GET`. Call this after the signature, which covers `body_md5`, was verified, so that only
/// clients with the secret can make the server hash a long body.
fn check_body(given: Option<&[u8]>, body: &[u8]) -> Result<(), SignatureError> {
    match given {
        None => Ok(()),
        Some(given) if given.eq_ignore_ascii_case(&hex::<16, 32>(&md5(body))) => Ok(()),
        Some(_) => Err(SignatureError::BodyMd5),
    }
}

/// How a client may have encoded the signed values in the query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// Percent-encoded, with a space as `+`.
    Form,
    /// Percent-encoded, with a space as `%20`; a `+` is itself.
    Url,
    /// Not encoded.
    Raw,
}

impl Reading {
    /// The readings that give different results for this query, the most likely one first.
    fn all(query: &str) -> &'static [Reading] {
        let has = |byte| memchr::memchr(byte, query.as_bytes()).is_some();
        match (has(b'%'), has(b'+')) {
            (false, false) => &[Reading::Raw],
            (true, true) => &[Reading::Form, Reading::Url, Reading::Raw],
            _ => &[Reading::Form, Reading::Raw],
        }
    }

    fn decode_into(self, out: &mut Vec<u8>, text: &str) {
        match self {
            Reading::Form => query::decode_into(out, text.as_bytes(), PlusSign::Space),
            Reading::Url => query::decode_into(out, text.as_bytes(), PlusSign::Literal),
            Reading::Raw => out.extend_from_slice(text.as_bytes()),
        }
    }
}

/// The query's parameters in one reading.
struct Form {
    /// `k=v&k=v` without the signature, in the order received until [`Form::sort`] is called.
    text: Vec<u8>,
    pairs: Vec<Pair>,
    signature: Option<Vec<u8>>,
}

/// The position of one parameter in the text, as byte offsets.
#[derive(Clone, Copy)]
struct Pair {
    start: usize,
    /// The offset of the `=`.
    middle: usize,
    end: usize,
    /// Which parameter it is, if the server reads it.
    parameter: Option<Parameter>,
}

/// The parameters that the server reads, apart from the signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parameter {
    Key,
    Timestamp,
    Version,
    BodyMd5,
}

impl Parameter {
    const ALL: [Parameter; 4] =
        [Parameter::Key, Parameter::Timestamp, Parameter::Version, Parameter::BodyMd5];

    fn name(self) -> &'static str {
        match self {
            Parameter::Key => "auth_key",
            Parameter::Timestamp => "auth_timestamp",
            Parameter::Version => "auth_version",
            Parameter::BodyMd5 => "body_md5",
        }
    }

    fn of_name(name: &[u8]) -> Option<Parameter> {
        Parameter::ALL.into_iter().find(|parameter| parameter.name().as_bytes() == name)
    }
}

impl Form {
    fn read(query: &str, reading: Reading, rules: SigningRules) -> Result<Form, SignatureError> {
        let text = Vec::with_capacity(query.len());
        let mut form = Form { text, pairs: Vec::with_capacity(USUAL_PAIRS), signature: None };
        for (key, value) in query::pairs(query) {
            let before = form.text.len();
            if before > 0 {
                form.text.push(b'&');
            }
            let start = form.text.len();
            reading.decode_into(&mut form.text, key);
            if rules.lower_names {
                form.text[start..].make_ascii_lowercase();
            }
            let middle = form.text.len();
            form.text.push(b'=');
            reading.decode_into(&mut form.text, value);
            let end = form.text.len();
            if &form.text[start..middle] == AUTH_SIGNATURE.as_bytes() {
                let signature = form.text[middle + 1..].to_vec();
                form.text.truncate(before);
                if form.signature.replace(signature).is_some() {
                    return Err(SignatureError::Repeated(AUTH_SIGNATURE));
                }
            } else {
                let parameter = Parameter::of_name(&form.text[start..middle]);
                form.pairs.push(Pair { start, middle, end, parameter });
            }
        }
        form.check_unique()?;
        Ok(form)
    }

    /// Rejects duplicates of the parameters that the server reads: the client could have signed
    /// with a different one of the two than the server uses.
    fn check_unique(&self) -> Result<(), SignatureError> {
        for parameter in Parameter::ALL {
            let is_it = |pair: &&Pair| pair.parameter == Some(parameter);
            if self.pairs.iter().filter(is_it).nth(1).is_some() {
                return Err(SignatureError::Repeated(parameter.name()));
            }
        }
        Ok(())
    }

    fn get(&self, parameter: Parameter) -> Option<&[u8]> {
        let pair = self.pairs.iter().find(|pair| pair.parameter == Some(parameter))?;
        Some(&self.text[pair.middle + 1..pair.end])
    }

    fn name(&self, pair: &Pair) -> &[u8] {
        &self.text[pair.start..pair.middle]
    }

    /// Whether `auth_signature` is right for this reading, with the path as received, without its
    /// prefix, or with the prefix added.
    fn is_signed_by(&mut self, key: &AppKey, request: &Signed<'_>) -> bool {
        self.sort();
        let Some(signature) = &self.signature else {
            return false;
        };
        let is_signed = |prefix: &str, path: &str| {
            let [method, prefix, path] = [request.method, prefix, path].map(str::as_bytes);
            let mac = key.secret.sign(&[method, b"\n", prefix, path, b"\n", &self.text]);
            constant_time_eq(&hex::<32, 64>(&mac), signature)
        };
        if is_signed("", request.path) {
            return true;
        }
        match request.path.strip_prefix(request.prefix) {
            _ if request.prefix.is_empty() => false,
            Some(path) => is_signed("", path),
            None => is_signed(request.prefix, request.path),
        }
    }

    /// Sorts the parameters by name; equal names keep their order. Clients usually send them
    /// sorted, and then nothing is moved.
    fn sort(&mut self) {
        if self.pairs.is_sorted_by_key(|pair| self.name(pair)) {
            return;
        }
        let mut pairs = std::mem::take(&mut self.pairs);
        pairs.sort_by(|left, right| self.name(left).cmp(self.name(right)));
        let mut text = Vec::with_capacity(self.text.len());
        for pair in &mut pairs {
            if !text.is_empty() {
                text.push(b'&');
            }
            let start = text.len();
            text.extend_from_slice(&self.text[pair.start..pair.end]);
            let middle = start + (pair.middle - pair.start);
            *pair = Pair { start, middle, end: text.len(), ..*pair };
        }
        (self.text, self.pairs) = (text, pairs);
    }
}

const AUTH_SIGNATURE: &str = "auth_signature";
/// The number of parameters of a usual publish, with the signature.
const USUAL_PAIRS: usize = 8;

#[cfg(test)]
mod tests;
