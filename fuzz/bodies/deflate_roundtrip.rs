//! Compressed messages are decompressed to the same messages, within the negotiated window.

use super::Script;
use flate2::{Decompress, FlushDecompress, Status};
use polycast::ws::deflate::{Deflater, Inflater};

/// The maximum bytes of all messages together; more would find nothing new.
const TOTAL: usize = 60_000;
const MESSAGES: usize = 24;

pub(crate) fn run(data: &[u8]) {
    let mut script = Script(data);
    let Some(flags) = script.byte() else { return };
    let bits = 9 + flags % 7;
    let keep = flags & 0x80 != 0;
    let (mut deflater, mut inflater) = (Deflater::new(bits, keep), Inflater::new(keep));
    let mut narrow = Decompress::new_with_window_bits(false, bits);
    let mut back = Vec::new();
    let mut total = 0;
    for _ in 0..MESSAGES {
        let Some(op) = script.byte() else { return };
        let message = message(op, &mut script);
        total += message.len();
        if total > TOTAL {
            return;
        }
        // In buffers of all sizes: a flush that just fits is not finished.
        let room = usize::from(script.byte().unwrap_or(0)) * 3;
        let mut wire = Vec::with_capacity(room);
        wire.extend_from_slice(&[0xee; 2][..room.min(2)]);
        let start = wire.len();
        assert_eq!(deflater.deflate(&message, &mut wire), Some(()));
        assert!(wire[..start].iter().all(|it| *it == 0xee), "what was there stays");
        let wire = &wire[start..];
        assert_eq!(inflater.inflate(wire, message.len(), &mut back), Ok(()));
        assert!(back == message, "{bits} {keep}");
        if !keep {
            narrow.reset(false);
        }
        assert!(through(&mut narrow, wire) == message, "with a window of {bits} bits");
    }
}

/// A message as the script says: its own octets, long runs, or noise of a seed.
fn message(op: u8, script: &mut Script<'_>) -> Vec<u8> {
    match op >> 6 {
        0 => script.take(op.into()).to_vec(),
        1 => script.take(usize::from(op) * 64).to_vec(),
        2 => {
            let times = usize::from(op & 63) * 37;
            let len = usize::from(script.byte().unwrap_or(0));
            let part = script.take(len);
            part.repeat(times.min(TOTAL / part.len().max(1)))
        }
        _ => {
            let mut rng = fastrand::Rng::with_seed(script.byte().unwrap_or(0).into());
            let len = usize::from(op & 63) * usize::from(script.byte().unwrap_or(0)) * 2;
            // Few or many different octets: short references or none.
            let kinds = rng.u8(2..=255);
            std::iter::repeat_with(|| rng.u8(..kinds)).take(len).collect()
        }
    }
}

/// Decompresses with little room at a time, so that only the window itself can be referred to.
fn through(narrow: &mut Decompress, wire: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    let mut room = [0; 64];
    for mut input in [wire, &[0, 0, 0xff, 0xff]] {
        loop {
            let (taken, given) = (narrow.total_in(), narrow.total_out());
            let status = narrow.decompress(input, &mut room, FlushDecompress::Sync);
            assert!(matches!(status, Ok(Status::Ok | Status::BufError)), "{status:?}");
            let given = (narrow.total_out() - given) as usize;
            input = &input[(narrow.total_in() - taken) as usize..];
            message.extend_from_slice(&room[..given]);
            if given < room.len() && input.is_empty() {
                break;
            }
        }
    }
    message
}
