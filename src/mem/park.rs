//! Parking: how a core sleeps until mail arrives without missing any mail, and how other cores wake
//! it only if it sleeps.
//!
//! A core that is about to sleep sets its flag, then looks for mail. A sending core puts mail into
//! the mailbox, then looks at the flag. With a full fence between the two steps on both sides, at
//! least one of the cores sees what the other has done. The models below try every order of these
//! steps.

use super::sync::{AtomicBool, Ordering, fence};

/// Whether one core sleeps or is about to.
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

    /// Notes that this core is about to sleep. It must look for mail once more before it sleeps.
    pub fn announce(&self) {
        self.parked.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Notes that this core is awake, or does not sleep after all.
    pub fn retract(&self) {
        self.parked.store(false, Ordering::Relaxed);
    }

    /// Whether the caller, which has just sent mail to this core, must wake it. If several cores
    /// call this while the core sleeps, the result is true for one of them.
    pub fn needs_wake(&self) -> bool {
        fence(Ordering::SeqCst);
        // A plain load first: most of the time the core is awake, and a load does not take its
        // cache line away.
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
    fn parking_asks_one_sender_to_wake_a_core_that_sleeps() {
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

/// In these models a core that misses its wake-up sleeps for ever; loom reports that as a deadlock.
#[cfg(all(test, polycast_loom))]
mod models {
    use super::super::mailbox::{Receiver, mailbox};
    use super::super::sync::explore;
    use super::*;
    use loom::sync::Arc;
    use loom::thread::{self, Thread};

    /// Starts a core that sends one message and wakes `sleeper` if necessary.
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

    /// Runs the turns of a core until a message has come from each of `queues`.
    fn turns(parking: &Parking, queues: &mut [Receiver<usize>]) {
        let mut left = queues.len();
        while left > 0 {
            parking.announce();
            if queues.iter_mut().all(Receiver::is_empty) {
                thread::park();
            }
            parking.retract();
            left -= queues.iter_mut().filter_map(Receiver::pop).count();
        }
    }

    #[test]
    fn parking_is_woken_by_mail_from_one_core() {
        explore(|| {
            let parking = Arc::new(Parking::new());
            let queue = send(parking.clone(), thread::current());
            turns(&parking, &mut [queue]);
        });
    }

    #[test]
    fn parking_is_woken_by_mail_from_two_cores() {
        explore(|| {
            let parking = Arc::new(Parking::new());
            let first = send(parking.clone(), thread::current());
            let second = send(parking.clone(), thread::current());
            turns(&parking, &mut [first, second]);
        });
    }

    #[test]
    fn parking_sees_mail_that_comes_during_a_wake_up() {
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
            let mut queues = [rx];
            turns(&parking, &mut queues);
            turns(&parking, &mut queues);
        });
    }
}
