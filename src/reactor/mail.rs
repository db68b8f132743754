//! Mail between cores: two mailboxes for each ordered pair of cores, and the waking of cores that
//! sleep.

use super::relay_link::RelayOffer;
use super::requests::RequestsBefore;
use super::{Accepting, Inbox, Outbox, Reactor};
use crate::dialect::Env;
use crate::dialect::{Down, Up};
use crate::driver::{Driver, WakeHandle};
use crate::mem::mailbox::{Receiver, Sender, mailbox};
use crate::mem::park::Parking;
use crate::shard::Shard;
use crate::time::Now;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

/// The maximum number of messages taken from one mailbox in one turn, so that mail cannot starve
/// the connections.
const TAKEN_PER_TURN: usize = 4096;

/// The number of messages taken from one mailbox even in a turn that has used up its share of work.
pub(super) const MIN_TAKEN: usize = 64;

/// The queue to the control thread and, for one core, the queue from it.
pub type PeerLinks = (Outbox, Option<Inbox>);

/// The state of one core that all threads can access.
#[repr(align(128))]
pub struct Peer {
    /// Whether the core sleeps in the kernel, or is about to.
    pub parking: Parking,
    /// Whether the core is to drain and end.
    pub stop: AtomicBool,
    /// What wakes the core, from the moment when its driver exists.
    pub wake: OnceLock<WakeHandle>,
    /// A reloaded configuration that the core has not applied yet.
    pub reloaded: Mutex<Option<Arc<Env>>>,
    /// Queues to and from the control thread that the core does not use yet. They are stored here
    /// before the first configuration that needs them.
    pub control: Mutex<Option<PeerLinks>>,
    /// Whether the core has no room for new connections, so that other cores may accept from its
    /// sockets.
    pub full: AtomicBool,
    /// Whether the core accepts connections, or is to pause.
    pub accepting: Accepting,
    /// Queues to and from the other process of an upgrade that the core does not use yet.
    pub relay: RelayOffer,
    /// Whether the core has finished its drain, or has ended for another reason.
    idle: AtomicBool,
}

impl Peer {
    /// Takes the reloaded configuration, if there is one.
    pub(super) fn take_reloaded(&self) -> Option<Arc<Env>> {
        self.reloaded.try_lock().ok()?.take()
    }

    /// Takes the new queues to and from the control thread, if there are any.
    pub(super) fn take_peer_links(&self) -> Option<PeerLinks> {
        self.control.lock().ok()?.take()
    }
}

/// The shared state of all cores of a process.
pub struct Peers {
    cores: Vec<Peer>,
    /// The number of cores that are not idle yet; the drain is over at 0.
    busy: AtomicUsize,
}

impl Peers {
    /// Creates the state of `count` cores, none of which has a driver yet.
    pub fn new(count: u16) -> Peers {
        let peer = |_| Peer {
            parking: Parking::new(),
            stop: AtomicBool::new(false),
            wake: OnceLock::new(),
            reloaded: Mutex::new(None),
            control: Mutex::new(None),
            full: AtomicBool::new(false),
            accepting: Accepting::default(),
            relay: RelayOffer::default(),
            idle: AtomicBool::new(false),
        };
        Peers { cores: (0..count).map(peer).collect(), busy: AtomicUsize::new(count.into()) }
    }

    /// Notes that a core has nothing left to drain.
    pub fn note_idle(&self, core: u16) {
        if !self.core(core).idle.swap(true, Ordering::AcqRel) {
            self.busy.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// The state of one core.
    pub fn core(&self, core: u16) -> &Peer {
        &self.cores[usize::from(core)]
    }
}

/// The sending ends of the mailboxes to one other core.
struct MailSender {
    up: Sender<Up>,
    down: Sender<Down>,
}

/// The receiving ends of the mailboxes from one other core.
struct MailReceiver {
    up: Receiver<Up>,
    down: Receiver<Down>,
}

impl MailReceiver {
    /// Takes requests of core `from`, `max` at most, while the turn has a share of work and there
    /// is room for the mail that they cause. Returns how many.
    fn take_requests(&mut self, from: usize, shard: &mut Shard, now: Now, max: usize) -> usize {
        for taken in 0..max {
            if !shard.takes_requests() || taken >= MIN_TAKEN && !shard.has_work_left() {
                return taken;
            }
            let Some(request) = self.up.pop() else { return taken };
            shard.request(from as u16, request, now);
        }
        max
    }
}

/// One core's ends of all its mailboxes.
pub struct Mail {
    core: u16,
    peers: Arc<Peers>,
    /// By the number of the other core; `None` for this core.
    to: Vec<Option<MailSender>>,
    from: Vec<Option<MailReceiver>>,
}

/// Creates the mailboxes between all cores, each for at least `capacity` messages. Returns the ends
/// of each core.
pub fn wire(peers: &Arc<Peers>, capacity: usize) -> Vec<Mail> {
    let cores = 0..peers.cores.len();
    let mail = |core| {
        let (to, from) = (Vec::new(), Vec::new());
        Mail { core: core as u16, peers: peers.clone(), to, from }
    };
    let mut mails: Vec<Mail> = cores.clone().map(mail).collect();
    for from in cores.clone() {
        for to in cores.clone() {
            let (sender, receiver) = if from == to {
                (None, None)
            } else {
                let (up_in, up_out) = mailbox(capacity);
                let (down_in, down_out) = mailbox(capacity);
                let sender = MailSender { up: up_in, down: down_in };
                (Some(sender), Some(MailReceiver { up: up_out, down: down_out }))
            };
            mails[from].to.push(sender);
            mails[to].from.push(receiver);
        }
    }
    mails
}

impl Mail {
    pub(super) fn me(&self) -> &Peer {
        self.peers.core(self.core)
    }

    /// The number of this core.
    pub(super) fn core(&self) -> u16 {
        self.core
    }

    /// The number of cores.
    pub(super) fn count(&self) -> usize {
        self.peers.cores.len()
    }

    /// The state of a core that all threads can access.
    pub(super) fn peer(&self, core: u16) -> &Peer {
        self.peers.core(core)
    }

    /// The cores other than `me` that have no room for new connections.
    pub(super) fn full_cores(&self, me: u16) -> impl Iterator<Item = u16> {
        let is_full = |core: &u16| self.peer(*core).full.load(Ordering::Relaxed);
        (0..self.peers.cores.len() as u16).filter(move |core| *core != me).filter(is_full)
    }

    /// Whether mail is waiting that can be taken now. Call after [`Parking::announce`].
    pub(super) fn is_waiting(&mut self, takes_requests: bool) -> bool {
        self.from
            .iter_mut()
            .flatten()
            .any(|receiver| !receiver.down.is_empty() || takes_requests && !receiver.up.is_empty())
    }

    /// Takes the requests that come before the next message of `queue`, as far as the turn's share
    /// of work and the room for mail allow. Returns whether that message may be taken.
    pub(super) fn take_requests_before<T>(
        &mut self,
        queue: &mut Receiver<T>,
        before: &mut RequestsBefore,
        shard: &mut Shard,
        now: Now,
    ) -> bool {
        if before.see(queue) {
            let sent = self.from.iter_mut().map(|it| it.as_mut().map_or(0, |it| it.up.sent()));
            before.requests.extend(sent);
        }
        let receivers = self.from.iter_mut().enumerate();
        for ((from, receiver), sent) in receivers.zip(&before.requests) {
            let Some(receiver) = receiver else { continue };
            // Negative when more has been taken meanwhile.
            let left = sent.wrapping_sub(receiver.up.removed()) as isize;
            let left = usize::try_from(left).unwrap_or(0);
            if receiver.take_requests(from, shard, now, left) < left {
                return false;
            }
        }
        before.requests.clear();
        true
    }

    /// Notes that this core's drain is over if `idle`. Returns whether the drain of every core is
    /// over.
    pub(super) fn all_idle(&self, idle: bool) -> bool {
        if idle {
            self.peers.note_idle(self.core);
        }
        self.peers.busy.load(Ordering::Acquire) == 0
    }
}

impl<D: Driver> Reactor<D> {
    /// Processes the deliveries and answers that have arrived before this turn's completions are
    /// processed. So a publish that its publisher knows to be acknowledged reaches a core's
    /// subscribers before anything that a client of this core sends afterwards.
    pub(super) fn take_answers(&mut self, now: Now) {
        for receiver in self.mail.from.iter_mut().flatten() {
            for taken in 0..TAKEN_PER_TURN {
                if taken >= MIN_TAKEN && !self.shard.has_work_left() {
                    break;
                }
                let Some(answer) = receiver.down.pop() else { break };
                self.shard.answer(answer, now);
            }
        }
    }

    /// Processes the mail from the other cores. Deliveries and answers are always taken; requests
    /// only while there is room for the mail that they cause.
    pub(super) fn take_mail(&mut self, now: Now) {
        if self.mail.me().stop.load(Ordering::Relaxed) && self.stopping.is_none() {
            self.stop(now);
        }
        for (from, receiver) in self.mail.from.iter_mut().enumerate() {
            let Some(receiver) = receiver else { continue };
            for taken in 0..TAKEN_PER_TURN {
                if taken >= MIN_TAKEN && !self.shard.has_work_left() {
                    break;
                }
                let Some(answer) = receiver.down.pop() else { break };
                self.shard.answer(answer, now);
            }
            receiver.take_requests(from, &mut self.shard, now, TAKEN_PER_TURN);
        }
        self.take_commands(now);
        self.take_arrivals(now);
        self.take_relayed(now);
    }

    /// Puts outgoing mail into the mailboxes of the other cores, and then lets connections that
    /// wait go on.
    pub(super) fn hand_over_mail(&mut self, now: Now) {
        self.put_mail();
        self.shard.next_turn(now);
        // What these connections have published can be handed over in this turn, and their requests
        // come before that.
        if self.cluster.is_some() || self.relay.is_some() {
            self.put_mail();
        }
    }

    /// Puts outgoing mail into the mailboxes of the other cores, and wakes the receivers that
    /// sleep. Mail for a full mailbox stays in the shard.
    fn put_mail(&mut self) {
        for to in 0..self.mail.to.len() {
            let Some(sender) = &mut self.mail.to[to] else { continue };
            let outgoing = self.shard.mail().to(to as u16);
            if outgoing.up.is_empty() && outgoing.down.is_empty() {
                continue;
            }
            let mut put = 0;
            while let Some(message) = outgoing.up.pop_front() {
                if let Err(back) = sender.up.push(message) {
                    outgoing.up.push_front(back);
                    break;
                }
                put += 1;
            }
            while let Some(message) = outgoing.down.pop_front() {
                if let Err(back) = sender.down.push(message) {
                    outgoing.down.push_front(back);
                    break;
                }
                put += 1;
            }
            let left = outgoing.up.len() + outgoing.down.len();
            self.counters.mail_waited.add(left as u64);
            if put > 0 {
                self.wake(to as u16);
            }
        }
    }

    fn wake(&mut self, core: u16) {
        let peer = self.mail.peers.core(core);
        if peer.parking.needs_wake()
            && let Some(handle) = peer.wake.get()
        {
            self.counters.wakes_sent.add(1);
            self.driver.wake(handle);
        }
    }
}
