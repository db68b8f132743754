//! The sections of a configuration: every key, its type, its unit and its default.

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
    /// Reactors, one pinned thread each; 0 is one for each core. At most [`limits::MAX_CORES`].
    pub threads: usize,
    /// Whether each reactor is pinned to one core.
    pub pin: bool,
    /// How long a stopping server lets connections finish, in seconds.
    pub drain_s: u64,
    /// What happens to a connection whose write queue is full.
    pub slow_consumer: SlowConsumer,
    /// What is logged, and how.
    pub log: Log,
    /// Addresses to listen on; at least one.
    pub listeners: Vec<Listener>,
    /// What the process gives up once it listens.
    pub process: Process,
    /// Bounds of the whole server.
    pub limits: Limits,
    /// Times after which a connection is given up.
    pub timeouts: Timeouts,
    /// Compression of WebSocket messages, where a route switches it on.
    pub compression: CompressionLimits,
    /// The Pusher dialect.
    pub pusher: PusherConfig,
    /// The Zilliqa dialect.
    pub zilliqa: Zilliqa,
    /// The Broadcastt dialect.
    pub broadcastt: BroadcasttConfig,
    /// The Zenith dialect, if it is served.
    pub zenith: Option<Box<Zenith>>,
    /// The page for people.
    pub console: Console,
    /// The counters for a monitoring system.
    pub metrics: Metrics,
    /// Who may use guarded routes.
    pub guards: Vec<GuardConfig>,
    /// Where the schemas of messages come from.
    pub catalogs: Vec<Catalog>,
    /// Which endpoint a request reaches; the first that matches. At least one.
    pub routes: Vec<Route>,
    /// Applications; at least one.
    pub apps: Vec<AppConfig>,
    /// What is accepted and has no effect, each in one line with file, line and key.
    #[serde(skip)]
    pub warnings: Vec<String>,
    /// Whether this is [`Config::demo`], which only loopback addresses may serve.
    #[serde(skip)]
    pub is_demo: bool,
}

/// Every key at its default. Without any application, which a checked configuration never is.
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

/// What happens to a connection that does not read as fast as it is written to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SlowConsumer {
    /// It is closed; its client can connect again and knows that it missed something.
    #[default]
    Close,
    /// Messages that do not fit its write queue are dropped.
    Drop,
}

/// What is logged, and how: to standard error.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct Log {
    /// Directives of `tracing_subscriber::EnvFilter`, such as `info` or `warn,polycast=debug`.
    pub level: String,
    /// Lines of text or of JSON.
    pub format: LogFormat,
    /// Whether events, which are the lines with the field `event`, are written to standard output,
    /// too, whatever `level` is, in the form of Zilla's exporter of type stdout.
    pub events_to_stdout: bool,
}

impl Default for Log {
    fn default() -> Log {
        Log { level: "info".to_owned(), format: LogFormat::default(), events_to_stdout: false }
    }
}

/// The shape of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for machines.
    Json,
}

/// Bounds of the whole server.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct Limits {
    /// Connections of the process; 0 is what the kernel's file limit gives.
    pub connections: usize,
    /// WebSockets of applications on the whole process with which it counts as overloaded, and
    /// sends further ones elsewhere; 0 is never.
    pub overload_sockets: usize,
    /// Bytes that wait to be written, on the whole process, with which it counts as overloaded; 0
    /// is never.
    #[serde(deserialize_with = "size::wide")]
    pub overload_bytes: u64,
    /// Bytes that connections and channels may hold on the whole process; 0 is half of what the
    /// system has for it.
    #[serde(deserialize_with = "size::wide")]
    pub memory_bytes: u64,
    /// Bytes a second that a peer has to read, averaged over `timeouts.send_ms`; 0 is none.
    pub min_bytes_per_s: u64,
    /// Connections from one peer address; 0 is unlimited.
    pub connections_per_address: usize,
    /// Connections of one reactor that have not sent a whole request yet. One more, and the oldest
    /// of them is ended.
    pub handshakes: usize,
    /// Pings, pongs, empty messages and empty fragments from one client in a second.
    pub control_frames_per_s: u16,
    /// Bytes of kept last events and pictures on one reactor; beyond it the oldest go.
    #[serde(deserialize_with = "size::memory")]
    pub cached_bytes: usize,
    /// Receive buffers of one reactor; a power of two.
    pub receive_buffers: usize,
    /// Bytes of one receive buffer.
    #[serde(deserialize_with = "size::memory")]
    pub receive_buffer_bytes: usize,
    /// Bytes that may wait to be written to one connection.
    #[serde(deserialize_with = "size::memory")]
    pub write_queue_bytes: usize,
    /// Messages that one reactor may have under way to another one; a power of two.
    pub mailbox_messages: usize,
    /// Payload bytes of one WebSocket frame from a client.
    #[serde(deserialize_with = "size::wide")]
    pub frame_bytes: u64,
    /// Payload bytes of one WebSocket message from a client, after reassembly.
    #[serde(deserialize_with = "size::wide")]
    pub message_bytes: u64,
    /// The same where a model looks at the messages.
    #[serde(deserialize_with = "size::wide")]
    pub model_message_bytes: u64,
    /// Frames of one fragmented WebSocket message.
    pub fragments: u32,
    /// Bytes of one HTTP request head.
    #[serde(deserialize_with = "size::memory")]
    pub http_head_bytes: usize,
    /// Header fields of one HTTP request.
    pub http_head_fields: usize,
    /// Bytes of one HTTP request body.
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

/// Times after which a connection is given up, all in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct Timeouts {
    /// From the accept to the end of the TLS handshake.
    pub handshake_ms: u64,
    /// From the first byte of a request (or the accept, or the TLS handshake) to the end of its
    /// head.
    pub head_ms: u64,
    /// From the end of a request's head to the end of its body.
    pub body_ms: u64,
    /// Idle time between two requests of one connection.
    pub keep_alive_ms: u64,
    /// From the first byte of a WebSocket message to its last.
    pub message_ms: u64,
    /// The WebSocket close handshake, and lingering after an HTTP answer that closes.
    pub close_ms: u64,
    /// Time without any progress of a write queue that is not empty.
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

/// Compression of WebSocket messages (RFC 7692), where a route switches it on.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct CompressionLimits {
    /// Shorter messages are sent plain.
    #[serde(deserialize_with = "size::memory")]
    pub min_bytes: usize,
    /// Memory that the windows of `dedicated` connections may hold on one reactor; beyond it
    /// connections get `shared`.
    #[serde(deserialize_with = "size::memory")]
    pub windows_bytes: usize,
}

impl Default for CompressionLimits {
    fn default() -> CompressionLimits {
        CompressionLimits { min_bytes: 128, windows_bytes: 64 * 1024 * 1024 }
    }
}

/// The page that shows what goes on and tries things out.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct Console {
    /// Who has it sees the page. Empty: nobody does, but of [`Config::demo`] everybody.
    pub token: Secret,
}

impl Default for Console {
    fn default() -> Console {
        Console { token: Secret::new("") }
    }
}

/// The counters in the text format of Prometheus.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct Metrics {
    /// Who has it sees them. Empty: clients on this machine do.
    pub token: Secret,
    /// Whether everybody does, if there is no token.
    pub open: bool,
    /// Whether Zilla's names of metrics are there, too.
    pub zilla: bool,
    /// Their label `namespace`.
    pub namespace: String,
}

impl Default for Metrics {
    fn default() -> Metrics {
        let (token, namespace) = (Secret::new(""), "polycast".to_owned());
        Metrics { token, open: false, zilla: false, namespace }
    }
}

/// Which requests reach which endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct Route {
    /// Any of these must hold; an empty list always holds.
    #[serde(default)]
    pub when: Vec<Condition>,
    /// Guards, each with the roles that it has to find; all of them must let the request in.
    #[serde(default)]
    pub guarded: BTreeMap<String, Vec<String>>,
    /// Names of the listeners that it is for; empty is all.
    #[serde(default)]
    pub listeners: Vec<String>,
    /// Where such a request goes.
    pub endpoint: EndpointKind,
    /// What [`EndpointKind::Reject`] answers.
    #[serde(default = "route::reject")]
    pub status: u16,
    /// How its WebSocket messages are compressed.
    #[serde(default)]
    pub compression: CompressionMode,
    /// Payload bytes of one message to [`EndpointKind::Echo`]; 0 is `limits.message_bytes`.
    #[serde(default, deserialize_with = "size::wide")]
    pub message_bytes: u64,
    /// Whether a POST speaks to its endpoint, too, by a body and an answer that are streamed.
    #[serde(default)]
    pub stream: bool,
    /// The groups of [`EndpointKind::Reflect`].
    #[serde(default)]
    pub reflect: Reflect,
    /// The servers behind [`EndpointKind::Proxy`].
    #[serde(default, deserialize_with = "proxy::shared")]
    pub proxy: Option<Arc<Proxy>>,
    /// What its WebSocket messages have to look like.
    #[serde(default)]
    pub model: Governance,
    /// That, ready to use.
    #[serde(skip)]
    pub rules: Prepared,
}

/// How an endpoint compresses the messages of clients that offer `permessage-deflate`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CompressionMode {
    /// Not at all.
    #[default]
    Off,
    /// Without windows that are kept: a broadcast is compressed once for all.
    Shared,
    /// With windows of each connection's own, as far as it agrees.
    Dedicated,
}

/// Where a request can go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndpointKind {
    /// A WebSocket that sends back each message.
    Echo,
    /// A WebSocket of a group: each message is sent to all members.
    Reflect,
    /// A WebSocket of another server: see [`Proxy`].
    Proxy,
    /// The page for people: see [`Console`].
    Console,
    /// The counters: see [`Metrics`].
    Metrics,
    /// Whether the process runs; of a path that ends in `/ready`, whether it takes more work.
    Health,
    /// The applications, by the paths of their dialects.
    Apps,
    /// The Zilliqa dialect: see [`Zilliqa`].
    Zilliqa,
    /// The Zenith dialect: see [`Zenith`].
    Zenith,
    /// Nothing: the answer is the route's `status`.
    Reject,
}

impl EndpointKind {
    /// Whether WebSockets are answered there.
    pub fn has_sockets(self) -> bool {
        use EndpointKind::{Apps, Echo, Proxy, Reflect, Reject, Zenith, Zilliqa};
        matches!(self, Echo | Reflect | Proxy | Apps | Zenith | Zilliqa | Reject)
    }
}

/// One application.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct AppConfig {
    /// Identifies it in the HTTP API. ASCII letters, digits, `_`, `.` and `-`.
    pub id: String,
    /// Identifies it to clients; public. ASCII letters, digits, `_`, `.` and `-`.
    pub key: String,
    /// Signs its requests and channels.
    pub secret: Secret,
    /// Further pairs that are accepted too, so that a pair can be replaced while clients run.
    #[serde(default)]
    pub keys: Vec<KeyPair>,
    /// For people.
    #[serde(default)]
    pub name: String,
    /// What its clients speak.
    #[serde(default)]
    pub dialect: AppDialect,
    /// Whose defaults hold where this application says nothing itself.
    #[serde(default)]
    pub profile: Profile,
    /// Whether it accepts connections and requests.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Whether connections without TLS are refused.
    #[serde(default)]
    pub require_tls: bool,
    /// Origins from which a browser may connect; empty is any.
    #[serde(default)]
    pub allowed_origins: Vec<Pattern>,
    /// Whether a signed request must be at most 600 seconds old.
    #[serde(default = "yes")]
    pub check_timestamp: bool,
    /// The answer to a subscription that the connection already has.
    #[serde(default)]
    pub duplicate_subscribe: DuplicateSubscribe,
    /// What happens to a connection that asks for a channel with a wrong signature.
    #[serde(default)]
    pub bad_signature: BadSignature,
    /// Whether every close with a code of the dialect follows a `pusher:error` with that code.
    #[serde(default)]
    pub error_before_close: bool,
    /// Whether users may sign in whose id is a number.
    #[serde(default)]
    pub numeric_user_ids: bool,
    /// Whether reads of channels have counts that were not asked for.
    #[serde(default)]
    pub counts_in_reads: bool,
    /// Origins of pages that may use the HTTP API; empty is none.
    #[serde(default)]
    pub cors_origins: Vec<Pattern>,
    /// Whether clients may publish `client-` events.
    #[serde(default)]
    pub client_events: bool,
    /// Whether subscribers are told how many they are, on all channels but presence ones.
    #[serde(default)]
    pub subscription_count: bool,
    /// Whether users who sign in are told which users of their watchlist come and go.
    #[serde(default)]
    pub watchlist: bool,
    /// Seconds in which a connection must sign in or join a private or presence channel; 0 is no
    /// such duty.
    #[serde(default)]
    pub authorise_within_s: u64,
    /// Silence after which client and server ask each other for a sign of life, in seconds; 0 is as
    /// the section of its dialect has it.
    #[serde(default)]
    pub activity_timeout_s: u64,
    /// The code that closes the connections of a user whom the application terminates.
    #[serde(default = "terminate")]
    pub terminate_close_code: u16,
    /// Endpoints that are told what happens to its channels.
    #[serde(default)]
    pub webhooks: Vec<Webhook>,
    /// Bounds of this application.
    #[serde(default)]
    pub limits: AppLimits,
}

/// A text that must not be logged: its `Debug` does not show it.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(secret: impl Into<String>) -> Secret {
        Secret(secret.into())
    }

    /// The secret itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(not shown)")
    }
}

/// Bounds of one application.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct AppLimits {
    /// Connections; 0 is unlimited.
    pub connections: usize,
    /// Channels with subscribers; of public ones, which strangers can make up, a part.
    pub channels: usize,
    /// Channels that one connection may be subscribed to.
    pub subscriptions_per_connection: usize,
    /// Subscriptions that one client may begin in a second, beside as many as it may hold at once;
    /// 0 is any number.
    pub subscriptions_per_s: u16,
    /// Bytes of a channel's name.
    pub channel_name_length: usize,
    /// Bytes of an event's name.
    pub event_name_length: usize,
    /// Channels that one request may publish to.
    pub channels_per_trigger: usize,
    /// Channels that one answer may list.
    pub listed_channels: usize,
    /// Bytes of one event's data.
    #[serde(deserialize_with = "size::memory")]
    pub event_bytes: usize,
    /// Bytes of one message from a client.
    #[serde(deserialize_with = "size::wide")]
    pub message_bytes: u64,
    /// Events in one batch.
    pub batch_events: usize,
    /// Users in one presence channel; 0 is unlimited.
    pub presence_members: usize,
    /// Bytes of what a presence channel shows of one user.
    #[serde(deserialize_with = "size::memory")]
    pub presence_member_bytes: usize,
    /// Bytes of a user's id.
    pub user_id_length: usize,
    /// Users that one user may watch.
    pub watchlist_length: usize,
    /// Events that one client may publish in a second; 0 is any number.
    pub client_events_per_s: u16,
    /// Seconds for which a cache channel keeps its last event.
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
