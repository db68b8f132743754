//! The file with the number of the process, and the command that asks a server for an upgrade.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The time between two looks at the file.
const LOOK: Duration = Duration::from_millis(50);

/// The file with the number of this process. It is removed when this is dropped, unless another
/// process has replaced it.
#[derive(Debug)]
pub(super) struct PidFile {
    path: PathBuf,
    /// Another file in the same folder, which is renamed to be this one, so that no reader finds
    /// it incomplete.
    beside: PathBuf,
    /// Whether the file is another process's now.
    is_left: bool,
}

impl PidFile {
    /// Writes the other file, which shows that the folder is writable.
    ///
    /// # Errors
    /// No file can be created in the folder.
    pub(super) fn prepare(path: &Path) -> io::Result<PidFile> {
        let mut beside = path.as_os_str().to_owned();
        beside.push(format!(".{}", std::process::id()));
        let file = PidFile { path: path.to_owned(), beside: beside.into(), is_left: false };
        file.write_beside()?;
        Ok(file)
    }

    fn write_beside(&self) -> io::Result<()> {
        fs::write(&self.beside, format!("{}\n", std::process::id()))
    }

    /// Renames the other file to be this one.
    ///
    /// # Errors
    /// The folder is not writable any more.
    pub(super) fn publish(&self) -> io::Result<()> {
        fs::rename(&self.beside, &self.path)
    }

    /// Replaces the file by the same one, which tells [`request_upgrade`] that an upgrade has
    /// failed.
    pub(super) fn rewrite(&self) {
        if let Err(error) = self.write_beside().and_then(|()| self.publish()) {
            tracing::warn!(path = %self.path.display(), %error, "pid_file cannot be written");
        }
    }

    /// Leaves the file to the process that has taken over.
    pub(super) fn leave(mut self) {
        self.is_left = true;
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if self.is_left {
            return;
        }
        // It is there if it was never renamed.
        let _ = fs::remove_file(&self.beside);
        if pid_in(&self.path).is_ok_and(|pid| pid == std::process::id())
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "pid_file cannot be removed");
        }
    }
}

fn pid_in(path: &Path) -> io::Result<u32> {
    let text = fs::read_to_string(path)?;
    text.trim().parse().map_err(|_| io::Error::other("it does not contain the number of a process"))
}

/// Asks the server whose number is in the file `pid_file` to replace itself, and waits for the
/// outcome, at most for `limit`. Returns what has happened.
///
/// # Errors
/// There is no such server, it does not catch the signal, or it goes on.
pub fn request_upgrade(pid_file: &Path, limit: Duration) -> Result<String, String> {
    let path = pid_file.display();
    let look = || -> io::Result<(u32, u64)> {
        let inode = fs::metadata(pid_file)?.ino();
        Ok((pid_in(pid_file)?, inode))
    };
    let (old, inode) = look().map_err(|error| format!("pid_file {path}: {error}"))?;
    match catches(old, Signal::SIGUSR2) {
        Ok(true) => {}
        Ok(false) => {
            return Err(format!(
                "process {old} of {path} does not catch SIGUSR2, so it is no \
                                server that can be upgraded"
            ));
        }
        Err(error) => return Err(format!("there is no process {old} of {path}: {error}")),
    }
    let sent = kill(Pid::from_raw(old as i32), Signal::SIGUSR2);
    sent.map_err(|error| format!("the signal cannot be sent to process {old}: {error}"))?;
    let end = Instant::now() + limit;
    while Instant::now() < end {
        std::thread::sleep(LOOK);
        match look() {
            Ok((new, _)) if new != old => {
                return Ok(format!("process {new} has taken over from process {old}"));
            }
            Ok((_, other)) if other != inode => {
                return Err(format!("process {old} goes on; its log says why"));
            }
            // The file may be in the middle of being replaced.
            _ => {}
        }
    }
    Err(format!("no process has taken over from process {old} in {} s", limit.as_secs()))
}

/// Whether the process catches the signal. One that does not would be ended by it.
fn catches(pid: u32, signal: Signal) -> io::Result<bool> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    Ok(mask & (1 << (signal as i32 - 1)) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let name = format!("polycast-pid-{}-{name}", std::process::id());
            let folder = std::env::temp_dir().join(name);
            fs::create_dir_all(&folder).unwrap();
            Folder(folder)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn pid_file_is_removed_unless_another_process_has_replaced_it() {
        let folder = Folder::new("removed");
        let path = folder.0.join("pid");
        let files = || fs::read_dir(&folder.0).unwrap().count();
        let write = || {
            let file = PidFile::prepare(&path).unwrap();
            file.publish().unwrap();
            file
        };
        drop(PidFile::prepare(&path).unwrap());
        assert_eq!(files(), 0, "prepared only");
        let file = write();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        let inode = fs::metadata(&path).unwrap().ino();
        file.rewrite();
        assert_ne!(fs::metadata(&path).unwrap().ino(), inode);
        drop(file);
        assert_eq!(files(), 0);
        let file = write();
        fs::write(&path, "1\n").unwrap();
        drop(file);
        assert_eq!(fs::read_to_string(&path).unwrap(), "1\n");
        write().leave();
        assert!(path.exists(), "left to another process");
        assert!(PidFile::prepare(&folder.0.join("no/folder")).is_err());
    }

    #[test]
    fn pid_file_of_a_process_that_the_signal_would_end_is_refused() {
        let folder = Folder::new("refused");
        let path = folder.0.join("pid");
        let ask = || request_upgrade(&path, Duration::from_secs(1)).unwrap_err();
        assert!(ask().contains("pid"), "no file");
        fs::write(&path, "many").unwrap();
        assert!(ask().contains("number of a process"), "{}", ask());
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        fs::write(&path, child.id().to_string()).unwrap();
        assert!(ask().contains("does not catch SIGUSR2"), "{}", ask());
        assert!(child.try_wait().unwrap().is_none(), "it was ended");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(ask().contains("no process"), "{}", ask());
    }
}
