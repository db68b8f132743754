//! Any bytes as compressed messages: decompression ends, is bounded, and does not affect the next
//! message.

use super::Script;
use polycast::ws::deflate::{InflateError, Inflater};

/// Octets by which output grows beyond its limit at most.
const BLOCK: usize = 16 * 1024;

pub(crate) fn run(data: &[u8]) {
    let mut script = Script(data);
    let Some(flags) = script.byte() else { return };
    let keep = flags & 1 == 1;
    let max = [0, 1, 100, 1000, 5000, 20_000, 40_000, 300_000][usize::from(flags >> 1) % 8];
    let mut inflater = Inflater::new(keep);
    let mut messages: Vec<Vec<u8>> = Vec::new();
    let mut out = Vec::new();
    while let Some(len) = script.byte() {
        // The last message is all that is left.
        let len = if len >= 224 { usize::MAX } else { len.into() };
        let message = script.take(len);
        let had = out.capacity();
        let result = inflater.inflate(message, max, &mut out);
        let room = out.capacity();
        assert!(room <= had.max(max + BLOCK), "{room} bytes for at most {max}");
        assert!(result != Ok(()) || out.len() <= max);
        messages.push(message.to_vec());
        let before = if keep { messages.as_slice() } else { std::slice::from_ref(&messages[0]) };
        let before = &before[..if keep { messages.len() - 1 } else { 0 }];
        // However much room there is, and with a compressor of the same past.
        assert_eq!(again(keep, before, message, max), (result, out.clone()), "again");
        if result == Ok(()) {
            let len = out.len();
            assert_eq!(again(keep, before, message, len).0, Ok(()), "exactly the limit");
            if len > 0 {
                let less = again(keep, before, message, len - 1).0;
                assert_eq!(less, Err(InflateError::TooBig), "one less than the limit");
            }
        }
        // The connection ends with a violation; so does what a kept window means.
        if keep && result != Ok(()) {
            return;
        }
        if messages.len() == 8 {
            return;
        }
    }
}

/// `message` after `before`, with a new inflater and a new, empty buffer.
fn again(
    keep: bool,
    before: &[Vec<u8>],
    message: &[u8],
    max: usize,
) -> (Result<(), InflateError>, Vec<u8>) {
    let mut inflater = Inflater::new(keep);
    for message in before {
        assert_eq!(inflater.inflate(message, usize::MAX / 2, &mut Vec::new()), Ok(()), "before");
    }
    let mut out = Vec::new();
    let result = inflater.inflate(message, max, &mut out);
    (result, out)
}
