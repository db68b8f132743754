//! The kernel: one ring, its operations, its buffers, and every system call of the data plane.
//!
//! Other modules call safe functions. Memory that the kernel reads or writes is moved into this
//! module by value ([`Ring::send`]) or belongs to it (receive buffers, accept addresses), and is
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

pub use buffers::Pieces;
pub use ring::{Ring, Settings, SetupError, Waker};
pub use send::Sent;

/// The kind of an operation, which is packed into its completion's user data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Op {
    /// Accept of a new connection.
    Accept = 1,
    /// Multishot receive into the buffer ring.
    Receive,
    /// One vectored send.
    Send,
    /// Shutdown of our sending side.
    Shutdown,
    /// Cancellation of another operation.
    Cancel,
    /// Close of a direct descriptor.
    Close,
    /// A message from another core's ring: there is mail.
    Wake,
    /// A message that we sent to another core's ring.
    WakeSent,
    /// Creation of a socket for an outgoing connection.
    Socket,
    /// Setting of an option of such a socket.
    Option,
    /// Connect of such a socket.
    Connect,
}

impl Op {
    const ALL: [Op; 11] = [
        Op::Accept,
        Op::Receive,
        Op::Send,
        Op::Shutdown,
        Op::Cancel,
        Op::Close,
        Op::Wake,
        Op::WakeSent,
        Op::Socket,
        Op::Option,
        Op::Connect,
    ];
}

/// Operation, index and generation in one 64-bit word: `op << 56 | generation << 32 | index`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag {
    op: Op,
    generation: u32,
    index: u32,
}

impl Tag {
    fn pack(self) -> u64 {
        (self.op as u64) << 56 | u64::from(self.generation) << 32 | u64::from(self.index)
    }

    fn unpack(data: u64) -> Option<Tag> {
        let op = Op::ALL.into_iter().find(|op| *op as u64 == data >> 56)?;
        let generation = (data >> 32) as u32 & crate::mem::slots::GENERATION_MASK;
        Some(Tag { op, generation, index: data as u32 })
    }
}

/// One reaped completion.
#[derive(Clone, Copy, Debug)]
pub struct Completion {
    /// The operation that has ended or, if it is multishot, has a result.
    pub op: Op,
    /// The index of its slot, or of its accept place.
    pub index: u32,
    /// The slot's generation when the operation was prepared.
    pub generation: u32,
    /// The kernel's result: a count, or a negated errno.
    pub result: i32,
    flags: u32,
}

impl Completion {
    /// Whether a multishot operation will have further completions.
    pub fn more(&self) -> bool {
        io_uring::cqueue::more(self.flags)
    }

    /// The result as a count.
    ///
    /// # Errors
    /// The errno, as a positive number.
    pub fn outcome(&self) -> Result<usize, i32> {
        usize::try_from(self.result).map_err(|_| -self.result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tag_is_unpacked_as_it_was_packed() {
        for op in Op::ALL {
            for (generation, index) in [(0, 0), (1, 7), (0xff_ffff, u32::MAX)] {
                let tag = Tag { op, generation, index };
                assert_eq!(Tag::unpack(tag.pack()), Some(tag));
            }
        }
        assert_eq!(Tag::unpack(0), None);
    }
}
