//! The driver on io_uring: one ring, its operations and its buffers; and system calls that both
//! drivers need.
//!
//! Other modules call safe functions. Memory that the kernel reads or writes is moved into this
//! module by value (`Driver::send`) or belongs to it (receive buffers, accept addresses), and is
//! returned with the completion. What is in flight when a ring is dropped is leaked on purpose,
//! because the kernel may still access it. One of three modules that may contain `unsafe`.

#![allow(unsafe_code)]

mod accept;
mod buffers;
mod connect;
mod kernel;
pub mod probe;
pub mod resources;
mod ring;
mod send;
pub mod sys;

pub use ring::{Ring, RingWaker};
