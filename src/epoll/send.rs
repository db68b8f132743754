//! One system call that sends what is left of a batch.

use crate::driver::SendBatch;
use crate::limits::FRAMES_PER_SEND;
use rustix::io::Errno;
use rustix::net::{self, SendAncillaryBuffer, SendFlags};
use std::io::IoSlice;
use std::os::fd::OwnedFd;

/// Sends the rest of the batch as far as the kernel takes it. Returns the number of sent bytes.
pub(super) fn send(batch: &SendBatch, socket: &OwnedFd) -> Result<usize, Errno> {
    let mut slices = [IoSlice::new(&[]); FRAMES_PER_SEND];
    let mut count = 0;
    for rest in batch.rest() {
        slices[count] = IoSlice::new(rest);
        count += 1;
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    loop {
        let sent = match &slices[..count] {
            [one] => net::send(socket, one, flags),
            many => net::sendmsg(socket, many, &mut SendAncillaryBuffer::default(), flags),
        };
        if sent != Err(Errno::INTR) {
            return sent;
        }
    }
}
