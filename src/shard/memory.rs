//! The measures that keep the memory which a core's connections and channels hold below its share
//! of `limits.memory_bytes`.
//!
//! A session's bytes are updated when it is taken from the list of pending work, and it is listed
//! whenever they may have changed. After a send that has emptied the write queue, they are updated
//! at once. The sum is therefore never older than one turn, and a flood cannot exceed it by more
//! than one turn receives.

use super::Shard;
use super::account::WORTH_BYTES;
use crate::mem::{self, Slot};
use crate::session::SessionEvent;
use crate::time::Now;
use std::cmp::Reverse;

/// Thresholds in percent of this core's share of `limits.memory_bytes`: above `PAUSE`, reading from
/// the largest holders is paused until the others hold at most `PAUSE_LEAVES`; below `RESUME`,
/// reading resumes.
const PAUSE: u64 = 80;
const PAUSE_LEAVES: u64 = 60;
const RESUME: u64 = 75;
/// The percentage above which new connections are refused.
const REFUSE: u64 = 90;
/// The percentage above which the largest holders are ended, and the one that is left after that.
const END: u64 = 95;
const END_LEAVES: u64 = 85;
/// How long reading is paused for lack of memory, in milliseconds. After that some connections are
/// ended: their peers may be gone, which shows only when they are read, and an unfinished message
/// that is not read cannot be completed.
const STARVED_MS: u64 = 5_000;

/// The estimated bytes of one channel, if it keeps no event, and of one subscription in the hub's
/// tables.
const CHANNEL_BYTES: u64 = 512;
const SUBSCRIPTION_BYTES: u64 = 384;

impl Shard {
    /// The bytes that this core holds for its connections and channels.
    pub fn memory_bytes(&self) -> u64 {
        // The bytes of a kept event include the tables of its channel.
        let channels = self.hub.channel_count().saturating_sub(self.hub.kept_events());
        let channels = channels as u64 * CHANNEL_BYTES;
        let subscriptions = self.counters.subscriptions.get() * SUBSCRIPTION_BYTES;
        let kept = self.hub.kept_bytes() + self.hub.channel_event_bytes();
        let inflated = self.codecs.held_bytes();
        let frames = mem::frame_bytes();
        // All cores share the idempotency keys, so each counts an equal part.
        let keys = self.env.apps.idempotency_bytes() + self.env.runtime.cluster.key_bytes();
        let keys = keys / usize::from(self.cores.max(1));
        // So do the epochs that are kept.
        let epochs = self.env.zilliqa.history_bytes() / usize::from(self.cores.max(1));
        let shared = keys + epochs;
        self.account.sessions
            + channels
            + subscriptions
            + (kept + inflated + frames + shared) as u64
    }

    /// This core's share of the memory limit of the process, in bytes.
    pub fn memory_share(&self) -> u64 {
        let limit = match self.env.config.limits.memory_bytes {
            0 => mem::available() / 2,
            limit => limit,
        };
        limit / u64::from(self.cores.max(1))
    }

    fn is_memory_above(&self, percent: u64) -> bool {
        self.memory_bytes() > self.memory_share() / 100 * percent
    }

    /// Whether so much memory is held that no further connection is accepted.
    pub fn refuses_connections(&self) -> bool {
        self.is_memory_above(REFUSE)
    }

    /// Whether so much memory is held that freed memory should be returned to the system at once.
    pub fn is_memory_scarce(&self) -> bool {
        self.is_memory_above(PAUSE_LEAVES)
    }

    /// Bytes that were freed in large pieces, since the start.
    pub fn freed_bytes(&self) -> u64 {
        self.codecs.freed_bytes() + self.account.freed
    }

    /// Whether reading from a connection is paused because of the memory that it holds.
    pub fn is_starved(&mut self, slot: Slot) -> bool {
        self.sessions.get_mut(slot).is_some_and(|session| session.link.is_starved())
    }

    /// Updates the account after a session's memory may have changed.
    pub(super) fn charge(&mut self, slot: Slot) {
        if let Some(session) = self.sessions.get_mut(slot) {
            self.account.charge(slot, session.held_bytes());
        }
    }

    /// Keeps the held memory within this core's share. Called once a turn.
    pub(super) fn keep_memory(&mut self, now: Now) {
        if !self.is_memory_above(RESUME) {
            return self.unstarve(now);
        }
        if !self.account.starved.is_empty() && now.ms >= self.account.starved_ms + STARVED_MS {
            self.end_starved(now);
        }
        if !self.is_memory_above(PAUSE) {
            return;
        }
        let (total, share) = (self.memory_bytes(), self.memory_share());
        if !self.account.is_scan_due(total, share, now) {
            return;
        }
        let mut holders = self.holders();
        if self.is_memory_above(END) {
            let mut surplus = total.saturating_sub(share / 100 * END_LEAVES);
            let ended = holders.iter().position(|(bytes, _)| {
                surplus = surplus.saturating_sub(*bytes as u64);
                surplus == 0
            });
            let ended = ended.map_or(holders.len(), |last| last + 1);
            for (_, slot) in holders.drain(..ended) {
                self.end_for_memory(slot, now);
            }
        }
        let mut left: u64 = holders.iter().map(|(bytes, _)| *bytes as u64).sum();
        for (bytes, slot) in holders {
            if left <= share / 100 * PAUSE_LEAVES {
                break;
            }
            left -= bytes as u64;
            self.starve(slot, now);
        }
    }

    /// The connections that hold at least `WORTH_BYTES`, the largest first.
    fn holders(&mut self) -> Vec<(usize, Slot)> {
        let mut holders = Vec::new();
        for index in 0..self.sessions.end() {
            let Some(slot) = self.sessions.slot_at(index) else { continue };
            let Some(session) = self.sessions.get_mut(slot) else { continue };
            let bytes = session.burden();
            if bytes >= WORTH_BYTES {
                holders.push((bytes, slot));
            }
        }
        holders.sort_unstable_by(|a, b| b.cmp(a));
        holders
    }

    fn end_for_memory(&mut self, slot: Slot, now: Now) {
        if self.sessions.get_mut(slot).is_none() {
            return;
        }
        self.counters.memory_ended.add(1);
        self.on_event(slot, SessionEvent::OutOfMemory, now);
        self.charge(slot);
    }

    /// Ends connections because reading was paused for too long, until enough memory is free for
    /// the others. First are those that have held many bytes for a long time without any progress,
    /// paused or not, so that a large upload outlives messages that nobody completes.
    fn end_starved(&mut self, now: Now) {
        let share = self.memory_share();
        let mut surplus = self.memory_bytes().saturating_sub(share / 100 * PAUSE_LEAVES);
        let mut holders = self.holders();
        holders.sort_by_key(|&(bytes, slot)| Reverse(self.account.stalls.weight(slot, bytes)));
        for (bytes, slot) in holders {
            if surplus == 0 {
                break;
            }
            surplus = surplus.saturating_sub(bytes as u64);
            self.end_for_memory(slot, now);
        }
        self.account.starved_ms = now.ms;
    }

    fn starve(&mut self, slot: Slot, now: Now) {
        let Some(session) = self.sessions.get_mut(slot) else { return };
        if !session.link.is_starved() {
            session.link.starve();
            self.counters.memory_read_paused.add(1);
            if self.account.starved.is_empty() {
                self.account.starved_ms = now.ms;
            }
            self.account.starved.push(slot);
            self.list(slot);
        }
    }

    fn unstarve(&mut self, now: Now) {
        self.account.scanned = 0;
        for slot in std::mem::take(&mut self.account.starved) {
            if let Some(session) = self.sessions.get_mut(slot) {
                session.link.unstarve();
                self.try_resume(slot, now);
            }
        }
    }

    /// Sets the memory gauges at a sweep. `input` is the sum of all sessions' input bytes.
    pub(super) fn report_memory(&mut self, input: usize) {
        let counters = &self.counters;
        counters.memory_bytes.set(self.memory_bytes());
        counters.memory_limit_bytes.set(self.memory_share());
        counters.memory_input_bytes.set(input as u64);
        counters.memory_frames_bytes.set(mem::frame_bytes() as u64);
        counters.inflated_bytes.set(self.codecs.held_bytes() as u64);
    }
}
