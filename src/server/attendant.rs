//! What the main thread does while the reactors serve: signals, reloads of files, upgrades,
//! supervision.

use super::manager::ServiceManager;
use super::pid_file::PidFile;
use super::relay::EventRelay;
use super::upgrade::{Program, RunningUpgrade, UpgradeStep, obstacle};
use super::watch::Watch;
use super::{ConfigSource, Error, Server};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use std::io;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// The maximum interval at which the configuration files and the threads are checked.
const ATTENTION: Duration = Duration::from_millis(500);
/// How long a replaced server waits for the first requests of the connections that it has accepted.
const FIRST_REQUESTS: Duration = Duration::from_secs(2);
/// The time between two looks at their number.
const LOOK: Duration = Duration::from_millis(10);

/// The reason for a failed upgrade if the new process is not there any more.
const HAS_ENDED: &str = "the new server has ended";

/// What the main thread waits for.
#[derive(Debug)]
pub(super) enum ServerEvent {
    /// A signal was caught.
    Signal(i32),
    /// The new server of an upgrade is ready or not.
    Upgrade(UpgradeStep),
}

impl From<UpgradeStep> for ServerEvent {
    fn from(step: UpgradeStep) -> ServerEvent {
        ServerEvent::Upgrade(step)
    }
}

/// Why the server stops.
#[derive(Debug)]
pub(super) enum EndReason {
    /// This signal has asked for it.
    Signal(i32),
    /// Another process has taken over.
    Replaced,
}

/// What upgrades need, and the one that is in progress.
pub(super) struct Upgrades {
    pub(super) program: io::Result<Program>,
    pub(super) running: Option<RunningUpgrade>,
    /// The exchange of events with the server that has taken over.
    pub(super) relay: Option<EventRelay>,
    /// Where the outcome is sent.
    pub(super) report: mpsc::Sender<ServerEvent>,
}

impl Upgrades {
    /// Starts the new server.
    ///
    /// # Errors
    /// It cannot be started, or this process cannot be replaced. Holds why.
    fn begin(&mut self, server: &Server) -> Result<(), String> {
        if let Some(why) = obstacle(server) {
            return Err(why.to_owned());
        }
        let program = self.program.as_ref().map_err(|error| format!("unknown program: {error}"))?;
        let limit = Duration::from_secs(server.env.config.upgrade_timeout_s);
        let begun = RunningUpgrade::begin(program, server, limit, self.report.clone());
        self.running = Some(begun.map_err(|error| error.to_string())?);
        Ok(())
    }

    /// Ends the new server that is being started, if there is one.
    pub(super) fn abort(&mut self) {
        if let Some(upgrade) = self.running.take() {
            tracing::warn!(new = upgrade.pid(), "the upgrade is given up");
            upgrade.abort(false);
        }
    }
}

/// What the main thread attends to while the reactors serve.
pub(super) struct Attendant {
    pub(super) server: Server,
    pub(super) source: Option<ConfigSource>,
    pub(super) events: mpsc::Receiver<ServerEvent>,
    pub(super) watch: Watch,
    pub(super) manager: ServiceManager,
    pub(super) pid_file: Option<PidFile>,
    pub(super) upgrades: Upgrades,
}

impl Attendant {
    /// Waits until the server is to end, and returns why. Handles other signals and changed files
    /// meanwhile.
    ///
    /// # Errors
    /// A thread has ended, panicked, or stopped responding.
    pub(super) fn attend(&mut self) -> Result<EndReason, Error> {
        loop {
            if let Some(reason) = self.look(ATTENTION)? {
                return Ok(reason);
            }
        }
    }

    /// Prepares the end of the server. After a signal it is not ready any more, and serves on for
    /// `lame_duck_s`; a second signal ends the process. After an upgrade it serves on until the
    /// connections that it has accepted have sent their first request.
    ///
    /// # Errors
    /// As for [`attend`](Self::attend).
    pub(super) fn leave(&mut self, reason: &EndReason) -> Result<(), Error> {
        self.upgrades.abort();
        match *reason {
            EndReason::Signal(signal) => self.leave_after(signal)?,
            EndReason::Replaced => {
                self.server.env.runtime.departure.be_replaced();
                let end = Instant::now() + FIRST_REQUESTS;
                while self.server.fresh() != Some(0) && Instant::now() < end {
                    std::thread::sleep(LOOK);
                }
            }
        }
        tracing::info!(?reason, "draining");
        Ok(())
    }

    fn leave_after(&mut self, signal: i32) -> Result<(), Error> {
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
        Ok(())
    }

    /// Waits up to `limit` for an event, handles it, and then checks the files, the threads and
    /// the watchdog. Returns why the server is to end.
    fn look(&mut self, limit: Duration) -> Result<Option<EndReason>, Error> {
        let limit = self.manager.interval().map_or(limit, |interval| interval.min(limit));
        let is_asked = match self.events.recv_timeout(limit) {
            Ok(ServerEvent::Signal(signal @ (SIGTERM | SIGINT))) => {
                return Ok(Some(EndReason::Signal(signal)));
            }
            Ok(ServerEvent::Upgrade(step)) => {
                if self.finish_upgrade(step) {
                    return Ok(Some(EndReason::Replaced));
                }
                false
            }
            Ok(ServerEvent::Signal(signal)) => {
                self.on_signal(signal);
                signal == SIGHUP
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                return Err(Error::Failed("the thread that waits for signals has ended"));
            }
            Err(mpsc::RecvTimeoutError::Timeout) => false,
        };
        self.reload(is_asked);
        if self.watch.look(&self.server.threads())? {
            self.manager.feed();
        }
        Ok(None)
    }

    fn on_signal(&mut self, signal: i32) {
        match signal {
            SIGUSR1 => self.server.log_counts("counters"),
            SIGUSR2 if self.server.env.runtime.departure.is_leaving() => {
                tracing::warn!("no upgrade: this process is about to drain");
            }
            SIGUSR2 => match &self.upgrades.running {
                Some(upgrade) => {
                    tracing::warn!(new = upgrade.pid(), "no upgrade: one is in progress already");
                }
                None => {
                    if let Err(why) = self.upgrades.begin(&self.server) {
                        self.upgrade_failed(&why);
                    }
                }
            },
            _ => {}
        }
    }

    /// Reloads the configuration if this was asked for or a file has changed.
    fn reload(&mut self, is_asked: bool) {
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
    }

    /// Hands over to the new server if it is ready. Returns whether it has taken over.
    fn finish_upgrade(&mut self, step: UpgradeStep) -> bool {
        let Some(mut upgrade) = self.upgrades.running.take() else { return false };
        let handed = match step {
            UpgradeStep::Ready(version) => upgrade.hand_over(&mut self.server, version),
            UpgradeStep::Failed(error) => Err(error),
        };
        let Err(error) = handed else {
            self.pid_file.take().into_iter().for_each(PidFile::leave);
            self.manager.hand_over(upgrade.pid());
            upgrade.release();
            self.upgrades.relay = upgrade.into_relay();
            return true;
        };
        let why = describe(&error);
        let status = upgrade.abort(why == HAS_ENDED);
        self.server.accept_connections();
        match status {
            Some(status) => self.upgrade_failed(&format!("{why} ({status})")),
            None => self.upgrade_failed(&why),
        }
        false
    }

    fn upgrade_failed(&self, why: &str) {
        tracing::error!(why, "the upgrade has failed; this server goes on");
        self.server.env.runtime.control.upgrades_failed.add(1);
        if let Some(pid_file) = &self.pid_file {
            pid_file.rewrite();
        }
    }
}

/// Ends the process because of a second signal.
pub(super) fn end_at_once() -> ! {
    std::process::exit(130)
}

/// Why the new server is not ready, in words.
fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::TimedOut => "the new server is not ready in time".to_owned(),
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::ConnectionReset => HAS_ENDED.to_owned(),
        _ => error.to_string(),
    }
}
