//! The state of the nodes: which of them can be used, the latest epoch of each, and the requests in
//! flight.

use crate::config::ZilliqaNode;
use crate::stats::Counters;
use crate::time::Backoff;
use std::collections::HashMap;
use std::sync::Arc;

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The latest epoch.
    Latest,
    /// A part of the epoch with this number.
    Part(u64),
    /// The code of accounts.
    Contracts,
}

/// The configured nodes, the preferred one first; see the module's documentation.
pub(super) struct Nodes {
    list: Vec<Node>,
    pending: HashMap<u64, (usize, Purpose)>,
    tickets: u64,
    retry_ms: u64,
    retry_max_ms: u64,
    counters: Arc<Counters>,
}

#[derive(Clone, Debug, Default)]
struct Node {
    /// The node's latest epoch, as far as known.
    latest: Option<u64>,
    rest_until_ms: u64,
    /// Failures since the node was last usable.
    backoff: Backoff,
    polled: bool,
    no_bodies: bool,
}

impl Nodes {
    pub(super) fn new(config: &ZilliqaNode, counters: Arc<Counters>) -> Nodes {
        Nodes {
            list: vec![Node::default(); config.urls.len()],
            pending: HashMap::new(),
            tickets: 0,
            retry_ms: config.retry_ms,
            retry_max_ms: config.retry_max_ms,
            counters,
        }
    }

    /// The state for a new configuration, with nothing known about its nodes. Tickets of the old
    /// nodes are unknown to it, and no ticket is used twice.
    pub(super) fn reloaded(&self, config: &ZilliqaNode) -> Nodes {
        Nodes { tickets: self.tickets, ..Nodes::new(config, self.counters.clone()) }
    }

    /// The nodes that are not backing off after a failure, the preferred one first.
    pub(super) fn available(&self, now_ms: u64) -> Vec<usize> {
        let nodes = self.list.iter().enumerate();
        nodes.filter(|(_, node)| now_ms >= node.rest_until_ms).map(|(at, _)| at).collect()
    }

    /// The first available node that has this epoch.
    pub(super) fn with(&self, number: u64, now_ms: u64) -> Option<usize> {
        let has = |node: &usize| self.list[*node].latest >= Some(number);
        self.available(now_ms).into_iter().find(has)
    }

    /// Records a request to a node. Returns its ticket.
    pub(super) fn begin_request(&mut self, node: usize, purpose: Purpose) -> u64 {
        self.counters.node_requests.add(1);
        self.list[node].polled |= purpose == Purpose::Latest;
        self.tickets += 1;
        self.pending.insert(self.tickets, (node, purpose));
        self.tickets
    }

    /// Ends the request with this ticket. Returns its node and purpose; `None` if the ticket is
    /// unknown.
    pub(super) fn settle(&mut self, ticket: u64) -> Option<(usize, Purpose)> {
        let (node, purpose) = self.pending.remove(&ticket)?;
        self.list[node].polled &= purpose != Purpose::Latest;
        Some((node, purpose))
    }

    /// Whether a request for the node's latest epoch is in flight.
    pub(super) fn is_polled(&self, node: usize) -> bool {
        self.list[node].polled
    }

    /// Whether a request for the latest epoch of any node is in flight.
    pub(super) fn any_polled(&self) -> bool {
        self.list.iter().any(|node| node.polled)
    }

    /// The node's latest epoch, as far as known.
    pub(super) fn latest(&self, node: usize) -> Option<u64> {
        self.list[node].latest
    }

    /// The latest epoch of all nodes.
    pub(super) fn top(&self) -> Option<u64> {
        self.list.iter().filter_map(|node| node.latest).max()
    }

    /// Records the node's latest epoch.
    pub(super) fn is_at(&mut self, node: usize, number: u64) {
        self.list[node].latest = Some(number);
    }

    /// Records that the node does not have this epoch, contrary to what was known.
    pub(super) fn lacks(&mut self, node: usize, number: u64) {
        let latest = &mut self.list[node].latest;
        *latest = (*latest).min(number.checked_sub(1));
    }

    /// Whether the node returns all transactions of a block in one response; true until the node
    /// has refused that.
    pub(super) fn offers_bodies(&self, node: usize) -> bool {
        !self.list[node].no_bodies
    }

    /// Records that the node does not return all transactions of a block in one response.
    pub(super) fn offers_no_bodies(&mut self, node: usize) {
        self.list[node].no_bodies = true;
    }

    /// Stops using a node for a while. The time doubles with each failure in a row, from `retry_ms`
    /// to `retry_max_ms`.
    pub(super) fn rest(&mut self, node: usize, why: &str, now_ms: u64) {
        let Node { latest, rest_until_ms, backoff, .. } = &mut self.list[node];
        if now_ms < *rest_until_ms {
            // Another request has failed before, and the node is backing off already.
            return;
        }
        match backoff.failures() {
            0 => tracing::warn!(node, why, "a node is unusable"),
            failures => tracing::debug!(node, why, failures, "a node is still unusable"),
        }
        *rest_until_ms = now_ms + backoff.fail(self.retry_ms, self.retry_max_ms);
        *latest = None;
    }

    /// Records that the node is usable: resets its failure count.
    pub(super) fn recovered(&mut self, node: usize) {
        let failures = self.list[node].backoff.succeed();
        if failures > 0 {
            tracing::info!(node, failures, "a node is usable again");
        }
    }
}
