//! A whole message on its way to the endpoint: the route's model rules check it first.

use super::endpoint::Endpoint;
use super::parked::{ParkedMessage, payload_kind};
use super::policy::ConnectionPolicy;
use crate::dialect::Closing;
use crate::gateway;
use crate::model::spec::OnInvalid;
use crate::model::{Invalid, PayloadKind, RuleSet};
use crate::session::Context;
use crate::session::context::context;
use crate::work::{self, WorkKind};
use crate::ws::MessageKind;
use crate::ws::close;
use crate::ws::output::{Channel, Output};
use std::borrow::Cow;

/// Where a message goes, borrowed separately from the reader that lends its payload.
pub(super) struct Recipient<'s> {
    pub(super) endpoint: &'s mut Endpoint,
    pub(super) channel: Option<&'s mut Channel>,
    pub(super) rules: Option<&'s RuleSet>,
    /// The place where a message may be parked while its schema is fetched; `None` if it may not
    /// be.
    pub(super) park: Option<&'s mut Option<Box<ParkedMessage>>>,
    pub(super) wanted: &'s mut Option<Closing>,
}

impl<'s> Recipient<'s> {
    /// The endpoint of a connection with this policy. A message may be parked.
    pub(super) fn new(
        endpoint: &'s mut Endpoint,
        channel: Option<&'s mut Channel>,
        policy: Option<&'s mut ConnectionPolicy>,
        wanted: &'s mut Option<Closing>,
    ) -> Recipient<'s> {
        let (rules, park) = match policy {
            Some(ConnectionPolicy { rules, parked, .. }) => (rules.as_ref(), Some(parked)),
            None => (None, None),
        };
        Recipient { endpoint, channel, rules, park, wanted }
    }

    /// Checks a message against the route's rules and gives it to the endpoint if it is valid.
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
                        // The rules cut off a prefix: the payload is the rest.
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

    /// Checks a parked message again and gives it to the endpoint; it is not parked again.
    pub(super) fn take_parked(
        &mut self,
        parked: &mut ParkedMessage,
        out: &mut Vec<u8>,
        cx: &mut Context<'_>,
    ) {
        self.give(parked.kind, &mut parked.payload, out, cx);
    }

    /// Refuses an invalid message as the rules' `on_invalid` says.
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

    /// Sends a message to our peer if the rules for sent messages accept it.
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

fn kind_of(kind: PayloadKind) -> MessageKind {
    match kind {
        PayloadKind::Text => MessageKind::Text,
        PayloadKind::Binary => MessageKind::Binary,
    }
}
