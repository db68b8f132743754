//! The numbers of subscribers that somebody reads on a node of a cluster, and the reads that wait;
//! see [`super::counted_reads`].

use super::channel_events::{ChannelEvents, EventMask};
use super::counted_numbers::{CountedKind, CountedNumbers, CountingStep};
use super::mail::{Ack, Answer, Query};
use super::name::ChannelName;
use std::collections::{BTreeMap, VecDeque};

/// The time between two questions for the same numbers, in milliseconds, until the log has one.
const ASK_MS: u64 = 1000;
/// The time after a question of the log until it may be asked again while reads wait, in
/// milliseconds. All nodes answer a question again, so it is longer than a node needs for that.
const ASK_AGAIN_MS: u64 = 10_000;
/// The longest such time. It doubles with each question to which not all nodes have answered,
/// because every core lists all channels of the application for each.
const MAX_ASK_AGAIN_MS: u64 = 60_000;
/// How long nodes state numbers after the log says last that somebody reads them, in milliseconds.
/// It is longer than the usual time between two reads of a program that polls; what a read after it
/// costs is the same as the first one did.
pub(super) const LEASE_MS: u64 = 600_000;
/// The time after which a node that reads says so in the log again, in milliseconds. A second try
/// is possible before the numbers are not stated any more.
const READ_AGAIN_MS: u64 = LEASE_MS / 2;
/// The time between two attempts to say something that the log does not have yet, in milliseconds.
const RETRY_MS: u64 = 60_000;
/// The maximum number of reads that wait on a core. They wait for at most 2 s, and each has the
/// connection that has sent it, so that is far more than programs need, and at most some megabytes.
pub(super) const MAX_WAITING: usize = 1024;

/// The numbers that are read, and the reads that wait.
#[derive(Debug, Default)]
pub(super) struct Counting {
    pub(super) numbers: BTreeMap<CountedNumbers, NumbersCounting>,
    /// The numbers of which this core has not stated all.
    pub(super) unsettled: Vec<CountedNumbers>,
    /// What is to be put to the log.
    pub(super) statements: VecDeque<(CountedNumbers, CountingStep)>,
    /// The oldest first, at most [`MAX_WAITING`].
    pub(super) waiting: VecDeque<WaitingQuery>,
    /// The reads that were not let wait since the number was last taken.
    pub(super) refused: u64,
    /// Answers to reads that have waited.
    pub(super) answers: VecDeque<CountedAnswer>,
}

/// A core, a request of it that has waited, and the answer.
pub type CountedAnswer = (u16, Ack, Answer);

#[derive(Debug, Default)]
pub(super) struct NumbersCounting {
    pub(super) phase: CountingPhase,
    /// The number of the last question.
    pub(super) question: u64,
    /// Whether all nodes have stated them.
    pub(super) is_whole: bool,
    /// The number of questions since all nodes have stated them.
    pub(super) questions: u32,
    /// When they may be asked for again, in milliseconds.
    pub(super) ask_ms: u64,
    /// When a read may be noted in the log again, in milliseconds.
    pub(super) note_ms: u64,
    /// When they are not to be stated any more, in milliseconds, if the log says nothing further.
    pub(super) end_ms: u64,
}

/// How far this core has stated numbers.
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
    pub(super) numbers: CountedNumbers,
    pub(super) from: (u16, Ack),
    pub(super) query: Query,
    pub(super) until_ms: u64,
}

impl NumbersCounting {
    pub(super) fn is_asked(&self) -> bool {
        !matches!(self.phase, CountingPhase::Unasked)
    }

    /// Notes that the log says that somebody reads the numbers.
    pub(super) fn note_read(&mut self, now_ms: u64) {
        let pause_ms = ASK_AGAIN_MS << self.questions.saturating_sub(1).min(3);
        self.ask_ms = now_ms + pause_ms.min(MAX_ASK_AGAIN_MS);
        (self.note_ms, self.end_ms) = (now_ms + READ_AGAIN_MS, now_ms + LEASE_MS);
    }
}

impl Counting {
    /// Whether the log asks for any numbers of an application.
    pub(super) fn is_asked(&self, app: u32) -> bool {
        let [first, last] = [CountedKind::Totals, CountedKind::Unleased];
        let numbers = |kind| CountedNumbers { app, kind };
        let mut all = self.numbers.range(numbers(first)..=numbers(last));
        all.any(|(_, it)| it.is_asked())
    }

    /// Whether the log asks for the numbers of an application by the views of links.
    pub(super) fn is_asked_by_view(&self, app: u32) -> bool {
        let numbers = CountedNumbers { app, kind: CountedKind::ByView };
        self.numbers.get(&numbers).is_some_and(NumbersCounting::is_asked)
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
        for (numbers, it) in &mut self.numbers {
            if it.is_asked() {
                it.phase = CountingPhase::Asked;
                self.unsettled.push(*numbers);
            }
        }
    }

    /// Whether numbers that are read are whole. The log is to say from time to time that they are
    /// read.
    pub(super) fn note_read(&mut self, numbers: CountedNumbers, now_ms: u64) -> bool {
        let is_whole = |numbers| self.numbers.get(&numbers).is_some_and(|it| it.is_whole);
        let unleased = CountedNumbers { kind: CountedKind::Unleased, ..numbers };
        if numbers.kind == CountedKind::Totals && is_whole(unleased) {
            return true;
        }
        let Some(it) = self.numbers.get_mut(&numbers).filter(|it| it.is_whole) else {
            return false;
        };
        if it.note_ms <= now_ms {
            it.note_ms = now_ms + RETRY_MS;
            self.statements.push_back((numbers, CountingStep::Read));
        }
        true
    }

    /// Asks for numbers, unless that was done a short time ago.
    pub(super) fn ask(&mut self, numbers: CountedNumbers, now_ms: u64) {
        let it = self.numbers.entry(numbers).or_default();
        if it.ask_ms <= now_ms {
            it.ask_ms = now_ms + ASK_MS;
            self.statements.push_back((numbers, CountingStep::Asked(0)));
        }
    }

    /// Puts to the log which numbers are not to be stated any more, because nobody has read them.
    pub(super) fn end_overdue(&mut self, now_ms: u64) {
        for (numbers, it) in &mut self.numbers {
            let is_leased = numbers.kind != CountedKind::Unleased;
            if is_leased && it.is_asked() && it.end_ms <= now_ms {
                it.end_ms = now_ms + RETRY_MS;
                self.statements.push_back((*numbers, CountingStep::Ended));
            }
        }
    }

    /// Takes out the queries for numbers.
    pub(super) fn take_waiting(&mut self, numbers: CountedNumbers) -> VecDeque<WaitingQuery> {
        let (due, others) = self.waiting.drain(..).partition(|it| it.numbers == numbers);
        self.waiting = others;
        due
    }
}
