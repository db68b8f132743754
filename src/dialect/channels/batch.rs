//! `POST` of a batch: publishes several events in one request, either all of them or none.

use super::super::{Answered, DialectContext, HttpReply};
use super::api::{ApiRefusal, Trigger};
use super::json_error;
use super::reads::{self, Info};
use super::vendor::Vendor;
use crate::hub::Answer;
use std::borrow::Cow;

/// One event of the batch in the reply: its channel, and the channel attributes that were
/// requested.
type Entry = (String, Option<Info>);

pub(super) fn events<V: Vendor>(
    context: &mut DialectContext<'_>,
    app: u32,
    body: &mut [u8],
) -> Answered {
    let env = context.env;
    let max = V::batch_events(env, &env.apps.get(app).config);
    let before = context.effects.mark();
    let effects = &mut context.effects;
    let read = context.json.parse(body, |body| -> Result<Vec<Entry>, ApiRefusal> {
        let bare = if V::QUIRKS.bare_batch { body.elements() } else { None };
        let named = || body.get("batch").and_then(|batch| batch.elements());
        let Some(batch) = bare.or_else(named) else {
            return Err((400, "batch must be an array of events".into()));
        };
        let mut entries: Vec<Entry> = Vec::new();
        for event in batch {
            if entries.len() == max {
                return Err((400, format!("Batch too large: more than {max} events").into()));
            }
            let trigger = Trigger::read::<V>(env, app, event)?;
            let [name] = trigger.channels[..] else {
                return Err((400, "an event of a batch has one channel".into()));
            };
            effects.push(trigger.publish::<V>(env, app, name, entries.len() as u16));
            entries.push((name.to_owned(), trigger.info));
        }
        Ok(entries)
    });
    match read {
        Ok(Ok(entries)) if entries.iter().any(|(_, info)| info.is_some()) => {
            Answered::Later(Box::new(move |answers| reply::<V>(&entries, &answers)))
        }
        Ok(Ok(_)) => {
            Answered::Now(HttpReply { status: 200, body: Cow::Borrowed(b"{}"), allow: None })
        }
        Ok(Err((status, message))) => {
            context.effects.truncate(before);
            Answered::Now(json_error::<V>(status, &message))
        }
        Err(_) => Answered::Now(json_error::<V>(400, "The body is not valid JSON")),
    }
}

fn reply<V: Vendor>(entries: &[Entry], answers: &[(u16, Answer)]) -> HttpReply {
    let mut out = br#"{"batch":["#.to_vec();
    for (part, (name, info)) in entries.iter().enumerate() {
        if part > 0 {
            out.push(b',');
        }
        let channel_info = reads::channel_info_of(answers, part as u16);
        out.extend_from_slice(&reads::object::<V>(info.unwrap_or_default(), name, &channel_info));
    }
    out.extend_from_slice(b"]}");
    reads::ok(out)
}
