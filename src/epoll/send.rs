//! SendBatch batches.

use crate::limits::FRAMES_PER_SEND;
use crate::mem::Segment;
use rustix::io::Errno;
use rustix::net::{self, SendAncillaryBuffer, SendFlags};
use std::io::IoSlice;
use std::os::fd::OwnedFd;

/// One batch that is being sent.
#[derive(Default)]
pub(super) struct SendBatch {
    segments: Vec<Segment>,
    /// The number of bytes of the batch that were sent, as far as they are settled.
    sent: usize,
    total: usize,
}

impl SendBatch {
    pub(super) fn load(&mut self, segments: Vec<Segment>) {
        debug_assert!((1..=FRAMES_PER_SEND).contains(&segments.len()));
        self.total = segments.iter().map(|segment| segment.len()).sum();
        self.segments = segments;
        self.sent = 0;
    }

    /// Sends the rest of the batch as far as the kernel takes it. Returns the number of sent bytes.
    pub(super) fn send(&self, socket: &OwnedFd) -> Result<usize, Errno> {
        let mut skip = self.sent;
        let mut count = 0;
        let mut slices = [IoSlice::new(&[]); FRAMES_PER_SEND];
        for segment in &self.segments {
            if skip >= segment.len() {
                skip -= segment.len();
                continue;
            }
            slices[count] = IoSlice::new(&segment[skip..]);
            (skip, count) = (0, count + 1);
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

    /// Counts `n` sent bytes. Returns whether the whole batch is sent.
    pub(super) fn advance(&mut self, n: usize) -> bool {
        self.sent += n;
        debug_assert!(self.sent <= self.total);
        self.sent >= self.total
    }

    pub(super) fn unload(&mut self) -> Vec<Segment> {
        let mut segments = std::mem::take(&mut self.segments);
        segments.clear();
        segments
    }
}
