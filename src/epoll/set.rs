//! The epoll set of one core, and the connections in it.

use super::accept::{Armed, ListenerSet};
use super::arena::Arena;
use super::send;
use crate::driver::{
    Completion, Driver, Op, SendBatch, Sent, Settings, SetupError, Tag, WakeHandle,
};
use crate::mem::{Segment, Slot};
use crate::stats::Counters;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, RecvFlags, Shutdown, SocketFlags, SocketType, sockopt};
use socket2::Socket;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

/// The maximum number of events of one turn. The others are returned by the next turn.
const EVENTS: usize = 1024;
/// Emptied batches that are kept for reuse.
const SPARE_BATCHES: usize = 1024;
/// What a socket without a peer's address has as such.
const NO_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// What waits until a socket is writable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Writing {
    #[default]
    Nothing,
    Send,
    Connect,
}

/// The receive of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Receiving {
    #[default]
    Off,
    On,
    /// It has ended because all buffers were in use, and is expected to start again.
    Starved,
}

/// One connection.
#[derive(Default)]
struct File {
    socket: Option<OwnedFd>,
    /// The short generation of the slot.
    generation: u32,
    receiving: Receiving,
    writing: Writing,
    /// The events for which the socket is registered in the epoll set; none if it is not in it.
    interest: EventFlags,
    outgoing: Option<Box<SendBatch>>,
}

impl File {
    /// The events for which the operations wait.
    fn wanted(&self) -> EventFlags {
        let mut wanted = EventFlags::empty();
        if self.receiving != Receiving::Off {
            wanted |= EventFlags::IN;
        }
        if self.writing != Writing::Nothing {
            wanted |= EventFlags::OUT;
        }
        wanted
    }

    /// Registers the socket for exactly the events for which its operations wait.
    fn register(&mut self, set: &OwnedFd, index: u32) -> Result<(), Errno> {
        let Some(socket) = &self.socket else { return Err(Errno::BADF) };
        let wanted = self.wanted();
        if wanted == self.interest {
            return Ok(());
        }
        let data = EventData::new_u64(Tag { op: Op::Receive, generation: 0, index }.pack());
        if self.interest.is_empty() {
            epoll::add(set, socket, data, wanted)?;
        } else if wanted.is_empty() {
            epoll::delete(set, socket)?;
        } else {
            epoll::modify(set, socket, data, wanted)?;
        }
        self.interest = wanted;
        Ok(())
    }
}

/// One core's epoll set with its connections and buffers.
pub struct Epoll {
    set: OwnedFd,
    /// Wakes this core. It is registered edge-triggered, so that it is never read.
    event: Arc<OwnedFd>,
    events: Vec<Event>,
    /// By the index of the slot.
    files: Vec<File>,
    listeners: ListenerSet,
    /// The address of the last peer of each accept place.
    peers: Box<[SocketAddr]>,
    buffers: Arena,
    /// Connections whose receive found no free buffer and has been started again, in that order.
    /// They are received from before all others.
    starved: Vec<u32>,
    /// Cores to be woken at the start of the next turn. Then all mail of this turn is in their
    /// mailboxes, and none of them is woken, and answers a client, before the others have theirs.
    wakes: Vec<Arc<OwnedFd>>,
    /// Completions of operations that have ended at once.
    ready: Vec<Completion>,
    #[expect(clippy::vec_box, reason = "a batch moves between the lists while it is idle")]
    spare: Vec<Box<SendBatch>>,
}

impl Driver for Epoll {
    const NAME: &'static str = "epoll";

    fn new(settings: Settings, _counters: Arc<Counters>) -> Result<Epoll, SetupError> {
        let step = |step| {
            move |error: Errno| SetupError { driver: Epoll::NAME, step, error: error.into() }
        };
        let set = epoll::create(CreateFlags::CLOEXEC).map_err(step("creating the epoll set"))?;
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(step("creating an event descriptor"))?;
        let wake = Tag { op: Op::Wake, generation: 0, index: 0 };
        let edge = EventFlags::IN | EventFlags::ET;
        epoll::add(&set, &event, EventData::new_u64(wake.pack()), edge)
            .map_err(step("adding to the epoll set"))?;
        Ok(Epoll {
            set,
            event: Arc::new(event),
            events: Vec::with_capacity(EVENTS),
            files: Vec::new(),
            listeners: ListenerSet::default(),
            peers: vec![NO_ADDRESS; settings.accepts as usize].into(),
            buffers: Arena::new(settings.buffers, settings.buffer_bytes),
            starved: Vec::new(),
            wakes: Vec::new(),
            ready: Vec::new(),
            spare: Vec::new(),
        })
    }

    fn fixed_bytes(&self) -> usize {
        self.buffers.bytes() + EVENTS * size_of::<Event>()
    }

    fn wake_handle(&self) -> WakeHandle {
        WakeHandle::Event(self.event.clone())
    }

    fn wake(&mut self, handle: &WakeHandle) {
        if let WakeHandle::Event(event) = handle {
            self.wakes.push(event.clone());
        }
    }

    fn accept(&mut self, place: u32, listener: &Arc<Socket>, file: u32) {
        if let Err(error) = self.listeners.arm(&self.set, listener, Armed { place, file }) {
            self.accept_ended(place, Err(error));
        }
    }

    fn accept_settled(&mut self) {}

    fn accepted(&mut self, done: &Completion) -> SocketAddr {
        self.peers.get(done.index as usize).copied().unwrap_or(NO_ADDRESS)
    }

    fn cancel_accepts(&mut self, _places: u32) {
        for armed in self.listeners.clear(&self.set) {
            self.accept_ended(armed.place, Err(Errno::CANCELED));
        }
    }

    fn socket(&mut self, slot: Slot, address: SocketAddr) {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = net::socket_with(family, SocketType::STREAM, flags, None);
        let file = self.file(slot);
        let made = socket.map(|socket| file.socket = Some(socket));
        self.end(Op::Socket, slot.index, made.map(|()| 0));
    }

    fn connect(&mut self, slot: Slot, address: SocketAddr) {
        let file = self.file(slot);
        let Some(socket) = &file.socket else {
            return self.end(Op::Connect, slot.index, Err(Errno::BADF));
        };
        // Without these options the connection works as well.
        let _ = sockopt::set_tcp_nodelay(socket, true);
        let _ = sockopt::set_socket_keepalive(socket, true);
        match net::connect(socket, &address) {
            Err(Errno::INPROGRESS | Errno::INTR) => {
                file.writing = Writing::Connect;
                self.watch(slot.index);
            }
            outcome => self.end(Op::Connect, slot.index, outcome.map(|()| 0)),
        }
    }

    fn connected(&mut self, _done: &Completion) {}

    fn cancel_connect(&mut self, slot: Slot) {
        self.cancel_writing(slot, Writing::Connect, Op::Connect);
    }

    fn receive(&mut self, slot: Slot) {
        let file = self.file(slot);
        let was_starved = file.receiving == Receiving::Starved;
        file.receiving = Receiving::On;
        if was_starved {
            self.starved.push(slot.index);
        }
        self.watch(slot.index);
    }

    fn take_received(&mut self, done: &Completion, each: impl FnMut(&mut [u8])) {
        if let Ok(received @ 1..) = done.outcome() {
            self.buffers.pieces(done.detail, received).for_each(each);
        }
    }

    /// Nothing to do: all buffers are free again in the next turn.
    fn give_back(&mut self, _done: &Completion) {}

    fn cancel_receive(&mut self, slot: Slot) {
        let file = self.file(slot);
        if file.receiving == Receiving::On {
            file.receiving = Receiving::Off;
            self.end(Op::Receive, slot.index, Err(Errno::CANCELED));
        }
    }

    fn send(&mut self, slot: Slot, batch: Vec<Segment>) {
        let mut outgoing = self.spare.pop().unwrap_or_default();
        outgoing.load(batch);
        let file = self.file(slot);
        debug_assert!(file.outgoing.is_none());
        file.outgoing = Some(outgoing);
        self.send_now(slot.index);
    }

    fn sent(&mut self, done: &Completion) -> Sent {
        let place = self.files.get_mut(done.index as usize).map(|file| &mut file.outgoing);
        let Some(place) = place else { return Sent::Failed(0) };
        let Some(mut outgoing) = place.take() else { return Sent::Failed(0) };
        let sent = outgoing.completed(done.outcome());
        match sent {
            Sent::Short(_) => *place = Some(outgoing),
            _ if self.spare.len() < SPARE_BATCHES => self.spare.push(outgoing),
            _ => {}
        }
        sent
    }

    /// Waits first: the kernel's buffer was full when it took only a part.
    fn send_rest(&mut self, slot: Slot) {
        let file = self.file(slot);
        if file.outgoing.is_some() {
            file.writing = Writing::Send;
            self.watch(slot.index);
        }
    }

    fn drop_rest(&mut self, slot: Slot) {
        self.file(slot).outgoing = None;
    }

    fn cancel_send(&mut self, slot: Slot) {
        self.cancel_writing(slot, Writing::Send, Op::Send);
    }

    fn shutdown(&mut self, slot: Slot) {
        let shut = match &self.file(slot).socket {
            Some(socket) => net::shutdown(socket, Shutdown::Write),
            None => Err(Errno::BADF),
        };
        self.end(Op::Shutdown, slot.index, shut.map(|()| 0));
    }

    fn close(&mut self, slot: Slot) {
        // The close of its only descriptor removes a socket from the epoll set.
        *self.file(slot) = File { generation: slot.short_generation(), ..File::default() };
        self.end(Op::Close, slot.index, Ok(0));
    }

    fn drop_spares(&mut self) {
        self.spare = Vec::new();
    }

    fn turn(&mut self, wait: Duration, done: &mut Vec<Completion>) -> io::Result<()> {
        self.buffers.reset();
        for event in self.wakes.drain(..) {
            // A core that is not woken finds its mail when its sleep ends.
            let _ = WakeHandle::notify(&event);
        }
        let wait = match self.ready.is_empty() && self.starved.is_empty() {
            true => wait,
            false => Duration::ZERO,
        };
        let timeout =
            Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) };
        let mut events = std::mem::take(&mut self.events);
        events.clear();
        let space = rustix::buffer::spare_capacity(&mut events);
        match epoll::wait(&self.set, space, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for index in std::mem::take(&mut self.starved) {
            self.receive_now(index);
        }
        for event in &events {
            let (data, flags) = (event.data, event.flags);
            match Tag::unpack(data.u64()) {
                Some(Tag { op: Op::Accept, index, .. }) => self.accept_now(index as RawFd),
                Some(Tag { op: Op::Wake, .. }) => self.ready.push(Completion {
                    op: Op::Wake,
                    index: 0,
                    generation: 0,
                    result: 0,
                    detail: 0,
                    more: false,
                }),
                Some(Tag { index, .. }) => self.socket_is_ready(index, flags),
                None => {}
            }
        }
        self.events = events;
        done.append(&mut self.ready);
        Ok(())
    }
}

impl Epoll {
    fn file(&mut self, slot: Slot) -> &mut File {
        let index = slot.index as usize;
        if index >= self.files.len() {
            self.files.resize_with(index + 1, File::default);
        }
        let file = &mut self.files[index];
        file.generation = slot.short_generation();
        file
    }

    /// Appends the completion of an operation.
    fn end(&mut self, op: Op, index: u32, outcome: Result<usize, Errno>) {
        let generation = self.files.get(index as usize).map_or(0, |file| file.generation);
        let result = outcome.map_or_else(|error| -error.raw_os_error(), |count| count as i32);
        self.ready.push(Completion { op, index, generation, result, detail: 0, more: false });
    }

    fn accept_ended(&mut self, place: u32, outcome: Result<usize, Errno>) {
        let result = outcome.map_or_else(|error| -error.raw_os_error(), |count| count as i32);
        let (op, index) = (Op::Accept, place);
        self.ready.push(Completion { op, index, generation: 0, result, detail: 0, more: false });
    }

    /// Accepts from a listening socket that has connections.
    fn accept_now(&mut self, descriptor: RawFd) {
        let mut all = Vec::new();
        self.listeners.accept(&self.set, descriptor, |armed, outcome| all.push((armed, outcome)));
        for (armed, outcome) in all {
            let settled = outcome.map(|(socket, address)| {
                let index = armed.file as usize;
                if index >= self.files.len() {
                    self.files.resize_with(index + 1, File::default);
                }
                self.files[index] = File { socket: Some(socket), ..File::default() };
                self.peers[armed.place as usize] = address;
                0
            });
            self.accept_ended(armed.place, settled);
        }
    }

    /// Registers a connection for what it waits for, if it is not registered for it yet.
    fn watch(&mut self, index: u32) {
        let file = &mut self.files[index as usize];
        if file.interest.contains(file.wanted()) {
            return;
        }
        let Err(error) = file.register(&self.set, index) else { return };
        // Nothing would tell when the operations can go on, so they fail.
        if std::mem::take(&mut file.receiving) == Receiving::On {
            self.end(Op::Receive, index, Err(error));
        }
        match std::mem::take(&mut self.files[index as usize].writing) {
            Writing::Nothing => {}
            Writing::Send => self.end(Op::Send, index, Err(error)),
            Writing::Connect => self.end(Op::Connect, index, Err(error)),
        }
    }

    /// Continues the operations of a connection whose socket has these events.
    fn socket_is_ready(&mut self, index: u32, flags: EventFlags) {
        let failed = flags.intersects(EventFlags::ERR | EventFlags::HUP);
        let Some(file) = self.files.get_mut(index as usize) else { return };
        if failed || flags.contains(EventFlags::IN) {
            match file.receiving {
                Receiving::On => self.receive_now(index),
                Receiving::Starved => file.receiving = Receiving::Off,
                Receiving::Off => {}
            }
        }
        if failed || flags.contains(EventFlags::OUT) {
            match std::mem::take(&mut self.files[index as usize].writing) {
                Writing::Nothing => {}
                Writing::Send => self.send_now(index),
                Writing::Connect => self.connect_ended(index),
            }
        }
        // A level-triggered event that nothing waits for would come again in each turn.
        let file = &mut self.files[index as usize];
        if file.wanted() != file.interest {
            let _ = file.register(&self.set, index);
        }
    }

    /// Receives once from a connection, if its receive is on.
    fn receive_now(&mut self, index: u32) {
        let Some(file) = self.files.get_mut(index as usize) else { return };
        let (Receiving::On, Some(socket)) = (file.receiving, &file.socket) else { return };
        let Some(space) = self.buffers.space() else {
            file.receiving = Receiving::Starved;
            return self.end(Op::Receive, index, Err(Errno::NOBUFS));
        };
        match net::recv(socket, space, RecvFlags::DONTWAIT) {
            Ok((0, _)) => {
                file.receiving = Receiving::Off;
                self.end(Op::Receive, index, Ok(0));
            }
            Ok((received, _)) => {
                let (op, generation) = (Op::Receive, file.generation);
                let (result, detail) = (received as i32, self.buffers.take(received));
                let more = true;
                self.ready.push(Completion { op, index, generation, result, detail, more });
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => {
                file.receiving = Receiving::Off;
                self.end(Op::Receive, index, Err(error));
            }
        }
    }

    /// Sends as much of a connection's batch as its socket takes now.
    fn send_now(&mut self, index: u32) {
        let file = &mut self.files[index as usize];
        let outcome = match (&file.outgoing, &file.socket) {
            (Some(outgoing), Some(socket)) => send::send(outgoing, socket),
            _ => Err(Errno::BADF),
        };
        match outcome {
            Err(Errno::AGAIN) => {
                file.writing = Writing::Send;
                self.watch(index);
            }
            outcome => self.end(Op::Send, index, outcome),
        }
    }

    fn connect_ended(&mut self, index: u32) {
        let outcome = match &self.files[index as usize].socket {
            Some(socket) => sockopt::socket_error(socket).and_then(|outcome| outcome),
            None => Err(Errno::BADF),
        };
        self.end(Op::Connect, index, outcome.map(|()| 0));
    }

    /// Ends the operation `op` if it waits until the socket of `slot` is writable.
    fn cancel_writing(&mut self, slot: Slot, waiting: Writing, op: Op) {
        let file = self.file(slot);
        if file.writing == waiting {
            file.writing = Writing::Nothing;
            self.end(op, slot.index, Err(Errno::CANCELED));
        }
    }
}
