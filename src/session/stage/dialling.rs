//! A connection to an upstream whose opening handshake is not answered yet.

use super::endpoint::Endpoint;
use super::proxy::ProxyLeg;
use super::records::Input;
use super::transition::Transition;
use super::websocket::WebSocket;
use crate::dialect::{Effect, PeerMessage, Why};
use crate::gateway::proxy::{HandshakeOutcome, UpstreamHandshake};
use crate::mem::Slot;
use crate::session::ending::{Ending, Progress};
use crate::session::{Context, Dial, SessionEvent};
use crate::upstream::UpstreamFailure;
use crate::ws::Role;

/// The end of a response head.
const END: &[u8] = b"\r\n\r\n";

/// A connection to an upstream until the handshake is answered.
pub(crate) struct Dialling {
    client: Slot,
    handshake: UpstreamHandshake,
    /// The handshake request, until it is queued.
    request: Vec<u8>,
    /// The part of the response head that was received.
    answer: Vec<u8>,
    handshake_ms: u64,
    buffer_bytes: usize,
    cause: UpstreamFailure,
    connected: bool,
    outcome_reported: bool,
}

impl Dialling {
    pub(super) fn new(dial: Dial) -> Dialling {
        Dialling {
            client: dial.client,
            handshake: dial.handshake,
            request: dial.request,
            answer: Vec::new(),
            handshake_ms: dial.handshake_ms,
            buffer_bytes: dial.buffer_bytes,
            cause: UpstreamFailure::Unreachable,
            connected: false,
            outcome_reported: false,
        }
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.request.capacity() + self.answer.capacity()
    }

    /// Notes that the connection is established. Returns the timeout of the handshake, in
    /// milliseconds.
    pub(super) fn connected(&mut self) -> u64 {
        self.connected = true;
        self.handshake_ms
    }

    /// Takes the handshake request, which is to be queued.
    pub(super) fn take_request(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.request)
    }

    /// Notes that TLS with the upstream has failed.
    pub(super) fn note_no_tls(&mut self) {
        self.cause = UpstreamFailure::InvalidReply("TLS with the upstream has failed");
    }

    /// Reads the upstream's response to the handshake.
    pub(super) fn step(&mut self, input: &[u8], cx: &mut Context<'_>) -> (usize, Transition) {
        let (had, max) = (self.answer.len(), cx.env.config.limits.http_head_bytes);
        let part = &input[..input.len().min(max.saturating_sub(had))];
        self.answer.extend_from_slice(part);
        // The blank line may have begun in the bytes received before.
        let from = had.saturating_sub(END.len() - 1);
        let end = self.answer[from..].windows(END.len()).position(|window| window == END);
        let Some(end) = end.map(|at| from + at + END.len()) else {
            if self.answer.len() >= max {
                return (
                    input.len(),
                    self.failed(UpstreamFailure::InvalidReply(
                        "the head of the response is too long",
                    )),
                );
            }
            return (input.len(), Transition::NEED);
        };
        let outcome = self.handshake.judge(&self.answer[..end]);
        let after = match outcome {
            HandshakeOutcome::Interim => Transition::AGAIN,
            HandshakeOutcome::Failed(cause) => self.failed(cause),
            HandshakeOutcome::Open(protocol) => {
                self.outcome_reported = true;
                let (to, message) = (self.client, PeerMessage::Answered(Ok(protocol)));
                cx.request(Effect::PeerMessage { to, message });
                let leg = ProxyLeg::new(Role::Client, to, self.buffer_bytes, cx.keys);
                let endpoint = Endpoint::ProxyLeg(Box::new(leg));
                let input = Input::FRAMES;
                Transition::Upgraded(Box::new(WebSocket::new(
                    input, endpoint, None, None, cx.now.ms,
                )))
            }
        };
        self.answer = Vec::new();
        (end - had, after)
    }

    /// Ends the connection for this reason, which [`Dialling::last_message`] reports to the client.
    fn failed(&mut self, cause: UpstreamFailure) -> Transition {
        self.cause = cause;
        Transition::CUT
    }

    /// Handles an event of the connection.
    pub(super) fn on(&mut self, event: &SessionEvent<'_>) -> Progress {
        match event {
            // The client's leg refuses the client, and then ends this connection.
            SessionEvent::CloseFor(Why::Draining) => Progress::Need,
            SessionEvent::CloseFor(_) | SessionEvent::OutOfMemory => Progress::End(Ending::Cut),
            // The client is gone.
            SessionEvent::Peer(PeerMessage::Close { .. }) => Progress::End(Ending::Cut),
            _ => Progress::Need,
        }
    }

    /// Handles a deadline that is due.
    pub(super) fn on_deadline(&mut self) -> Progress {
        self.cause = UpstreamFailure::Late { connected: self.connected };
        Progress::End(Ending::Cut)
    }

    /// Notes that the upstream has ended its side.
    pub(super) fn ended(&mut self) {
        self.cause = UpstreamFailure::InvalidReply("the upstream has ended the connection");
    }

    /// The message that reports the failure to the client, unless the outcome was reported already.
    pub(super) fn last_message(&mut self) -> Option<(Slot, PeerMessage)> {
        let first = !std::mem::replace(&mut self.outcome_reported, true);
        first.then(|| (self.client, PeerMessage::Answered(Err(self.cause.clone()))))
    }
}
