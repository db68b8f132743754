//! Turns received bytes into requests, independent of how the input is cut into pieces.

use super::body::Body;
use super::chunked::Chunked;
use super::framing::BodyFraming;
use super::head::{self, Head, HeadEnd, Lines};
use super::{Error, HeadLimits, Headers, HttpVersion, Request};
use crate::limits::HTTP_HEADERS_MAX;

/// The result of reading some bytes.
#[derive(Debug)]
pub enum RequestEvent<'a> {
    /// No event yet; every byte was consumed.
    Need,
    /// The client waits for 100 Continue before it sends the body (RFC 9110 section 10.1.1): write
    /// [`super::CONTINUE`], or refuse the request and close.
    Continue,
    /// The head of a request without its body, if [`Reader::offer`] has requested that: use the
    /// [`Body`] and drop the reader, or continue to read the whole request.
    Head(Request<'a>, Body),
    /// A whole request.
    Request(Request<'a>),
    /// A malformed request: answer with [`Error::respond`] and close.
    Bad(Error),
}

/// What the reader waits for, so that its owner can set the deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Between requests.
    Idle,
    /// A part of a head has arrived.
    Head,
    /// The head has arrived, and a part of the body has not.
    Body,
    /// A request was refused; nothing more is read.
    Failed,
}

/// Reads the requests of one connection.
///
/// A request that is whole in the input is borrowed from it. Otherwise it is gathered in a buffer
/// of at most `head_bytes + body_bytes`, which the first call after the request frees. Between
/// requests a reader owns no heap memory.
#[derive(Debug, Default)]
pub struct Reader {
    state: State,
    /// Whether heads of requests that may have a streamed body are returned before the body.
    offers: bool,
    /// The head so far, or the head and the decoded body so far.
    buffer: Vec<u8>,
}

#[derive(Debug)]
enum State {
    /// `buffer` is empty. `blanks` blank lines were skipped.
    Idle { blanks: u8 },
    /// `buffer` holds a head without its end.
    Head { blanks: u8, lines: Lines },
    /// `buffer` holds a head that was returned before its body.
    Offered { framing: BodyFraming, expects: bool },
    /// `buffer` holds `head` bytes of head and a part of the body, which ends at `total` bytes.
    Length { head: usize, total: usize },
    /// `buffer` holds `head` bytes of head and the decoded part of the body.
    Chunked { head: usize, chunks: Chunked },
    /// `buffer` holds a request that was returned.
    Delivered,
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

    /// Reads `input`. Returns how many bytes were consumed, and the event. Call it again with the
    /// rest until it returns [`RequestEvent::Need`]. Bytes after a request are not consumed; they
    /// may be another request or, after an upgrade, another protocol.
    ///
    /// After [`RequestEvent::Bad`] all input is consumed and ignored.
    pub fn next<'a>(
        &'a mut self,
        limits: &HeadLimits,
        input: &'a mut [u8],
    ) -> (usize, RequestEvent<'a>) {
        self.invariants();
        match self.state {
            State::Idle { blanks } => self.open(limits, blanks, input),
            State::Delivered => {
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

    /// Sets whether the head of each HTTP/1.1 POST is returned before its body, as
    /// [`RequestEvent::Head`].
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

    /// Bytes of the body that is being read: the length that the head declares, or the decoded
    /// bytes of a chunked body that have arrived.
    pub fn body_bytes(&self) -> usize {
        match self.state {
            State::Length { head, total } => total - head,
            State::Chunked { head, .. } => self.buffer.len() - head,
            _ => 0,
        }
    }

    /// Heap bytes of the buffer, which holds an incomplete request or the request that was returned
    /// last.
    pub fn held_bytes(&self) -> usize {
        self.buffer.capacity()
    }

    /// Frees the request that was returned last, so that it takes no memory while its response is
    /// pending.
    pub fn take_back(&mut self) {
        if matches!(self.state, State::Delivered) {
            self.buffer = Vec::new();
            self.state = State::default();
        }
    }

    /// What the connection is waiting for.
    pub fn phase(&self) -> Phase {
        match self.state {
            State::Idle { .. } | State::Delivered => Phase::Idle,
            State::Head { .. } => Phase::Head,
            State::Length { .. } | State::Chunked { .. } | State::Offered { .. } => Phase::Body,
            State::Failed => Phase::Failed,
        }
    }

    /// Between requests: skips blank lines, then parses a head in place or begins to gather it.
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

    /// A whole head is at `start..start + end` of the input.
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
            .and_then(|head| Ok((self.state_after(limits, &head, end)?, head)));
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

    /// Continues a head that was cut.
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
            .and_then(|head| Ok((self.state_after(limits, &head, size)?, head.expects)));
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

    /// Continues a body whose head is in the buffer. `expects` has an effect only before the first
    /// byte of the body.
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
            // RFC 9110 section 10.1.1: 100 Continue is not needed after a part of the body has
            // arrived.
            Ok((taken, false)) if expects && taken == 0 => (taken, RequestEvent::Continue),
            Ok((taken, false)) => (taken, RequestEvent::Need),
            Err(error) => self.fail(input.len(), error),
        }
    }

    /// Returns the request in the buffer. Its head is parsed again, because the first result would
    /// borrow from the reader itself.
    fn give(&mut self) -> RequestEvent<'_> {
        let size = match self.state {
            State::Length { head, .. } | State::Chunked { head, .. } => head,
            _ => 0,
        };
        let (bytes, body) = self.buffer.split_at_mut(size);
        let mut headers = Headers::new();
        match head::parse(bytes, HTTP_HEADERS_MAX, &mut headers) {
            Ok(head) => {
                self.state = State::Delivered;
                RequestEvent::Request(request(head, headers, body))
            }
            Err(error) => {
                debug_assert!(false, "parsed before: {error}");
                self.state = State::Failed;
                RequestEvent::Bad(error)
            }
        }
    }

    /// The state after a head of `size` bytes.
    fn state_after(
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

    /// Returns the head in the buffer.
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

    /// What each state requires of the buffer. Checked at the beginning of a call, because at its
    /// end the event borrows the reader.
    fn invariants(&self) {
        let held = self.buffer.len();
        debug_assert!(match self.state {
            State::Idle { .. } | State::Failed => self.buffer.capacity() == 0,
            State::Head { .. } | State::Offered { .. } => held > 0,
            State::Length { head, total } => head <= held && held < total,
            State::Chunked { head, .. } => head > 0 && head <= held,
            State::Delivered => held > 0,
        });
    }

    fn fail(&mut self, taken: usize, error: Error) -> (usize, RequestEvent<'_>) {
        self.buffer = Vec::new();
        self.state = State::Failed;
        (taken, RequestEvent::Bad(error))
    }
}

/// The state in which a body is gathered after a head of `size` bytes.
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
        path_len: memchr::memchr(b'?', head.target.as_bytes()).unwrap_or(head.target.len()),
    }
}

/// The error of a head above its limit: because of the request line, or of the fields.
fn too_large(lines: Lines) -> Error {
    if lines.any { Error::HeadTooLarge } else { Error::TargetTooLong }
}

/// Bytes of a blank line.
const BLANK: usize = 2;
/// Blank lines that are skipped before a request line (RFC 9112 section 2.2 asks for one).
const MAX_BLANKS: u8 = 2;

#[cfg(test)]
mod tests;
