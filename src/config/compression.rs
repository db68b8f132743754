//! The section `compression`: limits for the compression of WebSocket messages.

use serde::Deserialize;

use super::error::Error;
use super::range::{GIB, range};
use super::size;

/// Limits for the compression of WebSocket messages (RFC 7692). A route enables compression.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct CompressionLimits {
    /// Minimum size in bytes of a message that is compressed; shorter messages are sent
    /// uncompressed. 1 to 1 GiB, default 128.
    #[serde(deserialize_with = "size::memory")]
    pub min_bytes: usize,
    /// Maximum memory in bytes for the windows of `dedicated` connections on one reactor; beyond it
    /// connections get `shared`. 0 to 64 GiB, default 64 MiB.
    #[serde(deserialize_with = "size::memory")]
    pub windows_bytes: usize,
}

impl Default for CompressionLimits {
    fn default() -> CompressionLimits {
        CompressionLimits { min_bytes: 128, windows_bytes: 64 * 1024 * 1024 }
    }
}

/// How an endpoint compresses messages for clients that offer `permessage-deflate`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CompressionMode {
    /// No compression.
    #[default]
    Off,
    /// Without context takeover: no window is kept, so a broadcast is compressed once for all
    /// subscribers.
    Shared,
    /// With context takeover, as far as the client agrees: each connection keeps its own windows.
    Dedicated,
}

/// Checks the ranges of the section.
pub(super) fn check(section: &CompressionLimits) -> Result<(), Error> {
    range("compression.min_bytes", section.min_bytes as u64, 1..=GIB, " bytes")?;
    range("compression.windows_bytes", section.windows_bytes as u64, 0..=64 * GIB, " bytes")
}
