//! Numbers of subscribers that the nodes of a cluster state because somebody reads them, and what
//! is put to the log about them.

/// Numbers of subscribers of an application that nodes state while somebody reads them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CountedNumbers {
    /// The application's number.
    pub app: u32,
    /// Which numbers.
    pub kind: CountedKind,
}

/// Which numbers of the channels of an application.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CountedKind {
    /// Those of all subscribers.
    Totals,
    /// Those of all subscribers, and of those through each view of a link.
    ByView,
    /// Those of all subscribers, as earlier releases ask for them: for as long as the log lives.
    Unleased,
}

/// What is put to the log about numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CountingStep {
    /// All nodes are asked to state them. The number is that of the question: its place in the log,
    /// or 0 before it has one.
    Asked(u64),
    /// A core has stated those of all channels that it is the home of.
    Stated {
        /// The number of the question that this answers.
        question: u64,
        /// The core.
        core: u16,
        /// The number of cores of its node.
        cores: u16,
    },
    /// Somebody still reads them.
    Read,
    /// Nobody has read them for a time: they are not stated any more.
    Ended,
}
