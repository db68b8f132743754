//! Polls Zilliqa nodes for new epochs: decides what to request from which node, and when.
//!
//! [`Poller`] does no I/O; responses and time are arguments. It fetches a few blocks at a time and
//! publishes them one by one in the order of their numbers. No block is left out or published
//! twice, even if a node lags behind the others or sends wrong data.

mod contracts;
mod fetch;
mod follow;
pub(super) mod job;
mod nodes;
mod rpc;
mod state;

use crate::config::ZilliqaNode;
use crate::crypto::hex;
use crate::dialect::{DialectMessage, Event};
use crate::hub::ConnId;
use crate::stats::Counters;
use contracts::{ContractAddress, ContractAnswer, ContractLookup};
use fetch::{EpochFetch, FetchProgress};
use hyper::body::Bytes;
use nodes::{Nodes, Purpose};
use rpc::{InvalidReply, RpcReply};
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

/// Turns the JSON document of an epoch into an event. The error is the reason why the document is
/// invalid.
type Make = fn(String) -> Result<Event, String>;

/// What the poller asks its caller to do.
enum PollerAction {
    /// Send `body` to a node over its connection with this number. The response belongs to
    /// `ticket`.
    Request { ticket: u64, node: usize, connection: usize, body: Bytes },
    /// Publish the event of this epoch.
    Publish { number: u64, event: Event },
    /// Save this epoch's number in the state file.
    SaveState(u64),
    /// Send a connection the answer to its question.
    Message { to: ConnId, what: DialectMessage },
}

/// Builds the message for a connection from the set of contracts among its addresses.
type MakeMessage = Box<dyn FnOnce(&HashSet<ContractAddress>) -> DialectMessage>;

/// A client's question which of its addresses are contracts.
struct Question {
    from: ConnId,
    answer: MakeMessage,
}

/// Why a request to a node has no usable response.
#[derive(Clone, Debug, PartialEq, Eq)]
enum NodeFailure {
    /// The node was not reached, did not respond in time, or responded with an error status.
    Silent(String),
    /// The response was larger than `answer_bytes`.
    TooLarge,
}

/// Whether a poller polls, and whom it publishes for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PollRole {
    /// The process is alone: an epoch that it publishes has taken effect.
    Alone,
    /// This node of a cluster polls.
    Polls,
    /// Other nodes poll.
    Rests,
}

/// The poller of all nodes; see the module's documentation.
struct Poller {
    config: ZilliqaNode,
    make: Make,
    nodes: Nodes,
    /// The last published epoch; `None` until the poller knows where to begin.
    last: Option<u64>,
    /// The last epoch in the state file of the process before this one.
    saved: Option<u64>,
    role: PollRole,
    /// In a cluster, an epoch that is published and that the log has not had yet.
    awaited: Option<u64>,
    /// Fetches of the epochs after `last`, in order, without a gap.
    fetches: VecDeque<EpochFetch>,
    contracts: ContractLookup<Question>,
    next_poll_ms: u64,
    /// When a new epoch was last seen or published, in milliseconds.
    progress_ms: u64,
    /// No epoch is published before this time, in milliseconds.
    hold_until_ms: u64,
    counters: Arc<Counters>,
}

impl Poller {
    fn new(
        config: ZilliqaNode,
        make: Make,
        saved: Option<u64>,
        counters: Arc<Counters>,
        now_ms: u64,
    ) -> Poller {
        Poller {
            nodes: Nodes::new(&config, counters.clone()),
            contracts: ContractLookup::new(config.contracts, config.timeout_ms),
            config,
            make,
            last: None,
            saved,
            role: PollRole::Alone,
            awaited: None,
            fetches: VecDeque::new(),
            next_poll_ms: now_ms,
            progress_ms: now_ms,
            hold_until_ms: 0,
            counters,
        }
    }

    fn config(&self) -> &ZilliqaNode {
        &self.config
    }

    /// Applies a new configuration and continues after the last published epoch. Requests to the
    /// nodes of the old configuration are made again.
    fn renew(&mut self, config: ZilliqaNode, now_ms: u64) {
        self.nodes = self.nodes.reloaded(&config);
        self.fetches.clear();
        self.contracts.renew(config.contracts, config.timeout_ms);
        self.config = config;
        (self.next_poll_ms, self.progress_ms) = (now_ms, now_ms);
    }

    /// All actions that are possible now. Epochs are published and questions answered only if there
    /// is `room` in the command queue; `wants_logs` says whether any client needs more than the
    /// block itself.
    fn actions(&mut self, room: bool, wants_logs: bool, now_ms: u64) -> Vec<PollerAction> {
        let mut actions = Vec::new();
        if self.polls() {
            if now_ms >= self.next_poll_ms {
                self.next_poll_ms = now_ms + self.config.interval_ms;
                self.poll(now_ms, &mut actions);
            }
            self.begin(now_ms, &mut actions);
            if room {
                self.release(wants_logs, now_ms, &mut actions);
            }
            self.fill();
            self.fetch(wants_logs, now_ms, &mut actions);
        }
        if room {
            self.answer(now_ms, &mut actions);
        }
        self.inquire(now_ms, &mut actions);
        actions
    }

    /// Requests the latest epoch from the preferred node, and from all others if that one may lag.
    fn poll(&mut self, now_ms: u64, actions: &mut Vec<PollerAction>) {
        let stale = now_ms.saturating_sub(self.progress_ms) >= self.config.stale_ms;
        let top = self.nodes.top().max(self.last);
        for (at, node) in self.nodes.available(now_ms).into_iter().enumerate() {
            let leads = at == 0;
            let lead_may_be_behind = leads && (stale || self.nodes.latest(node) < top);
            if !self.nodes.is_polled(node) {
                let connection = self.config.ahead;
                let body = rpc::call(0, "GetLatestTxBlock", &[]);
                let ticket = self.nodes.begin_request(node, Purpose::Latest);
                actions.push(PollerAction::Request { ticket, node, connection, body: body.into() });
            }
            if leads && !lead_may_be_behind && self.last.is_some() {
                return;
            }
        }
    }

    /// Decides which epoch to begin after, as soon as a node has responded and no other request for
    /// the latest epoch is in flight.
    fn begin(&mut self, now_ms: u64, actions: &mut Vec<PollerAction>) {
        let (None, Some(top)) = (self.last, self.nodes.top()) else { return };
        if self.nodes.any_polled() {
            return;
        }
        let last = match self.saved {
            None => {
                actions.push(PollerAction::SaveState(top));
                self.await_log(top);
                top
            }
            Some(saved) if top <= saved => {
                if top < saved {
                    tracing::warn!(top, saved, "the nodes are behind the last published epoch");
                }
                saved
            }
            Some(saved) => {
                let skipped = (top - saved).saturating_sub(self.config.replay);
                self.counters.epochs_skipped.add(skipped);
                if skipped > 0 {
                    tracing::warn!(
                        skipped,
                        "missed epochs are skipped, because there are more than zilliqa.node.replay"
                    );
                }
                // The clients of a node that begins to poll are connected.
                if skipped < top - saved && self.role == PollRole::Alone {
                    self.hold_until_ms = now_ms + self.config.replay_wait_ms;
                }
                saved + skipped
            }
        };
        tracing::info!(last, top, "epochs are fetched from the nodes");
        self.last = Some(last);
        self.counters.last_epoch.set(last);
        self.progress_ms = now_ms;
    }

    /// Publishes the next epoch if its fetch is complete.
    fn release(&mut self, wants_logs: bool, now_ms: u64, actions: &mut Vec<PollerAction>) {
        if now_ms < self.hold_until_ms || self.awaited.is_some() {
            return;
        }
        // One per call, because there may be no room for a second one.
        let Some(first) = self.fetches.front_mut() else { return };
        let Some(node) = first.whole(wants_logs) else { return };
        let number = first.number();
        match (self.make)(first.document()) {
            Ok(event) => {
                self.fetches.pop_front();
                self.last = Some(number);
                self.await_log(number);
                self.progress_ms = now_ms;
                self.nodes.recovered(node);
                actions.push(PollerAction::Publish { number, event });
                actions.push(PollerAction::SaveState(number));
            }
            Err(why) => {
                first.restart();
                self.invalid_reply(node, &why, now_ms);
            }
        }
    }

    /// Starts fetches of further epochs that the nodes have, up to `ahead` at a time.
    fn fill(&mut self) {
        let (Some(last), Some(top)) = (self.last, self.nodes.top()) else { return };
        while self.fetches.len() < self.config.ahead {
            let next = last.checked_add(1 + self.fetches.len() as u64);
            let Some(next) = next.filter(|next| *next <= top) else { break };
            self.fetches.push_back(EpochFetch::new(next, self.config.answer_bytes));
        }
    }

    /// Requests the next part of every epoch that has no request in flight.
    fn fetch(&mut self, wants_logs: bool, now_ms: u64, actions: &mut Vec<PollerAction>) {
        for fetch in &mut self.fetches {
            if fetch.is_asked() || fetch.whole(wants_logs).is_some() {
                continue;
            }
            let number = fetch.number();
            let Some(node) = self.nodes.with(number, now_ms) else { continue };
            let body = fetch.next_request(node, self.nodes.offers_bodies(node));
            let connection = (number % self.config.ahead as u64) as usize;
            let ticket = self.nodes.begin_request(node, Purpose::Part(number));
            actions.push(PollerAction::Request { ticket, node, connection, body: body.into() });
        }
    }

    /// Whether there is room for another question.
    fn takes_questions(&self) -> bool {
        self.contracts.has_room()
    }

    /// Takes a question about the accounts in `about`.
    fn question(&mut self, question: Question, about: &[ContractAddress], now_ms: u64) {
        self.contracts.take(question, about, self.last.unwrap_or(0), now_ms);
    }

    /// Requests the code of accounts that pending questions are about.
    fn inquire(&mut self, now_ms: u64, actions: &mut Vec<PollerAction>) {
        let Some(node) = self.nodes.available(now_ms).first().copied() else { return };
        let Some(batch) = self.contracts.next_batch(now_ms) else { return };
        let call = |(id, address): (usize, &ContractAddress)| {
            let digits: [u8; 40] = hex(address);
            rpc::call(id, "GetSmartContractCode", &[&String::from_utf8_lossy(&digits)])
        };
        let calls: Vec<String> = batch.iter().enumerate().map(call).collect();
        let body = format!("[{}]", calls.join(","));
        let connection = self.config.ahead + 1;
        let ticket = self.nodes.begin_request(node, Purpose::Contracts);
        actions.push(PollerAction::Request { ticket, node, connection, body: body.into() });
    }

    /// Answers the questions that are complete or have timed out.
    fn answer(&mut self, now_ms: u64, actions: &mut Vec<PollerAction>) {
        while let Some(ContractAnswer { question, contracts, unknown }) =
            self.contracts.answer(now_ms)
        {
            self.counters.contracts_unknown.add(unknown);
            let Question { from, answer } = question;
            actions.push(PollerAction::Message { to: from, what: answer(&contracts) });
        }
    }

    /// Takes the response to a request for the code of accounts. A failure here does not count
    /// against the node, because a client could cause it.
    fn codes(&mut self, answer: Result<Bytes, NodeFailure>, now_ms: u64) {
        let count = self.contracts.in_flight();
        let replies = answer.as_ref().ok().map(|bytes| rpc::answers(bytes, count));
        match replies {
            Some(Ok(replies)) => {
                let answers: Vec<bool> =
                    replies.iter().map(|reply| rpc::is_contract(reply).unwrap_or(false)).collect();
                self.contracts.received(&answers, self.last.unwrap_or(0));
            }
            Some(Err(_)) => {
                self.counters.node_nonsense.add(1);
                self.contracts.unheard(now_ms);
            }
            None => {
                self.counters.node_failures.add(1);
                self.contracts.unheard(now_ms);
            }
        }
    }

    /// Takes the response to the request with this ticket.
    fn received(&mut self, ticket: u64, answer: Result<Bytes, NodeFailure>, now_ms: u64) {
        let Some((node, purpose)) = self.nodes.settle(ticket) else { return };
        if purpose == Purpose::Contracts {
            return self.codes(answer, now_ms);
        }
        let received = match (&answer, purpose) {
            (Ok(bytes), Purpose::Latest) => self.latest(node, bytes, now_ms),
            (Ok(bytes), Purpose::Part(number)) => self.part(node, number, bytes),
            (_, Purpose::Contracts) => Ok(()),
            (Err(failure), Purpose::Latest | Purpose::Part(_)) => {
                Err(NodeError::Failure(failure.clone()))
            }
        };
        if let (Err(_), Purpose::Part(number)) = (&received, purpose)
            && let Some(fetch) = self.fetches.iter_mut().find(|fetch| fetch.number() == number)
        {
            fetch.unanswered();
        }
        match received {
            Ok(()) => {}
            Err(NodeError::NotYet(number)) => self.nodes.lacks(node, number),
            Err(NodeError::Failure(NodeFailure::Silent(why))) => self.failed(node, &why, now_ms),
            Err(NodeError::Failure(NodeFailure::TooLarge)) => {
                self.invalid_reply(node, "the response is larger than answer_bytes", now_ms);
            }
            Err(NodeError::InvalidReply(why)) => self.invalid_reply(node, why, now_ms),
            Err(NodeError::Error(code, message)) => {
                self.failed(node, &format!("error {code}: {message}"), now_ms);
            }
        }
    }

    fn latest(&mut self, node: usize, bytes: &[u8], now_ms: u64) -> Result<(), NodeError> {
        match rpc::answer(bytes, 0)? {
            RpcReply::Error(code, message) => Err(NodeError::Error(code, message.into_owned())),
            RpcReply::Result(raw) => {
                let block =
                    rpc::block(raw)?.ok_or(InvalidReply("the response has no latest block"))?;
                let known = self.nodes.top().max(self.last);
                self.nodes.is_at(node, block.number);
                if Some(block.number) > known {
                    self.progress_ms = now_ms;
                }
                if self.last.is_some_and(|last| block.number <= last) {
                    // The node works but has no new epoch.
                    self.nodes.recovered(node);
                }
                Ok(())
            }
        }
    }

    fn part(&mut self, node: usize, number: u64, bytes: &[u8]) -> Result<(), NodeError> {
        let fetch = self.fetches.iter_mut().find(|fetch| fetch.number() == number);
        // The response to a fetch that was discarded meanwhile is ignored.
        let Some(fetch) = fetch else { return Ok(()) };
        match fetch.answered(bytes)? {
            FetchProgress::Further { missing } => {
                self.counters.bodies_missing.add(missing);
                if missing > 0 {
                    tracing::warn!(
                        number,
                        missing,
                        "the nodes do not return transactions of an epoch"
                    );
                }
                Ok(())
            }
            FetchProgress::NotYet => Err(NodeError::NotYet(number)),
            FetchProgress::NotOffered => {
                self.nodes.offers_no_bodies(node);
                Ok(())
            }
            FetchProgress::Error(code, message) => Err(NodeError::Error(code, message)),
        }
    }

    fn failed(&mut self, node: usize, why: &str, now_ms: u64) {
        self.counters.node_failures.add(1);
        self.leave(node, why, now_ms);
    }

    fn invalid_reply(&mut self, node: usize, why: &str, now_ms: u64) {
        self.counters.node_nonsense.add(1);
        self.leave(node, why, now_ms);
    }

    fn leave(&mut self, node: usize, why: &str, now_ms: u64) {
        self.nodes.rest(node, why, now_ms);
        if !self.nodes.available(now_ms).is_empty() {
            // Poll the next node at once.
            self.next_poll_ms = now_ms;
        }
    }

    /// When to call [`Poller::actions`] again if nothing else happens, in milliseconds.
    fn deadline_ms(&self, now_ms: u64) -> u64 {
        let held = Some(self.hold_until_ms).filter(|until_ms| *until_ms > now_ms);
        let asked_ms = self.contracts.deadline_ms(now_ms);
        if !self.polls() {
            return asked_ms;
        }
        self.next_poll_ms.min(held.unwrap_or(u64::MAX)).min(asked_ms)
    }
}

/// Why a response was not usable.
#[derive(Debug)]
enum NodeError {
    NotYet(u64),
    Failure(NodeFailure),
    InvalidReply(&'static str),
    Error(i64, String),
}

impl From<InvalidReply> for NodeError {
    fn from(invalid_reply: InvalidReply) -> NodeError {
        NodeError::InvalidReply(invalid_reply.0)
    }
}

#[cfg(test)]
mod tests;
