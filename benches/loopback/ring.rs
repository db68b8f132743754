//! A minimal io_uring instance with provided buffers.

use io_uring::squeue::{Entry, Flags};
use io_uring::types::{BufRingEntry, Fixed};
use io_uring::{IoUring, cqueue, opcode};
use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

pub const GROUP: u16 = 0;
/// `IORING_ENTER_GETEVENTS`: runs deferred task work, without waiting for completions.
const GET_EVENTS: u32 = 1;

/// The operation, in the upper half of the user data; buffer and index follow.
pub const ACCEPT: u64 = 1;
pub const RECEIVE: u64 = 2;
pub const SEND: u64 = 3;

pub fn tag(op: u64, buffer: u16, index: u32) -> u64 {
    op << 56 | u64::from(buffer) << 32 | u64::from(index)
}

/// A decoded completion.
#[derive(Clone, Copy)]
pub struct Done {
    pub op: u64,
    /// The buffer in the user data, which a send has.
    pub buffer: u16,
    pub index: u32,
    pub result: i32,
    flags: u32,
}

impl Done {
    pub fn more(&self) -> bool {
        cqueue::more(self.flags)
    }

    /// The provided buffer that a receive has filled.
    pub fn filled(&self) -> Option<u16> {
        cqueue::buffer_select(self.flags)
    }
}

pub struct Ring {
    pub io: IoUring,
    pub buffers: Buffers,
}

impl Ring {
    /// A ring of the calling thread, with `count` provided buffers of `len` bytes.
    pub fn new(count: u16, len: u32) -> io::Result<Ring> {
        let mut builder = IoUring::builder();
        builder.setup_cqsize(16_384).setup_clamp().setup_submit_all();
        builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag();
        let io = builder.build(4096)?;
        let buffers = Buffers::new(count, len);
        // SAFETY: the entries are page-aligned, `count` of them, and never freed.
        unsafe {
            io.submitter().register_buf_ring_with_flags(buffers.entries as u64, count, GROUP, 0)?;
        }
        Ok(Ring { io, buffers })
    }

    /// Arms the multishot receive of registered file `index`.
    pub fn receive(&mut self, index: u32) -> io::Result<()> {
        let receive = opcode::RecvMulti::new(Fixed(index), GROUP).build();
        self.push(&receive.user_data(tag(RECEIVE, 0, index)))
    }

    /// Sends static bytes. There is a completion only if the send fails.
    pub fn send(&mut self, index: u32, bytes: &'static [u8]) -> io::Result<()> {
        let send = opcode::Send::new(Fixed(index), bytes.as_ptr(), bytes.len() as u32).build();
        self.push(&send.flags(Flags::SKIP_SUCCESS).user_data(tag(SEND, 0, index)))
    }

    pub fn push(&mut self, entry: &Entry) -> io::Result<()> {
        loop {
            // SAFETY: what the entry points at is static or a buffer of the ring.
            if unsafe { self.io.submission().push(entry) }.is_ok() {
                return Ok(());
            }
            match self.io.submit() {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
        }
    }

    /// Submits the prepared operations and reaps the completions; with `wait`, waits for at least
    /// one completion.
    pub fn turn(&mut self, wait: bool, done: &mut Vec<Done>) -> io::Result<()> {
        self.buffers.publish();
        let entered = if wait {
            self.io.submit_and_wait(1)
        } else {
            let prepared = self.io.submission().len() as u32;
            // SAFETY: no argument is passed.
            unsafe { self.io.submitter().enter::<()>(prepared, 0, GET_EVENTS, None) }
        };
        match entered {
            Err(error) if error.raw_os_error() != Some(libc::EINTR) => return Err(error),
            _ => {}
        }
        done.extend(self.io.completion().map(|entry| Done {
            op: entry.user_data() >> 56,
            buffer: (entry.user_data() >> 32) as u16,
            index: entry.user_data() as u32,
            result: entry.result(),
            flags: entry.flags(),
        }));
        Ok(())
    }
}

/// The provided buffers. They are never freed: a benchmark's ring lives as long as the process.
pub struct Buffers {
    entries: *mut BufRingEntry,
    memory: *mut u8,
    count: u16,
    len: u32,
    tail: u16,
}

impl Buffers {
    fn new(count: u16, len: u32) -> Buffers {
        let entries = pages(usize::from(count) * size_of::<BufRingEntry>()).cast();
        let memory = pages(usize::from(count) * (len as usize + 64));
        let mut buffers = Buffers { entries, memory, count, len, tail: 0 };
        (0..count).for_each(|buffer| buffers.give(buffer));
        buffers.publish();
        buffers
    }

    /// Returns a buffer to the ring; the kernel sees it in the next turn.
    pub fn give(&mut self, buffer: u16) {
        let address = self.start(buffer) as u64;
        // SAFETY: the position is below `count`, and the kernel does not read behind the tail.
        let entry = unsafe { &mut *self.entries.add((self.tail & (self.count - 1)) as usize) };
        entry.set_addr(address);
        entry.set_len(self.len);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
    }

    /// The first byte of a buffer. Neighbouring buffers start at different offsets in a page.
    pub fn start(&self, buffer: u16) -> *mut u8 {
        assert!(buffer < self.count);
        // SAFETY: `buffer < count`.
        unsafe { self.memory.add(usize::from(buffer) * (self.len as usize + 64)) }
    }

    /// The bytes that a receive has put into a buffer; they are valid until the buffer is returned.
    pub fn bytes(&mut self, buffer: u16, len: usize) -> &mut [u8] {
        assert!(len <= self.len as usize);
        // SAFETY: the buffer is ours until it is given back, and holds `len` bytes.
        unsafe { std::slice::from_raw_parts_mut(self.start(buffer), len) }
    }

    fn publish(&self) {
        // SAFETY: the tail lies in the first entry, aligned, and only this thread writes it.
        let tail = unsafe { &*BufRingEntry::tail(self.entries).cast::<AtomicU16>() };
        tail.store(self.tail, Ordering::Release);
    }
}

fn pages(bytes: usize) -> *mut u8 {
    let layout = Layout::from_size_align(bytes, 4096).expect("a size");
    // SAFETY: no caller asks for zero bytes.
    let start = unsafe { alloc_zeroed(layout) };
    if start.is_null() {
        handle_alloc_error(layout);
    }
    start
}
