//! The replacement of a running server: it starts the program again, as it is on disk now, and
//! hands its listening sockets over.

use super::Server;
use super::channel::{UpgradeChannel, UpgradeMessage};
use super::relay::{EventRelay, RELAY_VERSION};
use super::take_over::VARIABLE;
use crate::hub::RelayRole;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

/// How long the reactors may take to stop accepting.
const PAUSE: Duration = Duration::from_secs(2);
/// How long the new server may take to accept once nobody else does, with what it is handed over.
const TAKE_OVER: Duration = Duration::from_secs(10);
/// How long a process that has closed its end of the channel may take to end.
const EXIT: Duration = Duration::from_secs(1);
/// Variables that are meant for this process only.
const OWN_VARIABLES: [&str; 4] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID"];

/// How this program was started.
#[derive(Clone, Debug)]
pub(super) struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

impl Program {
    /// How this process was started. Call it at the start, because the file may be replaced later.
    ///
    /// # Errors
    /// `/proc` is not there.
    pub(super) fn of_this_process() -> io::Result<Program> {
        let arguments: Vec<OsString> = std::env::args_os().collect();
        let current = std::env::current_exe()?;
        let called = arguments.first().map(PathBuf::from).unwrap_or_default();
        Ok(Program { path: path_of(&called, &current), arguments })
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        if let Some((own, others)) = self.arguments.split_first() {
            command.arg0(own).args(others);
        }
        command
    }
}

/// The path of a program that was called as `called`, and whose file was `current` at the start. It
/// may be a symbolic link, which leads to another file after an installation.
fn path_of(called: &Path, current: &Path) -> PathBuf {
    let has_folder = called.components().count() > 1;
    let is_same = || called.canonicalize().is_ok_and(|called| called == current);
    match has_folder && is_same() {
        true => std::path::absolute(called).unwrap_or_else(|_| current.to_owned()),
        false => current.to_owned(),
    }
}

/// What the waiting thread reports of an upgrade.
#[derive(Debug)]
pub(super) enum UpgradeStep {
    /// The new server is set up; it can exchange events in records of this version.
    Ready(u32),
    /// It is not, for this reason.
    Failed(io::Error),
}

/// A new server that is being started.
pub(super) struct RunningUpgrade {
    child: Child,
    channel: UpgradeChannel,
    /// The exchange of events with the new server.
    relay: Option<EventRelay>,
}

impl RunningUpgrade {
    /// Starts the new server, which has `limit` to be ready. The outcome is sent to `report`.
    ///
    /// # Errors
    /// The program cannot be started.
    pub(super) fn begin<E: From<UpgradeStep> + Send + 'static>(
        program: &Program,
        server: &Server,
        limit: Duration,
        report: Sender<E>,
    ) -> io::Result<RunningUpgrade> {
        let sockets = server.sockets_to_pass()?;
        let (channel, theirs) = UpgradeChannel::pair()?;
        let ours = channel.try_clone()?;
        let child = spawn(program, theirs)?;
        let upgrade = RunningUpgrade { child, channel, relay: None };
        tracing::info!(new = upgrade.pid(), program = %program.path.display(), "upgrade begun");
        let end = Instant::now() + limit;
        std::thread::spawn(move || {
            let sent = ours.send_sockets(&sockets, limit);
            let step = match sent.and_then(|()| ours.receive(end)) {
                Ok((UpgradeMessage::Ready { relay }, _)) => UpgradeStep::Ready(relay),
                Ok((other, _)) => UpgradeStep::Failed(unexpected(&other)),
                Err(error) => UpgradeStep::Failed(error),
            };
            let _ = report.send(step.into());
        });
        Ok(upgrade)
    }

    /// The number of the new server's process.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Stops accepting and lets the new server accept, which orders the events of both from then
    /// on if it knows records of this `version`. If it does not accept, this one continues.
    ///
    /// # Errors
    /// A reactor does not stop accepting, or the new server does not accept in time.
    pub(super) fn hand_over(&mut self, server: &mut Server, version: u32) -> io::Result<()> {
        let begin = Instant::now();
        // The process that this one has replaced would get no events of the new one.
        if let Some(relay) = server.relay.take() {
            relay.close();
        }
        let handed = match server.pause_accepting(PAUSE) {
            false => Err(io::Error::other("a reactor does not stop accepting")),
            true => self.let_accept(server, version).and_then(|()| {
                self.channel.expect(&UpgradeMessage::Serving, Instant::now() + TAKE_OVER)
            }),
        };
        if handed.is_ok() {
            self.relay.iter().for_each(EventRelay::commit);
            server.disown_files();
            let paused_us = begin.elapsed().as_micros();
            tracing::info!(new = self.pid(), paused_us, "the new server accepts connections");
        }
        handed
    }

    /// Tells the new server that it may accept, and begins to exchange events with it.
    fn let_accept(&mut self, server: &Server, version: u32) -> io::Result<()> {
        if version != RELAY_VERSION || server.env.config.cluster.is_some() {
            if server.env.config.cluster.is_none() {
                tracing::warn!("no events are exchanged with the new server");
            }
            return self.channel.send(&UpgradeMessage::Accept, &[], TAKE_OVER);
        }
        let (ours, theirs) = UnixStream::pair()?;
        self.relay = Some(server.begin_relay(RelayRole::Replaced, ours)?);
        self.channel.send(&UpgradeMessage::Accept, &[theirs.as_fd()], TAKE_OVER)
    }

    /// The exchange of events with the new server.
    pub(super) fn into_relay(self) -> Option<EventRelay> {
        self.relay
    }

    /// Tells the new server that the service manager knows it.
    pub(super) fn release(&self) {
        if let Err(error) = self.channel.send(&UpgradeMessage::Released, &[], TAKE_OVER) {
            tracing::warn!(%error, "the new server does not listen to this one any more");
        }
    }

    /// Ends the new server. Returns its exit status, if it has ended by itself; if it `is_ending`,
    /// waits a moment for that.
    pub(super) fn abort(mut self, is_ending: bool) -> Option<String> {
        drop(self.channel);
        let end = Instant::now() + EXIT;
        let mut ended = self.child.try_wait().ok().flatten();
        while ended.is_none() && is_ending && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
            ended = self.child.try_wait().ok().flatten();
        }
        if ended.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        // The new server was the only other holder of the relay's socket.
        self.relay.take().into_iter().for_each(EventRelay::revert);
        ended.map(|status| status.to_string())
    }
}

fn unexpected(message: &UpgradeMessage) -> io::Error {
    io::Error::other(format!("unexpected message: {message:?}"))
}

/// Starts the program with its end of the channel as standard input.
fn spawn(program: &Program, channel: OwnedFd) -> io::Result<Child> {
    let mut command = program.command();
    command.stdin(channel).env(VARIABLE, std::process::id().to_string());
    OWN_VARIABLES.iter().for_each(|name| _ = command.env_remove(name));
    command.spawn().map_err(|error| {
        let text = format!("{} cannot be started: {error}", program.path.display());
        io::Error::new(error.kind(), text)
    })
}

/// Why this process cannot be replaced at all, if it cannot.
pub(super) fn obstacle(server: &Server) -> Option<&'static str> {
    if std::process::id() == 1 {
        return Some("this is process 1 of its container, with which the new one would end");
    }
    if server.env.config.process.seccomp {
        return Some("process.seccomp forbids this process to start programs");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upgrade_follows_the_symbolic_link_by_which_the_program_was_called() {
        let folder = std::env::temp_dir().join(format!("polycast-link-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (file, link, other) = (folder.join("1.0"), folder.join("current"), folder.join("2.0"));
        std::fs::write(&file, "").unwrap();
        std::fs::write(&other, "").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let current = file.canonicalize().unwrap();
        assert_eq!(path_of(&link, &current), link);
        assert_eq!(path_of(Path::new("polycast"), &current), current, "found in PATH");
        assert_eq!(path_of(&other, &current), current, "the name is not that of the program");
        assert_eq!(path_of(&folder.join("none"), &current), current);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
