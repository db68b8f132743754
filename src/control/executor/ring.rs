//! The runtime of tokio-uring, and what uses its files.

use std::io;
use std::path::Path;
use tokio_uring::fs::{File, OpenOptions, rename};

/// Whether this build has tokio-uring.
pub(super) const HAS_RUNTIME: bool = true;

pub(super) struct RingRuntime(tokio_uring::Runtime);

impl RingRuntime {
    /// # Errors
    /// The ring cannot be set up.
    pub(super) fn new() -> io::Result<RingRuntime> {
        tokio_uring::Runtime::new(&tokio_uring::builder()).map(RingRuntime)
    }

    pub(super) fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.0.block_on(future)
    }
}

/// See the function of this name in the parent module.
pub(super) async fn replace_file(
    path: &Path,
    beside: &Path,
    folder: &Path,
    bytes: Vec<u8>,
) -> io::Result<()> {
    let file = File::create(beside).await?;
    let (written, _) = file.write_all_at(bytes, 0).await;
    written?;
    file.sync_all().await?;
    file.close().await?;
    rename(beside, path).await?;
    let folder = OpenOptions::new().read(true).open(folder).await?;
    folder.sync_all().await?;
    folder.close().await
}
