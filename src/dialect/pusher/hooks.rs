//! Webhooks of Pusher Channels: channel events as JSON, the request body, and its signature.

use super::super::channels::channel;
use super::super::channels::data::ChannelKind;
use super::super::channels::signature::AppKey;
use super::super::webhooks::{EventText, SignatureFields, WebhookFormat};
use super::DATA;
use crate::codec::json::push_string;
use crate::config::{AppConfig, HookEvent};
use crate::crypto::{self, HmacKey};
use crate::hub::{ChannelEvent, ChannelEventKind, ClientEvent, EventMask};

/// The header field with the key that signed the webhook request.
const KEY_FIELD: &str = "x-pusher-key";
/// The header field with the signature of the webhook request.
const SIGNATURE_FIELD: &str = "x-pusher-signature";

/// The format of the vendor's webhooks.
pub static FORMAT: WebhookFormat = WebhookFormat { mask, event, body, sign };

/// The channel events that an application's webhooks need. Occupied and vacated are always
/// requested together, and so are member added and member removed, because an event and its
/// opposite that follow each other within a short time cancel each other out.
fn mask(app: &AppConfig) -> EventMask {
    use HookEvent as Event;
    let wants = |event| app.webhooks.iter().any(|hook| hook.wants(event));
    let mask = [
        (wants(Event::ChannelOccupied) || wants(Event::ChannelVacated), EventMask::OCCUPANCY),
        (wants(Event::MemberAdded) || wants(Event::MemberRemoved), EventMask::MEMBERS),
        (wants(Event::CacheMiss), EventMask::MISSES),
        (wants(Event::SubscriptionCount) || app.subscription_count, EventMask::COUNTS),
        (wants(Event::ClientEvent), EventMask::CLIENT_EVENTS),
    ];
    let wanted = mask.into_iter().filter(|(wanted, _)| *wanted);
    wanted.fold(EventMask::NONE, |all, (_, mask)| all | mask)
}

/// A channel event as JSON, with its type; `None` if Pusher Channels has no such event.
fn event(channel_event: &ChannelEvent) -> Option<EventText> {
    let (kind, name) = match &channel_event.what {
        ChannelEventKind::Occupied => (HookEvent::ChannelOccupied, "channel_occupied"),
        ChannelEventKind::Vacated => (HookEvent::ChannelVacated, "channel_vacated"),
        ChannelEventKind::MemberAdded(_) => (HookEvent::MemberAdded, "member_added"),
        ChannelEventKind::MemberRemoved(_) => (HookEvent::MemberRemoved, "member_removed"),
        ChannelEventKind::CacheMiss => (HookEvent::CacheMiss, "cache_miss"),
        // Presence channels have no subscription counts; their members are reported by events of
        // their own.
        ChannelEventKind::Count(_)
            if channel::kind(&DATA, &channel_event.channel) == ChannelKind::Presence =>
        {
            return None;
        }
        ChannelEventKind::Count(_) => (HookEvent::SubscriptionCount, "subscription_count"),
        ChannelEventKind::ClientEvent(_) => (HookEvent::ClientEvent, "client_event"),
    };
    let mut out = Vec::with_capacity(64 + channel_event.channel.len());
    out.push(b'{');
    push_member(&mut out, "name", name);
    out.push(b',');
    push_member(&mut out, "channel", &channel_event.channel);
    match &channel_event.what {
        ChannelEventKind::MemberAdded(user) | ChannelEventKind::MemberRemoved(user) => {
            out.push(b',');
            push_member(&mut out, "user_id", user);
        }
        ChannelEventKind::Count(count) => {
            out.extend_from_slice(format!(r#","subscription_count":{count}"#).as_bytes());
        }
        ChannelEventKind::ClientEvent(client_event) => {
            push_client_event_fields(&mut out, client_event)
        }
        ChannelEventKind::Occupied | ChannelEventKind::Vacated | ChannelEventKind::CacheMiss => {}
    }
    out.push(b'}');
    Some((kind, out))
}

fn push_client_event_fields(out: &mut Vec<u8>, client_event: &ClientEvent) {
    let more = [
        ("event", Some(&client_event.event)),
        ("data", client_event.data.as_ref()),
        ("socket_id", Some(&client_event.from)),
        ("user_id", client_event.user.as_ref()),
    ];
    for (name, value) in more {
        if let Some(value) = value {
            out.push(b',');
            push_member(out, name, value);
        }
    }
}

fn push_member(out: &mut Vec<u8>, name: &str, value: &str) {
    push_string(out, name);
    out.push(b':');
    push_string(out, value);
}

/// The body of a webhook request with these events. `time_ms` is in milliseconds since 1970.
fn body(time_ms: u64, events: &[&[u8]]) -> Vec<u8> {
    let mut out = format!(r#"{{"time_ms":{time_ms},"events":["#).into_bytes();
    for (at, event) in events.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        out.extend_from_slice(event);
    }
    out.extend_from_slice(b"]}");
    out
}

fn sign(key: &AppKey, body: &[u8]) -> SignatureFields {
    [(KEY_FIELD, key.text.to_string()), (SIGNATURE_FIELD, signature(&key.secret, body))]
}

/// The signature of a webhook body: its HMAC-SHA256 in hexadecimal digits.
fn signature(secret: &HmacKey, body: &[u8]) -> String {
    let hex: [u8; 64] = crypto::hex(&secret.sign(&[body]));
    String::from_utf8_lossy(&hex).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Webhook};

    fn check(channel: &str, what: ChannelEventKind, kind: HookEvent, expected: &str) {
        let channel_event = ChannelEvent {
            app: 0,
            version: 0,
            channel: channel.into(),
            what,
            source: 0,
            is_ours: true,
        };
        let (found, text) = event(&channel_event).expect("an event");
        assert_eq!((found, String::from_utf8(text).as_deref()), (kind, Ok(expected)));
    }

    #[test]
    fn hooks_body_signature_is_the_vendors() {
        let room = ChannelEvent {
            app: 0,
            version: 0,
            channel: "room".into(),
            what: ChannelEventKind::Occupied,
            source: 0,
            is_ours: true,
        };
        let (_, event) = event(&room).expect("an event");
        let body = body(1_760_000_000_123, &[&event]);
        let text =
            r#"{"time_ms":1760000000123,"events":[{"name":"channel_occupied","channel":"room"}]}"#;
        assert_eq!(str::from_utf8(&body), Ok(text));
        assert_eq!(
            signature(&HmacKey::new(b"secret-9b7e"), &body),
            "8e3d0f3f810eb1f8def8253358c82443c3c6054661c3533ba3def907e57773a6"
        );
    }

    #[test]
    fn hooks_every_event_has_its_fields() {
        use HookEvent as Event;
        let vacated = r#"{"name":"channel_vacated","channel":"a"}"#;
        check("a", ChannelEventKind::Vacated, Event::ChannelVacated, vacated);
        let added = r#"{"name":"member_added","channel":"presence-a","user_id":"a\"b"}"#;
        check(
            "presence-a",
            ChannelEventKind::MemberAdded("a\"b".into()),
            Event::MemberAdded,
            added,
        );
        let removed = r#"{"name":"member_removed","channel":"presence-a","user_id":"7"}"#;
        check(
            "presence-a",
            ChannelEventKind::MemberRemoved("7".into()),
            Event::MemberRemoved,
            removed,
        );
        let missed = r#"{"name":"cache_miss","channel":"cache-a"}"#;
        check("cache-a", ChannelEventKind::CacheMiss, Event::CacheMiss, missed);
        let count = r#"{"name":"subscription_count","channel":"a","subscription_count":3}"#;
        check("a", ChannelEventKind::Count(3), Event::SubscriptionCount, count);
        let data = Some(r#"{"on":true}"#.into());
        let client_event =
            ClientEvent { event: "client-x".into(), data, from: "1.2".into(), user: None };
        let text = r#"{"name":"client_event","channel":"private-a","event":"client-x","data":"{\"on\":true}","socket_id":"1.2"}"#;
        check(
            "private-a",
            ChannelEventKind::ClientEvent(client_event.clone().into()),
            Event::ClientEvent,
            text,
        );
        let client_event = ClientEvent { data: None, user: Some("ada".into()), ..client_event };
        let text = r#"{"name":"client_event","channel":"presence-a","event":"client-x","socket_id":"1.2","user_id":"ada"}"#;
        check(
            "presence-a",
            ChannelEventKind::ClientEvent(client_event.into()),
            Event::ClientEvent,
            text,
        );
        let users = ChannelEvent {
            app: 0,
            version: 0,
            channel: "presence-a".into(),
            what: ChannelEventKind::Count(3),
            source: 0,
            is_ours: true,
        };
        assert_eq!(event(&users), None);
    }

    #[test]
    fn hooks_mask_has_only_wanted_events() {
        let mut app = Config::demo().apps.remove(0);
        assert_eq!(mask(&app), EventMask::NONE);
        app.webhooks.push(Webhook::new("http://a"));
        let all = EventMask::OCCUPANCY
            | EventMask::MEMBERS
            | EventMask::MISSES
            | EventMask::CLIENT_EVENTS;
        assert_eq!(mask(&app), all);
        app.webhooks[0].event_types = vec![HookEvent::ChannelOccupied];
        assert_eq!(mask(&app), EventMask::OCCUPANCY);
        let mut counts = Webhook::new("http://a");
        counts.event_types = vec![HookEvent::SubscriptionCount];
        app.webhooks.push(counts);
        assert_eq!(mask(&app), EventMask::OCCUPANCY | EventMask::COUNTS);
    }
}
