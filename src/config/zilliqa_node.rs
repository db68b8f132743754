//! The nodes of a Zilliqa network from which epochs are fetched.

use std::collections::BTreeMap;
use std::path::Path;

use super::outgoing;
use super::size;
use crate::settings::error::{Error, Problem};
use crate::settings::range::{GIB, HOUR_MS, KeyRange};
use crate::settings::secret::Secret;
use crate::settings::section::{Section, section};
use crate::tls;

section! {
    /// Nodes of the network from which epochs are fetched by JSON-RPC.
    pub struct ZilliqaNode {
        /// URLs of the nodes, http or https, the preferred one first; the others are asked when it
        /// fails or is behind. Empty fetches no epochs.
        pub urls: Vec<Secret> = Vec::new();
        /// Additional header fields of the requests: { Authorization = "Bearer ${TOKEN}" }.
        pub headers: BTreeMap<String, Secret> = BTreeMap::new();
        /// PEM file of the certificate authorities that the nodes of https URLs are verified with.
        /// Empty is those of the system.
        pub ca_file: String = String::new();
        /// How often the number of the latest epoch is requested.
        pub interval_ms: u64 = 1000, milliseconds(10..=HOUR_MS);
        /// Timeout of one request.
        pub timeout_ms: u64 = 10_000, milliseconds(10..=600_000);
        /// How long a node is not asked after its first failure; the time doubles with each further
        /// failure.
        pub retry_ms: u64 = 1000, milliseconds(10..=HOUR_MS);
        /// Maximum time for which a failed node is not asked. Milliseconds, retry_ms to 3600000.
        pub retry_max_ms: u64 = 30_000;
        /// Time without a new epoch after which the other nodes are asked too.
        pub stale_ms: u64 = 10_000, milliseconds(10..=HOUR_MS);
        /// Maximum number of missing epochs that are requested at the same time.
        pub ahead: usize = 4, count(1..=64);
        /// Maximum size of one response, and of all responses of one epoch together.
        #[serde(deserialize_with = "size::memory")]
        pub answer_bytes: usize = 32 * 1024 * 1024, bytes(65_536..=GIB);
        /// Maximum number of missed epochs that are published after a restart, the newest ones;
        /// older ones are skipped. Requires a state_file, or a cluster, where it also counts for a
        /// node that begins to fetch.
        pub replay: u64 = 100, count(0..=1_000_000);
        /// How long missed epochs are held back after a restart, so that clients can reconnect. In
        /// a cluster they are not.
        pub replay_wait_ms: u64 = 10_000, milliseconds(0..=HOUR_MS);
        /// File that stores the number of the last epoch, so that a restart neither skips nor
        /// repeats an epoch; a process that is killed may repeat the last one. Its folder must
        /// exist. Empty: after a restart, publishing begins with the next new epoch. Not in a
        /// cluster, whose log has the last epoch.
        pub state_file: String = String::new();
        /// Maximum number of accounts that are cached as contracts or as other accounts.
        pub contracts: usize = 100_000, count(16..=100_000_000);
    }
}

/// Header fields that the request sets itself.
const TAKEN: [&str; 5] =
    ["host", "content-type", "content-length", "transfer-encoding", "connection"];

/// Checks what types cannot express; the keys in errors are relative to the section.
pub(super) fn check(node: &ZilliqaNode) -> Result<(), Error> {
    for (index, url) in node.urls.iter().enumerate() {
        if !outgoing::is_target(url.expose()) {
            let accepted = "an `http://` or `https://` URL with a host, without `user@` and \
                            `#fragment`";
            return Err(Error::keyed(format!("urls[{index}]"), Problem::Secret { accepted }));
        }
    }
    node.check_ranges()?;
    KeyRange::milliseconds(node.retry_ms..=HOUR_MS).check("retry_max_ms", node.retry_max_ms)?;
    outgoing::check_headers(&node.headers, &TAKEN)
}

/// Resolves the file names relative to `folder` and reads `ca_file` once, so that a wrong file is
/// reported when the server starts. The keys in errors are relative to the section.
pub(super) fn prepare(node: &mut ZilliqaNode, folder: &Path) -> Result<(), Error> {
    for file in [&mut node.ca_file, &mut node.state_file] {
        if !file.is_empty() {
            *file = folder.join(&*file).to_string_lossy().into_owned();
        }
    }
    if !node.ca_file.is_empty() {
        let wrong = |error: tls::Error| Error::keyed("ca_file", Problem::Other(error.to_string()));
        tls::roots(Path::new(&node.ca_file)).map_err(wrong)?;
    }
    Ok(())
}
