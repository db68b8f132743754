//! Reading that is paused: what was read meanwhile is held. A message may wait for its schema.

use super::inbound::{Recipient, payload_kind};
use super::socket::{ConnectionPolicy, Socket};
use super::{After, Context, Ending, Session, Stage};
use crate::dialect::Closing;
use crate::model::RuleSet;
use crate::time::Deadline;
use crate::work::{self, CONNECTION_FAILURES};
use crate::ws::{MessageKind, close};

const TOO_MANY_FAILURES: &str = "too many tokens that are not accepted";
/// How long it waits, in milliseconds.
const WAIT_MS: u64 = 5000;

/// Bytes that wait for the next turn of a connection from which more is read meanwhile. Stopping
/// and beginning to read costs two operations of the kernel.
const READ_AHEAD: usize = work::CONNECTION_BYTES;

/// A message that waits for its schema. Nothing more is read from its connection meanwhile.
pub(super) struct ParkedMessage {
    pub(super) kind: MessageKind,
    pub(super) payload: Vec<u8>,
    until: Deadline,
}

/// Input that waits because reading is paused, and how much of it was taken already. What was
/// taken stays until it is most of it, so that a long input is not moved each turn.
#[derive(Debug, Default)]
pub struct HeldInput {
    bytes: Vec<u8>,
    taken: usize,
}

impl HeldInput {
    /// What waits.
    pub fn rest(&mut self) -> &mut [u8] {
        &mut self.bytes[self.taken..]
    }

    /// Notes that so many bytes of the rest were taken.
    pub fn take(&mut self, n: usize) {
        self.taken += n;
        if self.taken > self.bytes.len() / 2 {
            self.bytes.drain(..self.taken);
            self.bytes.shrink_to_fit();
            self.taken = 0;
        }
    }
}

/// The part that a connection has used of what it may ask for in one turn.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Share {
    /// The low bits of the turn's number.
    turn: u16,
    /// In parts of [`Share::WHOLE`].
    used: u16,
}

impl Share {
    const WHOLE: u16 = 1024;
    const MESSAGE: u64 = Share::WHOLE as u64 / work::CONNECTION_MESSAGES as u64;
    const BYTES: usize = work::CONNECTION_BYTES / Share::WHOLE as usize;
    const WORK: u64 = work::CONNECTION_WORK / Share::WHOLE as u64;

    /// Counts a step that has taken so many bytes and held so much work.
    fn add(&mut self, turn: u16, bytes: usize, work: u64) {
        let used = Share::MESSAGE + (bytes / Share::BYTES) as u64 + work / Share::WORK;
        let before = if self.turn == turn { self.used } else { 0 };
        *self = Share { turn, used: before.saturating_add(used.min(u16::MAX.into()) as u16) };
    }

    fn is_used_up(self, turn: u16) -> bool {
        self.turn == turn && self.used >= Share::WHOLE
    }
}

impl Session {
    /// Keeps input for later.
    pub fn hold(&mut self, rest: &[u8]) {
        if !rest.is_empty() {
            self.held.get_or_insert_default().bytes.extend_from_slice(rest);
        }
    }

    /// Keeps the rest of what [`Session::resume`] gave.
    pub fn hold_again(&mut self, held: Box<HeldInput>) {
        if held.taken < held.bytes.len() {
            self.held = Some(held);
        }
    }

    /// Bytes of input that wait.
    pub fn waiting_input_bytes(&self) -> usize {
        self.held.as_ref().map_or(0, |held| held.bytes.len())
    }

    /// Stops reading until [`Session::resume`].
    pub fn pause(&mut self) {
        self.paused = true;
    }

    /// Whether reading is paused.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Takes the held input out, to be stepped through before anything else is read, and whether
    /// the peer ended its side behind that, to be told then.
    pub fn resume(&mut self) -> (Option<Box<HeldInput>>, bool) {
        self.paused = false;
        (self.held.take(), std::mem::take(&mut self.eof))
    }

    /// Counts a step against what this connection may ask for in the turn of that number.
    pub fn use_share(&mut self, turn: u16, bytes: usize, work: u64) {
        self.share.add(turn, bytes, work);
    }

    /// Whether that is used up.
    pub fn has_used_share(&self, turn: u16) -> bool {
        self.share.is_used_up(turn)
    }

    /// Whether more may be read although the rest waits: for the next turn, and it is not much.
    pub(super) fn may_read_ahead(&self) -> bool {
        self.waits && self.waiting_input_bytes() < READ_AHEAD
    }

    /// Whether a message that was read waits: for its schema, or for a turn with work to spare.
    pub fn has_parked(&self) -> bool {
        let waits = |socket: &Socket| socket.has_parked() || socket.is_unpacking();
        matches!(&self.stage, Stage::Socket(socket) if waits(socket))
    }
}

impl Session {
    /// Remembers tokens that were not believed in this step. A WebSocket is closed for the last of
    /// those that it has; a request has been answered with that.
    pub(super) fn note_failures(&mut self, cx: &mut Context<'_>) {
        let failures = cx.work.take_failures();
        if failures == 0 {
            return;
        }
        let before = self.failures;
        self.failures = before.saturating_add(failures);
        if before < CONNECTION_FAILURES && self.failures >= CONNECTION_FAILURES {
            cx.counters.guard_failures_closed.add(1);
            self.close_with(&Closing::new(close::POLICY, TOO_MANY_FAILURES), cx);
        }
    }

    /// When the connection ends if nothing more comes, if it is one of HTTP between two requests
    /// that has had one at least. The smallest is the one that has been idle for longest.
    pub fn idle_until(&self) -> Option<Deadline> {
        let is_idle = match &self.stage {
            Stage::Http(requests) => requests.is_idle(),
            _ => false,
        };
        let idle = is_idle && self.ending == Ending::Open && !self.paused && self.queue.is_empty();
        idle.then_some(self.deadline)
    }
}

impl Socket {
    /// Gives the endpoint a message that has waited for its schema, or refuses it.
    pub(super) fn unpark(
        &mut self,
        mut parked: Box<ParkedMessage>,
        out: &mut Vec<u8>,
        deadline: &mut Deadline,
        cx: &mut Context<'_>,
    ) -> After {
        if !self.is_open() {
            return After::Again;
        }
        let mut wanted = None;
        let mut to = Recipient {
            endpoint: &mut self.endpoint,
            channel: self.channel.as_deref_mut(),
            rules: self.policy.as_ref().and_then(|policy| policy.rules.as_ref()),
            park: None,
            wanted: &mut wanted,
        };
        to.take_parked(&mut parked, out, cx);
        self.close_if(wanted, out, deadline, cx);
        After::Again
    }

    /// Whether a message waits for its schema.
    pub(super) fn has_parked(&self) -> bool {
        self.policy.as_ref().is_some_and(|policy| policy.parked.is_some())
    }

    /// Whether reading waits because a message does.
    pub(super) fn is_held(&self, cx: &Context<'_>) -> bool {
        let Some(ConnectionPolicy { rules: Some(rules), parked: Some(parked), .. }) =
            self.policy.as_deref()
        else {
            return false;
        };
        self.is_open() && parked.waits(rules, cx)
    }
}

impl ParkedMessage {
    /// Parks a message that has been refused for want of its schema, if that is worth it.
    pub(super) fn new(
        rules: &RuleSet,
        kind: MessageKind,
        payload: &[u8],
        cx: &Context<'_>,
    ) -> Option<Box<ParkedMessage>> {
        if !rules.await_schema(payload_kind(kind), payload) {
            return None;
        }
        cx.counters.schemas_awaited.add(1);
        let until = cx.now.plus_ms(WAIT_MS);
        Some(Box::new(ParkedMessage { kind, payload: payload.to_vec(), until }))
    }

    /// Whether it still waits.
    pub(super) fn waits(&self, rules: &RuleSet, cx: &Context<'_>) -> bool {
        !self.until.due(cx.now) && rules.await_schema(payload_kind(self.kind), &self.payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::{CONNECTION_BYTES, CONNECTION_MESSAGES, CONNECTION_WORK};

    /// Steps until the share of a turn is used up.
    fn steps(bytes: usize, work: u64) -> u32 {
        let (mut share, mut steps) = (Share::default(), 0);
        while !share.is_used_up(7) {
            share.add(7, bytes, work);
            steps += 1;
        }
        assert!(!share.is_used_up(8), "another turn");
        share.add(8, 0, 0);
        assert!(!share.is_used_up(8));
        steps
    }

    #[test]
    fn share_is_bounded_in_messages_bytes_and_work() {
        assert_eq!(steps(7, 300), CONNECTION_MESSAGES);
        assert_eq!(steps(CONNECTION_BYTES, 0), 1);
        assert_eq!(steps(CONNECTION_BYTES - 5 * Share::BYTES, 0), 2);
        assert_eq!(steps(0, CONNECTION_WORK), 1);
        assert_eq!(steps(0, CONNECTION_WORK - 5 * Share::WORK), 2);
        assert_eq!(steps(usize::MAX, u64::MAX), 1);
    }

    #[test]
    fn held_input_is_taken_in_order_and_not_kept() {
        let mut held = HeldInput { bytes: (0..100).collect(), taken: 0 };
        let mut seen = Vec::new();
        for n in [1, 0, 40, 20, 39] {
            seen.extend_from_slice(&held.rest()[..n]);
            held.take(n);
        }
        assert_eq!(seen, (0..100).collect::<Vec<u8>>());
        assert!(held.rest().is_empty() && held.bytes.capacity() == 0);
    }
}
