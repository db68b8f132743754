//! What one thread looks after for all others: a list, what is wanted of it, and a bell for when
//! that thread sleeps. Nothing here waits for it.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Wakes a thread; may be rung at any time, from any thread. Until it is hung nobody hears it.
/// Clones are the same bell.
#[derive(Clone, Default)]
pub struct Notifier(Arc<OnceLock<Box<dyn Fn() + Send + Sync>>>);

impl fmt::Debug for Notifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bell").field("is_hung", &self.is_attached()).finish()
    }
}

impl Notifier {
    /// One that is hung already.
    pub fn new(ring: impl Fn() + Send + Sync + 'static) -> Notifier {
        let notifier = Notifier::default();
        notifier.attach(ring);
        notifier
    }

    /// Says what it does from now on. Only the first word counts.
    pub fn attach(&self, ring: impl Fn() + Send + Sync + 'static) {
        let _ = self.0.set(Box::new(ring));
    }

    /// Whether anybody hears it.
    pub fn is_attached(&self) -> bool {
        self.0.get().is_some()
    }

    /// Wakes who has hung it.
    pub fn notify(&self) {
        if let Some(ring) = self.0.get() {
            ring();
        }
    }
}

/// Whether something is wanted soon. The bell rings once until it is begun.
#[derive(Debug)]
pub struct RefreshRequest {
    flag: AtomicBool,
    notifier: Notifier,
}

impl RefreshRequest {
    /// Nothing is wanted yet.
    pub fn new(notifier: &Notifier) -> RefreshRequest {
        RefreshRequest { flag: AtomicBool::new(false), notifier: notifier.clone() }
    }

    /// It is wanted.
    pub fn want(&self) {
        if !self.flag.swap(true, Ordering::AcqRel) {
            self.notifier.notify();
        }
    }

    /// Whether it is.
    pub fn is_wanted(&self) -> bool {
        self.flag.load(Ordering::Acquire)
    }

    /// It is on its way: forgets that it was wanted.
    pub fn begin(&self) {
        self.flag.store(false, Ordering::Release);
    }
}

/// What is to be looked after. Lives as long as the process; a new configuration changes the list.
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

    /// All of it.
    pub fn list(&self) -> Vec<Arc<T>> {
        self.lock().clone()
    }

    /// The first of which that is true.
    pub fn find(&self, is_it: impl Fn(&T) -> bool) -> Option<Arc<T>> {
        self.lock().iter().find(|it| is_it(it)).cloned()
    }

    /// From now on it is these.
    pub fn replace(&self, list: Vec<Arc<T>>) {
        *self.lock() = list;
        self.notifier.notify();
    }

    /// Wakes who looks after it.
    pub fn notifier(&self) -> &Notifier {
        &self.notifier
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn the_bell_rings_for_a_list_and_once_for_a_wish_until_that_is_heard() {
        let list: RefreshList<u32> = RefreshList::default();
        list.replace(vec![Arc::new(1)]);
        assert!(!list.notifier().is_attached(), "nobody hears it, and nothing happens");
        let notified = Arc::new(AtomicUsize::new(0));
        let theirs = notified.clone();
        let notified = || notified.load(Ordering::Relaxed);
        list.notifier().attach(move || _ = theirs.fetch_add(1, Ordering::Relaxed));
        list.notifier().attach(|| panic!("only the first word counts"));
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
