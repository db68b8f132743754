//! The log as an observer reads it who misses nothing.

use crate::cluster::entry::{self, PartContent};
use crate::cluster::places::stream_of;
use crate::cluster::sim::SimLog;
use crate::hub::log_serial;
use std::collections::{HashMap, HashSet};

/// A channel without a history, whose entries expire early.
pub(super) const PLAIN: &str = "plain";

/// The events that a channel's history remembers, in the order of one log.
#[derive(Default)]
pub(super) struct Truth {
    pub(super) events: Vec<(u64, String)>,
}

impl Truth {
    /// Whether an event is there, but at an earlier place: an entry that was stored twice.
    pub(super) fn has_before(&self, serial: u64, text: &str) -> bool {
        self.events.iter().any(|(it, other)| *it < serial && other == text)
    }

    /// The index of the first event after a position.
    pub(super) fn index_after(&self, serial: u64) -> usize {
        self.events.partition_point(|(it, _)| *it <= serial)
    }
}

/// The logs as an observer who misses nothing has read them.
#[derive(Default)]
pub(super) struct Oracle {
    epoch: u64,
    read: u64,
    seen: HashSet<(u64, u64)>,
    /// By the stream of the log, and the channel.
    channels: HashMap<(u64, String), Truth>,
}

impl Oracle {
    pub(super) fn of(&mut self, stream: u64, channel: &str) -> &mut Truth {
        self.channels.entry((stream, channel.to_owned())).or_default()
    }

    pub(super) fn read(&mut self, log: &SimLog) {
        if self.epoch != log.epoch {
            let channels = std::mem::take(&mut self.channels);
            *self = Oracle { epoch: log.epoch, channels, ..Oracle::default() };
        }
        for (sequence, _, body) in &log.entries {
            if *sequence <= self.read {
                continue;
            }
            self.read = *sequence;
            let entry = entry::read(body).expect("an entry");
            if !self.seen.insert((entry.node, entry.number)) || entry.channel == PLAIN {
                continue;
            }
            let truth = self.of(stream_of(log.epoch), entry.channel);
            for (place, part) in entry.events.iter().enumerate() {
                let PartContent::Frame { frame, remembered_s: Some(_), .. } = &part.content else {
                    panic!("a part of {}", entry.channel)
                };
                let text = String::from_utf8(frame.to_vec()).expect("text");
                truth.events.push((log_serial(*sequence, place).expect("a place"), text));
            }
        }
    }
}
