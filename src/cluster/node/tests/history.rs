//! Histories over several nodes on a simulated engine, in virtual time: clients that resume on any
//! node, nodes that are killed and come late, engines that go away and forget.
//!
//! What is checked: after an acknowledgement at a position a client gets exactly the events of the
//! log that follow that position, and is `recovered` only if these are also exactly the events
//! that follow what the client has got before.

use super::super::super::sim::{SimEngine, SimLog};
use super::super::*;
use crate::config::{AppHistory, Config};
use crate::dialect::{Event, Hub, Join, JoinRequest, OutgoingMail, event_from_log, history_of};
use crate::hub::{
    Answer, EventForms, Form, JoinReply, Joined, MissedEvent, Query, ResumeFrom, ResumeOutcome,
    ResumeReply, ResumeRequest, Retention, SharedFrame, StateTimes, StreamPosition,
};
use crate::mem::{Frozen, Slot};
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

mod oracle;

use oracle::{Oracle, PLAIN};

const CHANNELS: [&str; 4] = ["chat-0", "chat-1", "chat-2", "chat-3"];
const CLIENTS: usize = 6;

fn env_of(history: AppHistory, keep_s: u64) -> Arc<Env> {
    let cluster = Cluster { engine: vec!["nats://a:1".to_owned()], keep_s, ..Cluster::default() };
    let mut config = Config { cluster: Some(Box::new(cluster)), ..Config::demo() };
    config.apps[0].history = vec![history];
    Arc::new(Env::new(config, 0).expect("an environment"))
}

fn text_of(frame: Option<&Frozen>) -> String {
    String::from_utf8(frame.expect("a frame").to_vec()).expect("text")
}

fn slot(client: usize) -> Slot {
    Slot { index: client as u32, generation: 1 }
}

/// A node with one core.
struct Site {
    node: ClusterNode,
    engine: SimEngine,
    hub: Hub,
    mail: OutgoingMail,
    has_joined: bool,
    /// The stream of the log that the core reads, and that in which it has first read each event.
    stream: u64,
    read: HashMap<String, u64>,
    /// How far its clock is ahead, in milliseconds.
    skew_ms: u64,
    /// Counts the processes.
    number: u64,
}

impl Site {
    /// Ends the visit of all channels that has begun, if one has.
    fn visit(&mut self) {
        while self.hub.is_visiting() {
            self.hub.visit_slice(&mut self.mail);
        }
    }
}

#[derive(Default)]
struct Client {
    /// The site and the channel of the connection.
    at: Option<(usize, usize)>,
    /// The node of the last connection.
    node: u64,
    /// The stream at its acknowledgement, and the events that this connection has got.
    stream: u64,
    heard: HashSet<String>,
    /// Whether it is sent the last events, for which it has asked.
    rewinds: bool,
    /// Whether the connection is about to be closed, because of a gap.
    is_closing: bool,
    /// What it has got by its last message: the position, and what comes next in the truth.
    position: Option<(usize, StreamPosition)>,
    next: usize,
}

struct World {
    env: Arc<Env>,
    keep_ms: u64,
    log: Rc<RefCell<SimLog>>,
    oracle: Oracle,
    sites: Vec<Site>,
    clients: Vec<Client>,
    now_ms: u64,
    published: u32,
    kept_max: usize,
    nodes: u64,
    seed: u64,
    tally: Tally,
}

/// How often the interesting things have happened.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    recovered: usize,
    /// Resumes with missed events, and those on another node than before.
    replayed: usize,
    moved: usize,
    expired: usize,
    other_stream: usize,
    pages: usize,
    gaps: usize,
    /// Events that a node has read in two logs, and those that a connection did not get again.
    in_two_logs: usize,
    not_again: usize,
}

impl World {
    fn new(seed: u64, rng: &mut fastrand::Rng) -> World {
        let history = AppHistory {
            events: [3, 8, 100][rng.usize(..3)],
            ttl_s: [12, 30, 90][rng.usize(..3)],
            rewind: 5,
            bytes: 1024,
            ..AppHistory::new(&["chat-*"])
        };
        let keep_s = [20, 60][rng.usize(..2)];
        let env = env_of(history, keep_s);
        let mut world = World {
            env,
            keep_ms: keep_s * 1000,
            log: Rc::default(),
            oracle: Oracle::default(),
            sites: Vec::new(),
            clients: (0..CLIENTS).map(|_| Client::default()).collect(),
            now_ms: 100_000,
            published: 0,
            kept_max: [2500, 1 << 20][rng.usize(..2)],
            nodes: 0,
            seed,
            tally: Tally::default(),
        };
        for _ in 0..3 {
            let site = world.start(rng);
            world.sites.push(site);
        }
        world
    }

    /// A process that starts.
    fn start(&mut self, rng: &mut fastrand::Rng) -> Site {
        self.nodes += 1;
        let counters = Arc::new(Counters::default());
        let hasher = Hasher::new(7);
        let setup = NodeSetup { id: self.nodes, hasher, cores: 1, counters };
        let cluster = self.env.config.cluster.as_deref().expect("a cluster");
        let mut hub = Hub::new(0, 1, Hasher::new(7), self.kept_max);
        hub.follow_log(StateTimes {
            linger_ms: 3000,
            count_every_ms: 1000,
            picture_ms: 5000,
            hold_ms: 8000,
        });
        let mut engine = SimEngine::new(&self.log);
        engine.attach();
        Site {
            node: ClusterNode::new(setup, cluster, self.now_ms),
            engine,
            hub,
            mail: OutgoingMail::new(1),
            has_joined: false,
            stream: 0,
            read: HashMap::new(),
            skew_ms: rng.u64(..2000),
            number: self.nodes,
        }
    }

    fn publish(&mut self, at: usize, channel: &str) {
        self.published += 1;
        let text = self.published.to_string();
        let mut event: Event = Frozen::new(text.as_bytes()).into();
        if let Some(history) = history_of(&self.env, 0, channel) {
            event.retain = Retention::History(history.limit);
        }
        let proposal = Proposal::new(0, channel, event, None);
        let now = self.time(at);
        self.sites[at].node.propose(proposal, &self.env, now);
    }

    fn time(&self, at: usize) -> NodeTime {
        NodeTime { ms: self.now_ms, unix_ms: self.now_ms + self.sites[at].skew_ms }
    }

    /// A turn of a node, and of its core.
    fn turn(&mut self, at: usize) {
        let now = self.time(at);
        let site = &mut self.sites[at];
        site.node.turn(&mut site.engine, &self.env, now);
        while let Some((_, arrival)) = self.sites[at].node.next_arrival() {
            let site = &mut self.sites[at];
            match arrival {
                Arrival::Apply { channel, mut event, place, .. } => {
                    site.read.entry(text_of(event.frame())).or_insert(site.stream);
                    let is_known = place.is_some_and(|place| place.was_delivered);
                    self.tally.in_two_logs += usize::from(is_known);
                    event_from_log(&self.env, (0, &channel), &mut event, place);
                    let ordered = (&mut *event, place);
                    let (hub, mail) = (&mut site.hub, &mut site.mail);
                    if hub.apply(0, &channel, ordered, self.now_ms, mail).is_some() {
                        self.deliver(at, &channel, &event);
                    }
                }
                Arrival::Log(start) => {
                    site.stream = start.stream;
                    site.hub.begin_log(start, &mut site.mail);
                    site.visit();
                }
                Arrival::Gap => {
                    site.hub.mute();
                    self.tally.gaps += 1;
                    let of_site = |it: &&mut Client| it.at.is_some_and(|(of, _)| of == at);
                    self.clients.iter_mut().filter(of_site).for_each(|it| it.is_closing = true);
                }
                // About nodes and members.
                _ => {}
            }
        }
        let site = &mut self.sites[at];
        site.hub.reach(site.node.mark());
        site.has_joined |= site.node.follower.has_joined() && site.node.nodes.has_joined();
    }

    fn deliver(&mut self, at: usize, channel: &str, event: &Event) {
        let name = self.sites[at].hub.name(0, channel);
        let subscribers = self.sites[at].hub.subscribers(&name).iter();
        let hears = subscribers.filter(|it| it.receives(event.since_log));
        for client in hears.map(|it| it.slot as usize).collect::<Vec<_>>() {
            let shared =
                SharedFrame { frame: event.frame().expect("a frame").clone(), compressed: None };
            self.hear(client, &shared, event.forms.as_ref());
        }
    }

    /// A client gets an event.
    fn hear(&mut self, client: usize, shared: &SharedFrame, forms: Option<&Arc<EventForms>>) {
        let seed = self.seed;
        let position = forms.and_then(|forms| forms.position).expect("a position");
        let client = &mut self.clients[client];
        let (at, channel) = client.at.expect("a connection");
        let before = client.position.expect("an acknowledgement").1;
        let truth = self.oracle.of(position.stream, CHANNELS[channel]);
        if before.stream != position.stream {
            // Another log has begun under the connection.
            client.next = truth.index_after(position.serial - 1);
        }
        let text = text_of(Some(&shared.frame));
        if client.rewinds && truth.has_before(position.serial, &text) {
            // A rewind promises only that the last events follow.
            return;
        }
        if client.stream != position.stream {
            // The connection is older than the log, and so may be what it has of its events.
            let is_old = |text: &String| {
                self.sites[at].read.get(text).is_some_and(|stream| *stream != position.stream)
            };
            while truth.events.get(client.next).is_some_and(|(_, it)| *it != text && is_old(it)) {
                client.next += 1;
                self.tally.not_again += 1;
            }
        }
        assert!(client.heard.insert(text.clone()), "seed {seed}: {text} again");
        let expected = truth.events.get(client.next);
        assert_eq!(Some(&(position.serial, text)), expected, "seed {seed}: next of {before:?}");
        client.next += 1;
        client.position = Some((channel, position));
    }

    /// A client subscribes, and resumes if it has a position.
    fn subscribe(&mut self, client: usize, at: usize, channel: usize, rng: &mut fastrand::Rng) {
        let history = history_of(&self.env, 0, CHANNELS[channel]).expect("a history");
        let before = self.clients[client].position.filter(|(of, _)| *of == channel);
        let from = match before {
            _ if rng.u8(..8) == 0 => ResumeFrom::Rewind(rng.u32(1..6)),
            Some((_, position)) => ResumeFrom::Position(position),
            None => ResumeFrom::Present,
        };
        let resume = Some(ResumeRequest { from, limit: history.limit, view: 0 });
        let join = Join {
            slot: slot(client),
            app: 0,
            name: CHANNELS[channel],
            max: 9,
            is_public: false,
            request: Some(JoinRequest { resume, ..JoinRequest::default() }),
            form: Form::POSITIONED,
        };
        let site = &mut self.sites[at];
        let joined = site.hub.join(join, self.now_ms, &mut site.mail);
        let Joined::Now(Some(JoinReply { resumed: Some(resumed), .. })) = joined else {
            panic!("{joined:?}")
        };
        self.acknowledge(client, (at, channel), from, *resumed);
    }

    fn acknowledge(
        &mut self,
        number: usize,
        (at, channel): (usize, usize),
        from: ResumeFrom,
        resumed: ResumeReply,
    ) {
        let ResumeReply { position, outcome, missed } = resumed;
        let seed = self.seed;
        let truth = self.oracle.of(position.stream, CHANNELS[channel]);
        let next = truth.index_after(position.serial);
        let client = &mut self.clients[number];
        match (from, outcome) {
            (ResumeFrom::Position(before), ResumeOutcome::Recovered) => {
                assert_eq!(before, position, "seed {seed}");
                assert_eq!(client.next, next, "seed {seed}: a lie at {position:?}");
                self.tally.recovered += 1;
                self.tally.replayed += usize::from(!missed.is_empty());
                self.tally.moved += usize::from(client.node != self.sites[at].number);
            }
            (ResumeFrom::Position(_), ResumeOutcome::Expired) => self.tally.expired += 1,
            (ResumeFrom::Position(_), ResumeOutcome::OtherStream) => self.tally.other_stream += 1,
            _ => {}
        }
        (client.at, client.node) = (Some((at, channel)), self.sites[at].number);
        (client.next, client.position, client.is_closing) =
            (next, Some((channel, position)), false);
        (client.stream, client.heard) = (position.stream, HashSet::new());
        client.rewinds = matches!(from, ResumeFrom::Rewind(_));
        for MissedEvent { shared, forms } in missed {
            self.hear(number, &shared, Some(&forms));
        }
        self.clients[number].rewinds = false;
    }

    fn leave(&mut self, client: usize) {
        let Some((at, _)) = self.clients[client].at.take() else { return };
        let site = &mut self.sites[at];
        site.hub.leave_all(slot(client), &mut site.mail);
        site.hub.invariants();
    }

    /// A page of a history that says it is complete has what the log has.
    fn page(&mut self, at: usize, channel: usize, after: Option<StreamPosition>) {
        let query =
            Query::History { app: 0, name: CHANNELS[channel].into(), after, max: 4, view: 0 };
        let Answer::History(Some(page)) = self.sites[at].hub.answer_query(&query, self.now_ms)
        else {
            panic!("no page")
        };
        let truth = self.oracle.of(page.position.stream, CHANNELS[channel]);
        let from = after.map_or(0, |after| after.serial);
        let is_known = after.is_none_or(|after| after.stream == page.position.stream);
        assert!(is_known || !page.complete, "seed {}", self.seed);
        if page.complete {
            self.tally.pages += 1;
            let until = truth.index_after(page.position.serial);
            let expected = &truth.events[truth.index_after(from)..until];
            let found: Vec<_> = page
                .events
                .iter()
                .map(|(serial, it)| (*serial, String::from_utf8_lossy(&it.frame).into_owned()))
                .collect();
            assert_eq!(found, expected, "seed {}", self.seed);
        }
    }

    /// `kill -9` of a node, and another one in its place.
    fn kill(&mut self, at: usize, rng: &mut fastrand::Rng) {
        self.sites[at].engine.detach(rng.bool(), self.now_ms);
        for client in &mut self.clients {
            client.at = client.at.filter(|(of, _)| *of != at);
        }
        self.sites[at] = self.start(rng);
    }

    /// What an engine seldom does: it stores an entry again, loses its log, or does not answer for
    /// a long time.
    fn trouble(&mut self, rng: &mut fastrand::Rng) {
        let now_ms = self.now_ms;
        match rng.u8(..20) {
            0..10 => {
                let log = &mut *self.log.borrow_mut();
                let count = log.entries.len();
                // It is sent again for 8 s at most.
                if count > 0 && log.entries[count - 1].1 + 8000 > now_ms {
                    log.repeat(count - 1, now_ms);
                }
            }
            10 => {
                self.log.borrow_mut().lose();
                for site in &mut self.sites {
                    site.engine.detach(false, now_ms);
                }
            }
            _ => {
                let limit = [self.keep_ms / 2, self.keep_ms, 2 * self.keep_ms][rng.usize(..3)];
                self.now_ms += rng.u64(..limit);
            }
        }
    }

    fn step(&mut self, rng: &mut fastrand::Rng) {
        let at = rng.usize(..self.sites.len());
        let client = rng.usize(..CLIENTS);
        let now_ms = self.now_ms;
        match rng.u8(..100) {
            0..25 => self.publish(at, CHANNELS[rng.usize(..CHANNELS.len())]),
            25..28 => self.publish(at, PLAIN),
            28..48 => {
                let is_answered = rng.u8(..10) > 0;
                self.sites[at].engine.store(is_answered, now_ms);
            }
            48..63 => (0..rng.usize(1..9)).for_each(|_| self.sites[at].engine.deliver(1)),
            63..75 if self.clients[client].at.is_none() => {
                if self.sites[at].has_joined {
                    let before = self.clients[client].position.map(|(channel, _)| channel);
                    let channel = before.filter(|_| rng.u8(..10) > 0);
                    let channel = channel.unwrap_or_else(|| rng.usize(..CHANNELS.len()));
                    self.subscribe(client, at, channel, rng);
                }
            }
            63..75 if rng.bool() || self.clients[client].is_closing => self.leave(client),
            75..78 => {
                let after = self.clients[client].position;
                let channel = after.map_or(0, |(channel, _)| channel);
                if self.sites[at].has_joined {
                    self.page(at, channel, after.map(|(_, position)| position));
                    self.page(at, channel, None);
                }
            }
            78 => self.kill(at, rng),
            79 if self.sites[at].engine.is_up => {
                self.sites[at].engine.detach(rng.bool(), now_ms);
            }
            79..82 => self.sites[at].engine.attach(),
            82..84 => self.trouble(rng),
            84..90 => self.now_ms += rng.u64(..3000),
            90..95 => {
                self.sites[at].hub.sweep(now_ms);
                self.sites[at].visit();
            }
            _ => self.now_ms += rng.u64(..100),
        }
        self.log.borrow_mut().expire_due(self.now_ms);
        self.oracle.read(&self.log.borrow());
        // The core may be slow, too.
        if rng.u8(..4) > 0 {
            self.turn(at);
        }
    }
}

fn run(seed: u64) -> Tally {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut world = World::new(seed, &mut rng);
    for _ in 0..rng.usize(200..1500) {
        world.step(&mut rng);
    }
    world.tally
}

/// The answer is never `recovered: true` where something is missing or would come twice, also of
/// nodes that start late, are killed and lose the engine.
#[test]
fn cluster_p17_recovered_is_true_on_any_node() {
    let variable = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let first = variable("POLYCAST_SIM_FIRST").unwrap_or(0);
    let count = variable("POLYCAST_SIM_SEEDS").unwrap_or(150);
    let mut sum = Tally::default();
    for seed in first..first + count {
        let tally = run(seed);
        sum.recovered += tally.recovered;
        sum.replayed += tally.replayed;
        sum.moved += tally.moved;
        sum.expired += tally.expired;
        sum.other_stream += tally.other_stream;
        sum.pages += tally.pages;
        sum.gaps += tally.gaps;
        sum.in_two_logs += tally.in_two_logs;
        sum.not_again += tally.not_again;
    }
    println!("{sum:?}");
    assert!(sum.recovered > 200 && sum.replayed > 50 && sum.moved > 50, "{sum:?}");
    assert!(sum.expired > 50 && sum.other_stream > 10 && sum.pages > 100, "{sum:?}");
}

/// The engine loses its log while an event waits for its answer, and has it in the next one, too.
/// The event is in the histories of that log also on a node that had delivered it out of the first
/// one, and no connection gets it twice.
#[test]
fn cluster_p17_event_of_a_lost_log_is_in_the_history_of_the_next_one() {
    let tally = run(4507);
    assert!(tally.in_two_logs > 0, "{tally:?}");
}

/// A client that asks for the last events of a node that has not read all of what it has missed
/// gets none: the events that the node is about to read would be missing after them.
#[test]
fn cluster_p17_last_events_are_not_sent_while_the_node_reads() {
    run(3845);
}
