//! Memory that outlives a function call: frozen frames, slot tables and mailboxes.

#![allow(unsafe_code)]

pub mod frame;
pub mod mailbox;
pub mod slots;

pub use frame::{Frozen, Handle, Segment};
pub use slots::{FreeList, Slot, Table};
