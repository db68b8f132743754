//! The chunked transfer coding (RFC 9112 section 7.1). The result does not depend on how the input
//! is cut into pieces.
//!
//! Extensions and trailers are skipped; together they may have as many bytes as a head. A line must
//! end with CR LF: where two programs delimit a chunk differently, a request can be smuggled.

use super::framing::BodyChunk;
use super::{Error, HeadLimits, is_token_byte};

/// The decoder of one body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunked {
    at: ChunkState,
    /// While the size is read: its value so far. While data is read: bytes still to come.
    size: usize,
    /// Digits of the size so far.
    digits: u8,
    /// Bytes of data announced so far, this chunk's included.
    total: usize,
    /// Bytes of extensions and trailers so far.
    overhead: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChunkState {
    Size,
    /// Blanks after the size: an extension must follow.
    Blank,
    Extension,
    SizeLineFeed,
    Data,
    DataReturn,
    DataLineFeed,
    /// The first byte of a trailer field or of the blank line.
    Trailer,
    TrailerName,
    TrailerValue,
    TrailerLineFeed,
    LastLineFeed,
    Done,
}

impl Chunked {
    pub(super) fn new() -> Chunked {
        Chunked { at: ChunkState::Size, size: 0, digits: 0, total: 0, overhead: 0 }
    }

    /// Decodes `input` and appends the data to `out`. Returns the number of consumed bytes, which
    /// is all unless the body ended, and whether it ended.
    pub(super) fn feed(
        &mut self,
        limits: &HeadLimits,
        input: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(usize, bool), Error> {
        let mut pos = 0;
        while pos < input.len() && self.at != ChunkState::Done {
            if self.at == ChunkState::Data {
                let take = self.size.min(input.len() - pos);
                out.extend_from_slice(&input[pos..pos + take]);
                pos += take;
                self.size -= take;
                if self.size == 0 {
                    self.at = ChunkState::DataReturn;
                }
            } else {
                self.at = self.step(limits, input[pos])?;
                pos += 1;
            }
        }
        Ok((pos, self.at == ChunkState::Done))
    }

    /// Consumes `input` up to data; [`Chunked::took`] then consumes data. Framing bytes are bounded
    /// for each chunk, because the number of chunks is not bounded.
    pub(super) fn look(&mut self, limits: &HeadLimits, input: &[u8]) -> Result<BodyChunk, Error> {
        let mut from = 0;
        while from < input.len() && !matches!(self.at, ChunkState::Data | ChunkState::Done) {
            self.at = self.step(limits, input[from])?;
            from += 1;
        }
        let data = if self.at == ChunkState::Data { self.size.min(input.len() - from) } else { 0 };
        Ok(BodyChunk { from, to: from + data })
    }

    /// Notes that `bytes` bytes of the data were consumed.
    pub(super) fn took(&mut self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        self.overhead = 0;
        self.total = 0;
        self.size = self.size.saturating_sub(bytes);
        if self.at == ChunkState::Data && self.size == 0 {
            self.at = ChunkState::DataReturn;
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.at == ChunkState::Done
    }

    /// The state after one framing byte.
    fn step(&mut self, limits: &HeadLimits, byte: u8) -> Result<ChunkState, Error> {
        match (self.at, byte) {
            (ChunkState::Size, _) => self.size(limits, byte),
            (ChunkState::Blank, b' ' | b'\t') => self.overhead(limits, ChunkState::Blank),
            (ChunkState::Blank, b';') => self.overhead(limits, ChunkState::Extension),
            (ChunkState::Extension, b'\r') => Ok(ChunkState::SizeLineFeed),
            (ChunkState::Extension, _) if is_text(byte) => {
                self.overhead(limits, ChunkState::Extension)
            }
            (ChunkState::SizeLineFeed, b'\n') => Ok(self.data()),
            (ChunkState::DataReturn, b'\r') => Ok(ChunkState::DataLineFeed),
            (ChunkState::DataLineFeed, b'\n') => Ok(ChunkState::Size),
            (ChunkState::Trailer, b'\r') => Ok(ChunkState::LastLineFeed),
            (ChunkState::TrailerName, b':') => self.overhead(limits, ChunkState::TrailerValue),
            (ChunkState::Trailer | ChunkState::TrailerName, _) if is_token_byte(byte) => {
                self.overhead(limits, ChunkState::TrailerName)
            }
            (ChunkState::TrailerValue, b'\r') => self.overhead(limits, ChunkState::TrailerLineFeed),
            (ChunkState::TrailerValue, _) if is_text(byte) => {
                self.overhead(limits, ChunkState::TrailerValue)
            }
            (ChunkState::TrailerLineFeed, b'\n') => self.overhead(limits, ChunkState::Trailer),
            (ChunkState::LastLineFeed, b'\n') => Ok(ChunkState::Done),
            _ => Err(Error::Chunk),
        }
    }

    /// The state after `byte`, which is at a position where a digit of the size may be.
    fn size(&mut self, limits: &HeadLimits, byte: u8) -> Result<ChunkState, Error> {
        let Some(digit) = char::from(byte).to_digit(16) else {
            return match byte {
                _ if self.digits == 0 => Err(Error::Chunk),
                b'\r' => self.announce(limits, ChunkState::SizeLineFeed),
                b';' => self.announce(limits, ChunkState::Extension),
                b' ' | b'\t' => self.announce(limits, ChunkState::Blank),
                _ => Err(Error::Chunk),
            };
        };
        // 16 digits can express every size; more would be leading zeros or an overflow.
        if self.digits == 16 {
            return Err(Error::Chunk);
        }
        self.digits += 1;
        let shifted = self.size.checked_mul(16).ok_or(Error::Chunk)?;
        self.size = shifted + digit as usize;
        Ok(ChunkState::Size)
    }

    /// The size is known: checks that the body does not exceed its limit.
    fn announce(&mut self, limits: &HeadLimits, next: ChunkState) -> Result<ChunkState, Error> {
        let left = limits.body_bytes.checked_sub(self.total).ok_or(Error::BodyTooLarge)?;
        if self.size > left {
            return Err(Error::BodyTooLarge);
        }
        self.total += self.size;
        Ok(next)
    }

    /// The state after the size line: data, or the trailers after the last chunk.
    fn data(&mut self) -> ChunkState {
        self.digits = 0;
        if self.size == 0 { ChunkState::Trailer } else { ChunkState::Data }
    }

    /// Counts one skipped byte.
    fn overhead(&mut self, limits: &HeadLimits, next: ChunkState) -> Result<ChunkState, Error> {
        self.overhead += 1;
        if self.overhead > limits.head_bytes { Err(Error::HeadTooLarge) } else { Ok(next) }
    }
}

/// Whether a field value or an extension may hold `byte` (RFC 9110 section 5.5).
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits { head_bytes: 32, head_fields: 64, body_bytes: 20 };

    /// Checks data and consumed bytes, whole and byte by byte.
    fn check(body: &str, want: Result<(&str, usize), Error>) {
        let body = body.as_bytes();
        for step in [1, 2, 3, body.len().max(1)] {
            let (mut chunked, mut out, mut taken) = (Chunked::new(), Vec::new(), 0);
            let mut got = Err(Error::Chunk);
            for piece in body.chunks(step) {
                got = chunked.feed(&LIMITS, piece, &mut out);
                match got {
                    Ok((n, false)) => {
                        assert_eq!(n, piece.len());
                        taken += n;
                    }
                    Ok((n, true)) => {
                        taken += n;
                        break;
                    }
                    Err(_) => break,
                }
            }
            let got = got.map(|(_, done)| {
                assert!(done, "{body:?} is a whole body");
                (String::from_utf8(out).unwrap(), taken)
            });
            let want = want.map(|(data, taken)| (data.to_owned(), taken));
            assert_eq!(got, want, "{:?} by {step}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn s7_1_chunks_extensions_and_trailers() {
        check("0\r\n\r\n", Ok(("", 5)));
        check("5\r\nhello\r\n0\r\n\r\nGET", Ok(("hello", 15)));
        check("1\r\na\r\n02\r\nbc\r\n000\r\n\r\n", Ok(("abc", 21)));
        check("A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", Ok(("01234567890123456789", 35)));
        check("1;a=b\r\nx\r\n0 \t;c\r\n\r\n", Ok(("x", 19)));
        check("1\r\nx\r\n0\r\nA: b\r\nC:\r\n\r\n", Ok(("x", 21)));
    }

    #[test]
    fn s7_1_malformed_chunks() {
        for body in [
            "\r\n",
            ";a\r\n",
            "g\r\n",
            "-1\r\n",
            "+1\r\n",
            "0x1\r\n",
            " 1\r\n",
            "1 \r\nx\r\n",
            "1 1\r\n",
            "1\nx\r\n",
            "1\rx",
            "1;a\nx",
            "1;a\0\r\n",
            "1\r\nxy\r\n",
            "1\r\nx\n0\r\n",
            "1\r\nx\r0",
            "0\r\n\n",
            "0\r\n: v\r\n",
            "0\r\nname\r\n",
            "0\r\nname : v\r\n",
            "0\r\n folded\r\n",
            "0\r\nA: b\n\r\n",
            "0\r\nA: \0\r\n",
            "00000000000000000\r\n",
            "10000000000000000\r\n",
        ] {
            check(body, Err(Error::Chunk));
        }
    }

    #[test]
    fn chunked_bounds_data_and_skipped_bytes() {
        let data = "0123456789";
        check(&format!("14\r\n{data}{data}\r\n0\r\n\r\n"), Ok((&data.repeat(2), 31)));
        check("15\r\n", Err(Error::BodyTooLarge));
        check("ffffffffffffffff\r\n", Err(Error::BodyTooLarge));
        check(&format!("a\r\n{data}\r\nb\r\n"), Err(Error::BodyTooLarge));
        // The `;` is not counted, the 32 bytes after it are.
        let long = "e".repeat(32);
        check(&format!("0;{long}\r\n\r\n"), Ok(("", 38)));
        check(&format!("0;{long}e\r\n\r\n"), Err(Error::HeadTooLarge));
        let value = "v".repeat(28);
        check(&format!("0\r\nA:{value}\r\n\r\n"), Ok(("", 37)));
        check(&format!("0\r\nA:{value}v\r\n\r\n"), Err(Error::HeadTooLarge));
    }
}
