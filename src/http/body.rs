//! A request body that is read in pieces as it arrives, without a buffer for the whole body.

use super::chunked::Chunked;
use super::framing::{BodyChunk, BodyFraming};
use super::{Error, HeadLimits};

/// The progress in one body, which may have any length.
#[derive(Clone, Copy, Debug)]
pub struct Body(State);

#[derive(Clone, Copy, Debug)]
enum State {
    /// Bytes still to come.
    Length(u64),
    Chunked(Chunked),
}

impl Body {
    /// The body of a request that has none, or whose body is not read in pieces.
    pub const EMPTY: Body = Body(State::Length(0));

    pub(super) fn new(framing: BodyFraming) -> Body {
        Body(match framing {
            BodyFraming::Length(length) => State::Length(length),
            BodyFraming::Chunked => State::Chunked(Chunked::new()),
        })
    }

    /// Finds the data at the front of `input`. If there is data, call [`Body::took`] with the
    /// number of bytes that were consumed, and look again after them. If there is none, all of
    /// `input` is consumed, unless the body has ended.
    ///
    /// # Errors
    /// The chunks are malformed, or one has more framing bytes than `head_bytes`.
    pub fn look(&mut self, head_bytes: usize, input: &[u8]) -> Result<BodyChunk, Error> {
        let limits = HeadLimits { head_bytes, body_bytes: usize::MAX, ..HeadLimits::default() };
        match &mut self.0 {
            State::Length(left) => {
                let to = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                Ok(BodyChunk { from: 0, to })
            }
            State::Chunked(chunks) => chunks.look(&limits, input),
        }
    }

    /// Notes that `bytes` bytes of the data were consumed.
    pub fn took(&mut self, bytes: usize) {
        match &mut self.0 {
            State::Length(left) => *left = left.saturating_sub(bytes as u64),
            State::Chunked(chunks) => chunks.took(bytes),
        }
    }

    /// Whether the whole body has arrived.
    pub fn has_ended(&self) -> bool {
        match &self.0 {
            State::Length(left) => *left == 0,
            State::Chunked(chunks) => chunks.has_ended(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks the data, consumed in steps of at most three bytes, and the input after the body.
    fn check(framing: BodyFraming, input: &str, want: Result<(&str, &str), Error>) {
        let input = input.as_bytes();
        for size in 1..=input.len() {
            let (mut body, mut data, mut rest) = (Body::new(framing), Vec::new(), Vec::new());
            let mut failed = None;
            for piece in input.chunks(size) {
                let mut at = 0;
                while at < piece.len() && !body.has_ended() && failed.is_none() {
                    match body.look(40, &piece[at..]) {
                        Ok(BodyChunk { from, to }) => {
                            let some = (to - from).min(3);
                            data.extend_from_slice(&piece[at + from..at + from + some]);
                            body.took(some);
                            at += from + some;
                        }
                        Err(error) => failed = Some(error),
                    }
                }
                rest.extend_from_slice(&piece[at..]);
            }
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let found = failed.map_or(Ok((text(&data), text(&rest))), Err);
            let want = want.map(|(data, rest)| (data.to_owned(), rest.to_owned()));
            assert_eq!(found, want, "by {size}");
            assert!(found.is_err() || body.has_ended());
        }
    }

    #[test]
    fn body_is_read_by_length_and_by_chunks() {
        check(BodyFraming::Length(5), "helloGET", Ok(("hello", "GET")));
        check(BodyFraming::Length(0), "GET", Ok(("", "GET")));
        check(BodyFraming::Chunked, "5\r\nhello\r\n1;a\r\n!\r\n0\r\nA: b\r\n\r\nGET", {
            Ok(("hello!", "GET"))
        });
        check(BodyFraming::Chunked, "5\r\nhello0\r\n", Err(Error::Chunk));
        check(BodyFraming::Chunked, "fffffffffffffffff\r\n", Err(Error::Chunk));
    }

    #[test]
    fn body_bounds_framing_bytes_for_each_chunk() {
        let chunk = |bytes: usize| format!("1;{}\r\nx\r\n", "e".repeat(bytes));
        let body = |bytes| format!("{}0\r\n\r\n", chunk(bytes).repeat(3));
        check(BodyFraming::Chunked, &body(40), Ok(("xxx", "")));
        check(BodyFraming::Chunked, &body(41), Err(Error::HeadTooLarge));
    }
}
