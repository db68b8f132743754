//! A bounded queue from one core to one other: one producer, one consumer, no lock.
//!
//! Invariant: `consumed <= produced <= consumed + capacity`. Both counters run on without wrapping
//! at the capacity, so a full queue differs from an empty one without an unused place.

use super::sync::{Arc, AtomicUsize, Cell, Ordering};
use std::mem::MaybeUninit;

/// The sending end. Only one thread can have it.
pub struct Sender<T> {
    queue: Arc<Queue<T>>,
    produced: usize,
    consumed_seen: usize,
}

/// The receiving end. Only one thread can have it.
pub struct Receiver<T> {
    queue: Arc<Queue<T>>,
    consumed: usize,
    produced_seen: usize,
}

/// A queue for at least `capacity` messages (rounded up to a power of two).
pub fn mailbox<T: Send>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let capacity = capacity.max(2).next_power_of_two();
    let places = (0..capacity).map(|_| Cell::new(MaybeUninit::uninit())).collect();
    let queue = Arc::new(Queue {
        produced: Padded(AtomicUsize::new(0)),
        consumed: Padded(AtomicUsize::new(0)),
        places,
    });
    let sender = Sender { queue: queue.clone(), produced: 0, consumed_seen: 0 };
    (sender, Receiver { queue, consumed: 0, produced_seen: 0 })
}

impl<T> Sender<T> {
    /// Appends `message`.
    ///
    /// # Errors
    /// The queue is full; the message is returned.
    pub fn push(&mut self, message: T) -> Result<(), T> {
        let capacity = self.queue.places.len();
        if self.produced.wrapping_sub(self.consumed_seen) == capacity {
            self.consumed_seen = self.queue.consumed.0.load(Ordering::Acquire);
            if self.produced.wrapping_sub(self.consumed_seen) == capacity {
                return Err(message);
            }
        }
        let place = &self.queue.places[self.produced & (capacity - 1)];
        // SAFETY: this place is outside `consumed..produced`, so the receiver does not access it,
        // and there is only one sender. The Release store below publishes the write.
        place.with_mut(|place| _ = unsafe { (*place).write(message) });
        self.produced = self.produced.wrapping_add(1);
        self.queue.produced.0.store(self.produced, Ordering::Release);
        self.invariants();
        Ok(())
    }

    /// The invariant as this end knows it: `consumed_seen` is an older value of `consumed`.
    fn invariants(&self) {
        let queued = self.produced.wrapping_sub(self.consumed_seen);
        debug_assert!(queued <= self.queue.places.len(), "{queued} messages");
    }
}

impl<T> Receiver<T> {
    /// Removes the oldest message.
    pub fn pop(&mut self) -> Option<T> {
        if self.is_empty() {
            return None;
        }
        let place = &self.queue.places[self.consumed & (self.queue.places.len() - 1)];
        // SAFETY: `consumed < produced` was seen by an Acquire load, so this place was written and
        // published, and it is read once: `consumed` moves past it below.
        let message = place.with_mut(|place| unsafe { (*place).assume_init_read() });
        self.consumed = self.consumed.wrapping_add(1);
        self.queue.consumed.0.store(self.consumed, Ordering::Release);
        self.invariants();
        Some(message)
    }

    /// The invariant as this end knows it: `produced_seen` is an older value of `produced`.
    fn invariants(&self) {
        let queued = self.produced_seen.wrapping_sub(self.consumed);
        debug_assert!(queued <= self.queue.places.len(), "{queued} messages");
    }

    /// The number of messages that were sent so far, since the queue was created. It wraps around.
    pub fn sent(&mut self) -> usize {
        self.produced_seen = self.queue.produced.0.load(Ordering::Acquire);
        self.produced_seen
    }

    /// The number of messages that were removed so far. It wraps around as [`Receiver::sent`] does.
    pub fn removed(&self) -> usize {
        self.consumed
    }

    /// Whether the queue is empty at this moment.
    pub fn is_empty(&mut self) -> bool {
        if self.consumed == self.produced_seen {
            self.produced_seen = self.queue.produced.0.load(Ordering::Acquire);
        }
        self.consumed == self.produced_seen
    }
}

struct Queue<T> {
    produced: Padded,
    consumed: Padded,
    places: Box<[Cell<MaybeUninit<T>>]>,
}

/// A counter with cache lines of its own, so that the two ends do not invalidate each other's.
#[repr(align(128))]
struct Padded(AtomicUsize);

// SAFETY: the one sender writes only places outside `consumed..produced`, the one receiver reads
// only places inside, and each hands over with Release/Acquire; messages themselves are `Send`.
unsafe impl<T: Send> Sync for Queue<T> {}
// SAFETY: as above; a queue owns the messages in it.
unsafe impl<T: Send> Send for Queue<T> {}

impl<T> Drop for Queue<T> {
    fn drop(&mut self) {
        // Relaxed is enough: both ends have been dropped before the last reference.
        let produced = self.produced.0.load(Ordering::Relaxed);
        let mut at = self.consumed.0.load(Ordering::Relaxed);
        while at != produced {
            let place = &self.places[at & (self.places.len() - 1)];
            // SAFETY: both ends are dropped, and `consumed..produced` holds written, unread
            // messages.
            place.with_mut(|place| unsafe { (*place).assume_init_drop() });
            at = at.wrapping_add(1);
        }
    }
}

#[cfg(all(test, not(polycast_loom)))]
mod tests {
    use super::*;

    #[test]
    fn mailbox_that_is_full_returns_the_message_and_keeps_the_order() {
        let (mut tx, mut rx) = mailbox(4);
        for n in 0..4 {
            assert_eq!(tx.push(n), Ok(()));
        }
        assert_eq!(tx.push(4), Err(4));
        assert_eq!(rx.pop(), Some(0));
        assert_eq!(tx.push(4), Ok(()));
        assert_eq!((rx.sent(), rx.removed()), (5, 1));
        assert_eq!(std::iter::from_fn(|| rx.pop()).collect::<Vec<_>>(), [1, 2, 3, 4]);
        assert_eq!((rx.sent(), rx.removed()), (5, 5));
        assert!(rx.is_empty());
    }

    #[test]
    fn mailbox_drops_unread_messages_once() {
        let counted = Arc::new(());
        let (mut tx, mut rx) = mailbox(8);
        for _ in 0..6 {
            assert!(tx.push(counted.clone()).is_ok());
        }
        drop(rx.pop());
        drop(rx);
        drop(tx);
        assert_eq!(Arc::strong_count(&counted), 1);
    }

    #[test]
    fn mailbox_passes_a_million_messages_between_two_threads_in_order() {
        let (mut tx, mut rx) = mailbox(64);
        const COUNT: u64 = if cfg!(miri) { 1000 } else { 1_000_000 };
        let sender = std::thread::spawn(move || {
            for n in 0..COUNT {
                let mut message = Box::new(n);
                while let Err(back) = tx.push(message) {
                    message = back;
                    std::thread::yield_now();
                }
            }
        });
        for n in 0..COUNT {
            let got = loop {
                match rx.pop() {
                    Some(got) => break got,
                    None => std::thread::yield_now(),
                }
            };
            assert_eq!(*got, n);
        }
        sender.join().expect("the sender ends");
    }
}

/// Every order in which the two ends can run. Messages are boxed, so that loom notices a message
/// that is read twice or never dropped.
#[cfg(all(test, polycast_loom))]
mod models {
    use super::super::sync::explore;
    use super::*;
    use loom::thread;

    /// A receiver that takes `count` messages, waiting for each.
    fn take(rx: &mut Receiver<Arc<usize>>, count: usize) -> Vec<usize> {
        let mut taken = Vec::new();
        while taken.len() < count {
            match rx.pop() {
                Some(message) => taken.push(*message),
                None => thread::yield_now(),
            }
        }
        taken
    }

    #[test]
    fn mailbox_full_returns_the_message_and_empty_returns_none() {
        explore(|| {
            let (mut tx, mut rx) = mailbox(2);
            let sender = thread::spawn(move || {
                (0..3).filter(|n| tx.push(Arc::new(*n)).is_ok()).collect::<Vec<_>>()
            });
            let mut got = Vec::new();
            got.extend(rx.pop().map(|message| *message));
            got.extend(rx.pop().map(|message| *message));
            let sent = sender.join().expect("the sender ends");
            assert!(sent.len() >= 2 && (sent.len() == 3 || !sent.contains(&2)), "{sent:?}");
            got.extend(std::iter::from_fn(|| rx.pop()).map(|message| *message));
            assert_eq!(got, sent);
            assert!(rx.is_empty());
        });
    }

    #[test]
    fn mailbox_reuses_places_in_order() {
        explore(|| {
            let (mut tx, mut rx) = mailbox(2);
            let sender = thread::spawn(move || {
                for n in 0..5 {
                    let mut message = Arc::new(n);
                    while let Err(back) = tx.push(message) {
                        message = back;
                        thread::yield_now();
                    }
                }
            });
            assert_eq!(take(&mut rx, 5), [0, 1, 2, 3, 4]);
            assert!(rx.is_empty());
            sender.join().expect("the sender ends");
        });
    }

    #[test]
    fn mailbox_drops_unread_messages_once_whichever_end_is_dropped_last() {
        explore(|| {
            let counted = Arc::new(7);
            let (mut tx, mut rx) = mailbox(2);
            let inside = counted.clone();
            let sender = thread::spawn(move || {
                for _ in 0..3 {
                    _ = tx.push(inside.clone());
                }
            });
            drop(rx.pop());
            drop(rx);
            sender.join().expect("the sender ends");
            assert_eq!(Arc::strong_count(&counted), 1);
        });
    }

    #[test]
    fn mailbox_delivers_what_was_sent_before_the_sender_was_dropped() {
        explore(|| {
            let (mut tx, mut rx) = mailbox(2);
            let sender = thread::spawn(move || {
                assert!(tx.push(Arc::new(0)).is_ok() && tx.push(Arc::new(1)).is_ok());
            });
            assert_eq!(take(&mut rx, 1), [0]);
            sender.join().expect("the sender ends");
            assert_eq!(take(&mut rx, 1), [1]);
            assert!(rx.pop().is_none());
        });
    }
}
