//! How a connection is to end, and what follows a step of its stage.

/// How a connection is to end, if it is to end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ending {
    /// The connection stays open.
    #[default]
    Open,
    /// The write queue is sent, then our side is shut down, and the peer has until a deadline to
    /// end its side. Bytes that the peer still sends are read and discarded, so that the kernel
    /// sends no reset that could destroy data on its way to the peer.
    Flush,
    /// The connection is closed at once; the write queue is discarded.
    Cut,
}

/// The result of a step of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// All input was taken.
    Need,
    /// The step has handled something; the rest of the input may contain more.
    Again,
    /// The connection is to end.
    End(Ending),
}
