//! Memory that outlives a function call: frozen frames, slot tables and mailboxes; bells.

#![allow(unsafe_code)]

mod available;
pub mod frame;
pub mod mailbox;
pub mod notifier;
pub mod park;
pub mod slots;
mod sync;

pub use available::available;
pub use frame::{Frozen, Handle, Segment, frame_bytes};
pub use notifier::{Notifier, RefreshList, RefreshRequest};
pub use slots::{FreeList, Slot, Table};

/// Gives memory that the calling thread's allocator keeps for reuse back to the system. Worth its
/// milliseconds when many connections have left.
pub fn give_back() {
    // SAFETY: the call has no preconditions; where mimalloc is not the allocator it finds nothing.
    unsafe { libmimalloc_sys::mi_collect(true) };
}
