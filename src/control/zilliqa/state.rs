//! The state file with the number of the last epoch. It is replaced atomically: a new file is
//! written beside it, synced and renamed, and then the folder is synced.

use crate::control::executor;
use std::cell::Cell;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// The maximum size of the file in bytes: 20 digits and a line feed.
const MAX_KEPT_EPOCHS: usize = 21;

/// Reads the number in the file; `None` if there is no file. Blocks until the disk answers.
///
/// # Errors
/// The file cannot be read, or does not hold a number.
pub(super) fn read(path: &Path) -> io::Result<Option<u64>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::with_capacity(MAX_KEPT_EPOCHS + 1);
    let read = file.take(MAX_KEPT_EPOCHS as u64 + 1).read_to_end(&mut bytes)?;
    let text = std::str::from_utf8(&bytes).unwrap_or_default();
    let number = text.trim_end().parse().ok().filter(|_| read <= MAX_KEPT_EPOCHS);
    number.map(Some).ok_or_else(|| {
        let path = path.display();
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{path} does not contain the number of an epoch"),
        )
    })
}

/// Replaces the file, on the ring of this thread or, without one, on another thread.
///
/// # Errors
/// A file operation fails. If that happens before the rename, the old file is still there.
pub(super) async fn write(path: &Path, number: u64) -> io::Result<()> {
    if executor::has_ring() {
        let bytes = text_of(number);
        return executor::replace_file(path, &beside(path), folder_of(path), bytes).await;
    }
    let path = path.to_owned();
    let written = tokio::task::spawn_blocking(move || write_blocking(&path, number));
    written.await.map_err(io::Error::other)?
}

fn write_blocking(path: &Path, number: u64) -> io::Result<()> {
    let beside = beside(path);
    let mut file = File::create(&beside)?;
    file.write_all(&text_of(number))?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    File::open(folder_of(path))?.sync_all()
}

/// The file that is written and then renamed to `path`.
fn beside(path: &Path) -> PathBuf {
    let mut beside = OsString::from(path);
    beside.push(".new");
    PathBuf::from(beside)
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

fn text_of(number: u64) -> Vec<u8> {
    format!("{number}\n").into_bytes()
}

/// Writes numbers to the state file one after the other. Of the numbers that arrive during a write,
/// only the last is written.
pub(super) struct StateFile {
    path: PathBuf,
    wanted: Option<u64>,
    task: Rc<Task>,
}

#[derive(Default)]
struct Task {
    busy: Cell<bool>,
    failed: Cell<Option<u64>>,
}

impl StateFile {
    pub(super) fn new(path: PathBuf) -> StateFile {
        StateFile { path, wanted: None, task: Rc::default() }
    }

    /// Requests a write of this number.
    pub(super) fn keep(&mut self, number: u64) {
        self.wanted = Some(number);
    }

    /// Starts the next write if none is in flight; `done` is called when the write has ended.
    /// Returns whether a write has failed since the last call. A failed write is not retried; the
    /// next number is written as usual.
    pub(super) fn turn(&mut self, done: impl FnOnce() + 'static) -> bool {
        let failed = self.task.failed.take().is_some();
        if !self.task.busy.get()
            && let Some(number) = self.wanted.take()
        {
            self.task.busy.set(true);
            let (path, task) = (self.path.clone(), self.task.clone());
            tokio::task::spawn_local(async move {
                if let Err(error) = write(&path, number).await {
                    tracing::error!(path = %path.display(), %error, "cannot write the state file");
                    task.failed.set(Some(number));
                }
                task.busy.set(false);
                done();
            });
        }
        failed
    }

    /// Whether no write is in flight or requested.
    pub(super) fn is_idle(&self) -> bool {
        !self.task.busy.get() && self.wanted.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::IoDriver;
    use crate::control::executor::Executor;

    fn folder(name: &str) -> PathBuf {
        let name = format!("polycast-state-{}-{name}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        folder
    }

    /// Runs a test without a ring and, if io_uring can be used, with one.
    fn run(test: impl AsyncFn()) {
        for io in [IoDriver::Epoll, IoDriver::IoUring] {
            match Executor::new(io) {
                Ok(executor) => executor.block_on(test()),
                Err(error) => println!("SKIPPED: {error}"),
            }
        }
    }

    #[test]
    fn state_file_is_read_as_written() {
        let folder = folder("written");
        let path = folder.join("epoch");
        run(async || {
            let _ = std::fs::remove_file(&path);
            assert_eq!(read(&path).expect("no file"), None);
            for number in [0, 7, u64::MAX] {
                write(&path, number).await.expect("written");
                assert_eq!(read(&path).expect("read"), Some(number));
            }
            let left = std::fs::read_dir(&folder).expect("a folder").count();
            assert_eq!(left, 1);
        });
        let _ = std::fs::remove_dir_all(folder);
    }

    #[test]
    fn state_file_refuses_other_content() {
        let folder = folder("refused");
        let path = folder.join("epoch");
        run(async || {
            for text in
                ["", "x\n", "-1\n", "18446744073709551616\n", "1 2\n", "1\n2222222222222222222222"]
            {
                std::fs::write(&path, text).expect("written");
                assert!(read(&path).is_err(), "{text:?}");
            }
            assert!(write(&folder.join("none/epoch"), 1).await.is_err());
        });
        let _ = std::fs::remove_dir_all(folder);
    }

    #[test]
    fn state_file_keeps_the_last_number() {
        let folder = folder("kept");
        let path = folder.join("epoch");
        run(async || {
            let mut state_file = StateFile::new(path.clone());
            for number in 0..100 {
                state_file.keep(number);
                assert!(!state_file.turn(|| ()));
            }
            while !state_file.is_idle() {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                state_file.turn(|| ());
            }
            assert_eq!(read(&path).expect("read"), Some(99));
            let mut state_file = StateFile::new(folder.join("none/epoch"));
            state_file.keep(1);
            assert!(!state_file.turn(|| ()));
            while !state_file.is_idle() {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
            assert!(state_file.turn(|| ()));
        });
        let _ = std::fs::remove_dir_all(folder);
    }
}
