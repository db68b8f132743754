//! What follows a step of a stage that may be followed by another stage.

use super::connecting::PendingUpstream;
use super::websocket::WebSocket;
use crate::session::ending::{Ending, Progress};

/// The result of a step of a stage.
pub(crate) enum Transition {
    /// The stage goes on, or the connection ends.
    Stay(Progress),
    /// The stage is followed by a WebSocket.
    Upgraded(Box<WebSocket>),
    /// The client waits for an upstream.
    Connecting(Box<PendingUpstream>),
}

impl Transition {
    pub(super) const NEED: Transition = Transition::Stay(Progress::Need);
    pub(super) const AGAIN: Transition = Transition::Stay(Progress::Again);
    pub(super) const FLUSH: Transition = Transition::Stay(Progress::End(Ending::Flush));
    pub(super) const CUT: Transition = Transition::Stay(Progress::End(Ending::Cut));
}
