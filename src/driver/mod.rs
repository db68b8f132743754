//! What a reactor needs of the kernel: the operations of one core, and their completions.
//!
//! A [`Driver`] is one of two: [`crate::uring::Ring`] on io_uring, or [`crate::epoll::Epoll`] where
//! the kernel or its profile does not allow io_uring. One is chosen at the start, and a reactor is
//! compiled for each of them, so that no call of a driver is a dynamic one. Both have the same
//! operations, the same bounds and the same completions.

mod batch;
mod wake;

pub use batch::SendBatch;
pub use wake::WakeHandle;

use crate::mem::{Segment, Slot, slots};
use crate::stats::Counters;
use socket2::Socket;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// The operations of one core.
///
/// An operation is prepared by a method and ends with a [`Completion`] that [`Driver::turn`]
/// returns. Connections are named by their slot, whose index is also that of their descriptor.
pub trait Driver: Sized {
    /// The name of the driver, as in the configuration.
    const NAME: &'static str;

    /// Sets up a driver that only the calling thread may use.
    ///
    /// # Errors
    /// The kernel has refused a step.
    fn new(settings: Settings, counters: Arc<Counters>) -> Result<Self, SetupError>;

    /// Bytes of memory that this driver holds at any load: queues and buffers.
    fn fixed_bytes(&self) -> usize;

    /// What wakes this driver's thread while it waits in [`Driver::turn`].
    fn wake_handle(&self) -> WakeHandle;

    /// Wakes the thread that waits on the driver of `handle`.
    fn wake(&mut self, handle: &WakeHandle);

    /// Accepts one connection from `listener` into the descriptor `file`, at a free `place`.
    fn accept(&mut self, place: u32, listener: &Arc<Socket>, file: u32);

    /// Frees the place of a completed accept.
    fn accept_settled(&mut self);

    /// The peer's address of the accept that has completed at the place of `done`.
    fn accepted(&mut self, done: &Completion) -> SocketAddr;

    /// Cancels the accepts at `0..places`; each completes, most of them with ECANCELED.
    fn cancel_accepts(&mut self, places: u32);

    /// Creates a socket for a connection to `address`, as the descriptor of `slot`.
    fn socket(&mut self, slot: Slot, address: SocketAddr);

    /// Connects the socket of `slot`, after setting its options.
    fn connect(&mut self, slot: Slot, address: SocketAddr);

    /// Frees the memory of a completed connect.
    fn connected(&mut self, done: &Completion);

    /// Cancels the connect of `slot`, which then completes with success or an error.
    fn cancel_connect(&mut self, slot: Slot);

    /// Starts the receive of `slot`. It completes for each received piece, until a completion
    /// without [`Completion::more`].
    fn receive(&mut self, slot: Slot);

    /// Passes the bytes of a completed receive to `each`, buffer by buffer in the order in which
    /// they were received, and then returns the buffers.
    fn take_received(&mut self, done: &Completion, each: impl FnMut(&mut [u8]));

    /// Returns the buffers of a completed receive without reading them.
    fn give_back(&mut self, done: &Completion);

    /// Cancels the receive of `slot`; it completes with ECANCELED.
    fn cancel_receive(&mut self, slot: Slot);

    /// Sends `batch`, 1 to [`crate::limits::FRAMES_PER_SEND`] segments, which belongs to the driver
    /// until the completion. A slot has at most one batch in flight.
    fn send(&mut self, slot: Slot, batch: Vec<Segment>);

    /// Settles a completed send. After [`Sent::Short`] call [`Driver::send_rest`] or
    /// [`Driver::drop_rest`].
    fn sent(&mut self, done: &Completion) -> Sent;

    /// Sends the rest of the batch after a short send.
    fn send_rest(&mut self, slot: Slot);

    /// Drops the rest of the batch after a short send, because the connection is being closed.
    fn drop_rest(&mut self, slot: Slot);

    /// Cancels the send of `slot`, which then completes with success or an error.
    fn cancel_send(&mut self, slot: Slot);

    /// Shuts down our sending side: the peer reads the end of file after everything sent before.
    fn shutdown(&mut self, slot: Slot);

    /// Closes the descriptor of `slot`.
    fn close(&mut self, slot: Slot);

    /// Frees the memory of batches that are kept for reuse.
    fn drop_spares(&mut self);

    /// Submits all prepared operations, waits up to `wait` for a completion (not at all if it is
    /// zero), and appends every completion to `done`. The caller processes all of them before the
    /// next turn.
    ///
    /// # Errors
    /// The kernel refused to submit or to wait, for another reason than a full queue.
    fn turn(&mut self, wait: Duration, done: &mut Vec<Completion>) -> io::Result<()>;
}

/// Sizes of a driver.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The maximum number of connections.
    pub files: u32,
    /// The number of receive buffers, a power of two up to 32768.
    pub buffers: u16,
    /// Bytes of each receive buffer.
    pub buffer_bytes: u32,
    /// The maximum number of accepts in flight over all listeners.
    pub accepts: u32,
    /// Whether an io_uring accepts only the operations that reactors need.
    pub restricted: bool,
}

/// A step of the set-up of a driver that the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("{driver}: {step} has failed: {error}")]
pub struct SetupError {
    /// The name of the driver.
    pub driver: &'static str,
    /// The step of the set-up.
    pub step: &'static str,
    /// The kernel's error.
    pub error: io::Error,
}

/// The result of one completed send.
#[derive(Debug)]
pub enum Sent {
    /// This many bytes were sent; the rest of the batch must still be sent.
    Short(usize),
    /// The whole batch is sent. Holds the number of bytes of this last send, and the emptied list
    /// for reuse.
    Whole(usize, Vec<Segment>),
    /// The batch is lost. Holds the errno.
    Failed(i32),
}

/// The kind of an operation, which is packed into its tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Op {
    /// Accept of a new connection.
    Accept = 1,
    /// Receive, with several completions.
    Receive,
    /// One vectored send.
    Send,
    /// Shutdown of our sending side.
    Shutdown,
    /// Cancellation of another operation.
    Cancel,
    /// Close of a descriptor.
    Close,
    /// A message from another core: there is mail.
    Wake,
    /// A message that we sent to another core.
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
    pub(crate) op: Op,
    pub(crate) generation: u32,
    pub(crate) index: u32,
}

impl Tag {
    pub(crate) fn pack(self) -> u64 {
        (self.op as u64) << 56 | u64::from(self.generation) << 32 | u64::from(self.index)
    }

    pub(crate) fn unpack(data: u64) -> Option<Tag> {
        let op = Op::ALL.into_iter().find(|op| *op as u64 == data >> 56)?;
        let generation = (data >> 32) as u32 & slots::GENERATION_MASK;
        Some(Tag { op, generation, index: data as u32 })
    }
}

/// One reaped completion.
#[derive(Clone, Copy, Debug)]
pub struct Completion {
    /// The operation that has ended or, if it is a receive, has a result.
    pub op: Op,
    /// The index of its slot, or of its accept place.
    pub index: u32,
    /// The slot's generation when the operation was prepared.
    pub generation: u32,
    /// The result: a count, or a negated errno.
    pub result: i32,
    /// What the driver needs to find the buffers of a receive.
    pub(crate) detail: u32,
    pub(crate) more: bool,
}

impl Completion {
    /// Whether a receive will have further completions.
    pub fn more(&self) -> bool {
        self.more
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
