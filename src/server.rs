//! The server process: one thread per core, listeners, signals, reload, drain.

mod attendant;
mod channel;
mod confine;
mod error;
mod hand_over;
mod inherited;
mod io_driver;
mod listen;
mod manager;
mod pid_file;
mod process;
mod reactor_thread;
mod relay;
mod reload;
mod sizing;
mod socket_file;
mod take_over;
mod upgrade;
mod watch;

pub use crate::control::examine_cluster;
pub use confine::{give_up_new_privileges, try_restrictions};
pub use error::Error;
pub use pid_file::request_upgrade;
pub use process::run;
pub use reload::ConfigSource;
use sizing::ServerSize;

use crate::config::{self, Config, IoDriver, ListenAddress, Overrides};
use crate::control::Control;
use crate::dialect::{Env, SocketIds};
use crate::driver::{Settings, SetupError};
use crate::hub::Hasher;
use crate::reactor::{
    ACCEPTS_FOR_OTHERS, ACCEPTS_PER_LISTENER, ClusterLink, Inbox, Listeners, Mail, Outbox, Peers,
    Waker, wire,
};
use crate::shard::Common;
use crate::stats::Counters;
use crate::uring::probe;
use crate::uring::sys::{self, Clock};
use inherited::{Inherited, InheritedSocket};
use io_driver::RunningDriver;
use listen::{BoundSocket, Listening, listen_all};
use reactor_thread::{ReactorSetup, ReactorThread, run_reactor_thread};
use relay::EventRelay;
use std::io;
use std::iter::repeat_with;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::sync::{Arc, Barrier, Mutex, OnceLock};
use std::thread::JoinHandle;
use watch::Threads;

/// The maximum number of accepts in flight for each listener.
const ACCEPTS: u32 = ACCEPTS_PER_LISTENER + ACCEPTS_FOR_OTHERS;
/// The minimum capacity of a mailbox between two cores, in messages.
const LANE_MIN: usize = 64;

/// The queues between the cores and the control thread.
type ControlLinks = (std::vec::IntoIter<Outbox>, Option<Inbox>, std::vec::IntoIter<ClusterLink>);

/// A running server.
pub struct Server {
    listening: Vec<ListenAddress>,
    /// The IP addresses of `listening`.
    addresses: Vec<SocketAddr>,
    /// The listening sockets with the files of Unix sockets, until the server stops.
    sockets: Mutex<Vec<BoundSocket>>,
    /// Sockets of the server that this one replaces, which no listener has taken, until the
    /// hand-over.
    abandoned: Vec<InheritedSocket>,
    threads: Vec<JoinHandle<io::Result<()>>>,
    peers: Arc<Peers>,
    counters: Vec<Arc<Counters>>,
    env: Arc<Env>,
    driver: RunningDriver,
    control: Option<Control>,
    /// The exchange of events with the process that this one replaces.
    relay: Option<EventRelay>,
    hasher: Hasher,
    clock: Clock,
    drain_ms: u64,
    /// When the drain began, in milliseconds on the control thread's clock.
    stopped_ms: OnceLock<u64>,
}

impl Server {
    /// Starts all reactors, and returns when they accept connections.
    ///
    /// # Errors
    /// The configuration is invalid, or a listener, the control thread or a reactor cannot be
    /// started.
    pub fn start(config: Config) -> Result<Server, Error> {
        // Reads the files that the configuration names, unless they have been read already.
        let config = config.with(Overrides::default()).map_err(Error::Config)?;
        Server::launch(config, None, Inherited::default())
    }

    /// Starts the server. If `files` is given, restricts the process after it listens; these files
    /// stay readable because they are read again later. With the sockets of a running server, it
    /// does not accept connections yet.
    fn launch(
        config: Config,
        files: Option<&[PathBuf]>,
        inherited: Inherited,
    ) -> Result<Server, Error> {
        let ServerSize { reactors: count, pins, connections } = ServerSize::choose(&config)?;
        // Before the process is restricted, because it may read the system's certificates.
        let mut env = Env::new(config, 0).map_err(Error::Config)?;
        let is_paused = inherited.from_server;
        let listening = listen_all(&env.config.listeners, count, inherited)?;
        if let Some(files) = files {
            confine::confine(&env.config, files)
                .map_err(|e| Error::System("cannot restrict the process", e))?;
        }
        let random =
            || sys::random_u64().map_err(|e| Error::System("cannot read random numbers", e));
        let (hasher, key) = (Hasher::new(random()?), [random()?, random()?]);
        let mail_bound = (env.config.limits.mailbox_messages / usize::from(count)).max(LANE_MIN);
        let peers = Arc::new(Peers::new(count));
        (0..count).for_each(|core| peers.core(core).accepting.ask_pause(is_paused));
        let shares = listening.shares(count);
        let counters: Vec<Arc<Counters>> = (0..count).map(|_| Arc::default()).collect();
        env.socket_ids =
            SocketIds::new((u128::from(key[0]) << 64 | u128::from(key[1])).to_be_bytes());
        env.runtime.counters.clone_from(&counters);
        let config = &env.config;
        let setup = Arc::new(ReactorSetup {
            io: config.io,
            settings: settings(config, &shares),
            bounds: connections,
            refused: OnceLock::new(),
            common: Common { hasher, cores: count, mail_bound, env: Arc::new(env) },
            peers: peers.clone(),
            barrier: Barrier::new(usize::from(count)),
            clock: Clock::new(),
        });
        let Listening { addresses, sockets, abandoned } = listening;
        let mut server = Server {
            addresses: addresses.iter().filter_map(ListenAddress::ip).collect(),
            listening: addresses,
            sockets: Mutex::new(sockets),
            abandoned,
            threads: Vec::new(),
            peers: peers.clone(),
            counters,
            env: setup.common.env.clone(),
            driver: RunningDriver::default(),
            control: None,
            relay: None,
            hasher: setup.common.hasher.clone(),
            clock: setup.clock,
            drain_ms: setup.common.env.config.drain_s * 1000,
            stopped_ms: OnceLock::new(),
        };
        let mailboxes = wire(&peers, mail_bound);
        server.start_reactors(&setup, &pins, &shares, mailboxes)?;
        Ok(server)
    }

    /// Starts the control thread, if there is work for it, and then a thread for each reactor.
    /// Waits until all of them run.
    ///
    /// # Errors
    /// A thread cannot be started, or a reactor cannot set up its driver.
    fn start_reactors(
        &mut self,
        setup: &Arc<ReactorSetup>,
        pins: &[usize],
        listeners: &[Listeners],
        mailboxes: Vec<Mail>,
    ) -> Result<(), Error> {
        let (env, hasher) = (&setup.common.env, &setup.common.hasher);
        let (mut outboxes, mut inbox, mut links) =
            self.start_control(env, setup.common.cores, Some(hasher))?;
        let (ready, started) = mpsc::channel();
        for (core, mail) in mailboxes.into_iter().enumerate() {
            let place = (!pins.is_empty()).then(|| pins[core % pins.len()]);
            let counters = self.counters[core].clone();
            let (outbox, inbox, sockets) = (outboxes.next(), inbox.take(), listeners.to_vec());
            let (core, cluster) = (core as u16, links.next());
            let parts =
                ReactorThread { core, place, sockets, mail, outbox, inbox, cluster, counters };
            let (setup, ready) = (setup.clone(), ready.clone());
            let thread = std::thread::Builder::new().name(format!("reactor-{core}"));
            match thread.spawn(move || run_reactor_thread(parts, &setup, &ready)) {
                Ok(thread) => self.threads.push(thread),
                Err(error) => {
                    // The started threads wait at the barrier for this one, so they end only with
                    // the process.
                    self.threads.clear();
                    return Err(Error::System("cannot start a reactor thread", error));
                }
            }
        }
        drop(ready);
        self.await_start(&started)
    }

    /// Waits until every reactor and the control thread run, or one of them has failed to start.
    fn await_start(
        &mut self,
        started: &mpsc::Receiver<Result<RunningDriver, SetupError>>,
    ) -> Result<(), Error> {
        for started in started.iter().take(self.threads.len()) {
            let reactors = self.threads.len();
            self.driver = started.map_err(|error| io_driver::not_replaced(error, reactors))?;
        }
        match &self.control {
            Some(control) => {
                control.started().map_err(|e| Error::System("cannot start the control thread", e))
            }
            None => Ok(()),
        }
    }

    /// Starts the control thread, if the configuration needs one. Returns the queues of the cores
    /// to it, the queue from it to the first core, and the queues to and from a cluster's log.
    fn start_control(
        &mut self,
        env: &Arc<Env>,
        cores: u16,
        hasher: Option<&Hasher>,
    ) -> Result<ControlLinks, Error> {
        let control = Control::start(env, cores, &self.peers, self.clock, hasher)
            .map_err(|e| Error::System("cannot start the control thread", e))?;
        let Some((control, outboxes, inbox, links)) = control else {
            return Ok(Default::default());
        };
        self.control = Some(control);
        self.counters.push(env.runtime.control.clone());
        Ok((outboxes.into_iter(), Some(inbox), links.into_iter()))
    }

    /// The IP addresses that the server listens on, with the ports that the kernel chose.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The sum of a counter over all cores and the control thread.
    pub fn count(&self, name: &str) -> u64 {
        self.counters.iter().map(|counters| value_of(counters, name)).sum()
    }

    /// The value of a counter on each core.
    pub fn count_by_core(&self, name: &str) -> Vec<u64> {
        let cores = self.counters.iter().take(self.threads.len());
        cores.map(|counters| value_of(counters, name)).collect()
    }

    /// The sums of all counters over all cores and the control thread, with their names.
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        let names = Counters::default().list();
        names.into_iter().map(|(name, _)| (name, self.count(name))).collect()
    }

    /// Applies a reloaded configuration without dropping connections: applications and their
    /// limits, routes, timeouts, and limits of new connections. Every reactor applies it within a
    /// second.
    /// If it cannot be applied, this is logged, and the configuration in force stays.
    pub fn renew(&mut self, config: Config) {
        if let Err(error) = self.apply(config) {
            tracing::error!(%error, "configuration not reloaded");
        }
    }

    fn apply(&mut self, mut config: Config) -> Result<(), config::Error> {
        config.keep_listeners(&self.env.config);
        config.io = self.env.config.io;
        config.keep_cluster(&self.env.config)?;
        self.env = Arc::new(self.env.reloaded(config)?);
        self.renew_control();
        for core in 0..self.threads.len() as u16 {
            if let Ok(mut reloaded) = self.peers.core(core).reloaded.lock() {
                *reloaded = Some(self.env.clone());
            }
        }
        Ok(())
    }

    /// Passes the configuration to the control thread before any core gets it. Starts the control
    /// thread if the configuration needs one and none runs.
    fn renew_control(&mut self) {
        if let Some(control) = &self.control {
            return control.renew(&self.env);
        }
        let (env, cores) = (self.env.clone(), self.threads.len() as u16);
        let peer_links = match self.start_control(&env, cores, None) {
            Ok((outboxes, inbox, _)) => {
                outboxes.zip(std::iter::once(inbox).chain(repeat_with(|| None)))
            }
            Err(error) => {
                return tracing::error!(%error, "the control thread cannot be started");
            }
        };
        if let Some(Err(error)) = self.control.as_ref().map(Control::started) {
            self.control = None;
            self.counters.truncate(self.threads.len());
            return tracing::error!(%error, "the control thread cannot be started");
        }
        for (core, way) in peer_links.enumerate() {
            if let Ok(mut place) = self.peers.core(core as u16).control.lock() {
                *place = Some(way);
            }
        }
    }

    /// Reads the configuration file again, applies it, and logs the outcome.
    fn reload(&mut self, source: &mut ConfigSource) {
        match source.load() {
            Ok(config) => {
                let restart = source.needing_restart(&config);
                if !restart.is_empty() {
                    let sections = restart.join(", ");
                    tracing::warn!(sections, "changes take effect only after a restart");
                }
                config.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
                source.watch(&config);
                let apps = config.apps.len();
                match self.apply(config) {
                    Ok(()) => tracing::info!(apps, "configuration reloaded"),
                    Err(error) => tracing::error!(%error, "configuration not reloaded"),
                }
            }
            Err(error) => tracing::error!(%error, "configuration not reloaded"),
        }
    }

    /// The threads, to be watched.
    fn threads(&self) -> Threads<'_> {
        Threads {
            reactors: &self.threads,
            control: self.control.as_ref(),
            counters: &self.counters,
            control_counters: &self.env.runtime.control,
            now_ms: self.clock.now().ms,
        }
    }

    /// Logs every counter that is not zero.
    fn log_counts(&self, occasion: &str) {
        let counts = self.counts().into_iter().filter(|(_, count)| *count > 0);
        let counts: Vec<String> = counts.map(|(name, count)| format!("{name}={count}")).collect();
        tracing::info!(counters = counts.join(" "), "{occasion}");
    }

    /// Answers readiness checks with 503 from now on; connections are still accepted.
    pub fn leave(&self) {
        self.env.runtime.departure.leave();
    }

    /// Begins to drain: no new connections are accepted, and every connection is closed. The files
    /// of Unix sockets are removed.
    pub fn stop(&self) {
        self.close_sockets();
        self.env.runtime.departure.drain();
        if let Some(control) = &self.control {
            self.stopped_ms.get_or_init(|| control.now_ms());
            control.drain();
        }
        for core in 0..self.threads.len() as u16 {
            self.peers.core(core).stop.store(true, Ordering::SeqCst);
        }
        self.wake_all();
    }

    fn wake_all(&self) {
        let mut waker = Waker::default();
        for core in 0..self.threads.len() as u16 {
            // A core that is not woken sees what it is asked for when its sleep ends, within a
            // second.
            if let Some(handle) = self.peers.core(core).wake.get() {
                let _ = waker.wake(handle);
            }
        }
    }

    /// Waits until all reactors and the control thread have ended.
    ///
    /// # Errors
    /// The first error or panic of a reactor.
    pub fn join(&mut self) -> Result<(), Error> {
        // Wait for all reactors even if one has failed, so that the others can close their
        // connections properly.
        let mut outcome = Ok(());
        for (core, thread) in self.threads.drain(..).enumerate() {
            let ended = match thread.join() {
                Ok(ended) => ended.map_err(|error| Error::System("a reactor failed", error)),
                Err(_) => Err(Error::Panicked(core)),
            };
            outcome = outcome.and(ended);
        }
        if let Some(control) = self.control.take() {
            let stopped_ms = self.stopped_ms.get().copied().unwrap_or(0);
            control.finish(stopped_ms + self.drain_ms);
        }
        outcome
    }
}

fn value_of(counters: &Counters, name: &str) -> u64 {
    counters.list().into_iter().find(|(other, _)| *other == name).map_or(0, |(_, n)| n)
}

impl Drop for Server {
    fn drop(&mut self) {
        if !self.threads.is_empty() {
            self.stop();
            let _ = self.join();
        }
    }
}

/// The sizes of each reactor's driver, except its number of connections.
fn settings(config: &Config, shares: &[Listeners]) -> Settings {
    let sockets = shares.iter().map(Vec::len).max().unwrap_or(0);
    Settings {
        files: 0,
        buffers: config.limits.receive_buffers as u16,
        buffer_bytes: config.limits.receive_buffer_bytes as u32,
        accepts: ACCEPTS * sockets as u32,
        restricted: config.process.ring_restrictions,
    }
}

/// A report of what this kernel supports, and whether that is enough for `io`.
pub fn doctor(io: IoDriver) -> (String, bool) {
    probe::report(io)
}
