//! Pusher Channels, protocol 7: <https://pusher.com/docs/channels/library_auth_reference/pusher-websockets-protocol/>.

pub mod hooks;
mod words;

use super::channels::signature::{self, SigningRules};
use super::channels::vendor::{
    BadEvent, ChannelKind, Codes, EventNames, ProtocolError, Quirks, SubscribeRefusal, Target,
    USER, Vendor, VendorResponse, decoded,
};
use super::{Closing, Env, Heartbeat, Opening, channels};
use crate::config::{self, DuplicateSubscribe};
use crate::http::query;
use crate::hub::Users;
use std::borrow::Cow;

/// A connection of a Pusher client.
pub type Connection = channels::Connection<Pusher>;

/// The vendor Pusher.
#[derive(Debug)]
pub enum Pusher {}

const CODES: Codes = Codes {
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
        "Connection is unauthorized: it has neither signed in nor joined a private channel in time",
    ),
    too_slow: Closing::new(4100, "Over capacity: the client does not read what it is sent"),
    too_many_errors: Closing::new(4100, "Over capacity: too many messages that are errors"),
    draining: Closing::new(4200, "Server is shutting down, reconnect immediately"),
    silent: Closing::new(4201, "Pong reply not received: ping was sent, but no reply came in time"),
    terminated: "You got disconnected by the app.",
};
const BAD_VERSION: Closing = Closing::new(4006, "Invalid version string format");
const UNSUPPORTED_VERSION: Closing = Closing::new(4007, "Unsupported protocol version");
const NO_VERSION: Closing = Closing::new(4008, "No protocol version supplied");

impl Vendor for Pusher {
    const EVENT_NAMES: EventNames = EventNames {
        ping: "pusher:ping",
        pong: "pusher:pong",
        subscribe: "pusher:subscribe",
        unsubscribe: "pusher:unsubscribe",
        sign_in: "pusher:signin",
    };
    const PREFIXES: &'static [(&'static str, ChannelKind, bool)] = &[
        ("private-encrypted-cache-", ChannelKind::Encrypted, true),
        ("private-encrypted-", ChannelKind::Encrypted, false),
        ("presence-cache-", ChannelKind::Presence, true),
        ("private-cache-", ChannelKind::Private, true),
        ("presence-", ChannelKind::Presence, false),
        ("private-", ChannelKind::Private, false),
        ("cache-", ChannelKind::Public, true),
        (USER, ChannelKind::User, false),
    ];
    const OWN_EVENTS: [&'static str; 2] = ["pusher:", "pusher_internal:"];
    const CODES: Codes = CODES;
    const WATCHES: bool = true;
    const SIGNING: SigningRules = signature::LENIENT;
    const QUIRKS: Quirks = Quirks {
        binary_messages: 3,
        refusals_count: true,
        refuses_paths_early: false,
        bare_batch: false,
        publish_asks: true,
        checks_names: false,
        foreign_key: 401,
    };
    const PING: Option<&'static [u8]> = Some(words::PING);
    const PONG: &'static [u8] = words::PONG;

    fn check_opening(env: &Env, opening: &Opening<'_>) -> Result<(), Closing> {
        check_version(query::get(opening.query, "protocol"), env.config.pusher.strict_protocol)
    }

    /// Protocol versions below 5 have no ping, so their clients get `inactivity_timeout_s`.
    fn inactivity_s(env: &Env, opening: &Opening<'_>) -> u64 {
        let protocol = query::get(opening.query, "protocol").map(str::parse::<u32>);
        match protocol {
            Some(Ok(0..5)) => env.config.pusher.inactivity_timeout_s,
            _ => 0,
        }
    }

    fn heartbeat(env: &Env, app: &config::AppConfig) -> Heartbeat {
        let pusher = &env.config.pusher;
        Heartbeat {
            silence_ms: app.activity_s(pusher.activity_timeout_s) * 1000,
            answer_ms: pusher.pong_timeout_s * 1000,
        }
    }

    fn established(env: &Env, app: &config::AppConfig, socket_id: &str) -> String {
        words::established(socket_id, app.activity_s(env.config.pusher.activity_timeout_s))
    }

    /// Clients of older protocol versions read only the error event, newer ones only the close
    /// code.
    fn before_close(closing: &Closing, refused: bool) -> Option<Vec<u8>> {
        refused.then(|| words::error(Some(closing.code), &closing.reason, None))
    }

    fn protocol_error(protocol_error: &ProtocolError<'_>) -> VendorResponse {
        use BadEvent::{LongData, LongName, Off, TooMany};
        let (code, channel) = match protocol_error {
            ProtocolError::Event(Off | LongName | LongData | TooMany, channel) => {
                (Some(4301), *channel)
            }
            ProtocolError::Event(_, channel) => (None, *channel),
            ProtocolError::NotSubscribed(channel) => (None, Some(*channel)),
            ProtocolError::LongWatchlist(_) => (Some(4302), None),
            _ => (None, None),
        };
        VendorResponse::Send(words::error(code, &text_of(protocol_error), channel))
    }

    fn subscribed(name: &str, data: &[u8]) -> Vec<u8> {
        words::subscribed(name, data)
    }

    fn refused(name: &str, refusal: &SubscribeRefusal<'_>) -> Vec<u8> {
        let (kind, status) = match refusal {
            SubscribeRefusal::Name(_) => (words::LIMIT, 4009),
            SubscribeRefusal::SubscriptionLimit(_)
            | SubscribeRefusal::ChannelFull(_)
            | SubscribeRefusal::NoRoom(_) => (words::LIMIT, 4100),
            SubscribeRefusal::Large(_) | SubscribeRefusal::TooMany(_) => (words::LIMIT, 4301),
            SubscribeRefusal::User | SubscribeRefusal::Signature | SubscribeRefusal::Member(_) => {
                (words::AUTH, 401)
            }
        };
        words::subscription_error(name, kind, &refusal.text(name), status)
    }

    fn again(app: &config::AppConfig) -> bool {
        app.duplicate_subscribe == DuplicateSubscribe::Ack
    }

    fn user_id<'i>(_raw: &'i str, text: Cow<'i, str>) -> Cow<'i, str> {
        text
    }

    fn roster(users: &Users) -> Vec<u8> {
        words::roster(users)
    }

    fn push_member_added(out: &mut Vec<u8>, name: &str, id: &str, info: Option<&str>) {
        words::push_member_added(out, name, id, info);
    }

    fn push_member_removed(out: &mut Vec<u8>, name: &str, id: &str) {
        words::push_member_removed(out, name, id);
    }

    fn push_count(out: &mut Vec<u8>, name: &str, count: u64) -> bool {
        words::push_count(out, name, count);
        true
    }

    fn cache_miss(name: &str) -> Vec<u8> {
        words::cache_miss(name)
    }

    fn signed_in(user_data: &str) -> Vec<u8> {
        words::signed_in(user_data)
    }

    fn watchlist(online: &[&str], offline: &[&str]) -> Option<Vec<u8>> {
        Some(words::watchlist(online, offline))
    }

    fn push_client_event(
        out: &mut Vec<u8>,
        event: &str,
        channel: &str,
        data: Option<&str>,
        user_id: Option<&str>,
    ) {
        words::push_client_event(out, event, channel, data, user_id);
    }

    /// `POST /users/{id}/events` is an addition of Vask's HTTP API.
    fn target(path: &str) -> Option<Target<'_>> {
        let mut parts = path.strip_prefix('/')?.split('/');
        let target = match (parts.next()?, parts.next(), parts.next()) {
            ("events", None, _) => Target::Events,
            ("batch_events", None, _) => Target::Batch,
            ("channels", None, _) => Target::Channels,
            ("channels", Some(channel), None) => Target::Channel(decoded(channel)?),
            ("channels", Some(channel), Some("users")) => Target::Users(decoded(channel)?),
            ("users", Some(user), Some("events")) => Target::ToUser(decoded(user)?),
            ("users", Some(user), Some("terminate_connections")) => {
                Target::Terminate(decoded(user)?)
            }
            _ => return None,
        };
        parts.next().is_none().then_some(target)
    }

    fn api_error(status: u16, message: &str) -> Vec<u8> {
        words::api_error(status, message)
    }
}

fn text_of<'m>(protocol_error: &ProtocolError<'m>) -> Cow<'m, str> {
    let text = match *protocol_error {
        ProtocolError::NotJson => "Invalid JSON",
        ProtocolError::NotAnObject => "Message must be a JSON object with an event",
        ProtocolError::NoData => "Message has no data",
        ProtocolError::DataNotAnObject => "Message data must be a JSON object",
        ProtocolError::NoChannel => "Message data must name a channel",
        ProtocolError::NoSignIn => "Message data must have auth and user_data",
        ProtocolError::Unsupported(event) => {
            return format!("Unsupported event received on socket: {event}").into();
        }
        ProtocolError::Binary => "Binary messages are not supported",
        ProtocolError::Subscribed(name) => {
            return format!("Existing subscription to channel {name}").into();
        }
        ProtocolError::NotSubscribed(name) => {
            return format!("No current subscription to channel {name}").into();
        }
        ProtocolError::SignedIn => "Connection is already signed in as another user",
        ProtocolError::LongWatchlist(max) => {
            return format!("Watchlist limit exceeded: only the first {max} count").into();
        }
        ProtocolError::Event(BadEvent::Off, _) => "The app does not have client messaging enabled.",
        ProtocolError::Event(BadEvent::NoChannel, _) => "Client events must name a channel",
        ProtocolError::Event(BadEvent::LongName, _) => "Event name is too long",
        ProtocolError::Event(BadEvent::Public, _) => {
            "Client events are only allowed on private and presence channels"
        }
        ProtocolError::Event(BadEvent::LongData, _) => "Client event data is too long",
        ProtocolError::Event(BadEvent::TooMany, _) => "Too many client events in one second",
    };
    text.into()
}

fn check_version(protocol: Option<&str>, strict: bool) -> Result<(), Closing> {
    if !strict {
        return Ok(());
    }
    match protocol.map(str::parse::<u32>) {
        None => Err(NO_VERSION),
        Some(Err(_)) => Err(BAD_VERSION),
        Some(Ok(4..=7)) => Ok(()),
        Some(Ok(_)) => Err(UNSUPPORTED_VERSION),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pusher_version_is_checked_only_when_strict() {
        for (protocol, strict, expected) in [
            (None, false, Ok(())),
            (Some("abc"), false, Ok(())),
            (Some("99"), false, Ok(())),
            (Some("4"), true, Ok(())),
            (Some("7"), true, Ok(())),
            (Some("3"), true, Err(UNSUPPORTED_VERSION)),
            (Some("8"), true, Err(UNSUPPORTED_VERSION)),
            (Some("abc"), true, Err(BAD_VERSION)),
            (None, true, Err(NO_VERSION)),
        ] {
            assert_eq!(check_version(protocol, strict), expected, "{protocol:?} {strict}");
        }
    }
}
