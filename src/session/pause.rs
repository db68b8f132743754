//! Reading that is paused: what was read meanwhile is held. A message may wait for its schema.

use super::recipient::form;
use super::{Session, Stage, Surroundings};
use crate::model::Rules;
use crate::time::Deadline;
use crate::ws::Kind;

/// How long it waits, in milliseconds.
const WAIT_MS: u64 = 5000;

/// A message that waits for its schema. Nothing more is read from its connection meanwhile.
pub(super) struct Parked {
    pub(super) kind: Kind,
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

    /// Whether a message that was read waits for its schema.
    pub fn has_parked(&self) -> bool {
        matches!(&self.stage, Stage::Socket(socket) if socket.has_parked())
    }
}

impl Parked {
    /// Parks a message that has been refused for want of its schema, if that is worth it.
    pub(super) fn new(
        rules: &Rules,
        kind: Kind,
        payload: &[u8],
        around: &Surroundings<'_>,
    ) -> Option<Box<Parked>> {
        if !rules.await_schema(form(kind), payload) {
            return None;
        }
        around.counters.schemas_awaited.add(1);
        let until = around.now.plus_ms(WAIT_MS);
        Some(Box::new(Parked { kind, payload: payload.to_vec(), until }))
    }

    /// Whether it still waits.
    pub(super) fn waits(&self, rules: &Rules, around: &Surroundings<'_>) -> bool {
        !self.until.due(around.now) && rules.await_schema(form(self.kind), &self.payload)
    }
}
