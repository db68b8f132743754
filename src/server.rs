//! The process: one thread a core, listeners, signals, reload, drain.

mod confine;
mod listen;
mod reload;
mod watch;

pub use confine::{give_up_new_privileges, try_restrictions};
use listen::listen_all;
pub use reload::ConfigSource;

use crate::config::{self, Config, Overrides};
use crate::control::Control;
use crate::dialect::{Env, SocketIds};
use crate::hub::Hasher;
use crate::limits::REACTOR_CONNECTIONS;
use crate::reactor::{
    ACCEPTS_FOR_OTHERS, ACCEPTS_PER_LISTENER, Addresses, Inbox, Listeners, Mail, Outbox, Parts,
    Peers, Reactor, wire,
};
use crate::shard::{Common, Shard};
use crate::stats::Counters;
use crate::uring::sys::{self, Clock};
use crate::uring::{Ring, Settings, SetupError, Waker, probe};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;
use std::io::{self, Write};
use std::iter::repeat_with;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::sync::{Arc, Barrier, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;
use watch::Watch;

/// Files beside the connections: listeners, rings, logs.
const RESERVED_FILES: u64 = 64;
/// Accepts in flight for each listener at most.
const ACCEPTS: u32 = ACCEPTS_PER_LISTENER + ACCEPTS_FOR_OTHERS;
/// Messages that one lane between two cores has room for at least.
const LANE_MIN: usize = 64;

/// Why the server stopped, or never started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// io_uring cannot be used; says why and what to do.
    #[error("{error}; {advice}")]
    NoIoUring {
        /// What the kernel said.
        error: SetupError,
        /// What to do.
        advice: String,
    },
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        error: io::Error,
    },
    /// A system call of the set-up or of a running reactor failed.
    #[error("{0}: {1}")]
    System(&'static str, io::Error),
    /// The configuration is not right.
    #[error("{0}")]
    Config(config::Error),
    /// Something failed that the process does not go on without.
    #[error("{0}")]
    Failed(&'static str),
    /// A reactor's thread ended by a panic.
    #[error("reactor {0} ended unexpectedly")]
    Panicked(usize),
}

impl Error {
    /// The exit code of the process.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::NoIoUring { .. } => 78,
            Error::Config(_) => 2,
            Error::Listen { .. } | Error::System(..) | Error::Failed(_) | Error::Panicked(_) => 1,
        }
    }
}

/// A running server.
pub struct Server {
    addresses: Vec<SocketAddr>,
    threads: Vec<JoinHandle<io::Result<()>>>,
    peers: Arc<Peers>,
    counters: Vec<Arc<Counters>>,
    env: Arc<Env>,
    connections: u32,
    fixed_bytes: usize,
    control: Option<Control>,
    clock: Clock,
    drain_ms: u64,
    /// When the drain began, on the control thread's clock.
    stopped_ms: OnceLock<u64>,
}

impl Server {
    /// Starts all reactors, and returns when they accept connections.
    pub fn start(config: Config) -> Result<Server, Error> {
        // Files that it names are read here, if that was not done before.
        Server::launch(config.with(Overrides::default()).map_err(Error::Config)?, None)
    }

    /// With `files`, which are read again later, the process is confined once it listens.
    fn launch(config: Config, files: Option<&[PathBuf]>) -> Result<Server, Error> {
        let cores = sys::cores();
        let count = match config.threads {
            0 => cores.len().min(crate::limits::MAX_CORES),
            threads => threads,
        } as u16;
        let connections = connections_per_reactor(&config, count)?;
        let (addresses, listeners) = listen_all(&config.listeners, count)?;
        if let Some(files) = files {
            confine::confine(&config, files).map_err(|e| Error::System("giving up rights", e))?;
        }
        let random = || sys::random_u64().map_err(|e| Error::System("random numbers", e));
        let (seed, key) = (random()?, [random()?, random()?]);
        let lane = (config.limits.mailbox_messages / usize::from(count)).max(LANE_MIN);
        let peers = Arc::new(Peers::new(count));
        let counters: Vec<Arc<Counters>> = (0..count).map(|_| Arc::default()).collect();
        let mut env = Env::new(config, 0);
        env.socket_ids =
            SocketIds::new((u128::from(key[0]) << 64 | u128::from(key[1])).to_be_bytes());
        env.counters.clone_from(&counters);
        let config = &env.config;
        let setup = Arc::new(Setup {
            settings: ring_settings(config, connections),
            addresses: Arc::new(Addresses::new(config.limits.connections_per_address)),
            common: Common {
                hasher: Hasher::new(seed),
                cores: count,
                mail_bound: lane,
                env: Arc::new(env),
            },
            peers: peers.clone(),
            barrier: Barrier::new(usize::from(count)),
            clock: Clock::new(),
        });
        let mut server = Server {
            addresses,
            threads: Vec::new(),
            peers: peers.clone(),
            counters,
            env: setup.common.env.clone(),
            connections,
            fixed_bytes: 0,
            control: None,
            clock: setup.clock,
            drain_ms: setup.common.env.config.drain_s * 1000,
            stopped_ms: OnceLock::new(),
        };
        let (mut outboxes, mut inbox) = server.start_control(&setup.common.env, count)?;
        let (ready, started) = mpsc::channel();
        for (core, mail) in wire(&peers, lane).into_iter().enumerate() {
            let place = setup.common.env.config.pin.then(|| cores[core % cores.len()]);
            let counters = server.counters[core].clone();
            let (outbox, inbox, sockets) = (outboxes.next(), inbox.take(), listeners.clone());
            let parts =
                ReactorThread { core: core as u16, place, sockets, mail, outbox, inbox, counters };
            let (setup, ready) = (setup.clone(), ready.clone());
            let thread = std::thread::Builder::new().name(format!("reactor-{core}"));
            match thread.spawn(move || sit(parts, &setup, &ready)) {
                Ok(thread) => server.threads.push(thread),
                Err(error) => {
                    // The others wait for one that will not come, and end with the process.
                    server.threads.clear();
                    return Err(Error::System("starting a thread", error));
                }
            }
        }
        drop(ready);
        server.await_start(&started)?;
        Ok(server)
    }

    /// Waits until every thread runs, or one has failed to start.
    fn await_start(
        &mut self,
        started: &mpsc::Receiver<Result<usize, SetupError>>,
    ) -> Result<(), Error> {
        for started in started.iter().take(self.threads.len()) {
            self.fixed_bytes = started.map_err(|error| {
                let advice = probe::cause(&error).advice();
                Error::NoIoUring { error, advice }
            })?;
        }
        match &self.control {
            Some(control) => {
                control.started().map_err(|e| Error::System("starting the control thread", e))
            }
            None => Ok(()),
        }
    }

    /// Starts what waits for the outside world, if there is any; gives the cores' ways to
    /// it, and the way from it to the first of them.
    fn start_control(
        &mut self,
        env: &Arc<Env>,
        cores: u16,
    ) -> Result<(std::vec::IntoIter<Outbox>, Option<Inbox>), Error> {
        let control = Control::start(env, cores, &self.peers, self.clock)
            .map_err(|e| Error::System("starting the control thread", e))?;
        let Some((control, outboxes, inbox)) = control else { return Ok(Default::default()) };
        self.control = Some(control);
        self.counters.push(env.control.clone());
        Ok((outboxes.into_iter(), Some(inbox)))
    }

    /// Where it listens, with the ports that the kernel chose.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// A counter's sum over all cores.
    pub fn count(&self, name: &str) -> u64 {
        self.count_by_core(name).into_iter().sum()
    }

    /// A counter's value on each core.
    pub fn count_by_core(&self, name: &str) -> Vec<u64> {
        let of_core = |counters: &Arc<Counters>| {
            counters.list().into_iter().find(|(other, _)| *other == name).map_or(0, |(_, n)| n)
        };
        self.counters.iter().map(of_core).collect()
    }

    /// All counters, summed over all cores.
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        let names = Counters::default().list();
        names.into_iter().map(|(name, _)| (name, self.count(name))).collect()
    }

    /// Takes over a configuration that was read anew, without dropping a connection: applications
    /// and their limits, routes, time-outs, and bounds of connections to come. Reactors have it
    /// within a second.
    pub fn renew(&mut self, mut config: Config) {
        config.keep_listeners(&self.env.config);
        self.env = Arc::new(self.env.reloaded(config));
        self.renew_control();
        for core in 0..self.threads.len() as u16 {
            if let Ok(mut reloaded) = self.peers.core(core).reloaded.lock() {
                *reloaded = Some(self.env.clone());
            }
        }
    }

    /// The control thread has a configuration before any core has it. It is started when there is
    /// something to do for it first.
    fn renew_control(&mut self) {
        if let Some(control) = &self.control {
            return control.renew(&self.env);
        }
        let (env, cores) = (self.env.clone(), self.threads.len() as u16);
        let peer_links = match self.start_control(&env, cores) {
            Ok((outboxes, inbox)) => {
                outboxes.zip(std::iter::once(inbox).chain(repeat_with(|| None)))
            }
            Err(error) => return tracing::error!(%error, "nothing outside is reached"),
        };
        if let Some(Err(error)) = self.control.as_ref().map(Control::started) {
            self.control = None;
            return tracing::error!(%error, "nothing outside is reached");
        }
        for (core, way) in peer_links.enumerate() {
            if let Ok(mut place) = self.peers.core(core as u16).control.lock() {
                *place = Some(way);
            }
        }
    }

    /// Reads the configuration file again, and says what came of it.
    fn reload(&mut self, source: &mut ConfigSource) {
        match source.load() {
            Ok(config) => {
                let restart = source.needing_restart(&config);
                if !restart.is_empty() {
                    let sections = restart.join(", ");
                    tracing::warn!(sections, "changed, and take effect with a restart");
                }
                config.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
                source.watch(&config);
                tracing::info!(apps = config.apps.len(), "configuration reloaded");
                self.renew(config);
            }
            Err(error) => tracing::error!(%error, "configuration not reloaded"),
        }
    }

    /// Logs every counter that is not zero.
    fn log_counts(&self, occasion: &str) {
        let counts = self.counts().into_iter().filter(|(_, count)| *count > 0);
        let counts: Vec<String> = counts.map(|(name, count)| format!("{name}={count}")).collect();
        tracing::info!(counters = counts.join(" "), "{occasion}");
    }

    /// Begins to drain: nothing new is accepted, every connection is closed.
    pub fn stop(&self) {
        if let Some(control) = &self.control {
            self.stopped_ms.get_or_init(|| control.now_ms());
            control.drain();
        }
        let mut waker = Waker::new();
        for core in 0..self.threads.len() as u16 {
            let peer = self.peers.core(core);
            peer.stop.store(true, Ordering::SeqCst);
            // A core that is not woken sees the flag when its sleep ends, within a second.
            if let Ok(waker) = &mut waker {
                let _ = waker.wake(peer.ring.load(Ordering::Acquire));
            }
        }
    }

    /// Waits until all reactors have ended.
    pub fn join(&mut self) -> Result<(), Error> {
        // All of them, whatever becomes of one: their clients are to hear of the end.
        let mut outcome = Ok(());
        for (core, thread) in self.threads.drain(..).enumerate() {
            let ended = match thread.join() {
                Ok(ended) => ended.map_err(|error| Error::System("a reactor", error)),
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

impl Drop for Server {
    fn drop(&mut self) {
        if !self.threads.is_empty() {
            self.stop();
            let _ = self.join();
        }
    }
}

/// What all reactors are made from.
struct Setup {
    settings: Settings,
    common: Common,
    addresses: Arc<Addresses>,
    peers: Arc<Peers>,
    barrier: Barrier,
    clock: Clock,
}

/// What one reactor has for itself.
struct ReactorThread {
    core: u16,
    place: Option<usize>,
    /// Of all cores.
    sockets: Vec<Listeners>,
    mail: Mail,
    outbox: Option<Outbox>,
    inbox: Option<Inbox>,
    counters: Arc<Counters>,
}

/// One reactor's thread.
fn sit(
    reactor_thread: ReactorThread,
    setup: &Setup,
    ready: &mpsc::Sender<Result<usize, SetupError>>,
) -> io::Result<()> {
    if let Some(place) = reactor_thread.place
        && let Err(error) = sys::pin(place)
    {
        tracing::warn!(core = reactor_thread.core, %error, "cannot be pinned");
    }
    let ring = Ring::new(setup.settings, reactor_thread.counters.clone());
    let me = setup.peers.core(reactor_thread.core);
    if let Ok(ring) = &ring {
        me.ring.store(ring.descriptor(), Ordering::Release);
    }
    // Nobody sends to a core that has no ring yet.
    setup.barrier.wait();
    let ring = match ring {
        Ok(ring) => ring,
        Err(error) => {
            let _ = ready.send(Err(error));
            // Nothing will ever be busy here, and the others must not wait for it.
            setup.peers.note_idle(reactor_thread.core);
            return Ok(());
        }
    };
    let fixed_bytes = ring.fixed_bytes();
    let shard = Shard::new(reactor_thread.core, &setup.common, reactor_thread.counters.clone());
    let reactor = Reactor::new(Parts {
        ring,
        shard,
        listeners: reactor_thread.sockets,
        connections: setup.settings.files,
        mail: reactor_thread.mail,
        outbox: reactor_thread.outbox,
        inbox: reactor_thread.inbox,
        addresses: setup.addresses.clone(),
        drain_ms: setup.common.env.config.drain_s * 1000,
        counters: reactor_thread.counters,
        clock: setup.clock,
    });
    let _ = ready.send(Ok(fixed_bytes));
    let _idle = IdleAtEnd { peers: &setup.peers, core: reactor_thread.core };
    reactor.run()
}

/// Whatever ends a reactor: the others do not wait for it in a drain.
struct IdleAtEnd<'s> {
    peers: &'s Peers,
    core: u16,
}

impl Drop for IdleAtEnd<'_> {
    fn drop(&mut self) {
        self.peers.note_idle(self.core);
    }
}

fn ring_settings(config: &Config, connections: u32) -> Settings {
    Settings {
        files: connections,
        buffers: config.limits.receive_buffers as u16,
        buffer_bytes: config.limits.receive_buffer_bytes as u32,
        accepts: ACCEPTS * config.listeners.len() as u32,
        restricted: config.process.ring_restrictions,
    }
}

/// A ring's file table is bounded by the limit of open files, each ring's for itself.
fn connections_per_reactor(config: &Config, reactors: u16) -> Result<u32, Error> {
    let limit = sys::raise_file_limit().map_err(|e| Error::System("the limit of open files", e))?;
    let max = limit.saturating_sub(RESERVED_FILES).max(RESERVED_FILES) as usize;
    let wanted = match config.limits.connections {
        0 => max,
        total => total.div_ceil(usize::from(reactors)),
    };
    Ok(wanted.min(max).min(REACTOR_CONNECTIONS) as u32)
}

/// Serves until SIGTERM or SIGINT, then drains. A second one ends the process at once. SIGUSR1 logs
/// the counters. SIGHUP, or a change of the file, reads the configuration from `source` again.
pub fn run(config: Config, source: Option<ConfigSource>) -> Result<(), Error> {
    watch::catch_panics();
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGUSR1, SIGHUP])
        .map_err(|e| Error::System("catching signals", e))?;
    let hello = Greeting::new(&config);
    let config = config.with(Overrides::default()).map_err(Error::Config)?;
    let files = source.as_ref().map(ConfigSource::files).unwrap_or_default();
    let mut server = Server::launch(config, Some(&files))?;
    hello.print(&server);
    for core in &server.addresses {
        tracing::info!(address = %core, "listening");
    }
    tracing::info!(
        event = "ENGINE_STARTED",
        reactors = server.threads.len(),
        connections_per_reactor = server.connections,
        fixed_bytes_per_reactor = server.fixed_bytes,
        "started"
    );
    let (caught, signal) = mpsc::channel();
    let handle = signals.handle();
    std::thread::spawn(move || {
        for signal in signals.forever() {
            if caught.send(signal).is_err() {
                return;
            }
        }
    });
    let ended = attend(&mut server, source, &signal);
    match &ended {
        Ok(signal) => tracing::info!(signal, "draining"),
        Err(error) => tracing::error!(%error, "draining"),
    }
    server.stop();
    std::thread::spawn(move || {
        while let Ok(signal) = signal.recv() {
            if matches!(signal, SIGTERM | SIGINT) {
                std::process::exit(130);
            }
        }
    });
    // What a reactor has failed of says more than that one has.
    let outcome = server.join();
    handle.close();
    server.log_counts("stopped");
    outcome.and(ended.map(drop))
}

/// How often the configuration file and the reactors' threads are looked at.
const ATTENTION: Duration = Duration::from_millis(500);

/// Waits for the signal that ends the server, or for a reactor that fails, and does what other
/// signals ask for meanwhile.
///
/// # Errors
/// What has failed.
fn attend(
    server: &mut Server,
    mut source: Option<ConfigSource>,
    signals: &mpsc::Receiver<i32>,
) -> Result<i32, Error> {
    let mut watch = Watch::new();
    loop {
        let signal = match signals.recv_timeout(ATTENTION) {
            Ok(signal @ (SIGTERM | SIGINT)) => return Ok(signal),
            Ok(signal) => Some(signal),
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                return Err(Error::Failed("the thread that waits for signals has ended"));
            }
            Err(mpsc::RecvTimeoutError::Timeout) => None,
        };
        if signal == Some(SIGUSR1) {
            server.log_counts("counters");
        }
        if let Some(source) = &mut source {
            if source.has_changed() || signal == Some(SIGHUP) {
                server.reload(source);
            }
        } else if signal == Some(SIGHUP) {
            tracing::warn!("no configuration file to reload");
        }
        watch.look(server)?;
    }
}

/// What the program prints when it serves.
struct Greeting {
    demo: Option<(String, String, String)>,
    /// Whether each listener speaks TLS.
    secure: Vec<bool>,
}

impl Greeting {
    fn new(config: &Config) -> Greeting {
        let demo = config.apps.first().filter(|_| config.is_demo);
        let demo_app = |app: &crate::config::AppConfig| {
            (app.id.clone(), app.key.clone(), app.secret.expose().into())
        };
        let secure = config.listeners.iter().map(|listener| listener.tls.is_on()).collect();
        Greeting { demo: demo.map(demo_app), secure }
    }

    fn print(&self, server: &Server) {
        let mut text = String::new();
        for (address, secure) in server.addresses().iter().zip(&self.secure) {
            let s = if *secure { "s" } else { "" };
            text += &format!("polycast listens on http{s}://{address} and ws{s}://{address}\n");
        }
        if let (Some((id, key, secret)), Some(address)) = (&self.demo, server.addresses().first()) {
            text += &format!(
                "demo application: id {id}, key {key}, secret {secret}\n\
                 try it: new Pusher('{key}', {{wsHost: '{}', wsPort: {}, forceTLS: false, \
                 cluster: '', enabledTransports: ['ws']}})\n",
                address.ip(),
                address.port()
            );
        }
        // Nobody may be there to read it.
        let _ = io::stdout().write_all(text.as_bytes());
    }
}

/// What this kernel offers, in words, and whether it is enough.
pub fn doctor() -> (String, bool) {
    probe::report()
}
