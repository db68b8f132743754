//! The node of a Zilliqa network whose epochs are published.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::error::{Error, Problem};
use super::schema::Secret;
use super::{size, webhook};
use crate::tls;

/// Nodes that are asked by JSON-RPC for new epochs.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct ZilliqaNode {
    /// Where they are, the preferred one first; none, and none is asked. May hold a secret, so it
    /// is never logged.
    pub urls: Vec<Secret>,
    /// Further header fields of the requests to them.
    pub headers: BTreeMap<String, Secret>,
    /// A PEM file of the authorities that vouch for them; empty: the system's.
    pub ca_file: String,
    /// How often the number of the latest epoch is asked for, in milliseconds.
    pub interval_ms: u64,
    /// How long one answer may take, in milliseconds.
    pub timeout_ms: u64,
    /// How long a node that has failed is left alone, in milliseconds; twice as long each time.
    pub retry_ms: u64,
    /// How long at most, in milliseconds.
    pub retry_max_ms: u64,
    /// After how long without a new epoch the other nodes are asked too, in milliseconds.
    pub stale_ms: u64,
    /// Epochs that are asked for at once when several are missing.
    pub ahead: usize,
    /// Bytes of one answer, and of all answers that make one epoch.
    #[serde(deserialize_with = "size::memory")]
    pub answer_bytes: usize,
    /// Epochs that are published after a restart, of those that came meanwhile; the rest is left
    /// out.
    pub replay: u64,
    /// How long these wait for clients that come back, in milliseconds.
    pub replay_wait_ms: u64,
    /// Keeps the number of the last epoch; empty: nothing does.
    pub state_file: String,
    /// Contracts and other accounts that are remembered as such.
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

/// Header fields that a request has anyway.
const TAKEN: [&str; 5] =
    ["host", "content-type", "content-length", "transfer-encoding", "connection"];

/// Checks what types cannot say; the keys in errors begin below the section.
pub(super) fn check(node: &ZilliqaNode) -> Result<(), Error> {
    for (index, url) in node.urls.iter().enumerate() {
        if !webhook::is_target(url.expose()) {
            let accepted = "`http://` or `https://`, a host, and nothing like `user@` or `#part`";
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
    webhook::check_headers(&node.headers, &TAKEN)
}

/// Looks for the files below `folder`, and reads the authorities once: what is wrong with them is
/// told when the server starts.
pub(super) fn prepare(node: &mut ZilliqaNode, folder: &Path) -> Result<(), Error> {
    for file in [&mut node.ca_file, &mut node.state_file] {
        if !file.is_empty() {
            *file = folder.join(&*file).to_string_lossy().into_owned();
        }
    }
    if !node.ca_file.is_empty() {
        let wrong = |error| Error::keyed("zilliqa.node.ca_file", Problem::File(error));
        tls::roots(Path::new(&node.ca_file)).map_err(wrong)?;
    }
    Ok(())
}
