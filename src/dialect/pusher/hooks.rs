//! Webhooks: what happened to a channel, in the vendor's words.

use super::super::channels::channel;
use super::super::channels::vendor::Kind;
use super::Pusher;
use crate::codec::json::push_string;
use crate::config::{App, HookEvent};
use crate::crypto::{self, HmacKey};
use crate::hub::{Kinds, Notice, Said, What};

/// The header fields of a request that say which key has signed it, and its signature.
pub const KEY_FIELD: &str = "x-pusher-key";
/// See [`KEY_FIELD`].
pub const SIGNATURE_FIELD: &str = "x-pusher-signature";

/// What an application's webhooks need to be told. Who comes back soon is not reported at all, so
/// leaving and coming are always looked at together.
pub fn kinds(app: &App) -> Kinds {
    use HookEvent as Event;
    let wants = |event| app.webhooks.iter().any(|hook| hook.wants(event));
    let kinds = [
        (wants(Event::ChannelOccupied) || wants(Event::ChannelVacated), Kinds::OCCUPANCY),
        (wants(Event::MemberAdded) || wants(Event::MemberRemoved), Kinds::MEMBERS),
        (wants(Event::CacheMiss), Kinds::MISSES),
        (wants(Event::SubscriptionCount) || app.subscription_count, Kinds::COUNTS),
        (wants(Event::ClientEvent), Kinds::SAID),
    ];
    let wanted = kinds.into_iter().filter(|(wanted, _)| *wanted);
    wanted.fold(Kinds::NONE, |all, (_, kinds)| all | kinds)
}

/// One event as JSON, if there is one for this notice.
pub fn event(notice: &Notice) -> Option<(HookEvent, Vec<u8>)> {
    let (kind, name) = match &notice.what {
        What::Occupied => (HookEvent::ChannelOccupied, "channel_occupied"),
        What::Vacated => (HookEvent::ChannelVacated, "channel_vacated"),
        What::Came(_) => (HookEvent::MemberAdded, "member_added"),
        What::Left(_) => (HookEvent::MemberRemoved, "member_removed"),
        What::Missed => (HookEvent::CacheMiss, "cache_miss"),
        // Of presence channels users are counted, and by their own events.
        What::Count(_) if channel::kind::<Pusher>(&notice.channel) == Kind::Presence => {
            return None;
        }
        What::Count(_) => (HookEvent::SubscriptionCount, "subscription_count"),
        What::Said(_) => (HookEvent::ClientEvent, "client_event"),
    };
    let mut out = Vec::with_capacity(64 + notice.channel.len());
    out.push(b'{');
    push_member(&mut out, "name", name);
    out.push(b',');
    push_member(&mut out, "channel", &notice.channel);
    match &notice.what {
        What::Came(user) | What::Left(user) => {
            out.push(b',');
            push_member(&mut out, "user_id", user);
        }
        What::Count(count) => {
            out.extend_from_slice(format!(r#","subscription_count":{count}"#).as_bytes());
        }
        What::Said(said) => push_said(&mut out, said),
        What::Occupied | What::Vacated | What::Missed => {}
    }
    out.push(b'}');
    Some((kind, out))
}

fn push_said(out: &mut Vec<u8>, said: &Said) {
    let more = [
        ("event", Some(&said.event)),
        ("data", said.data.as_ref()),
        ("socket_id", Some(&said.from)),
        ("user_id", said.user.as_ref()),
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

/// The body of a request with these events.
pub fn body(time_ms: u64, events: &[&[u8]]) -> Vec<u8> {
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

/// The signature of a body.
pub fn signature(secret: &HmacKey, body: &[u8]) -> String {
    let hex: [u8; 64] = crypto::hex(&secret.sign(&[body]));
    String::from_utf8_lossy(&hex).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Webhook};

    fn check(channel: &str, what: What, kind: HookEvent, expected: &str) {
        let notice = Notice { app: 0, version: 0, channel: channel.into(), what };
        let (found, text) = event(&notice).expect("an event");
        assert_eq!((found, String::from_utf8(text).as_deref()), (kind, Ok(expected)));
    }

    #[test]
    fn a_body_is_signed_as_other_libraries_verify_it() {
        let room = Notice { app: 0, version: 0, channel: "room".into(), what: What::Occupied };
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
    fn every_event_has_its_fields() {
        use HookEvent as Event;
        let vacated = r#"{"name":"channel_vacated","channel":"a"}"#;
        check("a", What::Vacated, Event::ChannelVacated, vacated);
        let added = r#"{"name":"member_added","channel":"presence-a","user_id":"a\"b"}"#;
        check("presence-a", What::Came("a\"b".into()), Event::MemberAdded, added);
        let removed = r#"{"name":"member_removed","channel":"presence-a","user_id":"7"}"#;
        check("presence-a", What::Left("7".into()), Event::MemberRemoved, removed);
        let missed = r#"{"name":"cache_miss","channel":"cache-a"}"#;
        check("cache-a", What::Missed, Event::CacheMiss, missed);
        let count = r#"{"name":"subscription_count","channel":"a","subscription_count":3}"#;
        check("a", What::Count(3), Event::SubscriptionCount, count);
        let data = Some(r#"{"on":true}"#.into());
        let said = Said { event: "client-x".into(), data, from: "1.2".into(), user: None };
        let text = r#"{"name":"client_event","channel":"private-a","event":"client-x","data":"{\"on\":true}","socket_id":"1.2"}"#;
        check("private-a", What::Said(said.clone().into()), Event::ClientEvent, text);
        let said = Said { data: None, user: Some("ada".into()), ..said };
        let text = r#"{"name":"client_event","channel":"presence-a","event":"client-x","socket_id":"1.2","user_id":"ada"}"#;
        check("presence-a", What::Said(said.into()), Event::ClientEvent, text);
        let users =
            Notice { app: 0, version: 0, channel: "presence-a".into(), what: What::Count(3) };
        assert_eq!(event(&users), None);
    }

    #[test]
    fn only_what_an_endpoint_wants_is_noticed() {
        let mut app = Config::demo().apps.remove(0);
        assert_eq!(kinds(&app), Kinds::NONE);
        app.webhooks.push(Webhook::new("http://a"));
        let all = Kinds::OCCUPANCY | Kinds::MEMBERS | Kinds::MISSES | Kinds::SAID;
        assert_eq!(kinds(&app), all);
        app.webhooks[0].event_types = vec![HookEvent::ChannelOccupied];
        assert_eq!(kinds(&app), Kinds::OCCUPANCY);
        let mut counts = Webhook::new("http://a");
        counts.event_types = vec![HookEvent::SubscriptionCount];
        app.webhooks.push(counts);
        assert_eq!(kinds(&app), Kinds::OCCUPANCY | Kinds::COUNTS);
    }
}
