//! Files that hold one secret each, as Docker, Kubernetes and systemd mount them.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Maximum size of a file with a secret, and of the value of an environment variable that sets a
/// key, in bytes.
pub(super) const SECRET_BYTES: usize = 64 * 1024;

/// Why a file with a secret cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum SecretFileError {
    /// The file does not exist, or it cannot be read.
    #[error("the file {} cannot be read: {error}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system reports.
        #[source]
        error: io::Error,
    },
    /// It is a folder, a pipe or a device, which could block or never end.
    #[error("{} is not a regular file", .0.display())]
    NotRegular(PathBuf),
    /// The file is too large.
    #[error("the file {} has more than {SECRET_BYTES} bytes", .0.display())]
    TooLarge(PathBuf),
    /// The content is not a text.
    #[error("the file {} is not UTF-8", .0.display())]
    NotUtf8(PathBuf),
}

/// Reads the text of a file without the line break at its end.
pub(super) fn read(file: &Path) -> Result<String, SecretFileError> {
    let refuse = |error| SecretFileError::Read { file: file.to_owned(), error };
    // A pipe would block when it is opened, so the type of the file is checked first.
    if !file.metadata().map_err(refuse)?.is_file() {
        return Err(SecretFileError::NotRegular(file.to_owned()));
    }
    let mut content = Vec::new();
    let mut limited = File::open(file).map_err(refuse)?.take(SECRET_BYTES as u64 + 1);
    limited.read_to_end(&mut content).map_err(refuse)?;
    if content.len() > SECRET_BYTES {
        return Err(SecretFileError::TooLarge(file.to_owned()));
    }
    let text = String::from_utf8(content).map_err(|_| SecretFileError::NotUtf8(file.to_owned()))?;
    let line = text.strip_suffix('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
    Ok(line.unwrap_or(&text).to_owned())
}
