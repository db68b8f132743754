//! The rules and token leases that apply to one WebSocket.

use super::parked::ParkedMessage;
use crate::jwt::TokenLeases;
use crate::model::{ModelRules, RuleSet};
use crate::session::Context;
use crate::time::Deadline;
use std::sync::Arc;

/// The rules and token leases of one connection.
pub(super) struct ConnectionPolicy {
    /// The rules that messages must satisfy, if the route has some.
    pub(super) rules: Option<RuleSet>,
    /// The leases of the connection's tokens, if it has some.
    pub(super) leases: Option<Box<TokenLeases>>,
    /// A message that is parked while its schema is fetched.
    pub(super) parked: Option<Box<ParkedMessage>>,
}

impl ConnectionPolicy {
    /// A policy of these rules and leases; `None` if there are neither.
    pub(super) fn new(
        rules: Option<Arc<ModelRules>>,
        leases: Option<Box<TokenLeases>>,
    ) -> Option<Box<ConnectionPolicy>> {
        let any = rules.is_some() || leases.is_some();
        any.then(|| {
            Box::new(ConnectionPolicy { rules: rules.map(RuleSet::new), leases, parked: None })
        })
    }

    /// Whether reading is paused because the parked message still waits for its schema.
    pub(super) fn is_held(&self, cx: &Context<'_>) -> bool {
        match (&self.rules, &self.parked) {
            (Some(rules), Some(parked)) => parked.waits(rules, cx),
            _ => false,
        }
    }

    /// When a token expires or has to be challenged.
    pub(super) fn deadline(&self) -> Deadline {
        self.leases.as_ref().map_or(Deadline::NEVER, |leases| leases.deadline())
    }
}
