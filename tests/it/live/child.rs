//! Runs the built program as a separate process.

use crate::net::*;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

/// The beginning of a test's configuration, before its application.
pub const BASE: &str = "threads = 2\npin = false\nlisteners = [{ address = '127.0.0.1:0' }]\n";
const APP: &str = "[[apps]]\nid = '1'\nkey = 'app-key'\nsecret = 'app-secret'\n";

/// A running server process.
pub struct Process {
    pub child: Child,
    pub address: SocketAddr,
    pub log: PathBuf,
}

/// The command that runs the program with this configuration, in a file named after `name`.
pub fn command(name: &str, config: &str) -> Command {
    let mut command = command_on_any_driver(name, config);
    command.args(["--io", io()]);
    command
}

/// The same without a choice of the driver.
pub fn command_on_any_driver(name: &str, config: &str) -> Command {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("live");
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join(format!("{name}.toml"));
    fs::write(&path, format!("{config}{APP}")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_polycast"));
    command.arg("--config").arg(path).stdin(Stdio::null());
    command
}

/// Replaces the configuration file of `name`: `more` follows the application.
pub fn rewrite(name: &str, more: &str) {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("live");
    let (path, beside) = (folder.join(format!("{name}.toml")), folder.join(format!("{name}.new")));
    let text = fs::read_to_string(&path).unwrap();
    let end = text.find(APP).unwrap() + APP.len();
    fs::write(&beside, format!("{}{more}", &text[..end])).unwrap();
    fs::rename(beside, path).unwrap();
}

impl Process {
    /// Starts the program, with its log in a file.
    pub fn start(name: &str, config: &str) -> Process {
        Process::start_with(name, config, "")
    }

    /// The same with further keys of the application.
    pub fn start_with(name: &str, config: &str, more: &str) -> Process {
        let log =
            PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("live").join(format!("{name}.log"));
        let mut command = command(name, config);
        rewrite(name, more);
        command.stderr(fs::File::create(&log).unwrap());
        Process::spawn(command, log)
    }

    /// Starts `command` and reads its listening address from its standard output.
    pub fn spawn(mut command: Command, log: PathBuf) -> Process {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.rsplit("://").next().and_then(|text| text.trim().parse().ok());
        let replies = || fs::read_to_string(&log).unwrap_or_default();
        let address = address.unwrap_or_else(|| panic!("{line}{}", replies()));
        Process { child, address, log }
    }

    pub fn signal(&self, signal: i32) {
        signal_to(self.child.id(), signal);
    }

    /// Waits for the end of the process; panics after a timeout.
    pub fn ended(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "the process does not end");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    pub fn logged(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// A number that is logged as `name=number`.
    pub fn logged_number(&self, name: &str) -> u64 {
        let text = self.logged();
        let rest = text.split(&format!("{name}=")).nth(1).unwrap_or_else(|| panic!("{text}"));
        let digits = rest.split(|c: char| !c.is_ascii_digit()).next().unwrap();
        digits.parse().unwrap()
    }

    /// The resident memory in bytes.
    pub fn resident(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// The peak of the resident memory in bytes.
    pub fn peak(&self) -> u64 {
        self.status("VmHWM:")
    }

    fn status(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn signal_to(process: u32, signal: i32) {
    // SAFETY: no memory is involved.
    assert_eq!(unsafe { libc::kill(process as i32, signal) }, 0);
}
