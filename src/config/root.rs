//! The whole configuration: all sections, and what they need of each other.
//!
//! A section knows no other section, except the ones that are parts of it. What the check of a
//! section needs of others is an argument, which this file supplies.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use super::acme::{self, Acme, StoredCertificate};
use super::app::{self, AppConfig};
use super::broadcastt::BroadcasttConfig;
use super::cluster::{self, Cluster, ClusterContext};
use super::compression::CompressionLimits;
use super::console::{self, Console};
use super::guard::{self, GuardConfig};
use super::limits::{self, Limits};
use super::link::{self, ChannelLink, LinkContext};
use super::listener::{self, Listener};
use super::log::{self, Log};
use super::metrics::{self, Metrics};
use super::process::Process;
use super::pusher::{self, PusherConfig};
use super::route::{self, EndpointKind, Route, RouteContext};
use super::text::Unique;
use super::timeouts::Timeouts;
use super::zenith::{self, Zenith};
use super::zilliqa::{self, Zilliqa};
use super::{catalog, webhook, zilliqa_node};
use crate::limits::MAX_CORES;
use crate::model::spec::Catalog;
use crate::settings::error::{Error, Problem};
use crate::settings::range::DAY_S;
use crate::settings::section::{Section, section, words};
use crate::tls::Mutual;

words!(SlowConsumer, IoDriver);

section! {
    /// A whole configuration, checked and ready for use. Its default has every key at its default;
    /// it has no application, so it does not pass the check by itself.
    pub struct Config {
        /// Number of reactor threads, one per core. 0 is one for each core that the process may
        /// use, or fewer if the control group has a quota: the quota rounded down, at least one.
        pub threads: usize = 0, count(0..=MAX_CORES as u64);
        /// Whether each reactor thread is pinned to one core. With a quota of less than all cores
        /// threads are not pinned, so that the kernel can move them to idle cores.
        pub pin: bool = true;
        /// How the reactors talk to the kernel: "io_uring"; "epoll", which needs more processor
        /// time, and an open file for each connection; "auto" is io_uring where the kernel and its
        /// profile allow it, else epoll, as in containers with a default seccomp profile. `polycast
        /// doctor` says which one that is. Changes take effect with a restart.
        pub io: IoDriver = IoDriver::default();
        /// How long a stopping server lets connections finish.
        pub drain_s: u64 = 10, seconds(0..=DAY_S);
        /// How long a stopping server still accepts connections while its readiness page already
        /// answers 503, so that balancers stop sending clients before the drain.
        pub lame_duck_s: u64 = 0, seconds(0..=DAY_S);
        /// How long the new binary of an upgrade (SIGUSR2, or `polycast upgrade`) may take to be
        /// ready. Then it is ended, and the running server goes on.
        pub upgrade_timeout_s: u64 = 60, seconds(1..=DAY_S);
        /// The absolute path of a file with the number of the server's process; empty is none. Its
        /// folder must be writable for `process.user`. `polycast upgrade` finds the server by it.
        /// Changes take effect with a restart or an upgrade.
        pub pid_file: String = String::new();
        /// What happens to a connection whose write queue is full because its client reads too
        /// slowly: "close" closes it, so that the client can reconnect and knows that it missed
        /// messages; "drop" drops the messages that do not fit. A subscriber that gets positions of
        /// a history is closed in any case, because it would resume after a dropped message.
        pub slow_consumer: SlowConsumer = SlowConsumer::default();
        /// Logging to standard error.
        pub log: Log = Log::default();
        /// The addresses to listen on; at least one.
        pub listeners: Vec<Listener> = vec![Listener::default()];
        /// The privileges that the process drops once it listens.
        pub process: Process = Process::default();
        /// Limits of the whole server.
        pub limits: Limits = Limits::default();
        /// Timeouts after which a connection is closed.
        pub timeouts: Timeouts = Timeouts::default();
        /// Limits for the compression of WebSocket messages. A route enables compression.
        pub compression: CompressionLimits = CompressionLimits::default();
        /// Settings of the Pusher dialect.
        pub pusher: PusherConfig = PusherConfig::default();
        /// Settings of the Zilliqa dialect.
        pub zilliqa: Zilliqa = Zilliqa::default();
        /// Settings of the Broadcastt dialect.
        pub broadcastt: BroadcasttConfig = BroadcasttConfig::default();
        /// Settings of the Zenith dialect, if it is to be served.
        pub zenith: Option<Box<Zenith>> = None;
        /// The cluster that the process is a node of, if it is not alone.
        pub cluster: Option<Box<Cluster>> = None;
        /// The console: the HTML page that shows and tries out the server.
        pub console: Console = Console::default();
        /// The counters for a monitoring system.
        pub metrics: Metrics = Metrics::default();
        /// The guards that routes refer to by name.
        pub guards: Vec<GuardConfig> = Vec::new();
        /// Sources of message schemas: see the catalogs before the routes.
        pub catalogs: Vec<Catalog> = Vec::new();
        /// The routes, at least one. The first route that matches a request chooses its endpoint.
        pub routes: Vec<Route> = Route::defaults();
        /// The applications; at least one, unless a route or the Zenith section does not need any.
        pub apps: Vec<AppConfig> = Vec::new();
        /// Channels that clients of several protocols or applications share.
        pub links: Vec<ChannelLink> = Vec::new();
    }
    and {
        /// Warnings about settings that are accepted but have no effect, one line each with file,
        /// line and key.
        pub warnings: Vec<String>;
        /// The certificates in the ACME stores of the listeners, when the configuration was read.
        pub stored: Vec<StoredCertificate>;
        /// Whether this is [`Config::demo`], which may listen only on loopback addresses.
        pub is_demo: bool;
        /// The files with secrets that the configuration and environment variables refer to.
        pub secret_files: Vec<PathBuf>;
    }
}

/// What happens to a slow consumer: a connection whose write queue is full because its peer reads
/// too slowly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SlowConsumer {
    /// The connection is closed; its client can reconnect and knows that it missed messages.
    #[default]
    Close,
    /// Messages that do not fit into the write queue are dropped.
    Drop,
}

/// How the reactors talk to the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IoDriver {
    /// io_uring if it can be used, else epoll.
    #[default]
    Auto,
    /// io_uring; without it the server does not start.
    #[serde(rename = "io_uring")]
    IoUring,
    /// epoll.
    Epoll,
}

impl Config {
    /// Adds the default route to Zenith if the section exists without one, and the default section
    /// if a route exists without it.
    pub(super) fn complete(&mut self) {
        let is_zenith = |route: &Route| route.endpoint == EndpointKind::Zenith;
        match (&self.zenith, self.routes.iter().any(is_zenith)) {
            (None, true) => self.zenith = Some(Box::default()),
            (Some(_), false) if !self.routes.is_empty() => {
                self.routes.insert(0, Route::of(&["/Zenith", "/Zenith/*"], EndpointKind::Zenith));
            }
            _ => {}
        }
    }

    /// Checks what types cannot express, and returns the first error. An error names the path of
    /// its key; the caller finds the line.
    pub(super) fn check(&self) -> Result<(), Error> {
        let under = |section: &'static str| move |error: Error| error.under(section);
        self.check_ranges()?;
        if !self.pid_file.is_empty() && !Path::new(&self.pid_file).is_absolute() {
            let problem = Problem::Other("expected an absolute path".to_owned());
            return Err(Error::keyed("pid_file", problem));
        }
        log::check(&self.log).map_err(under("log"))?;
        listener::check(&self.listeners, self.is_demo)?;
        limits::check(&self.limits).map_err(under("limits"))?;
        self.timeouts.check_ranges().map_err(under("timeouts"))?;
        self.compression.check_ranges().map_err(under("compression"))?;
        pusher::check(&self.pusher).map_err(under("pusher"))?;
        self.check_zilliqa().map_err(under("zilliqa"))?;
        self.broadcastt.check_ranges().map_err(under("broadcastt"))?;
        console::check(&self.console).map_err(under("console"))?;
        metrics::check(&self.metrics).map_err(under("metrics"))?;
        self.check_guards()?;
        self.check_routes()?;
        if let Some(section) = &self.zenith {
            let check = zenith::check(section, self.limits.message_bytes);
            check.map_err(under("zenith"))?;
        }
        self.check_apps()?;
        self.check_links()?;
        self.check_cluster()
    }

    fn check_cluster(&self) -> Result<(), Error> {
        let Some(section) = &self.cluster else { return Ok(()) };
        let context = ClusterContext {
            apps: &self.apps,
            links: &self.links,
            zenith: self.zenith.as_deref(),
            has_state_file: !self.zilliqa.node.state_file.is_empty(),
            keep_alive_ms: self.timeouts.keep_alive_ms,
        };
        cluster::check(section, &context)
    }

    fn check_zilliqa(&self) -> Result<(), Error> {
        let leads_here = |path: &str| {
            let route = self.routes.iter().find(|route| route.matches(path));
            route.is_some_and(|route| route.endpoint == EndpointKind::Zilliqa)
        };
        zilliqa::check(&self.zilliqa, self.limits.message_bytes, &leads_here)
    }

    fn check_guards(&self) -> Result<(), Error> {
        let asks = self.listeners.iter().any(|listener| listener.tls.mutual != Mutual::None);
        let mut names = Unique::default();
        for (index, guard) in self.guards.iter().enumerate() {
            let key = format!("guards[{index}]");
            guard::check(guard, asks).map_err(|error| error.under(&key))?;
            names.add(&guard.name, format!("{key}.name"))?;
        }
        Ok(())
    }

    fn check_routes(&self) -> Result<(), Error> {
        let context = RouteContext {
            is_guard: &|name| self.guards.iter().any(|guard| guard.name == name),
            is_listener: &|name| self.listeners.iter().any(|listener| listener.name == name),
            message_bytes: self.limits.message_bytes,
        };
        route::check(&self.routes, &context)
    }

    fn check_links(&self) -> Result<(), Error> {
        let has_zenith = self.zenith.is_some();
        let context = LinkContext { apps: &self.apps, routes: &self.routes, has_zenith };
        link::check(&self.links, &context)
    }

    fn check_apps(&self) -> Result<(), Error> {
        let without =
            |route: &Route| route.endpoint.is_dialect() || route.endpoint == EndpointKind::Proxy;
        let needs_none = self.routes.iter().any(without)
            || self.routes.iter().all(|route| route.endpoint != EndpointKind::Apps);
        if self.apps.is_empty() && !needs_none && self.zenith.is_none() {
            let words = "at least one entry, or the variables POLYCAST_APP_ID, POLYCAST_APP_KEY \
                         and POLYCAST_APP_SECRET";
            return Err(Error::keyed("apps", Problem::Needed(words)));
        }
        for (index, app) in self.apps.iter().enumerate() {
            let checked = app::check(app, &self.limits);
            checked.map_err(|error| error.under(&format!("apps[{index}]")))?;
        }
        app::check_names(&self.apps)
    }

    /// Reads the files that the configuration names, relative to `folder`; without a folder, only
    /// the schemas of models.
    pub(super) fn prepare(&mut self, folder: Option<&Path>) -> Result<(), Error> {
        catalog::prepare(&mut self.catalogs, folder)?;
        self.prepare_models(folder.unwrap_or(Path::new("")))?;
        let Some(folder) = folder else { return Ok(()) };
        self.prepare_tls(folder)?;
        self.prepare_proxies(folder)?;
        guard::prepare(&mut self.guards, folder)?;
        self.prepare_cluster(folder)?;
        let node = zilliqa_node::prepare(&mut self.zilliqa.node, folder);
        node.map_err(|error| error.under("zilliqa.node"))?;
        for (index, app) in self.apps.iter_mut().enumerate() {
            let prepared = webhook::prepare(&mut app.webhooks, folder);
            prepared.map_err(|error| error.under(&format!("apps[{index}]")))?;
        }
        Ok(())
    }

    fn prepare_models(&mut self, folder: &Path) -> Result<(), Error> {
        catalog::read_schemas(&mut self.catalogs, &self.routes, folder);
        for (index, route) in self.routes.iter().enumerate() {
            let rules = route.compile_models(&self.catalogs);
            rules.map_err(|error| error.under(&format!("routes[{index}]")))?;
        }
        Ok(())
    }

    /// Reads the files of all listeners, relative to `folder`, unless they have been read before.
    pub(super) fn prepare_tls(&mut self, folder: &Path) -> Result<(), Error> {
        for (index, listener) in self.listeners.iter_mut().enumerate() {
            let prepared = listener.tls.prepare(folder);
            prepared.map_err(|error| error.under(&format!("listeners[{index}].tls")))?;
        }
        self.stored = acme::read_stores(listener::acme_sections(&self.listeners))?;
        Ok(())
    }

    /// The ACME sections of the listeners.
    pub fn acme_sections(&self) -> impl Iterator<Item = &Acme> {
        listener::acme_sections(&self.listeners).map(|(_, acme)| acme)
    }

    /// The folders of issued certificates, which the server writes into.
    pub fn acme_stores(&self) -> Vec<PathBuf> {
        self.acme_sections().map(|acme| PathBuf::from(&acme.store)).collect()
    }

    /// Reads the files of the log-in at the cluster's engine, relative to `folder`, unless they
    /// have been read before.
    pub(super) fn prepare_cluster(&mut self, folder: &Path) -> Result<(), Error> {
        match &mut self.cluster {
            Some(section) => {
                cluster::prepare(section, folder).map_err(|error| error.under("cluster"))
            }
            None => Ok(()),
        }
    }

    /// Reads the TLS files of proxies with `wss` upstreams, relative to `folder`, unless they have
    /// been read before.
    pub(super) fn prepare_proxies(&mut self, folder: &Path) -> Result<(), Error> {
        for (index, route) in self.routes.iter_mut().enumerate() {
            let Some(proxy) = &mut route.proxy else { continue };
            if proxy.upstreams.iter().any(|it| it.secure) {
                let prepared = Arc::make_mut(proxy).tls.prepare(folder);
                prepared.map_err(|error| error.under(&format!("routes[{index}].proxy.tls")))?;
            }
        }
        Ok(())
    }

    /// Whether any route has upstream servers.
    pub fn has_proxies(&self) -> bool {
        self.routes.iter().any(|route| route.proxy.is_some())
    }

    /// Keeps the cluster of `old`, since only a restart changes it.
    ///
    /// # Errors
    /// This configuration has what that cluster does not carry.
    pub fn keep_cluster(&mut self, old: &Config) -> Result<(), Error> {
        self.cluster.clone_from(&old.cluster);
        self.check_cluster()
    }

    /// Keeps the sockets of the listeners of `old`, since only a restart changes them, and applies
    /// the other new settings, such as names, origins, TLS and trusted proxies.
    pub fn keep_listeners(&mut self, old: &Config) {
        let mut kept = old.listeners.clone();
        for (index, listener) in kept.iter_mut().enumerate() {
            let same = |other: &&Listener| {
                other.address == listener.address && other.tls.is_on() == listener.tls.is_on()
            };
            let at_place = self.listeners.get(index).filter(same);
            let found = at_place.or_else(|| self.listeners.iter().find(same));
            let Some(found) = found else { continue };
            let (mode, v6_only) = (listener.mode, listener.v6_only);
            *listener = Listener { mode, v6_only, ..found.clone() };
        }
        self.listeners = kept;
    }
}
