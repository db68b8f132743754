//! The job for webhooks: channel events become signed requests to the endpoints of applications.
//!
//! [`Webhooks`] decides what is sent when, without I/O. This file takes the channel events out of
//! the queues of the cores and sends the requests.

mod debounce;
mod endpoints;
mod post;
mod queue;

use super::authorities::Authorities;
use super::client::{Kept, Target};
use super::job::{Job, JobKind, JobSetup, Turn};
use super::results::Results;
use crate::dialect::Env;
use crate::hub::ChannelEvent;
use crate::limits::CHANNEL_EVENT_QUEUE;
use crate::mem::mailbox::Receiver;
use crate::stats::Counters;
use endpoints::{HOLD_MS, WebhookDelivery, Webhooks};
use hyper::body::Bytes;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use post::PostOutcome;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

pub(super) const JOB: JobKind = JobKind { is_needed, start };

fn is_needed(env: &Env) -> bool {
    env.config.apps.iter().any(|app| !app.webhooks.is_empty())
}

fn start(setup: &mut JobSetup) -> io::Result<Box<dyn Job>> {
    Ok(Box::new(WebhookJob::new(setup)))
}

/// The channel events of one core.
struct CoreEvents {
    queue: Receiver<ChannelEvent>,
    /// An event of a configuration that was not taken over yet when it was taken out of the queue.
    early: Option<ChannelEvent>,
}

/// The endpoints with their connections; see the module's documentation.
struct WebhookJob {
    webhooks: Webhooks,
    cores: Vec<CoreEvents>,
    /// Whether channel events were left in a queue.
    has_more: bool,
    finishing: bool,
    /// By endpoint; `None` if its URL is invalid.
    targets: Vec<Option<Rc<Target>>>,
    /// Idle HTTP connections, by endpoint and partition.
    kept: Vec<Vec<Rc<Kept>>>,
    outcomes: Results<(usize, usize, PostOutcome)>,
    authorities: Rc<Authorities>,
    counters: Arc<Counters>,
}

impl WebhookJob {
    fn new(setup: &mut JobSetup) -> WebhookJob {
        let cores = std::mem::take(&mut setup.event_queues).into_iter();
        let mut job = WebhookJob {
            webhooks: Webhooks::new(setup.env.clone(), HOLD_MS, setup.counters.clone()),
            cores: cores.map(|queue| CoreEvents { queue, early: None }).collect(),
            has_more: false,
            finishing: false,
            targets: Vec::new(),
            kept: Vec::new(),
            outcomes: Results::new(&setup.notifier),
            authorities: setup.authorities.clone(),
            counters: setup.counters.clone(),
        };
        job.aim();
        job
    }

    /// Creates HTTP targets for the webhook endpoints that are new or changed.
    fn aim(&mut self) {
        for end in self.webhooks.take_changed() {
            let Some((hook, partitions)) = self.webhooks.end(end) else { continue };
            let mut fields = HeaderMap::new();
            for (name, value) in &hook.headers {
                let name = HeaderName::from_bytes(name.as_bytes());
                if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value.expose())) {
                    fields.insert(name, value);
                }
            }
            let (url, private) = (hook.url.expose(), hook.allow_private);
            let target = Target::new(url, fields, private, &hook.ca_file, &self.authorities);
            if let (None, Some((app, number))) = (&target, self.webhooks.place(end)) {
                // Logged once for each endpoint. The URL may hold a secret.
                tracing::warn!(app, number, "a webhook's URL is invalid, so its events are lost");
            }
            if self.targets.len() <= end {
                self.targets.resize(end + 1, None);
                self.kept.resize(end + 1, Vec::new());
            }
            self.targets[end] = target.map(Rc::new);
            self.kept[end] = (0..partitions).map(|_| Rc::default()).collect();
        }
    }

    /// Takes channel events of the reactors, of each as many as its queue holds. An event of a
    /// configuration that was reloaded during this turn waits for the next turn, which takes the
    /// configuration over first: the server passes it to this thread before any core gets it.
    fn take_events(&mut self, now_ms: u64) {
        self.has_more = false;
        for core in &mut self.cores {
            if let Some(early) = core.early.take() {
                self.webhooks.channel_event(early, now_ms);
            }
            for _ in 0..CHANNEL_EVENT_QUEUE {
                let Some(event) = core.queue.pop() else { break };
                if self.webhooks.lacks(&event) {
                    core.early = Some(event);
                    break;
                }
                self.webhooks.channel_event(event, now_ms);
            }
            self.has_more |= core.early.is_some() || !core.queue.is_empty();
        }
    }

    fn send(&self, delivery: WebhookDelivery) {
        let WebhookDelivery { end, partition, body, fields } = delivery;
        let kept = self.kept[end][partition].clone();
        let target = self.targets[end].clone();
        let outcomes = self.outcomes.clone();
        tokio::task::spawn_local(async move {
            let fields = fields.map(|(name, value)| (HeaderName::from_static(name), value));
            let outcome = match &target {
                Some(target) => {
                    post::post(target, &kept, Bytes::copy_from_slice(&body), &fields).await
                }
                None => PostOutcome::Refused,
            };
            if let (PostOutcome::Refused, Some(target)) = (outcome, &target) {
                let host = target.host();
                tracing::warn!(
                    host,
                    "a webhook has only private addresses, but `allow_private` is not set"
                );
            }
            outcomes.put((end, partition, outcome));
        });
    }
}

impl Job for WebhookJob {
    fn reload(&mut self, env: &Arc<Env>, now_ms: u64) {
        self.webhooks.renew(env.clone(), now_ms);
        self.aim();
    }

    fn turn(&mut self, turn: &mut Turn<'_>) {
        self.take_events(turn.now_ms);
        for (end, partition, outcome) in self.outcomes.take() {
            self.webhooks.outcome(end, partition, outcome, turn.now_ms);
        }
        if self.finishing {
            self.webhooks.finish(turn.now_ms);
        }
        for delivery in self.webhooks.deliveries(turn.now_ms, turn.unix_ms) {
            self.send(delivery);
        }
    }

    fn deadline_ms(&self, _turn: &Turn<'_>) -> u64 {
        if self.has_more { 0 } else { self.webhooks.deadline_ms() }
    }

    /// The last channel events may arrive after the reactors have ended, so held events are
    /// released in every turn from now on.
    fn finish(&mut self, _turn: &Turn<'_>) {
        self.finishing = true;
    }

    fn is_idle(&self) -> bool {
        !self.has_more && self.webhooks.is_empty()
    }

    fn give_up(&mut self) {
        self.counters.hooks_dropped.add(self.webhooks.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Webhook};
    use crate::hub::ChannelEventKind;
    use crate::mem::Notifier;
    use crate::mem::mailbox::{Sender, mailbox};
    use std::io::Write;
    use std::sync::Mutex;

    fn config(urls: &[&str]) -> Config {
        let mut config = Config::demo();
        config.apps[0].webhooks = urls.iter().map(|url| Webhook::new(*url)).collect();
        config
    }

    fn job(urls: &[&str]) -> (WebhookJob, Arc<Env>, Sender<ChannelEvent>) {
        let (events, queue) = mailbox(CHANNEL_EVENT_QUEUE);
        let env = Arc::new(Env::new(config(urls), 1).unwrap());
        let mut setup = JobSetup {
            env: env.clone(),
            cluster: None,
            event_queues: vec![queue],
            notifier: Notifier::default(),
            counters: Arc::default(),
            authorities: Rc::default(),
            now_ms: 0,
        };
        (WebhookJob::new(&mut setup), env, events)
    }

    fn occupied(version: u32) -> ChannelEvent {
        let what = ChannelEventKind::Occupied;
        ChannelEvent { app: 0, version, channel: "a".into(), what, source: 0, is_ours: true }
    }

    #[test]
    fn webhooks_event_of_a_newer_configuration_waits_for_it() {
        let (mut job, env, mut events) = job(&["http://a"]);
        for version in [0, 1, 1] {
            assert!(events.push(occupied(version)).is_ok());
        }
        job.take_events(0);
        assert_eq!((job.webhooks.len(), job.has_more, job.is_idle()), (1, true, false));
        job.reload(&Arc::new(env.reloaded(config(&["http://a", "http://b"])).unwrap()), 0);
        job.take_events(0);
        assert_eq!((job.webhooks.len(), job.has_more), (1 + 2 * 2, false));
    }

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("a log").write(text)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn webhooks_invalid_url_is_logged_once_without_the_url() {
        let log = Log::default();
        let writer = log.clone();
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, || {
            let (mut job, env, _) = job(&["http://a", "https://-secret-.example:port/?secret"]);
            job.aim();
            job.reload(&Arc::new(env.reloaded(env.config.clone()).unwrap()), 0);
            assert!(job.targets[0].is_some() && job.targets[1].is_none());
        });
        let log = log.0.lock().expect("a log");
        let log = String::from_utf8_lossy(&log);
        assert_eq!(log.matches("a webhook's URL is invalid").count(), 1, "{log}");
        assert!(log.contains("number=1") && !log.contains("secret"), "{log}");
    }
}
