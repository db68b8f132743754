//! A message that is parked while its schema is fetched.

use crate::model::{PayloadKind, RuleSet};
use crate::session::Context;
use crate::time::Deadline;
use crate::ws::MessageKind;

/// The maximum time for which a message is parked, in milliseconds.
const WAIT_MS: u64 = 5000;

/// A message that is parked while its schema is fetched. Nothing more is read from its connection
/// meanwhile.
pub(super) struct ParkedMessage {
    pub(super) kind: MessageKind,
    pub(super) payload: Vec<u8>,
    until: Deadline,
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

pub(super) fn payload_kind(kind: MessageKind) -> PayloadKind {
    match kind {
        MessageKind::Text => PayloadKind::Text,
        MessageKind::Binary => PayloadKind::Binary,
    }
}
