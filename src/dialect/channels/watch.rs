//! Watchlists: report which of the watched users are online, and when they come online or go
//! offline.
//!
//! Each signed-in user is a member of an internal channel, which no client can name. The watchers
//! of a user subscribe to this channel without being members. So a user comes online with the first
//! connection and goes offline with the last one, on all cores, as a member of a presence channel
//! does.

use super::super::context::DialectContext;
use super::super::effects::{Effect, JoinOutcome};
use super::connection::Connection;
use super::vendor::{ProtocolError, Vendor};
use super::who::Gathering;
use super::{channel, messages};
use crate::config::AppLimits;
use crate::dialect::{DialectMessage, JoinRequest, Member, MemberChange, UserStatus};
use crate::hub::Form;
use serde_json::value::RawValue;
use std::sync::Arc;

/// The name prefix of the internal channels.
pub(super) const WATCHED: &str = "#watch-";

/// Parses a watchlist. Returns the valid user ids without duplicates, up to the limit
/// `watchlist_length`, and whether the list was longer.
pub(super) fn read<V: Vendor>(list: &str, limits: &AppLimits) -> (Vec<String>, bool) {
    let Ok(entries) = serde_json::from_str::<Vec<&RawValue>>(list) else {
        return (Vec::new(), false);
    };
    let max = limits.watchlist_length;
    let mut users: Vec<String> = Vec::new();
    for entry in entries.iter().take(max) {
        // An entry that is not a valid user id is skipped.
        let Ok(id) = serde_json::from_str::<String>(entry.get()) else { continue };
        if channel::check(V::DATA, &id, limits.user_id_length).is_ok() && !users.contains(&id) {
            users.push(id);
        }
    }
    (users, entries.len() > max)
}

/// Makes the signed-in user `id` a member of its internal channel, and subscribes the connection to
/// those of the users in `list`. Returns the number of these subscriptions.
pub(super) fn begin<V: Vendor>(
    conn: &mut Connection<V>,
    context: &mut DialectContext<'_>,
    id: &str,
    list: Option<&str>,
) -> usize {
    let limits = &context.env.apps.get(conn.app).config.limits;
    let (users, too_long) = list.map_or_else(Default::default, |list| read::<V>(list, limits));
    if too_long {
        conn.protocol_error(context, ProtocolError::LongWatchlist(limits.watchlist_length));
    }
    let others = users.iter().filter(|user| *user != id);
    let names: Vec<String> = others.map(|user| format!("{WATCHED}{user}")).collect();
    let hidden = names.len() + 1;
    // The internal subscriptions, and the one to the user's own channel, are not counted among the
    // subscriptions of the client.
    let max = limits.subscriptions_per_connection + 1 + hidden;
    let app = conn.app;
    let member = Some(Box::new(member(id)));
    let mut join = |name, member| {
        let request = Some(JoinRequest { member, ..JoinRequest::default() });
        context.effects.push(Effect::Join { app, name, max, request, form: Form::PUBLISHED });
    };
    join(format!("{WATCHED}{id}"), member);
    names.into_iter().for_each(|name| join(name, None));
    if !users.is_empty() {
        let users = users.into_iter().map(|user| (user, None)).collect();
        conn.gather(Gathering { users });
    }
    hidden
}

fn member(id: &str) -> Member {
    let change = |online| {
        let status = Arc::new(UserStatus { id: id.to_owned(), online });
        MemberChange::Message(DialectMessage::Channels(status))
    };
    Member { id: id.into(), info: None, added: change(true), removed: change(false), max: 0 }
}

/// Handles the result of a subscription to the internal channel of `user`.
pub(super) fn joined<V: Vendor>(
    conn: &mut Connection<V>,
    context: &mut DialectContext<'_>,
    user: &str,
    outcome: &JoinOutcome,
) {
    let online = match outcome {
        JoinOutcome::Joined(Some(reply)) => reply.users.is_some(),
        _ => false,
    };
    let Some(gathering) = conn.gathering() else { return };
    gathering.note(user, online);
    if gathering.users.iter().any(|(_, online)| online.is_none()) {
        return;
    }
    let Some(Gathering { users }) = conn.gathered() else { return };
    let of = |wanted: bool| -> Vec<&str> {
        let those = users.iter().filter(|(_, online)| *online == Some(wanted));
        those.map(|(user, _)| user.as_str()).collect()
    };
    send::<V>(context, &of(true), &of(false));
}

/// Handles the new status of a watched user.
pub(super) fn on_message<V: Vendor>(
    conn: &mut Connection<V>,
    context: &mut DialectContext<'_>,
    status: &UserStatus,
) {
    let UserStatus { id, online } = status;
    if let Some(gathering) = conn.gathering() {
        return gathering.note(id, *online);
    }
    match online {
        true => send::<V>(context, &[id], &[]),
        false => send::<V>(context, &[], &[id]),
    }
}

fn send<V: Vendor>(context: &mut DialectContext<'_>, online: &[&str], offline: &[&str]) {
    context.send_text(&messages::watchlist(V::DATA, online, offline));
}

#[cfg(test)]
mod tests {
    use super::super::super::pusher::Pusher;
    use super::*;

    #[test]
    fn watchlist_is_read_up_to_its_bound_and_each_user_once() {
        let limits = AppLimits { watchlist_length: 3, ..AppLimits::default() };
        let read = |list| read::<Pusher>(list, &limits);
        let users = |users: &[&str]| users.iter().map(|&user| user.to_owned()).collect::<Vec<_>>();
        assert_eq!(read(r#"["a","b","c"]"#), (users(&["a", "b", "c"]), false));
        assert_eq!(read(r#"["a","b","c","d"]"#), (users(&["a", "b", "c"]), true));
        assert_eq!(read(r#"["a","a",7]"#), (users(&["a"]), false));
        assert_eq!(read(r#"["a b","","\u0062"]"#), (users(&["b"]), false));
        for bad in ["", "{}", "null", "7", r#""a""#] {
            assert_eq!(read(bad), (Vec::new(), false), "{bad}");
        }
    }
}
