//! What a peer has missed: the events of a channel's history that it gets when it resumes.

use super::broadcast::{Wrapped, id_of};
use super::stage::Framing;
use super::{Context, Session};
use crate::dialect::{self, Event, EventPayload};
use crate::hub::{Form, MissedEvent, ResumeOutcome, ResumeReply, SharedFrame};
use crate::limits::REPLAY_BYTES;
use crate::stats::Counters;
use crate::work::{self, WorkKind};
use crate::ws::record::EventId;
use memchr::memchr2_iter;

/// The maximum number of bytes that a server-sent event adds to a frame of one line, with an id of
/// one position.
const EVENT_BYTES: usize = 80;

/// The bytes that a line break adds to a server-sent event: the name of the field of the next line.
const LINE_BYTES: usize = b"data: ".len();

/// A missed event in the form in which a peer receives it, with its id in a stream of events.
pub struct ReplayedEvent {
    shared: SharedFrame,
    id: Option<EventId>,
}

/// Counts a request to resume, unless it has only asked for the present position.
fn count_resume(outcome: ResumeOutcome, counters: &Counters) {
    let counter = match outcome {
        ResumeOutcome::Present => return,
        ResumeOutcome::Recovered | ResumeOutcome::NoneKept => &counters.history_recovered,
        ResumeOutcome::Malformed => &counters.history_malformed,
        ResumeOutcome::OtherStream => &counters.history_other_stream,
        ResumeOutcome::Future => &counters.history_future,
        ResumeOutcome::Expired => &counters.history_expired,
        ResumeOutcome::TooLarge => &counters.history_too_large,
    };
    counter.add(1);
}

impl Session {
    /// Takes the missed events out of a reply, for [`Session::replay`], in the form in which the
    /// peer receives the events of the channel `name`. If they do not fit the replies that may wait
    /// for this peer, the reply says that nothing was resumed.
    pub fn take_replay(
        &mut self,
        resumed: &mut ResumeReply,
        (name, form): (&str, Form),
        cx: &Context<'_>,
    ) -> Vec<ReplayedEvent> {
        // The form of a view may have to be made.
        let each = if form.view == 0 { work::DELIVERY } else { work::DELIVERY + work::MESSAGE };
        cx.work.charge(WorkKind::Delivery, each * resumed.missed.len() as u64);
        let missed = std::mem::take(&mut resumed.missed);
        let last = missed.last().and_then(|it| it.forms.position);
        let (events, waiting) = (self.stage.is_event_stream(), self.link.queue.replies());
        let (is_stream, id_bytes) = match self.stage.framing() {
            Framing::Records(_, ids) => (true, ids.map_or(0, |ids| ids.max_bytes())),
            _ => (false, 0),
        };
        let (mut taken, mut bytes) = (Vec::with_capacity(missed.len()), 0);
        for event in missed {
            let replayed = self.in_form(event, name, form.of_data(events), events, cx);
            let frame = &replayed.shared.frame;
            // Each line of a server-sent event begins with the name of its field.
            let breaks = if is_stream { memchr2_iter(b'\n', b'\r', frame).count() } else { 0 };
            let more = if is_stream { EVENT_BYTES + id_bytes + LINE_BYTES * breaks } else { 0 };
            bytes += frame.len() + more;
            taken.push(replayed);
        }
        if bytes > 0 && waiting + bytes > REPLAY_BYTES {
            resumed.give_up(last);
            taken = Vec::new();
        }
        count_resume(resumed.outcome, cx.counters);
        taken
    }

    fn in_form(
        &self,
        event: MissedEvent,
        name: &str,
        form: Form,
        events: bool,
        cx: &Context<'_>,
    ) -> ReplayedEvent {
        let (format, env) = (self.stage.format(), cx.env);
        let MissedEvent { shared, forms } = event;
        let event = Event { forms: Some(forms.clone()), ..Event::from(shared) };
        let make = || dialect::make_form(env, name, &event, form, format);
        let shared = match &event.payload {
            EventPayload::Frame(shared) if form == Form::PUBLISHED => shared,
            _ => forms.get(form, format, make),
        };
        ReplayedEvent { shared: shared.clone(), id: id_of(&event).filter(|_| events) }
    }

    /// Notes that the peer's stream of events has this position in the channel at `form.place`,
    /// before the acknowledgement of its subscription is written.
    pub fn note_position(&mut self, form: Form, position: EventId) {
        if let Framing::Records(_, Some(ids)) = self.stage.framing() {
            ids.set(form.place, position);
        }
    }

    /// Queues events that the peer has missed as replies. Like a live event, one that the view
    /// cannot express, or that is longer there than a write queue, is left out and counted.
    pub fn replay(&mut self, missed: Vec<ReplayedEvent>, form: Form, cx: &mut Context<'_>) {
        let max_bytes = match form.view {
            0 => usize::MAX,
            _ => cx.env.config.limits.write_queue_bytes,
        };
        for ReplayedEvent { shared, id } in &missed {
            if form.view != 0 && (shared.frame.is_empty() || shared.frame.len() > max_bytes) {
                cx.counters.link_unexpressed.add(1);
                continue;
            }
            self.queue_encoded(Wrapped::of(shared), id.map(|id| (id, form.place)), cx);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::stage::Stage;
    use super::super::test_core::Core;
    use super::*;
    use crate::hub::{EventForms, StreamPosition};
    use crate::mem::{Frozen, Handle};
    use crate::ws::event_ids::EventIds;
    use crate::ws::{Opcode, frame};
    use std::sync::Arc;

    const POSITION: StreamPosition = StreamPosition { stream: 7, serial: 4 };

    fn event(serial: u64, text: &str) -> MissedEvent {
        let forms = EventForms::new(Some(StreamPosition { serial, ..POSITION }));
        let frame = Frozen::new(&frame::frozen(Opcode::Text, text.as_bytes()));
        MissedEvent { shared: SharedFrame { frame, compressed: None }, forms: Arc::new(forms) }
    }

    /// Replays three events, the first of which is `text`, to a peer for which so many bytes wait
    /// that `room` bytes are left. Returns the number of replayed events and of replayed bytes.
    fn replay(stage: Stage, form: Form, text: &str, room: usize) -> (usize, usize) {
        let missed = vec![event(5, text), event(6, "{}"), event(7, "{}")];
        let mut core = Core::new();
        let mut session = core.session();
        session.stage = stage;
        let waiting = REPLAY_BYTES - room;
        session.link.queue.push_reply(&Handle::new(Frozen::new(&vec![0; waiting])), 0);
        let outcome = ResumeOutcome::Recovered;
        let mut reply = ResumeReply { position: POSITION, outcome, missed };
        let taken = session.take_replay(&mut reply, ("c", form), &core.cx());
        let count = taken.len();
        session.replay(taken, form, &mut core.cx());
        assert!(session.is_open_socket());
        let too_large = core.counters.history_too_large.get();
        let expected = match count {
            0 => (ResumeOutcome::TooLarge, 7, 1),
            _ => (ResumeOutcome::Recovered, 4, 0),
        };
        assert_eq!((reply.outcome, reply.position.serial, too_large), expected);
        (count, session.link.queue.replies() - waiting)
    }

    /// Checks that a replay is given up if one byte less than `bytes` is left, and that it never
    /// has more bytes than it was estimated to have.
    fn check(stage: impl Fn() -> Stage, form: Form, text: &str, bytes: usize) {
        let (count, replayed) = replay(stage(), form, text, bytes);
        assert_eq!(count, 3, "{bytes} bytes");
        assert!(replayed <= bytes, "{replayed} of {bytes} bytes");
        assert_eq!(replay(stage(), form, text, bytes - 1), (0, 0));
    }

    #[test]
    fn replay_beyond_its_bound_is_given_up() {
        let position = r#","stream_id":"0000000000000007","serial":5}"#.len() - 1;
        let first = "{\"event\":1}";
        let bytes = 2 + first.len() + position + 2 * (2 + 2 + position - 1);
        check(Stage::echo, Form::POSITIONED, first, bytes);
    }

    #[test]
    fn replay_to_a_stream_of_events_counts_its_lines() {
        let frames = 4 + 1000 + 2 * (2 + 2);
        let lines = "\n".repeat(1000);
        let bytes = frames + 3 * EVENT_BYTES + 1000 * LINE_BYTES;
        check(Stage::event_stream, Form::POSITIONED, &lines, bytes);
        // Each of CR LF, CR and LF is one line, and the estimate counts CR LF twice.
        let lines = "\r\n".repeat(500);
        check(Stage::event_stream, Form::POSITIONED, &lines, bytes);
        check(Stage::event_stream, Form::POSITIONED, &"x".repeat(1000), frames + 3 * EVENT_BYTES);
    }

    #[test]
    fn replay_to_a_stream_of_several_channels_counts_its_ids() {
        let ids = || {
            let mut ids = EventIds::new(EventIds::MAX);
            let max = EventId { stream: u64::MAX, serial: u64::MAX };
            (1..=EventIds::MAX as u8).for_each(|place| ids.set(place, max));
            ids
        };
        let form = Form { place: 3, ..Form::POSITIONED };
        let bytes = 3 * (2 + 2) + 3 * (EVENT_BYTES + ids().max_bytes());
        check(|| Stage::event_stream_with(ids()), form, "{}", bytes);
    }

    #[test]
    fn replay_through_a_view_leaves_out_what_no_live_event_of_the_view_is() {
        let max = Core::new().env.config.limits.write_queue_bytes;
        for (view, bytes, is_sent) in [(1, max, true), (1, max + 1, false), (0, max + 1, true)] {
            let mut core = Core::new();
            let mut session = core.session();
            let frame = Frozen::new(&vec![b'x'; bytes]);
            let shared = SharedFrame { frame, compressed: None };
            let form = Form { view, ..Form::POSITIONED };
            session.replay(vec![ReplayedEvent { shared, id: None }], form, &mut core.cx());
            assert_eq!(session.link.queue.replies(), if is_sent { bytes } else { 0 });
            assert_eq!(core.counters.link_unexpressed.get(), u64::from(!is_sent));
        }
    }
}
