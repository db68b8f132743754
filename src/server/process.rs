//! The server as a process: signals, reloads of its files, supervision, and what it prints.

use super::watch::{self, Watch};
use super::{ConfigSource, Error, Server};
use crate::config::{AppConfig, Config, ListenAddress, Overrides};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;
use std::io::{self, Write};
use std::sync::mpsc;
use std::time::Duration;

/// Serves until SIGTERM or SIGINT, then drains; a second such signal ends the process at once with
/// exit code 130. SIGUSR1 logs the counters. SIGHUP, or a change of a watched file, reloads the
/// configuration from `source`.
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
    let mut server = Server::launch(config, Some(&files))?;
    hello.print(&server);
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
    // The error of the reactor itself is more specific than the message that one has ended.
    let outcome = server.join();
    handle.close();
    server.log_counts("stopped");
    outcome.and(ended.map(drop))
}

/// The interval at which the configuration files and the threads are checked.
const ATTENTION: Duration = Duration::from_millis(500);

/// Waits for the signal that ends the server, and returns it. Handles other signals and changed
/// files meanwhile.
///
/// # Errors
/// A thread has ended, panicked, or stopped responding.
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
            tracing::warn!("there is no configuration file to reload");
        }
        watch.look(&server.threads())?;
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
