//! A simulated engine for tests: a log that several nodes share, and what can happen between it and
//! each of them, decided by a seed.

use super::engine::{Append, Engine, EngineEvent, LogInfo, Refusal};
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

/// The log of the simulated engine.
#[derive(Default)]
pub struct SimLog {
    /// The life of the log.
    pub epoch: u64,
    /// The sequence number of the last entry that was stored.
    pub last: u64,
    /// The entries with their sequence numbers and when they were stored.
    pub entries: Vec<(u64, u64, Vec<u8>)>,
    /// Whatever was stored, since the log began.
    pub history: Vec<(u64, u64, Vec<u8>)>,
    /// The subject of each stored entry, and how long it is kept, by its sequence number.
    subjects: HashMap<u64, (String, Option<u64>)>,
    ids: HashMap<String, u64>,
}

impl SimLog {
    /// Returns the sequence number of the entry; `None` if it has another predecessor than it
    /// expects.
    fn store(&mut self, append: &Append, now_ms: u64) -> Option<u64> {
        if let Some(sequence) = self.ids.get(&append.id) {
            return Some(*sequence);
        }
        let has_subject = |(sequence, ..): &&(u64, u64, Vec<u8>)| {
            self.subjects.get(sequence).is_some_and(|(subject, _)| *subject == append.subject)
        };
        let last = self.entries.iter().rev().find(has_subject).map_or(0, |entry| entry.0);
        if append.expected.is_some_and(|expected| expected != last) {
            return None;
        }
        if append.replaces {
            self.remove(|subject| subject == append.subject);
        }
        self.last += 1;
        self.subjects.insert(self.last, (append.subject.clone(), append.ttl_s));
        self.ids.insert(append.id.clone(), self.last);
        self.entries.push((self.last, now_ms, append.body.clone()));
        self.history.push((self.last, now_ms, append.body.clone()));
        Some(self.last)
    }

    /// The subject of the last entry, and how long it is kept, in seconds.
    #[cfg(test)]
    pub(super) fn last_subject(&self) -> Option<&(String, Option<u64>)> {
        self.subjects.get(&self.last)
    }

    /// Removes the entries of these subjects.
    fn remove(&mut self, is_meant: impl Fn(&str) -> bool) {
        let SimLog { entries, subjects, .. } = self;
        entries.retain(|(sequence, ..)| !subjects.get(sequence).is_some_and(|it| is_meant(&it.0)));
    }

    /// Loses everything, as an engine does that keeps its log in memory and is restarted.
    pub fn lose(&mut self) {
        *self = SimLog { epoch: self.epoch + 1, ..SimLog::default() };
    }

    /// Forgets the entries that were stored before `ms`, besides those that are kept until another
    /// replaces them.
    pub fn expire(&mut self, ms: u64) {
        let SimLog { entries, subjects, .. } = self;
        let stays =
            |sequence: &u64| subjects.get(sequence).is_some_and(|(_, ttl_s)| ttl_s.is_none());
        entries.retain(|(sequence, stored_ms, _)| *stored_ms >= ms || stays(sequence));
    }
}

impl SimLog {
    /// Forgets the entries whose time is over.
    pub fn expire_due(&mut self, now_ms: u64) {
        let SimLog { entries, subjects, .. } = self;
        let is_over = |sequence: &u64, stored_ms: &u64| {
            let ttl_s = subjects.get(sequence).and_then(|(_, ttl_s)| *ttl_s);
            ttl_s.is_some_and(|ttl_s| stored_ms + ttl_s * 1000 <= now_ms)
        };
        entries.retain(|(sequence, stored_ms, _)| !is_over(sequence, stored_ms));
    }

    /// Stores an entry of the log again, as an engine does that has forgotten its id.
    pub fn repeat(&mut self, index: usize, now_ms: u64) {
        let (sequence, _, body) = self.entries[index].clone();
        self.last += 1;
        if let Some(subject) = self.subjects.get(&sequence).cloned() {
            self.subjects.insert(self.last, subject);
        }
        self.entries.push((self.last, now_ms, body.clone()));
        self.history.push((self.last, now_ms, body));
    }
}

/// One node's connection to the log.
pub struct SimEngine {
    /// The log.
    pub log: Rc<RefCell<SimLog>>,
    events: Vec<EngineEvent>,
    /// Whether the node is connected.
    pub is_up: bool,
    /// The position after which entries are delivered.
    after: Option<u64>,
    on_the_way: VecDeque<Append>,
}

impl SimEngine {
    /// A connection that has not begun.
    pub fn new(log: &Rc<RefCell<SimLog>>) -> SimEngine {
        SimEngine {
            log: log.clone(),
            events: Vec::new(),
            is_up: false,
            after: None,
            on_the_way: VecDeque::new(),
        }
    }

    /// The connection begins, or is looked at again after a delivery was lost.
    pub fn attach(&mut self) {
        (self.is_up, self.after) = (true, None);
        let log = self.log.borrow();
        self.events.push(EngineEvent::Up(LogInfo { epoch: log.epoch, last: log.last }));
    }

    /// The log is looked at; the answer is so many entries older than what follows it.
    pub fn attach_late(&mut self, entries: u64) {
        self.attach();
        if let Some(EngineEvent::Up(log)) = self.events.last_mut() {
            log.last -= entries;
        }
    }

    /// The connection ends. What was on its way arrives nevertheless, or does not.
    pub fn detach(&mut self, arrives: bool, now_ms: u64) {
        (self.is_up, self.after) = (false, None);
        for append in self.on_the_way.drain(..) {
            if arrives {
                self.log.borrow_mut().store(&append, now_ms);
            }
        }
        self.events.push(EngineEvent::Down);
    }

    /// Stores the oldest entry that is on its way, and answers unless the answer is lost.
    pub fn store(&mut self, is_answered: bool, now_ms: u64) {
        let Some(append) = self.on_the_way.pop_front() else { return };
        let number = append.number;
        let event = match self.log.borrow_mut().store(&append, now_ms) {
            Some(sequence) => EngineEvent::Stored { number, sequence, took_ns: 1 },
            None => EngineEvent::Refused { number, refusal: Refusal::Conflict },
        };
        if is_answered {
            self.events.push(event);
        }
    }

    /// Refuses that entry, unless it is stored already.
    pub fn refuse(&mut self, again: bool, now_ms: u64) {
        let Some(append) = self.on_the_way.front() else { return };
        if self.log.borrow().ids.contains_key(&append.id) {
            return self.store(true, now_ms);
        }
        let number = append.number;
        self.on_the_way.pop_front();
        let refusal = if again { Refusal::Later } else { Refusal::Never };
        self.events.push(EngineEvent::Refused { number, refusal });
    }

    /// Delivers the next entry this many times.
    pub fn deliver(&mut self, times: usize) {
        let Some(after) = self.after.filter(|_| self.is_up) else { return };
        let log = self.log.borrow();
        match log.entries.iter().find(|(sequence, ..)| *sequence > after) {
            Some((sequence, stored_ms, body)) => {
                self.after = Some(*sequence);
                for _ in 0..times {
                    self.events.push(EngineEvent::Entry {
                        sequence: *sequence,
                        stored_ms: *stored_ms,
                        is_last: *sequence == log.last,
                        body: body.clone(),
                    });
                }
            }
            None => self.events.push(EngineEvent::Current),
        }
    }

    /// Says how large the log is.
    pub fn size(&mut self, bytes: u64) {
        self.events.push(EngineEvent::Size(bytes));
    }

    /// Whether something is on its way to or from the log.
    pub fn has_work(&self) -> bool {
        let last = self.log.borrow().entries.last().map_or(0, |(sequence, ..)| *sequence);
        !self.on_the_way.is_empty() || !self.events.is_empty() || self.after != Some(last)
    }
}

impl Engine for SimEngine {
    fn append(&mut self, append: Append) {
        assert!(self.is_up, "an append to an engine that is away");
        self.on_the_way.push_back(append);
    }

    fn purge(&mut self, tokens: &str) {
        let below = format!("{tokens}.");
        self.log.borrow_mut().remove(|subject| subject.starts_with(&below));
    }

    fn follow(&mut self, after: u64) {
        self.after = Some(after);
    }

    fn look(&mut self) -> bool {
        self.attach();
        true
    }

    fn take(&mut self) -> Vec<EngineEvent> {
        std::mem::take(&mut self.events)
    }

    fn pause(&mut self, _is_paused: bool) {}
}
