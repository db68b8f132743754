//! The cores of one process without a kernel: their shards, and the mail between them.
//!
//! A shard's mail goes into mailboxes with room for a number of messages, as in a reactor. The test
//! decides when each message arrives; the order within a mailbox is fixed. Sockets and time are the
//! test's own.

use crate::machine::common;
use crate::peer::{ClientReader, Received};
use fastrand::Rng;
use polycast::config::Config;
use polycast::dialect::{Down, Up};
use polycast::mem::Slot;
use polycast::shard::{Common, Shard};
use polycast::stats::Counters;
use polycast::time::Now;
use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// One core, with the mail on its way to it.
pub(crate) struct Core {
    pub(crate) shard: Shard,
    pub(crate) counters: Arc<Counters>,
    up_from: Vec<VecDeque<Up>>,
    down_from: Vec<VecDeque<Down>>,
    /// The number of publishes that this core was asked to order.
    pub(crate) publishes: usize,
}

/// All cores. The index of a core is its number.
pub(crate) struct Cores {
    list: Vec<Core>,
    /// The number of messages that a mailbox has room for.
    capacity: usize,
}

impl Core {
    pub(crate) fn new(number: u16, common: &Common) -> Core {
        let counters = Arc::new(Counters::default());
        Core {
            shard: Shard::new(number, common, counters.clone()),
            counters,
            up_from: (0..common.cores).map(|_| VecDeque::new()).collect(),
            down_from: (0..common.cores).map(|_| VecDeque::new()).collect(),
            publishes: 0,
        }
    }

    /// Receives one answer of the core `from`; false if there is none.
    pub(crate) fn receive_answer(&mut self, from: usize, now: Now) -> bool {
        let Some(answer) = self.down_from[from].pop_front() else { return false };
        self.shard.answer(answer, now);
        true
    }

    /// Receives one request of the core `from`; false if there is none.
    pub(crate) fn receive_request(&mut self, from: usize, now: Now) -> bool {
        let Some(request) = self.up_from[from].pop_front() else { return false };
        self.publishes += usize::from(matches!(request, Up::Publish { .. }));
        self.shard.request(from as u16, request, now);
        true
    }

    /// The numbers of requests and answers on their way from the core `from`.
    pub(crate) fn coming_from(&self, from: usize) -> (usize, usize) {
        (self.up_from[from].len(), self.down_from[from].len())
    }

    /// Whether no mail is on its way to this core.
    pub(crate) fn has_no_mail(&self) -> bool {
        self.up_from.iter().all(VecDeque::is_empty) && self.down_from.iter().all(VecDeque::is_empty)
    }

    /// Reads everything that waits for the peer of a connection.
    pub(crate) fn read(
        &mut self,
        slot: Slot,
        reader: &mut ClientReader,
        now: Now,
    ) -> Vec<Received> {
        let mut received = Vec::new();
        while let Some(mut batch) = self.shard.take_batch(slot) {
            let bytes: Vec<u8> = batch.iter().flat_map(|segment| segment.to_vec()).collect();
            batch.clear();
            received.extend(reader.hear(&bytes));
            self.shard.sent(slot, bytes.len(), Some(batch), now);
        }
        received
    }
}

impl Cores {
    /// The cores of a process, whose mailboxes have room for `capacity` messages. A shard takes no
    /// further input while `mail_bound` messages wait in it.
    pub(crate) fn new(
        config: Config,
        cores: u16,
        seed: u64,
        mail_bound: usize,
        capacity: usize,
    ) -> Cores {
        Cores::of(&common(config, cores, seed, mail_bound), capacity)
    }

    /// The cores of a process that share this.
    pub(crate) fn of(common: &Common, capacity: usize) -> Cores {
        let list = (0..common.cores).map(|number| Core::new(number, common)).collect();
        Cores { list, capacity }
    }

    /// Moves the mail that the core `from` has written into the mailboxes, as far as there is room.
    /// The tables of the core are checked.
    pub(crate) fn send_mail(&mut self, from: usize) {
        self.list[from].shard.invariants();
        for to in 0..self.list.len() {
            let (up, down) = self.list[to].coming_from(from);
            let [room_up, room_down] = [up, down].map(|len| self.capacity.saturating_sub(len));
            let queues = self.list[from].shard.mail().to(to as u16);
            assert!(to != from || queues.up.is_empty() && queues.down.is_empty(), "mail to itself");
            let up: Vec<Up> = queues.up.drain(..room_up.min(queues.up.len())).collect();
            let down: Vec<Down> = queues.down.drain(..room_down.min(queues.down.len())).collect();
            self.list[to].up_from[from].extend(up);
            self.list[to].down_from[from].extend(down);
        }
    }

    /// Delivers the first message of any mailbox, which `rng` selects; false if all are empty.
    pub(crate) fn deliver_any(&mut self, rng: &mut Rng, now: Now) -> bool {
        let cores = self.list.len();
        (0..cores).for_each(|from| self.send_mail(from));
        let mut full = Vec::new();
        for (to, core) in self.list.iter().enumerate() {
            for from in 0..cores {
                let (up, down) = core.coming_from(from);
                full.extend((up > 0).then_some((from, to, true)));
                full.extend((down > 0).then_some((from, to, false)));
            }
        }
        match rng.choice(&full) {
            Some((from, to, true)) => self.list[*to].receive_request(*from, now),
            Some((from, to, false)) => self.list[*to].receive_answer(*from, now),
            None => false,
        }
    }

    /// Delivers all mail, and all that comes of it, in an order that `rng` selects.
    pub(crate) fn deliver_all(&mut self, rng: &mut Rng, now: Now) {
        while self.deliver_any(rng, now) {}
        self.list.iter_mut().for_each(|core| core.shard.next_turn(now));
    }
}

impl Deref for Cores {
    type Target = [Core];

    fn deref(&self) -> &[Core] {
        &self.list
    }
}

impl DerefMut for Cores {
    fn deref_mut(&mut self) -> &mut [Core] {
        &mut self.list
    }
}
