//! Requests to publish one event or a batch, which come from the HTTP API or from the WebSocket of
//! a publisher. Both are validated and answered in the same way.

use super::super::effects::{Effect, Effects};
use super::super::env::Env;
use super::super::reply::{Finish, HttpReply};
use super::channel;
use super::data::USER;
use super::idempotency::{
    self, Bounds, FirstRequest, KeyLookup, fingerprint, hash_key, hash_logged_key,
};
use super::reads::{self, Info};
use super::reply::{self, ApiRefusal, KEY_USED, NOT_READ, empty, json_error};
use super::trigger::Trigger;
use super::vendor::Vendor;
use crate::codec::json::{JsonText, push_string};
use crate::hub::{Answer, Query, Unpublished};

/// Where a request to publish comes from.
#[derive(Clone, Copy)]
pub(super) struct PublishSource<'s> {
    pub(super) env: &'s Env,
    pub(super) app: u32,
    pub(super) now_ms: u64,
    /// The part of the first channel or event; the others follow.
    pub(super) first_part: u16,
    /// The idempotency key of the header, if there is one.
    pub(super) key: Option<&'s [u8]>,
    /// The members of the body that differ although the publish is the same.
    pub(super) skipped: &'static [&'static str],
}

/// A request to publish that was accepted; its effects are in the list.
pub(super) struct Accepted {
    /// The number of events that are published, each as a part of its own.
    pub(super) parts: u16,
    pub(super) reply: PublishReply,
}

pub(super) enum PublishReply {
    /// This reply, after the homes have acknowledged all parts.
    Now(HttpReply),
    /// A reply that is made when the homes have acknowledged all parts. The answers that it gets
    /// are numbered from 0.
    Later(Finish),
}

impl Accepted {
    /// The reply to an earlier request with the same idempotency key. Nothing is published.
    pub(super) fn replay(reply: HttpReply) -> Accepted {
        Accepted { parts: 0, reply: PublishReply::Now(reply) }
    }

    /// A request without an idempotency key, or the first one with its key. `finish` makes the
    /// reply, if it has attributes of channels.
    pub(super) fn new<V: Vendor>(
        parts: usize,
        first: Option<FirstRequest>,
        finish: Option<Finish>,
    ) -> Accepted {
        let reply = match (first, finish) {
            (None, None) => PublishReply::Now(empty()),
            (None, Some(finish)) => PublishReply::Later(finish),
            (Some(first), finish) => PublishReply::Later(kept::<V>(first, finish)),
        };
        Accepted { parts: parts as u16, reply }
    }
}

/// Makes the reply to the first request with an idempotency key, and keeps it for later ones.
fn kept<V: Vendor>(mut first: FirstRequest, finish: Option<Finish>) -> Finish {
    // The events are published from here on, so a later request must not publish them again, even
    // if the connection of this one ends before the attributes of the channels have arrived.
    first.accept(empty());
    Box::new(move |answers| {
        if let Some(why) = unpublished(&answers) {
            first.refuse();
            let is_used = why == Unpublished::KeyUsed;
            return if is_used { json_error::<V>(409, KEY_USED) } else { empty() };
        }
        let reply = finish.map_or_else(empty, |finish| finish(answers));
        first.complete(&reply);
        reply
    })
}

/// Why events of a request were not published, if some were not.
fn unpublished(answers: &[(u16, Answer)]) -> Option<Unpublished> {
    let whys = answers.iter().filter_map(|(_, answer)| match answer {
        Answer::Unpublished(_, why) => Some(*why),
        _ => None,
    });
    whys.max()
}

/// Gives the idempotency key of a request to the event that an effect publishes.
///
/// # Errors
/// The log of the cluster has no keys of the channel (400).
pub(super) fn with_key(
    env: &Env,
    mut effect: Effect,
    first: Option<&FirstRequest>,
    index: usize,
) -> Result<Effect, ApiRefusal> {
    if let Effect::Publish { app, name, event, .. } = &mut effect {
        event.key = first.and_then(|first| first.event_key(index as u16));
        if event.key.is_some() && !env.logs_keys(*app, name) {
            let why = "is linked with a topic of Zenith, and a cluster has no idempotency keys of \
                       such events";
            return Err((400, format!("channel {name} {why}").into()));
        }
    }
    Ok(effect)
}

impl PublishSource<'_> {
    /// Publishes one event on one or several channels.
    ///
    /// # Errors
    /// The request is refused. The effects that were added are to be removed.
    pub(super) fn event<V: Vendor>(
        &self,
        body: JsonText<'_, '_>,
        effects: &mut Effects<'_>,
    ) -> Result<Accepted, ApiRefusal> {
        let first = match self.look_up("events", body)? {
            Some(KeyLookup::Replay(reply)) => return Ok(Accepted::replay(reply)),
            Some(KeyLookup::First(first)) => Some(first),
            _ => None,
        };
        let trigger = Trigger::read::<V>(self.env, self.app, body)?;
        for (index, name) in trigger.channels.iter().enumerate() {
            let part = self.first_part + index as u16;
            let effect = trigger.publish::<V>(self.env, self.app, name, part);
            effects.push(with_key(self.env, effect, first.as_ref(), index)?);
        }
        let count = trigger.channels.len();
        let names = trigger.channels.iter().map(|name| (*name, trigger.info));
        let asked = match trigger.info {
            Some(_) => self.ask(names, count, effects)?,
            None => 0,
        };
        let finish = trigger.info.map(|info| {
            let names = trigger.channels.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
            let finish: Finish =
                Box::new(move |answers| info_reply::<V>(info, &names, (&answers, asked)));
            finish
        });
        Ok(Accepted::new::<V>(count + asked, first, finish))
    }

    /// Asks for these attributes of `channels`, on which as many events are published, if these
    /// events do not bring them: in a cluster they go through the log. Returns the number of
    /// questions. Their parts follow the `count` parts of the events, and answers are numbered so.
    ///
    /// # Errors
    /// A channel is a view whose source is of an application of which this node has not read what
    /// the log has.
    pub(super) fn ask<'n>(
        &self,
        channels: impl ExactSizeIterator<Item = (&'n str, Option<Info>)>,
        count: usize,
        effects: &mut Effects<'_>,
    ) -> Result<usize, ApiRefusal> {
        if self.env.config.cluster.is_none() {
            return Ok(0);
        }
        let asked = channels.len();
        for (at, (name, info)) in channels.enumerate() {
            let source = self.env.links.resolve(self.app, name);
            if source.is_some_and(|source| info.is_some() && !self.env.serves(source.app)) {
                return Err((503, NOT_READ.into()));
            }
            let counts = info.is_some_and(|info| info.subscription_count);
            let (app, name) = (self.app, name.into());
            let query = Query::Channel { app, name, counts, by_view: false };
            let part = self.first_part + (count + at) as u16;
            effects.push(Effect::Query { query, part });
        }
        Ok(asked)
    }

    /// Publishes one event to all connections of the signed-in user with this id.
    ///
    /// # Errors
    /// The request is refused. The effects that were added are to be removed.
    pub(super) fn to_user<V: Vendor>(
        self,
        user: &str,
        body: JsonText<'_, '_>,
        effects: &mut Effects<'_>,
    ) -> Result<Accepted, ApiRefusal> {
        let first = match self.look_up(&format!("users/{user}/events"), body)? {
            Some(KeyLookup::Replay(reply)) => return Ok(Accepted::replay(reply)),
            Some(KeyLookup::First(first)) => Some(first),
            _ => None,
        };
        let name = format!("{USER}{user}");
        let config = &self.env.apps.get(self.app).config;
        channel::check(V::DATA, &name, V::settings(self.env, config).name_length)
            .map_err(|text| (400, text.into()))?;
        let trigger = Trigger::without_channel::<V>(self.env, &config.limits, body)?;
        let effect = trigger.publish::<V>(self.env, self.app, &name, self.first_part);
        effects.push(with_key(self.env, effect, first.as_ref(), 0)?);
        Ok(Accepted::new::<V>(1, first, None))
    }

    /// Looks up the idempotency key of the request, if it has one.
    ///
    /// # Errors
    /// The key is invalid (400), or it was used for another request, or for one in progress (409).
    pub(super) fn look_up(
        &self,
        target: &str,
        body: JsonText<'_, '_>,
    ) -> Result<Option<KeyLookup>, ApiRefusal> {
        let read = idempotency::read_key(self.key, body);
        let Some(key) = read.map_err(|text| (400, text))? else { return Ok(None) };
        let app = self.env.apps.get(self.app);
        let limits = &app.config.limits;
        let bounds = Bounds { keys: limits.idempotency_keys, bytes: limits.idempotency_bytes };
        let published = fingerprint(target, body, self.skipped);
        match app.idempotency().look_up(hash_key(key), published, self.now_ms, bounds) {
            KeyLookup::Mismatch => Err((409, KEY_USED.into())),
            KeyLookup::InProgress => {
                Err((409, "a request with this idempotency key is in progress".into()))
            }
            KeyLookup::First(mut first) => {
                if self.env.config.cluster.is_some() {
                    first.let_log_decide(hash_logged_key(&app.config.id, key), published);
                }
                Ok(Some(KeyLookup::First(first)))
            }
            found => Ok(Some(found)),
        }
    }
}

/// The reply with the attributes of the channels; the answers about them have the parts from
/// `first` on.
fn info_reply<V: Vendor>(
    info: Info,
    names: &[String],
    (answers, first): (&[(u16, Answer)], usize),
) -> HttpReply {
    let mut out = br#"{"channels":{"#.to_vec();
    for (part, name) in names.iter().enumerate() {
        if part > 0 {
            out.push(b',');
        }
        push_string(&mut out, name);
        out.push(b':');
        let channel_info = reads::channel_info_of(answers, (first + part) as u16);
        out.extend_from_slice(&reads::object::<V>(info, name, &channel_info));
    }
    out.extend_from_slice(b"}}");
    reply::ok(out)
}
