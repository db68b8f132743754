//! The protocol of Broadcastt: <https://github.com/broadcastt/broadcastt-docs>, and what its
//! published client `broadcastt-js` 0.2.3 accepts. `README.md` in this folder lists the differences
//! from Pusher Channels.

mod words;

use super::channels::signature::SigningRules;
use super::channels::vendor::{
    BadEvent, ChannelKind, Codes, EventNames, ProtocolError, Quirks, SubscribeRefusal, Target,
    Vendor, VendorResponse, decoded,
};
use super::{Closing, Env, Heartbeat, Opening, channels};
use crate::config;
use crate::hub::Users;
use crate::ws::close;
use std::borrow::Cow;

/// One client connection.
pub type Connection = channels::Connection<Broadcastt>;

/// The vendor Broadcastt.
#[derive(Debug)]
pub enum Broadcastt {}

/// Broadcastt documents only the three ranges of close codes; within them these are Pusher's.
const CODES: Codes = Codes {
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
    too_many_errors: TOO_MUCH,
    draining: Closing::new(4200, "Server is shutting down, reconnect"),
    silent: Closing::new(4201, "No pong in time"),
    terminated: "Disconnected by the application",
};
const TOO_MUCH: Closing = Closing::new(4008, "Too many messages that cannot be understood");

/// The values of `type` in a `broadcastt:subscription_error`.
const AUTH: &str = "AuthError";
const NAME: &str = "ChannelError";
const LIMIT: &str = "LimitReached";

impl Vendor for Broadcastt {
    const EVENT_NAMES: EventNames = EventNames {
        ping: "broadcastt:ping",
        pong: "broadcastt:pong",
        subscribe: "broadcastt:subscribe",
        unsubscribe: "broadcastt:unsubscribe",
        sign_in: "",
    };
    const PREFIXES: &'static [(&'static str, ChannelKind, bool)] =
        &[("presence-", ChannelKind::Presence, false), ("private-", ChannelKind::Private, false)];
    const OWN_EVENTS: [&'static str; 2] = ["broadcastt:", "broadcastt_internal:"];
    const CODES: Codes = CODES;
    const SIGNING: SigningRules =
        SigningRules { lower_names: false, lenient: false, always_md5: true };
    const QUIRKS: Quirks = Quirks {
        binary_messages: 0,
        refusals_count: false,
        refuses_paths_early: true,
        bare_batch: true,
        publish_asks: false,
        checks_names: true,
        foreign_key: 403,
    };
    /// The client ignores an application-level ping by the server, but answers RFC 6455 ping
    /// frames.
    const PING: Option<&'static [u8]> = None;
    const PONG: &'static [u8] = words::PONG;

    fn check_opening(_env: &Env, _opening: &Opening<'_>) -> Result<(), Closing> {
        Ok(())
    }

    /// The client sends a ping after each activity timeout, regardless of other traffic. If the
    /// client is silent for the activity timeout plus the pong timeout, the server sends a ping
    /// frame.
    fn heartbeat(env: &Env, app: &config::AppConfig) -> Heartbeat {
        let section = &env.config.broadcastt;
        Heartbeat {
            silence_ms: (app.activity_s(section.activity_timeout_s) + section.pong_timeout_s)
                * 1000,
            answer_ms: section.pong_timeout_s * 1000,
        }
    }

    fn established(env: &Env, app: &config::AppConfig, socket_id: &str) -> String {
        words::established(socket_id, app.activity_s(env.config.broadcastt.activity_timeout_s))
    }

    /// Closes for an exceeded limit of the session (1008 and 1009) get the vendor's code.
    fn translate(closing: Closing) -> Closing {
        match closing.code {
            close::POLICY | close::TOO_BIG => Closing { code: TOO_MUCH.code, ..closing },
            _ => closing,
        }
    }

    /// The client does not read the close code: it decides by the code in this event whether to
    /// reconnect.
    fn before_close(closing: &Closing, _refused: bool) -> Option<Vec<u8>> {
        let is_own = (4000..4300).contains(&closing.code);
        is_own.then(|| words::error(closing.code, &closing.reason))
    }

    /// No protocol error is answered, because the client makes no further subscriptions after an
    /// error event.
    fn protocol_error(protocol_error: &ProtocolError<'_>) -> VendorResponse {
        match protocol_error {
            ProtocolError::NotJson
            | ProtocolError::NotAnObject
            | ProtocolError::NoData
            | ProtocolError::DataNotAnObject
            | ProtocolError::NoChannel
            | ProtocolError::NoSignIn
            | ProtocolError::Binary => VendorResponse::Count,
            ProtocolError::Event(
                BadEvent::Off
                | BadEvent::NoChannel
                | BadEvent::LongName
                | BadEvent::Public
                | BadEvent::LongData
                | BadEvent::TooMany,
                _,
            )
            | ProtocolError::Unsupported(_)
            | ProtocolError::Subscribed(_)
            | ProtocolError::NotSubscribed(_)
            | ProtocolError::SignedIn
            | ProtocolError::LongWatchlist(_) => VendorResponse::Ignore,
        }
    }

    fn subscribed(name: &str, data: &[u8]) -> Vec<u8> {
        words::subscribed(name, data)
    }

    fn refused(name: &str, refusal: &SubscribeRefusal<'_>) -> Vec<u8> {
        let (kind, status) = match refusal {
            SubscribeRefusal::Name(_) => (NAME, 400),
            SubscribeRefusal::Member(_) | SubscribeRefusal::Large(_) => (AUTH, 400),
            SubscribeRefusal::User | SubscribeRefusal::Signature => (AUTH, 401),
            SubscribeRefusal::SubscriptionLimit(_)
            | SubscribeRefusal::ChannelFull(_)
            | SubscribeRefusal::NoRoom(_)
            | SubscribeRefusal::TooMany(_) => (LIMIT, 403),
        };
        words::subscription_error(name, kind, &refusal.text(name), status)
    }

    fn again(_app: &config::AppConfig) -> bool {
        true
    }

    fn infers_channel(env: &Env) -> bool {
        env.config.broadcastt.infer_channel
    }

    fn name_length(env: &Env, _app: &config::AppConfig) -> usize {
        env.config.broadcastt.channel_name_length
    }

    fn user_id<'i>(raw: &'i str, text: Cow<'i, str>) -> Cow<'i, str> {
        words::id(raw, &text)
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

    fn push_client_event(
        out: &mut Vec<u8>,
        event: &str,
        channel: &str,
        data: Option<&str>,
        _user_id: Option<&str>,
    ) {
        words::push_client_event(out, event, channel, data);
    }

    fn event_data(data: Cow<'_, str>, is_string: bool) -> Cow<'_, str> {
        words::data(data, is_string)
    }

    fn batch_events(env: &Env, _app: &config::AppConfig) -> usize {
        env.config.broadcastt.batch_events
    }

    fn push_user_id(out: &mut Vec<u8>, id: &str) {
        words::push_quoted(out, id);
    }

    fn target(path: &str) -> Option<Target<'_>> {
        let mut parts = path.strip_prefix('/')?.split('/');
        let target = match (parts.next()?, parts.next(), parts.next()) {
            ("event", None, _) => Target::Events,
            ("events", None, _) => Target::Batch,
            ("channels", None, _) => Target::Channels,
            ("channel", Some(channel), None) => Target::Channel(decoded(channel)?),
            ("channels", Some(channel), Some("users")) => Target::Users(decoded(channel)?),
            _ => return None,
        };
        parts.next().is_none().then_some(target)
    }

    fn api_error(_status: u16, message: &str) -> Vec<u8> {
        words::api_error(message)
    }
}

#[cfg(test)]
mod tests;
