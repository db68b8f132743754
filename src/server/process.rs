//! The server as a process: signals, reloads of its files, supervision, and what it prints.

use super::manager::ServiceManager;
use super::watch::{self, Watch};
use super::{ConfigSource, Error, Server};
use crate::config::{AppConfig, Config, ListenAddress, Overrides};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;
use std::io::{self, Write};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Serves until SIGTERM or SIGINT. Then the readiness page answers 503 while connections are
/// accepted for `lame_duck_s` more; then it drains. A second such signal ends the process at once
/// with exit code 130. SIGUSR1 logs the counters. SIGHUP, or a change of a watched file, reloads
/// the configuration from `source`.
///
/// # Errors
/// The server cannot start, or a reactor or another thread has failed.
pub fn run(config: Config, source: Option<ConfigSource>) -> Result<(), Error> {
    watch::catch_panics();
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGUSR1, SIGHUP])
        .map_err(|e| Error::System("cannot catch signals", e))?;
    let hello = Greeting::new(&config);
    let config = config.with(Overrides::default()).map_err(Error::Config)?;
    let files = source.as_ref().map(ConfigSource::files).unwrap_or_default();
    let server = Server::launch(config, Some(&files))?;
    hello.print(&server);
    log_start(&server);
    let (caught, received) = mpsc::channel();
    let handle = signals.handle();
    std::thread::spawn(move || {
        for signal in signals.forever() {
            if caught.send(signal).is_err() {
                return;
            }
        }
    });
    let manager = ServiceManager::from_environment();
    let watch = Watch::new();
    let mut attendant = Attendant { server, source, signals: received, watch, manager };
    attendant.manager.ready();
    let ended = attendant.attend().and_then(|signal| attendant.leave(signal));
    if let Err(error) = &ended {
        tracing::error!(%error, "draining");
        attendant.manager.stopping();
    }
    let Attendant { mut server, signals, .. } = attendant;
    server.stop();
    std::thread::spawn(move || {
        while let Ok(signal) = signals.recv() {
            if matches!(signal, SIGTERM | SIGINT) {
                end_at_once();
            }
        }
    });
    // The error of the reactor itself is more specific than the message that one has ended.
    let outcome = server.join();
    handle.close();
    server.log_counts("stopped");
    outcome.and(ended)
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

fn end_at_once() -> ! {
    std::process::exit(130)
}

/// The maximum interval at which the configuration files and the threads are checked.
const ATTENTION: Duration = Duration::from_millis(500);

/// What the main thread attends to while the reactors serve.
struct Attendant {
    server: Server,
    source: Option<ConfigSource>,
    signals: mpsc::Receiver<i32>,
    watch: Watch,
    manager: ServiceManager,
}

impl Attendant {
    /// Waits for the signal that ends the server, and returns it. Handles other signals and changed
    /// files meanwhile.
    ///
    /// # Errors
    /// A thread has ended, panicked, or stopped responding.
    fn attend(&mut self) -> Result<i32, Error> {
        loop {
            if let Some(signal) = self.look(ATTENTION)? {
                return Ok(signal);
            }
        }
    }

    /// After the `signal` that ends the server: is not ready any more, and serves on for
    /// `lame_duck_s`. A second such signal ends the process.
    ///
    /// # Errors
    /// As for [`attend`](Self::attend).
    fn leave(&mut self, signal: i32) -> Result<(), Error> {
        self.manager.stopping();
        self.server.leave();
        let lame_duck_s = self.server.env.config.lame_duck_s;
        if lame_duck_s > 0 {
            tracing::info!(signal, lame_duck_s, "not ready any more");
            let end = Instant::now() + Duration::from_secs(lame_duck_s);
            loop {
                let left = end.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                if self.look(left.min(ATTENTION))?.is_some() {
                    self.server.stop();
                    end_at_once();
                }
            }
        }
        tracing::info!(signal, "draining");
        Ok(())
    }

    /// Waits up to `limit` for a signal, handles it, and then checks the files, the threads and
    /// the watchdog. Returns a signal that ends the server.
    fn look(&mut self, limit: Duration) -> Result<Option<i32>, Error> {
        let limit = self.manager.interval().map_or(limit, |interval| interval.min(limit));
        let signal = match self.signals.recv_timeout(limit) {
            Ok(signal @ (SIGTERM | SIGINT)) => return Ok(Some(signal)),
            Ok(signal) => Some(signal),
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                return Err(Error::Failed("the thread that waits for signals has ended"));
            }
            Err(mpsc::RecvTimeoutError::Timeout) => None,
        };
        if signal == Some(SIGUSR1) {
            self.server.log_counts("counters");
        }
        let is_asked = signal == Some(SIGHUP);
        if let Some(source) = &mut self.source
            && (source.has_changed() || is_asked)
        {
            self.manager.reloading();
            self.server.reload(source);
            self.manager.ready();
        } else if is_asked {
            // Without the two messages, `systemctl reload` would wait for its timeout.
            self.manager.reloading();
            tracing::warn!("there is no configuration file to reload");
            self.manager.ready();
        }
        if self.watch.look(&self.server.threads())? {
            self.manager.feed();
        }
        Ok(None)
    }
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
