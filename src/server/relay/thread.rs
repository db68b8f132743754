//! The thread between the cores of this process and the other process of an upgrade: one loop that
//! never waits for one of them while another has something for it.

use super::wire::{self, ChannelPart, Record};
use crate::cluster::{entry, event_of, part_of};
use crate::dialect::{Env, Event, Proposal, RelayDeparture, history_of};
use crate::hub::{Hasher, KeptChannel, RelayRole, Retention, Unpublished};
use crate::reactor::{CoreRelay, RelayProgress};
use crate::shard::{RelayArrival, RelayEnd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The bytes to the other process from which no further departures are taken.
const OUTPUT_MAX: usize = 1024 * 1024;
/// The bytes of proposals without an answer from which no further ones are taken.
const PENDING_MAX: usize = 16 * 1024 * 1024;
/// The estimated bytes of a proposal besides its frame.
const PROPOSAL_BYTES: usize = 256;
/// The size of one read.
const PIECE: usize = 256 * 1024;
/// The maximum number of arrivals that wait for a core until no more is read.
const STALLED_MAX: usize = 1024;
/// How long after a push into a core's full queue the next attempt is made, in milliseconds.
const RETRY_MS: i64 = 1;
/// The longest sleep, in milliseconds.
const IDLE_MS: i64 = 1000;
/// How long the cores may take for each step of the end.
const END: Duration = Duration::from_secs(5);

/// What the main thread asks the relay's thread to do.
#[derive(Debug, Default)]
pub(super) struct RelayOrders {
    /// The new process accepts: this one must not order its own events again.
    pub(super) is_committed: AtomicBool,
    /// The reactors have ended: send the rest, and end.
    pub(super) is_finishing: AtomicBool,
    /// Give the other process up.
    pub(super) is_closing: AtomicBool,
}

/// See the module's documentation.
pub(super) struct RelayThread {
    pub(super) role: RelayRole,
    pub(super) socket: UnixStream,
    /// What wakes the thread.
    pub(super) woken: Arc<OwnedFd>,
    pub(super) cores: Vec<CoreRelay>,
    pub(super) env: Arc<Env>,
    pub(super) hasher: Hasher,
    pub(super) orders: Arc<RelayOrders>,
    pub(super) progress: Arc<RelayProgress>,
    pub(super) state: RelayState,
}

/// What is on its way.
#[derive(Default)]
pub(super) struct RelayState {
    output: Vec<u8>,
    /// The bytes of `output` that are sent.
    sent: usize,
    input: Vec<u8>,
    /// Arrivals for cores whose queue was full, in their order.
    stalled: VecDeque<(u16, RelayArrival)>,
    /// Proposals without an answer, by number.
    pending: BTreeMap<u64, Box<Proposal>>,
    pending_bytes: usize,
    last_number: u64,
    /// The cores that have sent all that they keep.
    kept_ends: Vec<bool>,
    /// Whether all of them have.
    is_kept_sent: bool,
}

impl RelayThread {
    /// Runs until the other process is not there any more, or the main thread ends it.
    pub(super) fn run(mut self) {
        self.state.kept_ends = vec![false; self.cores.len()];
        let mut is_alive = true;
        while is_alive {
            let is_finishing = self.orders.is_finishing.load(Ordering::SeqCst);
            self.take_departures();
            is_alive = self.write() && self.read();
            self.push_stalled();
            let is_closed =
                self.orders.is_closing.load(Ordering::SeqCst) || self.progress.is_lost();
            if is_closed || is_finishing && self.is_drained() {
                break;
            }
            if is_alive && let Err(error) = self.wait() {
                tracing::error!(%error, "cannot wait for the other process of the upgrade");
                break;
            }
        }
        let _ = self.socket.shutdown(Shutdown::Both);
        if !self.orders.is_finishing.load(Ordering::SeqCst) {
            self.end();
        }
    }

    fn is_drained(&mut self) -> bool {
        self.state.output.is_empty() && self.cores.iter_mut().all(|it| !it.has_departures())
    }

    /// Waits until there is something to do.
    fn wait(&mut self) -> io::Result<()> {
        let is_stalled = !self.state.stalled.is_empty();
        let has_room = self.state.output.len() < OUTPUT_MAX;
        if has_room && self.may_take() && self.cores.iter_mut().any(|it| it.has_departures()) {
            return Ok(());
        }
        let mut interest = PollFlags::empty();
        if self.state.stalled.len() < STALLED_MAX {
            interest |= PollFlags::IN;
        }
        if !self.state.output.is_empty() {
            interest |= PollFlags::OUT;
        }
        let mut polled =
            [PollFd::new(&self.socket, interest), PollFd::new(&self.woken, PollFlags::IN)];
        let ms = if is_stalled { RETRY_MS } else { IDLE_MS };
        let limit = Timespec { tv_sec: ms / 1000, tv_nsec: ms % 1000 * 1_000_000 };
        match poll(&mut polled, Some(&limit)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        // An event that comes from here on wakes the next wait.
        let _ = rustix::io::read(&self.woken, &mut [0; 8]);
        Ok(())
    }

    // --- to the other process ---

    fn may_take(&self) -> bool {
        self.state.pending_bytes < PENDING_MAX
    }

    fn take_departures(&mut self) {
        for core in 0..self.cores.len() {
            // A core's events follow what it keeps, and wait until all cores have sent that.
            let is_replaced = self.role == RelayRole::Replaced;
            while self.state.output.len() < OUTPUT_MAX
                && self.may_take()
                && (!is_replaced || self.state.is_kept_sent || !self.state.kept_ends[core])
                && let Some(departure) = self.cores[core].next_departure()
            {
                self.send(core, departure);
            }
        }
    }

    fn send(&mut self, core: usize, departure: RelayDeparture) {
        match departure {
            RelayDeparture::Kept(kept) => {
                let env = self.env.clone();
                let Some(app) = env.apps.find(kept.app) else { return };
                if wire::write(&mut self.state.output, &Record::Kept(&app.config.id, *kept))
                    .is_err()
                {
                    tracing::warn!("a history is too long to be handed over");
                }
            }
            RelayDeparture::KeptEnd => {
                self.state.kept_ends[core] = true;
                if self.state.kept_ends.iter().all(|it| *it) {
                    self.state.is_kept_sent = true;
                    let _ = wire::write(&mut self.state.output, &Record::KeptEnd);
                }
            }
            RelayDeparture::Proposed(proposal) => self.propose(proposal),
            RelayDeparture::Ordered(ordered) => {
                let position = ordered.position;
                let written = match ordered.number {
                    Some(number) => {
                        wire::write(&mut self.state.output, &Record::Own { number, position })
                    }
                    None => self.write_event(
                        (ordered.name.app(), ordered.name.text()),
                        &ordered.event,
                        |event| Record::Ordered { position, event },
                    ),
                };
                if written.is_err() {
                    tracing::warn!("an event cannot be sent to the process that is replaced");
                }
            }
            RelayDeparture::Stopped => {}
        }
    }

    fn propose(&mut self, proposal: Box<Proposal>) {
        self.state.last_number += 1;
        let number = self.state.last_number;
        let in_history =
            matches!(proposal.event.retain, Retention::History(_) | Retention::CacheAndHistory(..));
        let channel = (proposal.app, &*proposal.name);
        let written = self.write_event(channel, &proposal.event, |event| Record::Proposed {
            number,
            in_history,
            event,
        });
        if written.is_err() {
            return self.return_proposal(proposal);
        }
        self.state.pending_bytes += bytes_of(&proposal);
        self.state.pending.insert(number, proposal);
    }

    /// Has an event that the other process cannot order ordered by this one.
    fn return_proposal(&mut self, proposal: Box<Proposal>) {
        let core = match proposal.origin {
            Some((core, _)) => core,
            None => self.hasher.home(proposal.app, &proposal.name, self.cores.len() as u16),
        };
        self.state.stalled.push_back((core, RelayArrival::Return(proposal)));
    }

    fn write_event(
        &mut self,
        (app, channel): (u32, &str),
        event: &Event,
        record: impl for<'r> Fn(ChannelPart<'r>) -> Record<'r>,
    ) -> Result<(), ()> {
        let app = self.env.apps.find(app).ok_or(())?;
        // What is kept in a history is decided by the process that orders.
        let retain = match &event.retain {
            Retention::CacheAndHistory(entry, _) => Retention::Cache(entry.clone()),
            Retention::Cache(entry) => Retention::Cache(entry.clone()),
            _ => Retention::Nothing,
        };
        let event = Event { retain, ..event.clone() };
        let (part, _) = part_of(&event, &self.env).ok_or(())?;
        let part = ChannelPart { app: &app.config.id, channel, part: &part };
        wire::write(&mut self.state.output, &record(part))
    }

    /// Sends as much as the socket takes. Returns whether it can be used.
    fn write(&mut self) -> bool {
        while self.state.sent < self.state.output.len() {
            match self.socket.write(&self.state.output[self.state.sent..]) {
                Ok(sent) => self.state.sent += sent,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // What the other process has sent before it ended is still to be read.
                Err(_) => break,
            }
        }
        self.state.output.clear();
        self.state.sent = 0;
        true
    }

    // --- from the other process ---

    /// Reads what is there. Returns whether more may come.
    fn read(&mut self) -> bool {
        let mut piece = vec![0; PIECE];
        while self.state.stalled.len() < STALLED_MAX {
            match self.socket.read(&mut piece) {
                Ok(0) => return false,
                Ok(count) => {
                    self.state.input.extend_from_slice(&piece[..count]);
                    if !self.take_records() {
                        tracing::error!("the other process of the upgrade sends malformed records");
                        return false;
                    }
                    self.push_stalled();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        true
    }

    /// Takes all whole records out of the input. Returns false if one is malformed.
    fn take_records(&mut self) -> bool {
        let input = std::mem::take(&mut self.state.input);
        let mut at = 0;
        loop {
            let rest = &input[at..];
            match wire::length(rest) {
                Ok(Some(length)) if length <= rest.len() => {
                    if self.take_record(&rest[4..length]).is_none() {
                        return false;
                    }
                    at += length;
                }
                Ok(_) => break,
                Err(()) => return false,
            }
        }
        self.state.input = input;
        self.state.input.drain(..at);
        true
    }

    fn take_record(&mut self, bytes: &[u8]) -> Option<()> {
        match wire::read(bytes)? {
            Record::Kept(app, kept) => {
                if let Some(app) = self.env.apps.by_id(app) {
                    let kept = Box::new(KeptChannel { app, ..kept });
                    self.send_home(app, &kept.name.clone(), RelayArrival::Kept(kept));
                }
            }
            Record::KeptEnd => {
                let cores = 0..self.cores.len() as u16;
                self.state.stalled.extend(cores.map(|core| (core, RelayArrival::KeptEnd)));
            }
            Record::Proposed { number, in_history, event } => {
                let Some(app) = self.env.apps.by_id(event.app) else {
                    return wire::write(&mut self.state.output, &Record::Refused { number }).ok();
                };
                let decoded = Box::new(self.event(app, &event, in_history)?);
                let channel = event.channel.into();
                let proposed = RelayArrival::Proposed { number, app, channel, event: decoded };
                self.send_home(app, event.channel, proposed);
            }
            Record::Ordered { position, event } => {
                let Some(app) = self.env.apps.by_id(event.app) else { return Some(()) };
                let decoded = Box::new(self.event(app, &event, position.is_some())?);
                let channel = event.channel.into();
                let ordered = RelayArrival::Ordered { app, channel, event: decoded, position };
                self.send_home(app, event.channel, ordered);
            }
            Record::Own { number, position } => {
                let proposal = self.settled(number)?;
                let (app, name) = (proposal.app, proposal.name.clone());
                self.send_home(app, &name, RelayArrival::Own(proposal, position));
            }
            Record::Refused { number } => {
                let proposal = self.settled(number)?;
                self.return_proposal(proposal);
            }
        }
        Some(())
    }

    /// The proposal with this number, which is answered.
    fn settled(&mut self, number: u64) -> Option<Box<Proposal>> {
        let proposal = self.state.pending.remove(&number)?;
        self.state.pending_bytes -= bytes_of(&proposal);
        Some(proposal)
    }

    /// An event of the other process, as this one keeps it.
    fn event(&self, app: u32, part: &ChannelPart<'_>, in_history: bool) -> Option<Event> {
        let decoded = part.event()?;
        let is_close = matches!(decoded.content, entry::PartContent::Close { .. });
        // Only the history of events of clients is a choice, and those exclude their sender.
        let in_history = in_history || decoded.excluded.is_none();
        let mut event = event_of(decoded, 0, &self.env);
        let history = history_of(&self.env, app, part.channel).filter(|_| in_history && !is_close);
        if let Some(history) = history {
            event.retain = match event.retain {
                Retention::Cache(entry) => Retention::CacheAndHistory(entry, history.limit),
                _ => Retention::History(history.limit),
            };
        }
        Some(event)
    }

    fn send_home(&mut self, app: u32, channel: &str, arrival: RelayArrival) {
        let core = self.hasher.home(app, channel, self.cores.len() as u16);
        self.state.stalled.push_back((core, arrival));
    }

    /// Sends the cores what is for them. Stops at a full queue, so that no core gets its events in
    /// another order.
    fn push_stalled(&mut self) {
        while let Some((core, arrival)) = self.state.stalled.pop_front() {
            let Some(link) = self.cores.get_mut(usize::from(core)) else { continue };
            if let Err(arrival) = link.push(arrival) {
                self.state.stalled.push_front((core, *arrival));
                break;
            }
        }
        self.cores.iter_mut().for_each(CoreRelay::wake);
    }

    // --- the end ---

    /// Leaves the cores to themselves: without an event that has no outcome.
    fn end(&mut self) {
        let is_committed = self.orders.is_committed.load(Ordering::SeqCst);
        if self.role == RelayRole::Replacement {
            self.push_all(|_| RelayArrival::End(RelayEnd::Alone));
            return;
        }
        self.push_all(|_| RelayArrival::Stop);
        let unsent = self.await_stop();
        let sent = std::mem::take(&mut self.state.pending).into_values();
        let sent = sent.map(|proposal| (proposal, Unpublished::Unknown));
        let unsent = unsent.into_iter().map(|it| (Box::new(it), Unpublished::Refused));
        for (proposal, why) in sent.chain(unsent) {
            match is_committed {
                true => {
                    let core = proposal.origin.map_or(0, |(core, _)| core);
                    self.state.stalled.push_back((core, RelayArrival::Failed(proposal, why)));
                }
                false => self.return_proposal(proposal),
            }
        }
        let end = if is_committed { RelayEnd::Closed } else { RelayEnd::Alone };
        self.push_all(|_| RelayArrival::End(end));
    }

    /// Sends each core an arrival after all that wait.
    fn push_all(&mut self, arrival: impl Fn(u16) -> RelayArrival) {
        let cores = 0..self.cores.len() as u16;
        self.state.stalled.extend(cores.map(|core| (core, arrival(core))));
        self.until(|thread| {
            thread.push_stalled();
            thread.state.stalled.is_empty()
        });
    }

    /// Takes the departures of all cores until each sends nothing more. Returns the proposals.
    fn await_stop(&mut self) -> Vec<Proposal> {
        let (mut proposals, mut stopped) = (Vec::new(), vec![false; self.cores.len()]);
        self.until(|thread| {
            for (core, link) in thread.cores.iter_mut().enumerate() {
                while let Some(departure) = link.next_departure() {
                    match departure {
                        RelayDeparture::Proposed(proposal) => proposals.push(*proposal),
                        RelayDeparture::Stopped => stopped[core] = true,
                        _ => {}
                    }
                }
            }
            stopped.iter().all(|it| *it)
        });
        proposals
    }

    /// Repeats a step until it is done, the cores have ended, or the time is over.
    fn until(&mut self, mut step: impl FnMut(&mut RelayThread) -> bool) {
        let end = Instant::now() + END;
        while !step(self) {
            if self.orders.is_finishing.load(Ordering::SeqCst) || Instant::now() >= end {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn bytes_of(proposal: &Proposal) -> usize {
    proposal.event.frame().map_or(0, |frame| frame.len()) + PROPOSAL_BYTES
}
