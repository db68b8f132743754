//! The content of parts that say what is true on a node: which users are in a channel there, and
//! how many subscribers it has.

use super::{push_number, take_number, take_u64};
use crate::hub::SubscriberCount;

/// What a node states of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StatePart<'e> {
    /// Whether a user is on the node.
    Member {
        /// The node.
        node: u64,
        /// The user's id.
        user: &'e str,
        /// The user; `None` if it is no longer there.
        present: Option<PresentPart<'e>>,
    },
    /// Whether the node reports that a subscriber has found no cached event.
    Miss {
        /// The node.
        node: u64,
        /// Whether it does.
        is_missed: bool,
        /// Up to which serial number it had received the log when it found that.
        after: u64,
    },
    /// The number of subscribers of the node.
    Count {
        /// The node.
        node: u64,
        /// The number.
        count: SubscriberCount,
    },
}

/// A user who is present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresentPart<'e> {
    /// The maximum number of users of the channel, beyond which the user is not present; 0 is no
    /// maximum.
    pub max: u64,
    /// What the others see of the user.
    pub info: Option<&'e str>,
    /// What the others receive when the user is added and when it is removed; `None` if the
    /// dialects of the others are sent the user's status.
    pub frames: Option<[&'e [u8]; 2]>,
}

impl StatePart<'_> {
    /// The node whose state it is.
    pub fn node(&self) -> u64 {
        match self {
            StatePart::Member { node, .. }
            | StatePart::Count { node, .. }
            | StatePart::Miss { node, .. } => *node,
        }
    }
}

impl StatePart<'_> {
    /// Writes a number of subscribers: the part that has the number of all, and after it the part
    /// that has those by view, if there are some.
    pub(super) fn count_bytes(node: u64, count: &SubscriberCount) -> Vec<u8> {
        let mut out = node.to_le_bytes().to_vec();
        push_number(&mut out, u64::from(count.all));
        for (key, count) in &count.views {
            out.extend_from_slice(&key.to_le_bytes());
            push_number(&mut out, u64::from(*count));
        }
        out
    }

    /// Splits what [`StatePart::count_bytes`] has written into the two parts.
    pub(super) fn split_count(bytes: &[u8]) -> (&[u8], &[u8]) {
        let number = bytes.iter().skip(8).position(|byte| byte & 0x80 == 0);
        bytes.split_at(number.map_or(bytes.len(), |at| 8 + at + 1))
    }

    /// Reads the number of all subscribers; `None` if it is malformed.
    pub(super) fn read_count(mut rest: &[u8]) -> Option<Self> {
        let node = take_u64(&mut rest)?;
        let all = u32::try_from(take_number(&mut rest)?).ok()?;
        rest.is_empty().then_some(StatePart::Count { node, count: all.into() })
    }

    /// Adds the numbers by view to that of all; `None` if they are malformed, or this is none.
    pub(super) fn add_views(&mut self, mut rest: &[u8]) -> Option<()> {
        let StatePart::Count { count, .. } = self else { return None };
        while !rest.is_empty() {
            let key = take_u64(&mut rest)?;
            count.views.push((key, u32::try_from(take_number(&mut rest)?).ok()?));
        }
        count.views.is_sorted_by(|a, b| a.0 < b.0).then_some(())
    }
}
