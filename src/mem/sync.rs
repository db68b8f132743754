//! The synchronisation types of the mailbox and of parking: the standard library's, or loom's in
//! the models, which try every order in which two threads may see each other's writes. The cells
//! of the two differ, so this module has one with the same interface.

#[cfg(polycast_loom)]
pub(super) use loom::{
    cell::UnsafeCell as Cell,
    sync::Arc,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence},
};
#[cfg(not(polycast_loom))]
pub(super) use std::{
    sync::Arc,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence},
};

/// A value that is accessed by pointer. Its user decides which thread may do so, and when.
#[cfg(not(polycast_loom))]
#[derive(Debug)]
pub(super) struct Cell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(polycast_loom))]
impl<T> Cell<T> {
    pub(super) fn new(value: T) -> Cell<T> {
        Cell(std::cell::UnsafeCell::new(value))
    }

    /// Calls `run` with a pointer to the value, which is valid during that call only.
    #[inline]
    pub(super) fn with_mut<R>(&self, run: impl FnOnce(*mut T) -> R) -> R {
        run(self.0.get())
    }
}

/// Runs `model` in every order of its threads with at most three preemptions. A fault in code as
/// short as this one shows with one or two.
#[cfg(all(test, polycast_loom))]
pub(super) fn explore(model: impl Fn() + Send + Sync + 'static) {
    let orders = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = orders.clone();
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || {
        counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        model();
    });
    println!("{} orders", orders.load(std::sync::atomic::Ordering::Relaxed));
}
