//! What the log of a cluster says of a miss of a cached event in one channel; see
//! [`super::misses`].

use super::name::ChannelName;
use std::collections::VecDeque;

/// What the log says of a miss in a channel, and what this node states of it.
#[derive(Debug, Default)]
pub(super) struct LoggedMiss {
    /// The node that reports the miss, and whether it is this one; `None` if the next miss is to be
    /// reported.
    pub(super) reporter: Option<(u64, bool)>,
    /// Whether that was not read since the log is read again.
    pub(super) is_unconfirmed: bool,
    /// Whether a subscriber of this node has found no event, and the log says of no reporter.
    pub(super) is_wanted: bool,
    /// Up to which serial number this node had received the log then.
    pub(super) after: u64,
    /// Whether the log has a statement of this node, as far as this node knows.
    pub(super) is_logged: bool,
    /// Whether the log may have something else.
    pub(super) is_unsure: bool,
    pub(super) is_proposed: bool,
    pub(super) is_listed: bool,
}

/// The channels of which statements about misses are to be examined.
#[derive(Debug, Default)]
pub(super) struct ListedMisses {
    /// Each channel once.
    pub(super) listed: VecDeque<ChannelName>,
    /// What has failed, and is to be listed again later.
    pub(super) failed: Vec<ChannelName>,
}

impl ListedMisses {
    pub(super) fn is_empty(&self) -> bool {
        self.listed.is_empty()
    }

    pub(super) fn has_failed(&self) -> bool {
        !self.failed.is_empty()
    }

    /// Lists again what has failed.
    pub(super) fn retry(&mut self) {
        self.listed.extend(self.failed.drain(..));
    }

    pub(super) fn clear(&mut self) {
        (self.listed, self.failed) = (VecDeque::new(), Vec::new());
    }
}

impl LoggedMiss {
    pub(super) fn is_idle(&self) -> bool {
        self.reporter.is_none()
            && !self.is_wanted
            && !self.is_proposed
            && !self.is_listed
            && !self.differs(false)
    }

    /// Whether this node is the reporter.
    pub(super) fn is_ours(&self) -> bool {
        self.reporter.is_some_and(|(_, is_ours)| is_ours)
    }

    /// Whether this node is to state that it reports the miss, if the channel has subscribers on
    /// any node.
    pub(super) fn is_to_be_stated(&self, is_occupied: bool) -> bool {
        is_occupied && (self.is_ours() || self.reporter.is_none() && self.is_wanted)
    }

    pub(super) fn differs(&self, is_stated: bool) -> bool {
        self.is_unsure || self.is_logged != is_stated
    }

    /// Notes that an event is cached, so that the next miss is reported again.
    pub(super) fn note_filled(&mut self) {
        (self.reporter, self.is_wanted) = (None, false);
    }

    /// Notes that no node has a subscriber, so that the next miss is reported again.
    pub(super) fn note_vacated(&mut self) {
        self.reporter = None;
    }

    /// Notes that a node has ended.
    pub(super) fn remove_node(&mut self, node: u64) {
        self.reporter = self.reporter.filter(|(it, _)| *it != node);
    }

    pub(super) fn has_node(&self, node: u64) -> bool {
        self.reporter.is_some_and(|(it, _)| it == node)
    }

    /// Marks what is known as not confirmed.
    pub(super) fn begin_refresh(&mut self) {
        self.is_unconfirmed = self.reporter.is_some();
    }

    /// Removes what was not confirmed since then.
    pub(super) fn end_refresh(&mut self) {
        if std::mem::take(&mut self.is_unconfirmed) {
            self.reporter = None;
        }
    }

    /// Trusts nothing that was stated, because the log is another one or this node has another id.
    pub(super) fn forget_log(&mut self) {
        self.is_unsure |= self.is_logged || self.is_proposed;
        (self.is_logged, self.is_proposed, self.is_listed) = (false, false, false);
        if let Some((_, is_ours)) = &mut self.reporter {
            *is_ours = false;
        }
    }
}
