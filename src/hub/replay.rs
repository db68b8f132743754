//! Requests to resume the history of a channel after a position, and what they find.

use super::event::HistoryLimit;
use super::forms::{EventForms, StreamPosition};
use super::frames::SharedFrame;
use super::history::History;
use super::log_view::LogView;
use std::sync::Arc;

/// A request to resume the history of a channel, in the join request of a subscriber that receives
/// positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResumeRequest {
    /// Where to resume.
    pub from: ResumeFrom,
    /// The limit of the history, which begins with this request if it has not begun.
    pub limit: HistoryLimit,
    /// The number of the link's view in whose form the subscriber receives events, or 0.
    pub view: u16,
}

/// Where a subscriber resumes the history of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResumeFrom {
    /// After the last event of the channel: no earlier event is sent.
    Present,
    /// After this position, with all events that follow it.
    Position(StreamPosition),
    /// Before the last events: this number of them, or all that are kept if those are fewer.
    Rewind(u32),
    /// After this position. Before the last events, at most this number of them, if there is no
    /// position, or if the replay cannot begin there: see [`ResumeOutcome`].
    Kept(Option<StreamPosition>, u32),
    /// At a position that cannot be read.
    Malformed,
}

/// What a request to resume has found.
#[derive(Clone, Debug)]
pub struct ResumeReply {
    /// The position after which [`ResumeReply::missed`] and all later events follow, without a gap
    /// and without a repetition.
    pub position: StreamPosition,
    /// Whether the request could be fulfilled, and if not, why.
    pub outcome: ResumeOutcome,
    /// The events between `position` and the first event that is delivered; the oldest is first.
    pub missed: Vec<MissedEvent>,
}

/// An event that a subscriber has missed.
#[derive(Clone, Debug)]
pub struct MissedEvent {
    /// The frame as it was published.
    pub shared: SharedFrame,
    /// The other forms of the event, with its position.
    pub forms: Arc<EventForms>,
}

/// The outcome of a request to resume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResumeOutcome {
    /// The request was for no earlier event.
    Present,
    /// The requested events follow.
    Recovered,
    /// The last events were requested, and the history has none.
    NoneKept,
    /// The position could not be read.
    Malformed,
    /// The position is one of another stream.
    OtherStream,
    /// The position has not been reached.
    Future,
    /// Events after the position are not kept any more.
    Expired,
    /// The events do not fit the write queue of the connection.
    TooLarge,
}

impl ResumeOutcome {
    /// Whether all requested events were found; `None` if the request was for no earlier event.
    pub(super) fn is_recovered(self) -> Option<bool> {
        (self != ResumeOutcome::Present).then(|| !self.is_gap())
    }

    /// Whether the subscriber has missed events that it is not sent.
    pub fn is_gap(self) -> bool {
        match self {
            ResumeOutcome::Present | ResumeOutcome::Recovered | ResumeOutcome::NoneKept => false,
            ResumeOutcome::Malformed
            | ResumeOutcome::OtherStream
            | ResumeOutcome::Future
            | ResumeOutcome::Expired
            | ResumeOutcome::TooLarge => true,
        }
    }
}

impl ResumeReply {
    /// Gives up the replay of missed events, the last of which is at `last`, because the connection
    /// has no room for them: the connection begins at the present position.
    pub fn give_up(&mut self, last: Option<StreamPosition>) {
        self.position = last.unwrap_or(self.position);
        self.missed = Vec::new();
        self.outcome = ResumeOutcome::TooLarge;
    }
}

/// A part of a channel's history, as the answer to a query.
#[derive(Clone, Debug)]
pub struct HistoryPage {
    /// The events, with their serial numbers; the oldest is first.
    pub events: Vec<(u64, SharedFrame)>,
    /// The position of the last of these events; without any, that of the last event of the
    /// channel.
    pub position: StreamPosition,
    /// Whether no event is missing between the position of the query and `position`.
    pub complete: bool,
    /// For a query through a link's view: the number of the view, and the name of the channel that
    /// has the history. The frames of the events are still those of that channel.
    pub view: Option<(u16, Box<str>)>,
}

impl History {
    /// The position after which the replay begins, and the outcome of the request.
    fn locate(
        &self,
        from: ResumeFrom,
        now_ms: u64,
        view: Option<&LogView>,
    ) -> (StreamPosition, ResumeOutcome) {
        let present = self.position();
        let before_last = |count| match view.is_some_and(LogView::is_reading_late) {
            true => present,
            false => StreamPosition { serial: self.before_last(count), ..present },
        };
        match from {
            ResumeFrom::Present => (present, ResumeOutcome::Present),
            ResumeFrom::Malformed => (present, ResumeOutcome::Malformed),
            ResumeFrom::Rewind(count) => (before_last(count), ResumeOutcome::Recovered),
            ResumeFrom::Kept(from, max) => {
                let found = from.map(|it| self.locate(ResumeFrom::Position(it), now_ms, view));
                let last = before_last(max);
                match found {
                    None => (last, ResumeOutcome::Present),
                    Some((at, ResumeOutcome::Recovered)) => (at, ResumeOutcome::Recovered),
                    Some((_, outcome)) => (last, outcome),
                }
            }
            ResumeFrom::Position(it) if it.stream != present.stream => {
                (present, ResumeOutcome::OtherStream)
            }
            ResumeFrom::Position(it) if it.serial > present.serial => {
                (present, ResumeOutcome::Future)
            }
            ResumeFrom::Position(it) if !self.reaches(it.serial, now_ms, view) => {
                (present, ResumeOutcome::Expired)
            }
            ResumeFrom::Position(it) => (it, ResumeOutcome::Recovered),
        }
    }

    /// Answers a request to resume: a position, and copies of all events after it that have not
    /// expired, for a subscriber through this view of a link, or through none. `log` is what the
    /// core knows of the log of a cluster.
    pub(super) fn resume(
        &mut self,
        from: ResumeFrom,
        view: u16,
        now_ms: u64,
        log: Option<&LogView>,
    ) -> ResumeReply {
        let (position, outcome) = self.locate(from, now_ms, log);
        self.note_view(view);
        let missed = self.missed_after(position.serial, now_ms).into_iter();
        let missed: Vec<_> = missed.map(|(shared, forms)| MissedEvent { shared, forms }).collect();
        let outcome = match from {
            ResumeFrom::Rewind(_) if missed.is_empty() => ResumeOutcome::NoneKept,
            _ => outcome,
        };
        ResumeReply { position, outcome, missed }
    }

    /// At most `max` events after the position `after`, or from the oldest event if there is none.
    /// After a position of another stream the page begins with the oldest event, too, and is not
    /// complete.
    pub(super) fn page(
        &self,
        after: Option<StreamPosition>,
        max: usize,
        now_ms: u64,
        log: Option<&LogView>,
    ) -> HistoryPage {
        let present = self.position();
        let (from, complete) = match after {
            None => (0, self.reaches(0, now_ms, log)),
            Some(after) if after.stream == present.stream => {
                (after.serial, self.reaches(after.serial, now_ms, log))
            }
            Some(_) => (0, false),
        };
        // An event that has expired, but was not swept yet, may be the first after the position.
        let complete = complete && !self.has_expired_after(from, now_ms);
        let found = self.after(from, now_ms).take(max);
        let events: Vec<_> = found.map(|(at, entry)| (at.serial, entry.shared.clone())).collect();
        let serial = events.last().map_or(present.serial, |(last, _)| *last);
        let position = StreamPosition { serial, ..present };
        HistoryPage { events, position, complete, view: None }
    }
}
