//! A batch of segments that is being sent, in one or several parts.

use super::Sent;
use crate::limits::FRAMES_PER_SEND;
use crate::mem::Segment;

/// One batch, and how much of it was sent.
#[derive(Default)]
pub struct SendBatch {
    segments: Vec<Segment>,
    /// The number of bytes of the batch that were sent, as far as the driver knows.
    sent: usize,
    total: usize,
}

impl SendBatch {
    /// Begins a batch of 1 to [`FRAMES_PER_SEND`] segments.
    pub fn load(&mut self, segments: Vec<Segment>) {
        debug_assert!((1..=FRAMES_PER_SEND).contains(&segments.len()));
        self.total = segments.iter().map(|segment| segment.len()).sum();
        self.segments = segments;
        self.sent = 0;
    }

    /// What is left to send.
    pub fn rest(&self) -> impl Iterator<Item = &[u8]> {
        let mut skip = self.sent;
        self.segments.iter().filter_map(move |segment| {
            let skipped = skip.min(segment.len());
            skip -= skipped;
            Some(&segment[skipped..]).filter(|rest| !rest.is_empty())
        })
    }

    /// Takes the outcome of a send of the rest: the number of sent bytes, or an errno. Frees the
    /// segments unless some of them are still to be sent.
    pub fn completed(&mut self, outcome: Result<usize, i32>) -> Sent {
        match outcome {
            Ok(n) => {
                self.sent += n;
                debug_assert!(self.sent <= self.total);
                match self.sent >= self.total {
                    true => Sent::Whole(n, self.unload()),
                    false => Sent::Short(n),
                }
            }
            Err(errno) => {
                self.unload();
                Sent::Failed(errno)
            }
        }
    }

    fn unload(&mut self) -> Vec<Segment> {
        let mut segments = std::mem::take(&mut self.segments);
        segments.clear();
        segments
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::{Frozen, Handle};

    #[test]
    fn batch_continues_after_a_short_send_at_every_byte() {
        let whole = b"abcdefgh";
        for cut in 0..whole.len() {
            let mut batch = SendBatch::default();
            let shared = Segment::Shared(Handle::new(Frozen::new(b"cde")));
            let ends = [b"ab", b"fgh".as_slice()].map(|end| Segment::Own(end.to_vec()));
            let [first, last] = ends;
            batch.load(vec![first, shared, last]);
            assert_eq!(batch.rest().flatten().copied().collect::<Vec<_>>(), whole);
            assert!(matches!(batch.completed(Ok(cut)), Sent::Short(n) if n == cut));
            assert_eq!(batch.rest().flatten().copied().collect::<Vec<_>>(), whole[cut..]);
            assert!(batch.rest().all(|rest| !rest.is_empty()));
            let last = batch.completed(Ok(whole.len() - cut));
            assert!(
                matches!(last, Sent::Whole(n, list) if n == whole.len() - cut && list.is_empty())
            );
            assert_eq!(batch.rest().count(), 0);
        }
    }

    #[test]
    fn batch_is_freed_when_its_send_fails() {
        let mut batch = SendBatch::default();
        batch.load(vec![Segment::Own(b"ab".to_vec())]);
        assert!(matches!(batch.completed(Ok(1)), Sent::Short(1)));
        assert!(matches!(batch.completed(Err(32)), Sent::Failed(32)));
        assert_eq!(batch.rest().count(), 0);
    }
}
