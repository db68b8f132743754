//! Pusher Channels, protocol 7: <https://pusher.com/docs/channels/library_auth_reference/pusher-websockets-protocol/>.

mod api;
mod batch;
mod channel;
mod commands;
pub mod hooks;
mod reads;
pub mod signature;
mod users;
mod words;

use super::{
    Answered, Closing, Context, Dialect, Env, JoinOutcome, Opening, Reply, Why, freeze_text,
};
use crate::config::DuplicateSubscribe;
use crate::http;
use crate::http::query;
use crate::hub::{ConnId, Welcome};
use crate::mem::{Frozen, Slot};
use crate::time::{Deadline, Now};
use crate::ws;
use std::borrow::Cow;
use users::Who;

/// Close codes, with the text that goes with each. 4000 to 4099: do not come back; 4100 to 4199:
/// come back after a while; 4200 to 4299: come back at once.
mod codes {
    use super::Closing;

    pub(super) const TLS_REQUIRED: Closing =
        Closing::new(4000, "Application only accepts TLS connections, reconnect using wss://");
    pub(super) const UNKNOWN_APP: Closing = Closing::new(4001, "Application does not exist");
    pub(super) const APP_DISABLED: Closing = Closing::new(4003, "Application disabled");
    pub(super) const OVER_QUOTA: Closing =
        Closing::new(4004, "Application is over connection quota");
    pub(super) const NO_SUCH_PATH: Closing = Closing::new(4005, "Path not found");
    pub(super) const BAD_VERSION: Closing = Closing::new(4006, "Invalid version string format");
    pub(super) const UNSUPPORTED_VERSION: Closing =
        Closing::new(4007, "Unsupported protocol version");
    pub(super) const NO_VERSION: Closing = Closing::new(4008, "No protocol version supplied");
    pub(super) const ORIGIN: Closing =
        Closing::new(4009, "Connection is unauthorized: origin not allowed");
    pub(super) const SIGN_IN: Closing =
        Closing::new(4009, "Connection is unauthorized: invalid sign-in");
    pub(super) const UNAUTHORISED: Closing = Closing::new(
        4009,
        "Connection is unauthorized: it has neither signed in nor joined a private channel in time",
    );
    pub(super) const TERMINATED: &str = "You got disconnected by the app.";
    pub(super) const TOO_SLOW: Closing =
        Closing::new(4100, "Over capacity: the client does not read what it is sent");
    pub(super) const TOO_MANY_ERRORS: Closing =
        Closing::new(4100, "Over capacity: too many messages that are errors");
    pub(super) const DRAINING: Closing =
        Closing::new(4200, "Server is shutting down, reconnect immediately");
    pub(super) const SILENT: Closing =
        Closing::new(4201, "Pong reply not received: ping was sent, but no reply came in time");
}

/// Answers of error that one connection gets in a second; one more and it is closed.
const ERRORS_PER_SECOND: u8 = 10;
/// Binary messages, which the protocol does not have, that are answered before the close.
const BINARY_MESSAGES: u8 = 3;

/// One client.
#[derive(Debug)]
pub struct Connection {
    app: u32,
    /// The second (its low bits) in which errors were counted last, and how many.
    error_second: u16,
    errors: u8,
    binaries: u8,
    /// Client events in the same way.
    said_second: u16,
    said: u16,
    /// The second by which the client has to authorise itself; 0 when it has or need not.
    authorise_by_s: u32,
    /// Most clients are nobody in particular.
    who: Option<Box<Who>>,
}

impl Dialect for Connection {
    fn open(context: &mut Context<'_>, opening: &Opening<'_>) -> Option<Connection> {
        match admit(context, opening) {
            Ok(app) => {
                let timeout = context.env.config.pusher.activity_timeout_s;
                let text = words::established(&socket_id(context.env, context.conn), timeout);
                context.send_text(text.as_bytes());
                let within_s = context.env.apps.get(app).config.authorise_within_s;
                Some(Connection::new(app, within_s, context.now))
            }
            Err(closing) => {
                // Clients of older protocols see only the event, newer ones only the code.
                let text = words::error(Some(closing.code), &closing.reason);
                context.send_text(&text);
                context.close(closing);
                None
            }
        }
    }

    fn message(&mut self, context: &mut Context<'_>, kind: ws::Kind, payload: &mut [u8]) {
        match kind {
            ws::Kind::Text => commands::text(self, context, payload),
            ws::Kind::Binary => {
                self.binaries = self.binaries.saturating_add(1);
                if self.binaries > BINARY_MESSAGES {
                    context.close(Closing::new(1003, "Binary messages are not supported"));
                } else {
                    self.error(context, "Binary messages are not supported");
                }
            }
        }
    }

    fn joined(&mut self, context: &mut Context<'_>, name: &str, outcome: JoinOutcome) {
        if channel::kind(name) == channel::Kind::User {
            if self.user_channel_joined() {
                context.send_text(&words::subscribed(name, b"{}"));
            }
            return;
        }
        let app = &context.env.apps.get(self.app).config;
        let ack = app.duplicate_subscribe == DuplicateSubscribe::Ack;
        if channel::kind(name) != channel::Kind::Public && matches!(outcome, JoinOutcome::Joined(_))
        {
            self.authorise_by_s = 0;
        }
        match outcome {
            JoinOutcome::Already if !ack => {
                self.error(context, &format!("Existing subscription to channel {name}"));
            }
            JoinOutcome::Already => context.send_text(&words::subscribed(name, b"{}")),
            JoinOutcome::Joined(welcome) => welcome_to(context, name, welcome.unwrap_or_default()),
            JoinOutcome::Full => {
                let most = app.limits.subscriptions_per_connection;
                let error = format!("A connection may hold {most} subscriptions");
                self.absent(name);
                self.refuse(context, name, words::LIMIT, &error, 4100);
            }
            JoinOutcome::Crowded => {
                let most = app.limits.presence_members;
                let error = format!("A presence channel may have {most} members");
                self.absent(name);
                self.refuse(context, name, words::LIMIT, &error, 4100);
            }
        }
    }

    fn not_subscribed(&mut self, context: &mut Context<'_>, name: &str) {
        self.error(context, &format!("No current subscription to channel {name}"));
    }

    fn nudge(&mut self, context: &mut Context<'_>) {
        context.send_text(words::PING);
    }

    fn deadline(&self) -> Deadline {
        match self.authorise_by_s {
            0 => Deadline::NEVER,
            by_s => Deadline(u64::from(by_s) * 1000),
        }
    }

    fn late(&mut self, context: &mut Context<'_>) {
        self.authorise_by_s = 0;
        context.close(codes::UNAUTHORISED);
    }

    fn renewed(&mut self, context: &mut Context<'_>) {
        if !context.env.apps.get(self.app).config.enabled {
            context.close(codes::APP_DISABLED);
        }
    }

    fn closing(why: Why) -> Closing {
        match why {
            Why::Silent => codes::SILENT,
            Why::Draining => codes::DRAINING,
            Why::Slow => codes::TOO_SLOW,
        }
    }

    fn gone(&mut self, env: &Env) {
        env.apps.get(self.app).release();
    }

    fn limits(&self, env: &Env) -> ws::Limits {
        let most = env.apps.get(self.app).config.limits.message_bytes;
        ws::Limits {
            frame_bytes: most.min(env.config.limits.frame_bytes),
            message_bytes: most,
            fragments: env.config.limits.fragments,
            allow_rsv1: false,
        }
    }

    fn count(env: &Env, app: u32, name: &str, count: u64) -> Option<Frozen> {
        let wanted = env.apps.get(app).config.subscription_count;
        let counted = wanted && channel::kind(name) != channel::Kind::Presence;
        counted.then(|| freeze_text(&mut Vec::new(), |out| words::push_count(out, name, count)))
    }

    fn request(
        context: &mut Context<'_>,
        app: u32,
        path: &str,
        request: &mut http::Request<'_>,
    ) -> Answered {
        api::answer(context, app, path, request)
    }
}

/// What a new subscriber is told: that it is one, and what the channel has to give.
fn welcome_to(context: &mut Context<'_>, name: &str, welcome: Welcome) {
    let data = welcome.users.map_or(b"{}".to_vec(), |users| words::roster(&users));
    context.send_text(&words::subscribed(name, &data));
    match welcome.cached {
        Some(Some(frame)) => {
            if let Some((_, text)) = ws::frame::split(&frame) {
                context.send_text(text);
            }
        }
        Some(None) => context.send_text(&words::cache_miss(name)),
        None => {}
    }
}

impl Connection {
    fn new(app: u32, within_s: u64, now: Now) -> Connection {
        let by_s = if within_s == 0 { 0 } else { now.ms.div_ceil(1000) + within_s };
        Connection {
            app,
            error_second: 0,
            errors: 0,
            binaries: 0,
            said_second: 0,
            said: 0,
            authorise_by_s: by_s as u32,
            who: None,
        }
    }

    /// Counts one more client event; false when there are more than `most` in this second.
    fn may_say(&mut self, now: Now, most: u16) -> bool {
        let second = (now.ms / 1000) as u16;
        if second != self.said_second {
            (self.said_second, self.said) = (second, 0);
        }
        self.said = self.said.saturating_add(1);
        self.said <= most
    }

    /// Reports an error that does not close the connection, up to a bound in each second.
    fn error(&mut self, context: &mut Context<'_>, message: &str) {
        self.report(context, &words::error(None, message));
    }

    /// Refuses one subscription.
    fn refuse(
        &mut self,
        context: &mut Context<'_>,
        name: &str,
        kind: &str,
        error: &str,
        status: u16,
    ) {
        self.report(context, &words::subscription_error(name, kind, error, status));
    }

    fn report(&mut self, context: &mut Context<'_>, text: &[u8]) {
        let second = (context.now.ms / 1000) as u16;
        if second != self.error_second {
            self.error_second = second;
            self.errors = 0;
        }
        self.errors += 1;
        if self.errors > ERRORS_PER_SECOND {
            context.close(codes::TOO_MANY_ERRORS);
        } else {
            context.send_text(text);
        }
    }
}

/// The checks on a new connection, the cheapest and least telling first.
fn admit(context: &Context<'_>, opening: &Opening<'_>) -> Result<u32, Closing> {
    use super::apps::PathError;
    let env = context.env;
    let number = env.app_of_socket(opening.path);
    if number == Err(PathError::NoSuchPath) {
        return Err(codes::NO_SUCH_PATH);
    }
    if context.draining {
        return Err(codes::DRAINING);
    }
    let Ok(number) = number else { return Err(codes::UNKNOWN_APP) };
    let app = env.apps.get(number);
    if !app.config.enabled {
        return Err(codes::APP_DISABLED);
    }
    if app.config.require_tls && !opening.secure {
        return Err(codes::TLS_REQUIRED);
    }
    let origins = &app.config.allowed_origins;
    let origin = opening.origin.unwrap_or("");
    if !origins.is_empty() && !origins.iter().any(|allowed| allowed.matches(origin)) {
        return Err(codes::ORIGIN);
    }
    check_version(query::get(opening.query, "protocol"), env.config.pusher.strict_protocol)?;
    match app.admit() {
        true => Ok(number),
        false => Err(codes::OVER_QUOTA),
    }
}

fn check_version(protocol: Option<&str>, strict: bool) -> Result<(), Closing> {
    if !strict {
        return Ok(());
    }
    match protocol.map(str::parse::<u32>) {
        None => Err(codes::NO_VERSION),
        Some(Err(_)) => Err(codes::BAD_VERSION),
        Some(Ok(4..=7)) => Ok(()),
        Some(Ok(_)) => Err(codes::UNSUPPORTED_VERSION),
    }
}

/// The id by which clients and the HTTP API know a connection: `\d+\.\d+`.
pub fn socket_id(env: &Env, conn: ConnId) -> String {
    let owner = u64::from(env.node) << 16 | u64::from(conn.core);
    let place = u64::from(conn.slot.generation) << 32 | u64::from(conn.slot.index);
    format!("{owner}.{place}")
}

/// The connection of this process that a socket id names. `Err` if it is not a socket id, `None`
/// if it is one of elsewhere.
fn parse_socket_id(env: &Env, text: &str) -> Result<Option<ConnId>, ()> {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let (owner, place) = text.split_once('.').ok_or(())?;
    if !digits(owner) || !digits(place) {
        return Err(());
    }
    let (Ok(owner), Ok(place)) = (owner.parse::<u64>(), place.parse::<u64>()) else {
        return Ok(None);
    };
    let generation = (place >> 32) as u32;
    let slot = Slot { index: place as u32, generation };
    Ok((owner >> 16 == u64::from(env.node)).then_some(ConnId { core: owner as u16, slot }))
}

fn json_error(status: u16, message: &str) -> Reply {
    Reply { status, body: Cow::Owned(words::api_error(status, message)), allow: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn a_socket_id_leads_back_to_its_connection() {
        let env = Env::new(Config::demo(), 0xfeed_beef);
        let slot = Slot { index: 77, generation: 0xff_ffff };
        let conn = ConnId { core: 255, slot };
        let id = socket_id(&env, conn);
        assert_eq!(parse_socket_id(&env, &id), Ok(Some(conn)));
        assert_eq!(parse_socket_id(&Env::new(Config::demo(), 1), &id), Ok(None));
        assert_eq!(parse_socket_id(&env, "99999999999999999999999.1"), Ok(None));
        for bad in ["", ".", "1", "1.", ".1", "1.2.3", "a.1", "1.-2", "+1.2", "1.2 "] {
            assert_eq!(parse_socket_id(&env, bad), Err(()), "{bad:?}");
        }
    }

    #[test]
    fn a_version_is_checked_only_when_strict() {
        for (protocol, strict, expected) in [
            (None, false, Ok(())),
            (Some("abc"), false, Ok(())),
            (Some("99"), false, Ok(())),
            (Some("4"), true, Ok(())),
            (Some("7"), true, Ok(())),
            (Some("3"), true, Err(codes::UNSUPPORTED_VERSION)),
            (Some("8"), true, Err(codes::UNSUPPORTED_VERSION)),
            (Some("abc"), true, Err(codes::BAD_VERSION)),
            (None, true, Err(codes::NO_VERSION)),
        ] {
            assert_eq!(check_version(protocol, strict), expected, "{protocol:?} {strict}");
        }
    }
}
