//! Reads of numbers of subscribers on a node of a cluster, of applications that do not always state
//! them.
//!
//! A read of such a number waits at the home of its channel, which asks in the log that all nodes
//! state their numbers of that application. Each core states those of the channels that it is the
//! home of, says so, and goes on to state them. A read is answered when all have, and from then on
//! at once. If that takes too long, it is answered that the number is not known.
//!
//! A node that reads says so in the log from time to time. When the log has said nothing for a
//! time, the first core of a node that notices it puts to the log that the numbers are not stated
//! any more. All nodes cease at that place, and a read after it asks again.

use super::channel_events::EventMask;
use super::counted_numbers::{CountedKind, CountedNumbers, CountingStep};
use super::counting::{CountedAnswer, Counting, CountingPhase, MAX_WAITING, WaitingQuery};
use super::home::ChannelInfo;
use super::mail::{Ack, Answer, Query};
use super::name::ChannelName;
use super::own_states::{StateProposal, Statement};
use super::statements::UNCOUNTED;
use super::{Hub, HubMessage};
use std::collections::BTreeSet;

/// The maximum time that a read waits, in milliseconds.
const WAIT_MS: u64 = 2000;

impl<M: HubMessage> Hub<M> {
    /// Whether the answer to a query of a core is in [`Hub::next_counted`], now or later, because
    /// not all nodes have stated the numbers of subscribers that it asks for.
    pub(super) fn awaits_counts(&mut self, from: (u16, Ack), query: &Query, now_ms: u64) -> bool {
        let (app, name, kind) = match query {
            Query::Channels { app, counts: true, .. } => (*app, "", CountedKind::Totals),
            Query::Channel { app, name, by_view: true, .. } => (*app, &**name, CountedKind::ByView),
            Query::Channel { app, name, counts: true, .. } => (*app, &**name, CountedKind::Totals),
            _ => return false,
        };
        if self.own_states.is_none() || name.starts_with('#') {
            return false;
        }
        let wanted = self.channel_events.wanted.get(app as usize).copied().unwrap_or_default();
        let is_always_stated = kind == CountedKind::Totals && wanted.has(EventMask::TOTALS);
        let (counting, numbers) = (&mut self.counting, CountedNumbers { app, kind });
        if is_always_stated || counting.note_read(numbers, now_ms) {
            return false;
        }
        if counting.waiting.len() >= MAX_WAITING {
            counting.refused += 1;
            let (answer, (core, ack)) = (self.unknown_answer(query, now_ms), from);
            self.counting.answers.push_back((core, ack, answer));
            return true;
        }
        let until_ms = now_ms + WAIT_MS;
        counting.waiting.push_back(WaitingQuery { numbers, from, query: query.clone(), until_ms });
        counting.ask(numbers, now_ms);
        true
    }

    /// The next answer to a query that has waited, with the core that has put it, which may be this
    /// one.
    pub fn next_counted(&mut self) -> Option<CountedAnswer> {
        self.counting.answers.pop_front()
    }

    /// The number of queries that wait for numbers of subscribers, and of those that were not let
    /// wait since the last call.
    pub fn waiting_reads(&mut self) -> (usize, u64) {
        (self.counting.waiting.len(), std::mem::take(&mut self.counting.refused))
    }

    /// Takes what the log says about numbers, except for what cores say of theirs.
    pub fn on_counting(&mut self, numbers: CountedNumbers, step: CountingStep, now_ms: u64) {
        match step {
            CountingStep::Asked(question) => self.begin_counting(numbers, question, now_ms),
            CountingStep::Read => {
                if let Some(it) = self.counting.numbers.get_mut(&numbers) {
                    it.note_read(now_ms);
                }
            }
            CountingStep::Ended => self.end_counting(numbers),
            CountingStep::Stated { .. } => {}
        }
    }

    fn begin_counting(&mut self, numbers: CountedNumbers, question: u64, now_ms: u64) {
        let counting = &mut self.counting;
        let it = counting.numbers.entry(numbers).or_default();
        if !it.is_asked() || it.question != question {
            it.questions = it.questions.saturating_add(1);
            if matches!(it.phase, CountingPhase::Unasked | CountingPhase::Stated) {
                counting.unsettled.push(numbers);
            }
            it.phase = CountingPhase::Asked;
            (it.question, it.is_whole) = (question, false);
        }
        it.note_read(now_ms);
        self.settle_counting();
    }

    fn end_counting(&mut self, numbers: CountedNumbers) {
        let Counting { numbers: all, unsettled, statements, .. } = &mut self.counting;
        if all.remove(&numbers).is_none() {
            return;
        }
        unsettled.retain(|it| *it != numbers);
        statements.retain(|(it, _)| *it != numbers);
        // What is stated of these applications only while it is read must not stay in the log.
        if numbers.app >= UNCOUNTED && !self.counting.is_asked(numbers.app) {
            self.list_all_counts_of(numbers.app);
        }
    }

    /// Notes that what this core has said of numbers was not taken into the log. It is said again
    /// later.
    pub fn counting_failed(&mut self, numbers: CountedNumbers) {
        let Counting { numbers: all, unsettled, .. } = &mut self.counting;
        if let Some(it) = all.get_mut(&numbers)
            && matches!(it.phase, CountingPhase::Stated)
        {
            it.phase = CountingPhase::Stating(Vec::new());
            unsettled.push(numbers);
        }
    }

    /// Notes whether all nodes have stated numbers, up to here in the log. Answers to queries that
    /// have waited are in [`Hub::next_counted`].
    pub fn note_counted(&mut self, numbers: CountedNumbers, is_whole: bool, now_ms: u64) {
        let it = self.counting.numbers.entry(numbers).or_default();
        it.is_whole = is_whole;
        if !is_whole {
            return;
        }
        it.questions = 0;
        let mut due = self.counting.take_waiting(numbers);
        if numbers.kind == CountedKind::Unleased {
            let totals = CountedNumbers { kind: CountedKind::Totals, ..numbers };
            due.extend(self.counting.take_waiting(totals));
        }
        for WaitingQuery { from: (core, ack), query, .. } in due {
            let answer = self.answer_query(&query, now_ms);
            self.counting.answers.push_back((core, ack, answer));
        }
    }

    /// The next of what this core says of numbers.
    pub(super) fn next_of_counting(&mut self) -> Option<StateProposal<M>> {
        let (CountedNumbers { app, kind }, step) = self.counting.statements.pop_front()?;
        Some(StateProposal { app, name: "".into(), state: Statement::Counting(kind, step) })
    }

    /// Lists the numbers that are asked for, and says of which the log has all.
    pub(super) fn settle_counting(&mut self) {
        if self.visit.is_some() {
            return;
        }
        for numbers in std::mem::take(&mut self.counting.unsettled) {
            self.settle_numbers(numbers);
        }
    }

    fn settle_numbers(&mut self, numbers: CountedNumbers) {
        let Some(it) = self.counting.numbers.get_mut(&numbers) else { return };
        let before = std::mem::replace(&mut it.phase, CountingPhase::Stating(Vec::new()));
        let mut names = match before {
            CountingPhase::Stating(names) => names,
            _ => self.list_counts_of(numbers.app),
        };
        while names.last().is_some_and(|name| !self.is_stating(name)) {
            names.pop();
        }
        let (core, cores) = (self.core, self.cores);
        let Counting { numbers: all, unsettled, statements, .. } = &mut self.counting;
        let Some(it) = all.get_mut(&numbers) else { return };
        if names.is_empty() {
            let question = it.question;
            statements.push_back((numbers, CountingStep::Stated { question, core, cores }));
            it.phase = CountingPhase::Stated;
        } else {
            unsettled.push(numbers);
            it.phase = CountingPhase::Stating(names);
        }
    }

    /// Lists the numbers of an application's channels, and returns those that the log does not
    /// have.
    fn list_counts_of(&mut self, app: u32) -> Vec<ChannelName> {
        self.list_all_counts_of(app);
        let names = self.rooms_of(app).map(|(_, channel)| &channel.name);
        names.filter(|name| self.is_stating(name)).cloned().collect()
    }

    fn list_all_counts_of(&mut self, app: u32) {
        let all: Vec<u32> = self.rooms_of(app).map(|(at, _)| at).collect();
        for at in all {
            let channel = self.channels[at as usize].as_mut();
            let home = channel.and_then(|channel| channel.home.as_mut());
            if let Some(nodes) = home.and_then(|home| home.nodes.as_mut()) {
                nodes.own_count.hasten();
            }
            self.list_count(at);
        }
    }

    /// Whether the number of a channel is to be examined, or on its way into the log.
    fn is_stating(&self, name: &ChannelName) -> bool {
        let at = self.find(name.app(), name.text(), name.hash());
        let channel = at.and_then(|at| self.channels[at as usize].as_ref());
        let nodes = channel.and_then(|channel| channel.home.as_ref()?.nodes.as_ref());
        nodes.is_some_and(|it| it.own_count.is_listed || it.own_count.is_proposed)
    }

    /// Answers the queries that have waited too long, and asks again for what others wait for.
    pub(super) fn sweep_counting(&mut self, now_ms: u64) {
        self.settle_counting();
        let counting = &mut self.counting;
        if self.core == 0 {
            counting.end_overdue(now_ms);
        }
        let first = counting.waiting.partition_point(|it| it.until_ms <= now_ms);
        let overdue: Vec<WaitingQuery> = counting.waiting.drain(..first).collect();
        let wanted: BTreeSet<_> = counting.waiting.iter().map(|it| it.numbers).collect();
        wanted.into_iter().for_each(|numbers| counting.ask(numbers, now_ms));
        for WaitingQuery { from: (core, ack), query, .. } in overdue {
            let answer = self.unknown_answer(&query, now_ms);
            self.counting.answers.push_back((core, ack, answer));
        }
    }

    /// The answer to a query for numbers that not all nodes have stated in time.
    fn unknown_answer(&self, query: &Query, now_ms: u64) -> Answer {
        if matches!(query, Query::Channels { .. }) {
            return Answer::CountsUnknown;
        }
        match self.answer_query(query, now_ms) {
            Answer::Channel(info) => {
                Answer::Channel(ChannelInfo { is_count_unknown: true, ..info })
            }
            _ => Answer::CountsUnknown,
        }
    }
}
