//! A whole message on its way to the endpoint: looked at by the route's models.

use super::pause::Parked;
use super::socket::Endpoint;
use super::{Surroundings, context};
use crate::dialect::Closing;
use crate::gateway;
use crate::model::spec::OnInvalid;
use crate::model::{Form, Invalid, Rules};
use crate::ws::Kind;
use crate::ws::close;
use crate::ws::output::{Channel, Output};
use std::borrow::Cow;

/// Who takes a message, apart from the reader that lends it.
pub(super) struct Recipient<'s> {
    pub(super) endpoint: &'s mut Endpoint,
    pub(super) channel: Option<&'s mut Channel>,
    pub(super) rules: Option<&'s Rules>,
    /// Where a message may wait for its schema, if it may.
    pub(super) park: Option<&'s mut Option<Box<Parked>>>,
    pub(super) wanted: &'s mut Option<Closing>,
}

impl Recipient<'_> {
    /// Gives a message to the endpoint, if it is as it has to be.
    pub(super) fn give(
        &mut self,
        kind: Kind,
        payload: &mut [u8],
        out: &mut Vec<u8>,
        around: &mut Surroundings<'_>,
    ) {
        let Some(rules) = self.rules else { return self.give_as_is(kind, payload, out, around) };
        match rules.receive(form(kind), payload) {
            Ok(passed) => {
                around.counters.messages_lenient.add(passed.broken.into());
                around.counters.schemas_missed.add(passed.missed.into());
                let kind = kind_of(passed.form);
                match passed.payload {
                    Cow::Owned(mut message) => self.give_as_is(kind, &mut message, out, around),
                    Cow::Borrowed(part) => {
                        // What was taken off stood in front.
                        let from = payload.len() - part.len();
                        self.give_as_is(kind, &mut payload[from..], out, around);
                    }
                }
            }
            Err(invalid) if invalid.missing => {
                let parked = self.park.take();
                match parked.map(|place| (Parked::new(rules, kind, payload, around), place)) {
                    Some((Some(parked), place)) => *place = Some(parked),
                    _ => self.refuse(&invalid, out, around),
                }
            }
            Err(invalid) => self.refuse(&invalid, out, around),
        }
    }

    /// Takes a message that has waited for its schema long enough.
    pub(super) fn take_parked(
        &mut self,
        parked: &mut Parked,
        out: &mut Vec<u8>,
        around: &mut Surroundings<'_>,
    ) {
        self.give(parked.kind, &mut parked.payload, out, around);
    }

    /// A message is not as it has to be.
    fn refuse(&mut self, invalid: &Invalid, out: &mut Vec<u8>, around: &mut Surroundings<'_>) {
        around.counters.messages_invalid.add(1);
        around.counters.schemas_missed.add(invalid.missing.into());
        let code = match invalid {
            Invalid { missing: true, .. } => close::TRY_AGAIN,
            Invalid { malformed: true, .. } => close::INVALID_DATA,
            _ => close::POLICY,
        };
        match self.rules.map(Rules::on_invalid) {
            None | Some(OnInvalid::Drop) => {}
            Some(OnInvalid::Close) => {
                let reason = Cow::Owned(invalid.reason.clone());
                self.wanted.get_or_insert(Closing { code, reason });
            }
            Some(OnInvalid::Reply) => {
                let answer = serde_json::json!({ "error": invalid.reason, "code": code });
                let answer = answer.to_string();
                let _ = self.output(out, around).message(Kind::Text, answer.as_bytes());
            }
        }
    }

    fn output<'o>(
        &'o mut self,
        out: &'o mut Vec<u8>,
        around: &'o mut Surroundings<'_>,
    ) -> Output<'o> {
        let mask = match &*self.endpoint {
            Endpoint::Half(half) => half.mask(around),
            _ => None,
        };
        let output = match self.channel.as_deref_mut() {
            Some(channel) => channel.output(out, around.codecs),
            None => Output::plain(out),
        };
        Output { mask, ..output }
    }

    /// Sends a message to our peer, if the models of what is sent have nothing against it.
    pub(super) fn send(
        &mut self,
        kind: Kind,
        payload: &[u8],
        out: &mut Vec<u8>,
        around: &mut Surroundings<'_>,
    ) {
        match self.rules.filter(|rules| rules.govern_sent()) {
            None => self.say(kind, payload, out, around),
            Some(rules) => match rules.send(form(kind), payload) {
                Ok(passed) => {
                    around.counters.messages_lenient.add(passed.broken.into());
                    let kind = kind_of(passed.form);
                    self.say(kind, &passed.payload, out, around);
                }
                Err(invalid) => self.refuse(&invalid, out, around),
            },
        }
    }

    fn say(
        &mut self,
        kind: Kind,
        payload: &[u8],
        out: &mut Vec<u8>,
        around: &mut Surroundings<'_>,
    ) {
        if !gateway::echo(&mut self.output(out, around), kind, payload) {
            around.counters.http_streams_unsaid.add(1);
        }
    }

    fn give_as_is(
        &mut self,
        kind: Kind,
        payload: &mut [u8],
        out: &mut Vec<u8>,
        around: &mut Surroundings<'_>,
    ) {
        match self.endpoint {
            Endpoint::Echo => self.send(kind, payload, out, around),
            Endpoint::Half(half) => half.message(kind, payload, around),
            Endpoint::Dialect(it) => {
                let channel = self.channel.as_deref_mut();
                it.message(&mut context(out, channel, self.wanted, around), kind, payload);
            }
            Endpoint::Refused => {}
        }
    }
}

pub(super) fn form(kind: Kind) -> Form {
    match kind {
        Kind::Text => Form::Text,
        Kind::Binary => Form::Binary,
    }
}

fn kind_of(form: Form) -> Kind {
    match form {
        Form::Text => Kind::Text,
        Form::Binary => Kind::Binary,
    }
}
