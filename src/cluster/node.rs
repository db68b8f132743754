//! One node: between the cores, which propose events and are sent those of the log, and an engine.

mod adding;
mod applying;
mod counting;
mod epochs;
mod keys;
mod membership;
mod reading;
mod reserving;
mod settings;
mod storing;

use super::added::AddedApps;
use super::arrival::Arrival;
use super::awaited::AwaitedKeys;
use super::counting::CountedApps;
use super::engine::{Append, Engine, EngineEvent, LogInfo, Refusal};
use super::entry;
use super::epochs::NodeEpochs;
use super::events::part_of;
use super::follower::Follower;
use super::keys::LoggedKeys;
use super::nodes::{ClusterNodes, NodeSummary, NodeTiming, NodesSetup};
use super::places::LogPlaces;
use super::queue::{
    AppendQueue, ChannelKey, Failure, Pack, QueueLimits, QueuedEvent, StateSubject,
};
use super::repeats::AppliedNumbers;
use super::reservations::Reservations;
use super::states::{self, Origin};
use super::subject;
use crate::config::{Cluster, ClusterAcks};
use crate::dialect::zilliqa;
use crate::dialect::{self, Env, Event, Proposal, StateProposal};
use crate::hub::{CountedNumbers, Hasher, Unpublished};
use crate::stats::Counters;
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

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

/// The maximum number of channels that are remembered because an event was not stored.
const UNSTORED: usize = 1 << 16;

/// What has happened to nodes.
#[derive(Clone, Copy, Debug)]
enum NodeNews {
    /// A node has ended. `is_ours` says whether this node reports what changes, `has_left` whether
    /// the node had announced its end.
    Ended { node: u64, is_ours: bool, has_left: bool },
    /// The log is read from its beginning.
    Reads,
    /// The log was read to its end. What was not read since [`NodeNews::Reads`] is not true any
    /// more.
    HasRead { is_ours: bool },
}

/// See the module's documentation.
pub struct ClusterNode {
    setup: NodeSetup,
    name: String,
    hold_ms: u64,
    keep_s: u64,
    log_bytes: u64,
    /// Whether the log has room for states only.
    is_full: bool,
    /// Whether only nodes have room in the log, and ends of states.
    is_full_of_states: bool,
    /// Whether an answer means that a replica of the engine has the entry, too.
    has_replica_acks: bool,
    queue: AppendQueue<Origin>,
    epochs: NodeEpochs,
    follower: Follower,
    places: LogPlaces,
    applied: AppliedNumbers,
    keys: LoggedKeys,
    awaited: AwaitedKeys,
    /// The applications that a reload has added.
    added: AddedApps,
    /// The entries whose changes of pictures were made again since the log is read from its
    /// beginning.
    folded: AppliedNumbers,
    /// What has happened to nodes and was not reported to the dialects yet.
    news: VecDeque<NodeNews>,
    /// What is to be published because of the ends of nodes.
    reports: VecDeque<(u32, String, Event)>,
    /// The channels with an event that was not stored and whose publisher gets no answer, of a
    /// dialect with a form of its own: the event may have removed a picture. At most [`UNSTORED`].
    unstored: HashSet<Arc<str>>,
    nodes: ClusterNodes,
    reservations: Reservations,
    counted: CountedApps,
    /// The version of the configuration whose applications other nodes know.
    summary: Option<(u32, NodeSummary)>,
    /// Whether the last entry could not be read.
    is_unreadable: bool,
    is_up: bool,
    was_up: bool,
    /// Whether the engine is asked where the log ends, because entries at its end may have expired
    /// before they were delivered.
    is_asked: bool,
    /// The log, while it is not known whether entries have expired that were stored during an
    /// interruption: the next entry decides.
    in_doubt: Option<LogInfo>,
    /// The log, if nothing was stored for so long before the engine could be used again that
    /// entries would have expired, and this node has not appended to it since.
    was_still: Option<LogInfo>,
    /// The highest number that was known of an entry when the engine was asked once more whether
    /// the log has lost its end.
    asked_with: Option<u64>,
    /// When the engine was last lost, in milliseconds.
    down_ms: u64,
    /// When [`ClusterNode::turn`] was last called, in milliseconds.
    turn_ms: u64,
    tick_ms: u64,
    /// Whether the engine has stored nothing for `hold_ms`, until it stores a renewal of this node.
    is_away: bool,
    /// Whether it is logged that the engine can be reached and stores nothing.
    refusal_logged: bool,
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
        let nodes = NodesSetup {
            process: setup.id,
            name: cluster.name.clone(),
            timing: NodeTiming::new(cluster),
            formats: entry::FORMATS,
        };
        ClusterNode {
            nodes: ClusterNodes::new(nodes, setup.counters.clone()),
            reservations: Reservations::new(setup.id, cluster),
            counted: CountedApps::default(),
            summary: None,
            is_unreadable: false,
            setup,
            name: cluster.name.clone(),
            hold_ms: cluster.hold_ms,
            keep_s: cluster.keep_s,
            log_bytes: cluster.log_bytes,
            is_full: false,
            is_full_of_states: false,
            has_replica_acks: cluster.acks == ClusterAcks::Replica,
            queue: AppendQueue::new(limits),
            epochs: NodeEpochs::new(cluster.keep_s.max(cluster.history_s)),
            follower: Follower::new(cluster.keep_s * 1000),
            places: LogPlaces::new(cluster.keep_s * 1000),
            applied: AppliedNumbers::default(),
            keys: LoggedKeys::default(),
            awaited: AwaitedKeys::default(),
            added: AddedApps::new(cluster.keep_s * 1000),
            folded: AppliedNumbers::default(),
            news: VecDeque::new(),
            reports: VecDeque::new(),
            unstored: HashSet::new(),
            is_up: false,
            was_up: false,
            is_asked: false,
            in_doubt: None,
            was_still: None,
            asked_with: None,
            down_ms: now_ms,
            turn_ms: now_ms,
            tick_ms: now_ms,
            is_away: false,
            refusal_logged: false,
            arrivals: VecDeque::new(),
        }
    }

    /// The id of the node, which changes when others have declared it dead.
    pub fn id(&self) -> u64 {
        self.nodes.id()
    }

    /// Takes an event that a core proposes.
    pub fn propose(&mut self, proposal: Proposal, env: &Env, now: NodeTime) {
        let Proposal { app, name, mut event, origin, .. } = proposal;
        if zilliqa::logged_epoch(&event).is_some() {
            return self.propose_epoch((app, name), event, origin);
        }
        let key = event.key.take();
        let key_until_ms = self.key_until_ms(key.as_deref(), now.ms);
        let client_event = event.notify.clone();
        let ack = Origin { request: origin, client_event, is_epoch: false, key_until_ms };
        if let Some(decision) = self.known_key(app, key.as_deref(), now.ms) {
            return self.answer_key(ack, (app, name), decision);
        }
        let (event, history_s) = dialect::into_log(env, app, event);
        let part = match dialect::has_own_form(app) {
            true => dialect::event_into_log(env, app, &event).map(|part| (part, 0)),
            false => env.log_id(app).and_then(|_| part_of(&event, env)),
        };
        let waiting = part.filter(|_| !self.is_full).map(|(part, kept_s)| {
            let ttl_s = Some(self.ttl_s(kept_s.max(history_s), key.as_deref()));
            QueuedEvent { part, key, ttl_s, ack: Some(ack.clone()) }
        });
        let key = (app, name).into();
        let full = match waiting {
            Some(waiting) => self.queue.push(&key, waiting, now.ms).is_err(),
            None => true,
        };
        if full {
            self.fail((Some(ack), key, Unpublished::Refused));
        }
    }

    /// Takes a state that a core proposes.
    pub fn propose_state(&mut self, proposal: &StateProposal, now: NodeTime) {
        let (key, part) = states::part_of(self.nodes.id(), proposal);
        // What is true stays; its end only has to reach the nodes that follow the log.
        let full = part.is_none_or(|(part, ends)| {
            let ttl_s = ends.then_some(self.keep_s);
            let state = QueuedEvent { part, key: None, ttl_s, ack: None };
            // The pieces of a picture replace those before, and subscribers need them.
            let is_new = !ends && !matches!(key.state, Some(StateSubject::Picture(_)));
            is_new && self.is_full_of_states || self.queue.push(&key, state, now.ms).is_err()
        });
        if full {
            self.fail((None, key, Unpublished::Refused));
        }
    }

    /// Handles what the engine reports, and sends what can be sent.
    pub fn turn(&mut self, engine: &mut dyn Engine, env: &Env, now: NodeTime) {
        let mut is_stale = false;
        self.turn_ms = now.ms;
        self.places.turn(now.ms);
        env.runtime.cluster.set_process(self.setup.id);
        self.note_max_entry(engine.max_entry_bytes(), env);
        for event in engine.take() {
            let is_delivery = matches!(event, EngineEvent::Entry { .. } | EngineEvent::Current);
            // What was delivered before a new delivery begins is delivered by that again.
            if !(is_stale && is_delivery) {
                is_stale |= self.on_event(event, engine, env, now);
            }
        }
        self.send_first(engine);
        self.begin_added(engine, env);
        if now.ms >= self.tick_ms {
            self.tick_ms = now.ms + AppendQueue::<()>::TICK_MS;
            let failed = self.queue.tick(now.ms);
            failed.into_iter().for_each(|failure| self.fail(failure));
            self.tick_keys(env, now.ms);
            self.note_summary(env);
            self.show_nodes(env, now.ms);
        }
        self.nodes.tick(self.follower.has_joined(), now.ms);
        self.take_effects(engine);
        self.note_counted();
        self.tell_dialects(env);
        self.propose_reports(env, now);
        self.queue_epoch(now.ms);
        if self.is_up && self.nodes.may_append(now.ms) {
            self.send(engine, env, now.ms);
        }
        self.reserve(engine, env, now.ms);
        let counters = &self.setup.counters;
        counters.cluster_held_bytes.set(self.queue.bytes() as u64);
        counters.cluster_position.set(self.follower.position());
        self.note_storing(env, now.ms);
        env.runtime.cluster.set_lost((!self.is_up).then_some(self.down_ms));
    }

    /// When [`ClusterNode::turn`] is due again, if no event comes, in milliseconds.
    pub fn deadline_ms(&self) -> u64 {
        let has_none = self.queue.is_empty() && self.reports.is_empty();
        let is_idle = has_none && self.awaited.is_empty();
        let of_queue = match (is_idle, self.is_up) {
            (true, true) => u64::MAX,
            (true, false) => self.away_deadline_ms(),
            (false, _) => self.tick_ms,
        };
        let of_nodes = self.nodes.deadline_ms().min(self.reservations.deadline_ms());
        of_queue.min(of_nodes).min(self.added_deadline_ms())
    }

    /// Whether nothing waits for the engine.
    pub fn is_idle(&self) -> bool {
        let waits = !self.queue.is_empty() || !self.epochs.is_empty();
        let waits = waits || !self.awaited.is_empty() || self.has_to_give_back();
        !waits && self.arrivals.is_empty() && self.nodes.may_end()
    }

    /// What a core is to be sent next.
    pub fn next_arrival(&mut self) -> Option<(u16, Arrival)> {
        self.arrivals.pop_front()
    }

    /// Takes back an arrival for which a core has no room yet.
    pub fn return_arrival(&mut self, core: u16, arrival: Arrival) {
        self.arrivals.push_front((core, arrival));
    }

    /// Returns whether a new delivery of the log begins.
    fn on_event(
        &mut self,
        event: EngineEvent,
        engine: &mut dyn Engine,
        env: &Env,
        now: NodeTime,
    ) -> bool {
        let counters = self.setup.counters.clone();
        match event {
            EngineEvent::Up(log) => {
                self.on_up(log, engine, env, now.ms);
                return true;
            }
            EngineEvent::Down => self.on_down(now.ms),
            EngineEvent::Stored { number, sequence, took_ns } => {
                self.follower.stored(sequence);
                if !self.reservations.has_number(number) && !self.nodes.stored(number, sequence) {
                    counters.cluster_append_ns.observe(took_ns);
                    self.stored(number);
                }
            }
            EngineEvent::Refused { number, refusal } => {
                let is_reservation = self.reservations.refused(number, now.ms);
                if !is_reservation && !self.nodes.refused(number, refusal, now.ms) {
                    let again = refusal == Refusal::Later;
                    let failed = self.queue.refused(number, again, now.ms);
                    failed.into_iter().for_each(|failure| self.fail(failure));
                }
            }
            EngineEvent::Entry { sequence, stored_ms, is_last, body } => {
                let place = (sequence, stored_ms, is_last);
                return self.on_entry(place, &body, engine, env, now);
            }
            EngineEvent::Size(bytes) => {
                counters.cluster_log_bytes.set(bytes);
                self.note_size(bytes);
            }
            EngineEvent::Current => {
                if self.settles_doubt(None, engine, env, now.ms)
                    || self.notes_lag(None, engine, env, now.ms)
                {
                    return true;
                }
                self.follower.current(now.ms);
                self.added.current();
                self.note_current(engine);
                self.end_reading(engine, env, now.ms);
                return !self.is_asked && self.notes_caught_up(engine, env, now.ms);
            }
        }
        false
    }

    /// Notes that the engine is away.
    fn on_down(&mut self, now_ms: u64) {
        if std::mem::take(&mut self.is_up) {
            self.down_ms = now_ms;
            self.setup.counters.cluster_lost.add(1);
        }
        (self.in_doubt, self.was_still, self.asked_with) = (None, None, None);
        self.is_asked = false;
        self.queue.lost();
        self.nodes.lost();
        self.reservations.lost();
    }

    fn send_to_all(&mut self, arrival: &Arrival) {
        let cores = 0..self.setup.cores;
        self.arrivals.extend(cores.map(|core| (core, arrival.clone())));
    }

    fn home(&self, app: u32, channel: &str) -> u16 {
        self.setup.hasher.home(app, channel, self.setup.cores)
    }

    fn send(&mut self, engine: &mut dyn Engine, env: &Env, now_ms: u64) {
        let counters = &self.setup.counters;
        let format = self.nodes.format();
        while let Some(pack) = self.queue.next(now_ms) {
            let Pack { number, channel: (app, channel), state, ttl_s, again, parts, keys } = pack;
            let epoch_id = self.epochs.id_on(pack.channel).filter(|_| state.is_none());
            let app = env.log_id(*app).unwrap_or_default();
            let author = (self.setup.id, number);
            let mut body = match (state, &parts[..]) {
                (Some(state), [part]) => states::body_of(author, (app, channel), state, part),
                _ if epoch_id.is_some() => {
                    entry::write_epoch(author, app, channel, parts.iter().copied())
                }
                _ if dialect::has_own_form(pack.channel.0) => {
                    entry::write_own(author, app, channel, parts.iter().copied())
                }
                _ => {
                    let parts = parts.iter().copied();
                    entry::write_with_keys((author, app, channel), parts, &keys)
                }
            };
            entry::set_format(&mut body, format);
            let subject = match state {
                None => subject::of_channel(&self.name, app, channel),
                Some(state) => {
                    states::subject_of(&self.name, self.nodes.id(), (app, channel), state)
                }
            };
            counters.cluster_appends.add(1);
            counters.cluster_resent.add(again.into());
            engine.append(Append {
                number,
                subject,
                id: epoch_id.unwrap_or_else(|| format!("{:016x}-{number}", self.setup.id)),
                ttl_s,
                replaces: state.is_some(),
                expected: None,
                body,
            });
        }
    }

    fn stored(&mut self, number: u64) {
        let Some((channel, origins)) = self.queue.stored(number) else { return };
        let (keyed, others): (Vec<_>, Vec<_>) =
            origins.into_iter().partition(|it| it.key_until_ms.is_some());
        others.into_iter().for_each(|origin| self.settle_stored(origin, &channel));
        self.stored_with_keys(number, channel, keyed);
    }

    /// Reports that an event is in the log.
    fn settle_stored(&mut self, origin: Origin, (app, channel): &ChannelKey) {
        let Origin { request, client_event, is_epoch, .. } = origin;
        let request = if is_epoch { self.epochs.stored() } else { request };
        if let Some((core, ack)) = request {
            self.arrivals.push_back((core, Arrival::Settled { ack, failed: None }));
        }
        if let Some(client_event) = client_event {
            let (app, channel) = (*app, channel.clone());
            let core = self.home(app, &channel);
            let arrival = Arrival::Published { app, channel, client_event };
            self.arrivals.push_back((core, arrival));
        }
    }

    fn fail(&mut self, (origin, key, why): Failure<Origin>) {
        if origin.as_ref().is_some_and(|it| it.is_epoch) {
            return self.fail_epochs(&key.channel, why);
        }
        let (app, channel) = key.channel;
        if let Some(StateSubject::Picture(_)) = key.state {
            let (core, app) = (self.home(app, &channel), app);
            return self.arrivals.push_back((core, Arrival::PictureUnstated { app, channel }));
        }
        if let Some(StateSubject::Counting(kind, it)) = key.state {
            return self.fail_counting(CountedNumbers { app, kind }, it);
        }
        if let Some(StateSubject::Miss) = key.state {
            let (core, is_unsure) = (self.home(app, &channel), why == Unpublished::Unknown);
            let arrival = Arrival::MissUnstated { app, channel, is_unsure };
            return self.arrivals.push_back((core, arrival));
        }
        if let Some(state) = key.state {
            // Its core states it again, so nothing is lost.
            let (core, user) = (self.home(app, &channel), state.user().cloned());
            return self.arrivals.push_back((core, Arrival::Unstated { app, channel, user, why }));
        }
        match why {
            Unpublished::Refused => self.setup.counters.cluster_refused.add(1),
            Unpublished::Unknown => self.setup.counters.cluster_unknown.add(1),
            // Counted when it was decided.
            Unpublished::KeyUsed => {}
        }
        let request = origin.and_then(|it| it.request);
        if request.is_none() && dialect::has_own_form(app) && self.unstored.len() < UNSTORED {
            self.unstored.insert(channel.clone());
        }
        if let Some((core, ack)) = request {
            let failed = Some((channel, why));
            self.arrivals.push_back((core, Arrival::Settled { ack, failed }));
        }
    }
}

#[cfg(test)]
mod tests;
