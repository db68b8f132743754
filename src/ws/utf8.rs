//! UTF-8, whole and as it arrives (RFC 6455 section 8.1, RFC 3629).

/// Whether `bytes` is UTF-8 from its first to its last octet.
pub fn valid(bytes: &[u8]) -> bool {
    short_ascii(bytes) || simdutf8::basic::from_utf8(bytes).is_ok()
}

/// Whether `bytes` is ASCII of 8 to 64 octets: the most frequent message, for which a call of a
/// vector routine costs more than this check.
#[inline]
fn short_ascii(bytes: &[u8]) -> bool {
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let Some(last) = bytes.last_chunk::<8>() else {
        return bytes.is_ascii();
    };
    if bytes.len() > 64 {
        return false;
    }
    let (words, _) = bytes.as_chunks::<8>();
    let all = words.iter().fold(u64::from_le_bytes(*last), |all, w| all | u64::from_le_bytes(*w));
    all & HIGH == 0
}

/// Checks text that arrives in pieces, cut anywhere, also inside a code point.
///
/// The validator keeps what the unfinished code point at the end of the last piece needs: `need`
/// more octets, of which the next must be in `low..=high`. `need <= 3`, and `need == 0` between
/// code points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validator {
    need: u8,
    low: u8,
    high: u8,
}

impl Validator {
    /// A validator at the start of a text.
    pub const fn new() -> Self {
        Validator { need: 0, low: 0x80, high: 0xbf }
    }

    /// Takes the next piece. Returns `false` if an octet in it is not valid at its position; then
    /// the text is invalid, whatever follows, and the validator must not be used again.
    #[must_use]
    pub fn feed(&mut self, piece: &[u8]) -> bool {
        let mut rest = piece;
        while self.need > 0 {
            let Some((&octet, after)) = rest.split_first() else {
                return true;
            };
            if !self.step(octet) {
                return false;
            }
            rest = after;
        }
        let (body, tail) = rest.split_at(rest.len() - unfinished(rest));
        valid(body) && tail.iter().all(|&octet| self.step(octet))
    }

    /// Whether the text may end here: no code point is unfinished.
    pub fn complete(&self) -> bool {
        self.need == 0
    }

    /// Checks one octet by the table of RFC 3629 section 4.
    fn step(&mut self, octet: u8) -> bool {
        if self.need > 0 {
            let fits = (self.low..=self.high).contains(&octet);
            *self = Validator { need: self.need - 1, ..Validator::new() };
            return fits;
        }
        let (need, low, high) = match octet {
            0x00..=0x7f => return true,
            0xc2..=0xdf => (1, 0x80, 0xbf),
            0xe0 => (2, 0xa0, 0xbf),
            0xed => (2, 0x80, 0x9f),
            0xe1..=0xef => (2, 0x80, 0xbf),
            0xf0 => (3, 0x90, 0xbf),
            0xf1..=0xf3 => (3, 0x80, 0xbf),
            0xf4 => (3, 0x80, 0x8f),
            _ => return false,
        };
        *self = Validator { need, low, high };
        true
    }
}

impl Default for Validator {
    fn default() -> Self {
        Validator::new()
    }
}

/// The number of octets at the end of `bytes` that begin a code point without ending it, judged by
/// its first octet: 0 to 3.
fn unfinished(bytes: &[u8]) -> usize {
    for (behind, octet) in bytes.iter().rev().take(3).enumerate() {
        let width = match octet {
            0x00..=0x7f => return 0,
            0x80..=0xbf => continue,
            0xc0..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xff => 4,
        };
        return if behind + 1 < width { behind + 1 } else { 0 };
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The standard library's verdict on the same octets, which more may follow.
    fn oracle(bytes: &[u8]) -> (bool, bool) {
        match std::str::from_utf8(bytes) {
            Ok(_) => (true, true),
            Err(e) => (e.error_len().is_none(), false),
        }
    }

    /// Feeds `bytes` in two pieces at every cut and octet by octet.
    fn check(bytes: &[u8]) {
        let (possible, complete) = oracle(bytes);
        assert_eq!(valid(bytes), complete, "{bytes:x?}");
        let mut single = Validator::new();
        let fed = bytes.iter().all(|&octet| single.feed(&[octet]));
        assert_eq!((fed, fed && single.complete()), (possible, complete), "{bytes:x?} by octets");
        for cut in 0..=bytes.len() {
            let mut two = Validator::new();
            let fed = two.feed(&bytes[..cut]) && two.feed(&bytes[cut..]);
            assert_eq!((fed, fed && two.complete()), (possible, complete), "{bytes:x?} at {cut}");
        }
    }

    #[test]
    fn utf8_agrees_with_the_standard_library_on_every_pair_of_octets() {
        for pair in 0..=u16::MAX {
            check(&pair.to_be_bytes());
        }
    }

    #[test]
    fn utf8_agrees_with_the_standard_library_on_every_edge_of_the_table() {
        let edges = [
            0x00, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1,
            0xec, 0xed, 0xee, 0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xff,
        ];
        for a in edges {
            for b in edges {
                for c in edges {
                    check(&[a, b, c]);
                    for d in [0x41, 0x80, 0xbf, 0xc2] {
                        check(&[a, b, c, d]);
                    }
                }
            }
        }
    }

    #[test]
    fn utf8_refuses_a_bad_octet_in_ascii_of_every_length() {
        for len in 1..200 {
            let good = vec![b'a'; len];
            assert!(valid(&good));
            for at in 0..len {
                let mut bad = good.clone();
                bad[at] = 0xff;
                assert!(!valid(&bad), "{len} octets, bad at {at}");
            }
        }
    }

    #[test]
    fn utf8_agrees_on_long_text_at_every_cut() {
        check("k\u{f6}\u{20ac}\u{1f600} plain ".repeat(9).as_bytes());
        check(&[&b"x".repeat(150)[..], b"\xf4\x90"].concat());
        check(&[&b"x".repeat(150)[..], b"\xed\xa0"].concat());
    }
}
