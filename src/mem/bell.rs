//! What one thread looks after for all others: a list, what is wanted of it, and a bell for when
//! that thread sleeps. Nothing here waits for it.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Wakes a thread; may be rung at any time, from any thread. Until it is hung nobody hears it.
/// Clones are the same bell.
#[derive(Clone, Default)]
pub struct Bell(Arc<OnceLock<Box<dyn Fn() + Send + Sync>>>);

impl fmt::Debug for Bell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bell").field("is_hung", &self.is_hung()).finish()
    }
}

impl Bell {
    /// One that is hung already.
    pub fn new(ring: impl Fn() + Send + Sync + 'static) -> Bell {
        let bell = Bell::default();
        bell.hang(ring);
        bell
    }

    /// Says what it does from now on. Only the first word counts.
    pub fn hang(&self, ring: impl Fn() + Send + Sync + 'static) {
        let _ = self.0.set(Box::new(ring));
    }

    /// Whether anybody hears it.
    pub fn is_hung(&self) -> bool {
        self.0.get().is_some()
    }

    /// Wakes who has hung it.
    pub fn ring(&self) {
        if let Some(ring) = self.0.get() {
            ring();
        }
    }
}

/// Whether something is wanted soon. The bell rings once until it is begun.
#[derive(Debug)]
pub struct Wanted {
    flag: AtomicBool,
    bell: Bell,
}

impl Wanted {
    /// Nothing is wanted yet.
    pub fn new(bell: &Bell) -> Wanted {
        Wanted { flag: AtomicBool::new(false), bell: bell.clone() }
    }

    /// It is wanted.
    pub fn want(&self) {
        if !self.flag.swap(true, Ordering::AcqRel) {
            self.bell.ring();
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
pub struct Tended<T> {
    list: Mutex<Vec<Arc<T>>>,
    bell: Bell,
}

impl<T> Default for Tended<T> {
    fn default() -> Tended<T> {
        Tended { list: Mutex::default(), bell: Bell::default() }
    }
}

impl<T: fmt::Debug> fmt::Debug for Tended<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.list()).finish()
    }
}

impl<T> Tended<T> {
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
        self.bell.ring();
    }

    /// Wakes who looks after it.
    pub fn bell(&self) -> &Bell {
        &self.bell
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn the_bell_rings_for_a_list_and_once_for_a_wish_until_that_is_heard() {
        let tended: Tended<u32> = Tended::default();
        tended.replace(vec![Arc::new(1)]);
        assert!(!tended.bell().is_hung(), "nobody hears it, and nothing happens");
        let rung = Arc::new(AtomicUsize::new(0));
        let theirs = rung.clone();
        let rung = || rung.load(Ordering::Relaxed);
        tended.bell().hang(move || _ = theirs.fetch_add(1, Ordering::Relaxed));
        tended.bell().hang(|| panic!("only the first word counts"));
        tended.replace(vec![Arc::new(2), Arc::new(3)]);
        assert_eq!((tended.list().len(), rung()), (2, 1));
        assert_eq!(tended.find(|it| *it > 1).as_deref(), Some(&2));
        assert_eq!(tended.find(|it| *it == 1), None);
        let wanted = Wanted::new(tended.bell());
        assert!(!wanted.is_wanted());
        for _ in 0..10 {
            wanted.want();
        }
        assert!(wanted.is_wanted());
        assert_eq!(rung(), 2);
        wanted.begin();
        assert!(!wanted.is_wanted());
        wanted.want();
        assert_eq!(rung(), 3);
    }
}
