//! Memory that outlives a function call: frozen frames, slot tables, mailboxes between cores, and
//! notifiers. Knows nothing of connections, channels or the kernel. One of three modules that may
//! contain `unsafe`.

#![allow(unsafe_code)]

mod available;
pub mod frame;
pub mod mailbox;
pub mod notifier;
pub mod park;
mod shares;
pub mod slots;
mod sync;

pub use available::{available, group_files};
pub use frame::{Frozen, Handle, Segment, frame_bytes};
pub use notifier::{Notifier, RefreshList, RefreshRequest};
pub use shares::Shares;
pub use slots::{FreeList, Slot, Table};

/// How long freed memory stays with the allocator for reuse before it is returned to the system, in
/// milliseconds. The allocator's own default of a second makes a process that is flooded with large
/// messages hold what a second of the flood has freed, beside its account.
const KEEP_FREED_MS: std::ffi::c_long = 10;
/// The allocator's option `mi_option_purge_delay`, which its crate does not name.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// Lets the allocator return freed memory soon. Call it once, before other threads start.
pub fn return_freed_soon() {
    // SAFETY: the option exists, and no other thread reads it while it is written, because the
    // caller has started none.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, KEEP_FREED_MS) };
}

/// Returns memory that the calling thread's allocator keeps for reuse to the system. Takes
/// milliseconds, so it is called when many connections have left.
pub fn give_back() {
    // SAFETY: the call has no preconditions; where mimalloc is not the allocator it finds nothing.
    unsafe { libmimalloc_sys::mi_collect(true) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocator_option_is_the_delay_of_returning_memory() {
        // SAFETY: the call has no preconditions.
        let value = || unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) };
        assert_eq!(value(), 1000, "the allocator's documented default tells it from others");
        return_freed_soon();
        assert_eq!(value(), KEEP_FREED_MS);
    }
}
