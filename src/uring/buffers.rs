//! The provided-buffer ring: the kernel writes received bytes to its buffers, so that connections
//! need no receive buffers of their own.
//!
//! All buffers are in one mapping. Their stride is one cache line more than their length, so that
//! the first lines of neighbours are in different cache sets: most messages are short and use only
//! the first lines.

use io_uring::types::BufRingEntry;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

/// The buffer group of every receive.
pub(super) const GROUP: u16 = 0;
const CACHE_LINE: usize = 64;

pub(super) struct Buffers {
    ring: Mapping,
    memory: Mapping,
    /// Number of buffers, a power of two up to 32768.
    count: u16,
    /// Usable bytes of each.
    len: u32,
    /// For each buffer, the one that was returned right after it: the order in which the kernel
    /// uses them.
    next_of: Vec<u16>,
    last_given: u16,
    tail: u16,
}

impl Buffers {
    pub(super) fn new(count: u16, len: u32) -> io::Result<Buffers> {
        debug_assert!(count.is_power_of_two());
        let stride = len as usize + CACHE_LINE;
        let mut buffers = Buffers {
            ring: Mapping::new(count as usize * size_of::<BufRingEntry>())?,
            memory: Mapping::new(count as usize * stride)?,
            count,
            len,
            next_of: vec![0; count as usize],
            last_given: 0,
            tail: 0,
        };
        for buffer in 0..count {
            buffers.give(buffer);
        }
        buffers.publish();
        Ok(buffers)
    }

    pub(super) fn register(&self, submitter: &io_uring::Submitter<'_>) -> io::Result<()> {
        let address = self.ring.start.as_ptr() as u64;
        // SAFETY: the mapping holds `count` entries and lives as long as the ring (see `Ring`).
        unsafe { submitter.register_buf_ring_with_flags(address, self.count, GROUP, 0) }
    }

    /// Bytes that both mappings hold.
    pub(super) fn bytes(&self) -> usize {
        self.ring.len + self.memory.len
    }

    /// Returns `buffer`; the kernel can use it after [`Buffers::publish`].
    fn give(&mut self, buffer: u16) {
        let position = self.tail & (self.count - 1);
        self.next_of[self.last_given as usize] = buffer;
        self.last_given = buffer;
        let base = self.ring.start.as_ptr().cast::<BufRingEntry>();
        let address = self.address(buffer) as u64;
        // SAFETY: `position < count`, so the entry is inside the mapping; the kernel does not read
        // entries from the published tail on.
        let entry = unsafe { &mut *base.add(position as usize) };
        entry.set_addr(address);
        entry.set_len(self.len);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Returns the buffers that a receive of `received` bytes, which began in `first`, has used.
    pub(super) fn give_back(&mut self, first: u16, received: usize) {
        let mut buffer = first & (self.count - 1);
        for _ in 0..received.max(1).div_ceil(self.len as usize) {
            let next = self.next_of[buffer as usize];
            self.give(buffer);
            buffer = next;
        }
    }

    /// Makes all returned buffers available to the kernel.
    pub(super) fn publish(&self) {
        let base = self.ring.start.as_ptr().cast::<BufRingEntry>();
        // SAFETY: the tail lies in the first entry's spare field, aligned for u16, and only this
        // thread writes it; the kernel reads it with acquire.
        let tail = unsafe { &*BufRingEntry::tail(base).cast::<AtomicU16>() };
        tail.store(self.tail, Ordering::Release);
    }

    fn address(&self, buffer: u16) -> *mut u8 {
        let offset = buffer as usize * (self.len as usize + CACHE_LINE);
        debug_assert!(offset + self.len as usize <= self.memory.len);
        // SAFETY: `buffer < count`, so the offset is inside the mapping.
        unsafe { self.memory.start.as_ptr().add(offset) }
    }
}

/// The received bytes of one completion, buffer by buffer.
pub(super) struct Pieces<'a> {
    buffers: &'a mut Buffers,
    buffer: u16,
    left: usize,
}

impl<'a> Pieces<'a> {
    pub(super) fn new(buffers: &'a mut Buffers, first: u16, received: usize) -> Pieces<'a> {
        let buffer = first & (buffers.count - 1);
        Pieces { buffers, buffer, left: received }
    }

    /// The next run of bytes, in the order in which they were received.
    pub(super) fn next_piece(&mut self) -> Option<&mut [u8]> {
        if self.left == 0 {
            return None;
        }
        let len = self.left.min(self.buffers.len as usize);
        let start = self.buffers.address(self.buffer);
        self.left -= len;
        self.buffer = self.buffers.next_of[self.buffer as usize];
        // SAFETY: the kernel has passed this buffer to us and does not access it until it is
        // returned, which needs the borrow that `self` holds.
        Some(unsafe { std::slice::from_raw_parts_mut(start, len) })
    }
}

/// A private anonymous mapping, zeroed and page-aligned.
struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

impl Mapping {
    fn new(len: usize) -> io::Result<Mapping> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new anonymous mapping aliases nothing.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Mapping { start, len })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `start` and `len` are those of the mmap, and no reference into it is left.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_of_a_bundle_are_read_in_ring_order_and_returned() {
        let mut buffers = Buffers::new(4, 16).expect("memory");
        // Buffer 1 is returned before buffer 0, so the kernel will use 2, 3, 1, 0.
        buffers.give_back(1, 3);
        buffers.give_back(0, 16);
        let starts = [3, 1, 0].map(|buffer| buffers.address(buffer).cast_const());
        let mut pieces = Pieces::new(&mut buffers, 3, 16 + 16 + 1);
        for (start, len) in starts.into_iter().zip([16, 16, 1]) {
            let piece = pieces.next_piece().expect("a piece");
            assert_eq!((piece.as_ptr(), piece.len()), (start, len));
        }
        assert!(pieces.next_piece().is_none());
        buffers.give_back(3, 33);
        assert_eq!(buffers.tail, 4 + 2 + 3);
        let order: Vec<u16> = [2, 3, 1].map(|buffer| buffers.next_of[buffer]).to_vec();
        assert_eq!(order, [3, 1, 0]);
    }
}
