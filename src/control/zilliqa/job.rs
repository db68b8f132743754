//! The job that fetches epochs: runs the poller's actions, which are requests to nodes, publishes
//! to the reactors, and writes of the state file.

use super::state::{self, StateFile};
use super::{NodeFailure, Poller, PollerAction, Question};
use crate::config::{ZilliqaNode, ZilliqaPoll};
use crate::control::backlog::Backlog;
use crate::control::client::{self, Kept, Target};
use crate::control::job::{Job, JobKind, JobSetup, Turn};
use crate::control::results::Results;
use crate::dialect::Env;
use crate::dialect::Event;
use crate::dialect::zilliqa::epoch::{Epoch, Strictness};
use crate::dialect::zilliqa::{self, Shared};
use crate::mem::Notifier;
use crate::reactor;
use crate::stats::Counters;
use hyper::body::Bytes;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// The ticket of a request, and its response.
type NodeReply = (u64, Result<Bytes, NodeFailure>);

/// How often a node of a cluster looks whether it polls, and whether the log has what it has
/// published, in milliseconds.
const LOG_MS: u64 = 200;
/// How much longer than a publish waits for the engine an epoch is awaited, in milliseconds, before
/// it is published again. The engine and all nodes drop what they have had.
const AGAIN_MS: u64 = 2000;

pub(crate) const JOB: JobKind = JobKind { is_needed, start };

fn is_needed(env: &Env) -> bool {
    !env.config.zilliqa.node.urls.is_empty()
}

/// Reads the state file at once, so that an invalid one keeps the server from starting.
fn start(setup: &mut JobSetup) -> io::Result<Box<dyn Job>> {
    let mut job = ZilliqaJob {
        follower: None,
        wanted: None,
        is_reading: false,
        read: Results::new(&setup.notifier),
        notifier: setup.notifier.clone(),
        counters: setup.counters.clone(),
        env: setup.env.clone(),
    };
    if is_needed(&setup.env) {
        let saved = saved(&setup.env.config.zilliqa.node.state_file)?;
        job.follow(&setup.env, saved, setup.now_ms);
    }
    Ok(Box::new(job))
}

/// The number in the state file at `path`; `None` if there is no file, or `path` is empty.
fn saved(path: &str) -> io::Result<Option<u64>> {
    if path.is_empty() { Ok(None) } else { state::read(Path::new(path)) }
}

/// Follows the nodes from the first configuration on that has any.
struct ZilliqaJob {
    follower: Option<Follower>,
    /// The last configuration, if the state file of an earlier one is still being read.
    wanted: Option<Arc<Env>>,
    is_reading: bool,
    /// A configuration, and what was read from its state file.
    read: Results<(Arc<Env>, io::Result<Option<u64>>)>,
    notifier: Notifier,
    counters: Arc<Counters>,
    env: Arc<Env>,
}

impl ZilliqaJob {
    /// Follows the nodes of a configuration after the epoch `saved`.
    fn follow(&mut self, env: &Arc<Env>, saved: Option<u64>, now_ms: u64) {
        let (config, shared) = (&env.config.zilliqa.node, env.zilliqa.clone());
        let counters = self.counters.clone();
        self.follower =
            Some(Follower::new(config, shared, saved, &self.notifier, counters, now_ms));
        let notifier = self.notifier.clone();
        env.zilliqa.notifier().attach(move || notifier.notify());
    }

    /// Reads the state file of the configuration that is wanted, if it has nodes.
    fn begin_read(&mut self) {
        let Some(env) = self.wanted.take_if(|_| !self.is_reading) else { return };
        if !is_needed(&env) {
            return;
        }
        self.is_reading = true;
        let read = self.read.clone();
        tokio::task::spawn_local(async move {
            let path = env.config.zilliqa.node.state_file.clone();
            let saved = tokio::task::spawn_blocking(move || saved(&path)).await;
            read.put((env, saved.map_err(io::Error::other).flatten()));
        });
    }
}

impl Job for ZilliqaJob {
    fn reload(&mut self, env: &Arc<Env>, now_ms: u64) {
        self.env = env.clone();
        match &mut self.follower {
            Some(follower) => follower.renew(&env.config.zilliqa.node, now_ms),
            None => {
                self.wanted = Some(env.clone());
                self.begin_read();
            }
        }
    }

    fn turn(&mut self, turn: &mut Turn<'_>) {
        for (env, saved) in self.read.take() {
            self.is_reading = false;
            match saved {
                _ if self.wanted.is_some() => self.begin_read(),
                Ok(saved) => self.follow(&env, saved, turn.now_ms),
                Err(error) => tracing::error!(%error, "epochs are not fetched from the nodes"),
            }
        }
        if let Some(follower) = &mut self.follower {
            follower.turn(&self.env, turn.backlog, turn.draining, turn.now_ms);
        }
    }

    fn deadline_ms(&self, turn: &Turn<'_>) -> u64 {
        match &self.follower {
            Some(follower) if !turn.draining => {
                let in_log = self.env.config.cluster.is_some();
                let looks_ms = if in_log { turn.now_ms + LOG_MS } else { u64::MAX };
                follower.poller.deadline_ms(turn.now_ms).min(looks_ms)
            }
            _ => u64::MAX,
        }
    }

    fn finish(&mut self, turn: &Turn<'_>) {
        if let Some(follower) = &mut self.follower {
            follower.finish(turn.backlog);
        }
    }

    fn is_idle(&self) -> bool {
        self.follower.as_ref().is_none_or(Follower::is_idle)
    }
}

/// The poller with its connections, state file and clients' questions.
struct Follower {
    poller: Poller,
    /// The state shared with the clients' connections: the last epoch and their questions.
    shared: Arc<Shared>,
    channel: Arc<str>,
    targets: Vec<Option<Rc<Target>>>,
    /// Idle HTTP connections, by node and number.
    kept: Vec<Vec<Rc<Kept>>>,
    answers: Results<NodeReply>,
    state_file: Option<StateFile>,
    /// An epoch number to write to the state file when its event is in the queue to the reactors.
    unkept: Option<u64>,
    /// In a cluster, the epoch that the poller awaits, and when it was published.
    awaited: Option<(Event, u64)>,
    /// Whether the last epoch from the nodes was skipped, because a posted one was not below it.
    behind: bool,
    timeout: Duration,
    max_bytes: usize,
    notifier: Notifier,
    counters: Arc<Counters>,
}

impl Follower {
    /// Creates the poller, which continues after the epoch `saved`.
    fn new(
        config: &ZilliqaNode,
        shared: Arc<Shared>,
        saved: Option<u64>,
        notifier: &Notifier,
        counters: Arc<Counters>,
        now_ms: u64,
    ) -> Follower {
        let path = Path::new(&config.state_file);
        let state_file = (!config.state_file.is_empty()).then(|| StateFile::new(path.to_owned()));
        if let Some(saved) = saved {
            // An epoch up to this one is not accepted from a POST request either.
            shared.note(saved, None);
        }
        let targets = targets(config);
        Follower {
            kept: targets.iter().map(|_| connections(config)).collect(),
            targets,
            answers: Results::new(notifier),
            state_file,
            unkept: None,
            awaited: None,
            behind: false,
            timeout: Duration::from_millis(config.timeout_ms),
            max_bytes: config.answer_bytes,
            notifier: notifier.clone(),
            poller: Poller::new(config.clone(), epoch, saved, counters.clone(), now_ms),
            shared,
            channel: zilliqa::CHANNEL.into(),
            counters,
        }
    }

    /// Applies the node settings of a reloaded configuration, if they changed, and continues after
    /// the last epoch. The new settings may have no nodes: questions about contracts are still
    /// answered.
    fn renew(&mut self, config: &ZilliqaNode, now_ms: u64) {
        let before = self.poller.config();
        if before == config && config.ca_file.is_empty() {
            return;
        }
        if before.state_file != config.state_file {
            let path = Path::new(&config.state_file).to_owned();
            self.state_file = (!config.state_file.is_empty()).then(|| StateFile::new(path));
            self.unkept = self.shared.last();
        }
        self.targets = targets(config);
        self.kept = self.targets.iter().map(|_| connections(config)).collect();
        self.timeout = Duration::from_millis(config.timeout_ms);
        self.max_bytes = config.answer_bytes;
        self.poller.renew(config.clone(), now_ms);
    }

    /// Runs one turn: takes responses, runs the poller's actions and writes the state file. When
    /// `draining`, no new action is started.
    fn turn(&mut self, env: &Env, backlog: &mut Backlog, draining: bool, now_ms: u64) {
        for (ticket, answer) in self.answers.take() {
            self.poller.received(ticket, answer, now_ms);
        }
        if !draining {
            self.follow_log(env, backlog, now_ms);
            self.order(env, backlog, now_ms);
        }
        if backlog.has_room()
            && let Some(number) = self.unkept.take()
            && let Some(state_file) = &mut self.state_file
        {
            state_file.keep(number);
        }
        if let Some(state_file) = &mut self.state_file {
            let notifier = self.notifier.clone();
            self.counters.state_failures.add(state_file.turn(move || notifier.notify()).into());
        }
    }

    /// In a cluster, gives the last epoch of the log to the poller, and publishes the awaited epoch
    /// again if the log should have it by now.
    fn follow_log(&mut self, env: &Env, backlog: &mut Backlog, now_ms: u64) {
        let Some(cluster) = &env.config.cluster else { return };
        let polls = env.runtime.cluster.is_ready() && is_poller(env);
        self.poller.follow(polls, self.shared.last(), now_ms);
        if self.poller.awaited().is_none() {
            self.awaited = None;
        }
        if let Some((event, since_ms)) = &mut self.awaited
            && *since_ms + cluster.hold_ms + AGAIN_MS <= now_ms
            && backlog.has_room()
        {
            *since_ms = now_ms;
            let event = event.clone();
            self.publish(event, backlog);
        }
    }

    fn publish(&self, event: Event, backlog: &mut Backlog) {
        let (app, channel) = (zilliqa::APP, self.channel.clone());
        backlog.put(reactor::ReactorCommand::Publish { app, channel, event });
    }

    fn order(&mut self, env: &Env, backlog: &mut Backlog, now_ms: u64) {
        let in_log = env.config.cluster.is_some();
        if self.poller.takes_questions() {
            for question in self.shared.questions() {
                self.question(question, now_ms);
            }
        }
        loop {
            // The clients of other nodes may want them.
            let wants_logs = in_log || self.shared.wants_logs();
            let actions = self.poller.actions(backlog.has_room(), wants_logs, now_ms);
            if actions.is_empty() {
                return;
            }
            for order in actions {
                match in_log {
                    true => self.carry_out_in_cluster(order, backlog, now_ms),
                    false => self.carry_out(order, backlog),
                }
            }
        }
    }

    fn question(&mut self, question: zilliqa::Question, now_ms: u64) {
        let about: Vec<_> = question.addresses().copied().collect();
        let from = question.conn;
        let answer = Box::new(move |contracts: &HashSet<_>| {
            question.answer(|address| contracts.contains(address))
        });
        self.poller.question(Question { from, answer }, &about, now_ms);
    }

    /// As [`Follower::carry_out`], but the log decides what is published, and keeps the number.
    fn carry_out_in_cluster(&mut self, order: PollerAction, backlog: &mut Backlog, now_ms: u64) {
        let event = match order {
            PollerAction::Publish { event, .. } => event,
            // The one after which epochs are fetched: nothing was published yet.
            PollerAction::SaveState(number) if self.awaited.is_none() => {
                Event::message(zilliqa::ZilliqaMessage::Begin(number).into())
            }
            PollerAction::SaveState(_) => return,
            order => return self.carry_out(order, backlog),
        };
        self.awaited = Some((event.clone(), now_ms));
        self.publish(event, backlog);
    }

    fn carry_out(&mut self, order: PollerAction, backlog: &mut Backlog) {
        match order {
            PollerAction::Request { ticket, node, connection, body } => {
                self.request(ticket, node, connection, body)
            }
            PollerAction::Publish { number, event } => {
                // Skip an epoch that was posted meanwhile.
                if !self.shared.note(number, zilliqa::epoch_of(&event)) {
                    return self.pass_over(number);
                }
                if std::mem::take(&mut self.behind) {
                    tracing::info!(number, "the nodes are ahead of the posted epochs again");
                }
                self.counters.epochs.add(1);
                self.counters.last_epoch.set(number);
                self.publish(event, backlog);
            }
            PollerAction::SaveState(number) => self.unkept = Some(number),
            PollerAction::Message { to, what } => {
                backlog.put(reactor::ReactorCommand::Message { to, what })
            }
        }
    }

    /// Counts an epoch of the nodes that is not published, because it or a later one was posted.
    fn pass_over(&mut self, number: u64) {
        self.counters.epochs_passed_over.add(1);
        if !std::mem::replace(&mut self.behind, true) {
            let posted = self.shared.last();
            tracing::warn!(
                number,
                posted,
                "epochs of the nodes are skipped, because the same or a later epoch was posted"
            );
        }
    }

    fn request(&self, ticket: u64, node: usize, connection: usize, body: Bytes) {
        let target = self.targets[node].clone();
        let kept = self.kept[node][connection].clone();
        let answers = self.answers.clone();
        let (timeout, max_bytes) = (self.timeout, self.max_bytes);
        tokio::task::spawn_local(async move {
            let answer = match &target {
                Some(target) => {
                    let request = request(target, &kept, body, max_bytes);
                    let late = |_| {
                        Err(NodeFailure::Silent("the node has not answered in time".to_owned()))
                    };
                    tokio::time::timeout(timeout, request).await.unwrap_or_else(late)
                }
                None => Err(NodeFailure::Silent("the node's URL or ca_file is invalid".to_owned())),
            };
            answers.put((ticket, answer));
        });
    }

    /// Forgets an epoch whose event waits for room in the queue to the reactors, which have ended:
    /// the next process publishes it.
    fn finish(&mut self, backlog: &Backlog) {
        if !backlog.has_room() {
            self.unkept = None;
        }
    }

    /// Whether nothing is left to write to the state file.
    fn is_idle(&self) -> bool {
        self.unkept.is_none() && self.state_file.as_ref().is_none_or(StateFile::is_idle)
    }
}

/// Whether this node of a cluster is one that polls.
fn is_poller(env: &Env) -> bool {
    match env.config.zilliqa.poll {
        ZilliqaPoll::Leader => env.runtime.cluster.is_leader(),
        ZilliqaPoll::Each => true,
    }
}

fn targets(config: &ZilliqaNode) -> Vec<Option<Rc<Target>>> {
    let fields = fields(config);
    let system = Rc::default();
    let target = |url: &crate::config::Secret| {
        // Private addresses are allowed, because the operator configures the URL.
        Target::new(url.expose(), fields.clone(), true, &config.ca_file, &system).map(Rc::new)
    };
    config.urls.iter().map(target).collect()
}

/// The connections to one node, none of them open: one per fetch, one for polls and one for
/// contracts.
fn connections(config: &ZilliqaNode) -> Vec<Rc<Kept>> {
    (0..config.ahead + 2).map(|_| Rc::default()).collect()
}

/// Turns an epoch's document into the event to publish; invalid transactions are left out.
fn epoch(document: String) -> Result<Event, String> {
    let epoch = Epoch::read(document, Strictness::Skip).map_err(|why| why.to_string())?;
    for anomaly in epoch.skipped() {
        tracing::warn!(number = epoch.number(), %anomaly, "an invalid transaction is left out");
    }
    Ok(Event::message(zilliqa::ZilliqaMessage::Epoch(Arc::new(epoch)).into()))
}

async fn request(
    target: &Target,
    kept: &Kept,
    body: Bytes,
    max_bytes: usize,
) -> Result<Bytes, NodeFailure> {
    let silent = |error: io::Error| NodeFailure::Silent(error.to_string());
    let Some((response, connection)) = target.send(kept, &body, &[]).await.map_err(silent)? else {
        return Err(NodeFailure::Silent(
            "the node has only private addresses, which are not allowed".to_owned(),
        ));
    };
    let status = response.status();
    let bytes = client::finish(response, connection, kept, max_bytes).await;
    if !status.is_success() {
        return Err(NodeFailure::Silent(format!("status {status}")));
    }
    bytes.map_err(|error| match client::is_too_long(&error) {
        true => NodeFailure::TooLarge,
        false => silent(error),
    })
}

fn fields(config: &ZilliqaNode) -> HeaderMap {
    let mut fields = HeaderMap::new();
    for (name, value) in &config.headers {
        let name = HeaderName::from_bytes(name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value.expose())) {
            fields.insert(name, value);
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::COMMAND_QUEUE;
    use crate::reactor::{Peers, command_queue};

    #[test]
    fn zilliqa_epoch_that_waits_for_the_reactors_is_not_saved_at_the_end() {
        let config = ZilliqaNode { state_file: "never-written".into(), ..ZilliqaNode::default() };
        let new = || {
            let (shared, counters) = (Arc::default(), Arc::default());
            Follower::new(&config, shared, None, &Notifier::default(), counters, 0)
        };
        let (commands, _inbox) = command_queue(&Arc::new(Peers::new(1)), 0);
        let mut backlog = Backlog::new(commands);
        for (commands, waits) in [(COMMAND_QUEUE, false), (1, true)] {
            for _ in 0..commands {
                let (app, channel, event) = (zilliqa::APP, "c".into(), Event::default());
                backlog.put(reactor::ReactorCommand::Publish { app, channel, event });
            }
            let mut follower = new();
            follower.unkept = Some(7);
            assert!(!follower.is_idle());
            follower.finish(&backlog);
            assert_eq!((follower.unkept, follower.is_idle()), ((!waits).then_some(7), waits));
        }
    }
}
