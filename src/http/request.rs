//! A whole request, borrowed from the bytes in which it was received.

use super::Connection;

/// The supported protocol versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HttpVersion {
    /// HTTP/1.0: a connection ends with its request unless the client asks for `keep-alive`.
    Http10,
    /// HTTP/1.1.
    Http11,
}

/// One request. Its head has been checked (see [`super::Error`]), and its body is whole and
/// decoded.
#[derive(Debug)]
pub struct Request<'a> {
    /// The method as sent; methods are case-sensitive.
    pub method: &'a str,
    /// Path and query as sent, beginning with `/`. Of an absolute-form target, the part after the
    /// authority.
    pub target: &'a str,
    /// The version.
    pub version: HttpVersion,
    /// The header fields.
    pub headers: Headers<'a>,
    /// The body, to be parsed in place.
    pub body: &'a mut [u8],
    /// Whether the connection may carry another request (RFC 9112 section 9.3).
    pub keep_alive: bool,
    /// The authority of an absolute-form target.
    pub(super) authority: Option<&'a str>,
    /// The length of the path in `target`.
    pub(super) path_len: usize,
}

impl<'a> Request<'a> {
    /// The target up to the first `?`, as sent.
    pub fn path(&self) -> &'a str {
        &self.target[..self.path_len]
    }

    /// The target after the first `?`, as sent; empty if there is none.
    pub fn query(&self) -> &'a str {
        self.target.get(self.path_len + 1..).unwrap_or("")
    }

    /// The value of the first field of that name; case does not matter. `None` if there is no such
    /// field, or if its value is not UTF-8.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.headers.first(name).and_then(|value| str::from_utf8(value).ok())
    }

    /// The values of all fields of that name that are UTF-8, in order.
    pub fn header_values<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'a str> + 's {
        self.headers.values(name).filter_map(|value| str::from_utf8(value).ok())
    }

    /// Host and port of the request: from an absolute-form target, otherwise from `Host` (RFC 9112
    /// section 3.2.2). `None` only on HTTP/1.0.
    pub fn authority(&self) -> Option<&'a str> {
        self.authority.or_else(|| self.header("host"))
    }

    /// What the response must state about the connection.
    pub fn connection(&self) -> Connection {
        match (self.keep_alive, self.version) {
            (false, _) => Connection::Close,
            (true, HttpVersion::Http11) => Connection::KeepAlive,
            (true, HttpVersion::Http10) => Connection::KeepHttp10,
        }
    }
}

/// The number of header fields that [`Headers`] holds without heap. Most requests have fewer. The
/// table is moved with its request, so that a larger one costs all requests more: with 64 fields,
/// moving it took 2 % of the time of a signed publish.
const FIELDS: usize = 24;

/// The header fields of a request, in the order of arrival, held without heap unless they are more
/// than 24.
#[derive(Clone)]
pub struct Headers<'a> {
    fields: [httparse::Header<'a>; FIELDS],
    /// All fields, if there are more than `fields` has room for.
    many: Vec<httparse::Header<'a>>,
    len: usize,
}

impl<'a> Headers<'a> {
    pub(super) fn new() -> Headers<'a> {
        Headers { fields: [httparse::EMPTY_HEADER; FIELDS], many: Vec::new(), len: 0 }
    }

    /// Calls `parse` to fill a table of at most `max` fields; `parse` returns the number of fields
    /// that it has filled. If the table was too small, which `is_too_many` decides by the error,
    /// calls `parse` again with a larger table.
    pub(super) fn fill<E>(
        &mut self,
        max: usize,
        is_too_many: impl FnOnce(&E) -> bool,
        mut parse: impl FnMut(&mut [httparse::Header<'a>]) -> Result<usize, E>,
    ) -> Result<(), E> {
        let filled = parse(&mut self.fields[..max.min(FIELDS)]);
        self.len = match filled {
            Err(error) if max > FIELDS && is_too_many(&error) => {
                self.many = vec![httparse::EMPTY_HEADER; max];
                parse(&mut self.many)?
            }
            filled => filled?,
        };
        debug_assert!(self.len <= max);
        Ok(())
    }

    fn all(&self) -> &[httparse::Header<'a>] {
        if self.many.is_empty() { &self.fields[..self.len] } else { &self.many[..self.len] }
    }

    /// The number of fields.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Name and value of every field. Values have no control characters except tab, and may not be
    /// UTF-8.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + '_ {
        self.all().iter().map(|field| (field.name, field.value.trim_ascii()))
    }

    /// The values of all fields of that name, in order; case does not matter.
    pub fn values<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'a [u8]> + 's {
        let named = |field: &&httparse::Header<'a>| field.name.eq_ignore_ascii_case(name);
        self.all().iter().filter(named).map(|field| field.value.trim_ascii())
    }

    /// The first field of that name.
    pub fn first(&self, name: &str) -> Option<&'a [u8]> {
        self.values(name).next()
    }

    /// The elements of a comma-separated list over all fields of that name (RFC 9110
    /// section 5.6.1). Empty elements are skipped; an element that is not UTF-8 becomes `""`, which
    /// is not a valid token.
    pub fn tokens<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'a str> + 's {
        self.values(name)
            .flat_map(|value| value.split(|&byte| byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|element| !element.is_empty())
            .map(|element| str::from_utf8(element).unwrap_or(""))
    }

    /// Whether the list of that name has `token`; case does not matter.
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.tokens(name).any(|element| element.eq_ignore_ascii_case(token))
    }
}

impl std::fmt::Debug for Headers<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = |(name, value)| (name, String::from_utf8_lossy(value));
        f.debug_map().entries(self.iter().map(text)).finish()
    }
}

/// Whether a token may hold `byte` (RFC 9110 section 5.6.2).
pub fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
