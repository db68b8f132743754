//! Pusher Channels, protocol 7: <https://pusher.com/docs/channels/library_auth_reference/pusher-websockets-protocol/>.

mod data;
pub mod hooks;
mod words;

pub use data::DATA;

use super::channels::data::VendorData;
use super::channels::vendor::{BadEvent, ProtocolError, Vendor, VendorResponse, VendorSettings};
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

const BAD_VERSION: Closing = Closing::new(4006, "Invalid version string format");
const UNSUPPORTED_VERSION: Closing = Closing::new(4007, "Unsupported protocol version");
const NO_VERSION: Closing = Closing::new(4008, "No protocol version supplied");

impl Vendor for Pusher {
    const DATA: &'static VendorData = &DATA;

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

    fn settings(env: &Env, app: &config::AppConfig) -> VendorSettings {
        let pusher = &env.config.pusher;
        let activity_s = app.activity_s(pusher.activity_timeout_s);
        let (silence_ms, answer_ms) = (activity_s * 1000, pusher.pong_timeout_s * 1000);
        VendorSettings {
            activity_s,
            heartbeat: Heartbeat { silence_ms, answer_ms },
            name_length: app.limits.channel_name_length,
            batch_events: app.limits.batch_events,
            infers_channel: false,
            acknowledges_again: app.duplicate_subscribe == DuplicateSubscribe::Ack,
        }
    }

    /// Clients of older protocol versions read only the error event, newer ones only the close
    /// code.
    fn before_close(closing: &Closing, refused: bool) -> Option<Vec<u8>> {
        refused.then(|| words::error(Some(closing.code), &closing.reason, None))
    }

    fn protocol_error(protocol_error: &ProtocolError<'_>) -> VendorResponse {
        use BadEvent::{LongData, LongName, Off, TooMany, View};
        let (code, channel) = match protocol_error {
            ProtocolError::Event(Off | LongName | LongData | TooMany | View, channel) => {
                (Some(4301), *channel)
            }
            ProtocolError::Event(_, channel) => (None, *channel),
            ProtocolError::NotSubscribed(channel) => (None, Some(*channel)),
            ProtocolError::LongWatchlist(_) => (Some(4302), None),
            _ => (None, None),
        };
        VendorResponse::Send(words::error(code, &text_of(protocol_error), channel))
    }

    fn subscription_error(name: &str, kind: &str, error: &str, status: u16) -> Vec<u8> {
        words::subscription_error(name, kind, error, status)
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

    fn push_client_event(
        out: &mut Vec<u8>,
        event: &str,
        channel: &str,
        data: Option<&str>,
        user_id: Option<&str>,
    ) {
        words::push_client_event(out, event, channel, data, user_id);
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
        ProtocolError::LateResume => "polycast:resume must be the first message",
        ProtocolError::ManyPositions(max) => {
            return format!("Too many positions: only {max} are used").into();
        }
        ProtocolError::Event(BadEvent::Off, _) => "The app does not have client messaging enabled.",
        ProtocolError::Event(BadEvent::NoChannel, _) => "Client events must name a channel",
        ProtocolError::Event(BadEvent::LongName, _) => "Event name is too long",
        ProtocolError::Event(BadEvent::Public, _) => {
            "Client events are only allowed on private and presence channels"
        }
        ProtocolError::Event(BadEvent::LongData, _) => "Client event data is too long",
        ProtocolError::Event(BadEvent::TooMany, _) => "Too many client events in one second",
        ProtocolError::Event(BadEvent::View, _) => "The channel is linked and accepts no events",
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
