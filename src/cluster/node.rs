//! One node: between the cores, which propose events and are sent those of the log, and an engine.

use super::engine::{Append, Engine, EngineEvent, Refusal};
use super::entry::{self, CachedPart, EventPart, PartContent};
use super::follower::Follower;
use super::queue::{AppendQueue, Failure, QueueLimits, QueuedEvent};
use super::repeats::AppliedNumbers;
use super::subject;
use crate::config::Cluster;
use crate::dialect::{Env, Event, EventPayload, Proposal, broadcastt, pusher};
use crate::hub::{Ack, CacheEntry, Excluded, Hasher, Retention, SharedFrame, Unpublished};
use crate::mem::Frozen;
use crate::runtime::ClusterPhase;
use crate::stats::Counters;
use std::collections::VecDeque;
use std::sync::Arc;

/// What a core is sent from the log.
#[derive(Clone, Debug)]
pub enum Arrival {
    /// An event of a channel of which this core is the home takes effect.
    Apply {
        /// The application's number.
        app: u32,
        /// The channel.
        channel: Arc<str>,
        /// The event.
        event: Box<Event>,
    },
    /// An event that a connection of this core has proposed is in the log, or why it is not.
    Settled {
        /// The request that waits.
        ack: Ack,
        /// The channel, and why the event is not in the log.
        failed: Option<(Arc<str>, Unpublished)>,
    },
    /// Events that subscribers should have got may be missing from the log.
    Gap,
}

/// What a node is made from.
pub struct NodeSetup {
    /// The number of the node, drawn at random by each start.
    pub id: u64,
    /// Hashes channel names as all cores of the process do.
    pub hasher: Hasher,
    /// The number of cores.
    pub cores: u16,
    /// The counters of the thread that runs the node.
    pub counters: Arc<Counters>,
}

/// The time of a call: of the process's clock, and of the world's.
#[derive(Clone, Copy, Debug)]
pub struct NodeTime {
    /// Milliseconds of the process's clock.
    pub ms: u64,
    /// The Unix time in milliseconds.
    pub unix_ms: u64,
}

/// See the module's documentation.
pub struct ClusterNode {
    setup: NodeSetup,
    name: String,
    hold_ms: u64,
    keep_s: u64,
    queue: AppendQueue<(u16, Ack)>,
    follower: Follower,
    applied: AppliedNumbers,
    is_up: bool,
    was_up: bool,
    /// When the engine was last lost, in milliseconds.
    down_ms: u64,
    tick_ms: u64,
    arrivals: VecDeque<(u16, Arrival)>,
}

impl ClusterNode {
    /// A node of the cluster of this configuration, which has not reached the engine yet.
    pub fn new(setup: NodeSetup, cluster: &Cluster, now_ms: u64) -> ClusterNode {
        let limits = QueueLimits {
            hold_bytes: cluster.hold_bytes,
            hold_ms: cluster.hold_ms,
            append_ms: cluster.append_ms,
            in_flight: cluster.in_flight,
        };
        ClusterNode {
            setup,
            name: cluster.name.clone(),
            hold_ms: cluster.hold_ms,
            keep_s: cluster.keep_s,
            queue: AppendQueue::new(limits),
            follower: Follower::new(cluster.keep_s * 1000),
            applied: AppliedNumbers::default(),
            is_up: false,
            was_up: false,
            down_ms: now_ms,
            tick_ms: now_ms,
            arrivals: VecDeque::new(),
        }
    }

    /// Takes an event that a core proposes.
    pub fn propose(&mut self, proposal: Proposal, env: &Env, now: NodeTime) {
        let Proposal { app, name, event, origin } = proposal;
        let waiting = part_of(&event, env).map(|(part, kept_s)| {
            let ttl_s = self.keep_s.max(kept_s);
            QueuedEvent { part, ttl_s, ack: origin }
        });
        let full = match waiting {
            Some(waiting) => self.queue.push((app, name.clone()), waiting, now.ms).is_err(),
            None => true,
        };
        if full {
            self.fail((origin, (app, name), Unpublished::Refused));
        }
    }

    /// Handles what the engine reports, and sends what can be sent.
    pub fn turn(&mut self, engine: &mut dyn Engine, env: &Env, now: NodeTime) {
        for event in engine.take() {
            self.on_event(event, engine, env, now);
        }
        if now.ms >= self.tick_ms {
            self.tick_ms = now.ms + AppendQueue::<()>::TICK_MS;
            let failed = self.queue.tick(now.ms);
            failed.into_iter().for_each(|failure| self.fail(failure));
        }
        if self.is_up {
            self.send(engine, env, now.ms);
        }
        let counters = &self.setup.counters;
        counters.cluster_held_bytes.set(self.queue.bytes() as u64);
        counters.cluster_up.set(self.is_up.into());
        counters.cluster_position.set(self.follower.position());
        env.runtime.cluster.set(self.phase(now.ms));
    }

    fn phase(&self, now_ms: u64) -> ClusterPhase {
        match (self.follower.has_joined(), self.is_up) {
            (false, _) => ClusterPhase::Joining,
            (true, false) if self.down_ms + self.hold_ms <= now_ms => ClusterPhase::Away,
            (true, _) => ClusterPhase::Joined,
        }
    }

    /// When [`ClusterNode::turn`] is due again, if no event comes, in milliseconds.
    pub fn deadline_ms(&self) -> u64 {
        match (self.queue.is_empty(), self.is_up) {
            (true, true) => u64::MAX,
            (true, false) => self.down_ms + self.hold_ms,
            (false, _) => self.tick_ms,
        }
    }

    /// Whether nothing waits for the engine.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.arrivals.is_empty()
    }

    /// What a core is to be sent next.
    pub fn next_arrival(&mut self) -> Option<(u16, Arrival)> {
        self.arrivals.pop_front()
    }

    /// Takes back an arrival for which a core has no room yet.
    pub fn return_arrival(&mut self, core: u16, arrival: Arrival) {
        self.arrivals.push_front((core, arrival));
    }

    fn on_event(&mut self, event: EngineEvent, engine: &mut dyn Engine, env: &Env, now: NodeTime) {
        let counters = self.setup.counters.clone();
        match event {
            EngineEvent::Up(log) => {
                let attached = self.follower.attached(log, now.ms);
                if self.was_up {
                    counters.cluster_fillings.add(1);
                    counters.cluster_filled.add(attached.missed);
                }
                counters.cluster_epochs.add(attached.is_new.into());
                if attached.is_gap {
                    counters.cluster_gaps.add(1);
                    let cores = 0..self.setup.cores;
                    self.arrivals.extend(cores.map(|core| (core, Arrival::Gap)));
                }
                (self.is_up, self.was_up) = (true, true);
                engine.follow(attached.after);
            }
            EngineEvent::Down => {
                if std::mem::take(&mut self.is_up) {
                    self.down_ms = now.ms;
                    counters.cluster_lost.add(1);
                }
                self.queue.lost();
            }
            EngineEvent::Stored { number, took_ns, .. } => {
                counters.cluster_append_ns.observe(took_ns);
                self.stored(number);
            }
            EngineEvent::Refused { number, refusal } => {
                let again = refusal == Refusal::Later;
                let failed = self.queue.refused(number, again, now.ms);
                failed.into_iter().for_each(|failure| self.fail(failure));
            }
            EngineEvent::Entry { sequence, stored_ms, is_last, body } => {
                let age_ms = now.unix_ms.saturating_sub(stored_ms);
                match self.follower.takes(sequence, is_last, now.ms) {
                    true => {
                        counters.cluster_lag_ms.set(age_ms);
                        self.apply(&body, age_ms, env);
                    }
                    false => counters.cluster_repeated.add(1),
                }
            }
            EngineEvent::Current => self.follower.current(now.ms),
        }
    }

    fn send(&mut self, engine: &mut dyn Engine, env: &Env, now_ms: u64) {
        let counters = &self.setup.counters;
        while let Some(pack) = self.queue.next(now_ms) {
            let (app, channel) = pack.channel;
            let app = &env.apps.get(*app).config.id;
            let body = entry::write(
                (self.setup.id, pack.number),
                app,
                channel,
                pack.parts.iter().copied(),
            );
            counters.cluster_appends.add(1);
            counters.cluster_resent.add(pack.again.into());
            engine.append(Append {
                number: pack.number,
                subject: subject::of_channel(&self.name, app, channel),
                id: format!("{:016x}-{}", self.setup.id, pack.number),
                ttl_s: Some(pack.ttl_s),
                replaces: false,
                expected: None,
                body,
            });
        }
    }

    fn stored(&mut self, number: u64) {
        let settled = |(core, ack)| (core, Arrival::Settled { ack, failed: None });
        self.arrivals.extend(self.queue.stored(number).into_iter().map(settled));
    }

    fn fail(&mut self, (origin, (_, channel), why): Failure<(u16, Ack)>) {
        match why {
            Unpublished::Refused => self.setup.counters.cluster_refused.add(1),
            Unpublished::Unknown => self.setup.counters.cluster_unknown.add(1),
        }
        if let Some((core, ack)) = origin {
            let failed = Some((channel, why));
            self.arrivals.push_back((core, Arrival::Settled { ack, failed }));
        }
    }

    /// Sends the events of an entry to the home of their channel.
    fn apply(&mut self, body: &[u8], age_ms: u64, env: &Env) {
        let counters = &self.setup.counters;
        counters.cluster_entries.add(1);
        let entry = match entry::read(body) {
            Ok(entry) => entry,
            Err(error) => {
                counters.cluster_skipped.add(1);
                return tracing::warn!(%error, "the cluster's log has something unreadable");
            }
        };
        if !self.applied.takes(entry.node, entry.number) {
            return counters.cluster_repeated.add(1);
        }
        counters.cluster_skipped.add(entry.skipped as u64);
        let Some(app) = env.apps.by_id(entry.app) else {
            return counters.cluster_skipped.add(1);
        };
        let core = self.setup.hasher.home(app, entry.channel, self.setup.cores);
        let channel: Arc<str> = entry.channel.into();
        for part in entry.events {
            counters.cluster_events.add(1);
            let event = Box::new(event_of(part, age_ms, env));
            self.arrivals
                .push_back((core, Arrival::Apply { app, channel: channel.clone(), event }));
        }
    }
}

/// An event as a part of an entry, and how long it is cached, in seconds; `None` if a cluster does
/// not carry it.
pub fn part_of(event: &Event, env: &Env) -> Option<(Vec<u8>, u64)> {
    let excluded = event.except.map(|except| match except {
        Excluded::Connection(conn) => env.socket_ids.numbers_of(conn),
        Excluded::Elsewhere(numbers) => numbers,
    });
    let cached = match &event.retain {
        Retention::Nothing => None,
        Retention::Cache(entry) => Some(entry),
        _ => return None,
    };
    let content = match &event.payload {
        EventPayload::Frame(shared) => {
            let cached =
                cached.map(|it| CachedPart { ttl_ms: it.ttl_ms, event: &it.event, data: &it.data });
            PartContent::Frame { cached, frame: &shared.frame }
        }
        EventPayload::Close(code, reason) => PartContent::Close { code: *code, reason },
        _ => return None,
    };
    let kept_s = cached.map_or(0, |it| it.ttl_ms.div_ceil(1000));
    Some((entry::part(&EventPart { excluded, content }), kept_s))
}

/// The event of a part that was stored `age_ms` ago.
pub fn event_of(part: EventPart<'_>, age_ms: u64, env: &Env) -> Event {
    let found = part.excluded.and_then(|numbers| env.socket_ids.find(numbers));
    let except = found.map(Excluded::from);
    match part.content {
        PartContent::Close { code, reason } => {
            let payload = EventPayload::Close(code, known_reason(reason));
            Event { payload, except, ..Event::default() }
        }
        PartContent::Frame { cached, frame } => {
            let compressed = env.compresses.then(Default::default);
            let shared = SharedFrame { frame: Frozen::new(frame), compressed };
            let retain = cached.map_or(Retention::Nothing, |it| {
                let ttl_ms = it.ttl_ms.saturating_sub(age_ms);
                let (event, data) = (it.event.into(), it.data.into());
                Retention::Cache(Arc::new(CacheEntry { ttl_ms, event, data }))
            });
            Event { except, retain, ..shared.into() }
        }
    }
}

/// The reasons of closes that are published.
fn known_reason(text: &str) -> &'static str {
    let known = [pusher::DATA.codes.terminated, broadcastt::DATA.codes.terminated];
    known.into_iter().find(|reason| *reason == text).unwrap_or("")
}

#[cfg(test)]
mod tests;
