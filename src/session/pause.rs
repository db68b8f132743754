//! Reading that is paused: what was read meanwhile is held. A message may wait for its schema.

use super::inbound::{Recipient, payload_kind};
use super::socket::{ConnectionPolicy, Socket};
use super::{After, Context, Session, Stage};
use crate::model::RuleSet;
use crate::time::Deadline;
use crate::ws::MessageKind;

/// How long it waits, in milliseconds.
const WAIT_MS: u64 = 5000;

/// A message that waits for its schema. Nothing more is read from its connection meanwhile.
pub(super) struct ParkedMessage {
    pub(super) kind: MessageKind,
    pub(super) payload: Vec<u8>,
    until: Deadline,
}

impl Session {
    /// Keeps input for later.
    pub fn hold(&mut self, rest: &[u8]) {
        let mut held = std::mem::take(&mut self.held).into_vec();
        held.extend_from_slice(rest);
        self.held = held.into_boxed_slice();
    }

    /// Whether reading is paused.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Takes the held input out, to be stepped through before anything else is read, and whether
    /// the peer ended its side behind that, to be told then.
    pub fn resume(&mut self) -> (Vec<u8>, bool) {
        self.paused = false;
        (std::mem::take(&mut self.held).into_vec(), std::mem::take(&mut self.eof))
    }

    /// Whether a message that was read waits: for its schema, or for a turn with work to spare.
    pub fn has_parked(&self) -> bool {
        let waits = |socket: &Socket| socket.has_parked() || socket.is_unpacking();
        matches!(&self.stage, Stage::Socket(socket) if waits(socket))
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
