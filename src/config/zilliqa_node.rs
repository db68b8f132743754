//! The nodes of a Zilliqa network from which epochs are fetched.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::error::{Error, Problem};
use super::outgoing;
use super::secret::Secret;
use super::size;
use crate::tls;

/// The nodes from which new epochs are fetched by JSON-RPC.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct ZilliqaNode {
    /// The URLs of the nodes (`http` or `https`), the preferred one first; empty (default) fetches
    /// no epochs. They may contain a secret, so they are never logged.
    pub urls: Vec<Secret>,
    /// Additional header fields of the requests to the nodes.
    pub headers: BTreeMap<String, Secret>,
    /// PEM file of the certificate authorities that the nodes are verified with; empty (default) is
    /// those of the system.
    pub ca_file: String,
    /// How often the number of the latest epoch is requested, in milliseconds. 10 to 3600000,
    /// default 1000.
    pub interval_ms: u64,
    /// Timeout of one request, in milliseconds. 10 to 600000, default 10000.
    pub timeout_ms: u64,
    /// How long a node is not asked after its first failure, in milliseconds; the time doubles with
    /// each further failure. 10 to 3600000, default 1000.
    pub retry_ms: u64,
    /// Maximum time for which a failed node is not asked, in milliseconds. `retry_ms` to 3600000,
    /// default 30000.
    pub retry_max_ms: u64,
    /// Time without a new epoch after which the other nodes are asked too, in milliseconds. 10 to
    /// 3600000, default 10000.
    pub stale_ms: u64,
    /// Maximum number of missing epochs that are requested at the same time. 1 to 64, default 4.
    pub ahead: usize,
    /// Maximum size of one response, and of all responses of one epoch together, in bytes. 64 KiB
    /// to 1 GiB, default 32 MiB.
    #[serde(deserialize_with = "size::memory")]
    pub answer_bytes: usize,
    /// Maximum number of missed epochs that are published after a restart; older ones are skipped.
    /// 0 to 1000000, default 100.
    pub replay: u64,
    /// How long missed epochs are held back after a restart, so that clients can reconnect, in
    /// milliseconds. 0 to 3600000, default 10000.
    pub replay_wait_ms: u64,
    /// File that stores the number of the last epoch; empty (default) stores nothing.
    pub state_file: String,
    /// Maximum number of accounts that are cached as contracts or as other accounts. 16 to
    /// 100000000, default 100000.
    pub contracts: usize,
}

impl Default for ZilliqaNode {
    fn default() -> ZilliqaNode {
        ZilliqaNode {
            urls: Vec::new(),
            headers: BTreeMap::new(),
            ca_file: String::new(),
            interval_ms: 1000,
            timeout_ms: 10_000,
            retry_ms: 1000,
            retry_max_ms: 30_000,
            stale_ms: 10_000,
            ahead: 4,
            answer_bytes: 32 * 1024 * 1024,
            replay: 100,
            replay_wait_ms: 10_000,
            state_file: String::new(),
            contracts: 100_000,
        }
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
    for (key, found, min, max, unit) in [
        ("interval_ms", node.interval_ms, 10, 3_600_000, " milliseconds"),
        ("timeout_ms", node.timeout_ms, 10, 600_000, " milliseconds"),
        ("retry_ms", node.retry_ms, 10, 3_600_000, " milliseconds"),
        ("retry_max_ms", node.retry_max_ms, node.retry_ms, 3_600_000, " milliseconds"),
        ("stale_ms", node.stale_ms, 10, 3_600_000, " milliseconds"),
        ("ahead", node.ahead as u64, 1, 64, ""),
        ("answer_bytes", node.answer_bytes as u64, 65_536, 1 << 30, " bytes"),
        ("replay", node.replay, 0, 1_000_000, ""),
        ("replay_wait_ms", node.replay_wait_ms, 0, 3_600_000, " milliseconds"),
        ("contracts", node.contracts as u64, 16, 100_000_000, ""),
    ] {
        if !(min..=max).contains(&found) {
            return Err(Error::keyed(key, Problem::Range { found, min, max, unit }));
        }
    }
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
        let wrong = |error| Error::keyed("ca_file", Problem::File(error));
        tls::roots(Path::new(&node.ca_file)).map_err(wrong)?;
    }
    Ok(())
}
