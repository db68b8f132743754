//! The serial numbers of a history's events: consecutive ones that the home counts, or those that
//! the log of a cluster gives.

use std::collections::VecDeque;

/// See the module's documentation.
#[derive(Debug)]
pub(super) enum Numbers {
    /// 1, 2, 3 and so on.
    Counted,
    /// By the places of the events in the log.
    OfLog(Box<LogNumbers>),
}

/// Serial numbers that rise and are not consecutive.
#[derive(Debug)]
pub(super) struct LogNumbers {
    /// Those of the events that are kept, the oldest first.
    serials: VecDeque<u64>,
    /// Every event after this one that the core has received is kept, once.
    pub(super) lost: u64,
    /// The last event; 0 before the first one.
    pub(super) last: u64,
}

impl Numbers {
    /// The numbers of a history that begins: the channel has had no event after `lost`.
    pub(super) fn of_log(lost: u64) -> Numbers {
        Numbers::OfLog(Box::new(LogNumbers { serials: VecDeque::new(), lost, last: 0 }))
    }

    /// Adds the number of the newest event.
    pub(super) fn push(&mut self, serial: u64) {
        if let Numbers::OfLog(numbers) = self {
            numbers.serials.push_back(serial);
            numbers.last = serial;
        }
    }

    /// Removes the number of the oldest event, which is not kept any more.
    pub(super) fn pop(&mut self) {
        if let Numbers::OfLog(numbers) = self
            && let Some(serial) = numbers.serials.pop_front()
        {
            numbers.lost = numbers.lost.max(serial);
            if numbers.serials.is_empty() {
                numbers.serials = VecDeque::new();
            }
        }
    }

    /// Bytes of memory.
    pub(super) fn memory(&self) -> usize {
        match self {
            Numbers::Counted => 0,
            Numbers::OfLog(numbers) => {
                size_of::<LogNumbers>() + numbers.serials.capacity() * size_of::<u64>()
            }
        }
    }
}

impl LogNumbers {
    /// The number of events up to this serial number.
    pub(super) fn count_until(&self, serial: u64) -> usize {
        self.serials.partition_point(|it| *it <= serial)
    }

    /// The place of the event with exactly this number.
    pub(super) fn index_of(&self, serial: u64) -> Option<usize> {
        self.serials.binary_search(&serial).ok()
    }

    /// The serial number of the event at this place.
    pub(super) fn at(&self, index: usize) -> Option<u64> {
        self.serials.get(index).copied()
    }
}
