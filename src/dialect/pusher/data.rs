//! The names, codes, paths and switches of Pusher Channels.

use super::super::channels::data::{
    ChannelKind, Codes, EventNames, Quirks, Refusals, ServerEvents, Target, USER, VendorData,
};
use super::super::channels::signature;
use super::super::closing::Closing;

/// The values of `type` in a `pusher:subscription_error`.
const AUTH: &str = "AuthError";
const LIMIT: &str = "LimitReached";

/// The table of the vendor.
pub static DATA: VendorData = VendorData {
    commands: EventNames {
        ping: "pusher:ping",
        pong: "pusher:pong",
        subscribe: "pusher:subscribe",
        unsubscribe: "pusher:unsubscribe",
        sign_in: "pusher:signin",
    },
    events: ServerEvents {
        established: "pusher:connection_established",
        subscribed: "pusher_internal:subscription_succeeded",
        count: Some("pusher_internal:subscription_count"),
        cache_miss: "pusher:cache_miss",
        signed_in: "pusher:signin_success",
        watchlist: "pusher_internal:watchlist_events",
    },
    prefixes: &[
        ("private-encrypted-cache-", ChannelKind::Encrypted, true),
        ("private-encrypted-", ChannelKind::Encrypted, false),
        ("presence-cache-", ChannelKind::Presence, true),
        ("private-cache-", ChannelKind::Private, true),
        ("presence-", ChannelKind::Presence, false),
        ("private-", ChannelKind::Private, false),
        ("cache-", ChannelKind::Public, true),
        (USER, ChannelKind::User, false),
    ],
    own_events: ["pusher:", "pusher_internal:", "polycast:"],
    codes: Codes {
        tls_required: Closing::new(
            4000,
            "Application only accepts TLS connections, reconnect using wss://",
        ),
        unknown_app: Closing::new(4001, "Application does not exist"),
        app_disabled: Closing::new(4003, "Application disabled"),
        over_quota: Closing::new(4004, "Application is over connection quota"),
        no_such_path: Closing::new(4005, "Path not found"),
        origin: Closing::new(4009, "Connection is unauthorized: origin not allowed"),
        sign_in: Closing::new(4009, "Connection is unauthorized: invalid sign-in"),
        bad_signature: Closing::new(4009, "Connection is unauthorized: invalid signature"),
        unauthorised: Closing::new(
            4009,
            "Connection is unauthorized: it has neither signed in nor joined a private channel in \
             time",
        ),
        too_slow: Closing::new(4100, "Over capacity: the client does not read what it is sent"),
        too_many_errors: Closing::new(4100, "Over capacity: too many messages that are errors"),
        draining: Closing::new(4200, "Server is shutting down, reconnect immediately"),
        silent: Closing::new(
            4201,
            "Pong reply not received: ping was sent, but no reply came in time",
        ),
        overloaded: Closing::new(4100, "Over capacity: the server is overloaded"),
        inactive: Closing::new(4202, "Closed after inactivity"),
        terminated: "You got disconnected by the app.",
    },
    translated: &[],
    refusals: Refusals {
        name: (LIMIT, 4009),
        user: (AUTH, 401),
        signature: (AUTH, 401),
        member: (AUTH, 401),
        large: (LIMIT, 4301),
        too_many: (LIMIT, 4301),
        limit: (LIMIT, 4100),
        unavailable: (LIMIT, 4100),
    },
    signing: signature::LENIENT,
    quirks: Quirks {
        binary_messages: 3,
        refusals_count: true,
        refuses_paths_early: false,
        bare_batch: false,
        publish_asks: true,
        checks_names: false,
        foreign_key: 401,
        watches: true,
        error_codes: true,
    },
    ping: Some(br#"{"event":"pusher:ping","data":{}}"#),
    pong: br#"{"event":"pusher:pong","data":{}}"#,
    // `POST /users/{id}/events` is an addition of Vask's HTTP API, and the path of the history an
    // addition of this server.
    paths: &[
        ("events", |_| Target::Events),
        ("batch_events", |_| Target::Batch),
        ("channels", |_| Target::Channels),
        ("channels/*", |name| Target::Channel(name)),
        ("channels/*/users", |name| Target::Users(name)),
        ("channels/*/events", |name| Target::History(name)),
        ("users/*/events", |name| Target::ToUser(name)),
        ("users/*/terminate_connections", |name| Target::Terminate(name)),
    ],
};
