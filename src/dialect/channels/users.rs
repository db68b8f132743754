//! The identity of clients: members of presence channels, and users who sign in.

use super::super::context::{DialectContext, freeze_text};
use super::super::effects::Effect;
use super::connection::{Connection, end};
use super::data::USER;
use super::vendor::{ProtocolError, SubscribeRefusal, Vendor};
use super::who::{Gathering, Silence, User, UserIdentity, Who};
use super::{channel, messages, watch};
use crate::codec::raw::RawMembers;
use crate::config::AppLimits;
use crate::dialect::{JoinRequest, Member};
use crate::hub::{Form, Query};
use std::borrow::Cow;

/// The maximum number of roster queries that one client may have pending.
const QUESTIONS: usize = 64;

/// Parses `channel_data`: `user_id`, a string or a number (whose text is the id), and `user_info`,
/// any JSON.
///
/// # Errors
/// The text is not such an object, or the text or its `user_id` is too long.
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

/// The join request for presence channel `name`, with the user as a member.
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

/// Executes a sign-in. A wrong signature or invalid `user_data` closes the connection.
pub(super) fn sign_in<V: Vendor>(
    conn: &mut Connection<V>,
    context: &mut DialectContext<'_>,
    auth: &str,
    user_data: &str,
) {
    let env = context.env;
    let limits = &env.apps.get(conn.app).config.limits;
    let signed = [b"::user::".as_slice(), user_data.as_bytes()];
    let numeric = env.apps.get(conn.app).config.numeric_user_ids;
    let id = match read_user::<V>(user_data, limits.user_id_length, numeric) {
        Some(user) if conn.is_signed(context, auth, &signed) => user,
        _ => return end::<V>(context, V::DATA.codes.sign_in.clone(), true),
    };
    let before = conn.who().user.as_ref();
    if before.is_some_and(|user| user.id != id.id) {
        return conn.protocol_error(context, ProtocolError::SignedIn);
    }
    let first = before.is_none();
    context.send_text(&messages::signed_in(V::DATA, user_data));
    conn.authorise_by_s = 0;
    if first {
        begin(conn, context, id, user_data);
    }
}

/// Stores the user of the connection's first sign-in, subscribes the connection to the user's own
/// channel, and starts its watchlist.
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
    // The user's own channel is not counted among the subscriptions of the client.
    let max = app.limits.subscriptions_per_connection + 1;
    context.effects.push(Effect::Join {
        app: conn.app,
        name,
        max,
        request: None,
        form: Form::PUBLISHED,
    });
    if V::DATA.quirks.watches && app.watchlist {
        let members = RawMembers::read(user_data);
        let list = members.as_ref().and_then(|members| members.raw("watchlist"));
        let hidden = watch::begin(conn, context, &id, list);
        if let Some(user) = conn.user() {
            user.hidden += hidden;
        }
    }
}

/// Parses the `user_data` of a sign-in. Its `id` must be a string, as client libraries require, or
/// with `numeric` an integer; it must be at most `max` bytes and allowed in a channel name.
fn read_user<V: Vendor>(data: &str, max: usize, numeric: bool) -> Option<UserIdentity> {
    let members = RawMembers::read(data)?;
    let digits = |raw: &str| raw.bytes().all(|byte| byte.is_ascii_digit());
    let id = match members.text("id") {
        Some(text) => text.into_owned(),
        None => members.raw("id").filter(|raw| numeric && digits(raw))?.to_owned(),
    };
    channel::check(V::DATA, &id, max).ok()?;
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

    /// The number of internal subscriptions, which do not count towards the client's limit.
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

    /// Notes that the client joins a presence channel as this user, unless it does already.
    pub(super) fn enter(&mut self, name: &str, user_id: String) {
        let who = self.who();
        if !who.present.contains_key(name) {
            who.present.insert(name.to_owned(), user_id);
            who.joining.insert(name.to_owned(), 0);
        }
    }

    /// Notes that a join is answered. Returns how often the client has subscribed again meanwhile.
    pub(super) fn entered(&mut self, name: &str) -> u16 {
        self.who.as_mut().and_then(|who| who.joining.remove(name)).unwrap_or(0)
    }

    /// Forgets that the client is in channel `name`.
    pub(super) fn absent(&mut self, name: &str) {
        if let Some(who) = &mut self.who {
            who.present.remove(name);
            who.joining.remove(name);
            who.closed.retain(|other| other != name);
        }
    }

    /// Queries the members of a presence channel that the client is in, to acknowledge its repeated
    /// subscription. While the first one is not answered, because a cluster stores the member, the
    /// acknowledgement waits for that.
    pub(super) fn ask_roster(&mut self, context: &mut DialectContext<'_>, name: &str) {
        let app = self.app;
        let who = self.who();
        match who.joining.get_mut(name) {
            Some(again) if usize::from(*again) < QUESTIONS => return *again += 1,
            None if who.asked.len() < QUESTIONS => {}
            _ => return self.protocol_error(context, ProtocolError::Subscribed(name)),
        }
        who.questions = who.questions.wrapping_add(1);
        let part = who.questions;
        who.asked.insert(part, name.to_owned());
        let query = Query::Users { app, name: name.into() };
        context.effects.push(Effect::Query { query, part });
    }

    /// The private or presence channel that the client is in, if it is in exactly one.
    pub(super) fn only_channel(&self) -> Option<&str> {
        match &self.who.as_ref()?.closed[..] {
            [name] => Some(name),
            _ => None,
        }
    }

    /// The signed-in user as a member of a presence channel.
    pub(super) fn signed_in_identity(&self) -> Option<UserIdentity> {
        let user = self.who.as_ref()?.user.as_ref()?;
        Some(UserIdentity { id: user.id.clone(), info: user.info.clone() })
    }

    /// Handles a client's subscription to a user's own channel, which was joined at the sign-in.
    /// Returns false if it is another user's.
    pub(super) fn ask_for_user_channel(&mut self, name: &str) -> bool {
        match self.user() {
            Some(user) if name.strip_prefix(USER) == Some(&*user.id) => {
                user.asked = true;
                true
            }
            _ => false,
        }
    }

    /// Whether to acknowledge the subscription to the user's own channel now: the client has
    /// requested it, and it was not acknowledged before.
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
        let id = |data| read_user::<Pusher>(data, 10, false).map(|user| user.id);
        let numeric = |data| read_user::<Pusher>(data, 10, true).map(|user| user.id);
        assert_eq!(numeric(r#"{"id":"ada"}"#).as_deref(), Some("ada"));
        assert_eq!(numeric(r#"{"id":1234567890}"#).as_deref(), Some("1234567890"));
        for bad in [r#"{"id":12345678901}"#, r#"{"id":1.5}"#, r#"{"id":-1}"#, r#"{"id":null}"#] {
            assert_eq!(numeric(bad), None, "{bad}");
        }
        assert_eq!(id(r#"{"id":"ada"}"#).as_deref(), Some("ada"));
        for bad in
            [r#"{"id":1}"#, r#"{"id":""}"#, "{}", r#"{"id":"a b"}"#, r#"{"id":"12345678901"}"#]
        {
            assert_eq!(id(bad), None, "{bad}");
        }
    }
}
