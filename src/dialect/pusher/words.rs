//! The server's messages in the Pusher Channels protocol, as JSON text.

use super::super::channels::messages::push_event;
use crate::codec::json::push_string;
use crate::hub::Users;

/// An error event. The error of a client event has that event's `channel`, so that the client's
/// listeners on the channel receive it, too.
pub(super) fn error(code: Option<u16>, message: &str, channel: Option<&str>) -> Vec<u8> {
    let mut out = br#"{"event":"pusher:error","#.to_vec();
    if let Some(channel) = channel {
        out.extend_from_slice(br#""channel":"#);
        push_string(&mut out, channel);
        out.push(b',');
    }
    out.extend_from_slice(br#""data":{"code":"#);
    match code {
        Some(code) => out.extend_from_slice(code.to_string().as_bytes()),
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(br#","message":"#);
    push_string(&mut out, message);
    out.extend_from_slice(b"}}");
    out
}

/// The members of a presence channel, as JSON data of the acknowledgement.
pub(super) fn roster(users: &Users) -> Vec<u8> {
    let mut out = br#"{"presence":{"ids":["#.to_vec();
    for (at, (id, _)) in users.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        push_string(&mut out, id);
    }
    out.extend_from_slice(br#"],"hash":{"#);
    for (at, (id, info)) in users.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        push_string(&mut out, id);
        out.push(b':');
        out.extend_from_slice(info.as_deref().unwrap_or("null").as_bytes());
    }
    out.extend_from_slice(format!(r#"}},"count":{}}}}}"#, users.len()).as_bytes());
    out
}

/// Appends the event that notifies the members of a presence channel of a new member.
pub(super) fn push_member_added(out: &mut Vec<u8>, name: &str, id: &str, info: Option<&str>) {
    let mut data = br#"{"user_id":"#.to_vec();
    push_string(&mut data, id);
    data.extend_from_slice(br#","user_info":"#);
    data.extend_from_slice(info.unwrap_or("null").as_bytes());
    data.push(b'}');
    push_event(out, "pusher_internal:member_added", name, str::from_utf8(&data).unwrap_or("{}"));
}

/// Appends the event that notifies the members of a presence channel that a member has left.
pub(super) fn push_member_removed(out: &mut Vec<u8>, name: &str, id: &str) {
    let mut data = br#"{"user_id":"#.to_vec();
    push_string(&mut data, id);
    data.push(b'}');
    push_event(out, "pusher_internal:member_removed", name, str::from_utf8(&data).unwrap_or("{}"));
}

/// Appends a client event. `data` is raw JSON, or `None` if the client sent none.
pub(super) fn push_client_event(
    out: &mut Vec<u8>,
    event: &str,
    channel: &str,
    data: Option<&str>,
    user_id: Option<&str>,
) {
    out.extend_from_slice(br#"{"event":"#);
    push_string(out, event);
    out.extend_from_slice(br#","channel":"#);
    push_string(out, channel);
    if let Some(data) = data {
        out.extend_from_slice(br#","data":"#);
        out.extend_from_slice(data.as_bytes());
    }
    if let Some(user_id) = user_id {
        out.extend_from_slice(br#","user_id":"#);
        push_string(out, user_id);
    }
    out.push(b'}');
}

pub(super) fn subscription_error(name: &str, kind: &str, error: &str, status: u16) -> Vec<u8> {
    let mut out = br#"{"event":"pusher:subscription_error","channel":"#.to_vec();
    push_string(&mut out, name);
    out.extend_from_slice(br#","data":{"type":"#);
    push_string(&mut out, kind);
    out.extend_from_slice(br#","error":"#);
    push_string(&mut out, error);
    out.extend_from_slice(format!(r#","status":{status}}}}}"#).as_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::super::super::channels::messages::established;
    use super::super::DATA;
    use super::*;

    #[test]
    fn pusher_data_is_a_string_of_json() {
        let mut out = Vec::new();
        push_event(&mut out, "order.paid", "news", r#"{"id":7}"#);
        let expected = r#"{"event":"order.paid","channel":"news","data":"{\"id\":7}"}"#;
        assert_eq!(String::from_utf8(out).as_deref(), Ok(expected));
        let expected = r#"{"event":"pusher:connection_established","data":"{\"socket_id\":\"1.2\",\"activity_timeout\":120}"}"#;
        assert_eq!(established(&DATA, "1.2", 120), expected);
    }
}
