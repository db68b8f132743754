//! Requests to publish a batch: several events in one request, either all of them or none.

use super::super::effects::Effects;
use super::super::reply::{Finish, HttpReply};
use super::idempotency::{KeyLookup, MEMBER};
use super::publish::{Accepted, PublishSource, with_key};
use super::reads::{self, Info};
use super::reply::{self, ApiRefusal};
use super::trigger::Trigger;
use super::vendor::Vendor;
use crate::codec::json::JsonText;
use crate::hub::Answer;

/// One event of the batch in the reply: its channel, and the channel attributes that were
/// requested.
type Entry = (String, Option<Info>);

impl PublishSource<'_> {
    /// Publishes the events of a batch.
    ///
    /// # Errors
    /// The request is refused. The effects that were added are to be removed.
    pub(super) fn batch<V: Vendor>(
        &self,
        body: JsonText<'_, '_>,
        effects: &mut Effects<'_>,
    ) -> Result<Accepted, ApiRefusal> {
        let (env, app) = (self.env, self.app);
        let max = V::settings(env, &env.apps.get(app).config).batch_events;
        let bare = if V::DATA.quirks.bare_batch { body.elements() } else { None };
        let named = || body.get("batch").and_then(|batch| batch.elements());
        let Some(batch) = bare.or_else(named) else {
            return Err((400, "batch must be an array of events".into()));
        };
        let first = match self.look_up("batch", body)? {
            Some(KeyLookup::Replay(reply)) => return Ok(Accepted::replay(reply)),
            Some(KeyLookup::First(first)) => Some(first),
            _ => None,
        };
        let (mut entries, mut asks): (Vec<Entry>, bool) = (Vec::new(), false);
        for event in batch {
            if entries.len() == max {
                return Err((400, format!("Batch too large: more than {max} events").into()));
            }
            let trigger = Trigger::read::<V>(env, app, event)?;
            let [name] = trigger.channels[..] else {
                return Err((400, "an event of a batch has one channel".into()));
            };
            if event.get(MEMBER).is_some() {
                return Err((400, "idempotency_key belongs to the batch, not to an event".into()));
            }
            let part = self.first_part + entries.len() as u16;
            let effect = trigger.publish::<V>(env, app, name, part);
            effects.push(with_key(env, effect, first.as_ref(), entries.len())?);
            asks |= trigger.info.is_some();
            entries.push((name.to_owned(), trigger.info));
        }
        let parts = entries.len();
        let names = entries.iter().map(|(name, info)| (&**name, *info));
        let asked = if asks { self.ask(names, parts, effects)? } else { 0 };
        let finish = asks.then(|| {
            let finish: Finish = Box::new(move |answers| reply::<V>(&entries, (&answers, asked)));
            finish
        });
        Ok(Accepted::new::<V>(parts + asked, first, finish))
    }
}

fn reply<V: Vendor>(entries: &[Entry], (answers, first): (&[(u16, Answer)], usize)) -> HttpReply {
    let mut out = br#"{"batch":["#.to_vec();
    for (part, (name, info)) in entries.iter().enumerate() {
        if part > 0 {
            out.push(b',');
        }
        let channel_info = reads::channel_info_of(answers, (first + part) as u16);
        out.extend_from_slice(&reads::object::<V>(info.unwrap_or_default(), name, &channel_info));
    }
    out.extend_from_slice(b"]}");
    reply::ok(out)
}
