//! One connection's write queue: whole frames in order, bounded, with at most one batch at the
//! kernel's.
//!
//! Two amounts are counted apart. A *broadcast* byte counts against the bound that makes a
//! consumer slow; a *reply* byte stops us from reading further requests. A peer that asks for much
//! and reads slowly thus slows itself down, and one that is sent much and reads slowly is given up.
//!
//! A frame of a broadcast counts with [`SEGMENT_BYTES`] more than its own: many small frames
//! hold more memory than their bytes.

use crate::limits::FRAMES_PER_SEND;
use crate::mem::{Handle, Segment};
use std::collections::VecDeque;

/// A queue at its bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueFull;

/// Replies longer than this get a segment of their own instead of being added to the last one.
const JOIN_BYTES: usize = 16 * 1024;

/// In what replies are counted that others are given, too, in bytes.
const LENT_UNIT: usize = 64 * 1024;
/// What a frame of a broadcast counts for, beside its bytes: its place in the queue and its
/// share of what the frame itself holds.
pub(super) const SEGMENT_BYTES: usize = 64;

/// What a segment counts for.
fn weight(segment: &Segment) -> u32 {
    match segment {
        Segment::Own(_) | Segment::Lent(_) => segment.len() as u32,
        Segment::Shared(_) | Segment::Piece(_) => (segment.len() + SEGMENT_BYTES) as u32,
    }
}

fn is_broadcast(segment: &Segment) -> bool {
    matches!(segment, Segment::Shared(_) | Segment::Piece(_))
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct WriteQueue {
    segments: VecDeque<Segment>,
    /// What is in `segments` and at the kernel's. The configuration's bounds keep them below 4 GiB.
    replies: u32,
    broadcasts: u32,
    /// Of the replies, bytes that others are given, too, since the queue was last empty, in whole
    /// [`LENT_UNIT`]s: what is less is counted as this peer's own.
    lent: u16,
    /// Bytes at the kernel's.
    sending_replies: u32,
    sending_broadcasts: u32,
    sending: bool,
    /// The last batch has ended in the middle of a message.
    mid_message: bool,
    /// When the queue began to wait, or last got bytes off: the low bits, which last for weeks.
    progress_ms: u32,
}

impl WriteQueue {
    /// Adds a broadcast frame, unless more than `bound` bytes of such would wait then.
    pub fn push(&mut self, frame: &Handle, bound: usize, now_ms: u64) -> Result<(), QueueFull> {
        if !self.has_room(frame.len(), bound) {
            return Err(QueueFull);
        }
        self.waits(now_ms);
        self.append(Segment::Shared(frame.clone()));
        Ok(())
    }

    fn append(&mut self, segment: Segment) {
        match is_broadcast(&segment) {
            true => self.broadcasts += weight(&segment),
            false => self.replies += weight(&segment),
        }
        self.segments.push_back(segment);
    }

    /// Adds a reply that others are given, too.
    pub fn push_reply(&mut self, frame: &Handle, now_ms: u64) {
        self.waits(now_ms);
        let units = u16::try_from(frame.len() / LENT_UNIT).unwrap_or(u16::MAX);
        self.lent = self.lent.saturating_add(units);
        self.append(Segment::Lent(frame.clone()));
    }

    /// Moves the pieces of a broadcast message here, or of several: all of them or, if more than
    /// `bound` bytes would wait, none. `frames` is empty then.
    pub fn push_all(
        &mut self,
        frames: &mut Vec<Handle>,
        bound: usize,
        now_ms: u64,
    ) -> Result<(), QueueFull> {
        // The pieces behind the first one count with what they hold beside their bytes, too.
        let pieces = frames.len().saturating_sub(1) * SEGMENT_BYTES;
        let bytes: usize = pieces + frames.iter().map(|frame| frame.len()).sum::<usize>();
        if bytes > 0 && !self.has_room(bytes, bound) {
            frames.clear();
            return Err(QueueFull);
        }
        let Some(last) = frames.pop() else { return Ok(()) };
        self.waits(now_ms);
        for frame in frames.drain(..) {
            self.append(Segment::Piece(frame));
        }
        self.append(Segment::Shared(last));
        Ok(())
    }

    /// Takes the tail out for replies to be added to; give it back with [`WriteQueue::close_tail`].
    pub fn open_tail(&mut self) -> Vec<u8> {
        match self.segments.back() {
            Some(Segment::Own(bytes)) if bytes.len() < JOIN_BYTES => {}
            _ => return Vec::new(),
        }
        match self.segments.pop_back() {
            Some(Segment::Own(bytes)) => {
                self.replies -= bytes.len() as u32;
                bytes
            }
            _ => Vec::new(),
        }
    }

    /// Puts the tail back.
    pub fn close_tail(&mut self, bytes: Vec<u8>, now_ms: u64) {
        if bytes.is_empty() {
            return;
        }
        self.waits(now_ms);
        self.append(Segment::Own(bytes));
    }

    /// Notes that something waits from now on, unless something did before.
    pub fn waits(&mut self, now_ms: u64) {
        if self.is_empty() {
            self.progress_ms = now_ms as u32;
        }
    }

    /// The next batch to send, unless one is at the kernel's or nothing waits.
    pub fn take_batch(&mut self) -> Option<Vec<Segment>> {
        if self.sending || self.segments.is_empty() {
            return None;
        }
        // Neither moves what stays: a list that begins at its front is a vector as it is.
        let batch: Vec<Segment> = if self.segments.len() <= FRAMES_PER_SEND {
            std::mem::take(&mut self.segments).into()
        } else {
            self.segments.drain(..FRAMES_PER_SEND).collect()
        };
        self.sending = true;
        for segment in &batch {
            match is_broadcast(segment) {
                true => self.sending_broadcasts += weight(segment),
                false => self.sending_replies += weight(segment),
            }
        }
        self.mid_message = matches!(batch.last(), Some(Segment::Piece(_)));
        Some(batch)
    }

    /// Notes that something is at the kernel's that was made here, such as TLS's own records.
    pub fn sends(&mut self) {
        self.sending = true;
    }

    /// Whether a batch is at the kernel's.
    pub fn is_sending(&self) -> bool {
        self.sending
    }

    /// Whether something waits that has not been taken.
    pub fn has_segments(&self) -> bool {
        !self.segments.is_empty()
    }

    /// Throws the batch away that was just taken.
    pub fn forget_batch(&mut self) {
        self.settled(Vec::new(), self.progress_ms.into());
    }

    /// Notes that some bytes of the batch have left.
    pub fn progressed(&mut self, now_ms: u64) {
        self.progress_ms = now_ms as u32;
    }

    /// Notes that the batch is through. `spare` is its emptied list.
    pub fn settled(&mut self, spare: Vec<Segment>, now_ms: u64) {
        self.replies -= self.sending_replies;
        self.broadcasts -= self.sending_broadcasts;
        (self.sending_replies, self.sending_broadcasts) = (0, 0);
        self.sending = false;
        if self.replies == 0 {
            self.lent = 0;
        }
        self.progress_ms = now_ms as u32;
        if self.segments.is_empty() && spare.capacity() <= FRAMES_PER_SEND {
            // Kept only while the connection is busy: see `shrink`.
            self.segments = spare.into();
        }
    }

    /// Frees the memory of a queue in which nothing waits.
    pub fn shrink(&mut self) {
        if self.segments.is_empty() {
            self.segments = VecDeque::new();
        }
    }

    /// Whether a broadcast of `bytes` keeps to the bound. If none waits, one of as many bytes does.
    pub fn has_room(&self, bytes: usize, bound: usize) -> bool {
        let more = if self.broadcasts == 0 { bytes } else { bytes + SEGMENT_BYTES };
        self.broadcasts as usize + more <= bound
    }

    /// Throws away the first broadcast of which nothing has been handed to the kernel, and all
    /// behind it: what is compressed with a kept window cannot be read when something before it is
    /// missing. Replies before it, among them perhaps the 101, stay.
    pub fn drop_from_broadcast(&mut self) {
        let is_last = |segment: &Segment| matches!(segment, Segment::Shared(_));
        let rest = match self.mid_message {
            true => self.segments.iter().position(is_last).map_or(0, |at| at + 1),
            false => 0,
        };
        let end = self.segments.iter().skip(rest).position(is_broadcast);
        self.segments.truncate(end.map_or(self.segments.len(), |end| rest + end));
        self.segments.shrink_to_fit();
        let left = |broadcast: bool| {
            let kind = self.segments.iter().filter(|segment| is_broadcast(segment) == broadcast);
            kind.map(weight).sum::<u32>()
        };
        let (broadcasts, replies) = (left(true), left(false));
        self.broadcasts = self.sending_broadcasts + broadcasts;
        self.replies = self.sending_replies + replies;
    }

    /// Whether nothing waits, here or at the kernel's.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty() && !self.sending
    }

    /// What waits, here and at the kernel's, in bytes; see [`SEGMENT_BYTES`].
    pub fn bytes(&self) -> usize {
        self.replies as usize + self.broadcasts as usize
    }

    /// Bytes of broadcasts that wait.
    pub fn broadcasts(&self) -> usize {
        self.broadcasts as usize
    }

    /// Bytes of heap that this queue alone holds: replies that nobody else is given, and its list.
    pub fn held_bytes(&self) -> usize {
        let own = self.replies().saturating_sub(usize::from(self.lent) * LENT_UNIT);
        own + self.segments.capacity() * size_of::<Segment>()
    }

    /// Bytes of replies that wait.
    pub fn replies(&self) -> usize {
        self.replies as usize
    }

    /// Whether bytes wait and none has left for `ms`.
    pub fn is_stuck(&self, ms: u64, now_ms: u64) -> bool {
        !self.is_empty() && u64::from((now_ms as u32).wrapping_sub(self.progress_ms)) >= ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::Frozen;

    fn frame(len: usize) -> Handle {
        Handle::new(Frozen::new(&vec![b'f'; len]))
    }

    #[test]
    fn queue_bounds_broadcasts_apart_from_replies() {
        let mut queue = WriteQueue::default();
        queue.close_tail(vec![0; 100], 0);
        let bound = 10 + 2 * SEGMENT_BYTES;
        assert_eq!(queue.push(&frame(6), bound, 0), Ok(()));
        assert_eq!(queue.push(&frame(5), bound, 0), Err(QueueFull));
        assert_eq!(queue.push(&frame(4), bound, 0), Ok(()));
        assert_eq!((queue.replies(), queue.bytes()), (100, 100 + bound));
        let batch = queue.take_batch().expect("a batch");
        assert_eq!((batch.len(), queue.bytes()), (3, 100 + bound));
        assert!(queue.take_batch().is_none(), "one batch at a time");
        assert_eq!(queue.push(&frame(1), bound, 0), Err(QueueFull), "unsent bytes count");
        queue.settled(Vec::new(), 0);
        assert_eq!(queue.push(&frame(11), 10, 0), Err(QueueFull));
        assert_eq!(queue.push(&frame(10), 10, 0), Ok(()), "the first has the bound for its bytes");
        assert_eq!(queue.replies(), 0);
    }

    #[test]
    fn queue_counts_a_lent_frame_as_a_reply() {
        let mut queue = WriteQueue::default();
        queue.close_tail(b"ab".to_vec(), 0);
        queue.push_reply(&frame(6), 0);
        assert_eq!(queue.replies(), 8);
        assert!(queue.has_room(10, 10));
        assert_eq!(queue.open_tail(), b"", "nothing is added to it");
        queue.drop_from_broadcast();
        assert_eq!(queue.take_batch().map(|batch| batch.len()), Some(2));
        assert_eq!(queue.replies(), 8);
        queue.settled(Vec::new(), 0);
        assert_eq!(queue.replies(), 0);
    }

    #[test]
    fn queue_takes_frames_of_a_message_all_or_none() {
        let mut queue = WriteQueue::default();
        let bound = 10 + SEGMENT_BYTES;
        let mut frames = vec![frame(6), frame(5)];
        assert_eq!(queue.push_all(&mut frames, bound, 0), Err(QueueFull));
        assert!(queue.is_empty() && frames.is_empty());
        let mut frames = vec![frame(6), frame(4)];
        assert_eq!(queue.push_all(&mut frames, bound, 0), Ok(()));
        assert_eq!(queue.push_all(&mut Vec::new(), 1, 0), Ok(()), "nothing always fits");
        assert_eq!(queue.take_batch().map(|batch| batch.len()), Some(2));
    }

    #[test]
    fn queue_joins_replies_without_overtaking_a_broadcast() {
        let mut queue = WriteQueue::default();
        for part in [b"a", b"b"] {
            let mut tail = queue.open_tail();
            tail.extend_from_slice(part);
            queue.close_tail(tail, 0);
        }
        assert_eq!(queue.push(&frame(1), 10, 0), Ok(()));
        let mut tail = queue.open_tail();
        tail.push(b'c');
        queue.close_tail(tail, 0);
        let batch = queue.take_batch().expect("a batch");
        let bytes: Vec<u8> = batch.iter().flat_map(|segment| segment.to_vec()).collect();
        assert_eq!(bytes, b"abfc");
        assert_eq!(queue.replies(), 3);
    }

    #[test]
    fn queue_drops_unsent_segments_from_the_first_broadcast() {
        let mut queue = WriteQueue::default();
        let bound = 10 + 2 * SEGMENT_BYTES;
        assert_eq!(queue.push(&frame(4), bound, 0), Ok(()));
        assert_eq!(queue.take_batch().map(|batch| batch.len()), Some(1));
        queue.close_tail(b"101".to_vec(), 0);
        assert_eq!(queue.push(&frame(6), bound, 0), Ok(()));
        queue.close_tail(b"pong".to_vec(), 0);
        queue.drop_from_broadcast();
        assert_eq!(queue.replies(), 3);
        assert!(!queue.has_room(7, bound), "what the kernel has still counts");
        assert!(queue.has_room(6, bound));
        queue.settled(Vec::new(), 0);
        let batch = queue.take_batch().expect("a batch");
        let bytes: Vec<u8> = batch.iter().flat_map(|segment| segment.to_vec()).collect();
        assert_eq!(bytes, b"101");
    }

    #[test]
    fn queue_keeps_the_rest_of_a_message_in_progress() {
        let mut queue = WriteQueue::default();
        let mut pieces = vec![frame(1); FRAMES_PER_SEND + 2];
        assert_eq!(queue.push_all(&mut pieces, 10_000, 0), Ok(()));
        assert_eq!(queue.push_all(&mut vec![frame(5), frame(5)], 10_000, 0), Ok(()));
        assert_eq!(queue.take_batch().map(|batch| batch.len()), Some(FRAMES_PER_SEND));
        queue.drop_from_broadcast();
        queue.settled(Vec::new(), 0);
        let left = 1000 - 2 - 3 * SEGMENT_BYTES;
        assert!(!queue.has_room(left + 1, 1000) && queue.has_room(left, 1000));
        assert_eq!(queue.take_batch().map(|batch| batch.len()), Some(2), "the rest of the first");
        queue.settled(Vec::new(), 0);
        assert!(queue.is_empty() && queue.has_room(1000, 1000));
        // One that has left whole leaves nothing to be finished.
        assert_eq!(queue.push_all(&mut vec![frame(1), frame(1)], 1000, 0), Ok(()));
        assert_eq!(queue.take_batch().map(|batch| batch.len()), Some(2));
        assert_eq!(queue.push_all(&mut vec![frame(1), frame(1)], 1000, 0), Ok(()));
        queue.drop_from_broadcast();
        queue.settled(Vec::new(), 0);
        assert!(queue.is_empty());
    }

    #[test]
    fn queue_batch_has_at_most_the_frames_of_one_send() {
        let mut queue = WriteQueue::default();
        for _ in 0..FRAMES_PER_SEND + 1 {
            assert_eq!(queue.push(&frame(1), 10_000, 0), Ok(()));
        }
        assert_eq!(queue.take_batch().map(|batch| batch.len()), Some(FRAMES_PER_SEND));
        queue.settled(Vec::new(), 0);
        assert_eq!(queue.take_batch().map(|batch| batch.len()), Some(1));
        queue.settled(Vec::new(), 0);
        assert!(queue.take_batch().is_none());
        assert!(queue.is_empty());
    }

    #[test]
    fn queue_of_small_frames_is_bounded_by_what_they_hold() {
        let (mut queue, bound) = (WriteQueue::default(), 1 << 20);
        let mut frames = 0;
        while queue.push(&frame(1), bound, 0) == Ok(()) {
            frames += 1;
        }
        assert_eq!(frames, bound / (1 + SEGMENT_BYTES));
    }

    #[test]
    fn queue_hands_frames_over_in_order_however_long_it_is() {
        let mut queue = WriteQueue::default();
        let (mut pushed, mut taken) = (0_u32, 0);
        for round in 0..200 {
            for _ in 0..round {
                let frame = Handle::new(Frozen::new(&pushed.to_be_bytes()));
                assert_eq!(queue.push(&frame, 1 << 30, 0), Ok(()));
                pushed += 1;
            }
            let Some(mut batch) = queue.take_batch() else { continue };
            for segment in &batch {
                assert_eq!(**segment, u32::to_be_bytes(taken));
                taken += 1;
            }
            batch.clear();
            queue.settled(batch, 0);
        }
        assert!(taken > 10_000 && pushed - taken > 5000, "{taken} of {pushed}");
        let left = (pushed - taken) as usize * (4 + SEGMENT_BYTES);
        assert_eq!(queue.bytes(), left);
    }

    #[test]
    fn queue_is_stuck_without_progress_for_the_time() {
        let mut queue = WriteQueue::default();
        assert!(!queue.is_stuck(0, 100));
        assert_eq!(queue.push(&frame(1), 10, 1000), Ok(()));
        assert!(!queue.is_stuck(500, 1499));
        assert!(queue.is_stuck(500, 1500));
        let batch = queue.take_batch();
        queue.progressed(1400);
        assert!(!queue.is_stuck(500, 1899));
        assert!(queue.is_stuck(500, 1900));
        queue.settled(batch.unwrap_or_default(), 1900);
    }
}
