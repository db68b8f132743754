//! The states of nodes between the cores and the log: members of channels and numbers of
//! subscribers.

use super::arrival::Arrival;
use super::entry::{self, CountingPart, PicturePart, PresentPart, StatePart};
use super::queue::{ChannelKey, CountingSubject, QueueKey, StateSubject};
use super::subject;
use crate::dialect::{DialectMessage, Member, MemberChange, StateProposal, UserStatus};
use crate::hub::{Ack, ClientEvent, CountingStep, PicturePiece, StateAuthor, Statement};
use crate::mem::Frozen;
use std::sync::Arc;

/// Who is interested in the fate of an event.
#[derive(Clone, Debug, Default)]
pub(super) struct Origin {
    /// The core and the request that wait for it.
    pub(super) request: Option<(u16, Ack)>,
    /// What webhooks report of it when it is stored.
    pub(super) client_event: Option<Arc<ClientEvent>>,
    /// Whether the event is the piece of an epoch that is under way.
    pub(super) is_epoch: bool,
    /// Until when the request waits for the log's decision about the event's idempotency key, in
    /// milliseconds; `None` if it has none.
    pub(super) key_until_ms: Option<u64>,
}

/// The key of a state of node `node`, its part of an entry, and whether the state is the end of an
/// earlier one. There is no part if a cluster does not carry the state.
pub(super) fn part_of(node: u64, proposal: &StateProposal) -> (QueueKey, Option<(Vec<u8>, bool)>) {
    let channel = (proposal.app, proposal.name.clone());
    let (state, part) = match &proposal.state {
        Statement::Count(count) => {
            let part = entry::state_part(&StatePart::Count { node, count: count.clone() });
            (StateSubject::Count, Some((part, count.all == 0)))
        }
        Statement::Picture(piece) => {
            let PicturePiece { serial, index, count, bytes } = piece;
            let part = PicturePart { serial: *serial, index: *index, count: *count, piece: bytes };
            let ends = part.is_end();
            (StateSubject::Picture(*index), Some((entry::picture_part(&part), ends)))
        }
        Statement::Miss { is_missed, after } => {
            let (is_missed, after) = (*is_missed, *after);
            let part = entry::state_part(&StatePart::Miss { node, is_missed, after });
            (StateSubject::Miss, Some((part, !is_missed)))
        }
        Statement::Counting(kind, step) => {
            let part = CountingPart { node, kind: *kind, step: *step }.bytes();
            let (subject, ends) = match step {
                CountingStep::Asked(_) => (CountingSubject::Question, false),
                CountingStep::Ended => (CountingSubject::Question, true),
                CountingStep::Read => (CountingSubject::Reads, true),
                CountingStep::Stated { core, .. } => (CountingSubject::Core(*core), false),
            };
            (StateSubject::Counting(*kind, subject), Some((part, ends)))
        }
        Statement::Member { user, member } => {
            let present = member.as_deref().map(present_of);
            let part = match present {
                Some(None) => None,
                Some(Some(it)) => Some((node, Some(it))),
                None => Some((node, None)),
            };
            let part = part.map(|(node, present)| {
                let ends = present.is_none();
                (entry::state_part(&StatePart::Member { node, user, present }), ends)
            });
            (StateSubject::Member(user.clone()), part)
        }
    };
    (QueueKey { channel, state: Some(state) }, part)
}

/// The entry with this number of a process that has a part about a state in a channel, of which the
/// application's id and the name are given.
pub(super) fn body_of(
    author: (u64, u64),
    (app, channel): (&str, &str),
    state: &StateSubject,
    part: &[u8],
) -> Vec<u8> {
    match state {
        StateSubject::Picture(_) => entry::write_picture(author, app, channel, part),
        StateSubject::Counting(kind, _) => entry::write_counting(author, app, *kind, part),
        StateSubject::Miss => entry::write_miss(author, app, channel, part),
        StateSubject::Member(_) => entry::write_state(author, app, channel, true, part),
        StateSubject::Count => entry::write_state(author, app, channel, false, part),
    }
}

/// The subject of such an entry of a node, in the cluster `name`.
pub(super) fn subject_of(
    name: &str,
    node: u64,
    (app, channel): (&str, &str),
    state: &StateSubject,
) -> String {
    match state {
        StateSubject::Picture(index) => subject::of_picture(name, (app, channel), *index),
        StateSubject::Miss => subject::of_miss(name, node, (app, channel)),
        StateSubject::Counting(kind, CountingSubject::Core(core)) => {
            subject::of_counted(name, node, (app, *kind), *core)
        }
        StateSubject::Counting(kind, it) => {
            subject::of_counting(name, (app, *kind), *it == CountingSubject::Reads)
        }
        state => subject::of_state_in(name, node, (app, channel), state.user()),
    }
}

fn present_of(member: &Member) -> Option<PresentPart<'_>> {
    let frames = match (&member.added, &member.removed) {
        (MemberChange::Frame(added), MemberChange::Frame(removed)) => Some([&**added, &**removed]),
        (
            MemberChange::Message(DialectMessage::Channels(_)),
            MemberChange::Message(DialectMessage::Channels(_)),
        ) => None,
        _ => return None,
    };
    Some(PresentPart { max: member.max as u64, info: member.info.as_deref(), frames })
}

/// What the home of the channel is sent of a state.
pub(super) fn arrival_of(
    part: &StatePart<'_>,
    (app, channel): ChannelKey,
    author: StateAuthor,
) -> Arrival {
    match part {
        StatePart::Miss { is_missed, after, .. } => {
            Arrival::Miss { app, channel, author, missed: (*is_missed, *after) }
        }
        StatePart::Count { count, .. } => {
            Arrival::Count { app, channel, author, count: count.clone() }
        }
        StatePart::Member { user, present, .. } => {
            let user: Arc<str> = (*user).into();
            let member = present.as_ref().map(|present| {
                let [added, removed] = changes_of(&user, present);
                Box::new(Member {
                    id: user.clone(),
                    info: present.info.map(Into::into),
                    added,
                    removed,
                    max: usize::try_from(present.max).unwrap_or(usize::MAX),
                })
            });
            Arrival::Member { app, channel, author, user, member }
        }
    }
}

fn changes_of(user: &str, present: &PresentPart<'_>) -> [MemberChange; 2] {
    match present.frames {
        Some(frames) => frames.map(|frame| Frozen::new(frame).into()),
        None => [true, false].map(|online| {
            let status = Arc::new(UserStatus { id: user.to_owned(), online });
            MemberChange::Message(DialectMessage::Channels(status))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::SubscriberCount;

    const AUTHOR: StateAuthor = StateAuthor { node: 7, is_ours: false };

    fn there_and_back(state: Statement<DialectMessage>) -> Option<(bool, Arrival)> {
        let proposal = StateProposal { app: 3, name: "presence-a".into(), state };
        let (key, part) = part_of(7, &proposal);
        let (part, ends) = part?;
        let is_member = matches!(key.state, Some(StateSubject::Member(_)));
        let bytes = entry::write_state((9, 1), "app", "presence-a", is_member, &part);
        let entry = entry::read(&bytes).expect("an entry");
        let [part] = &entry.states[..] else { panic!("{entry:?}") };
        assert_eq!(part.node(), 7);
        Some((ends, arrival_of(part, key.channel, AUTHOR)))
    }

    fn member(added: MemberChange, removed: MemberChange) -> Statement<DialectMessage> {
        let info = Some("{}".into());
        let member = Member { id: "ada".into(), info, added, removed, max: 100 };
        Statement::Member { user: "ada".into(), member: Some(Arc::new(member)) }
    }

    #[test]
    fn cluster_state_of_a_member_goes_through_the_log() {
        let frame = |text: &[u8]| MemberChange::Frame(Frozen::new(text));
        let state = member(frame(b"added"), frame(b"gone"));
        let (ends, arrival) = there_and_back(state).expect("it is carried");
        let Arrival::Member { app: 3, channel, author: AUTHOR, user, member: Some(member) } =
            arrival
        else {
            panic!("{arrival:?}")
        };
        assert_eq!((ends, &*channel, &*user, &*member.id), (false, "presence-a", "ada", "ada"));
        assert_eq!((member.info.as_deref(), member.max), (Some("{}"), 100));
        let text = |change: &MemberChange| match change {
            MemberChange::Frame(frame) => frame.to_vec(),
            MemberChange::Message(_) => panic!("a frame"),
        };
        assert_eq!(
            (text(&member.added), text(&member.removed)),
            (b"added".to_vec(), b"gone".to_vec())
        );
        let state = Statement::Member { user: "ada".into(), member: None };
        let (ends, arrival) = there_and_back(state).expect("it is carried");
        assert!(ends && matches!(arrival, Arrival::Member { member: None, .. }), "{arrival:?}");
    }

    #[test]
    fn cluster_state_of_a_watched_user_goes_through_the_log() {
        let status = |online| {
            let status = UserStatus { id: "ada".to_owned(), online };
            MemberChange::Message(DialectMessage::Channels(Arc::new(status)))
        };
        let state = member(status(true), status(false));
        let (_, arrival) = there_and_back(state).expect("it is carried");
        let Arrival::Member { member: Some(member), .. } = arrival else { panic!("a member") };
        for (change, online) in [(&member.added, true), (&member.removed, false)] {
            let MemberChange::Message(DialectMessage::Channels(status)) = change else {
                panic!("{change:?}")
            };
            assert_eq!((&*status.id, status.online), ("ada", online));
        }
        // Another kind of change is not carried.
        let frame = MemberChange::Frame(Frozen::new(b"f"));
        assert!(there_and_back(member_with(frame, status(false))).is_none());
    }

    fn member_with(added: MemberChange, removed: MemberChange) -> Statement<DialectMessage> {
        member(added, removed)
    }

    #[test]
    fn cluster_state_of_a_number_goes_through_the_log() {
        for (count, is_end) in [(0, true), (1, false), (u32::MAX, false)] {
            let (ends, arrival) =
                there_and_back(Statement::Count(count.into())).expect("it is carried");
            assert_eq!(ends, is_end);
            let Arrival::Count { app: 3, author: AUTHOR, count: read, .. } = arrival else {
                panic!("{arrival:?}")
            };
            assert_eq!(read, SubscriberCount::from(count));
        }
    }
}
