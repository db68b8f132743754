//! The file of a Unix socket.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The file of a Unix socket, which is removed when this is dropped, unless another file has taken
/// its place.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// The device and the number of the file.
    identity: (u64, u64),
    /// Whether this process removes the file, and not the other one of an upgrade.
    is_owned: bool,
}

impl SocketFile {
    /// The file that this process has made for a socket.
    ///
    /// # Errors
    /// The file cannot be found.
    pub(super) fn of_own(path: &Path) -> io::Result<SocketFile> {
        let identity = identity(&fs::symlink_metadata(path)?);
        Ok(SocketFile { path: path.to_owned(), identity, is_owned: true })
    }

    /// The file that another server has made, and removes until [`own`](Self::own) is called.
    pub(super) fn of_other(path: PathBuf, identity: (u64, u64)) -> SocketFile {
        SocketFile { path, identity, is_owned: false }
    }

    pub(super) fn identity(&self) -> (u64, u64) {
        self.identity
    }

    /// From now on this process removes the file.
    pub(super) fn own(&mut self) {
        self.is_owned = true;
    }

    /// From now on another process removes the file.
    pub(super) fn disown(&mut self) {
        self.is_owned = false;
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if !self.is_owned {
            return;
        }
        let is_ours =
            fs::symlink_metadata(&self.path).is_ok_and(|it| identity(&it) == self.identity);
        if is_ours && let Err(error) = fs::remove_file(&self.path) {
            let path = self.path.display();
            tracing::warn!(%path, %error, "the socket file cannot be removed");
        }
    }
}

fn identity(file: &fs::Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}
