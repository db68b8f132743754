//! The names, codes, paths and switches of Broadcastt.

use super::super::channels::data::{
    ChannelKind, Codes, EventNames, Quirks, Refusals, ServerEvents, Target, VendorData,
};
use super::super::channels::signature::SigningRules;
use super::super::closing::Closing;
use crate::ws::close;

const TOO_MUCH: u16 = 4008;

/// The values of `type` in a `broadcastt:subscription_error`.
pub(super) const AUTH: &str = "AuthError";
const NAME: &str = "ChannelError";
const LIMIT: &str = "LimitReached";

/// The table of the vendor.
pub static DATA: VendorData = VendorData {
    commands: EventNames {
        ping: "broadcastt:ping",
        pong: "broadcastt:pong",
        subscribe: "broadcastt:subscribe",
        unsubscribe: "broadcastt:unsubscribe",
        sign_in: "",
    },
    events: ServerEvents {
        established: "broadcastt:connection_established",
        subscribed: "broadcastt_internal:subscription_succeeded",
        count: None,
        cache_miss: "",
        signed_in: "",
        watchlist: "",
    },
    prefixes: &[
        ("presence-", ChannelKind::Presence, false),
        ("private-", ChannelKind::Private, false),
    ],
    own_events: ["broadcastt:", "broadcastt_internal:", "polycast:"],
    // Broadcastt documents only the three ranges of close codes; within them these are Pusher's.
    codes: Codes {
        tls_required: Closing::new(4000, "Application only accepts TLS connections"),
        unknown_app: Closing::new(4001, "Application does not exist"),
        app_disabled: Closing::new(4003, "Application disabled"),
        over_quota: Closing::new(4004, "Application is over its connection quota"),
        no_such_path: Closing::new(4005, "Path not found"),
        origin: Closing::new(4009, "Unauthorised: origin not allowed"),
        sign_in: Closing::new(4009, "Unauthorised: there is no sign-in"),
        bad_signature: Closing::new(4009, "Unauthorised: invalid signature"),
        unauthorised: Closing::new(4009, "Unauthorised: no private channel joined in time"),
        too_slow: Closing::new(4100, "Over capacity: the client does not read what it is sent"),
        too_many_errors: Closing::new(TOO_MUCH, "Too many messages that cannot be understood"),
        draining: Closing::new(4200, "Server is shutting down, reconnect"),
        silent: Closing::new(4201, "No pong in time"),
        overloaded: Closing::new(4100, "Over capacity: the server is overloaded"),
        inactive: Closing::new(4202, "Closed after inactivity"),
        terminated: "Disconnected by the application",
    },
    // Closes for an exceeded limit of the session.
    translated: &[(close::POLICY, TOO_MUCH), (close::TOO_BIG, TOO_MUCH)],
    refusals: Refusals {
        name: (NAME, 400),
        user: (AUTH, 401),
        signature: (AUTH, 401),
        member: (AUTH, 400),
        large: (AUTH, 400),
        too_many: (LIMIT, 403),
        limit: (LIMIT, 403),
        unavailable: (LIMIT, 503),
    },
    signing: SigningRules { lower_names: false, lenient: false, always_md5: true },
    quirks: Quirks {
        binary_messages: 0,
        refusals_count: false,
        refuses_paths_early: true,
        bare_batch: true,
        publish_asks: false,
        checks_names: true,
        foreign_key: 403,
        watches: false,
        error_codes: false,
    },
    // The client ignores an application-level ping by the server, but answers RFC 6455 ping frames.
    ping: None,
    pong: br#"{"event":"broadcastt:pong","data":"{}"}"#,
    paths: &[
        ("event", |_| Target::Events),
        ("events", |_| Target::Batch),
        ("channels", |_| Target::Channels),
        ("channel/*", |name| Target::Channel(name)),
        ("channels/*/users", |name| Target::Users(name)),
        ("channels/*/events", |name| Target::History(name)),
    ],
};
