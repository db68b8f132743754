//! The content of parts that say what is true on a node: which users are in a channel there, and
//! how many subscribers it has.

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
        count: u32,
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
