//! Histories with positions at their home: appending, resuming after a position, and expiry.
//!
//! The home orders the events of a channel and the requests to resume, so a subscriber gets each
//! event either by its join reply or by a later delivery. A sweep examines only the histories that
//! are due, regardless of the number of histories.

use super::cache;
use super::event::{Event, EventPayload, HistoryLimit};
use super::forms::{EventForms, StreamPosition};
use super::history::History;
use super::log_view::{LogMark, LogPlace, LogStart, LogView, end_of};
use super::mail::{Down, OutgoingMail};
use super::name::ChannelName;
use super::replay::{HistoryPage, ResumeReply, ResumeRequest};
use super::{Hub, HubMessage};
use std::sync::Arc;

/// The maximum amount of work of one sweep: each history that is examined counts 1, and each event
/// that is removed.
const EXPIRED_PER_SWEEP: usize = 10_000;

impl<M: HubMessage> Hub<M> {
    /// Appends an event to the history of a channel, and gives it its position if a subscriber may
    /// need that.
    pub(super) fn append_history(
        &mut self,
        at: u32,
        event: &mut Event<M>,
        limit: HistoryLimit,
        now_ms: u64,
        place: Option<LogPlace>,
    ) {
        let EventPayload::Frame(shared) = &event.payload else { return };
        let is_doubtful = place.is_some_and(|place| {
            self.log_at(at).is_some_and(|log| log.is_doubtful(place, limit.ttl_ms()))
        });
        self.change_history(at, limit, now_ms, |history, positioned| {
            // The forms of a linked channel's event as it is delivered are not kept: they would be
            // as many as its views. Its replays make and share those that they need.
            let is_linked = event.forms.is_some();
            if positioned {
                event.forms = Some(Arc::new(EventForms::new(Some(history.next(place)))));
            }
            let kept = event.forms.clone().filter(|_| !is_linked);
            let lost = history.push(shared.clone(), kept, limit, now_ms, place);
            if is_doubtful {
                history.forbid_earlier();
            }
            lost
        });
        self.make_room();
    }

    /// Carries out a request to resume the history of a channel. Returns `None` if the channel does
    /// not exist.
    pub(super) fn resume(
        &mut self,
        at: u32,
        request: ResumeRequest,
        now_ms: u64,
    ) -> Option<Box<ResumeReply>> {
        let channel = self.channels[at as usize].as_mut()?;
        channel.home.get_or_insert_default().positioned = true;
        let mut reply = None;
        let log = self.log_at(at);
        self.change_history(at, request.limit, now_ms, |history, _| {
            history.idle_ms = None;
            history.note_reached(log.map_or(0, |log| log.present()));
            history.expire(now_ms, usize::MAX);
            let lost = history.trim(request.limit);
            let found = history.resume(request.from, request.view, now_ms, log.as_ref());
            if let Some(is_recovered) = found.outcome.is_recovered() {
                history.count_resume(is_recovered);
            }
            reply = Some(Box::new(found));
            lost
        });
        // `make_room` is not called here: it could release the channel, which has no subscriber
        // yet. The next sweep calls it.
        reply
    }

    /// Calls `change` with the history of a channel, which begins if there is none, and then
    /// updates the totals of all histories and the time of this history's next examination. The
    /// second argument of `change` says whether subscribers need positions; its result is the
    /// number of events that were removed because the history had too many bytes.
    pub(super) fn change_history(
        &mut self,
        at: u32,
        limit: HistoryLimit,
        now_ms: u64,
        change: impl FnOnce(&mut History, bool) -> u64,
    ) {
        let Some(channel) = &mut self.channels[at as usize] else { return };
        let is_idle = channel.subscribers.is_empty() && channel.interest.is_empty();
        let home = channel.home.get_or_insert_default();
        let before = home.history.as_ref().map_or((0, 0), |it| (it.memory(), it.len()));
        let (kept, log) = (&mut self.kept, &self.log);
        let history = home.history.get_or_insert_with(|| {
            kept.began += 1;
            kept.pictures.insert(kept.began, channel.name.clone());
            let overhead = if limit.ttl_s > 0 { cache::overhead::<M>(&channel.name) } else { 0 };
            let begin = kept.begin_at.take();
            if let Some(view) = log.as_ref().filter(|_| limit.ttl_s > 0) {
                return History::of_log(kept.began, view, limit.ttl_ms(), overhead);
            }
            let begin =
                begin.unwrap_or_else(|| StreamPosition { stream: kept.stream(), serial: 0 });
            History::new(kept.began, begin.stream, limit.ttl_ms(), overhead)
                .after_serial(begin.serial)
        });
        history.idle_ms = is_idle.then_some(now_ms);
        kept.losses.elements += change(history, home.positioned);
        match history.is_unused() {
            true => kept.empty.insert(history.since),
            false => kept.empty.remove(&history.since),
        };
        kept.bytes = kept.bytes + history.memory() - before.0;
        if history.outlives() {
            kept.history_events = kept.history_events + history.len() - before.1;
            kept.history_bytes = kept.history_bytes + history.memory() - before.0;
            let due_ms = history.next_look(now_ms).unwrap_or(now_ms);
            // An examination that comes too early sets the time again.
            if due_ms < history.look_ms {
                kept.look_at(history.since, &mut history.look_ms, due_ms);
            }
        }
    }

    /// Notes that a channel has no subscriber any more.
    pub(super) fn note_idle(&mut self, at: u32) {
        let Some(channel) = &mut self.channels[at as usize] else { return };
        let Some(home) = &mut channel.home else { return };
        home.positioned = false;
        let Some(history) = home.history.as_mut().filter(|history| history.outlives()) else {
            return;
        };
        let now_ms = self.kept.now_ms;
        history.idle_ms = Some(now_ms);
        let due_ms = history.next_look(now_ms).unwrap_or(now_ms);
        if due_ms < history.look_ms {
            self.kept.look_at(history.since, &mut history.look_ms, due_ms);
        }
    }

    /// Takes a history that is dropped out of the totals and indexes of all histories. Returns its
    /// bytes.
    pub(super) fn note_history_dropped(&mut self, history: &History) -> usize {
        if history.outlives() {
            self.kept.history_events -= history.len();
            self.kept.history_bytes -= history.memory();
        }
        self.kept.expiries.remove(&(history.look_ms, history.since));
        self.kept.pictures.remove(&history.since);
        self.kept.empty.remove(&history.since);
        if let Some(log) = &mut self.log {
            log.forgotten = log.forgotten.max(history.last_of_log());
        }
        history.memory()
    }

    /// Drops what has expired of histories. Does at most [`EXPIRED_PER_SWEEP`] units of work.
    pub(super) fn sweep_histories(&mut self, now_ms: u64) {
        self.kept.now_ms = now_ms;
        let mut left = EXPIRED_PER_SWEEP;
        while left > 0 {
            let Some((look_ms, since)) = self.kept.expiries.first().copied() else { return };
            if look_ms > now_ms {
                return;
            }
            self.kept.expiries.pop_first();
            self.kept.examined += 1;
            left -= 1;
            if let Some(name) = self.kept.pictures.get(&since).cloned() {
                left -= self.examine_history(&name, now_ms, left);
            }
        }
    }

    /// Removes at most `max` expired events of a channel's history, and drops a history that is
    /// over. Returns the number of removed events.
    fn examine_history(&mut self, name: &ChannelName, now_ms: u64, max: usize) -> usize {
        let Some(at) = self.find(name.app(), name.text(), name.hash()) else { return 0 };
        let Some(channel) = &mut self.channels[at as usize] else { return 0 };
        let is_idle = channel.subscribers.is_empty() && channel.interest.is_empty();
        let Some(home) = &mut channel.home else { return 0 };
        let Some(history) = &mut home.history else { return 0 };
        history.idle_ms = history.idle_ms.filter(|_| is_idle);
        let before = history.memory();
        let expired = history.expire(now_ms, max);
        self.kept.bytes = self.kept.bytes + history.memory() - before;
        self.kept.history_bytes = self.kept.history_bytes + history.memory() - before;
        self.kept.history_events -= expired;
        match history.next_look(now_ms) {
            Some(due_ms) => self.kept.look_at(history.since, &mut history.look_ms, due_ms),
            None => self.drop_history(at),
        }
        expired
    }

    /// Drops the history of a channel, and the channel if that was all it had.
    fn drop_history(&mut self, at: u32) {
        let Some(channel) = &mut self.channels[at as usize] else { return };
        let Some(history) = channel.home.as_mut().and_then(|home| home.history.take()) else {
            return;
        };
        self.kept.bytes -= self.note_history_dropped(&history);
        self.release_if_empty(at);
    }

    /// Drops the histories with positions of an application, after its configuration has changed:
    /// events may be published that its histories would lack. A client that resumes is not
    /// recovered, because the next history is another stream, or in a cluster because
    /// nothing is known of the events before.
    pub fn end_histories(&mut self, app: u32) {
        let names = self.kept.pictures.values().filter(|name| name.app() == app);
        let names = names.cloned().collect();
        self.drop_histories(names);
        if let Some(log) = &mut self.log {
            log.forgotten = log.forgotten.max(log.reached);
        }
    }

    fn drop_histories(&mut self, names: Vec<ChannelName>) {
        for name in names {
            let Some(at) = self.find(name.app(), name.text(), name.hash()) else { continue };
            let home = self.channels[at as usize].as_ref().and_then(|it| it.home.as_ref());
            if home.and_then(|home| home.history.as_ref()).is_some() {
                self.drop_history(at);
            }
        }
    }

    /// Notes how this node goes on with the log of the cluster. With another log all histories end,
    /// and the other cores learn from where on this home's mail is of that one.
    pub fn begin_log(&mut self, start: LogStart, mail: &mut OutgoingMail<M>) {
        if self.log.get_or_insert_default().begin(start) {
            self.logs.begin(self.core, start.generation);
            self.added_floors.clear();
            let log_began = Down::LogBegan { home: self.core, log: start.generation };
            for core in (0..self.cores).filter(|core| *core != self.core) {
                mail.down(core, log_began.clone());
            }
            let names = self.kept.pictures.values().cloned().collect();
            self.drop_histories(names);
            // They were of the log before.
            if let Some(log) = &mut self.log {
                log.forgotten = 0;
            }
            self.begin_log_of_pictures();
        }
        if let Some(pictures) = &mut self.pictures {
            pictures.has_begun = true;
        }
    }

    /// Notes that a reload has added an application, and that entries of the log up to the one with
    /// this sequence number may have expired before this node has read what they have of it.
    pub fn begin_added(&mut self, app: u32, known_after: u64) {
        self.added_floors.insert(app, end_of(known_after));
    }

    /// What this core knows of the log about an application.
    fn log_of(&self, app: u32) -> Option<LogView> {
        let floor = self.added_floors.get(&app).copied().unwrap_or(0);
        self.log.map(|log| log.with_floor(floor))
    }

    /// The same about the application of the channel at `at`.
    fn log_at(&self, at: u32) -> Option<LogView> {
        let channel = self.channels.get(at as usize).and_then(Option::as_ref);
        channel.map_or(self.log, |channel| self.log_of(channel.name.app()))
    }

    /// Notes that another core's mail is of another log from now on.
    pub fn log_began(&mut self, home: u16, log: u16) {
        self.logs.begin(home, log);
    }

    /// Notes that all entries of the log up to a mark were applied that are for this core.
    pub fn reach(&mut self, mark: LogMark) {
        if let Some(log) = &mut self.log {
            log.reach(mark);
        }
    }

    /// At most `max` events of a channel's history, from the first one after the position `after`,
    /// or from the oldest one. `None` if the channel has no history with positions.
    pub(super) fn history_page(
        &self,
        (app, at): (u32, Option<u32>),
        after: Option<StreamPosition>,
        max: usize,
        now_ms: u64,
    ) -> Option<Box<HistoryPage>> {
        let home = at.and_then(|at| self.channels[at as usize].as_ref()?.home.as_ref());
        let history = home.and_then(|home| home.history.as_ref()).filter(|it| it.outlives());
        let log = self.log_of(app);
        let log = log.as_ref();
        match (history, log) {
            (Some(history), _) => Some(Box::new(history.page(after, max, now_ms, log))),
            // As a history that begins now would answer.
            (None, Some(view)) => {
                Some(Box::new(History::of_log(0, view, 1, 0).page(after, max, now_ms, log)))
            }
            (None, None) => None,
        }
    }

    /// The number of events in histories with positions of which this core is the home, and the
    /// bytes of these histories.
    pub fn history_totals(&self) -> (usize, usize) {
        (self.kept.history_events, self.kept.history_bytes)
    }
}
