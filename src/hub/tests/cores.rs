//! Several hubs and the mail between them. A test delivers the messages one by one, and may choose
//! the mailbox that is next; the order within a mailbox is fixed.

use super::{Down, Hub, OutgoingMail, Up};
use crate::hub::Hasher;

/// The cores of one process.
pub(super) struct Cores {
    pub(super) hubs: Vec<Hub>,
    pub(super) outgoing: Vec<OutgoingMail>,
}

/// A message that arrives.
pub(super) enum Mail {
    Up(Up),
    Down(Down),
}

impl Cores {
    /// The hubs of `cores` cores, each of which may keep `kept_max` bytes.
    pub(super) fn new(cores: u16, seed: u64, kept_max: usize) -> Cores {
        let hasher = Hasher::new(seed);
        let hub = |core| Hub::new(core, cores, hasher.clone(), kept_max);
        Cores {
            hubs: (0..cores).map(hub).collect(),
            outgoing: (0..cores).map(|_| OutgoingMail::new(cores)).collect(),
        }
    }

    /// The hub of a core, and the mail that it sends.
    pub(super) fn at(&mut self, core: u16) -> (&mut Hub, &mut OutgoingMail) {
        (&mut self.hubs[core as usize], &mut self.outgoing[core as usize])
    }

    /// The home of a channel of application 0.
    pub(super) fn home(&self, name: &str) -> u16 {
        self.hubs[0].home(0, name)
    }

    /// The first message of one of the mailboxes, which `pick` selects, with its sender and its
    /// receiver; `None` if all are empty. 0 selects the first mailbox in the order of the senders,
    /// then of the receivers, with requests before answers. The tables of all hubs are checked.
    pub(super) fn take(&mut self, pick: usize) -> Option<(u16, u16, Mail)> {
        self.invariants();
        let cores = self.hubs.len() as u16;
        let mut full: Vec<(u16, u16, bool)> = Vec::new();
        for (from, to) in (0..cores).flat_map(|from| (0..cores).map(move |to| (from, to))) {
            let queues = self.outgoing[from as usize].to(to);
            full.extend((!queues.up.is_empty()).then_some((from, to, true)));
            full.extend((!queues.down.is_empty()).then_some((from, to, false)));
        }
        let (from, to, is_up) = *full.get(pick % full.len().max(1))?;
        let queues = self.outgoing[from as usize].to(to);
        let mail = match is_up {
            true => queues.up.pop_front().map(Mail::Up),
            false => queues.down.pop_front().map(Mail::Down),
        };
        Some((from, to, mail?))
    }

    /// Checks the tables of all hubs.
    pub(super) fn invariants(&self) {
        self.hubs.iter().for_each(Hub::invariants);
    }
}
