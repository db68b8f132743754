//! Frozen frames: the bytes of a broadcast, written once and pointed at by every write queue.
//!
//! Two counts, because one is dear: [`Frozen`] crosses cores and counts atomically, [`Handle`]
//! stays on one core and counts without atomics. A core takes one `Frozen` for an event, wraps it
//! once, and hands a `Handle` to each of its subscribers. Both counts are the standard library's:
//! there is nothing here that loom could explore.

use std::cell::Cell;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;

/// The bytes of a whole frame that no one will change, shared between cores.
#[derive(Clone, Debug, Default)]
pub struct Frozen(Arc<[u8]>);

impl Frozen {
    /// Copies `bytes` once, into a shared allocation of exactly their size.
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

/// One core's handle to a frozen frame; a clone is one plain addition.
#[derive(Clone, Debug)]
pub struct Handle(Rc<Counted>);

/// A frame that is counted while a handle of this thread is there.
#[derive(Debug)]
struct Counted(Frozen);

thread_local! {
    static FRAME_BYTES: Cell<usize> = const { Cell::new(0) };
}

/// Bytes of the frames that handles of this thread keep, each counted once for each
/// [`Handle::new`], however many write queues it waits in.
pub fn frame_bytes() -> usize {
    FRAME_BYTES.get()
}

impl Drop for Counted {
    fn drop(&mut self) {
        // A handle that outlives its thread's counter is at the end of the thread.
        let _ = FRAME_BYTES.try_with(|bytes| bytes.set(bytes.get().wrapping_sub(self.0.len())));
    }
}

impl Handle {
    /// Takes this core's one share of `frame`.
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

/// A run of bytes in a write queue. Moving a segment does not move the bytes.
#[derive(Debug)]
pub enum Segment {
    /// Replies to this peer alone: one or more whole frames or HTTP responses.
    Own(Vec<u8>),
    /// A broadcast frame, or the end of one.
    Shared(Handle),
    /// A piece of a broadcast message of which more follows.
    Piece(Handle),
    /// A reply to this peer that others are given, too: one or more whole frames.
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
    fn a_handle_keeps_the_bytes_where_they_are() {
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
    fn a_segment_is_three_words_so_that_a_queue_stays_small() {
        assert_eq!(size_of::<Segment>(), 24);
    }
}
