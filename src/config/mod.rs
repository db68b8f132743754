//! Reads a configuration file into typed, checked sections. An error names the file, line, key and
//! what is accepted.
//!
//! ```text
//! file -> toml | yaml -> tree (positions) -> layer (keys from environment variables)
//!                     -> read (references, types) -> check (ranges, relations)
//! ```
//!
//! There is one schema: [`Config`], with one file for each section. The file extension selects the
//! format. Every [`Config`] that this module returns has been checked, so its users need no further
//! checks. It is plain data, which includes the content of the files that it names: two can be
//! compared, and [`crate::runtime`] makes the live objects from it.

mod acme;
mod app;
mod app_history;
mod app_limits;
mod broadcastt;
mod catalog;
mod certificate;
mod cluster;
mod compression;
mod console;
mod env;
mod environment;
mod generate;
mod guard;
mod import;
mod layer;
mod limits;
mod link;
mod listen_address;
mod listener;
mod load;
mod log;
mod metrics;
mod model;
mod outgoing;
mod parts;
mod process;
mod profile;
mod proxy;
mod pusher;
mod read;
mod reference;
mod reflect;
mod risks;
mod root;
mod route;
mod schema;
mod secret_file;
mod size;
mod template;
#[cfg(all(feature = "models", feature = "yaml", feature = "zenith"))]
#[cfg(test)]
mod tests;
mod text;
mod timeouts;
mod tls;
mod tree;
mod trusted;
mod webhook;
#[cfg_attr(not(feature = "yaml"), path = "yaml/absent.rs")]
mod yaml;
mod zenith;
mod zilliqa;
mod zilliqa_node;

use std::path::Path;

pub use crate::settings::{Error, Pattern, Position, Problem, Secret};
pub use crate::tls::{Mutual, TlsVersion};
pub use crate::upstream::Balance;
pub use acme::{Acme, AcmeChallenge, StoredCertificate};
pub use app::{AppConfig, AppDialect, BadSignature, DuplicateSubscribe, KeyPair};
pub use app_history::AppHistory;
pub use app_limits::AppLimits;
pub use broadcastt::BroadcasttConfig;
pub use certificate::{Fingerprint, GuardCertificate, GuardKind};
pub use cluster::{Cluster, ClusterAcks, ClusterStorage, EngineKind, EngineUrl, NatsIdentity};
pub use compression::{CompressionLimits, CompressionMode};
pub use console::Console;
pub use env::Lookup;
pub use environment::Environment;
pub use generate::{NoRandomness, generate};
pub use guard::{CREDENTIALS, Credentials, GuardConfig, GuardKey};
pub use import::migrate::{ForeignServer, Imported, OF_PROCESS, UnknownServer, import};
pub use limits::Limits;
pub use link::{ChannelLink, LinkEnd, LinkTarget, may_lead_to, own_state, reflect_routes};
pub use listen_address::{FileMode, InvalidAddress, ListenAddress};
pub use listener::Listener;
pub use load::ConfigInput;
pub use log::{Log, LogFormat};
pub use metrics::Metrics;
pub use process::Process;
pub use profile::Profile;
pub use proxy::{Proxy, ProxyTls, Upstream};
pub use pusher::PusherConfig;
pub use reference::{example, reference};
pub use reflect::{Grouping, Reflect};
pub use root::{Config, IoDriver, SlowConsumer};
pub use route::{Condition, EndpointKind, Route, RouteQuery};
pub use schema::schema;
pub use template::{Captures, NameTemplate};
pub use timeouts::Timeouts;
pub use tls::{Certificate, Tls};
pub use trusted::{ForwardedHeaders, ProxyProtocol, TrustedProxy};
pub use webhook::{HookEvent, Webhook};
pub use zenith::{
    FEED_STATES, OWN_CONTROLLERS, RetainConfig, Zenith, ZenithFeed, ZenithService, ZenithToken,
    ZenithTopic,
};
pub use zilliqa::{Contracts, Zilliqa, ZilliqaErrors, ZilliqaPoll, ZilliqaWire};
pub use zilliqa_node::ZilliqaNode;

/// The format of a configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileFormat {
    /// TOML 1.1.
    Toml,
    /// YAML 1.2.
    Yaml,
}

impl FileFormat {
    /// The format for a file extension: `.toml`, `.yaml` or `.yml`; `None` for any other.
    pub fn of(path: &Path) -> Option<FileFormat> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "toml" => Some(FileFormat::Toml),
            "yaml" | "yml" => Some(FileFormat::Yaml),
            _ => None,
        }
    }
}

/// Command line options that override the configuration.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// Replaces the addresses of the listeners, unless empty. The listener's other settings stay.
    pub listen: Vec<ListenAddress>,
    /// Replaces `threads`.
    pub threads: Option<usize>,
    /// Sets `pin` to false.
    pub no_pin: bool,
    /// Replaces `io`.
    pub io: Option<IoDriver>,
    /// Replaces `log.level`.
    pub log_level: Option<String>,
    /// Replaces `log.format`.
    pub log_format: Option<LogFormat>,
}

impl Config {
    /// Applies the command line options and checks the result. Files that have not been read yet
    /// are read.
    ///
    /// # Errors
    /// As for [`Config::load`]; also if `--listen` is ambiguous because the listeners have
    /// different settings.
    pub fn with(mut self, overrides: Overrides) -> Result<Config, Error> {
        if !overrides.listen.is_empty() {
            let listeners = listener::listen_at(&self.listeners, &overrides.listen);
            self.listeners = listeners.map_err(|error| error.named("command line"))?;
        }
        self.threads = overrides.threads.unwrap_or(self.threads);
        self.pin &= !overrides.no_pin;
        self.io = overrides.io.unwrap_or(self.io);
        self.log.level = overrides.log_level.unwrap_or(self.log.level);
        self.log.format = overrides.log_format.unwrap_or(self.log.format);
        let here = Path::new("");
        let checked = self.check().and_then(|()| self.prepare_tls(here));
        let checked = checked.and_then(|()| self.prepare_cluster(here));
        match checked.and_then(|()| self.prepare_proxies(here)) {
            Ok(()) => Ok(self),
            Err(error) => Err(error.named("command line")),
        }
    }
}
