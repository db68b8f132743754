//! Reads of numbers of subscribers on a node of a cluster, of applications that do not always state
//! them.
//!
//! A read of such a number waits at the home of its channel, which asks in the log that all nodes
//! state their numbers of that application. Each core states those of the channels that it is the
//! home of, says so, and goes on to state them. A read is answered when all have, and from then on
//! at once. If that takes too long, it is answered that the number is not known.

use super::channel_events::EventMask;
use super::counting::{AppCounting, CountedAnswer, Counting, CountingPhase, WaitingQuery};
use super::home::ChannelInfo;
use super::mail::{Ack, Answer, Query};
use super::name::ChannelName;
use super::own_states::{StateProposal, Statement};
use super::{Hub, HubMessage};
use std::collections::BTreeSet;

/// The maximum time that a read waits, in milliseconds.
const WAIT_MS: u64 = 2000;

impl<M: HubMessage> Hub<M> {
    /// Whether a query of a core has to wait until all nodes have stated numbers of subscribers. It
    /// is kept then.
    pub(super) fn awaits_counts(&mut self, from: (u16, Ack), query: &Query, now_ms: u64) -> bool {
        let (app, name) = match query {
            Query::Channels { app, counts: true, .. } => (*app, ""),
            Query::Channel { app, name, counts: true } => (*app, &**name),
            _ => return false,
        };
        if self.own_states.is_none() {
            return false;
        }
        let wanted = self.channel_events.wanted.get(app as usize).copied().unwrap_or_default();
        let counting = &mut self.counting;
        let is_whole = counting.apps.get(&app).is_some_and(|app| app.is_whole);
        if wanted.has(EventMask::TOTALS) || is_whole || name.starts_with('#') {
            return false;
        }
        let until_ms = now_ms + WAIT_MS;
        counting.waiting.push_back(WaitingQuery { app, from, query: query.clone(), until_ms });
        counting.ask(app, now_ms);
        true
    }

    /// The next answer to a query that has waited, with the core that has put it, which may be this
    /// one.
    pub fn next_counted(&mut self) -> Option<CountedAnswer> {
        self.counting.answers.pop_front()
    }

    /// Takes the question of the log for all numbers of an application.
    pub fn begin_counting(&mut self, app: u32) {
        let counting = &mut self.counting;
        let phase = &mut counting.apps.entry(app).or_default().phase;
        if matches!(phase, CountingPhase::Unasked) {
            *phase = CountingPhase::Asked;
            counting.unsettled.push(app);
        }
        self.settle_counting();
    }

    /// Notes that what this core has said of an application was not taken into the log. It is said
    /// again later.
    pub fn counting_failed(&mut self, app: u32) {
        let Counting { apps, unsettled, .. } = &mut self.counting;
        if let Some(AppCounting { phase, .. }) = apps.get_mut(&app)
            && matches!(phase, CountingPhase::Stated)
        {
            *phase = CountingPhase::Stating(Vec::new());
            unsettled.push(app);
        }
    }

    /// Notes whether all nodes have stated their numbers of an application, up to here in the log.
    /// Answers to queries that have waited are in [`Hub::next_counted`].
    pub fn note_counted(&mut self, app: u32, is_whole: bool, now_ms: u64) {
        self.counting.apps.entry(app).or_default().is_whole = is_whole;
        if is_whole {
            for WaitingQuery { from: (core, ack), query, .. } in self.counting.take_waiting(app) {
                let answer = self.answer_query(&query, now_ms);
                self.counting.answers.push_back((core, ack, answer));
            }
        }
    }

    /// The next of what this core says of an application.
    pub(super) fn next_of_counting(&mut self) -> Option<StateProposal<M>> {
        let (app, is_stated) = self.counting.statements.pop_front()?;
        let state = Statement::Counting(is_stated.then_some((self.core, self.cores)));
        Some(StateProposal { app, name: "".into(), state })
    }

    /// Lists the numbers of applications that are asked for, and says of which the log has all.
    pub(super) fn settle_counting(&mut self) {
        if self.visit.is_some() {
            return;
        }
        for app in std::mem::take(&mut self.counting.unsettled) {
            self.settle_app(app);
        }
    }

    fn settle_app(&mut self, number: u32) {
        let Some(app) = self.counting.apps.get_mut(&number) else { return };
        let before = std::mem::replace(&mut app.phase, CountingPhase::Stating(Vec::new()));
        let mut names = match before {
            CountingPhase::Stating(names) => names,
            _ => self.list_counts_of(number),
        };
        while names.last().is_some_and(|name| !self.is_stating(name)) {
            names.pop();
        }
        let Counting { apps, unsettled, statements, .. } = &mut self.counting;
        let Some(app) = apps.get_mut(&number) else { return };
        if names.is_empty() {
            statements.push_back((number, true));
            app.phase = CountingPhase::Stated;
        } else {
            unsettled.push(number);
            app.phase = CountingPhase::Stating(names);
        }
    }

    /// Lists the numbers of an application's channels, and returns those that the log does not
    /// have.
    fn list_counts_of(&mut self, app: u32) -> Vec<ChannelName> {
        let all: Vec<u32> = self.rooms_of(app).map(|(at, _)| at).collect();
        for at in all {
            let channel = self.channels[at as usize].as_mut();
            let home = channel.and_then(|channel| channel.home.as_mut());
            if let Some(nodes) = home.and_then(|home| home.nodes.as_mut()) {
                nodes.own_count.hasten();
            }
            self.list_count(at);
        }
        let names = self.rooms_of(app).map(|(_, channel)| &channel.name);
        names.filter(|name| self.is_stating(name)).cloned().collect()
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
        let first = counting.waiting.partition_point(|it| it.until_ms <= now_ms);
        let overdue: Vec<WaitingQuery> = counting.waiting.drain(..first).collect();
        let apps: BTreeSet<u32> = counting.waiting.iter().map(|it| it.app).collect();
        apps.into_iter().for_each(|app| counting.ask(app, now_ms));
        for WaitingQuery { from: (core, ack), query, .. } in overdue {
            let answer = match self.answer_query(&query, now_ms) {
                Answer::Channel(info) => {
                    Answer::Channel(ChannelInfo { is_count_unknown: true, ..info })
                }
                _ => Answer::CountsUnknown,
            };
            self.counting.answers.push_back((core, ack, answer));
        }
    }
}
