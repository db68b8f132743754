//! The configuration sections: every key with its type, unit and default.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use super::app::{AppDialect, BadSignature, DuplicateSubscribe, KeyPair};
use super::broadcastt::BroadcasttConfig;
use super::guard::GuardConfig;
use super::listener::Listener;
use super::model::Prepared;
use super::pattern::Pattern;
use super::process::Process;
use super::profile::Profile;
use super::proxy::{self, Proxy};
use super::pusher::PusherConfig;
use super::reflect::Reflect;
use super::route::{self, Condition};
use super::size;
use super::webhook::Webhook;
use super::zenith::Zenith;
use super::zilliqa::Zilliqa;
use crate::limits;
use crate::model::spec::{Catalog, Governance};

/// A whole configuration, checked and ready for use.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct Config {
    /// Number of reactor threads, one per core. 0 to [`limits::MAX_CORES`]; 0 (default) is one for
    /// each core.
    pub threads: usize,
    /// Whether each reactor thread is pinned to one core. Default: true.
    pub pin: bool,
    /// How long a stopping server lets connections finish, in seconds. 0 to 86400, default 10.
    pub drain_s: u64,
    /// What happens to a connection whose write queue is full. Default: close.
    pub slow_consumer: SlowConsumer,
    /// Logging to standard error.
    pub log: Log,
    /// The addresses to listen on; at least one. Default: 127.0.0.1:6001.
    pub listeners: Vec<Listener>,
    /// The privileges that the process drops once it listens.
    pub process: Process,
    /// Limits of the whole server.
    pub limits: Limits,
    /// Timeouts after which a connection is closed.
    pub timeouts: Timeouts,
    /// Limits for the compression of WebSocket messages. A route enables compression.
    pub compression: CompressionLimits,
    /// Settings of the Pusher dialect.
    pub pusher: PusherConfig,
    /// Settings of the Zilliqa dialect.
    pub zilliqa: Zilliqa,
    /// Settings of the Broadcastt dialect.
    pub broadcastt: BroadcasttConfig,
    /// Settings of the Zenith dialect; `None` if it is not served.
    pub zenith: Option<Box<Zenith>>,
    /// The console: the HTML page that shows and tries out the server.
    pub console: Console,
    /// The counters for a monitoring system.
    pub metrics: Metrics,
    /// The guards that routes refer to by name.
    pub guards: Vec<GuardConfig>,
    /// The sources of message schemas.
    pub catalogs: Vec<Catalog>,
    /// The routes, at least one. The first route that matches a request chooses its endpoint.
    pub routes: Vec<Route>,
    /// The applications; at least one, unless a route or the Zenith section does not need any.
    pub apps: Vec<AppConfig>,
    /// Warnings about settings that are accepted but have no effect, one line each with file, line
    /// and key.
    #[serde(skip)]
    pub warnings: Vec<String>,
    /// Whether this is [`Config::demo`], which may listen only on loopback addresses.
    #[serde(skip)]
    pub is_demo: bool,
}

/// Every key at its default. It has no application, so it does not pass the check by itself.
impl Default for Config {
    fn default() -> Config {
        Config {
            threads: 0,
            pin: true,
            drain_s: 10,
            slow_consumer: SlowConsumer::default(),
            log: Log::default(),
            listeners: vec![Listener::default()],
            process: Process::default(),
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            compression: CompressionLimits::default(),
            pusher: PusherConfig::default(),
            zilliqa: Zilliqa::default(),
            broadcastt: BroadcasttConfig::default(),
            zenith: None,
            console: Console::default(),
            metrics: Metrics::default(),
            guards: Vec::new(),
            catalogs: Vec::new(),
            routes: Route::defaults(),
            apps: Vec::new(),
            warnings: Vec::new(),
            is_demo: false,
        }
    }
}

/// What happens to a slow consumer: a connection whose write queue is full because its peer reads
/// too slowly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SlowConsumer {
    /// The connection is closed; its client can reconnect and knows that it missed messages.
    #[default]
    Close,
    /// Messages that do not fit into the write queue are dropped.
    Drop,
}

/// Logging to standard error.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct Log {
    /// Log level or filter directives of `tracing_subscriber::EnvFilter`, such as `info` or
    /// `warn,polycast=debug`. Default: `info`.
    pub level: String,
    /// The format of log lines: text (default) or JSON.
    pub format: LogFormat,
    /// Whether events (log lines with the field `event`) are also written to standard output,
    /// whatever `level` is, in the format of Zilla's exporter of type stdout. Default: false.
    pub events_to_stdout: bool,
}

impl Default for Log {
    fn default() -> Log {
        Log { level: "info".to_owned(), format: LogFormat::default(), events_to_stdout: false }
    }
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Readable text.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Limits of the whole server.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct Limits {
    /// Maximum number of connections of the process; 0 (default) is what the kernel's limit of open
    /// files allows.
    pub connections: usize,
    /// Number of application WebSockets on the whole process from which the server counts as
    /// overloaded and refuses further ones with close code 4100. 0 (default) is never.
    pub overload_sockets: usize,
    /// Number of bytes that wait to be written, over all connections of the process, from which the
    /// server counts as overloaded. 0 (default) to 1024 GiB; 0 is never.
    #[serde(deserialize_with = "size::wide")]
    pub overload_bytes: u64,
    /// Number of bytes that connections and channels may hold on the whole process. 16 MiB to 65536
    /// GiB; 0 (default) is half of the memory that is available to the process.
    #[serde(deserialize_with = "size::wide")]
    pub memory_bytes: u64,
    /// Minimum rate in bytes per second at which a peer must read what waits for it, averaged over
    /// `timeouts.send_ms`; a slower peer is closed. 0 to 1048576, default 1024; 0 is no minimum.
    pub min_bytes_per_s: u64,
    /// Maximum number of connections from one peer address; 0 (default) is unlimited.
    pub connections_per_address: usize,
    /// Maximum number of connections of one reactor that have not sent a whole request yet. At the
    /// limit, further connections wait in the listen backlog, and the oldest silent connection is
    /// closed after two seconds. 1 to 1048576, default 8192.
    pub handshakes: usize,
    /// Maximum number of pings, pongs, empty messages and empty fragments from one client per
    /// second; the connection is closed beyond it. 10 to 60000, default 2000.
    pub control_frames_per_s: u16,
    /// Maximum size in bytes of cached last events and topic pictures on one reactor; beyond it the
    /// oldest are evicted. 0 to 64 GiB, default 64 MiB.
    #[serde(deserialize_with = "size::memory")]
    pub cached_bytes: usize,
    /// Number of receive buffers of one reactor. A power of two, 16 to 32768, default 1024.
    pub receive_buffers: usize,
    /// Size of one receive buffer in bytes. 512 to 65536, default 4096.
    #[serde(deserialize_with = "size::memory")]
    pub receive_buffer_bytes: usize,
    /// Maximum size of the write queue of one connection in bytes. 64 KiB to 1 GiB, default 1 MiB.
    #[serde(deserialize_with = "size::memory")]
    pub write_queue_bytes: usize,
    /// Capacity in messages of the mailbox from one reactor to another one. A power of two, 16 to
    /// 1048576, default 4096.
    pub mailbox_messages: usize,
    /// Maximum payload of one WebSocket frame from a client, in bytes. 125 to 1 GiB and at most
    /// `message_bytes`, default 16 MiB.
    #[serde(deserialize_with = "size::wide")]
    pub frame_bytes: u64,
    /// Maximum payload of one WebSocket message from a client after reassembly, in bytes. 125 to 1
    /// GiB, default 16 MiB.
    #[serde(deserialize_with = "size::wide")]
    pub message_bytes: u64,
    /// Maximum payload of one WebSocket message in bytes on routes with a model. 125 to 1 GiB,
    /// default 1 MiB.
    #[serde(deserialize_with = "size::wide")]
    pub model_message_bytes: u64,
    /// Maximum number of frames of one fragmented WebSocket message. 1 to 16777216, default 131072.
    pub fragments: u32,
    /// Maximum size of one HTTP request head in bytes. 1 KiB to 64 KiB and at most
    /// `http_body_bytes`, default 16 KiB.
    #[serde(deserialize_with = "size::memory")]
    pub http_head_bytes: usize,
    /// Maximum number of header fields of one HTTP request. 16 to 1024, default 64.
    pub http_head_fields: usize,
    /// Maximum size of one HTTP request body in bytes. 1 KiB to 1 GiB, default 1 MiB.
    #[serde(deserialize_with = "size::memory")]
    pub http_body_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 0,
            overload_sockets: 0,
            overload_bytes: 0,
            memory_bytes: 0,
            min_bytes_per_s: 1024,
            connections_per_address: 0,
            handshakes: 8192,
            control_frames_per_s: 2000,
            cached_bytes: 64 * 1024 * 1024,
            receive_buffers: 1024,
            receive_buffer_bytes: 4096,
            write_queue_bytes: 1024 * 1024,
            mailbox_messages: 4096,
            frame_bytes: limits::WS_FRAME_BYTES,
            message_bytes: limits::WS_MESSAGE_BYTES,
            model_message_bytes: limits::MODEL_MESSAGE_BYTES,
            fragments: limits::WS_FRAGMENTS,
            http_head_bytes: limits::HTTP_HEAD_BYTES,
            http_head_fields: limits::HTTP_HEADERS,
            http_body_bytes: limits::HTTP_BODY_BYTES,
        }
    }
}

/// Timeouts after which a connection is closed, in milliseconds. Each is 1 to 3600000.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct Timeouts {
    /// From the accept to the end of the TLS handshake. Default: 10000.
    pub handshake_ms: u64,
    /// From the first byte of a request (or the accept, or the end of the TLS handshake) to the end
    /// of the request head. Default: 10000.
    pub head_ms: u64,
    /// From the end of a request head to the end of the request body. Default: 30000.
    pub body_ms: u64,
    /// Idle time between two requests of one connection (keep-alive). Default: 60000.
    pub keep_alive_ms: u64,
    /// From the first byte of a WebSocket message to its last byte. Default: 60000.
    pub message_ms: u64,
    /// For the WebSocket close handshake, and for lingering after an HTTP response that closes the
    /// connection. Default: 5000.
    pub close_ms: u64,
    /// Time in which a write queue that is not empty makes no progress. Default: 30000.
    pub send_ms: u64,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            handshake_ms: 10_000,
            head_ms: 10_000,
            body_ms: 30_000,
            keep_alive_ms: 60_000,
            message_ms: 60_000,
            close_ms: 5_000,
            send_ms: 30_000,
        }
    }
}

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

/// The console: an HTML page that connects, subscribes and publishes, and shows channels and
/// events.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct Console {
    /// The token that a request must present to see the console; at least 16 characters. Empty
    /// (default): no console, except with [`Config::demo`], where no token is needed.
    pub token: Secret,
}

impl Default for Console {
    fn default() -> Console {
        Console { token: Secret::new("") }
    }
}

/// The counters in the Prometheus text format.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct Metrics {
    /// The token that a request must present to read the counters; at least 16 characters. Empty
    /// (default): only clients on this machine may read them.
    pub token: Secret,
    /// Whether any client may read the counters if `token` is empty. Default: false.
    pub open: bool,
    /// Whether the counters are also given under Zilla's metric names. Default: false.
    pub zilla: bool,
    /// The value of the label `namespace` of Zilla's metrics. 1 to 128 characters, default
    /// `polycast`.
    pub namespace: String,
}

impl Default for Metrics {
    fn default() -> Metrics {
        let (token, namespace) = (Secret::new(""), "polycast".to_owned());
        Metrics { token, open: false, zilla: false, namespace }
    }
}

/// A route: which requests reach which endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct Route {
    /// The conditions of the route. At least one must hold; an empty list matches every request.
    #[serde(default)]
    pub when: Vec<Condition>,
    /// The guards of the route by name, each with the roles that the client must have. All guards
    /// must admit the request.
    #[serde(default)]
    pub guarded: BTreeMap<String, Vec<String>>,
    /// Names of the listeners whose requests the route takes; empty is all listeners.
    #[serde(default)]
    pub listeners: Vec<String>,
    /// The endpoint that handles the matching requests.
    pub endpoint: EndpointKind,
    /// The HTTP status with which [`EndpointKind::Reject`] answers. 400 to 599, default 403.
    #[serde(default = "route::reject")]
    pub status: u16,
    /// How the WebSocket messages of the route are compressed. Default: off.
    #[serde(default)]
    pub compression: CompressionMode,
    /// Maximum payload of one message to [`EndpointKind::Echo`] in bytes, 125 to
    /// `limits.message_bytes`; 0 (default) is `limits.message_bytes`.
    #[serde(default, deserialize_with = "size::wide")]
    pub message_bytes: u64,
    /// Whether a POST request with a streamed body and a streamed response may be used in place of
    /// a WebSocket; only for `echo`, `reflect` and `proxy`. Default: false.
    #[serde(default)]
    pub stream: bool,
    /// The groups of [`EndpointKind::Reflect`].
    #[serde(default)]
    pub reflect: Reflect,
    /// The upstream servers of [`EndpointKind::Proxy`].
    #[serde(default, deserialize_with = "proxy::shared")]
    pub proxy: Option<Arc<Proxy>>,
    /// The models that the WebSocket messages of the route must match.
    #[serde(default)]
    pub model: Governance,
    /// The rules that are prepared from `model`.
    #[serde(skip)]
    pub rules: Prepared,
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

/// Defines [`EndpointKind`], with the dialects that the table says routes choose. The first of them
/// stands beside `echo`: the order is that of error messages.
macro_rules! endpoints {
    (
        applications { $($applications:tt)* }
        routes {
            $(#[$first_cfg:meta])* $First:ident in $first_folder:ident {
                name: $first_name:tt,
                about: $first_about:tt,
                section: $first_section:expr,
                has_api: $first_has_api:tt,
            }
            $($(#[$cfg:meta])* $Name:ident in $folder:ident {
                name: $name:tt, about: $about:tt, section: $section:expr, has_api: $has_api:tt,
            })*
        }
    ) => {
        /// The endpoint of a route.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
        #[serde(rename_all = "lowercase")]
        pub enum EndpointKind {
            /// A WebSocket that sends each message back to its sender.
            Echo,
            #[doc = $first_about]
            #[serde(rename = $first_name)]
            $(#[$first_cfg])*
            $First,
            /// A WebSocket that is forwarded to an upstream server: see [`Proxy`].
            Proxy,
            /// The console page: see [`Console`].
            Console,
            /// The counters: see [`Metrics`].
            Metrics,
            /// Health check: whether the process runs; for a path that ends in `/ready`, whether it
            /// accepts more work.
            Health,
            /// The applications, by the paths of their dialects.
            Apps,
            $(
                #[doc = $about]
                #[serde(rename = $name)]
                $(#[$cfg])*
                $Name,
            )*
            /// No endpoint: the request is answered with the route's `status`.
            Reject,
        }

        impl EndpointKind {
            /// Whether the endpoint is a dialect that routes choose.
            pub fn is_dialect(self) -> bool {
                match self {
                    $(#[$first_cfg])*
                    EndpointKind::$First => true,
                    $($(#[$cfg])* EndpointKind::$Name => true,)*
                    _ => false,
                }
            }

            /// Whether a dialect answers the HTTP requests of the endpoint.
            pub fn has_api(self) -> bool {
                match self {
                    EndpointKind::Apps => true,
                    $(#[$first_cfg])*
                    EndpointKind::$First => $first_has_api,
                    $($(#[$cfg])* EndpointKind::$Name => $has_api,)*
                    _ => false,
                }
            }
        }
    };
}
dialects!(endpoints);

impl EndpointKind {
    /// Whether the endpoint answers WebSocket handshakes.
    pub fn has_sockets(self) -> bool {
        use EndpointKind::{Apps, Echo, Proxy, Reject};
        matches!(self, Echo | Proxy | Apps | Reject) || self.is_dialect()
    }
}

/// One application.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct AppConfig {
    /// Identifies the application in the HTTP API; unique. ASCII letters, digits, `_`, `.` and `-`.
    pub id: String,
    /// Identifies the application to clients; public and unique. ASCII letters, digits, `_`, `.`
    /// and `-`.
    pub key: String,
    /// The secret that signs HTTP API requests and channel authorizations. Not empty.
    pub secret: Secret,
    /// Further pairs of key and secret that are also accepted, so that a pair can be replaced while
    /// clients are connected.
    #[serde(default)]
    pub keys: Vec<KeyPair>,
    /// A name for display; it has no effect.
    #[serde(default)]
    pub name: String,
    /// The protocol that the application's clients use. Default: `pusher`.
    #[serde(default)]
    pub dialect: AppDialect,
    /// The service whose defaults apply to the keys that the application does not set. Default:
    /// `polycast`.
    #[serde(default)]
    pub profile: Profile,
    /// Whether the application accepts connections and requests. Default: true.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Whether connections without TLS are refused. Default: false.
    #[serde(default)]
    pub require_tls: bool,
    /// Origins from which browsers may connect; empty (default) is any.
    #[serde(default)]
    pub allowed_origins: Vec<Pattern>,
    /// Whether a signed request is refused if it is more than 600 seconds old. Default: true.
    #[serde(default = "yes")]
    pub check_timestamp: bool,
    /// The reply to a subscription that the connection already has. Default: error.
    #[serde(default)]
    pub duplicate_subscribe: DuplicateSubscribe,
    /// What happens to a connection that subscribes to a channel with a wrong signature. Default:
    /// refuse.
    #[serde(default)]
    pub bad_signature: BadSignature,
    /// Whether the server sends a `pusher:error` with the same code before every close with a code
    /// of the dialect. Default: false.
    #[serde(default)]
    pub error_before_close: bool,
    /// Whether users whose id is a number may sign in. Default: false.
    #[serde(default)]
    pub numeric_user_ids: bool,
    /// Whether HTTP API reads of channels include counts that the request did not ask for. Default:
    /// false.
    #[serde(default)]
    pub counts_in_reads: bool,
    /// Origins of web pages that may use the HTTP API (CORS); empty (default) is none.
    #[serde(default)]
    pub cors_origins: Vec<Pattern>,
    /// Whether clients may publish `client-` events. Default: false.
    #[serde(default)]
    pub client_events: bool,
    /// Whether subscribers are sent the subscription count of their channel, on all channels except
    /// presence channels. Default: false.
    #[serde(default)]
    pub subscription_count: bool,
    /// Whether users who sign in are notified when users of their watchlist come online or go
    /// offline. Default: false.
    #[serde(default)]
    pub watchlist: bool,
    /// Time in seconds within which a connection must sign in or join a private or presence
    /// channel. 0 to 86400; 0 (default) is no such deadline.
    #[serde(default)]
    pub authorise_within_s: u64,
    /// Activity timeout: silence in seconds after which client and server ping each other. 0 to
    /// 86400; 0 (default) uses the value of the dialect's section.
    #[serde(default)]
    pub activity_timeout_s: u64,
    /// The close code for the connections of a user whom the application terminates. 4000 to 4299,
    /// default 4009.
    #[serde(default = "terminate")]
    pub terminate_close_code: u16,
    /// The webhook endpoints that receive the events of the application's channels.
    #[serde(default)]
    pub webhooks: Vec<Webhook>,
    /// Limits of this application.
    #[serde(default)]
    pub limits: AppLimits,
}

/// A text that must not be logged: its `Debug` output does not show it.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(secret: impl Into<String>) -> Secret {
        Secret(secret.into())
    }

    /// Returns the secret.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(not shown)")
    }
}

/// Limits of one application.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct AppLimits {
    /// Maximum number of connections; 0 (default) is unlimited.
    pub connections: usize,
    /// Maximum number of channels that have subscribers. Public channels, whose names clients can
    /// make up, may use only a part of it. 1 to 16777216, default 100000.
    pub channels: usize,
    /// Maximum number of channels that one connection may subscribe to. 1 to 1048576, default 1000.
    pub subscriptions_per_connection: usize,
    /// Maximum rate of subscriptions of one client per second, with bursts of up to
    /// `subscriptions_per_connection`. 0 to 60000, default 100; 0 is unlimited.
    pub subscriptions_per_s: u16,
    /// Maximum length of a channel name in bytes. 1 to 1024, default 200.
    pub channel_name_length: usize,
    /// Maximum length of an event name in bytes. 1 to 1024, default 200.
    pub event_name_length: usize,
    /// Maximum number of channels that one request may publish to. 1 to 10000, default 100.
    pub channels_per_trigger: usize,
    /// Maximum number of channels that one response may list. 1 to 1048576, default 100000.
    pub listed_channels: usize,
    /// Maximum size of the data of one event in bytes. 1 to 1 GiB and at most the server's
    /// `http_body_bytes` and half of its `write_queue_bytes`, default 10240.
    #[serde(deserialize_with = "size::memory")]
    pub event_bytes: usize,
    /// Maximum size of one message from a client in bytes. 125 to 1 GiB and at most the server's
    /// `message_bytes`, default 65536.
    #[serde(deserialize_with = "size::wide")]
    pub message_bytes: u64,
    /// Maximum number of events in one batch. 1 to 1000, default 10.
    pub batch_events: usize,
    /// Maximum number of users in one presence channel; 0 is unlimited. Default: 100.
    pub presence_members: usize,
    /// Maximum size in bytes of the `channel_data` of one user of a presence channel. 1 to 1 MiB,
    /// default 1024.
    #[serde(deserialize_with = "size::memory")]
    pub presence_member_bytes: usize,
    /// Maximum length of a user id in bytes. 1 to 1024, default 128.
    pub user_id_length: usize,
    /// Maximum number of users in one watchlist; of a longer one the first ones count. 1 to 1000,
    /// default 100.
    pub watchlist_length: usize,
    /// Maximum number of events that one client may publish per second. 0 to 60000, default 10; 0
    /// is unlimited.
    pub client_events_per_s: u16,
    /// How long a cache channel keeps its last event, in seconds. 1 to 86400, default 1800.
    pub cache_ttl_s: u64,
}

impl Default for AppLimits {
    fn default() -> AppLimits {
        AppLimits {
            connections: 0,
            channels: 100_000,
            subscriptions_per_connection: 1000,
            subscriptions_per_s: 100,
            channel_name_length: 200,
            event_name_length: 200,
            channels_per_trigger: 100,
            listed_channels: 100_000,
            event_bytes: 10_240,
            message_bytes: 65_536,
            batch_events: 10,
            presence_members: 100,
            presence_member_bytes: 1024,
            user_id_length: 128,
            watchlist_length: 100,
            client_events_per_s: 10,
            cache_ttl_s: 1800,
        }
    }
}

fn terminate() -> u16 {
    4009
}

fn yes() -> bool {
    true
}
