//! The applications of which somebody reads numbers of subscribers on a node of a cluster, and the
//! reads that wait; see [`super::counted_reads`].

use super::channel_events::{ChannelEvents, EventMask};
use super::mail::{Ack, Answer, Query};
use super::name::ChannelName;
use std::collections::{BTreeMap, VecDeque};

/// The time between two questions about an application, in milliseconds.
const ASK_MS: u64 = 1000;

/// The applications whose numbers are read, and the reads that wait.
#[derive(Debug, Default)]
pub(super) struct Counting {
    /// By the application's number.
    pub(super) apps: BTreeMap<u32, AppCounting>,
    /// The applications of which this core has not stated all numbers.
    pub(super) unsettled: Vec<u32>,
    /// What is to be put to the log: the application, and whether its numbers are stated; otherwise
    /// they are asked for.
    pub(super) statements: VecDeque<(u32, bool)>,
    /// The oldest first.
    pub(super) waiting: VecDeque<WaitingQuery>,
    /// Answers to reads that have waited.
    pub(super) answers: VecDeque<CountedAnswer>,
}

/// A core, a request of it that has waited, and the answer.
pub type CountedAnswer = (u16, Ack, Answer);

#[derive(Debug, Default)]
pub(super) struct AppCounting {
    pub(super) phase: CountingPhase,
    /// Whether all nodes have stated their numbers.
    pub(super) is_whole: bool,
    /// When the numbers may be asked for again, in milliseconds.
    ask_ms: u64,
}

/// How far this core has stated its numbers.
#[derive(Debug, Default)]
pub(super) enum CountingPhase {
    /// The log does not ask for them.
    #[default]
    Unasked,
    /// They are to be listed.
    Asked,
    /// The channels whose numbers were not in the log when they were listed. Those at the end of
    /// the list are examined first.
    Stating(Vec<ChannelName>),
    /// All are in the log, and that they are is there, too, or on its way.
    Stated,
}

#[derive(Debug)]
pub(super) struct WaitingQuery {
    pub(super) app: u32,
    pub(super) from: (u16, Ack),
    pub(super) query: Query,
    pub(super) until_ms: u64,
}

impl Counting {
    /// Whether the log asks for the numbers of an application.
    pub(super) fn is_asked(&self, app: u32) -> bool {
        let app = self.apps.get(&app);
        app.is_some_and(|app| !matches!(app.phase, CountingPhase::Unasked))
    }

    /// Whether the numbers of a channel are stated, and not only whether there is a subscriber.
    pub(super) fn is_counted(&self, events: &ChannelEvents, name: &ChannelName) -> bool {
        events.wanted(name).has(EventMask::TOTALS) || self.is_asked(name.app())
    }

    /// Whether there is something to be put to the log.
    pub(super) fn has_statements(&self) -> bool {
        !self.statements.is_empty()
    }

    /// Trusts nothing that was stated, because everything is stated again.
    pub(super) fn forget_log(&mut self) {
        self.statements.clear();
        self.unsettled.clear();
        for (number, app) in &mut self.apps {
            if !matches!(app.phase, CountingPhase::Unasked) {
                app.phase = CountingPhase::Asked;
                self.unsettled.push(*number);
            }
        }
    }

    /// Asks for the numbers of an application, if this core has not just done so.
    pub(super) fn ask(&mut self, number: u32, now_ms: u64) {
        let app = self.apps.entry(number).or_default();
        if app.ask_ms <= now_ms {
            app.ask_ms = now_ms + ASK_MS;
            self.statements.push_back((number, false));
        }
    }

    /// Takes out the queries about an application.
    pub(super) fn take_waiting(&mut self, app: u32) -> VecDeque<WaitingQuery> {
        let (due, others) = self.waiting.drain(..).partition(|it| it.app == app);
        self.waiting = others;
        due
    }
}
