//! What tasks of this thread have come to, until its next turn takes it.

use crate::mem::Bell;
use std::cell::RefCell;
use std::rc::Rc;

/// See the module's documentation. Clones are the same list.
pub(super) struct Done<T> {
    list: Rc<RefCell<Vec<T>>>,
    bell: Bell,
}

impl<T> Clone for Done<T> {
    fn clone(&self) -> Done<T> {
        Done { list: self.list.clone(), bell: self.bell.clone() }
    }
}

impl<T> Done<T> {
    /// `bell` calls for that turn.
    pub(super) fn new(bell: &Bell) -> Done<T> {
        Done { list: Rc::default(), bell: bell.clone() }
    }

    /// A task has come to this.
    pub(super) fn put(&self, it: T) {
        self.list.borrow_mut().push(it);
        self.bell.ring();
    }

    /// All that was put since, in that order.
    pub(super) fn take(&self) -> Vec<T> {
        self.list.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn what_is_put_is_taken_once_and_the_bell_rings_for_each() {
        let rung = Arc::new(AtomicUsize::new(0));
        let theirs = rung.clone();
        let done = Done::new(&Bell::new(move || _ = theirs.fetch_add(1, Ordering::Relaxed)));
        done.put(1);
        done.clone().put(2);
        assert_eq!((done.take(), rung.load(Ordering::Relaxed)), (vec![1, 2], 2));
        assert!(done.take().is_empty());
    }
}
