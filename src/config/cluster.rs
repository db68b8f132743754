//! The section `cluster`: the engine through which several nodes serve the same channels.

use serde::Deserialize;

use super::app::AppConfig;
use super::link::{ChannelLink, LinkEnd, LinkTarget};
use super::size;
use super::zenith::Zenith;
use crate::config::tls::in_file;
use crate::settings::error::{Error, Problem};
use crate::settings::range::{DAY_S, GIB, HOUR_MS};
use crate::settings::secret::Secret;
use crate::settings::section::{Section, section, words};
use crate::tls;
use std::path::Path;

mod login;
mod url;

pub use login::NatsIdentity;
pub use url::{EngineKind, EngineUrl};

words!(ClusterStorage);
words!(ClusterAcks);

/// Bytes of an entry of the log besides its events.
const ENTRY_BYTES: u64 = 4096;
/// How long a picture may differ from what the log has of it, in milliseconds.
const PICTURE_MS: u64 = 5000;
/// How long the log keeps a change of a picture beyond the times of nodes, in seconds.
const PICTURE_CHANGE_S: u64 = 30;
/// How much longer than a publish waits for the engine its connection must wait for the answer, in
/// milliseconds.
const ANSWER_MS: u64 = 2000;

section! {
    /// Several nodes that serve the same channels. Every event goes through the log of an engine,
    /// NATS JetStream, Redis or Valkey, and is delivered on all nodes in the order of that log; see
    /// docs/cluster.md.
    /// Without this section the process is alone. Changes take effect with a restart. What a
    /// cluster does not carry yet is refused, with the key that asks for it.
    pub struct Cluster {
        /// The servers of the engine, at least one and all of one kind. Of a NATS cluster, version
        /// 2.11 or newer with JetStream: `nats://HOST:PORT`, or `tls://HOST:PORT` for TLS. Of Redis
        /// 7.0 or newer or of Valkey: `redis://HOST:PORT`, of which the first primary is used;
        /// `redis+sentinel://HOST:PORT/MASTER` for Sentinel's servers and the name of the primary
        /// there; `redis+cluster://HOST:PORT` for servers of a cluster; `rediss` in place of
        /// `redis` for TLS.
        pub engine: Vec<String> = Vec::new();
        /// The beginning of the names of all subjects, streams and keys. Nodes with the same name
        /// are one cluster. 1 to 32 of A-Z, a-z, 0-9, `_` and `-`.
        pub name: String = "polycast".to_owned();
        /// The user who logs in at the engine; empty for none. With Redis, `requirepass` is the
        /// password of the user `default`.
        pub user: String = String::new();
        /// The user's password.
        pub password: Secret = Secret::new("");
        /// The token by which the process logs in at NATS, in place of a user; empty for none.
        pub token: Secret = Secret::new("");
        /// A file with the JWT of a user of NATS and the seed of its nkey, as `nsc generate creds`
        /// writes it, in place of a user; empty for none.
        pub creds_file: String = String::new();
        /// A file with the seed of a user's nkey for NATS, in place of a user; empty for none.
        pub nkey_file: String = String::new();
        /// A file with certificate authorities for TLS, in place of the system's.
        pub ca_file: String = String::new();
        /// A file in PEM with the certificate that the engine is shown in TLS, and its chain, for
        /// engines that ask for one; empty for none.
        pub cert_file: String = String::new();
        /// A file in PEM with the private key of `cert_file`.
        pub key_file: String = String::new();
        /// Where NATS stores the log: "file", which survives its restart, or "memory".
        pub storage: ClusterStorage = ClusterStorage::default();
        /// The number of servers of NATS that store the log.
        pub replicas: u16 = 1, count(1..=5);
        /// When Redis has stored an event, as an acknowledgement means it: "engine", when its
        /// primary has, or "replica", when one replica has, too.
        pub acks: ClusterAcks = ClusterAcks::default();
        /// The maximum size of the log. At 80 % events are refused with 503, so that what is kept
        /// for cache channels stays.
        #[serde(deserialize_with = "size::wide")]
        pub log_bytes: u64 = GIB, bytes(1 << 20..=1 << 44);
        /// How long the log keeps an event for nodes that were away. The events of cache channels
        /// are kept as long as their cache.
        pub keep_s: u64 = 60, seconds(10..=DAY_S);
        /// How long the log keeps a message of a reflect group that has a history, and an epoch of
        /// the Zilliqa dialect, at least keep_s. All nodes remove the message from the history
        /// then, and a node that starts knows the history from the log.
        pub history_s: u64 = 3600, seconds(10..=DAY_S);
        /// How long a publish waits for the engine before it fails: with 503 if it was surely not
        /// stored, with 504 if that is not known.
        pub hold_ms: u64 = 8000, milliseconds(1000..=15_000);
        /// How long the engine may take to acknowledge an event before it is sent again, less than
        /// hold_ms. The engine drops what it has stored already.
        pub append_ms: u64 = 2000, milliseconds(100..=14_999);
        /// The maximum size of what waits on this node for the engine. Events have seven eighths of
        /// it, and those of one channel that wait for the ones before half; beyond it a publish
        /// fails with 503 at once. The rest is for joins and what else is true of channels.
        #[serde(deserialize_with = "size::memory")]
        pub hold_bytes: usize = 8 * 1024 * 1024, bytes(1 << 20..=GIB);
        /// The maximum number of entries that are sent to the engine and not acknowledged. An entry
        /// has all events of one channel that have waited.
        pub in_flight: usize = 1024, count(1..=65_536);
        /// How often a node renews its entry in the log, by which the others know that it lives.
        pub beat_ms: u64 = 1000, milliseconds(100..=15_000);
        /// How long a node may be silent before the others remove it and what it had; at least four
        /// times beat_ms. A node whose renewals are not answered for three fifths of it publishes
        /// nothing until they are. The same for all nodes.
        pub dead_ms: u64 = 5000, milliseconds(1000..=HOUR_MS);
        /// How long no node is removed after the engine has come back, so that all nodes can
        /// reconnect.
        pub rejoin_ms: u64 = 5000, milliseconds(1000..=HOUR_MS);
        /// How long the members of a node that was drained stay, so that clients that reconnect to
        /// another node have never left; at least dead_ms.
        pub drain_linger_ms: u64 = 10_000, milliseconds(1000..=HOUR_MS);
        /// How long a channel has no subscriber on a node before the other nodes learn of it, so
        /// that a page that is loaded again changes nothing.
        pub linger_ms: u64 = 3000, milliseconds(0..=60_000);
        /// The time between two statements of a node of how many subscribers a channel has there,
        /// for applications that report or read these numbers. The first and the last subscriber
        /// are stated always.
        pub count_every_ms: u64 = 1000, milliseconds(100..=60_000);
    }
    and {
        /// The certificate authorities of `ca_file`.
        pub roots: Option<tls::Roots>;
        /// The content of `cert_file` and `key_file`.
        pub pair: Option<tls::Pair>;
        /// The content of `creds_file` or `nkey_file`.
        pub identity: Option<NatsIdentity>;
    }
}

/// Where the engine stores the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClusterStorage {
    /// On disk.
    #[default]
    File,
    /// In the memory of its servers.
    Memory,
}

/// When an event counts as stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClusterAcks {
    /// When the engine has answered.
    #[default]
    Engine,
    /// When a replica of the engine has it, too.
    Replica,
}

impl Cluster {
    /// The servers of the engine.
    pub fn urls(&self) -> Vec<EngineUrl> {
        self.engine.iter().filter_map(|url| EngineUrl::parse(url)).collect()
    }

    /// What the engine is. Of a section that was not checked it is that of the first valid URL.
    pub fn kind(&self) -> EngineKind {
        self.urls().first().map_or(EngineKind::Nats, |url| url.kind)
    }

    /// The largest event, in bytes, so that a few large ones do not fill the queue to the engine.
    pub fn entry_max(&self) -> u64 {
        self.hold_bytes as u64 / 8 - ENTRY_BYTES
    }

    /// How long after a change of a picture the whole picture is stated in the log, in
    /// milliseconds.
    pub fn picture_ms(&self) -> u64 {
        PICTURE_MS.min(self.keep_s * 1000 / 4)
    }

    /// How long the log keeps a change of a picture, in seconds: until the picture is stated, also
    /// if the node that does so has ended.
    pub fn picture_change_s(&self) -> u64 {
        let wait_ms = self.dead_ms + self.rejoin_ms + self.hold_ms;
        self.keep_s.max(PICTURE_CHANGE_S + 2 * wait_ms.div_ceil(1000))
    }

    /// Whether connections to the engine use TLS.
    pub fn has_tls(&self) -> bool {
        self.urls().iter().any(|url| url.is_tls)
    }
}

/// Checks the section by itself; the keys in errors are relative to it.
fn check_section(cluster: &Cluster) -> Result<(), Error> {
    cluster.check_ranges()?;
    if cluster.engine.is_empty() {
        return Err(Error::keyed("engine", Problem::Empty));
    }
    check_servers(cluster)?;
    let shape = |key: &str, found: &str, accepted| {
        Err(Error::keyed(key, Problem::Shape { found: found.to_owned(), accepted }))
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    if !(1..=32).contains(&cluster.name.len()) || !cluster.name.bytes().all(plain) {
        return shape("name", &cluster.name, "1 to 32 of A-Z, a-z, 0-9, `_` and `-`");
    }
    if cluster.replicas.is_multiple_of(2) {
        return shape("replicas", &cluster.replicas.to_string(), "1, 3 or 5");
    }
    if cluster.append_ms >= cluster.hold_ms {
        let (found, max) = (cluster.append_ms, cluster.hold_ms - 1);
        let problem = Problem::Relation { found, bound: "less than hold_ms", max };
        return Err(Error::keyed("append_ms", problem));
    }
    check_kind(cluster)?;
    check_nodes(cluster)?;
    check_login(cluster)
}

/// Checks the times of nodes against each other.
fn check_nodes(cluster: &Cluster) -> Result<(), Error> {
    let Cluster { beat_ms, dead_ms, drain_linger_ms, .. } = *cluster;
    for (key, found, min, unit) in [
        ("dead_ms", dead_ms, 4 * beat_ms, " milliseconds, because of beat_ms"),
        ("drain_linger_ms", drain_linger_ms, dead_ms, " milliseconds, because of dead_ms"),
    ] {
        if found < min {
            return Err(Error::keyed(key, Problem::Range { found, min, max: HOUR_MS, unit }));
        }
    }
    Ok(())
}

/// Checks that all URLs are valid and of one kind.
fn check_servers(cluster: &Cluster) -> Result<(), Error> {
    let mut first: Option<EngineUrl> = None;
    for (index, url) in cluster.engine.iter().enumerate() {
        let key = format!("engine[{index}]");
        let Some(url) = EngineUrl::parse(url) else {
            // The text may contain a password.
            let problem = Problem::Secret { accepted: EngineUrl::ACCEPTED };
            return Err(Error::keyed(key, problem));
        };
        let first = first.get_or_insert_with(|| url.clone());
        let is_same = (first.kind, &first.primary) == (url.kind, &url.primary);
        // Servers of a NATS cluster can be named by both of its schemes.
        if !is_same || first.is_tls != url.is_tls && url.kind.is_redis() {
            let words = "a URL with the scheme, and for Sentinel the name, of the first one";
            return Err(Error::keyed(key, Problem::Needed(words)));
        }
    }
    Ok(())
}

/// Refuses keys that only the other kind of engine has.
fn check_kind(cluster: &Cluster) -> Result<(), Error> {
    let needs = |key: &str, words| Err(Error::keyed(key, Problem::Needed(words)));
    if !cluster.kind().is_redis() {
        return match cluster.acks {
            ClusterAcks::Engine => Ok(()),
            ClusterAcks::Replica => needs("acks", "no value, because only Redis has it"),
        };
    }
    let words = "no value, because only NATS has it";
    if cluster.storage != ClusterStorage::default() {
        return needs("storage", words);
    }
    if cluster.replicas != 1 {
        return needs("replicas", words);
    }
    if !cluster.token.expose().is_empty() {
        return needs("token", words);
    }
    Ok(())
}

/// Checks the keys of the log-in against each other.
fn check_login(cluster: &Cluster) -> Result<(), Error> {
    let needs = |key: &str, words| Err(Error::keyed(key, Problem::Needed(words)));
    let has_user = !cluster.user.is_empty();
    if has_user && !cluster.token.expose().is_empty() {
        return needs("token", "no value, because `user` is set");
    }
    if has_user == cluster.password.expose().is_empty() {
        return needs("password", "`user` and `password`, or neither of them");
    }
    check_identity(cluster)?;
    let has_cert = !cluster.cert_file.is_empty();
    if has_cert == cluster.key_file.is_empty() {
        let key = if has_cert { "key_file" } else { "cert_file" };
        return needs(key, "`cert_file` and `key_file`, or neither of them");
    }
    for (key, file) in [("ca_file", &cluster.ca_file), ("cert_file", &cluster.cert_file)] {
        if !file.is_empty() && !cluster.has_tls() {
            return needs(key, "no value, because no server of `engine` has a scheme with TLS");
        }
    }
    Ok(())
}

/// Checks that there is one log-in only, and that the engine has it.
fn check_identity(cluster: &Cluster) -> Result<(), Error> {
    let needs = |key: &str, words| Err(Error::keyed(key, Problem::Needed(words)));
    let files = [("creds_file", &cluster.creds_file), ("nkey_file", &cluster.nkey_file)];
    for (key, _) in files.into_iter().filter(|(_, file)| !file.is_empty()) {
        if cluster.kind().is_redis() {
            return needs(key, "no value, because only NATS has it");
        }
        if !cluster.user.is_empty() {
            return needs(key, "no value, because `user` is set");
        }
        if !cluster.token.expose().is_empty() {
            return needs(key, "no value, because `token` is set");
        }
    }
    match files.iter().all(|(_, file)| !file.is_empty()) {
        true => needs("nkey_file", "no value, because `creds_file` is set"),
        false => Ok(()),
    }
}

/// What the check of the section needs of others.
pub(super) struct ClusterContext<'c> {
    pub(super) apps: &'c [AppConfig],
    pub(super) links: &'c [ChannelLink],
    pub(super) zenith: Option<&'c Zenith>,
    /// Whether `zilliqa.node.state_file` has a value.
    pub(super) has_state_file: bool,
    /// `timeouts.keep_alive_ms`, after which a connection that waits for its answer is closed.
    pub(super) keep_alive_ms: u64,
}

/// Checks the section, and that the configuration has nothing that a cluster does not carry. The
/// keys in errors are those of the whole configuration.
pub(super) fn check(cluster: &Cluster, context: &ClusterContext<'_>) -> Result<(), Error> {
    check_section(cluster).map_err(|error| error.under("cluster"))?;
    if let Some(key) = not_carried(context).into_iter().next() {
        let words = "no value, because a cluster (section `cluster`) does not carry this yet";
        return Err(Error::keyed(key, Problem::Needed(words)));
    }
    for (index, app) in context.apps.iter().enumerate() {
        let (found, max) = (app.limits.event_bytes as u64, cluster.entry_max());
        if found > max {
            let bound = "an eighth of cluster.hold_bytes";
            let problem = Problem::Relation { found, bound, max };
            return Err(Error::keyed(format!("apps[{index}].limits.event_bytes"), problem));
        }
    }
    let (found, min) = (context.keep_alive_ms, cluster.hold_ms + ANSWER_MS);
    if found < min {
        let unit = " milliseconds, because of cluster.hold_ms";
        let problem = Problem::Range { found, min, max: HOUR_MS, unit };
        return Err(Error::keyed("timeouts.keep_alive_ms", problem));
    }
    Ok(())
}

/// The keys of what a cluster does not carry, in the order of the sections.
fn not_carried(context: &ClusterContext<'_>) -> Vec<String> {
    let mut keys = Vec::new();
    if let Some(zenith) = context.zenith {
        let topics = zenith.topics.iter().enumerate();
        let hidden = topics.filter(|(_, topic)| topic.controller.starts_with('#'));
        keys.extend(hidden.map(|(index, _)| format!("zenith.topics[{index}].controller")));
    }
    if context.has_state_file {
        keys.push("zilliqa.node.state_file".to_owned());
    }
    for (index, link) in context.links.iter().enumerate() {
        // Channels whose names begin so have the tables of the dialect.
        let is_hidden = |end: &LinkEnd| {
            let (target, _, names) = end.target();
            target == LinkTarget::Zenith && names.starts_with('#')
        };
        if is_hidden(&link.source) {
            keys.push(format!("links[{index}].source.zenith"));
        }
        let views = link.views.iter().enumerate().filter(|(_, view)| is_hidden(view));
        keys.extend(views.map(|(view, _)| format!("links[{index}].views[{view}].zenith")));
    }
    keys
}

/// Reads the files of the log-in, relative to `folder`, unless they have been read before.
pub(super) fn prepare(cluster: &mut Cluster, folder: &Path) -> Result<(), Error> {
    let path = |file: &str| (!file.is_empty()).then(|| folder.join(file));
    if let (Some(file), None) = (path(&cluster.ca_file), &cluster.roots) {
        cluster.roots = Some(tls::roots(&file).map_err(in_file("ca_file"))?);
    }
    if let (Some(cert), None) = (path(&cluster.cert_file), &cluster.pair) {
        cluster.pair = Some(login::pair(&cert, &folder.join(&cluster.key_file))?);
    }
    if cluster.identity.is_none() {
        let seed = path(&cluster.nkey_file).map(|file| login::seed(&file));
        let identity = path(&cluster.creds_file).map(|file| login::credentials(&file)).or(seed);
        cluster.identity = identity.transpose()?;
    }
    Ok(())
}

#[cfg(all(feature = "cluster-nats", feature = "cluster-redis"))]
#[cfg(test)]
mod tests;
