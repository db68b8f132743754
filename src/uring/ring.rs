//! The ring of one core: submission, completion, and the memory of operations in flight.

use super::accept::PendingAccept;
use super::buffers::{self, Buffers, Pieces};
use super::connect::{self, ConnectPlace};
use super::kernel;
use super::send::Outgoing;
use crate::driver::{Completion, Driver, Op, Sent, Settings, SetupError, Tag, WakeHandle};
use crate::mem::{Segment, Slot};
use crate::stats::Counters;
use io_uring::squeue::Entry;
use io_uring::{IoUring, opcode, types};
use socket2::Socket;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::mem::ManuallyDrop;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

/// Submission entries. A turn that prepares more operations submits them in several system calls.
const SUBMISSIONS: u32 = 4096;
/// The maximum number of completion entries, which take 1 MiB. A turn can complete a receive and a
/// send per connection.
const COMPLETIONS_MAX: u32 = 65_536;
/// Emptied batches that are kept for reuse.
const SPARE_BATCHES: usize = 1024;

/// One core's ring with all memory that its operations use.
pub struct Ring {
    // Declared first, so dropped first: the ring is closed before its memory is freed.
    io: IoUring,
    buffers: ManuallyDrop<Buffers>,
    sends: Vec<Option<Box<Outgoing>>>,
    #[expect(clippy::vec_box, reason = "a batch moves between the lists while it is idle")]
    spare: Vec<Box<Outgoing>>,
    places: Box<[PendingAccept]>,
    /// Addresses of connects in flight, by direct descriptor.
    connects: HashMap<u32, Box<ConnectPlace>>,
    /// Operations for which the submission queue had no room.
    waiting: VecDeque<Entry>,
    bundles: bool,
    /// Accepts, connects, receives and sends whose memory the kernel may touch.
    in_flight: usize,
    counters: Arc<Counters>,
}

impl Driver for Ring {
    const NAME: &'static str = "io_uring";

    fn new(settings: Settings, counters: Arc<Counters>) -> Result<Ring, SetupError> {
        let step = |step| move |error| SetupError { driver: Ring::NAME, step, error };
        let completions = (settings.files.saturating_mul(2)).clamp(8192, COMPLETIONS_MAX);
        let io = build(completions, settings.restricted).map_err(step("setting up the ring"))?;
        let submitter = io.submitter();
        submitter
            .register_files_sparse(settings.files)
            .map_err(step("registering the file table"))?;
        let buffers = Buffers::new(settings.buffers, settings.buffer_bytes)
            .map_err(step("mapping receive buffers"))?;
        buffers.register(&submitter).map_err(step("registering receive buffers"))?;
        if settings.restricted {
            restrict(&submitter).map_err(step("restricting the ring"))?;
        }
        let bundles = io.params().is_feature_recvsend_bundle() && kernel::bundles_are_sound();
        Ok(Ring {
            io,
            buffers: ManuallyDrop::new(buffers),
            sends: Vec::new(),
            spare: Vec::new(),
            places: (0..settings.accepts).map(|_| PendingAccept::new()).collect(),
            connects: HashMap::new(),
            waiting: VecDeque::new(),
            bundles,
            in_flight: 0,
            counters,
        })
    }

    fn fixed_bytes(&self) -> usize {
        let params = self.io.params();
        let queues = params.sq_entries() as usize * 64 + params.cq_entries() as usize * 16;
        queues + self.buffers.bytes()
    }

    fn wake_handle(&self) -> WakeHandle {
        WakeHandle::Ring(self.io.as_raw_fd())
    }

    fn wake(&mut self, handle: &WakeHandle) {
        match handle {
            WakeHandle::Ring(descriptor) => {
                let entry = wake_entry(*descriptor);
                self.push(entry, Tag { op: Op::WakeSent, generation: 0, index: 0 });
            }
            // A core that is not woken finds its mail when its sleep ends.
            WakeHandle::Event(event) => drop(WakeHandle::notify(event)),
        }
    }

    fn accept(&mut self, place: u32, listener: &Arc<Socket>, file: u32) {
        let listener = listener.as_raw_fd();
        if let Some(entry) = self.places[place as usize].entry(listener, file) {
            self.in_flight += 1;
            self.push(entry, Tag { op: Op::Accept, generation: 0, index: place });
        }
    }

    fn accept_settled(&mut self) {
        self.in_flight -= 1;
    }

    fn accepted(&mut self, done: &Completion) -> SocketAddr {
        self.places[done.index as usize].peer()
    }

    fn cancel_accepts(&mut self, places: u32) {
        for place in 0..places {
            let accept = Tag { op: Op::Accept, generation: 0, index: place };
            let entry = opcode::AsyncCancel::new(accept.pack()).build();
            self.push(entry, Tag { op: Op::Cancel, generation: 0, index: u32::MAX });
        }
    }

    fn socket(&mut self, slot: Slot, address: SocketAddr) {
        if let Some(entry) = connect::socket_entry(slot.index, address) {
            self.push(entry, tag(Op::Socket, slot));
        }
    }

    fn connect(&mut self, slot: Slot, address: SocketAddr) {
        for entry in connect::option_entries(slot.index) {
            self.push(entry, tag(Op::Option, slot));
        }
        let place = ConnectPlace::new(address);
        let entry = place.entry(slot.index);
        self.connects.insert(slot.index, place);
        self.in_flight += 1;
        self.push(entry, tag(Op::Connect, slot));
    }

    fn connected(&mut self, done: &Completion) {
        self.in_flight -= 1;
        self.connects.remove(&done.index);
    }

    fn cancel_connect(&mut self, slot: Slot) {
        let entry = opcode::AsyncCancel::new(tag(Op::Connect, slot).pack()).build();
        self.push(entry, tag(Op::Cancel, slot));
    }

    fn receive(&mut self, slot: Slot) {
        let file = types::Fixed(slot.index);
        let entry = if self.bundles {
            opcode::RecvMultiBundle::new(file, buffers::GROUP).build()
        } else {
            opcode::RecvMulti::new(file, buffers::GROUP).build()
        };
        self.in_flight += 1;
        self.push(entry, tag(Op::Receive, slot));
    }

    fn take_received(&mut self, done: &Completion, mut each: impl FnMut(&mut [u8])) {
        if let Some(first) = io_uring::cqueue::buffer_select(done.detail) {
            let received = done.result.max(0) as usize;
            let mut pieces = Pieces::new(&mut self.buffers, first, received);
            while let Some(piece) = pieces.next_piece() {
                each(piece);
            }
            self.buffers.give_back(first, received);
        }
    }

    fn give_back(&mut self, done: &Completion) {
        if let Some(first) = io_uring::cqueue::buffer_select(done.detail) {
            self.buffers.give_back(first, done.result.max(0) as usize);
        }
    }

    fn cancel_receive(&mut self, slot: Slot) {
        let entry = opcode::AsyncCancel::new(tag(Op::Receive, slot).pack()).build();
        self.push(entry, tag(Op::Cancel, slot));
    }

    fn send(&mut self, slot: Slot, batch: Vec<Segment>) {
        let index = slot.index as usize;
        if index >= self.sends.len() {
            self.sends.resize_with(index + 1, || None);
        }
        debug_assert!(self.sends[index].is_none());
        let mut outgoing = self.spare.pop().unwrap_or_else(Outgoing::new);
        outgoing.batch.load(batch);
        let entry = outgoing.entry(types::Fixed(slot.index));
        self.sends[index] = Some(outgoing);
        self.in_flight += 1;
        self.push(entry, tag(Op::Send, slot));
    }

    fn sent(&mut self, done: &Completion) -> Sent {
        self.in_flight -= 1;
        let Some(place) = self.sends.get_mut(done.index as usize) else {
            return Sent::Failed(0);
        };
        let Some(mut outgoing) = place.take() else {
            return Sent::Failed(0);
        };
        let sent = outgoing.batch.completed(done.outcome());
        match sent {
            Sent::Short(_) => *place = Some(outgoing),
            _ if self.spare.len() < SPARE_BATCHES => self.spare.push(outgoing),
            _ => {}
        }
        sent
    }

    fn send_rest(&mut self, slot: Slot) {
        let Some(Some(outgoing)) = self.sends.get_mut(slot.index as usize) else {
            return;
        };
        let entry = outgoing.entry(types::Fixed(slot.index));
        self.in_flight += 1;
        self.push(entry, tag(Op::Send, slot));
    }

    fn drop_rest(&mut self, slot: Slot) {
        if let Some(place) = self.sends.get_mut(slot.index as usize) {
            *place = None;
        }
    }

    fn cancel_send(&mut self, slot: Slot) {
        let entry = opcode::AsyncCancel::new(tag(Op::Send, slot).pack()).build();
        self.push(entry, tag(Op::Cancel, slot));
    }

    fn shutdown(&mut self, slot: Slot) {
        let entry = opcode::Shutdown::new(types::Fixed(slot.index), libc::SHUT_WR).build();
        self.push(entry, tag(Op::Shutdown, slot));
    }

    fn close(&mut self, slot: Slot) {
        let entry = opcode::Close::new(types::Fixed(slot.index)).build();
        self.push(entry, tag(Op::Close, slot));
    }

    fn drop_spares(&mut self) {
        self.spare = Vec::new();
    }

    fn turn(&mut self, wait: Duration, done: &mut Vec<Completion>) -> io::Result<()> {
        self.buffers.publish();
        self.push_waiting();
        let entered = if wait.is_zero() || !self.waiting.is_empty() {
            self.io.submit()
        } else {
            let timeout = types::Timespec::from(wait);
            let arguments = types::SubmitArgs::new().timespec(&timeout);
            self.io.submitter().submit_with_args(1, &arguments)
        };
        match entered.map_err(|error| error.raw_os_error().ok_or(error)) {
            Ok(_) | Err(Ok(libc::ETIME | libc::EINTR)) => {}
            Err(Ok(libc::EBUSY | libc::EAGAIN)) => self.counters.submission_busy.add(1),
            Err(Ok(errno)) => return Err(io::Error::from_raw_os_error(errno)),
            Err(Err(error)) => return Err(error),
        }
        if self.io.submission().cq_overflow() {
            self.counters.completion_overflow.add(1);
        }
        for entry in self.io.completion() {
            if let Some(tag) = Tag::unpack(entry.user_data()) {
                let more = io_uring::cqueue::more(entry.flags());
                if tag.op == Op::Receive && !more {
                    self.in_flight -= 1;
                }
                done.push(Completion {
                    op: tag.op,
                    index: tag.index,
                    generation: tag.generation,
                    result: entry.result(),
                    detail: entry.flags(),
                    more,
                });
            }
        }
        Ok(())
    }
}

impl Ring {
    fn push(&mut self, entry: Entry, tag: Tag) {
        let entry = entry.user_data(tag.pack());
        if !self.waiting.is_empty() {
            self.waiting.push_back(entry);
            return;
        }
        // SAFETY: each entry's memory belongs to this ring (accept places, addresses, batches in
        // flight) and stays until the completion, or is static, or the entry points at none.
        if unsafe { self.io.submission().push(&entry) }.is_ok() {
            return;
        }
        self.counters.submission_full.add(1);
        let _ = self.io.submit();
        // SAFETY: as above.
        if unsafe { self.io.submission().push(&entry) }.is_err() {
            // The kernel takes no more until completions are reaped. The list is bounded by the
            // number of operations that all connections can have in flight.
            self.waiting.push_back(entry);
        }
    }

    fn push_waiting(&mut self) {
        while let Some(entry) = self.waiting.front() {
            // SAFETY: as in `push`.
            if unsafe { self.io.submission().push(entry) }.is_err() {
                return;
            }
            self.waiting.pop_front();
        }
    }

    /// Tries an operation that this module does not use, and a registration. Returns the errno with
    /// which each was refused, or `None` if it was not. Only for a ring with nothing in flight.
    pub fn refuses_others(&mut self) -> io::Result<(Option<i32>, Option<i32>)> {
        let entry = opcode::Nop::new().build().user_data(0);
        // SAFETY: the entry points at no memory.
        let pushed = unsafe { self.io.submission().push(&entry) };
        pushed.map_err(io::Error::other)?;
        self.io.submit_and_wait(1)?;
        let results: Vec<i32> = self.io.completion().map(|entry| entry.result()).collect();
        let operation = results.first().filter(|result| **result < 0).map(|result| -result);
        let registered = self.io.submitter().register_probe(&mut io_uring::Probe::new());
        Ok((operation, registered.err().and_then(|error| error.raw_os_error())))
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if self.in_flight > 0 {
            // Closing a ring ends its operations later, not at once, so their memory is leaked.
            std::mem::forget(std::mem::take(&mut self.sends));
            std::mem::forget(std::mem::take(&mut self.places));
            std::mem::forget(std::mem::take(&mut self.connects));
        } else {
            // SAFETY: nothing is in flight, and the buffers are not used again.
            unsafe { ManuallyDrop::drop(&mut self.buffers) };
        }
    }
}

/// Wakes sleeping reactors from threads without a ring: signals and the control thread.
pub struct RingWaker {
    io: IoUring,
}

impl RingWaker {
    /// Creates a small ring that sends the wake-ups.
    pub fn new() -> io::Result<RingWaker> {
        Ok(RingWaker { io: IoUring::new(8)? })
    }

    /// Wakes the thread that waits on the ring with `descriptor`.
    pub fn wake(&mut self, descriptor: RawFd) -> io::Result<()> {
        let entry = wake_entry(descriptor).user_data(1);
        // SAFETY: the entry points at no memory.
        let pushed = unsafe { self.io.submission().push(&entry) };
        if pushed.is_err() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.io.submit_and_wait(1)?;
        self.io.completion().for_each(drop);
        Ok(())
    }
}

fn wake_entry(descriptor: RawFd) -> Entry {
    let wake = Tag { op: Op::Wake, generation: 0, index: 0 }.pack();
    opcode::MsgRingData::new(types::Fd(descriptor), 0, wake, None).build()
}

fn tag(op: Op, slot: Slot) -> Tag {
    Tag { op, generation: slot.short_generation(), index: slot.index }
}

/// The operations that this module submits. An operation that is missing here completes with
/// EACCES.
const OPERATIONS: [u8; 11] = [
    opcode::Accept::CODE,
    opcode::AsyncCancel::CODE,
    opcode::Close::CODE,
    opcode::Connect::CODE,
    opcode::MsgRingData::CODE,
    opcode::RecvMulti::CODE,
    opcode::Send::CODE,
    opcode::SendMsg::CODE,
    opcode::SetSockOpt::CODE,
    opcode::Shutdown::CODE,
    opcode::Socket::CODE,
];

/// Restricts the ring to these operations and flags, and forbids further registrations, because all
/// of them are done. So an attacker who can write to the queues of the ring cannot open files with
/// it.
fn restrict(submitter: &io_uring::Submitter<'_>) -> io::Result<()> {
    use io_uring::register::Restriction;
    let flags = io_uring::squeue::Flags::FIXED_FILE | io_uring::squeue::Flags::BUFFER_SELECT;
    let mut rules: Vec<Restriction> = OPERATIONS.into_iter().map(Restriction::sqe_op).collect();
    rules.push(Restriction::sqe_flags_allowed(flags.bits()));
    submitter.register_restrictions(&mut rules)?;
    submitter.register_enable_rings()
}

/// Creates the ring. Tries the newest set of flags first; a kernel that does not know a flag fails
/// with EINVAL.
fn build(completions: u32, disabled: bool) -> io::Result<IoUring> {
    let attempt = |no_array: bool| {
        let mut builder = IoUring::builder();
        builder
            .setup_cqsize(completions)
            .setup_clamp()
            .setup_submit_all()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .dontfork();
        if disabled {
            builder.setup_r_disabled();
        }
        if no_array {
            builder.setup_no_sqarray();
        }
        builder.build(SUBMISSIONS)
    };
    attempt(true).or_else(|_| attempt(false))
}
