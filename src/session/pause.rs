//! Paused reading: input that was already received is held. A message may be parked while its
//! schema is fetched.

use super::inbound::{Recipient, payload_kind};
use super::socket::{ConnectionPolicy, Socket};
use super::{Context, Ending, Session, Stage, StageResult};
use crate::dialect::Closing;
use crate::model::RuleSet;
use crate::time::Deadline;
use crate::work::{self, CONNECTION_FAILURES};
use crate::ws::{MessageKind, close};

const TOO_MANY_FAILURES: &str = "too many refused tokens";
/// The maximum time for which a message is parked, in milliseconds.
const WAIT_MS: u64 = 5000;

/// The maximum number of held bytes with which more is read from a connection that waits only for
/// the next turn. Pausing and resuming a receive costs two kernel operations.
const READ_AHEAD: usize = work::CONNECTION_BYTES;

/// A message that is parked while its schema is fetched. Nothing more is read from its connection
/// meanwhile.
pub(super) struct ParkedMessage {
    pub(super) kind: MessageKind,
    pub(super) payload: Vec<u8>,
    until: Deadline,
}

/// Input that is held while reading is paused, and the number of its bytes that were already taken.
/// Taken bytes are removed only when they are more than half, so that a long input is not moved in
/// every turn.
#[derive(Debug, Default)]
pub struct HeldInput {
    bytes: Vec<u8>,
    taken: usize,
}

impl HeldInput {
    /// The bytes that were not taken yet.
    pub fn rest(&mut self) -> &mut [u8] {
        &mut self.bytes[self.taken..]
    }

    /// Notes that `n` bytes of the rest were taken.
    pub fn take(&mut self, n: usize) {
        self.taken += n;
        if self.taken > self.bytes.len() / 2 {
            self.bytes.drain(..self.taken);
            self.bytes.shrink_to_fit();
            self.taken = 0;
        }
    }
}

/// How much a connection has used of its share of one turn.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Share {
    /// The low bits of the turn's number.
    turn: u16,
    /// The used part, in units of 1/[`Share::WHOLE`].
    used: u16,
}

impl Share {
    const WHOLE: u16 = 1024;
    const MESSAGE: u64 = Share::WHOLE as u64 / work::CONNECTION_MESSAGES as u64;
    const BYTES: usize = work::CONNECTION_BYTES / Share::WHOLE as usize;
    const WORK: u64 = work::CONNECTION_WORK / Share::WHOLE as u64;

    /// Counts one step that took `bytes` bytes and cost `work` units of work.
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
    /// Holds input until reading resumes.
    pub fn hold(&mut self, rest: &[u8]) {
        if !rest.is_empty() {
            self.held.get_or_insert_default().bytes.extend_from_slice(rest);
        }
    }

    /// Holds again the rest of the input that [`Session::resume`] returned.
    pub fn hold_again(&mut self, held: Box<HeldInput>) {
        if held.taken < held.bytes.len() {
            self.held = Some(held);
        }
    }

    /// Bytes of held input.
    pub fn waiting_input_bytes(&self) -> usize {
        self.held.as_ref().map_or(0, |held| held.bytes.len())
    }

    /// Pauses reading until [`Session::resume`].
    pub fn pause(&mut self) {
        self.paused = true;
    }

    /// Whether reading is paused.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Resumes reading. Returns the held input, which must be stepped through before anything else
    /// is read, and whether the peer ended its side after that input, which the caller must report
    /// with [`Session::eof`].
    pub fn resume(&mut self) -> (Option<Box<HeldInput>>, bool) {
        self.paused = false;
        (self.held.take(), std::mem::take(&mut self.eof))
    }

    /// Counts one step against this connection's share of turn `turn`.
    pub fn use_share(&mut self, turn: u16, bytes: usize, work: u64) {
        self.share.add(turn, bytes, work);
    }

    /// Whether the connection has used its whole share of turn `turn`.
    pub fn has_used_share(&self, turn: u16) -> bool {
        self.share.is_used_up(turn)
    }

    /// Whether more may be read although reading is paused: the connection waits only for a later
    /// turn, and holds little input.
    pub(super) fn may_read_ahead(&self) -> bool {
        self.waits && self.waiting_input_bytes() < READ_AHEAD
    }

    /// Whether a message that was received waits: for its schema, or to be decompressed in a later
    /// turn.
    pub fn has_parked(&self) -> bool {
        let waits = |socket: &Socket| socket.has_parked() || socket.is_unpacking();
        matches!(&self.stage, Stage::Socket(socket) if waits(socket))
    }
}

impl Session {
    /// Counts the tokens that were not accepted in this step. At [`CONNECTION_FAILURES`] a
    /// WebSocket is closed; the response to an HTTP request closes the connection instead.
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

    /// The keep-alive deadline of an idle HTTP connection, which is one that has had a request and
    /// waits for the next. The connection with the earliest deadline has been idle for longest.
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
    /// Checks a parked message again and gives it to the endpoint, or refuses it if it is invalid
    /// or its schema is still missing.
    pub(super) fn unpark(
        &mut self,
        mut parked: Box<ParkedMessage>,
        out: &mut Vec<u8>,
        deadline: &mut Deadline,
        cx: &mut Context<'_>,
    ) -> StageResult {
        if !self.is_open() {
            return StageResult::Again;
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
        StageResult::Again
    }

    /// Whether a message is parked.
    pub(super) fn has_parked(&self) -> bool {
        self.policy.as_ref().is_some_and(|policy| policy.parked.is_some())
    }

    /// Whether reading is paused because a parked message still waits for its schema.
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
    /// Parks a message that was refused because its schema is missing. Returns `None` if the rules
    /// do not wait for missing schemas.
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

    /// Whether the message still waits for its schema, and its time is not over.
    pub(super) fn waits(&self, rules: &RuleSet, cx: &Context<'_>) -> bool {
        !self.until.due(cx.now) && rules.await_schema(payload_kind(self.kind), &self.payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::{CONNECTION_BYTES, CONNECTION_MESSAGES, CONNECTION_WORK};

    /// The number of steps until the share of a turn is used up.
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
