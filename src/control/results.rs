//! The results of tasks on the control thread, collected until its next turn takes them.

use crate::mem::Notifier;
use std::cell::RefCell;
use std::rc::Rc;

/// A list of results; see the module's documentation. Clones share one list.
pub(super) struct Results<T> {
    list: Rc<RefCell<Vec<T>>>,
    notifier: Notifier,
}

impl<T> Clone for Results<T> {
    fn clone(&self) -> Results<T> {
        Results { list: self.list.clone(), notifier: self.notifier.clone() }
    }
}

impl<T> Results<T> {
    /// An empty list. `notifier` wakes the control thread after each result.
    pub(super) fn new(notifier: &Notifier) -> Results<T> {
        Results { list: Rc::default(), notifier: notifier.clone() }
    }

    /// Adds the result of a task and wakes the control thread.
    pub(super) fn put(&self, it: T) {
        self.list.borrow_mut().push(it);
        self.notifier.notify();
    }

    /// Takes all results in the order in which they were added.
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
    fn results_are_taken_once_and_notify_each() {
        let notified = Arc::new(AtomicUsize::new(0));
        let theirs = notified.clone();
        let done = Results::new(&Notifier::new(move || _ = theirs.fetch_add(1, Ordering::Relaxed)));
        done.put(1);
        done.clone().put(2);
        assert_eq!((done.take(), notified.load(Ordering::Relaxed)), (vec![1, 2], 2));
        assert!(done.take().is_empty());
    }
}
