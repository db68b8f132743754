//! The write queue of one connection: whole frames in order, bounded in bytes, with at most one
//! batch in flight in the kernel.
//!
//! Two kinds of bytes are counted separately. *Broadcast* bytes count against the bound that makes
//! a peer a slow consumer; *reply* bytes pause reading from the peer. A peer that requests much and
//! reads slowly is thus slowed down, and a peer that receives much and reads slowly is handled as a
//! slow consumer.
//!
//! Each broadcast frame counts as its length plus 64 bytes, because many small frames hold
//! more memory than their bytes.

use crate::limits::FRAMES_PER_SEND;
use crate::mem::{Handle, Segment};
use std::collections::VecDeque;

/// The write queue is at its bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueFull;

/// The length of the last segment, in bytes, from which the next reply gets a segment of its own
/// instead of being appended.
const JOIN_BYTES: usize = 16 * 1024;

/// The unit in which shared reply bytes are counted.
const LENT_UNIT: usize = 64 * 1024;
/// Bytes that a broadcast frame counts for beside its length: its entry in the queue and its share
/// of the frame's own overhead.
pub(super) const SEGMENT_BYTES: usize = 64;

/// The number of bytes that a segment counts for.
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
///
/// Invariants: `replies` and `broadcasts` are the weights of the segments that wait and of the
/// batch in flight; without a batch in flight, nothing counts for one.
#[derive(Debug, Default)]
pub struct WriteQueue {
    segments: VecDeque<Segment>,
    /// Bytes in `segments` and in flight in the kernel. The bounds of the configuration keep them
    /// below 4 GiB.
    replies: u32,
    broadcasts: u32,
    /// Reply bytes in frames that are shared with other connections, since the queue was last empty
    /// of replies, in whole [`LENT_UNIT`]s. The remainder counts as this connection's own.
    lent: u16,
    /// Bytes in flight in the kernel.
    sending_replies: u32,
    sending_broadcasts: u32,
    sending: bool,
    /// The last batch has ended in the middle of a message.
    mid_message: bool,
    /// When the queue began to wait, or bytes were last sent: the low 32 bits of the time in
    /// milliseconds, which wrap after 49 days.
    progress_ms: u32,
}

impl WriteQueue {
    /// Adds a broadcast frame, unless more than `bound` bytes of broadcasts would wait then.
    pub fn push(&mut self, frame: &Handle, bound: usize, now_ms: u64) -> Result<(), QueueFull> {
        if !self.has_room(frame.len(), bound) {
            return Err(QueueFull);
        }
        self.waits(now_ms);
        self.broadcasts += (frame.len() + SEGMENT_BYTES) as u32;
        self.segments.push_back(Segment::Shared(frame.clone()));
        Ok(())
    }

    fn append(&mut self, segment: Segment) {
        match is_broadcast(&segment) {
            true => self.broadcasts += weight(&segment),
            false => self.replies += weight(&segment),
        }
        self.segments.push_back(segment);
    }

    /// Adds a reply in a frame that is shared with other connections.
    pub fn push_reply(&mut self, frame: &Handle, now_ms: u64) {
        self.waits(now_ms);
        let units = u16::try_from(frame.len() / LENT_UNIT).unwrap_or(u16::MAX);
        self.lent = self.lent.saturating_add(units);
        self.append(Segment::Lent(frame.clone()));
    }

    /// Moves the frames of one or several broadcast messages into the queue: all of them or, if
    /// more than `bound` bytes of broadcasts would wait, none. `frames` is empty afterwards.
    pub fn push_all(
        &mut self,
        frames: &mut Vec<Handle>,
        bound: usize,
        now_ms: u64,
    ) -> Result<(), QueueFull> {
        // Every piece after the first also counts its overhead.
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

    /// Takes the last segment out, so that replies can be appended to it. Return it with
    /// [`WriteQueue::close_tail`].
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

    /// Puts the last segment back.
    pub fn close_tail(&mut self, bytes: Vec<u8>, now_ms: u64) {
        if bytes.is_empty() {
            return;
        }
        self.waits(now_ms);
        self.append(Segment::Own(bytes));
    }

    /// Starts the send timeout, unless something waits already.
    pub fn waits(&mut self, now_ms: u64) {
        if self.is_empty() {
            self.progress_ms = now_ms as u32;
        }
    }

    /// The next batch to send; `None` if one is in flight or nothing waits.
    pub fn take_batch(&mut self) -> Option<Vec<Segment>> {
        if self.sending || self.segments.is_empty() {
            return None;
        }
        // Neither branch moves the segments that stay. A `VecDeque` whose first element is at the
        // start of its buffer becomes a `Vec` without a copy.
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
        self.invariants();
        Some(batch)
    }

    /// Notes that bytes which are not from this queue, such as TLS records, are in flight.
    pub fn sends(&mut self) {
        self.sending = true;
    }

    /// Whether a batch is in flight in the kernel.
    pub fn is_sending(&self) -> bool {
        self.sending
    }

    /// Whether segments wait that are not in flight.
    pub fn has_segments(&self) -> bool {
        !self.segments.is_empty()
    }

    /// Discards the batch that was just taken.
    pub fn forget_batch(&mut self) {
        self.settled(Vec::new(), self.progress_ms.into());
    }

    /// Notes that some bytes of the batch were sent.
    pub fn progressed(&mut self, now_ms: u64) {
        self.progress_ms = now_ms as u32;
    }

    /// Notes that the batch was sent completely. `spare` is its emptied list, which is kept for
    /// reuse.
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
        self.invariants();
    }

    fn invariants(&self) {
        debug_assert!(self.sending || self.sending_replies + self.sending_broadcasts == 0);
        let waiting = |broadcast: bool| {
            let kind = self.segments.iter().filter(|segment| is_broadcast(segment) == broadcast);
            kind.map(weight).sum::<u32>()
        };
        debug_assert_eq!(self.replies, self.sending_replies + waiting(false));
        debug_assert_eq!(self.broadcasts, self.sending_broadcasts + waiting(true));
    }

    /// Frees the memory of a queue without segments.
    pub fn shrink(&mut self) {
        if self.segments.is_empty() {
            self.segments = VecDeque::new();
        }
    }

    /// Whether a broadcast of `bytes` bytes keeps to the bound. The first broadcast counts without
    /// 64 bytes, so that a frame of `bound` bytes fits into an empty queue.
    pub fn has_room(&self, bytes: usize, bound: usize) -> bool {
        let more = if self.broadcasts == 0 { bytes } else { bytes + SEGMENT_BYTES };
        self.broadcasts as usize + more <= bound
    }

    /// Discards the first broadcast that is not in flight, and everything after it. A peer cannot
    /// decompress what follows a missing message if its window is kept. Replies before it, such as
    /// the 101 response, stay, and so does the rest of a message that is partly in flight.
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
        self.invariants();
    }

    /// Whether nothing waits, neither in the queue nor in flight.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty() && !self.sending
    }

    /// All bytes in the queue and in flight, each broadcast frame with 64 bytes more.
    pub fn bytes(&self) -> usize {
        self.replies as usize + self.broadcasts as usize
    }

    /// Bytes of broadcasts in the queue and in flight.
    pub fn broadcasts(&self) -> usize {
        self.broadcasts as usize
    }

    /// Heap bytes that only this queue holds: replies that are not shared, and the list of
    /// segments.
    pub fn held_bytes(&self) -> usize {
        let own = self.replies().saturating_sub(usize::from(self.lent) * LENT_UNIT);
        own + self.segments.capacity() * size_of::<Segment>()
    }

    /// Bytes of replies in the queue and in flight.
    pub fn replies(&self) -> usize {
        self.replies as usize
    }

    /// Whether bytes wait and none was sent for `ms` milliseconds.
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
        // A message that was sent completely leaves no rest to be sent.
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
        assert_eq!(queue.take_batch().map(|batch| batch.len()), Some(1));
        queue.progressed(1400);
        assert!(!queue.is_stuck(500, 1899));
        assert!(queue.is_stuck(500, 1900));
        queue.settled(Vec::new(), 1900);
    }
}
