//! How long the body is (RFC 9112 section 6.3). Everything that two programs could read differently
//! is refused, because such differences are used for request smuggling.

use super::{Error, HttpVersion};

/// How the end of the body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyFraming {
    /// This many bytes follow the head.
    Length(u64),
    /// Chunks follow, the last one empty.
    Chunked,
}

/// The front of some input: framing bytes, then perhaps data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyChunk {
    /// Where the data begins; the bytes before it are consumed.
    pub from: usize,
    /// Where the data ends.
    pub to: usize,
}

/// The fields that decide the length, in the order in which they are read.
#[derive(Default)]
pub(super) struct Fields<'a> {
    length: Option<u64>,
    /// Whether there is a `Transfer-Encoding`.
    encoded: bool,
    /// Whether a coding other than `chunked` was named.
    foreign: bool,
    /// The number of times that `chunked` was named.
    chunked: u32,
    /// The coding named last.
    last: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Takes a `Content-Length`: at most one, digits only, without overflow.
    pub(super) fn content_length(&mut self, value: &[u8]) -> Result<(), Error> {
        let digits = str::from_utf8(value).ok().filter(|text| is_number(text));
        let length = digits.and_then(|text| text.parse().ok()).ok_or(Error::ContentLength)?;
        match self.length.replace(length) {
            None => Ok(()),
            Some(_) => Err(Error::ContentLength),
        }
    }

    /// Takes a `Transfer-Encoding`, which is a list and may be spread over several fields.
    pub(super) fn transfer_encoding(&mut self, value: &'a [u8]) {
        self.encoded = true;
        for coding in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
            if coding.is_empty() {
                continue;
            }
            if is_chunked(coding) {
                self.chunked += 1;
            } else {
                self.foreign = true;
            }
            self.last = coding;
        }
    }
}

/// The framing that follows from the fields.
pub(super) fn of(fields: &Fields<'_>, version: HttpVersion) -> Result<BodyFraming, Error> {
    if !fields.encoded {
        return Ok(BodyFraming::Length(fields.length.unwrap_or(0)));
    }
    if fields.length.is_some() {
        return Err(Error::TwoLengths);
    }
    if version == HttpVersion::Http10 {
        return Err(Error::TransferEncoding);
    }
    match (fields.chunked, fields.foreign) {
        (1, false) => Ok(BodyFraming::Chunked),
        // An unknown coding in a valid place.
        (0, true) => Err(Error::TransferCoding),
        (1, true) if is_chunked(fields.last) => Err(Error::TransferCoding),
        _ => Err(Error::TransferEncoding),
    }
}

fn is_chunked(coding: &[u8]) -> bool {
    coding.eq_ignore_ascii_case(b"chunked")
}

/// Whether `text` has digits only; `parse` would also accept a sign.
fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}
