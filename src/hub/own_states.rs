//! What this node states in the log of its cluster: which users are here, and how many subscribers.
//!
//! A state is proposed whenever the truth differs from what the log has, as far as that is known,
//! and nothing of the same subject is on its way. So it does not matter which proposals are lost:
//! in the end the log agrees with what is true here. A joining connection of a user whom the log
//! does not have waits for that.

use super::counted_numbers::{CountedKind, CountingStep};
use super::join::{JoinRefusal, JoinReply};
use super::miss::ListedMisses;
use super::name::ChannelName;
use super::node_states::{JoinDeadline, OwnUser};
use super::roster::Member;
use super::view_counts::SubscriberCount;
use crate::mem::Slot;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// A state of this node that waits to be taken into the log, in place of the earlier one of the
/// same subject.
#[derive(Clone, Debug)]
pub struct StateProposal<M> {
    /// The application's number.
    pub app: u32,
    /// The channel.
    pub name: Arc<str>,
    /// The state.
    pub state: Statement<M>,
}

/// What a node states of a channel.
#[derive(Clone, Debug)]
pub enum Statement<M> {
    /// Whether a user has connections here.
    Member {
        /// The user's id.
        user: Arc<str>,
        /// The user; `None` if it has no connection here any more.
        member: Option<Arc<Member<M>>>,
    },
    /// The number of subscribers here.
    Count(SubscriberCount),
    /// A piece of the channel's picture, which is that of all nodes.
    Picture(PicturePiece),
    /// Whether this node reports that a subscriber has found no cached event.
    Miss {
        /// Whether it does.
        is_missed: bool,
        /// Up to which serial number the node had received the log when it found that.
        after: u64,
    },
    /// What concerns the statement of numbers of subscribers of the whole application. It is about
    /// no channel.
    Counting(CountedKind, CountingStep),
}

/// A piece of a picture on its way into the log, or from there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PicturePiece {
    /// The serial number of the last change that is in the picture.
    pub serial: u64,
    /// The number of the piece, from 0. The first piece is sent last.
    pub index: u32,
    /// The number of pieces; not above `index` if there is no piece of that number any more, 0 if
    /// the channel has no picture.
    pub count: u32,
    /// The piece.
    pub bytes: Arc<[u8]>,
}

/// How a node states its numbers of subscribers.
#[derive(Clone, Copy, Debug)]
pub struct StateTimes {
    /// How long a channel has no subscriber here before that is stated, in milliseconds.
    pub linger_ms: u64,
    /// The time between two statements of numbers above 0, in milliseconds.
    pub count_every_ms: u64,
    /// How long after a change of a picture the whole picture is stated, in milliseconds.
    pub picture_ms: u64,
    /// How long a join waits for the log before it is refused, in milliseconds.
    pub hold_ms: u64,
}

/// The subject of a state: the channel, and the user; without a user the number of subscribers.
pub(super) type OwnSubject = (ChannelName, Option<Arc<str>>);

/// The answer to a connection of this core whose join has waited for the log.
pub(super) struct JoinAnswer {
    /// The number of the request.
    pub(super) request_id: u32,
    /// The connection.
    pub(super) slot: Slot,
    /// The channel.
    pub(super) name: ChannelName,
    pub(super) reply: Result<JoinReply, JoinRefusal>,
}

/// What waits in the hub of a node of a cluster.
pub(super) struct OwnStates<M> {
    pub(super) times: StateTimes,
    /// What is to be examined, each subject once.
    pub(super) listed: VecDeque<OwnSubject>,
    /// What is to be examined from `retry_ms` on, because a proposal has failed.
    pub(super) failed: Vec<OwnSubject>,
    pub(super) retry_ms: u64,
    /// Numbers of subscribers that are to be examined at a time in milliseconds.
    pub(super) timers: BTreeMap<(u64, u64), ChannelName>,
    pub(super) timers_made: u64,
    pub(super) under_way: usize,
    pub(super) returned: Option<StateProposal<M>>,
    pub(super) misses: ListedMisses,
    /// One for each user of a channel with joins that wait for the log, besides internal channels.
    pub(super) deadlines: BTreeMap<JoinDeadline, (ChannelName, Arc<str>)>,
    deadlines_made: u64,
    /// The number of joins that were refused since [`Hub::waiting_joins`] was called, because the
    /// log did not have their user in time.
    pub(super) joins_refused: u64,
    /// Answers to connections of this core whose joins have waited.
    pub(super) replies: VecDeque<JoinAnswer>,
    /// Whether the node leaves its cluster: what ends here is not stated any more.
    pub(super) is_leaving: bool,
}

impl<M> OwnStates<M> {
    pub(super) fn new(times: StateTimes) -> OwnStates<M> {
        OwnStates {
            times,
            listed: VecDeque::new(),
            failed: Vec::new(),
            retry_ms: 0,
            timers: BTreeMap::new(),
            timers_made: 0,
            under_way: 0,
            returned: None,
            misses: ListedMisses::default(),
            deadlines: BTreeMap::new(),
            deadlines_made: 0,
            joins_refused: 0,
            replies: VecDeque::new(),
            is_leaving: false,
        }
    }

    /// Notes that the joins of a user that wait for the log have changed.
    pub(super) fn note_waiting(
        &mut self,
        own: &mut OwnUser<M>,
        (name, user): (&ChannelName, &Arc<str>),
    ) {
        // No client waits for the answer of an internal channel.
        let first = own.waiting.first().filter(|_| !name.text().starts_with('#'));
        let until_ms = first.map(|it| it.until_ms);
        if own.deadline.map(|(until_ms, _)| until_ms) == until_ms {
            return;
        }
        own.deadline.take().map(|before| self.deadlines.remove(&before));
        if let Some(until_ms) = until_ms {
            self.deadlines_made += 1;
            let deadline = (until_ms, self.deadlines_made);
            self.deadlines.insert(deadline, (name.clone(), user.clone()));
            own.deadline = Some(deadline);
        }
    }

    /// Notes that a state of a subject is not on its way any more.
    pub(super) fn note_settled(&mut self, is_proposed: &mut bool) {
        self.under_way -= usize::from(std::mem::take(is_proposed)).min(self.under_way);
    }
}
