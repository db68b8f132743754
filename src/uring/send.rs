//! Outgoing batches: segments that the kernel may read until their send has completed.

use crate::limits::FRAMES_PER_SEND;
use crate::mem::Segment;
use io_uring::squeue::Entry;
use io_uring::{opcode, types};

/// One batch in flight. It is not moved in memory until the completion.
pub(super) struct Outgoing {
    segments: Vec<Segment>,
    vectors: Vec<libc::iovec>,
    message: libc::msghdr,
    /// The number of bytes of the batch that were sent.
    sent: usize,
    total: usize,
}

impl Outgoing {
    pub(super) fn new() -> Box<Outgoing> {
        // SAFETY: all-zero is a valid msghdr: null pointers and zero lengths.
        let message = unsafe { std::mem::zeroed() };
        Box::new(Outgoing { segments: Vec::new(), vectors: Vec::new(), message, sent: 0, total: 0 })
    }

    pub(super) fn load(&mut self, segments: Vec<Segment>) {
        debug_assert!((1..=FRAMES_PER_SEND).contains(&segments.len()));
        self.total = segments.iter().map(|segment| segment.len()).sum();
        self.segments = segments;
        self.sent = 0;
    }

    /// The operation that sends the rest of the batch.
    pub(super) fn entry(&mut self, file: types::Fixed) -> Entry {
        let mut skip = self.sent;
        self.vectors.clear();
        for segment in &self.segments {
            if skip >= segment.len() {
                skip -= segment.len();
                continue;
            }
            let rest = &segment[skip..];
            skip = 0;
            self.vectors.push(libc::iovec {
                iov_base: rest.as_ptr().cast_mut().cast(),
                iov_len: rest.len(),
            });
        }
        if let [one] = self.vectors[..] {
            let len = u32::try_from(one.iov_len).unwrap_or(u32::MAX);
            let send = opcode::Send::new(file, one.iov_base.cast(), len);
            return send.flags(libc::MSG_NOSIGNAL).build();
        }
        self.message.msg_iov = self.vectors.as_mut_ptr();
        self.message.msg_iovlen = self.vectors.len();
        opcode::SendMsg::new(file, &raw const self.message).flags(libc::MSG_NOSIGNAL as u32).build()
    }

    /// Counts `n` sent bytes. Returns whether the whole batch is sent.
    pub(super) fn advance(&mut self, n: usize) -> bool {
        self.sent += n;
        debug_assert!(self.sent <= self.total);
        self.sent >= self.total
    }

    pub(super) fn unload(&mut self) -> Vec<Segment> {
        let mut segments = std::mem::take(&mut self.segments);
        segments.clear();
        segments
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::{Frozen, Handle};

    fn rest(outgoing: &mut Outgoing) -> Vec<u8> {
        let _ = outgoing.entry(types::Fixed(0));
        let mut bytes = Vec::new();
        for vector in &outgoing.vectors {
            let start = vector.iov_base.cast::<u8>().cast_const();
            // SAFETY: the vectors point into the segments that `outgoing` owns.
            bytes.extend_from_slice(unsafe { std::slice::from_raw_parts(start, vector.iov_len) });
        }
        bytes
    }

    #[test]
    fn send_continues_after_a_short_send_at_every_byte() {
        let whole = b"abcdefgh";
        for cut in 0..whole.len() {
            let mut outgoing = Outgoing::new();
            let shared = Segment::Shared(Handle::new(Frozen::new(b"cde")));
            outgoing.load(vec![
                Segment::Own(b"ab".to_vec()),
                shared,
                Segment::Own(b"fgh".to_vec()),
            ]);
            assert_eq!(rest(&mut outgoing), whole);
            assert!(!outgoing.advance(cut));
            assert_eq!(rest(&mut outgoing), whole[cut..]);
            assert!(outgoing.advance(whole.len() - cut));
            assert!(outgoing.unload().is_empty());
        }
    }
}
