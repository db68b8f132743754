//! The content of a part that says something of the life of a node.

/// The state of a node, as its entry has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodePhase {
    /// It has read the log and does not serve yet.
    Joining,
    /// It serves.
    Up,
    /// It is about to end, or has ended: its members stay a while.
    Leaving,
    /// Another node has declared it dead, for ever.
    Dead,
}

const STATES: [NodePhase; 4] =
    [NodePhase::Joining, NodePhase::Up, NodePhase::Leaving, NodePhase::Dead];

impl NodePhase {
    /// The byte of the state.
    pub(super) fn byte(self) -> u8 {
        self as u8
    }

    /// The state of a byte; `None` of a byte that this release does not know.
    pub(super) fn of(byte: u8) -> Option<NodePhase> {
        STATES.get(usize::from(byte)).copied()
    }

    /// The word for logs and pages.
    pub fn word(self) -> &'static str {
        match self {
            NodePhase::Joining => "joining",
            NodePhase::Up => "up",
            NodePhase::Leaving => "leaving",
            NodePhase::Dead => "dead",
        }
    }
}

/// The maximum size of the version of a release, in bytes.
pub(super) const RELEASE_BYTES: usize = 64;

/// What an entry says of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePart<'e> {
    /// The node, which need not be the one that has written the entry.
    pub node: u64,
    /// Its state.
    pub state: NodePhase,
    /// The number of the renewal, among those of the process; 0 of a death.
    pub renewal: u64,
    /// The lowest and the highest format of entries that it reads and writes.
    pub formats: (u8, u8),
    /// A digest of the ids and keys of its applications.
    pub apps: u64,
    /// The number of its open connections.
    pub connections: u64,
    /// The version of its release, of at most 64 bytes.
    pub release: &'e str,
}
