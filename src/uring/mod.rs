//! The kernel: one ring, its operations, its buffers, and every system call of the data plane.
//!
//! The rest of the house sees safe functions. Memory that the kernel reads or writes moves into
//! this module by value ([`Ring::send`]) or belongs to it (receive buffers, accept addresses), and
//! comes back when the completion says so; what is still in flight when a ring is dropped is
//! leaked on purpose, because the kernel may yet touch it.

#![allow(unsafe_code)]

mod accept;
mod buffers;
mod connect;
pub mod probe;
mod ring;
mod send;
pub mod sys;

pub use buffers::Pieces;
pub use ring::{Ring, Settings, SetupError, Waker};
pub use send::Sent;

/// What an operation was, packed into its completion's user data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Op {
    /// A new connection.
    Accept = 1,
    /// Multishot receive into the buffer ring.
    Receive,
    /// One vectored send.
    Send,
    /// Shutdown of our sending side.
    Shutdown,
    /// A cancellation itself.
    Cancel,
    /// Close of a direct descriptor.
    Close,
    /// Another core has put something into a mailbox of ours.
    Wake,
    /// A wake-up that we sent.
    WakeSent,
    /// A socket for a connection that is made from here.
    Socket,
    /// An option of such a socket.
    Option,
    /// Its connect.
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

/// Operation, slot and generation in one word: `op << 56 | generation << 32 | index`.
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
    /// Which operation ended or, for a multishot one, has a result.
    pub op: Op,
    /// The slot it was for, or the accept place.
    pub index: u32,
    /// The slot's generation when the operation was prepared.
    pub generation: u32,
    /// The kernel's result: a count, or a negated errno.
    pub result: i32,
    flags: u32,
}

impl Completion {
    /// Whether a multishot operation goes on after this completion.
    pub fn more(&self) -> bool {
        io_uring::cqueue::more(self.flags)
    }

    /// The result as a count, or the errno.
    pub fn outcome(&self) -> Result<usize, i32> {
        usize::try_from(self.result).map_err(|_| -self.result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_survives_the_word_that_the_kernel_carries() {
        for op in Op::ALL {
            for (generation, index) in [(0, 0), (1, 7), (0xff_ffff, u32::MAX)] {
                let tag = Tag { op, generation, index };
                assert_eq!(Tag::unpack(tag.pack()), Some(tag));
            }
        }
        assert_eq!(Tag::unpack(0), None);
    }
}
