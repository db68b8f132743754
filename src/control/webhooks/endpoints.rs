//! Turns channel events into webhook requests: which events are held back, which endpoints get
//! them, and with which body. Time is an argument; there is no I/O here.
//!
//! An event is delivered to the endpoints of the configuration that was in force on the channel's
//! home core, even after a reload. An endpoint of the same application with the same URL and batch
//! setting keeps its queue over reloads. An endpoint that the new configuration lacks is removed
//! when its queue is empty.

use super::debounce::Debounce;
use super::post::PostOutcome;
use super::queue::{Occupancy, QueuePolicy, QueuedRequest, WebhookEvent, WebhookQueue};
use crate::config::Webhook;
use crate::dialect::{Env, SignatureFields, WebhookFormat};
use crate::hub::{ChannelEvent, ChannelEventKind};
use crate::stats::Counters;
use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;
use std::sync::Arc;

/// How long a leave event (`vacated`, member removed) is held back, in milliseconds.
pub(super) const HOLD_MS: u64 = 3000;
/// How long a replaced configuration is kept for its own events, in milliseconds: longer than all
/// cores take to switch to the next one, and than leave events are held back.
const KEEP_MS: u64 = 30_000;
/// The maximum number of configurations that are kept.
const ROSTERS: usize = 16;

/// The webhook endpoints of all applications; see the module's documentation.
pub(super) struct Webhooks {
    /// Held leave events by application number, so that one application's many leave events do not
    /// displace another's.
    holds: Vec<Debounce>,
    hold_ms: u64,
    /// The endpoints of each kept configuration, the current one last. There is always at least
    /// one.
    rosters: VecDeque<Roster>,
    ends: Vec<Option<End>>,
    /// Whether an endpoint that is in no kept configuration has undelivered events.
    leaving: bool,
    /// Endpoints that are new or whose settings have changed.
    changed: Vec<usize>,
    hasher: RandomState,
    failures: u64,
    counters: Arc<Counters>,
}

/// The endpoints of one configuration.
struct Roster {
    version: u32,
    /// When the configuration is removed, in milliseconds; `u64::MAX` for the current one.
    until_ms: u64,
    env: Arc<Env>,
    /// By application number: each webhook's settings, and its index in `Webhooks::ends`.
    by_app: Vec<Vec<(Webhook, usize)>>,
}

struct End {
    app: u32,
    hook: Webhook,
    /// The last configuration that has the endpoint; its application keys sign the requests.
    env: Arc<Env>,
    queue: WebhookQueue,
}

impl End {
    fn is(&self, app: u32, hook: &Webhook) -> bool {
        self.app == app && self.hook.url == hook.url && self.hook.batch == hook.batch
    }
}

/// One request to send.
pub(super) struct WebhookDelivery {
    /// The index of the endpoint.
    pub(super) end: usize,
    pub(super) partition: usize,
    pub(super) body: Rc<[u8]>,
    /// The header fields that sign the body.
    pub(super) fields: SignatureFields,
}

impl Webhooks {
    pub(super) fn new(env: Arc<Env>, hold_ms: u64, counters: Arc<Counters>) -> Webhooks {
        let mut webhooks = Webhooks {
            holds: Vec::new(),
            hold_ms,
            rosters: VecDeque::new(),
            ends: Vec::new(),
            leaving: false,
            changed: Vec::new(),
            hasher: RandomState::new(),
            failures: 0,
            counters,
        };
        webhooks.renew(env, 0);
        webhooks
    }

    /// Takes over a reloaded configuration.
    pub(super) fn renew(&mut self, env: Arc<Env>, now_ms: u64) {
        let mut by_app: Vec<Vec<(Webhook, usize)>> = Vec::new();
        let mut named = Vec::new();
        for (number, app) in env.apps.iter() {
            let mut ends = Vec::new();
            if let Some(format) = env.webhooks(number).filter(|_| !app.is_gone()) {
                for hook in &app.config.webhooks {
                    let end = self.end_of(number, policy(hook, format), hook, &named, &env);
                    named.push(end);
                    ends.push((hook.clone(), end));
                }
            }
            by_app.push(ends);
        }
        if let Some(before) = self.rosters.back_mut() {
            before.until_ms = now_ms + KEEP_MS;
        }
        if self.rosters.len() == ROSTERS {
            self.rosters.pop_front();
        }
        let version = env.runtime.version;
        self.rosters.push_back(Roster { version, until_ms: u64::MAX, env, by_app });
    }

    /// The index of the endpoint for `hook`: a matching existing one that is not in `taken`, or a
    /// new one.
    fn end_of(
        &mut self,
        app: u32,
        policy: QueuePolicy,
        hook: &Webhook,
        taken: &[usize],
        env: &Arc<Env>,
    ) -> usize {
        for (at, end) in self.ends.iter_mut().enumerate() {
            let Some(end) = end.as_mut().filter(|end| end.is(app, hook)) else { continue };
            if taken.contains(&at) {
                continue;
            }
            // The content of `ca_file` may have changed although its name has not.
            if end.hook != *hook || !hook.ca_file.is_empty() {
                self.changed.push(at);
            }
            let dropped = end.queue.renew(policy);
            (end.hook, end.env) = (hook.clone(), env.clone());
            count_dropped(&self.counters, end, dropped);
            return at;
        }
        let end =
            End { app, hook: hook.clone(), env: env.clone(), queue: WebhookQueue::new(policy) };
        let at = self.ends.iter().position(Option::is_none).unwrap_or(self.ends.len());
        if at == self.ends.len() {
            self.ends.push(None);
        }
        self.ends[at] = Some(end);
        self.changed.push(at);
        at
    }

    /// Removes configurations whose time is over, and endpoints that are in none of the others and
    /// have no undelivered events.
    fn forget(&mut self, now_ms: u64) {
        if self.rosters.len() == 1 && !self.leaving {
            return;
        }
        self.rosters.retain(|roster| roster.until_ms > now_ms);
        let named = self.rosters.iter().flat_map(|roster| roster.by_app.iter().flatten());
        let named: HashSet<usize> = named.map(|(_, end)| *end).collect();
        self.leaving = false;
        for (at, end) in self.ends.iter_mut().enumerate() {
            if !named.contains(&at) && end.take_if(|end| end.queue.len() == 0).is_none() {
                self.leaving |= end.is_some();
            }
        }
    }

    /// The endpoints that are new or changed since the last call.
    pub(super) fn take_changed(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.changed)
    }

    /// The settings of an endpoint and its number of partitions.
    pub(super) fn end(&self, at: usize) -> Option<(&Webhook, usize)> {
        let end = self.ends.get(at)?.as_ref()?;
        Some((&end.hook, end.queue.partitions()))
    }

    /// The id of an endpoint's application, and the number of the webhook among those of the
    /// application, from 0.
    pub(super) fn place(&self, at: usize) -> Option<(&str, usize)> {
        let end = self.ends.get(at)?.as_ref()?;
        let app = &end.env.apps.get(end.app).config;
        Some((&app.id, app.webhooks.iter().position(|hook| *hook == end.hook)?))
    }

    /// Whether a channel event is of a newer configuration than the current one here.
    pub(super) fn lacks(&self, channel_event: &ChannelEvent) -> bool {
        self.rosters.back().is_none_or(|present| present.version < channel_event.version)
    }

    /// Takes a channel event, and queues it for its endpoints unless it is held back or cancelled.
    pub(super) fn channel_event(&mut self, channel_event: ChannelEvent, now_ms: u64) {
        let app = channel_event.app as usize;
        if self.holds.len() <= app {
            self.holds.resize_with(app + 1, || Debounce::new(self.hold_ms));
        }
        if let Some(channel_event) = self.holds[app].take(channel_event, now_ms) {
            self.report(&channel_event, now_ms);
        }
    }

    /// Queues the held leave events that are due by `until_ms`.
    fn report_held(&mut self, until_ms: u64, now_ms: u64) {
        for app in 0..self.holds.len() {
            while let Some(channel_event) = self.holds[app].next_due(until_ms) {
                self.report(&channel_event, now_ms);
            }
        }
    }

    fn report(&mut self, channel_event: &ChannelEvent, now_ms: u64) {
        let own = self.rosters.iter().find(|roster| roster.version >= channel_event.version);
        let Some(roster) = own.or(self.rosters.back()) else { return };
        let Some(ends) = roster.by_app.get(channel_event.app as usize) else { return };
        let format = roster.env.webhooks(channel_event.app);
        let event = format.and_then(|format| (format.event)(channel_event));
        let Some((kind, text)) = event else { return };
        let hash = self.hasher.hash_one(&channel_event.channel);
        let (channel, source) = (channel_event.channel.clone(), channel_event.source);
        let event =
            WebhookEvent { channel, source, occupancy: occupancy(&channel_event.what), text };
        for (hook, end) in ends {
            if hook.wants(kind)
                && hook.covers(&channel_event.channel)
                && let Some(end) = &mut self.ends[*end]
            {
                let pushed = end.queue.push(hash, event.clone(), now_ms);
                self.counters.hooks_cancelled.add(pushed.cancelled);
                count_dropped(&self.counters, end, pushed.dropped);
            }
        }
    }

    /// All requests that can be sent now. `unix_ms` is the Unix time in milliseconds.
    pub(super) fn deliveries(&mut self, now_ms: u64, unix_ms: u64) -> VecDeque<WebhookDelivery> {
        self.report_held(now_ms, now_ms);
        self.forget(now_ms);
        let mut deliveries = VecDeque::new();
        for (at, end) in self.ends.iter_mut().enumerate() {
            let Some(End { app, env, queue, .. }) = end else { continue };
            while let Some(job) = queue.next(now_ms, unix_ms) {
                deliveries.extend(order(at, job, env, *app));
            }
        }
        deliveries
    }

    /// Takes the outcome of a request.
    pub(super) fn outcome(
        &mut self,
        end: usize,
        partition: usize,
        outcome: PostOutcome,
        now_ms: u64,
    ) {
        // Never `None`: an endpoint with a request in flight is not removed.
        let Some(end) = &mut self.ends[end] else { return };
        let (counter, again) = match outcome {
            PostOutcome::Delivered => {
                self.counters.hooks_sent.add(1);
                return end.queue.succeeded(partition);
            }
            PostOutcome::Failed => (&self.counters.hooks_failed, true),
            PostOutcome::Refused => (&self.counters.hooks_refused, false),
        };
        counter.add(1);
        self.failures += 1;
        let jitter = self.hasher.hash_one(self.failures);
        let dropped = end.queue.failed(partition, again, jitter, now_ms);
        count_dropped(&self.counters, end, dropped);
    }

    /// Releases all held leave events and sends batches before they are full, because the server
    /// ends.
    pub(super) fn finish(&mut self, now_ms: u64) {
        self.report_held(u64::MAX, now_ms);
        self.ends.iter_mut().flatten().for_each(|end| end.queue.hurry());
    }

    /// When to call [`Webhooks::deliveries`] again if nothing else happens, in milliseconds.
    pub(super) fn deadline_ms(&self) -> u64 {
        let queues = self.ends.iter().flatten().map(|end| end.queue.deadline_ms());
        let held = self.holds.iter().map(Debounce::deadline_ms);
        queues.chain(held).min().unwrap_or(u64::MAX)
    }

    /// The number of undelivered events, without those held back.
    pub(super) fn len(&self) -> u64 {
        self.ends.iter().flatten().map(|end| end.queue.len()).sum()
    }

    /// Whether no event is undelivered or held back.
    pub(super) fn is_empty(&self) -> bool {
        self.holds.iter().all(Debounce::is_empty) && self.len() == 0
    }
}

/// Counts dropped events of an endpoint.
fn count_dropped(counters: &Counters, end: &End, events: u64) {
    counters.hooks_dropped.add(events);
    end.env.apps.get(end.app).count_dropped_hooks(events);
}

/// What an event of this kind says about whether its channel is occupied.
fn occupancy(what: &ChannelEventKind) -> Occupancy {
    match what {
        ChannelEventKind::Occupied => Occupancy::Occupied,
        ChannelEventKind::Vacated => Occupancy::Vacated,
        ChannelEventKind::Count(_) | ChannelEventKind::CacheMiss => Occupancy::Silent,
        ChannelEventKind::MemberAdded(_)
        | ChannelEventKind::MemberRemoved(_)
        | ChannelEventKind::ClientEvent(_) => Occupancy::Between,
    }
}

fn policy(hook: &Webhook, format: &WebhookFormat) -> QueuePolicy {
    let batch_ms = hook.batch.then_some(hook.batch_ms);
    QueuePolicy { max_bytes: hook.queue_bytes, batch_ms, body: format.body }
}

/// A request, signed with the first key of the application; `None` if the application has no key.
fn order(
    end: usize,
    (partition, body): QueuedRequest,
    env: &Env,
    app: u32,
) -> Option<WebhookDelivery> {
    let key = env.apps.get(app).keys.first()?;
    let fields = (env.webhooks(app)?.sign)(key, &body);
    Some(WebhookDelivery { end, partition, fields, body })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, HookEvent};
    use crate::hub::ChannelEventKind;

    fn webhooks(hooks: Vec<Webhook>) -> Webhooks {
        let mut config = Config::demo();
        config.apps[0].webhooks = hooks;
        Webhooks::new(Arc::new(Env::new(config, 1).unwrap()), HOLD_MS, Arc::default())
    }

    fn channel_event(channel: &str, what: ChannelEventKind) -> ChannelEvent {
        ChannelEvent { app: 0, version: 0, channel: channel.into(), what, source: 0, is_ours: true }
    }

    fn deliveries(webhooks: &mut Webhooks, now_ms: u64) -> Vec<(usize, String)> {
        let mut deliveries = Vec::new();
        for order in webhooks.deliveries(now_ms, 0) {
            let body = String::from_utf8_lossy(&order.body).into_owned();
            let name = body.split('"').nth(7).unwrap_or_default().to_owned();
            let channel = body.split('"').nth(11).unwrap_or_default();
            deliveries.push((order.end, format!("{name} {channel}")));
            webhooks.outcome(order.end, order.partition, PostOutcome::Delivered, now_ms);
        }
        deliveries
    }

    #[test]
    fn webhooks_endpoint_gets_its_events_and_channels() {
        let mut prefix = Webhook::new("http://a");
        prefix.filter_prefix = "private-".to_owned();
        let mut suffix = Webhook::new("http://b");
        suffix.filter_suffix = ".eu".to_owned();
        suffix.event_types = vec![HookEvent::SubscriptionCount, HookEvent::ChannelOccupied];
        let mut hooks = webhooks(vec![prefix, suffix]);
        let line = |end, text: &str| (end, text.to_owned());
        for (channel, what, expected) in [
            ("private-a", ChannelEventKind::Occupied, vec![line(0, "channel_occupied private-a")]),
            ("a.eu", ChannelEventKind::Occupied, vec![line(1, "channel_occupied a.eu")]),
            ("a.eu", ChannelEventKind::Count(1), vec![line(1, "subscription_count a.eu")]),
            ("private-a", ChannelEventKind::Count(1), vec![]),
            ("a.eu", ChannelEventKind::CacheMiss, vec![]),
            ("presence-a.eu", ChannelEventKind::Count(1), vec![]),
            ("a", ChannelEventKind::Occupied, vec![]),
        ] {
            hooks.channel_event(channel_event(channel, what), 0);
            assert_eq!(deliveries(&mut hooks, 0), expected, "{channel}");
        }
        assert!(hooks.is_empty());
    }

    #[test]
    fn webhooks_quick_return_is_not_reported() {
        let mut hooks = webhooks(vec![Webhook::new("http://a")]);
        hooks.channel_event(channel_event("a", ChannelEventKind::Occupied), 0);
        assert_eq!(deliveries(&mut hooks, 0).len(), 1);
        hooks.channel_event(channel_event("a", ChannelEventKind::Vacated), 1000);
        assert_eq!(hooks.deadline_ms(), 1000 + HOLD_MS);
        hooks.channel_event(channel_event("a", ChannelEventKind::Occupied), 3999);
        assert_eq!(deliveries(&mut hooks, 10_000), []);
        hooks.channel_event(channel_event("a", ChannelEventKind::Vacated), 10_000);
        assert_eq!(deliveries(&mut hooks, 12_999), []);
        assert_eq!(deliveries(&mut hooks, 13_000), [(0, "channel_vacated a".to_owned())]);
        hooks.channel_event(channel_event("b", ChannelEventKind::Vacated), 13_000);
        hooks.finish(13_001);
        assert_eq!(deliveries(&mut hooks, 13_001), [(0, "channel_vacated b".to_owned())]);
        assert!(hooks.is_empty());
    }

    #[test]
    fn webhooks_count_outcomes() {
        let mut hooks = webhooks(vec![Webhook::new("http://a")]);
        let counters = hooks.counters.clone();
        hooks.channel_event(channel_event("a", ChannelEventKind::Occupied), 0);
        assert_eq!(hooks.deliveries(0, 0).len(), 1);
        let partition = hooks.end(0).expect("an endpoint").1;
        let partition =
            (hooks.hasher.hash_one(&*Arc::<str>::from("a")) % partition as u64) as usize;
        hooks.outcome(0, partition, PostOutcome::Failed, 0);
        assert_eq!(hooks.len(), 1);
        assert_eq!(hooks.deliveries(1000, 0).len(), 1);
        hooks.outcome(0, partition, PostOutcome::Refused, 1000);
        assert!(hooks.is_empty());
        let counts = [&counters.hooks_failed, &counters.hooks_refused, &counters.hooks_dropped];
        assert_eq!(counts.map(|counter| counter.get()), [1, 1, 1]);
    }

    /// The next configuration, with these webhooks.
    fn reloaded(env: &Env, hooks: Vec<Webhook>) -> Arc<Env> {
        let mut config = env.config.clone();
        config.apps[0].webhooks = hooks;
        Arc::new(env.reloaded(config).unwrap())
    }

    fn occupied(channel: &str, version: u32) -> ChannelEvent {
        ChannelEvent { version, ..channel_event(channel, ChannelEventKind::Occupied) }
    }

    fn line(end: usize, channel: &str) -> (usize, String) {
        (end, format!("channel_occupied {channel}"))
    }

    #[test]
    fn webhooks_event_goes_to_endpoints_of_its_configuration() {
        let mut hooks = webhooks(vec![Webhook::new("http://a"), Webhook::new("http://b")]);
        assert_eq!(hooks.take_changed(), [0, 1]);
        let mut filtered = Webhook::new("http://b");
        filtered.filter_prefix = "x-".to_owned();
        let env = reloaded(&hooks.rosters[0].env, vec![Webhook::new("http://c"), filtered]);
        assert!(hooks.lacks(&occupied("1", 1)) && !hooks.lacks(&occupied("1", 0)));
        hooks.renew(env, 1000);
        assert_eq!(hooks.take_changed(), [2, 1]);
        assert!(!hooks.lacks(&occupied("1", 1)));
        // One core has the new configuration, another does not have it yet.
        for (channel, version, expected) in [
            ("1", 1, vec![line(2, "1")]),
            ("2", 0, vec![line(0, "2"), line(1, "2")]),
            ("x-3", 1, vec![line(1, "x-3"), line(2, "x-3")]),
        ] {
            hooks.channel_event(occupied(channel, version), 1000);
            assert_eq!(deliveries(&mut hooks, 1000), expected, "{channel}");
        }
        // A `vacated` event goes to the endpoints that got the `occupied` event.
        hooks.channel_event(channel_event("2", ChannelEventKind::Vacated), 1000);
        let vacated = |end| (end, "channel_vacated 2".to_owned());
        assert_eq!(deliveries(&mut hooks, 1000 + HOLD_MS), [vacated(0), vacated(1)]);
        // An event of a removed configuration goes to the current one.
        hooks.deliveries(1000 + KEEP_MS - 1, 0);
        assert!(hooks.end(0).is_some());
        hooks.deliveries(1000 + KEEP_MS, 0);
        assert!(hooks.end(0).is_none() && hooks.rosters.len() == 1);
        hooks.channel_event(occupied("4", 0), 1000 + KEEP_MS);
        assert_eq!(deliveries(&mut hooks, 1000 + KEEP_MS), [line(2, "4")]);
    }

    #[test]
    fn webhooks_removed_endpoint_gets_its_queue_then_is_dropped() {
        let mut hooks = webhooks(vec![Webhook::new("http://a")]);
        let env = hooks.rosters[0].env.clone();
        hooks.channel_event(occupied("1", 0), 0);
        assert_eq!(hooks.deliveries(0, 0).len(), 1);
        let mut config = env.config.clone();
        config.apps.clear();
        hooks.renew(Arc::new(env.reloaded(config).unwrap()), 0);
        assert_eq!((hooks.deliveries(KEEP_MS, 0).len(), hooks.len()), (0, 1), "it is under way");
        let partition = (hooks.hasher.hash_one(&*Arc::<str>::from("1")) % 8) as usize;
        hooks.outcome(0, partition, PostOutcome::Failed, KEEP_MS);
        let again = hooks.deliveries(KEEP_MS + 1000, 0);
        assert_eq!(
            (again.len(), again[0].fields[0].1.as_str()),
            (1, "app-key"),
            "signed as before"
        );
        hooks.outcome(0, partition, PostOutcome::Delivered, KEEP_MS + 1000);
        hooks.deliveries(KEEP_MS + 1000, 0);
        assert!(hooks.end(0).is_none() && hooks.is_empty());
    }

    #[test]
    fn webhooks_endpoint_keeps_its_queue_over_reloads() {
        let mut hooks = webhooks(vec![Webhook::new("http://a")]);
        for channel in ["1", "2"] {
            hooks.channel_event(occupied(channel, 0), 0);
        }
        let mut changed = Webhook::new("http://a");
        changed.headers.insert("x".to_owned(), crate::config::Secret::new("y"));
        let env = reloaded(&hooks.rosters[0].env, vec![]);
        hooks.renew(env.clone(), 0);
        hooks.renew(reloaded(&env, vec![changed.clone(), changed.clone()]), 0);
        assert_eq!(hooks.take_changed(), [0, 0, 1]);
        assert_eq!((hooks.end(0), hooks.len()), (Some((&changed, 8)), 2));
        assert_eq!(deliveries(&mut hooks, 0).len() + deliveries(&mut hooks, 0).len(), 2);
        // A smaller limit drops the events that no longer fit.
        hooks.channel_event(occupied("1", 2), 0);
        let env = hooks.rosters[2].env.clone();
        changed.queue_bytes = 10;
        hooks.renew(reloaded(&env, vec![changed.clone(), changed]), 0);
        assert_eq!((hooks.len(), hooks.counters.hooks_dropped.get()), (0, 2));
    }

    #[test]
    fn webhooks_remember_a_bounded_number_of_configurations() {
        let mut hooks = webhooks(vec![Webhook::new("http://a")]);
        for n in 0..2 * ROSTERS {
            let env = hooks.rosters.back().expect("one").env.clone();
            hooks.renew(reloaded(&env, vec![Webhook::new(format!("http://{n}"))]), 0);
        }
        assert_eq!(hooks.rosters.len(), ROSTERS);
        hooks.channel_event(occupied("1", 0), 0);
        let oldest = hooks.rosters[0].by_app[0][0].1;
        assert_eq!(deliveries(&mut hooks, 0), [line(oldest, "1")]);
        hooks.deliveries(KEEP_MS, 0);
        assert_eq!(hooks.ends.iter().flatten().count(), 1);
    }
}
