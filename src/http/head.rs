//! One whole request head: request line and fields are parsed by `httparse`, and then checked by
//! the rules that `httparse` does not check.

use httparse::Error as Parse;

use super::framing::{self, BodyFraming};
use super::{Error, Headers, HttpVersion};

/// A head that has passed all checks.
#[derive(Debug)]
pub(super) struct Head<'a> {
    pub(super) method: &'a str,
    pub(super) target: &'a str,
    pub(super) authority: Option<&'a str>,
    pub(super) version: HttpVersion,
    pub(super) framing: BodyFraming,
    pub(super) keep_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends the body (RFC 9110 section
    /// 10.1.1).
    pub(super) expects: bool,
}

/// Parses `bytes`, which end with the blank line of a head and have no bare LF (see [`Lines`]).
///
/// At most `max` fields are taken. They are written to `headers` and not returned, because the
/// table is large, and each move of it costs as much as parsing one field.
pub(super) fn parse<'a>(
    bytes: &'a [u8],
    max: usize,
    headers: &mut Headers<'a>,
) -> Result<Head<'a>, Error> {
    let mut line = None;
    headers.fill(
        max,
        |error| *error == Error::TooManyHeaders,
        |fields| {
            let mut request = httparse::Request::new(fields);
            let parsed = request.parse(bytes).map_err(|error| translate(error, bytes))?;
            if parsed != httparse::Status::Complete(bytes.len()) {
                return Err(Error::HeaderField);
            }
            line = request.method.zip(request.path).zip(request.version);
            Ok(request.headers.len())
        },
    )?;
    let ((method, path), version) = line.ok_or(Error::RequestLine)?;
    let version = if version == 0 { HttpVersion::Http10 } else { HttpVersion::Http11 };
    let (authority, target) = split_target(path)?;
    let fields = Fields::collect(headers, version)?;
    Ok(Head {
        method,
        target,
        authority,
        version,
        framing: framing::of(&fields.framing, version)?,
        keep_alive: fields.keep_alive(version),
        expects: fields.expects && version == HttpVersion::Http11,
    })
}

/// The fields that matter for the message, found in one pass.
struct Fields<'a> {
    framing: framing::Fields<'a>,
    close: bool,
    keep: bool,
    expects: bool,
}

impl<'a> Fields<'a> {
    fn collect(headers: &Headers<'a>, version: HttpVersion) -> Result<Fields<'a>, Error> {
        let mut fields =
            Fields { framing: Default::default(), close: false, keep: false, expects: false };
        let mut hosts = 0;
        for (name, value) in headers.iter() {
            // The length of the name excludes nearly every field before any text is compared.
            match name.len() {
                4 if name.eq_ignore_ascii_case("host") => {
                    hosts += 1;
                    if !value.iter().all(|&byte| is_host_byte(byte)) {
                        return Err(Error::Host);
                    }
                }
                6 if name.eq_ignore_ascii_case("expect") => {
                    fields.expects |= value.eq_ignore_ascii_case(b"100-continue");
                }
                10 if name.eq_ignore_ascii_case("connection") => {
                    for token in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
                        fields.close |= token.eq_ignore_ascii_case(b"close");
                        fields.keep |= token.eq_ignore_ascii_case(b"keep-alive");
                    }
                }
                14 if name.eq_ignore_ascii_case("content-length") => {
                    fields.framing.content_length(value)?;
                }
                17 if name.eq_ignore_ascii_case("transfer-encoding") => {
                    fields.framing.transfer_encoding(value);
                }
                _ => {}
            }
        }
        // RFC 9112 section 3.2: exactly one on HTTP/1.1; HTTP/1.0 does not have it.
        let wanted = if version == HttpVersion::Http11 { 1..=1 } else { 0..=1 };
        if wanted.contains(&hosts) { Ok(fields) } else { Err(Error::Host) }
    }

    /// Whether the connection may carry another request (RFC 9112 section 9.3).
    fn keep_alive(&self, version: HttpVersion) -> bool {
        !self.close && (version == HttpVersion::Http11 || self.keep)
    }
}

/// Splits a target into the authority, which only the absolute form has, and the path with the
/// query (RFC 9112 section 3.2).
fn split_target(target: &str) -> Result<(Option<&str>, &str), Error> {
    if memchr::memchr(b'#', target.as_bytes()).is_some() {
        return Err(Error::Target);
    }
    if target.starts_with('/') {
        return Ok((None, target));
    }
    let (scheme, rest) = target.split_once("://").ok_or(Error::Target)?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(Error::Target);
    }
    let (authority, path) = match rest.find(['/', '?']) {
        Some(at) if rest[at..].starts_with('/') => rest.split_at(at),
        Some(_) => return Err(Error::Target),
        None => (rest, "/"),
    };
    if authority.is_empty() || !authority.bytes().all(is_host_byte) {
        return Err(Error::Target);
    }
    Ok((Some(authority), path))
}

/// Whether a host may have `byte` (RFC 3986 section 3.2.2), including the colon before a port and
/// the brackets of an IPv6 address, but without user info.
fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+;=:[]%".contains(&byte)
}

/// Translates an error of `httparse`, which reports a bad version for any text in the version's
/// place. Only a text that looks like a version gets status 505.
fn translate(error: Parse, bytes: &[u8]) -> Error {
    match error {
        Parse::TooManyHeaders => Error::TooManyHeaders,
        Parse::HeaderName | Parse::HeaderValue => Error::HeaderField,
        Parse::Version if names_a_version(bytes) => Error::Version,
        _ => Error::RequestLine,
    }
}

fn names_a_version(bytes: &[u8]) -> bool {
    let line = bytes.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|&byte| byte == b' ');
    // An extra blank moves the version; that is a malformed line, not another version.
    let (_, _, third, fourth) = (words.next(), words.next(), words.next(), words.next());
    let digits = |major: &u8, minor: &u8| major.is_ascii_digit() && minor.is_ascii_digit();
    matches!(third, Some([b'H', b'T', b'T', b'P', b'/', major, b'.', minor])
        if fourth.is_none() && digits(major, minor))
}

/// The search for the end of a head, which reads every byte once, wherever the input is cut.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lines {
    /// Bytes of the unfinished line.
    line: usize,
    /// Whether the last byte of the unfinished line is a CR.
    cr: bool,
    /// Whether a line has ended.
    pub(super) any: bool,
}

/// The result of the search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeadEnd {
    /// The head ends after this many of the bytes.
    End(usize),
    /// The bytes end inside the head: they have only complete lines and the beginning of another
    /// line.
    More,
    /// A line ends with LF only.
    BareLineFeed,
}

impl Lines {
    /// Continues the search in `bytes`, which follow those of the last call.
    pub(super) fn find(&mut self, bytes: &[u8]) -> HeadEnd {
        let mut rest = bytes;
        while let Some(at) = memchr::memchr(b'\n', rest) {
            let cr = if at == 0 { self.cr } else { rest[at - 1] == b'\r' };
            let line = self.line + at;
            rest = &rest[at + 1..];
            (self.line, self.cr) = (0, false);
            match (cr, line) {
                (false, _) => return HeadEnd::BareLineFeed,
                (true, 1) => return HeadEnd::End(bytes.len() - rest.len()),
                (true, _) => self.any = true,
            }
        }
        self.line += rest.len();
        self.cr = rest.last().map_or(self.cr, |&byte| byte == b'\r');
        HeadEnd::More
    }
}
