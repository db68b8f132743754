//! Stands in place of the runtime of tokio-uring, in builds with musl.

use std::io;
use std::path::Path;

/// Whether this build has tokio-uring.
pub(super) const HAS_RUNTIME: bool = false;

/// There are no values of this type.
pub(super) enum RingRuntime {}

impl RingRuntime {
    /// # Errors
    /// Always: `Unsupported`.
    pub(super) fn new() -> io::Result<RingRuntime> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn block_on<F: Future>(&self, _: F) -> F::Output {
        match *self {}
    }
}

/// See the function of this name in the parent module. Always fails: `Unsupported`.
pub(super) async fn replace_file(_: &Path, _: &Path, _: &Path, _: Vec<u8>) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
