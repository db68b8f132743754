//! Outgoing batches: segments that the kernel may read until their send has completed.

use crate::driver::SendBatch;
use io_uring::squeue::Entry;
use io_uring::{opcode, types};

/// One batch in flight. It is not moved in memory until the completion.
pub(super) struct Outgoing {
    pub(super) batch: SendBatch,
    vectors: Vec<libc::iovec>,
    message: libc::msghdr,
}

impl Outgoing {
    pub(super) fn new() -> Box<Outgoing> {
        // SAFETY: all-zero is a valid msghdr: null pointers and zero lengths.
        let message = unsafe { std::mem::zeroed() };
        Box::new(Outgoing { batch: SendBatch::default(), vectors: Vec::new(), message })
    }

    /// The operation that sends the rest of the batch.
    pub(super) fn entry(&mut self, file: types::Fixed) -> Entry {
        self.vectors.clear();
        self.vectors.extend(self.batch.rest().map(|rest| libc::iovec {
            iov_base: rest.as_ptr().cast_mut().cast(),
            iov_len: rest.len(),
        }));
        if let [one] = self.vectors[..] {
            let len = u32::try_from(one.iov_len).unwrap_or(u32::MAX);
            let send = opcode::Send::new(file, one.iov_base.cast(), len);
            return send.flags(libc::MSG_NOSIGNAL).build();
        }
        self.message.msg_iov = self.vectors.as_mut_ptr();
        // An int with musl, a size with glibc; there are few vectors.
        self.message.msg_iovlen = self.vectors.len() as _;
        opcode::SendMsg::new(file, &raw const self.message).flags(libc::MSG_NOSIGNAL as u32).build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::Segment;

    #[test]
    fn send_points_to_the_rest_of_the_batch() {
        let mut outgoing = Outgoing::new();
        let segments = [b"abc".as_slice(), b"de"].map(|bytes| Segment::Own(bytes.to_vec()));
        outgoing.batch.load(segments.into());
        for (sent, lengths) in [(0, &[3, 2][..]), (2, &[1, 2]), (1, &[2]), (1, &[1])] {
            let _ = outgoing.batch.completed(Ok(sent));
            let _ = outgoing.entry(types::Fixed(0));
            let found: Vec<usize> = outgoing.vectors.iter().map(|it| it.iov_len).collect();
            let starts: Vec<*const u8> =
                outgoing.vectors.iter().map(|it| it.iov_base.cast::<u8>().cast_const()).collect();
            assert_eq!(found, lengths);
            assert_eq!(starts, outgoing.batch.rest().map(<[u8]>::as_ptr).collect::<Vec<_>>());
        }
    }
}
