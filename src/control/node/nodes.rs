//! The nodes: which of them can be asked, how far each of them is, and what was asked of it.

use crate::config::ZilliqaNode;
use crate::stats::Counters;
use std::collections::HashMap;
use std::sync::Arc;

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The latest epoch.
    Latest,
    /// Something of the epoch with this number.
    Part(u64),
    /// The code of accounts.
    Contracts,
}

/// See the module's documentation. The preferred node is the first.
pub(super) struct Nodes {
    list: Vec<Node>,
    asked: HashMap<u64, (usize, Purpose)>,
    tickets: u64,
    retry_ms: u64,
    retry_max_ms: u64,
    counters: Arc<Counters>,
}

#[derive(Clone, Debug, Default)]
struct Node {
    /// The last epoch that it has, as far as is known.
    latest: Option<u64>,
    rest_until_ms: u64,
    /// Since it was last of use.
    failures: u32,
    polled: bool,
    no_bodies: bool,
}

impl Nodes {
    pub(super) fn new(config: &ZilliqaNode, counters: Arc<Counters>) -> Nodes {
        Nodes {
            list: vec![Node::default(); config.urls.len()],
            asked: HashMap::new(),
            tickets: 0,
            retry_ms: config.retry_ms,
            retry_max_ms: config.retry_max_ms,
            counters,
        }
    }

    /// Other nodes, of which nothing is known; tickets of these are none of theirs.
    pub(super) fn reloaded(&self, config: &ZilliqaNode) -> Nodes {
        Nodes { tickets: self.tickets, ..Nodes::new(config, self.counters.clone()) }
    }

    /// Those that are not at rest, the preferred one first.
    pub(super) fn available(&self, now_ms: u64) -> Vec<usize> {
        let nodes = self.list.iter().enumerate();
        nodes.filter(|(_, node)| now_ms >= node.rest_until_ms).map(|(at, _)| at).collect()
    }

    /// The first that can be asked for this epoch.
    pub(super) fn with(&self, number: u64, now_ms: u64) -> Option<usize> {
        let has = |node: &usize| self.list[*node].latest >= Some(number);
        self.available(now_ms).into_iter().find(has)
    }

    /// Notes a request; gives its ticket.
    pub(super) fn ask(&mut self, node: usize, purpose: Purpose) -> u64 {
        self.counters.node_requests.add(1);
        self.list[node].polled |= purpose == Purpose::Latest;
        self.tickets += 1;
        self.asked.insert(self.tickets, (node, purpose));
        self.tickets
    }

    /// What the ticket was for; nothing if it is none.
    pub(super) fn settle(&mut self, ticket: u64) -> Option<(usize, Purpose)> {
        let (node, purpose) = self.asked.remove(&ticket)?;
        self.list[node].polled &= purpose != Purpose::Latest;
        Some((node, purpose))
    }

    /// Whether the node is being asked for its latest epoch.
    pub(super) fn is_polled(&self, node: usize) -> bool {
        self.list[node].polled
    }

    /// Whether any is.
    pub(super) fn any_polled(&self) -> bool {
        self.list.iter().any(|node| node.polled)
    }

    /// How far the node is.
    pub(super) fn latest(&self, node: usize) -> Option<u64> {
        self.list[node].latest
    }

    /// How far the furthest is.
    pub(super) fn top(&self) -> Option<u64> {
        self.list.iter().filter_map(|node| node.latest).max()
    }

    /// Notes how far a node is.
    pub(super) fn is_at(&mut self, node: usize, number: u64) {
        self.list[node].latest = Some(number);
    }

    /// The node does not have this epoch after all.
    pub(super) fn lacks(&mut self, node: usize, number: u64) {
        let latest = &mut self.list[node].latest;
        *latest = (*latest).min(number.checked_sub(1));
    }

    /// Whether the node gives all transactions of a block at once, as far as is known.
    pub(super) fn offers_bodies(&self, node: usize) -> bool {
        !self.list[node].no_bodies
    }

    /// It does not.
    pub(super) fn offers_no_bodies(&mut self, node: usize) {
        self.list[node].no_bodies = true;
    }

    /// Leaves a node alone for a while, longer each time.
    pub(super) fn rest(&mut self, node: usize, why: &str, now_ms: u64) {
        let Node { latest, rest_until_ms, failures, .. } = &mut self.list[node];
        if now_ms < *rest_until_ms {
            // Another request of the same moment has failed before.
            return;
        }
        if *failures == 0 {
            tracing::warn!(node, why, "a node is not of use");
        } else {
            tracing::debug!(node, why, failures, "a node is still not of use");
        }
        let rest_ms = self.retry_ms.saturating_mul(1 << (*failures).min(20));
        *rest_until_ms = now_ms + rest_ms.min(self.retry_max_ms);
        *failures += 1;
        *latest = None;
    }

    /// The node was of use.
    pub(super) fn recovered(&mut self, node: usize) {
        let failures = std::mem::take(&mut self.list[node].failures);
        if failures > 0 {
            tracing::info!(node, failures, "a node is of use again");
        }
    }
}
