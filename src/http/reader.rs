//! Bytes in, requests out, at any cut of the input.

use super::body::Body;
use super::chunked::Chunked;
use super::framing::BodyFraming;
use super::head::{self, Head, HeadEnd, Lines};
use super::{Error, Headers, HttpVersion, Request};
use crate::limits::{HTTP_BODY_BYTES, HTTP_HEAD_BYTES, HTTP_HEADERS, HTTP_HEADERS_MAX};

/// How much of a request is read at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes of a head: request line, fields and the blank line. Also of all that a chunked
    /// body has beside data.
    pub head_bytes: usize,
    /// Header fields of a head.
    pub head_fields: usize,
    /// Bytes of a body, decoded.
    pub body_bytes: usize,
}

impl Default for HeadLimits {
    fn default() -> HeadLimits {
        HeadLimits {
            head_bytes: HTTP_HEAD_BYTES,
            head_fields: HTTP_HEADERS,
            body_bytes: HTTP_BODY_BYTES,
        }
    }
}

/// What came of some bytes.
#[derive(Debug)]
pub enum RequestEvent<'a> {
    /// Nothing yet; every byte was taken.
    Need,
    /// The client holds the body back until it is told to go on (RFC 9110 section 10.1.1): write
    /// [`super::CONTINUE`], or refuse and close.
    Continue,
    /// The head of a request, without its body, if the reader was asked for it: take the body over
    /// and leave the reader, or go on for the whole request.
    Head(Request<'a>, Body),
    /// A whole request.
    Request(Request<'a>),
    /// No request: answer with [`Error::respond`] and close.
    Bad(Error),
}

/// What a connection is waiting for, so that its owner can set the deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Between requests.
    Idle,
    /// Part of a head is in.
    Head,
    /// The head is in and part of the body is not.
    Body,
    /// A request was refused; nothing more is read.
    Failed,
}

/// Reads the requests of one connection.
///
/// A request that lies whole in the input is borrowed from there. A cut one is gathered in a
/// buffer of at most `head_bytes + body_bytes`, which is given back with the first call behind
/// the request; a reader between requests owns no heap.
#[derive(Debug, Default)]
pub struct Reader {
    state: State,
    /// Whether heads of requests that a streamed body may belong to are given by themselves.
    offers: bool,
    /// The head so far, or the head and the decoded body so far.
    buffer: Vec<u8>,
}

#[derive(Debug)]
enum State {
    /// `buffer` is empty. Some blank lines have been skipped.
    Idle { blanks: u8 },
    /// `buffer` holds a head without its end.
    Head { blanks: u8, lines: Lines },
    /// `buffer` holds a head that was given by itself.
    Offered { framing: BodyFraming, expects: bool },
    /// `buffer` holds `head` bytes of head and a body that is whole when `total` bytes are in.
    Length { head: usize, total: usize },
    /// `buffer` holds `head` bytes of head and what the decoder let through.
    Chunked { head: usize, chunks: Chunked },
    /// `buffer` holds a request that was handed out.
    Given,
    /// A request was refused.
    Failed,
}

impl Default for State {
    fn default() -> State {
        State::Idle { blanks: 0 }
    }
}

impl Reader {
    /// A reader at the beginning of a connection.
    pub fn new() -> Reader {
        Reader::default()
    }

    /// Reads on in `input`: how many bytes of it are done with, and what came of them. Call
    /// again with the rest until it says [`RequestEvent::Need`]. Bytes behind a request stay
    /// untaken,
    /// which may be another request or, behind an upgrade, another protocol.
    ///
    /// After [`RequestEvent::Bad`] all input is taken and nothing comes of it.
    pub fn next<'a>(
        &'a mut self,
        limits: &HeadLimits,
        input: &'a mut [u8],
    ) -> (usize, RequestEvent<'a>) {
        self.invariants();
        match self.state {
            State::Idle { blanks } => self.open(limits, blanks, input),
            State::Given => {
                self.buffer = Vec::new();
                self.state = State::default();
                self.open(limits, 0, input)
            }
            State::Head { blanks, lines } => self.gather(limits, blanks, lines, input),
            State::Length { .. } | State::Chunked { .. } => self.body(limits, false, input),
            State::Offered { framing, expects } => {
                let head = self.buffer.len();
                match body_state(limits, framing, head) {
                    Ok(state) => self.state = state,
                    Err(error) => return self.fail(input.len(), error),
                }
                self.body(limits, expects, input)
            }
            State::Failed => (input.len(), RequestEvent::Need),
        }
    }

    /// Whether to give the head of each POST of HTTP/1.1 by itself: [`RequestEvent::Head`].
    pub fn offer(&mut self, offers: bool) {
        self.offers = offers;
    }

    /// The request whose body is being read, without its body.
    pub fn head(&self) -> Option<Request<'_>> {
        let size = match self.state {
            State::Length { head, .. } | State::Chunked { head, .. } => head,
            _ => return None,
        };
        let mut headers = Headers::new();
        let head = head::parse(&self.buffer[..size], HTTP_HEADERS_MAX, &mut headers).ok()?;
        Some(request(head, headers, &mut []))
    }

    /// Bytes of heap that hold a request which is not whole, or was just handed out.
    pub fn held_bytes(&self) -> usize {
        self.buffer.capacity()
    }

    /// Frees a request that was handed out, before its answer waits.
    pub fn take_back(&mut self) {
        if matches!(self.state, State::Given) {
            self.buffer = Vec::new();
            self.state = State::default();
        }
    }

    /// What the connection is waiting for.
    pub fn phase(&self) -> Phase {
        match self.state {
            State::Idle { .. } | State::Given => Phase::Idle,
            State::Head { .. } => Phase::Head,
            State::Length { .. } | State::Chunked { .. } | State::Offered { .. } => Phase::Body,
            State::Failed => Phase::Failed,
        }
    }

    /// Between requests: skips blank lines, then takes a head in place or begins to gather it.
    fn open<'a>(
        &'a mut self,
        limits: &HeadLimits,
        mut blanks: u8,
        input: &'a mut [u8],
    ) -> (usize, RequestEvent<'a>) {
        let mut start = 0;
        loop {
            let rest = &input[start..];
            let window = &rest[..rest.len().min(limits.head_bytes)];
            let mut lines = Lines::default();
            match lines.find(window) {
                HeadEnd::End(BLANK) if blanks == MAX_BLANKS => {
                    return self.fail(input.len(), Error::BlankLines);
                }
                HeadEnd::End(BLANK) => {
                    blanks += 1;
                    start += BLANK;
                }
                HeadEnd::End(end) => return self.whole(limits, start, end, input),
                HeadEnd::BareLineFeed => return self.fail(input.len(), Error::BareLineFeed),
                HeadEnd::More if window.len() == limits.head_bytes => {
                    return self.fail(input.len(), too_large(lines));
                }
                HeadEnd::More if rest.is_empty() => {
                    self.state = State::Idle { blanks };
                    return (input.len(), RequestEvent::Need);
                }
                HeadEnd::More => {
                    self.buffer.extend_from_slice(rest);
                    self.state = State::Head { blanks, lines };
                    return (input.len(), RequestEvent::Need);
                }
            }
        }
    }

    /// A whole head stands at `start..start + end` of the input.
    fn whole<'a>(
        &'a mut self,
        limits: &HeadLimits,
        start: usize,
        end: usize,
        input: &'a mut [u8],
    ) -> (usize, RequestEvent<'a>) {
        let all = input.len();
        let (bytes, rest) = input[start..].split_at_mut(end);
        let bytes: &'a [u8] = bytes;
        let mut headers = Headers::new();
        let parsed = head::parse(bytes, limits.head_fields, &mut headers)
            .and_then(|head| Ok((self.state_behind(limits, &head, end)?, head)));
        let (state, head) = match parsed {
            Ok(parsed) => parsed,
            Err(error) => return self.fail(all, error),
        };
        if let State::Offered { framing, .. } = state {
            self.buffer.extend_from_slice(bytes);
            self.state = state;
            let offered = RequestEvent::Head(request(head, headers, &mut []), Body::new(framing));
            return (start + end, offered);
        }
        if let State::Length { head: _, total } = state
            && total - end <= rest.len()
        {
            self.state = State::default();
            let body = &mut rest[..total - end];
            return (start + total, RequestEvent::Request(request(head, headers, body)));
        }
        self.buffer.extend_from_slice(bytes);
        self.state = state;
        let (taken, event) = self.body(limits, head.expects, rest);
        (start + end + taken, event)
    }

    /// Goes on with a head that was cut.
    fn gather<'a>(
        &'a mut self,
        limits: &HeadLimits,
        blanks: u8,
        mut lines: Lines,
        input: &'a mut [u8],
    ) -> (usize, RequestEvent<'a>) {
        let room = limits.head_bytes.saturating_sub(self.buffer.len());
        let window = &input[..input.len().min(room)];
        let found = lines.find(window);
        let end = match found {
            HeadEnd::BareLineFeed => return self.fail(input.len(), Error::BareLineFeed),
            HeadEnd::More if window.len() == room => {
                return self.fail(input.len(), too_large(lines));
            }
            HeadEnd::More => {
                self.buffer.extend_from_slice(input);
                self.state = State::Head { blanks, lines };
                return (input.len(), RequestEvent::Need);
            }
            HeadEnd::End(end) => end,
        };
        let (bytes, rest) = input.split_at_mut(end);
        if self.buffer.len() + end == BLANK {
            if blanks == MAX_BLANKS {
                return self.fail(end + rest.len(), Error::BlankLines);
            }
            self.buffer = Vec::new();
            let (taken, event) = self.open(limits, blanks + 1, rest);
            return (end + taken, event);
        }
        self.buffer.extend_from_slice(bytes);
        let size = self.buffer.len();
        let parsed = head::parse(&self.buffer, limits.head_fields, &mut Headers::new())
            .and_then(|head| Ok((self.state_behind(limits, &head, size)?, head.expects)));
        match parsed {
            Ok((state @ State::Offered { framing, .. }, _)) => {
                self.state = state;
                (end, self.offered(framing))
            }
            Ok((state, expects)) => {
                self.state = state;
                let (taken, event) = self.body(limits, expects, rest);
                (end + taken, event)
            }
            Err(error) => self.fail(end + rest.len(), error),
        }
    }

    /// Goes on with a body whose head is in the buffer. `expects` with the first bytes only.
    fn body<'a>(
        &'a mut self,
        limits: &HeadLimits,
        expects: bool,
        input: &'a mut [u8],
    ) -> (usize, RequestEvent<'a>) {
        let fed = match &mut self.state {
            State::Length { total, .. } => {
                let take = input.len().min(*total - self.buffer.len());
                self.buffer.extend_from_slice(&input[..take]);
                Ok((take, self.buffer.len() == *total))
            }
            State::Chunked { chunks, .. } => chunks.feed(limits, input, &mut self.buffer),
            _ => Ok((input.len(), false)),
        };
        match fed {
            Ok((taken, true)) => (taken, self.give()),
            // RFC 9110 section 10.1.1: needless once part of the body is here.
            Ok((taken, false)) if expects && taken == 0 => (taken, RequestEvent::Continue),
            Ok((taken, false)) => (taken, RequestEvent::Need),
            Err(error) => self.fail(input.len(), error),
        }
    }

    /// Hands out the request that the buffer holds. Its head is parsed a second time: keeping
    /// what the first time found would mean a reader that borrows from itself.
    fn give(&mut self) -> RequestEvent<'_> {
        let size = match self.state {
            State::Length { head, .. } | State::Chunked { head, .. } => head,
            _ => 0,
        };
        let (bytes, body) = self.buffer.split_at_mut(size);
        let mut headers = Headers::new();
        match head::parse(bytes, HTTP_HEADERS_MAX, &mut headers) {
            Ok(head) => {
                self.state = State::Given;
                RequestEvent::Request(request(head, headers, body))
            }
            Err(error) => {
                debug_assert!(false, "parsed before: {error}");
                self.state = State::Failed;
                RequestEvent::Bad(error)
            }
        }
    }

    /// The state behind a head of `size` bytes.
    fn state_behind(
        &self,
        limits: &HeadLimits,
        head: &Head<'_>,
        size: usize,
    ) -> Result<State, Error> {
        let (framing, expects) = (head.framing, head.expects);
        match self.offers && head.method == "POST" && head.version == HttpVersion::Http11 {
            true => Ok(State::Offered { framing, expects }),
            false => body_state(limits, framing, size),
        }
    }

    /// Gives the head that the buffer holds.
    fn offered(&mut self, framing: BodyFraming) -> RequestEvent<'_> {
        let mut headers = Headers::new();
        match head::parse(&self.buffer, HTTP_HEADERS_MAX, &mut headers) {
            Ok(head) => RequestEvent::Head(request(head, headers, &mut []), Body::new(framing)),
            Err(error) => {
                debug_assert!(false, "parsed before: {error}");
                self.state = State::Failed;
                RequestEvent::Bad(error)
            }
        }
    }

    /// What each state says of the buffer. Checked when a call begins: while one ends, its event
    /// still borrows the reader.
    fn invariants(&self) {
        let held = self.buffer.len();
        debug_assert!(match self.state {
            State::Idle { .. } | State::Failed => self.buffer.capacity() == 0,
            State::Head { .. } | State::Offered { .. } => held > 0,
            State::Length { head, total } => head <= held && held < total,
            State::Chunked { head, .. } => head > 0 && head <= held,
            State::Given => held > 0,
        });
    }

    fn fail(&mut self, taken: usize, error: Error) -> (usize, RequestEvent<'_>) {
        self.buffer = Vec::new();
        self.state = State::Failed;
        (taken, RequestEvent::Bad(error))
    }
}

/// The state in which a body is gathered behind a head of `size` bytes.
fn body_state(limits: &HeadLimits, framing: BodyFraming, size: usize) -> Result<State, Error> {
    match framing {
        BodyFraming::Chunked => Ok(State::Chunked { head: size, chunks: Chunked::new() }),
        BodyFraming::Length(length) => {
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            if length > limits.body_bytes {
                return Err(Error::BodyTooLarge);
            }
            Ok(State::Length { head: size, total: size + length })
        }
    }
}

fn request<'a>(head: Head<'a>, headers: Headers<'a>, body: &'a mut [u8]) -> Request<'a> {
    Request {
        method: head.method,
        target: head.target,
        version: head.version,
        headers,
        body,
        keep_alive: head.keep_alive,
        authority: head.authority,
    }
}

/// A head that fills its limit: the request line alone, or the fields.
fn too_large(lines: Lines) -> Error {
    if lines.any { Error::HeadTooLarge } else { Error::TargetTooLong }
}

/// Bytes of a blank line.
const BLANK: usize = 2;
/// Blank lines that are skipped before a request line (RFC 9112 section 2.2 asks for one).
const MAX_BLANKS: u8 = 2;

#[cfg(test)]
mod tests;
