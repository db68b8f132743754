//! The server as a process: its start, its end, and what it prints.

use super::attendant::{Attendant, EndReason, ServerEvent, Upgrades, end_at_once};
use super::inherited::Inherited;
use super::manager::ServiceManager;
use super::pid_file::PidFile;
use super::take_over::Predecessor;
use super::upgrade::Program;
use super::watch::{self, Watch};
use super::{ConfigSource, Error, Server};
use crate::config::{AppConfig, Config, ListenAddress, Overrides};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;
use std::io::{self, Write};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

/// How long the last events may take to the process that replaces this one.
const RELAY_END: Duration = Duration::from_secs(2);

/// Serves until SIGTERM or SIGINT. Then the readiness page answers 503 while connections are
/// accepted for `lame_duck_s` more; then it drains. A second such signal ends the process at once
/// with exit code 130. SIGUSR1 logs the counters. SIGHUP, or a change of a watched file, reloads
/// the configuration from `source`. SIGUSR2 starts the program again, as it is on disk then; when
/// it is ready, it takes over the listening sockets, and this process drains.
///
/// # Errors
/// The server cannot start, or a reactor or another thread has failed.
pub fn run(config: Config, source: Option<ConfigSource>) -> Result<(), Error> {
    watch::catch_panics();
    let predecessor = Predecessor::from_environment()?;
    let inherited = match &predecessor {
        Some(predecessor) => predecessor.sockets()?,
        None => Inherited::from_environment()?,
    };
    let program = Program::of_this_process();
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGUSR1, SIGUSR2, SIGHUP])
        .map_err(|e| Error::System("cannot catch signals", e))?;
    let hello = Greeting::new(&config);
    let config = config.with(Overrides::default()).map_err(Error::Config)?;
    let files = source.as_ref().map(ConfigSource::files).unwrap_or_default();
    let mut server = Server::launch(config, Some(&files), inherited)?;
    hello.print(&server);
    log_start(&server);
    let (report, received) = mpsc::channel();
    let (caught, handle) = (report.clone(), signals.handle());
    std::thread::spawn(move || {
        for signal in signals.forever() {
            if caught.send(ServerEvent::Signal(signal)).is_err() {
                return;
            }
        }
    });
    // What can fail comes before the hand-over, after which nobody else serves.
    let pid_file = prepare_pid_file(&server.env.config.pid_file)?;
    if let Some(predecessor) = predecessor {
        predecessor.replace(&mut server)?;
    }
    if let Some(Err(error)) = pid_file.as_ref().map(PidFile::publish) {
        tracing::error!(%error, "pid_file cannot be written");
    }
    let upgrades = Upgrades { program, running: None, relay: None, report };
    let (manager, watch) = (ServiceManager::from_environment(), Watch::new());
    let mut attendant =
        Attendant { server, source, events: received, watch, manager, pid_file, upgrades };
    attendant.manager.ready();
    let ended = attendant.attend().and_then(|reason| attendant.leave(&reason).map(|()| reason));
    attendant.upgrades.abort();
    if let Err(error) = &ended {
        tracing::error!(%error, "draining");
        attendant.manager.stopping();
    }
    let Attendant { mut server, events, pid_file, upgrades, .. } = attendant;
    server.stop();
    let is_replaced = matches!(ended, Ok(EndReason::Replaced));
    std::thread::spawn(move || end_by_signal(&events, is_replaced));
    // The error of the reactor itself is more specific than the message that one has ended.
    let outcome = server.join();
    upgrades.relay.into_iter().for_each(|relay| relay.finish(RELAY_END));
    handle.close();
    drop(pid_file);
    server.log_counts("stopped");
    outcome.and(ended.map(drop))
}

/// Ends the process at a SIGTERM or SIGINT during the drain. The first one is expected, and only
/// logged, if the drain has another cause.
fn end_by_signal(events: &mpsc::Receiver<ServerEvent>, mut is_first: bool) {
    while let Ok(event) = events.recv() {
        match event {
            ServerEvent::Signal(signal @ (SIGTERM | SIGINT)) if !is_first => {
                tracing::warn!(signal, "ended in the drain");
                end_at_once();
            }
            ServerEvent::Signal(signal @ (SIGTERM | SIGINT)) => {
                tracing::info!(signal, "already draining; a second signal ends the process");
                is_first = false;
            }
            ServerEvent::Signal(SIGUSR2) => tracing::warn!("no upgrade: this process drains"),
            _ => {}
        }
    }
}

fn prepare_pid_file(path: &str) -> Result<Option<PidFile>, Error> {
    if path.is_empty() {
        return Ok(None);
    }
    let prepared = PidFile::prepare(Path::new(path));
    prepared.map(Some).map_err(|error| Error::System("cannot write pid_file", error))
}

fn log_start(server: &Server) {
    for address in &server.listening {
        tracing::info!(%address, "listening");
    }
    server.driver.log();
    tracing::info!(
        event = "ENGINE_STARTED",
        reactors = server.threads.len(),
        io = server.driver.name,
        connections_per_reactor = server.driver.connections,
        fixed_bytes_per_reactor = server.driver.fixed_bytes,
        "started"
    );
}

/// The text that the program prints when it serves.
struct Greeting {
    demo: Option<(String, String, String)>,
    /// Whether each listener uses TLS.
    secure: Vec<bool>,
}

impl Greeting {
    fn new(config: &Config) -> Greeting {
        let demo = config.apps.first().filter(|_| config.is_demo);
        let demo_app =
            |app: &AppConfig| (app.id.clone(), app.key.clone(), app.secret.expose().into());
        let secure = config.listeners.iter().map(|listener| listener.tls.is_on()).collect();
        Greeting { demo: demo.map(demo_app), secure }
    }

    fn print(&self, server: &Server) {
        let mut text = String::new();
        for (address, secure) in server.listening.iter().zip(&self.secure) {
            let s = if *secure { "s" } else { "" };
            text += &match address {
                ListenAddress::Ip(address) => {
                    format!("polycast listens on http{s}://{address} and ws{s}://{address}\n")
                }
                ListenAddress::Unix(_) => {
                    format!("polycast listens on {address} for http{s} and ws{s}\n")
                }
            };
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
        // An error is ignored: standard output may be closed.
        let _ = io::stdout().write_all(text.as_bytes());
    }
}
