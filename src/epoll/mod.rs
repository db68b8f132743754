//! The driver on epoll, for kernels and container profiles that do not allow io_uring.
//!
//! It turns readiness into the completions of a ring: a readable socket is received from into one
//! of the receive buffers that all connections of a core share, and a send is tried at once and
//! waits for a writable socket only if the kernel's buffer is full. An operation that ends at once
//! completes in the next turn, as on a ring.
//!
//! Interest is level-triggered, and is registered when an operation begins to wait. When it is
//! over, it is removed only if the socket becomes ready meanwhile, so that a usual operation needs
//! no further system call.
//!
//! In contrast to a ring, each operation is a system call, and each connection takes an entry in
//! the process's table of open files.

mod accept;
mod arena;
mod send;
mod set;
#[cfg(test)]
mod tests;

pub use set::Epoll;
