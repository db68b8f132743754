//! What is live: the objects that are made from a configuration and that connections share.
//!
//! [`build`] makes them from the first configuration, [`Runtime::reload`] from each later one. A
//! configuration is plain data, so what has changed is found by comparing two of them: what has not
//! changed is the same object as before, with its connections, keys, session tickets and resolved
//! names. What has changed takes over the state that still fits, such as the health of upstream
//! servers.

mod addresses;
mod cluster;
mod departure;
mod guards;
mod routes;
#[cfg(feature = "models")]
#[cfg(test)]
mod tests;

pub use crate::upstream::UpstreamFailure;
pub use addresses::Addresses;
pub use cluster::{ClusterPhase, ClusterStatus, NodeStatus, PIECE_BYTES};
pub use departure::Departure;
pub use guards::{TokenGuard, TokenRefusal};
pub use routes::{LiveRoute, Upstreams};

use crate::config::{Config, Error};
use crate::jwt::{Guard, Remotes};
use crate::model::Registries;
use crate::stats::Counters;
use crate::tls::{Acceptor, IssuedCertificate, IssuedCertificates};
use crate::upstream::Names;
use std::sync::Arc;

/// The live objects of a configuration. All cores share them, without a lock around them.
#[derive(Debug, Default)]
pub struct Runtime {
    /// The number of reloads of the configuration since the start of the process.
    pub version: u32,
    /// The token and certificate guards, in the order of the configuration.
    pub guards: Arc<[Guard]>,
    /// The remote key sets of the guards; the same for all configurations of the process.
    pub remotes: Arc<Remotes>,
    /// The DNS names of upstreams; the same for all configurations of the process.
    pub names: Arc<Names>,
    /// The schema registries; the same for all configurations of the process.
    pub registries: Arc<Registries>,
    /// The certificates that were issued by ACME; the same for all configurations of the process.
    pub issued: Arc<IssuedCertificates>,
    /// Open connections by address; the same for all configurations of the process.
    pub addresses: Arc<Addresses>,
    /// The counters of each core, by the core's number.
    pub counters: Vec<Arc<Counters>>,
    /// The counters of the control thread; all 0 if there is none.
    pub control: Arc<Counters>,
    /// How the process is about to end; the same for all configurations of the process.
    pub departure: Arc<Departure>,
    /// Whether this node of a cluster has joined it; the same for all configurations of the
    /// process.
    pub cluster: Arc<ClusterStatus>,
    /// The TLS acceptors of the listeners that use TLS, in the order of the configuration.
    acceptors: Vec<Option<Acceptor>>,
    /// The live parts of the routes, in the order of the configuration.
    routes: Vec<LiveRoute>,
}

/// Makes the live objects of the first configuration of the process.
///
/// # Errors
/// The configuration was not checked, or not all files that it names have been read.
pub fn build(config: &Config) -> Result<Runtime, Error> {
    let nothing = Config { listeners: Vec::new(), routes: Vec::new(), ..Config::default() };
    let built = Runtime::default().reload(&nothing, config)?;
    let addresses = Arc::new(Addresses::new(config.limits.connections_per_address));
    let cluster = Arc::new(ClusterStatus::default());
    if config.cluster.is_some() {
        cluster.set(ClusterPhase::Joining);
    }
    Ok(Runtime { version: 0, addresses, cluster, ..built })
}

impl Runtime {
    /// Makes the live objects of the configuration `new`, which replaces `old`, the one that these
    /// objects were made from.
    ///
    /// # Errors
    /// As for [`build`]. These objects are then unchanged and stay in use.
    pub fn reload(&self, old: &Config, new: &Config) -> Result<Runtime, Error> {
        // All that can fail comes before the first change of shared state.
        let acceptors = self.next_acceptors(old, new)?;
        let rules = routes::next_rules(&self.routes, old, new)?;
        let upstreams = routes::next_upstreams(&self.routes, new, &self.names)?;
        let stored = stored(new)?;
        rules.enter(&self.registries);
        let domains = new.acme_sections().flat_map(|acme| &acme.domains);
        self.issued.enter(domains.map(String::as_str), stored);
        Ok(Runtime {
            version: self.version.wrapping_add(1),
            guards: guards::next(&self.guards, old, new, &self.remotes),
            remotes: self.remotes.clone(),
            names: self.names.clone(),
            registries: self.registries.clone(),
            issued: self.issued.clone(),
            addresses: self.addresses.clone(),
            counters: self.counters.clone(),
            control: self.control.clone(),
            departure: self.departure.clone(),
            cluster: self.cluster.clone(),
            acceptors,
            routes: routes::join(rules, upstreams, &self.names),
        })
    }

    /// The acceptors of the configuration `new`, which replaces `old`. A listener keeps its place
    /// over a reload, and its acceptor while its TLS settings and the content of their files are
    /// the same.
    fn next_acceptors(&self, old: &Config, new: &Config) -> Result<Vec<Option<Acceptor>>, Error> {
        let next = new.listeners.iter().enumerate().map(|(index, listener)| {
            let is_same = old.listeners.get(index).is_some_and(|it| it.tls == listener.tls);
            match self.acceptors.get(index).filter(|_| is_same) {
                Some(acceptor) => Ok(acceptor.clone()),
                None => {
                    let made = listener.tls.acceptor_with(&self.issued);
                    made.map_err(|error| error.under(&format!("listeners[{index}].tls")))
                }
            }
        });
        next.collect()
    }

    /// The TLS acceptor of the listener with this number, which is its position in the
    /// configuration at start; `None` if it does not use TLS.
    pub fn acceptor(&self, listener: u16) -> Option<&Acceptor> {
        self.acceptors.get(usize::from(listener))?.as_ref()
    }

    /// The live part of the route with this number, which is its position in the configuration.
    pub fn route(&self, number: usize) -> &LiveRoute {
        &self.routes[number]
    }
}

/// The certificates that were found in the stores of `config`.
fn stored(config: &Config) -> Result<Vec<IssuedCertificate>, Error> {
    let stored = config.stored.iter().map(|it| it.issued());
    stored.collect()
}
