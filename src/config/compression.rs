//! The section `compression`: limits for the compression of WebSocket messages.

use serde::Deserialize;

use super::size;
use crate::settings::range::GIB;
use crate::settings::section::{section, words};

words!(CompressionMode);

section! {
    /// Compression of WebSocket messages (permessage-deflate). A route enables it with
    /// `compression`.
    pub struct CompressionLimits {
        /// Minimum size of a message that is compressed; shorter messages are sent uncompressed.
        #[serde(deserialize_with = "size::memory")]
        pub min_bytes: usize = 128, bytes(1..=GIB);
        /// Maximum memory for the windows of "dedicated" connections on one reactor, about 450 KiB
        /// each; beyond it connections get "shared". Decompressed data of messages that are
        /// incomplete or wait to be processed counts too; beyond the limit such messages wait in
        /// compressed form. Of complete messages longer than 64 KiB, a reactor decompresses one at
        /// a time even beyond the limit.
        #[serde(deserialize_with = "size::memory")]
        pub windows_bytes: usize = 64 * 1024 * 1024, bytes(0..=64 * GIB);
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
