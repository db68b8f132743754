//! Who sleeps: how a core waits for mail without missing any, and is woken only when it waits.
//!
//! The waiting core says so, then looks for mail; a sending core puts mail in, then looks whether
//! anyone waits. With a full fence between the two steps on both sides, at least one of them sees
//! what the other has done. Each way of missing a wake-up is a model below.

use super::sync::{AtomicBool, Ordering, fence};

/// Whether one core sleeps, or is about to.
#[derive(Debug)]
pub struct Parking {
    parked: AtomicBool,
}

impl Default for Parking {
    fn default() -> Parking {
        Parking::new()
    }
}

impl Parking {
    /// A core that is awake.
    pub fn new() -> Parking {
        Parking { parked: AtomicBool::new(false) }
    }

    /// This core is about to sleep. It must look for mail once more before it does.
    pub fn announce(&self) {
        self.parked.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// This core is awake, or stays so.
    pub fn retract(&self) {
        self.parked.store(false, Ordering::Relaxed);
    }

    /// Mail was put in for this core: whether the caller has to wake it. Of several, one has to.
    pub fn needs_wake(&self) -> bool {
        fence(Ordering::SeqCst);
        // Most of the time nobody sleeps, and a look takes the cache line from nobody.
        self.parked.load(Ordering::Relaxed)
            && self
                .parked
                .compare_exchange(true, false, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
    }
}

#[cfg(all(test, not(polycast_loom)))]
mod tests {
    use super::*;

    #[test]
    fn one_sender_wakes_and_only_who_sleeps() {
        let parking = Parking::new();
        assert!(!parking.needs_wake());
        parking.announce();
        assert!(parking.needs_wake());
        assert!(!parking.needs_wake());
        parking.announce();
        parking.retract();
        assert!(!parking.needs_wake());
    }
}

/// A core that misses its wake-up sleeps for ever here, which loom calls a deadlock.
#[cfg(all(test, polycast_loom))]
mod models {
    use super::super::mailbox::{Receiver, mailbox};
    use super::super::sync::explore;
    use super::*;
    use loom::sync::Arc;
    use loom::thread::{self, Thread};

    /// A core that sends one message and wakes `sleeper`, if that is needed.
    fn send(parking: Arc<Parking>, sleeper: Thread) -> Receiver<usize> {
        let (mut tx, rx) = mailbox(2);
        thread::spawn(move || {
            assert_eq!(tx.push(1), Ok(()));
            if parking.needs_wake() {
                sleeper.unpark();
            }
        });
        rx
    }

    /// The turns of a core until a message has come from each of `lanes`.
    fn turns(parking: &Parking, lanes: &mut [Receiver<usize>]) {
        let mut left = lanes.len();
        while left > 0 {
            parking.announce();
            if lanes.iter_mut().all(Receiver::is_empty) {
                thread::park();
            }
            parking.retract();
            left -= lanes.iter_mut().filter_map(Receiver::pop).count();
        }
    }

    #[test]
    fn mail_from_one_core_wakes() {
        explore(|| {
            let parking = Arc::new(Parking::new());
            let lane = send(parking.clone(), thread::current());
            turns(&parking, &mut [lane]);
        });
    }

    #[test]
    fn mail_from_two_cores_wakes() {
        explore(|| {
            let parking = Arc::new(Parking::new());
            let first = send(parking.clone(), thread::current());
            let second = send(parking.clone(), thread::current());
            turns(&parking, &mut [first, second]);
        });
    }

    #[test]
    fn mail_that_comes_while_a_wake_up_is_on_its_way_is_not_left() {
        explore(|| {
            let parking = Arc::new(Parking::new());
            let (mut tx, rx) = mailbox(2);
            let (theirs, sleeper) = (parking.clone(), thread::current());
            thread::spawn(move || {
                for n in 0..2 {
                    assert_eq!(tx.push(n), Ok(()));
                    if theirs.needs_wake() {
                        sleeper.unpark();
                    }
                }
            });
            let mut lanes = [rx];
            turns(&parking, &mut lanes);
            turns(&parking, &mut lanes);
        });
    }
}
