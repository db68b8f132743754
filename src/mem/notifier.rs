//! Requests of other threads to one thread, which may sleep, to fetch things again: a notifier that
//! wakes the thread, a flag for each thing, and the list of all things. Nothing in this module
//! waits or blocks.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Wakes one thread, from any thread and at any time. Does nothing until a function is attached.
/// Clones share that function.
#[derive(Clone, Default)]
pub struct Notifier(Arc<OnceLock<Box<dyn Fn() + Send + Sync>>>);

impl fmt::Debug for Notifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notifier").field("is_attached", &self.is_attached()).finish()
    }
}

impl Notifier {
    /// A notifier that calls `wake`.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Notifier {
        let notifier = Notifier::default();
        notifier.attach(wake);
        notifier
    }

    /// Makes [`Notifier::notify`] call `wake`. Later calls change nothing.
    pub fn attach(&self, wake: impl Fn() + Send + Sync + 'static) {
        let _ = self.0.set(Box::new(wake));
    }

    /// Whether a function is attached.
    pub fn is_attached(&self) -> bool {
        self.0.get().is_some()
    }

    /// Calls the attached function, if there is one.
    pub fn notify(&self) {
        if let Some(wake) = self.0.get() {
            wake();
        }
    }
}

/// A request to fetch one thing again. The thread is notified by the first [`RefreshRequest::want`]
/// after each [`RefreshRequest::begin`].
#[derive(Debug)]
pub struct RefreshRequest {
    flag: AtomicBool,
    notifier: Notifier,
}

impl RefreshRequest {
    /// No request yet; `notifier` wakes the thread that fetches.
    pub fn new(notifier: &Notifier) -> RefreshRequest {
        RefreshRequest { flag: AtomicBool::new(false), notifier: notifier.clone() }
    }

    /// Requests the thing to be fetched again, and wakes the thread if that was not requested
    /// before.
    pub fn want(&self) {
        if !self.flag.swap(true, Ordering::AcqRel) {
            self.notifier.notify();
        }
    }

    /// Whether fetching is requested and has not begun.
    pub fn is_wanted(&self) -> bool {
        self.flag.load(Ordering::Acquire)
    }

    /// Clears the request, because the thing is being fetched now.
    pub fn begin(&self) {
        self.flag.store(false, Ordering::Release);
    }
}

/// The things that the thread fetches again and again. The list itself lives as long as the
/// process; a new configuration replaces its entries.
pub struct RefreshList<T> {
    list: Mutex<Vec<Arc<T>>>,
    notifier: Notifier,
}

impl<T> Default for RefreshList<T> {
    fn default() -> RefreshList<T> {
        RefreshList { list: Mutex::default(), notifier: Notifier::default() }
    }
}

impl<T: fmt::Debug> fmt::Debug for RefreshList<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.list()).finish()
    }
}

impl<T> RefreshList<T> {
    fn lock(&self) -> MutexGuard<'_, Vec<Arc<T>>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All entries.
    pub fn list(&self) -> Vec<Arc<T>> {
        self.lock().clone()
    }

    /// The first entry for which `is_it` is true.
    pub fn find(&self, is_it: impl Fn(&T) -> bool) -> Option<Arc<T>> {
        self.lock().iter().find(|it| is_it(it)).cloned()
    }

    /// Replaces all entries and wakes the thread.
    pub fn replace(&self, list: Vec<Arc<T>>) {
        *self.lock() = list;
        self.notifier.notify();
    }

    /// Wakes the thread that fetches the entries.
    pub fn notifier(&self) -> &Notifier {
        &self.notifier
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn notifier_wakes_for_a_new_list_and_once_for_each_request() {
        let list: RefreshList<u32> = RefreshList::default();
        list.replace(vec![Arc::new(1)]);
        assert!(!list.notifier().is_attached());
        let notified = Arc::new(AtomicUsize::new(0));
        let theirs = notified.clone();
        let notified = || notified.load(Ordering::Relaxed);
        list.notifier().attach(move || _ = theirs.fetch_add(1, Ordering::Relaxed));
        list.notifier().attach(|| panic!("only the first function is attached"));
        list.replace(vec![Arc::new(2), Arc::new(3)]);
        assert_eq!((list.list().len(), notified()), (2, 1));
        assert_eq!(list.find(|it| *it > 1).as_deref(), Some(&2));
        assert_eq!(list.find(|it| *it == 1), None);
        let wanted = RefreshRequest::new(list.notifier());
        assert!(!wanted.is_wanted());
        for _ in 0..10 {
            wanted.want();
        }
        assert!(wanted.is_wanted());
        assert_eq!(notified(), 2);
        wanted.begin();
        assert!(!wanted.is_wanted());
        wanted.want();
        assert_eq!(notified(), 3);
    }
}
