//! A whole message on its way to the endpoint: looked at by the route's models.

use super::pause::ParkedMessage;
use super::socket::Endpoint;
use super::{Context, context};
use crate::dialect::Closing;
use crate::gateway;
use crate::model::spec::OnInvalid;
use crate::model::{Invalid, PayloadKind, RuleSet};
use crate::work::{self, WorkKind};
use crate::ws::MessageKind;
use crate::ws::close;
use crate::ws::output::{Channel, Output};
use std::borrow::Cow;

/// Who takes a message, apart from the reader that lends it.
pub(super) struct Recipient<'s> {
    pub(super) endpoint: &'s mut Endpoint,
    pub(super) channel: Option<&'s mut Channel>,
    pub(super) rules: Option<&'s RuleSet>,
    /// Where a message may wait for its schema, if it may.
    pub(super) park: Option<&'s mut Option<Box<ParkedMessage>>>,
    pub(super) wanted: &'s mut Option<Closing>,
}

impl Recipient<'_> {
    /// Gives a message to the endpoint, if it is as it has to be.
    pub(super) fn give(
        &mut self,
        kind: MessageKind,
        payload: &mut [u8],
        out: &mut Vec<u8>,
        cx: &mut Context<'_>,
    ) {
        let Some(rules) = self.rules else { return self.give_as_is(kind, payload, out, cx) };
        cx.work.charge(WorkKind::Model, work::MODEL + work::MODEL_BYTE * payload.len() as u64);
        match rules.receive(payload_kind(kind), payload) {
            Ok(passed) => {
                cx.counters.messages_lenient.add(passed.broken.into());
                cx.counters.schemas_missed.add(passed.missed.into());
                let kind = kind_of(passed.kind);
                match passed.payload {
                    Cow::Owned(mut message) => self.give_as_is(kind, &mut message, out, cx),
                    Cow::Borrowed(part) => {
                        // What was taken off stood in front.
                        let from = payload.len() - part.len();
                        self.give_as_is(kind, &mut payload[from..], out, cx);
                    }
                }
            }
            Err(invalid) if invalid.missing => {
                let parked = self.park.take();
                match parked.map(|place| (ParkedMessage::new(rules, kind, payload, cx), place)) {
                    Some((Some(parked), place)) => *place = Some(parked),
                    _ => self.refuse(&invalid, out, cx),
                }
            }
            Err(invalid) => self.refuse(&invalid, out, cx),
        }
    }

    /// Takes a message that has waited for its schema long enough.
    pub(super) fn take_parked(
        &mut self,
        parked: &mut ParkedMessage,
        out: &mut Vec<u8>,
        cx: &mut Context<'_>,
    ) {
        self.give(parked.kind, &mut parked.payload, out, cx);
    }

    /// A message is not as it has to be.
    fn refuse(&mut self, invalid: &Invalid, out: &mut Vec<u8>, cx: &mut Context<'_>) {
        cx.counters.messages_invalid.add(1);
        cx.counters.schemas_missed.add(invalid.missing.into());
        let code = match invalid {
            Invalid { missing: true, .. } => close::TRY_AGAIN,
            Invalid { malformed: true, .. } => close::INVALID_DATA,
            _ => close::POLICY,
        };
        let on_invalid = match self.rules.map(|rules| rules.on_invalid()) {
            Some(_) if invalid.costly => Some(OnInvalid::Close),
            other => other,
        };
        match on_invalid {
            None | Some(OnInvalid::Drop) => {}
            Some(OnInvalid::Close) => {
                let reason = Cow::Owned(invalid.reason.clone());
                self.wanted.get_or_insert(Closing { code, reason });
            }
            Some(OnInvalid::Reply) => {
                let answer = serde_json::json!({ "error": invalid.reason, "code": code });
                let answer = answer.to_string();
                let _ = self.output(out, cx).message(MessageKind::Text, answer.as_bytes());
            }
        }
    }

    fn output<'o>(&'o mut self, out: &'o mut Vec<u8>, cx: &'o mut Context<'_>) -> Output<'o> {
        let mask = match &*self.endpoint {
            Endpoint::ProxyLeg(leg) => leg.mask(cx),
            _ => None,
        };
        let output = match self.channel.as_deref_mut() {
            Some(channel) => channel.output(out, cx.codecs),
            None => Output::plain(out),
        };
        Output { mask, ..output }
    }

    /// Sends a message to our peer, if the models of what is sent have nothing against it.
    pub(super) fn send(
        &mut self,
        kind: MessageKind,
        payload: &[u8],
        out: &mut Vec<u8>,
        cx: &mut Context<'_>,
    ) {
        let rules = self.rules.filter(|rules| rules.govern_sent());
        if rules.is_some() {
            cx.work.charge(WorkKind::Model, work::MODEL + work::MODEL_BYTE * payload.len() as u64);
        }
        match rules {
            None => self.push_message(kind, payload, out, cx),
            Some(rules) => match rules.send(payload_kind(kind), payload) {
                Ok(passed) => {
                    cx.counters.messages_lenient.add(passed.broken.into());
                    let kind = kind_of(passed.kind);
                    self.push_message(kind, &passed.payload, out, cx);
                }
                Err(invalid) => self.refuse(&invalid, out, cx),
            },
        }
    }

    fn push_message(
        &mut self,
        kind: MessageKind,
        payload: &[u8],
        out: &mut Vec<u8>,
        cx: &mut Context<'_>,
    ) {
        if !gateway::echo(&mut self.output(out, cx), kind, payload) {
            cx.counters.http_streams_unsaid.add(1);
        }
    }

    fn give_as_is(
        &mut self,
        kind: MessageKind,
        payload: &mut [u8],
        out: &mut Vec<u8>,
        cx: &mut Context<'_>,
    ) {
        match self.endpoint {
            Endpoint::Echo(_) => self.send(kind, payload, out, cx),
            Endpoint::ProxyLeg(leg) => leg.message(kind, payload, cx),
            Endpoint::Dialect(it) => {
                if payload.len() > work::CONNECTION_BYTES {
                    cx.work.charge(WorkKind::Parse, work::JSON_BYTE * payload.len() as u64);
                }
                let channel = self.channel.as_deref_mut();
                it.message(&mut context(out, channel, self.wanted, cx), kind, payload);
            }
            Endpoint::Refused => {}
        }
    }
}

pub(super) fn payload_kind(kind: MessageKind) -> PayloadKind {
    match kind {
        MessageKind::Text => PayloadKind::Text,
        MessageKind::Binary => PayloadKind::Binary,
    }
}

fn kind_of(kind: PayloadKind) -> MessageKind {
    match kind {
        PayloadKind::Text => MessageKind::Text,
        PayloadKind::Binary => MessageKind::Binary,
    }
}
