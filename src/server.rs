//! Under construction.

use crate::config::Config;

/// Why the server stopped, or never started.
#[derive(Debug, thiserror::Error)]
#[error("the server is not built yet")]
pub struct Error;

impl Error {
    /// The exit code of the process.
    pub fn exit_code(&self) -> u8 {
        1
    }
}

/// Serves until a signal ends it.
pub fn run(_config: Config) -> Result<(), Error> {
    Err(Error)
}

/// What this kernel offers, in words, and whether it is enough.
pub fn doctor() -> (String, bool) {
    ("nothing is known about this kernel yet".to_owned(), false)
}
