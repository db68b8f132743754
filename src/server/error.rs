//! Why the server stopped, or did not start.

use crate::config::{self, ListenAddress};
use crate::driver::SetupError;
use std::io;

/// Why the server stopped, or did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// io_uring cannot be used.
    #[error("{error}; {advice}")]
    NoIoUring {
        /// The step of the set-up that failed, with the kernel's error.
        error: SetupError,
        /// How to fix it.
        advice: String,
    },
    /// The server cannot listen on an address.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// The address.
        address: ListenAddress,
        /// The error of the operating system.
        error: io::Error,
    },
    /// A socket that another process has passed cannot be used. Holds which one, and why.
    #[error("inherited sockets: {0}")]
    Inherited(String),
    /// The server that this one is to replace has not handed over. Holds why.
    #[error("the running server has not handed over: {0}")]
    NotHandedOver(io::Error),
    /// The limit of open files is too low for the configuration.
    #[error("the limit of open files is {limit}, and {needed} are needed; {advice}")]
    OpenFiles {
        /// The limit.
        limit: u64,
        /// The lowest limit with which the server starts.
        needed: u64,
        /// How to raise it.
        advice: String,
    },
    /// A system call of the set-up or of a running reactor failed.
    #[error("{0}: {1}")]
    System(&'static str, io::Error),
    /// The configuration is invalid.
    #[error("{0}")]
    Config(config::Error),
    /// A part of the server failed without which the process does not continue.
    #[error("{0}")]
    Failed(&'static str),
    /// The thread of this reactor has panicked.
    #[error("reactor {0} ended unexpectedly")]
    Panicked(usize),
}

impl Error {
    /// The exit code of the process for this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::NoIoUring { .. } => 78,
            Error::Config(_) => 2,
            Error::Listen { .. }
            | Error::Inherited(_)
            | Error::NotHandedOver(_)
            | Error::OpenFiles { .. }
            | Error::System(..)
            | Error::Failed(_)
            | Error::Panicked(_) => 1,
        }
    }
}
