//! Frozen frames: the bytes of a broadcast, written once and referred to by every write queue.
//!
//! There are two reference counts, because an atomic one for each subscriber would be expensive:
//! [`Frozen`] is shared by cores and counts atomically, [`Handle`] stays on one core and counts
//! without atomics. A core takes one `Frozen` for an event, wraps it once, and gives each of its
//! subscribers a `Handle`. Both counts are those of `Arc` and `Rc`, so this module has no loom
//! model.

use std::cell::Cell;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;

/// The bytes of a whole frame, which never change, shared between cores.
#[derive(Clone, Debug, Default)]
pub struct Frozen(Arc<[u8]>);

impl Frozen {
    /// Copies `bytes` once, into a shared allocation of exactly that size.
    pub fn new(bytes: &[u8]) -> Frozen {
        Frozen(Arc::from(bytes))
    }
}

impl Deref for Frozen {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// One core's handle to a frozen frame. Cloning it costs one addition without atomics.
#[derive(Clone, Debug)]
pub struct Handle(Rc<Counted>);

/// A frame whose bytes are counted while this thread has handles to it.
#[derive(Debug)]
struct Counted(Frozen);

thread_local! {
    static FRAME_BYTES: Cell<usize> = const { Cell::new(0) };
}

/// Bytes of the frames to which this thread has handles. A frame is counted once for each
/// [`Handle::new`], no matter how many write queues hold clones of that handle.
pub fn frame_bytes() -> usize {
    FRAME_BYTES.get()
}

impl Drop for Counted {
    fn drop(&mut self) {
        // At the end of a thread, a handle may be dropped after the thread's counter; then there is
        // nothing to count.
        let _ = FRAME_BYTES.try_with(|bytes| bytes.set(bytes.get().wrapping_sub(self.0.len())));
    }
}

impl Handle {
    /// Wraps one core's reference to `frame`.
    pub fn new(frame: Frozen) -> Handle {
        FRAME_BYTES.set(FRAME_BYTES.get().wrapping_add(frame.len()));
        Handle(Rc::new(Counted(frame)))
    }
}

impl Deref for Handle {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0.0.0
    }
}

/// A run of bytes in a write queue. Moving a segment does not move its bytes.
#[derive(Debug)]
pub enum Segment {
    /// Replies to this peer only: one or more whole frames or HTTP responses.
    Own(Vec<u8>),
    /// A broadcast message, or its last piece.
    Shared(Handle),
    /// A piece of a broadcast message that further pieces follow.
    Piece(Handle),
    /// A reply to this peer whose bytes other peers get too: one or more whole frames.
    Lent(Handle),
}

impl Deref for Segment {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Segment::Own(bytes) => bytes,
            Segment::Shared(frame) | Segment::Piece(frame) | Segment::Lent(frame) => frame,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frozen_bytes_do_not_move_when_handles_are_cloned() {
        let frozen = Frozen::new(b"frame");
        let at = frozen.as_ptr();
        let handles: Vec<Handle> = {
            let first = Handle::new(frozen.clone());
            (0..8).map(|_| first.clone()).collect()
        };
        drop(frozen);
        for handle in &handles {
            assert_eq!(&handle[..], b"frame");
            assert_eq!(handle.as_ptr(), at);
        }
    }

    #[test]
    fn frame_bytes_are_counted_once_while_any_handle_is_there() {
        assert_eq!(frame_bytes(), 0);
        let first = Handle::new(Frozen::new(b"frame"));
        let second = first.clone();
        let other = Handle::new(Frozen::new(b"other one"));
        assert_eq!(frame_bytes(), 14);
        drop(first);
        assert_eq!(frame_bytes(), 14);
        drop((second, other));
        assert_eq!(frame_bytes(), 0);
    }

    #[test]
    fn segment_is_three_words_long() {
        assert_eq!(size_of::<Segment>(), 24);
    }
}
