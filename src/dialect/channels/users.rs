//! Who a client is: the members of presence channels, and users who sign in.

use super::super::{DialectContext, Effect, freeze_text};
use super::vendor::{ProtocolError, SubscribeRefusal, USER, Vendor};
use super::watch::{self, Gathering};
use super::{Connection, channel, end};
use crate::codec::raw::RawMembers;
use crate::config::AppLimits;
use crate::hub::{JoinRequest, Member, Query};
use std::borrow::Cow;
use std::collections::HashMap;

/// Questions about members that one client may have under way.
const QUESTIONS: usize = 64;

/// Who a client is, if it has said so.
#[derive(Debug, Default)]
pub(super) struct Who {
    pub(super) user: Option<User>,
    /// Its user id in each presence channel.
    pub(super) present: HashMap<String, String>,
    /// The private and presence channels that it is in, where it need not name them.
    pub(super) closed: Vec<String>,
    /// Presence channels of which the members are asked, by the number of the question.
    pub(super) asked: HashMap<u16, String>,
    questions: u16,
    pub(super) silence: Option<Silence>,
}

/// Of a client that cannot be asked for a sign of life: since when it has been silent, and how long
/// it may be, in seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Silence {
    pub(super) since_s: u32,
    pub(super) max_s: u32,
}

/// A user who has signed in on one connection.
#[derive(Debug)]
pub(super) struct User {
    pub(super) id: String,
    /// The user's `user_info`, as it was written.
    info: Option<String>,
    /// Whether the client has asked for the user's channel, and was told that it has it.
    asked: bool,
    status_reported: bool,
    /// Subscriptions that it takes and the client has not asked for.
    hidden: usize,
    /// The first answers about the watchlist, as long as some are missing.
    gathering: Option<Box<Gathering>>,
}

/// A user as `channel_data` or a sign-in describes it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct UserIdentity {
    pub(super) id: String,
    pub(super) info: Option<String>,
}

/// Reads `channel_data`: `user_id`, a string or a number (whose writing is the id), and
/// `user_info`, any JSON.
pub(super) fn identity<V: Vendor>(
    data: &str,
    limits: &AppLimits,
) -> Result<UserIdentity, SubscribeRefusal<'static>> {
    const BAD_ID: SubscribeRefusal<'static> =
        SubscribeRefusal::Member("channel_data must have a user_id that is a string or a number");
    if data.len() > limits.presence_member_bytes {
        return Err(SubscribeRefusal::Large("channel_data is too long"));
    }
    let members = RawMembers::read(data)
        .ok_or(SubscribeRefusal::Member("channel_data must be a JSON object"))?;
    let raw = members.raw("user_id").ok_or(BAD_ID)?;
    let id = match members.text("user_id") {
        Some(text) => text,
        None if raw.starts_with(|c: char| c.is_ascii_digit() || c == '-') => Cow::Borrowed(raw),
        None => return Err(BAD_ID),
    };
    if id.is_empty() {
        return Err(BAD_ID);
    }
    if id.len() > limits.user_id_length {
        return Err(SubscribeRefusal::Large("user_id is too long"));
    }
    let info = members.raw("user_info").map(str::to_owned);
    Ok(UserIdentity { id: V::user_id(raw, id).into_owned(), info })
}

/// What the home of presence channel `name` is asked for.
pub(super) fn join_request<V: Vendor>(
    name: &str,
    who: &UserIdentity,
    limits: &AppLimits,
    cached: bool,
) -> JoinRequest {
    let mut scratch = Vec::new();
    let info = who.info.as_deref();
    let added = freeze_text(&mut scratch, |out| V::push_member_added(out, name, &who.id, info));
    let removed = freeze_text(&mut scratch, |out| V::push_member_removed(out, name, &who.id));
    let member = Member {
        id: who.id.as_str().into(),
        info: info.map(Into::into),
        added: added.into(),
        removed: removed.into(),
        max: limits.presence_members,
    };
    JoinRequest { member: Some(Box::new(member)), cached, ..JoinRequest::default() }
}

/// A user who says who he is.
pub(super) fn sign_in<V: Vendor>(
    conn: &mut Connection<V>,
    context: &mut DialectContext<'_>,
    auth: &str,
    user_data: &str,
) {
    let env = context.env;
    let limits = &env.apps.get(conn.app).config.limits;
    let signed = [b"::user::".as_slice(), user_data.as_bytes()];
    let id = match read_user::<V>(user_data, limits.user_id_length) {
        Some(user) if conn.is_signed(context, auth, &signed) => user,
        _ => return end::<V>(context, V::CODES.sign_in, true),
    };
    let before = conn.who().user.as_ref();
    if before.is_some_and(|user| user.id != id.id) {
        return conn.protocol_error(context, ProtocolError::SignedIn);
    }
    let first = before.is_none();
    context.send_text(&V::signed_in(user_data));
    conn.authorise_by_s = 0;
    if first {
        begin(conn, context, id, user_data);
    }
}

/// What the first sign-in of a connection brings about.
fn begin<V: Vendor>(
    conn: &mut Connection<V>,
    context: &mut DialectContext<'_>,
    user: UserIdentity,
    user_data: &str,
) {
    let app = &context.env.apps.get(conn.app).config;
    let name = format!("{}{}", USER, user.id);
    let UserIdentity { id, info } = user;
    let user = User {
        id: id.clone(),
        info,
        asked: false,
        status_reported: false,
        hidden: 1,
        gathering: None,
    };
    conn.who().user = Some(user);
    // One more than the client may have of its own.
    let max = app.limits.subscriptions_per_connection + 1;
    context.effects.push(Effect::Join { app: conn.app, name, max, request: None });
    if V::WATCHES && app.watchlist {
        let members = RawMembers::read(user_data);
        let list = members.as_ref().and_then(|members| members.raw("watchlist"));
        let hidden = watch::begin(conn, context, &id, list);
        if let Some(user) = conn.user() {
            user.hidden += hidden;
        }
    }
}

/// A user's data must have an `id` that is a string, which client libraries insist on, and one that
/// can stand in a channel's name.
fn read_user<V: Vendor>(data: &str, max: usize) -> Option<UserIdentity> {
    let members = RawMembers::read(data)?;
    let id = members.text("id")?.into_owned();
    channel::check::<V>(&id, max).ok()?;
    Some(UserIdentity { id, info: members.raw("user_info").map(str::to_owned) })
}

impl<V: Vendor> Connection<V> {
    pub(super) fn who(&mut self) -> &mut Who {
        self.who.get_or_insert_default()
    }

    pub(super) fn silence(&mut self) -> Option<&mut Silence> {
        self.who.as_mut()?.silence.as_mut()
    }

    fn user(&mut self) -> Option<&mut User> {
        self.who.as_mut()?.user.as_mut()
    }

    /// Subscriptions that it has and has not asked for.
    pub(super) fn hidden(&self) -> usize {
        let user = self.who.as_ref().and_then(|who| who.user.as_ref());
        user.map_or(0, |user| user.hidden)
    }

    pub(super) fn gather(&mut self, gathering: Gathering) {
        if let Some(user) = self.user() {
            user.gathering = Some(Box::new(gathering));
        }
    }

    pub(super) fn gathering(&mut self) -> Option<&mut Gathering> {
        self.user()?.gathering.as_deref_mut()
    }

    pub(super) fn gathered(&mut self) -> Option<Gathering> {
        self.user()?.gathering.take().map(|gathering| *gathering)
    }

    /// The client is not in presence channel `name`.
    pub(super) fn absent(&mut self, name: &str) {
        if let Some(who) = &mut self.who {
            who.present.remove(name);
            who.closed.retain(|other| other != name);
        }
    }

    /// Asks for the members of a presence channel that the client is in.
    pub(super) fn ask_roster(&mut self, context: &mut DialectContext<'_>, name: &str) {
        let app = self.app;
        let who = self.who();
        if who.asked.len() >= QUESTIONS {
            return self.protocol_error(context, ProtocolError::Subscribed(name));
        }
        who.questions = who.questions.wrapping_add(1);
        let part = who.questions;
        who.asked.insert(part, name.to_owned());
        let query = Query::Users { app, name: name.into() };
        context.effects.push(Effect::Ask { query, part });
    }

    /// The one private or presence channel that the client is in.
    pub(super) fn only_channel(&self) -> Option<&str> {
        match &self.who.as_ref()?.closed[..] {
            [name] => Some(name),
            _ => None,
        }
    }

    /// The user who has signed in, as a presence channel shows it.
    pub(super) fn signed_in_identity(&self) -> Option<UserIdentity> {
        let user = self.who.as_ref()?.user.as_ref()?;
        Some(UserIdentity { id: user.id.clone(), info: user.info.clone() })
    }

    /// A subscription to a user's own channel, which begins with the sign-in: true if it is its
    /// user's.
    pub(super) fn ask_for_user_channel(&mut self, name: &str) -> bool {
        match self.user() {
            Some(user) if name.strip_prefix(USER) == Some(&*user.id) => {
                user.asked = true;
                true
            }
            _ => false,
        }
    }

    /// The user's channel has been joined or asked for: whether to tell the client, once.
    pub(super) fn user_channel_joined(&mut self) -> bool {
        match self.user() {
            Some(user) => user.asked && !std::mem::replace(&mut user.status_reported, user.asked),
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::pusher::Pusher;
    use super::*;

    fn id(data: &str) -> Result<String, SubscribeRefusal<'static>> {
        identity::<Pusher>(data, &AppLimits::default()).map(|identity| identity.id)
    }

    #[test]
    fn users_id_is_a_string_or_the_text_of_a_number() {
        assert_eq!(id(r#"{"user_id":"ada"}"#).as_deref(), Ok("ada"));
        assert_eq!(id(r#"{"user_id":10}"#).as_deref(), Ok("10"));
        assert_eq!(
            id(r#"{"user_id":12345678901234567890}"#).as_deref(),
            Ok("12345678901234567890")
        );
        assert_eq!(id(r#"{"user_id":-1.5}"#).as_deref(), Ok("-1.5"));
        for bad in [
            "",
            "[]",
            "{}",
            r#"{"user_id":""}"#,
            r#"{"user_id":null}"#,
            r#"{"user_id":true}"#,
            r#"{"user_id":{}}"#,
            r#"{"user_id":[1]}"#,
        ] {
            assert!(id(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn users_sizes_are_bounded_on_both_sides() {
        let data = |len: usize| format!(r#"{{"user_id":"{}"}}"#, "a".repeat(len));
        assert!(id(&data(128)).is_ok());
        assert!(id(&data(129)).is_err());
        let info = |len: usize| format!(r#"{{"user_id":1,"user_info":"{}"}}"#, "a".repeat(len));
        let frame = info(0).len();
        assert!(id(&info(1024 - frame)).is_ok());
        assert!(id(&info(1025 - frame)).is_err());
    }

    #[test]
    fn users_info_keeps_its_text() {
        let who = identity::<Pusher>(
            r#"{"user_id":1,"user_info":{"b":1, "a":2.0}}"#,
            &AppLimits::default(),
        );
        assert_eq!(who.ok().and_then(|who| who.info).as_deref(), Some(r#"{"b":1, "a":2.0}"#));
    }

    #[test]
    fn users_sign_in_needs_a_string_id() {
        let id = |data| read_user::<Pusher>(data, 10).map(|user| user.id);
        assert_eq!(id(r#"{"id":"ada"}"#).as_deref(), Some("ada"));
        for bad in
            [r#"{"id":1}"#, r#"{"id":""}"#, "{}", r#"{"id":"a b"}"#, r#"{"id":"12345678901"}"#]
        {
            assert_eq!(id(bad), None, "{bad}");
        }
    }
}
