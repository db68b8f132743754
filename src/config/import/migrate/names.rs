//! What the variables of other servers set.

use super::ForeignServer;

/// What a variable is for.
pub(super) enum Meaning {
    /// The path of the option that it sets.
    Option(&'static str),
    /// An option without a counterpart, and why.
    Without(&'static str),
    /// The variable is another program's.
    Foreign,
}

/// Names of variables, or their beginnings, each with a path or a reason.
type Names = [(&'static str, &'static str)];

pub(super) const CLUSTER: &str =
    "servers are connected by [cluster] here, in another way: see docs/cluster.md";
const STORE: &str = "applications are in this server's configuration, not in a database";
const QUEUE: &str = "webhooks are sent by the server itself, without a queue";
const CACHE: &str = "cached events are in the memory of the server";
const RATES: &str = "the server has no such limit";
const METRICS: &str = "the counters are at /metrics, under this server's names";
const PUSH: &str = "the server sends no push notifications";
const OTHER_FEATURE: &str = "the server has no such feature";
const TUNING: &str = "the server has no such setting";
const CLIENTS: &str =
    "says where clients and the application find the server; set it there to this server";

/// soketi: names without `SOKETI_`, and the paths of their options.
const SOKETI: [(&str, &str); 48] = [
    ("ADAPTER_DRIVER", "adapter.driver"),
    ("ADAPTER_NATS_PASSWORD", "adapter.nats.pass"),
    ("ADAPTER_NATS_SERVERS", "adapter.nats.servers"),
    ("ADAPTER_NATS_TOKEN", "adapter.nats.token"),
    ("ADAPTER_NATS_USER", "adapter.nats.user"),
    ("ADAPTER_REDIS_CLUSTER_MODE", "adapter.redis.cluster_mode"),
    ("ADAPTER_REDIS_PREFIX", "adapter.redis.prefix"),
    ("APP_MANAGER_DRIVER", "app_manager.driver"),
    ("CHANNEL_LIMITS_MAX_NAME_LENGTH", "channel_limits.max_name_length"),
    ("CHANNEL_CACHE_TTL", "channel_limits.cache_ttl"),
    ("DB_REDIS_CLUSTER_NODES", "database.redis.cluster_nodes"),
    ("DB_REDIS_DB", "database.redis.db"),
    ("DB_REDIS_HOST", "database.redis.host"),
    ("DB_REDIS_INSTANCE_NAME", "database.redis.name"),
    ("DB_REDIS_KEY_PREFIX", "database.redis.key_prefix"),
    ("DB_REDIS_PASSWORD", "database.redis.password"),
    ("DB_REDIS_PORT", "database.redis.port"),
    ("DB_REDIS_SENTINELS", "database.redis.sentinels"),
    ("DB_REDIS_SENTINEL_PASSWORD", "database.redis.sentinel_password"),
    ("DB_REDIS_USERNAME", "database.redis.username"),
    ("DEBUG", "debug"),
    ("DEFAULT_APP_ID", "app_manager.array.apps.0.id"),
    ("DEFAULT_APP_KEY", "app_manager.array.apps.0.key"),
    ("DEFAULT_APP_SECRET", "app_manager.array.apps.0.secret"),
    ("DEFAULT_APP_MAX_CONNS", "app_manager.array.apps.0.max_connections"),
    ("DEFAULT_APP_ENABLE_CLIENT_MESSAGES", "app_manager.array.apps.0.enable_client_messages"),
    ("DEFAULT_APP_ENABLED", "app_manager.array.apps.0.enabled"),
    (
        "DEFAULT_APP_MAX_BACKEND_EVENTS_PER_SEC",
        "app_manager.array.apps.0.max_backend_events_per_second",
    ),
    (
        "DEFAULT_APP_MAX_CLIENT_EVENTS_PER_SEC",
        "app_manager.array.apps.0.max_client_events_per_second",
    ),
    ("DEFAULT_APP_MAX_READ_REQ_PER_SEC", "app_manager.array.apps.0.max_read_requests_per_second"),
    ("DEFAULT_APP_USER_AUTHENTICATION", "app_manager.array.apps.0.enable_user_authentication"),
    ("DEFAULT_APP_WEBHOOKS", "app_manager.array.apps.0.webhooks"),
    ("EVENT_MAX_BATCH_SIZE", "event_limits.max_batch_size"),
    ("EVENT_MAX_CHANNELS_AT_ONCE", "event_limits.max_channels_at_once"),
    ("EVENT_MAX_NAME_LENGTH", "event_limits.max_name_length"),
    ("EVENT_MAX_SIZE_IN_KB", "event_limits.max_payload_in_kb"),
    ("HOST", "host"),
    ("MODE", "mode"),
    ("PATH_PREFIX", "path_prefix"),
    ("PORT", "port"),
    ("PRESENCE_MAX_MEMBERS", "presence.max_members_per_channel"),
    ("PRESENCE_MAX_MEMBER_SIZE", "presence.max_member_size_in_kb"),
    ("SHUTDOWN_GRACE_PERIOD", "shutdown_grace_period"),
    ("SSL_CERT", "ssl.cert_path"),
    ("SSL_KEY", "ssl.key_path"),
    ("SSL_PASS", "ssl.passphrase"),
    ("SSL_CA", "ssl.ca_path"),
    ("USER_AUTHENTICATION_TIMEOUT", "user_authentication_timeout"),
];

/// Beginnings of soketi's other names.
const SOKETI_WITHOUT: [(&str, &str); 10] = [
    ("ADAPTER_", CLUSTER),
    ("APP_MANAGER_", STORE),
    ("CACHE_", CACHE),
    ("CLUSTER_", CLUSTER),
    ("DB_", STORE),
    ("HTTP_ACCEPT_TRAFFIC_", TUNING),
    ("METRICS_", METRICS),
    ("QUEUE_", QUEUE),
    ("RATE_LIMITER_", RATES),
    ("INSTANCE_", CLUSTER),
];

/// Soketi's webhook variables, which begin alike and have counterparts.
const SOKETI_HOOKS: [(&str, &str); 2] = [
    ("WEBHOOKS_BATCHING", "webhooks.batching.enabled"),
    ("WEBHOOKS_BATCHING_DURATION", "webhooks.batching.duration"),
];

/// sockudo: its variables and the paths of their options.
const SOCKUDO: [(&str, &str); 59] = [
    ("ACTIVITY_TIMEOUT", "activity_timeout"),
    ("ADAPTER_DRIVER", "adapter.driver"),
    ("APP_MANAGER_DRIVER", "app_manager.driver"),
    ("CORS_ORIGINS", "cors.origin"),
    ("DATABASE_REDIS_CLUSTER_NODES", "adapter.cluster.nodes"),
    ("DATABASE_REDIS_CLUSTER_PASSWORD", "database.redis.cluster.password"),
    ("DATABASE_REDIS_CLUSTER_USERNAME", "database.redis.cluster.username"),
    ("DATABASE_REDIS_CLUSTER_USE_TLS", "database.redis.cluster.use_tls"),
    ("DATABASE_REDIS_DB", "database.redis.db"),
    ("DATABASE_REDIS_HOST", "database.redis.host"),
    ("DATABASE_REDIS_KEY_PREFIX", "database.redis.key_prefix"),
    ("DATABASE_REDIS_MASTER_TLS_ENABLED", "database.redis.master_tls.enabled"),
    ("DATABASE_REDIS_PASSWORD", "database.redis.password"),
    ("DATABASE_REDIS_PORT", "database.redis.port"),
    ("DATABASE_REDIS_SENTINEL_PASSWORD", "database.redis.sentinel_password"),
    ("DATABASE_REDIS_SENTINEL_TLS_ENABLED", "database.redis.sentinel_tls.enabled"),
    ("DATABASE_REDIS_SENTINEL_USERNAME", "database.redis.sentinel_username"),
    ("DATABASE_REDIS_USERNAME", "database.redis.username"),
    ("DEBUG", "debug"),
    ("DEBUG_MODE", "debug"),
    ("HOST", "host"),
    ("NATS_PASSWORD", "adapter.nats.password"),
    ("NATS_SERVERS", "adapter.nats.servers"),
    ("NATS_TOKEN", "adapter.nats.token"),
    ("NATS_USERNAME", "adapter.nats.username"),
    ("PORT", "port"),
    ("REDIS_CLUSTER_NODES", "adapter.cluster.nodes"),
    ("REDIS_URL", "adapter.redis.redis_pub_options.url"),
    ("SHUTDOWN_GRACE_PERIOD", "shutdown_grace_period"),
    ("SOCKUDO_DEFAULT_APP_ALLOWED_ORIGINS", "app_manager.array.apps.0.allowed_origins"),
    (
        "SOCKUDO_DEFAULT_APP_ENABLE_CLIENT_MESSAGES",
        "app_manager.array.apps.0.enable_client_messages",
    ),
    (
        "SOCKUDO_DEFAULT_APP_ENABLE_USER_AUTHENTICATION",
        "app_manager.array.apps.0.enable_user_authentication",
    ),
    (
        "SOCKUDO_DEFAULT_APP_ENABLE_WATCHLIST_EVENTS",
        "app_manager.array.apps.0.enable_watchlist_events",
    ),
    ("SOCKUDO_DEFAULT_APP_ENABLED", "app_manager.array.apps.0.enabled"),
    ("SOCKUDO_DEFAULT_APP_ID", "app_manager.array.apps.0.id"),
    ("SOCKUDO_DEFAULT_APP_KEY", "app_manager.array.apps.0.key"),
    (
        "SOCKUDO_DEFAULT_APP_MAX_BACKEND_EVENTS_PER_SECOND",
        "app_manager.array.apps.0.max_backend_events_per_second",
    ),
    (
        "SOCKUDO_DEFAULT_APP_MAX_CHANNEL_NAME_LENGTH",
        "app_manager.array.apps.0.max_channel_name_length",
    ),
    (
        "SOCKUDO_DEFAULT_APP_MAX_CLIENT_EVENTS_PER_SECOND",
        "app_manager.array.apps.0.max_client_events_per_second",
    ),
    ("SOCKUDO_DEFAULT_APP_MAX_CONNECTIONS", "app_manager.array.apps.0.max_connections"),
    ("SOCKUDO_DEFAULT_APP_MAX_EVENT_BATCH_SIZE", "app_manager.array.apps.0.max_event_batch_size"),
    (
        "SOCKUDO_DEFAULT_APP_MAX_EVENT_CHANNELS_AT_ONCE",
        "app_manager.array.apps.0.max_event_channels_at_once",
    ),
    ("SOCKUDO_DEFAULT_APP_MAX_EVENT_NAME_LENGTH", "app_manager.array.apps.0.max_event_name_length"),
    (
        "SOCKUDO_DEFAULT_APP_MAX_EVENT_PAYLOAD_IN_KB",
        "app_manager.array.apps.0.max_event_payload_in_kb",
    ),
    (
        "SOCKUDO_DEFAULT_APP_MAX_PRESENCE_MEMBERS_PER_CHANNEL",
        "app_manager.array.apps.0.max_presence_members_per_channel",
    ),
    (
        "SOCKUDO_DEFAULT_APP_MAX_PRESENCE_MEMBER_SIZE_IN_KB",
        "app_manager.array.apps.0.max_presence_member_size_in_kb",
    ),
    (
        "SOCKUDO_DEFAULT_APP_MAX_READ_REQUESTS_PER_SECOND",
        "app_manager.array.apps.0.max_read_requests_per_second",
    ),
    ("SOCKUDO_DEFAULT_APP_SECRET", "app_manager.array.apps.0.secret"),
    ("SOCKUDO_ENABLE_CLIENT_MESSAGES", "app_manager.array.apps.0.enable_client_messages"),
    ("SOCKUDO_MAX_CONNECTIONS", "max_connections"),
    ("SSL_CERT_PATH", "ssl.cert_path"),
    ("SSL_ENABLED", "ssl.enabled"),
    ("SSL_KEY_PATH", "ssl.key_path"),
    ("UNIX_SOCKET_ENABLED", "unix_socket.enabled"),
    ("UNIX_SOCKET_PATH", "unix_socket.path"),
    ("USER_AUTHENTICATION_TIMEOUT", "user_authentication_timeout"),
    ("WEBHOOK_BATCHING_DURATION", "webhooks.batching.duration"),
    ("WEBHOOK_BATCHING_ENABLED", "webhooks.batching.enabled"),
    ("WEBSOCKET_MAX_PAYLOAD_KB", "websocket_max_payload_kb"),
];

/// Beginnings of sockudo's other names.
const SOCKUDO_WITHOUT: [(&str, &str); 41] = [
    ("ADAPTER_", CLUSTER),
    ("AI_TRANSPORT_", OTHER_FEATURE),
    ("ANNOTATIONS_", OTHER_FEATURE),
    ("APP_MANAGER_", STORE),
    ("CACHE_", CACHE),
    ("CLEANUP_", TUNING),
    ("CLUSTER_HEALTH_", CLUSTER),
    ("CONNECTION_RECOVERY_", "see `apps.history` of this server, which has its own protocol"),
    ("CORS_", "the server answers preflight requests by itself"),
    ("DATABASE_", STORE),
    ("DELTA_COMPRESSION_", OTHER_FEATURE),
    ("ECHO_CONTROL_", OTHER_FEATURE),
    ("ENVIRONMENT", TUNING),
    ("EPHEMERAL_", OTHER_FEATURE),
    ("EVENT_NAME_FILTERING_", OTHER_FEATURE),
    ("GOOGLE_PUBSUB_", CLUSTER),
    ("HEALTH_CHECK_TIMEOUT_MS", TUNING),
    ("HISTORY_", "see `apps.history` of this server, which has its own protocol"),
    ("HTTP_API_", TUNING),
    ("IDEMPOTENCY_", "idempotency keys are always on, and are kept for two minutes"),
    ("IGGY_", CLUSTER),
    ("INSTANCE_", CLUSTER),
    ("KAFKA_", CLUSTER),
    ("LOG_", "see `log` of this server"),
    ("METRICS_", METRICS),
    ("NATS_", CLUSTER),
    ("PRESENCE_", TUNING),
    ("PUBSUB_", CLUSTER),
    ("PULSAR_", CLUSTER),
    ("PUSH_", PUSH),
    ("QUEUE_", QUEUE),
    ("RABBITMQ_", CLUSTER),
    ("RATE_LIMITER_", RATES),
    ("REDIS_", CLUSTER),
    ("SOCKUDO_", "the server has no such setting, or it is newer than this importer"),
    ("SSL_", TUNING),
    ("TAG_FILTERING_", OTHER_FEATURE),
    ("UNIX_SOCKET_", "see `listeners.mode` of this server"),
    ("VERSIONED_MESSAGES_", OTHER_FEATURE),
    ("WEBHOOK_", TUNING),
    ("WEBSOCKET_", TUNING),
];

/// Reverb: names without `REVERB_`, and the paths that this importer gives their options.
const REVERB: [(&str, &str); 14] = [
    ("APP_ACCEPT_CLIENT_EVENTS_FROM", "client_events"),
    ("APP_ACTIVITY_TIMEOUT", "activity_timeout"),
    ("APP_ID", "id"),
    ("APP_KEY", "key"),
    ("APP_MAX_CONNECTIONS", "max_connections"),
    ("APP_MAX_MESSAGE_SIZE", "max_message_size"),
    ("APP_RATE_LIMITING_ENABLED", "rate.enabled"),
    ("APP_RATE_LIMIT_DECAY_SECONDS", "rate.decay_seconds"),
    ("APP_RATE_LIMIT_MAX_ATTEMPTS", "rate.max_attempts"),
    ("APP_SECRET", "secret"),
    ("MAX_REQUEST_SIZE", "max_request_size"),
    ("SERVER_HOST", "host"),
    ("SERVER_PATH", "path_prefix"),
    ("SERVER_PORT", "port"),
];

/// Reverb's other names.
const REVERB_WITHOUT: [(&str, &str); 10] = [
    (
        "APP_PING_INTERVAL",
        "the server sends pings after the activity timeout, which is that of the application",
    ),
    (
        "APP_RATE_LIMIT_TERMINATE",
        "an event beyond client_events_per_s is refused, and the connection stays",
    ),
    ("HOST", CLIENTS),
    ("PORT", CLIENTS),
    ("SCHEME", CLIENTS),
    ("SCALING_", CLUSTER),
    ("PULSE_", "the server has counters at /metrics instead"),
    ("TELESCOPE_", "the server has counters at /metrics instead"),
    ("SERVER", "the server has one driver"),
    ("", "Reverb has no such variable, or it is newer than this importer"),
];

/// Pusher: names without `PUSHER_`.
const PUSHER: [(&str, &str); 3] = [("APP_ID", "id"), ("APP_KEY", "key"), ("APP_SECRET", "secret")];

/// Pusher's other names.
const PUSHER_WITHOUT: [(&str, &str); 5] = [
    ("HOST", CLIENTS),
    ("PORT", CLIENTS),
    ("SCHEME", CLIENTS),
    ("APP_CLUSTER", "clients of this server have no cluster: set PUSHER_HOST to this server"),
    ("", "the server has no such setting"),
];

/// What the variable `name` means to a server.
pub(super) fn meaning(server: ForeignServer, name: &str) -> Meaning {
    let (prefix, options, without): (_, &Names, &Names) = match server {
        ForeignServer::Soketi => ("SOKETI_", &SOKETI, &SOKETI_WITHOUT),
        ForeignServer::Sockudo => ("", &SOCKUDO, &SOCKUDO_WITHOUT),
        ForeignServer::Reverb => ("REVERB_", &REVERB, &REVERB_WITHOUT),
        ForeignServer::Pusher => ("PUSHER_", &PUSHER, &PUSHER_WITHOUT),
    };
    let Some(rest) = name.strip_prefix(prefix) else { return Meaning::Foreign };
    let hooks: &Names = match server {
        ForeignServer::Soketi => &SOKETI_HOOKS,
        _ => &[],
    };
    if let Some((_, path)) = options.iter().chain(hooks).find(|(known, _)| *known == rest) {
        return Meaning::Option(path);
    }
    // A name that ends with `_` is the beginning of several.
    let is_for = |known: &str| match known.ends_with('_') || known.is_empty() {
        true => rest.starts_with(known),
        false => rest == known,
    };
    match without.iter().find(|(known, _)| is_for(known)) {
        Some((_, why)) => Meaning::Without(why),
        None if server == ForeignServer::Soketi => {
            Meaning::Without("soketi has no such variable, or it is newer than this importer")
        }
        None => Meaning::Foreign,
    }
}
