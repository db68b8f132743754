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

pub use available::available;
pub use frame::{Frozen, Handle, Segment, frame_bytes};
pub use notifier::{Notifier, RefreshList, RefreshRequest};
pub use shares::Shares;
pub use slots::{FreeList, Slot, Table};

/// Returns memory that the calling thread's allocator keeps for reuse to the system. Takes
/// milliseconds, so it is called when many connections have left.
pub fn give_back() {
    // SAFETY: the call has no preconditions; where mimalloc is not the allocator it finds nothing.
    unsafe { libmimalloc_sys::mi_collect(true) };
}
