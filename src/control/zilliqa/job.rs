//! Runs the poller's actions: requests to nodes, publishes to the reactors, and writes of the state
//! file.

use super::state::{self, StateFile};
use super::{NodeFailure, Poller, PollerAction, Question};
use crate::config::ZilliqaNode;
use crate::control::backlog::{Backlog, RETRY_MS};
use crate::control::client::{self, Kept, Target};
use crate::control::results::Results;
use crate::dialect::zilliqa::epoch::{Epoch, Strictness};
use crate::dialect::zilliqa::{self, Shared};
use crate::hub::Event;
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

/// The poller with its connections, state file and clients' questions.
pub(crate) struct Follower {
    poller: Poller,
    /// The state shared with the clients' connections: the last epoch and their questions.
    shared: Arc<Shared>,
    channel: Arc<str>,
    targets: Vec<Option<Rc<Target>>>,
    /// Idle HTTP connections, by node and lane.
    kept: Vec<Vec<Rc<Kept>>>,
    answers: Results<NodeReply>,
    state_file: Option<StateFile>,
    /// An epoch number to write to the state file when its event is in the queue to the reactors.
    unkept: Option<u64>,
    /// Whether the last epoch from the nodes was skipped, because a posted one was not below it.
    behind: bool,
    timeout: Duration,
    max_bytes: usize,
    notifier: Notifier,
    counters: Arc<Counters>,
}

impl Follower {
    /// Reads the state file and creates the poller.
    ///
    /// # Errors
    /// The state file cannot be read or does not hold an epoch number.
    pub(crate) async fn new(
        config: &ZilliqaNode,
        shared: Arc<Shared>,
        notifier: &Notifier,
        counters: Arc<Counters>,
        now_ms: u64,
    ) -> io::Result<Follower> {
        let path = Path::new(&config.state_file);
        let (saved, state_file) = match config.state_file.as_str() {
            "" => (None, None),
            _ => (state::read(path).await?, Some(StateFile::new(path.to_owned()))),
        };
        if let Some(saved) = saved {
            // An epoch up to this one is not accepted from a POST request either.
            shared.note(saved);
        }
        let targets = targets(config);
        Ok(Follower {
            kept: targets.iter().map(|_| lanes(config)).collect(),
            targets,
            answers: Results::new(notifier),
            state_file,
            unkept: None,
            behind: false,
            timeout: Duration::from_millis(config.timeout_ms),
            max_bytes: config.answer_bytes,
            notifier: notifier.clone(),
            poller: Poller::new(config.clone(), epoch, saved, counters.clone(), now_ms),
            shared,
            channel: zilliqa::CHANNEL.into(),
            counters,
        })
    }

    /// Applies the node settings of a reloaded configuration, if they changed, and continues after
    /// the last epoch. The new settings may have no nodes: questions about contracts are still
    /// answered.
    pub(crate) fn renew(&mut self, config: &ZilliqaNode, now_ms: u64) {
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
        self.kept = self.targets.iter().map(|_| lanes(config)).collect();
        self.timeout = Duration::from_millis(config.timeout_ms);
        self.max_bytes = config.answer_bytes;
        self.poller.renew(config.clone(), now_ms);
    }

    /// Runs one turn: takes responses, runs the poller's actions and writes the state file. When
    /// `draining`, no new action is started.
    pub(crate) fn turn(&mut self, lane: &mut Backlog, draining: bool, now_ms: u64) {
        for (ticket, answer) in self.answers.take() {
            self.poller.received(ticket, answer, now_ms);
        }
        if !draining {
            self.order(lane, now_ms);
        }
        if lane.has_room()
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

    fn order(&mut self, lane: &mut Backlog, now_ms: u64) {
        if self.poller.takes_questions() {
            for question in self.shared.questions() {
                self.question(question, now_ms);
            }
        }
        loop {
            let wants_logs = self.shared.wants_logs();
            let actions = self.poller.actions(lane.has_room(), wants_logs, now_ms);
            if actions.is_empty() {
                return;
            }
            for order in actions {
                self.carry_out(order, lane);
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

    fn carry_out(&mut self, order: PollerAction, lane: &mut Backlog) {
        match order {
            PollerAction::Request { ticket, node, lane, body } => {
                self.request(ticket, node, lane, body)
            }
            PollerAction::Publish { number, event } => {
                // Skip an epoch that was posted meanwhile.
                if !self.shared.note(number) {
                    return self.pass_over(number);
                }
                if std::mem::take(&mut self.behind) {
                    tracing::info!(number, "the nodes are ahead of the posted epochs again");
                }
                let (app, channel) = (zilliqa::APP, self.channel.clone());
                self.counters.epochs.add(1);
                self.counters.last_epoch.set(number);
                lane.put(reactor::ReactorCommand::Publish { app, channel, event });
            }
            PollerAction::SaveState(number) => self.unkept = Some(number),
            PollerAction::Message { to, what } => {
                lane.put(reactor::ReactorCommand::Message { to, what })
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

    fn request(&self, ticket: u64, node: usize, lane: usize, body: Bytes) {
        let target = self.targets[node].clone();
        let kept = self.kept[node][lane].clone();
        let answers = self.answers.clone();
        let (timeout, max_bytes) = (self.timeout, self.max_bytes);
        tokio_uring::spawn(async move {
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

    /// When to call [`Follower::turn`] again if nothing else happens, in milliseconds.
    pub(crate) fn deadline_ms(&self, lane: &Backlog, now_ms: u64) -> u64 {
        match lane.has_room() {
            true => self.poller.deadline_ms(now_ms),
            false => now_ms + RETRY_MS,
        }
    }

    /// Whether nothing is left to write to the state file.
    pub(crate) fn is_idle(&self) -> bool {
        self.unkept.is_none() && self.state_file.as_ref().is_none_or(StateFile::is_idle)
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
fn lanes(config: &ZilliqaNode) -> Vec<Rc<Kept>> {
    (0..config.ahead + 2).map(|_| Rc::default()).collect()
}

/// Turns an epoch's document into the event to publish; invalid transactions are left out.
fn epoch(document: String) -> Result<Event, String> {
    let epoch = Epoch::read(document, Strictness::Skip).map_err(|why| why.to_string())?;
    for anomaly in epoch.skipped() {
        tracing::warn!(number = epoch.number(), %anomaly, "an invalid transaction is left out");
    }
    Ok(Arc::new(epoch).event())
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
