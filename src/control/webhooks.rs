//! From what happened to channels to requests: what is held back, who is told, in which words.
//!
//! A function of notices, outcomes and time; it knows no socket and no clock.

use super::hold::Hold;
use super::post::Outcome;
use super::queue::{Job, Policy, Queue};
use crate::config::{self, Webhook};
use crate::dialect::pusher::hooks;
use crate::dialect::{App, Env};
use crate::hub::Notice;
use crate::stats::Counters;
use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;
use std::sync::Arc;

/// How long a leaving waits for a return.
pub(super) const HOLD_MS: u64 = 3000;

/// See the module's documentation.
pub(super) struct Webhooks {
    env: Arc<Env>,
    hold: Hold,
    /// By the application's number.
    ends: Vec<Vec<usize>>,
    queues: Vec<End>,
    hasher: RandomState,
    failures: u64,
    counters: Arc<Counters>,
}

struct End {
    app: u32,
    hook: Webhook,
    queue: Queue,
}

/// One request to be made.
pub(super) struct Order {
    /// Of all endpoints, this one, and which of its lanes.
    pub(super) end: usize,
    pub(super) lane: usize,
    pub(super) body: Rc<[u8]>,
    pub(super) key: String,
    pub(super) signature: String,
}

impl Webhooks {
    pub(super) fn new(env: Arc<Env>, hold_ms: u64, counters: Arc<Counters>) -> Webhooks {
        let mut ends = Vec::new();
        let mut queues = Vec::new();
        for (app, config) in env.config.apps.iter().enumerate() {
            let first = queues.len();
            queues.extend(config.webhooks.iter().map(|hook| End {
                app: app as u32,
                hook: hook.clone(),
                queue: Queue::new(Policy {
                    most: hook.queue_bytes,
                    batch_ms: hook.batch.then_some(hook.batch_ms),
                    body: match config.dialect {
                        // The others have no webhooks.
                        config::Dialect::Pusher | config::Dialect::Broadcastt => hooks::body,
                    },
                }),
            }));
            ends.push((first..queues.len()).collect());
        }
        let (hold, hasher) = (Hold::new(hold_ms), RandomState::new());
        Webhooks { env, hold, ends, queues, hasher, failures: 0, counters }
    }

    /// The endpoints, in the order of their numbers: each with the lanes it has.
    pub(super) fn ends(&self) -> impl Iterator<Item = (&Webhook, usize)> {
        self.queues.iter().map(|end| (&end.hook, end.queue.lanes()))
    }

    /// Takes what has happened.
    pub(super) fn notice(&mut self, notice: Notice, now_ms: u64) {
        if let Some(notice) = self.hold.take(notice, now_ms) {
            self.tell(&notice, now_ms);
        }
    }

    fn tell(&mut self, notice: &Notice, now_ms: u64) {
        let Some(ends) = self.ends.get(notice.app as usize) else { return };
        let event = match self.env.apps.get(notice.app).config.dialect {
            config::Dialect::Pusher => hooks::event(notice),
            config::Dialect::Broadcastt => None,
        };
        let Some((kind, event)) = event else { return };
        let channel = self.hasher.hash_one(&notice.channel);
        for end in ends {
            let End { hook, queue, .. } = &mut self.queues[*end];
            if hook.wants(kind) && hook.covers(&notice.channel) {
                self.counters.hooks_dropped.add(queue.push(channel, event.clone(), now_ms));
            }
        }
    }

    /// Every request that can be made now.
    pub(super) fn orders(&mut self, now_ms: u64, unix_ms: u64) -> VecDeque<Order> {
        while let Some(notice) = self.hold.next_due(now_ms) {
            self.tell(&notice, now_ms);
        }
        let mut orders = VecDeque::new();
        for (end, End { app, queue, .. }) in self.queues.iter_mut().enumerate() {
            let app = self.env.apps.get(*app);
            while let Some(job) = queue.next(now_ms, unix_ms) {
                orders.extend(order(end, job, app));
            }
        }
        orders
    }

    /// Takes what became of a request.
    pub(super) fn outcome(&mut self, end: usize, lane: usize, outcome: Outcome, now_ms: u64) {
        let queue = &mut self.queues[end].queue;
        let (counter, again) = match outcome {
            Outcome::Delivered => {
                self.counters.hooks_sent.add(1);
                return queue.succeeded(lane);
            }
            Outcome::Failed => (&self.counters.hooks_failed, true),
            Outcome::Refused => (&self.counters.hooks_refused, false),
        };
        counter.add(1);
        self.failures += 1;
        let jitter = self.hasher.hash_one(self.failures);
        self.counters.hooks_dropped.add(queue.failed(lane, again, jitter, now_ms));
    }

    /// The server ends: nobody can return, and no batch gets fuller.
    pub(super) fn finish(&mut self, now_ms: u64) {
        while let Some(notice) = self.hold.next_due(u64::MAX) {
            self.tell(&notice, now_ms);
        }
        self.queues.iter_mut().for_each(|end| end.queue.hurry());
    }

    /// When to ask for orders again, if nothing else happens.
    pub(super) fn deadline_ms(&self) -> u64 {
        let queues = self.queues.iter().map(|end| end.queue.deadline_ms());
        queues.fold(self.hold.deadline_ms(), u64::min)
    }

    /// Events that nobody has been told of yet.
    pub(super) fn len(&self) -> u64 {
        self.queues.iter().map(|end| end.queue.len()).sum()
    }

    /// Whether there is nothing to be told, now or later.
    pub(super) fn is_empty(&self) -> bool {
        self.hold.is_empty() && self.len() == 0
    }
}

/// A request, signed with the application's principal key.
fn order(end: usize, (lane, body): Job, app: &App) -> Option<Order> {
    let key = app.keys.first()?;
    let signature = hooks::signature(&key.secret, &body);
    Some(Order { end, lane, key: key.text.to_string(), signature, body })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, HookEvent};
    use crate::hub::What;

    fn webhooks(hooks: Vec<Webhook>) -> Webhooks {
        let mut config = Config::demo();
        config.apps[0].webhooks = hooks;
        Webhooks::new(Arc::new(Env::new(config, 1)), HOLD_MS, Arc::default())
    }

    fn notice(channel: &str, what: What) -> Notice {
        Notice { app: 0, channel: channel.into(), what }
    }

    fn told(webhooks: &mut Webhooks, now_ms: u64) -> Vec<(usize, String)> {
        let mut told = Vec::new();
        for order in webhooks.orders(now_ms, 0) {
            let body = String::from_utf8_lossy(&order.body).into_owned();
            let name = body.split('"').nth(7).unwrap_or_default().to_owned();
            let channel = body.split('"').nth(11).unwrap_or_default();
            told.push((order.end, format!("{name} {channel}")));
            webhooks.outcome(order.end, order.lane, Outcome::Delivered, now_ms);
        }
        told
    }

    #[test]
    fn each_endpoint_hears_what_it_wants_of_the_channels_it_covers() {
        let mut prefix = Webhook::new("http://a");
        prefix.filter_prefix = "private-".to_owned();
        let mut suffix = Webhook::new("http://b");
        suffix.filter_suffix = ".eu".to_owned();
        suffix.event_types = vec![HookEvent::SubscriptionCount, HookEvent::ChannelOccupied];
        let mut hooks = webhooks(vec![prefix, suffix]);
        let line = |end, text: &str| (end, text.to_owned());
        for (channel, what, expected) in [
            ("private-a", What::Occupied, vec![line(0, "channel_occupied private-a")]),
            ("a.eu", What::Occupied, vec![line(1, "channel_occupied a.eu")]),
            ("a.eu", What::Count(1), vec![line(1, "subscription_count a.eu")]),
            ("private-a", What::Count(1), vec![]),
            ("a.eu", What::Missed, vec![]),
            ("presence-a.eu", What::Count(1), vec![]),
            ("a", What::Occupied, vec![]),
        ] {
            hooks.notice(notice(channel, what), 0);
            assert_eq!(told(&mut hooks, 0), expected, "{channel}");
        }
        assert!(hooks.is_empty());
    }

    #[test]
    fn a_quick_return_is_not_told_and_an_end_waits_for_nobody() {
        let mut hooks = webhooks(vec![Webhook::new("http://a")]);
        hooks.notice(notice("a", What::Occupied), 0);
        assert_eq!(told(&mut hooks, 0).len(), 1);
        hooks.notice(notice("a", What::Vacated), 1000);
        assert_eq!(hooks.deadline_ms(), 1000 + HOLD_MS);
        hooks.notice(notice("a", What::Occupied), 3999);
        assert_eq!(told(&mut hooks, 10_000), []);
        hooks.notice(notice("a", What::Vacated), 10_000);
        assert_eq!(told(&mut hooks, 12_999), []);
        assert_eq!(told(&mut hooks, 13_000), [(0, "channel_vacated a".to_owned())]);
        hooks.notice(notice("b", What::Vacated), 13_000);
        hooks.finish(13_001);
        assert_eq!(told(&mut hooks, 13_001), [(0, "channel_vacated b".to_owned())]);
        assert!(hooks.is_empty());
    }

    #[test]
    fn outcomes_are_counted() {
        let mut hooks = webhooks(vec![Webhook::new("http://a")]);
        let counters = hooks.counters.clone();
        hooks.notice(notice("a", What::Occupied), 0);
        assert_eq!(hooks.orders(0, 0).len(), 1);
        let lane = hooks.queues[0].queue.lanes();
        let lane = (hooks.hasher.hash_one(&*Arc::<str>::from("a")) % lane as u64) as usize;
        hooks.outcome(0, lane, Outcome::Failed, 0);
        assert_eq!(hooks.len(), 1);
        assert_eq!(hooks.orders(1000, 0).len(), 1);
        hooks.outcome(0, lane, Outcome::Refused, 1000);
        assert!(hooks.is_empty());
        let counts = [&counters.hooks_failed, &counters.hooks_refused, &counters.hooks_dropped];
        assert_eq!(counts.map(|counter| counter.get()), [1, 1, 1]);
    }
}
