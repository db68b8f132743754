//! What the cores share memory with: the standard library's, or loom's, which knows every order in
//! which two threads may see each other's writes. Their cells differ, so there is one on top.

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

/// A place that is reached by pointer, from whichever thread has the right to it.
#[cfg(not(polycast_loom))]
#[derive(Debug)]
pub(super) struct Cell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(polycast_loom))]
impl<T> Cell<T> {
    pub(super) fn new(value: T) -> Cell<T> {
        Cell(std::cell::UnsafeCell::new(value))
    }

    /// Lends the place for writing; the pointer is good while `run` runs.
    #[inline]
    pub(super) fn with_mut<R>(&self, run: impl FnOnce(*mut T) -> R) -> R {
        run(self.0.get())
    }
}

/// Runs `model` in every order that its threads can take with few preemptions: a fault in such code
/// as stands here needs one or two.
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
