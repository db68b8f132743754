//! Topics and calls that the server answers itself: server information, and the timeouts of a
//! controller.

use super::client::{Client, Times};
use super::wire::{self, MessageEnvelope, codes};
use crate::codec::value::Value;
use crate::dialect::DialectContext;

/// The range of timeouts that a client may set, in milliseconds.
const TIMES_MS: std::ops::RangeInclusive<u64> = 1..=3_600_000;

impl Client {
    /// The data of `Zenith/ServerInfo`.
    pub(super) fn server_info(&self, context: &DialectContext<'_>) -> Value {
        let directory = &context.env.zenith;
        Value::map([
            ("Name", Value::text(&directory.config.name)),
            ("Class", Value::text("FeedProxy")),
            ("Version", Value::text(directory.server_version())),
            ("Protocol", Value::text(&self.version)),
        ])
    }

    /// Handles `Configure`, which sets the timeouts for answers of a controller.
    pub(super) fn configure(&mut self, context: &mut DialectContext<'_>, it: &MessageEnvelope) {
        let at = (&*it.controller, Some(it.topic()));
        let tid = it.transaction.as_ref();
        let Some(data) = it.some_data() else {
            return self.fail(context, at, tid, &Value::text(codes::DATA));
        };
        let before = self.times(context, &it.controller);
        let action = time(data, "ActionTimeout", before.action_ms);
        let subscription = time(data, "SubscriptionTimeout", before.subscription_ms);
        let (Some(action_ms), Some(subscription_ms), Value::Map(_)) = (action, subscription, data)
        else {
            return self.fail(context, at, tid, &Value::text(codes::DESERIALISE));
        };
        let times = Times { action_ms, subscription_ms };
        match self.times.iter_mut().find(|(name, _)| *name == it.controller) {
            Some((_, known)) => *known = times,
            None => self.times.push((it.controller.clone(), times)),
        }
        self.reply(context, (&it.controller, it.topic()), tid, None);
    }

    /// Handles `QueryConfigure`, which returns the timeouts of a controller.
    pub(super) fn query_configure(&self, context: &mut DialectContext<'_>, it: &MessageEnvelope) {
        let times = self.times(context, &it.controller);
        let data = Value::map([
            ("ActionTimeout", Value::text(&wire::span(times.action_ms))),
            ("SubscriptionTimeout", Value::text(&wire::span(times.subscription_ms))),
        ]);
        let tid = it.transaction.as_ref();
        self.reply(context, (&it.controller, it.topic()), tid, Some(&data));
    }
}

/// The timeout under `key`, in milliseconds, or `present` if there is none. `None` if the value is
/// not a time span in range.
fn time(data: &Value, key: &str, present: u64) -> Option<u64> {
    match data.get(key) {
        None | Some(Value::Null) => Some(present),
        Some(Value::Text(text)) => wire::parse_span(text).filter(|ms| TIMES_MS.contains(ms)),
        Some(_) => None,
    }
}
