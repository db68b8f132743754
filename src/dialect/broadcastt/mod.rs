//! The protocol of Broadcastt: <https://github.com/broadcastt/broadcastt-docs>, and what its
//! published client `broadcastt-js` 0.2.3 accepts. `README.md` in this folder lists the differences
//! from Pusher Channels.

mod data;
mod words;

pub use data::DATA;

use super::channels::data::VendorData;
use super::channels::vendor::{BadEvent, ProtocolError, Vendor, VendorResponse, VendorSettings};
use super::{Closing, Env, Heartbeat, channels};
use crate::config;
use crate::hub::Users;
use std::borrow::Cow;

/// One client connection.
pub type Connection = channels::Connection<Broadcastt>;

/// The vendor Broadcastt.
#[derive(Debug)]
pub enum Broadcastt {}

impl Vendor for Broadcastt {
    const DATA: &'static VendorData = &DATA;

    /// The client sends a ping after each activity timeout, regardless of other traffic. If the
    /// client is silent for the activity timeout plus the pong timeout, the server sends a ping
    /// frame.
    fn settings(env: &Env, app: &config::AppConfig) -> VendorSettings {
        let section = &env.config.broadcastt;
        let activity_s = app.activity_s(section.activity_timeout_s);
        let pong_s = section.pong_timeout_s;
        let (silence_ms, answer_ms) = ((activity_s + pong_s) * 1000, pong_s * 1000);
        VendorSettings {
            activity_s,
            heartbeat: Heartbeat { silence_ms, answer_ms },
            name_length: section.channel_name_length,
            batch_events: section.batch_events,
            infers_channel: section.infer_channel,
            acknowledges_again: true,
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
                | BadEvent::TooMany
                | BadEvent::View,
                _,
            )
            | ProtocolError::Unsupported(_)
            | ProtocolError::Subscribed(_)
            | ProtocolError::NotSubscribed(_)
            | ProtocolError::SignedIn
            | ProtocolError::LongWatchlist(_)
            | ProtocolError::LateResume
            | ProtocolError::ManyPositions(_) => VendorResponse::Ignore,
        }
    }

    fn subscription_error(name: &str, kind: &str, error: &str, status: u16) -> Vec<u8> {
        words::subscription_error(name, kind, error, status)
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

    fn push_user_id(out: &mut Vec<u8>, id: &str) {
        words::push_quoted(out, id);
    }
}

#[cfg(test)]
mod tests;
