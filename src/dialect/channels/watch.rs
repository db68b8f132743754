//! Watchlists: which of the users whom a user watches are there, and who of them comes and goes.
//!
//! Each user who has signed in is a member of a channel that no client can name; who watches that
//! user is a subscriber of it, and no member. So a user comes with the first connection and goes
//! with the last one, over all cores, as members of presence channels do.

use super::super::{DialectContext, Effect, JoinOutcome};
use super::vendor::{ProtocolError, Vendor};
use super::{Connection, channel};
use crate::config::AppLimits;
use crate::hub::{DialectMessage, JoinRequest, Member, MemberChange};
use serde_json::value::RawValue;
use std::sync::Arc;

/// How the name of such a channel begins.
pub(super) const WATCHED: &str = "#watch-";

/// What watchers are told of a user.
struct Moved {
    id: String,
    online: bool,
}

/// The first answers about a whole watchlist, which its watcher gets at once.
#[derive(Debug)]
pub(super) struct Gathering {
    /// Each user, in the order of the list, and whether that user is there, as far as is known.
    users: Vec<(String, Option<bool>)>,
}

/// The users of a watchlist that can be watched, each once, and whether it was too long.
pub(super) fn read<V: Vendor>(list: &str, limits: &AppLimits) -> (Vec<String>, bool) {
    let Ok(entries) = serde_json::from_str::<Vec<&RawValue>>(list) else {
        return (Vec::new(), false);
    };
    let max = limits.watchlist_length;
    let mut users: Vec<String> = Vec::new();
    for entry in entries.iter().take(max) {
        // What can be no user's id is nobody who could come.
        let Ok(id) = serde_json::from_str::<String>(entry.get()) else { continue };
        if channel::check::<V>(&id, limits.user_id_length).is_ok() && !users.contains(&id) {
            users.push(id);
        }
    }
    (users, entries.len() > max)
}

/// Makes the user who has just signed in one who can be watched, and who watches `list`. Gives the
/// subscriptions that this takes.
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
    // Beside the subscriptions of its own, the client has the user's channel and these.
    let max = limits.subscriptions_per_connection + 1 + hidden;
    let app = conn.app;
    let member = Some(Box::new(member(id)));
    let mut join = |name, member| {
        let request = Some(JoinRequest { member, ..JoinRequest::default() });
        context.effects.push(Effect::Join { app, name, max, request });
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
        let moved: DialectMessage = Arc::new(Moved { id: id.to_owned(), online });
        MemberChange::Message(moved)
    };
    Member { id: id.into(), info: None, added: change(true), removed: change(false), max: 0 }
}

/// Takes the answer to one of the subscriptions.
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

/// Takes what a watched user does.
pub(super) fn on_message<V: Vendor>(
    conn: &mut Connection<V>,
    context: &mut DialectContext<'_>,
    what: &DialectMessage,
) {
    let Some(Moved { id, online }) = what.downcast_ref() else { return };
    if let Some(gathering) = conn.gathering() {
        return gathering.note(id, *online);
    }
    match online {
        true => send::<V>(context, &[id], &[]),
        false => send::<V>(context, &[], &[id]),
    }
}

fn send<V: Vendor>(context: &mut DialectContext<'_>, online: &[&str], offline: &[&str]) {
    if let Some(text) = V::watchlist(online, offline) {
        context.send_text(&text);
    }
}

impl Gathering {
    fn note(&mut self, user: &str, online: bool) {
        if let Some((_, known)) = self.users.iter_mut().find(|(other, _)| other == user) {
            *known = Some(online);
        }
    }
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
