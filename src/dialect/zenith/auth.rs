//! Sign-in of clients: tokens, their expiry, and the effect of both on subscriptions.

use super::client::{Client, ZenithSession, at_unix};
use super::directory::{Principal, TokenOwner};
use super::messages::{TOO_MANY, ZenithMessage};
use super::peers::to_peer;
use super::wire::{MessageEnvelope, codes};
use super::{closings, sign_in};
use crate::codec::value::Value;
use crate::dialect::DialectContext;
use crate::runtime::TokenRefusal;
use crate::time::{Deadline, Now};
use crate::work::WorkKind;
use std::sync::Arc;

/// The maximum `ExpiresIn` that is sent, in seconds, because its text has two digits for the hours.
const REST_MOST_S: u64 = 86_399;

impl Client {
    /// Handles a call of the controller `Auth`.
    pub(super) fn auth(&mut self, context: &mut DialectContext<'_>, it: &MessageEnvelope) {
        let (at, tid) = ((&*it.controller, it.topic()), it.transaction.as_ref());
        let failed = (&*it.controller, Some(it.topic()));
        let wanted: &[&str] = match it.topic() {
            "QueryIdentify" => {
                let identity = self.identify(context.now);
                return self.reply(context, at, tid, Some(&identity));
            }
            "AuthToken" => &["Provider", "AccessToken"],
            "AuthOwner" => &["Provider", "ClientID"],
            "AuthCode" => &["Provider", "ClientID", "AuthGrant"],
            _ => return self.fail(context, failed, tid, &Value::text(codes::UNKNOWN)),
        };
        let Some(data) = it.some_data() else {
            return self.fail(context, failed, tid, &Value::text(codes::DATA));
        };
        let text = |key: &str| data.get(key).and_then(Value::as_text);
        if wanted.iter().any(|key| text(key).is_none()) {
            return self.fail(context, failed, tid, &Value::text(codes::DESERIALISE));
        }
        let given = text("AccessToken").unwrap_or("");
        let (env, conn, peer, now) = (context.env, context.conn, context.peer, context.now);
        if sign_in::is_refused(env, conn, peer, now) {
            return context.close(closings::GUESSES);
        }
        let directory = &context.env.zenith;
        let is_other = it.topic() == "AuthToken" && text("Provider") != Some("Bearer");
        let principal = match it.topic() {
            _ if is_other => None,
            "AuthToken" => match directory.token(given) {
                Some(TokenOwner::Principal(principal)) => Some(principal),
                Some(TokenOwner::Service(_)) => None,
                None => self.guarded_person(context, given),
            },
            "AuthOwner" => {
                let user = text("UserName").or_else(|| text("Username")).unwrap_or("");
                directory.owner(user, text("Password").unwrap_or(""))
            }
            _ => directory.grantee(text("AuthGrant").unwrap_or("")),
        };
        // An expired token does not count as a wrong one, and neither does a token for another
        // provider.
        let is_wrong = principal.is_none() && !is_other;
        let Some(principal) = principal.filter(|it| is_alive(it, now)) else {
            self.reply(context, at, tid, Some(&rejected()));
            return if is_wrong {
                self.note_wrong_token(context)
            };
        };
        let identity = ZenithSession::new(principal, given, context.now);
        let answer = identity.value(context.now, self.secure, &directory.config.secure_scopes);
        self.reply(context, at, tid, Some(&answer));
        self.sign_in(context, identity);
    }

    /// Counts a wrong token, password or grant; closes the connection if it has sent too many.
    fn note_wrong_token(&mut self, context: &mut DialectContext<'_>) {
        sign_in::note_wrong(context.env, context.conn, context.peer, context.now);
        self.wrong_tokens = self.wrong_tokens.saturating_add(1);
        let max = context.env.zenith.config.wrong_tokens_per_connection;
        if max > 0 && self.wrong_tokens >= max {
            context.close(closings::GUESSES);
        }
    }

    /// The user of a token that a guard of the client's route accepts. Also renews that guard's
    /// lease of all connections of this identity.
    fn guarded_person(&self, context: &DialectContext<'_>, token: &str) -> Option<Arc<Principal>> {
        let (env, now_s) = (context.env, context.now.unix_s);
        let (mut found, mut has_flaw) = (None, false);
        for (name, roles) in &self.guarded {
            let Some(guard) = env.runtime.token_guard(name, &env.config) else { continue };
            if !context.work.may_verify(context.peer.ip(), now_s) {
                if let Some(counters) = env.runtime.counters.get(usize::from(context.conn.core)) {
                    counters.guard_throttled.add(1);
                }
                break;
            }
            context.work.charge(WorkKind::Token, guard.price(token));
            let checked = guard.check(token, now_s);
            has_flaw |= checked == Err(TokenRefusal::Flawed);
            let checked = checked.ok();
            let Some(claims) = checked.filter(|it| it.have(roles)) else { continue };
            if guard.renew(&claims)
                && let Some(counters) = env.runtime.counters.get(usize::from(context.conn.core))
            {
                counters.guard_renewals.add(1);
            }
            found = found.or_else(|| Principal::of_claims(name, &claims));
        }
        if has_flaw && found.is_none() {
            // A token counts as one failure, even if several guards have rejected it.
            context.work.fail(context.peer.ip(), now_s);
        }
        found
    }

    /// Signs in the client: it gets the rights of the session's user. Sessions of that user over
    /// the maximum are closed, the oldest first.
    pub(super) fn sign_in(&mut self, context: &mut DialectContext<'_>, identity: ZenithSession) {
        let state = &context.env.zenith.state;
        let principal = identity.principal.clone();
        let before = self.identity.as_ref().map(|before| &before.principal.user);
        let before = before.filter(|user| **user != principal.user);
        if context.env.config.cluster.is_some() {
            if let Some(user) = before {
                self.end_session(context, user);
            }
            self.state_session(context, &principal);
        } else {
            if let Some(user) = before {
                state.leave(user, context.conn);
            }
            for too_many in state.enter(&principal.user, context.conn, principal.sessions) {
                context.effects.push(to_peer(too_many, ZenithMessage::Kick(TOO_MANY)));
            }
        }
        self.look_at(identity.until);
        self.identity = Some(identity);
        self.secure_scopes = context.env.zenith.config.secure_scopes.clone();
        self.refresh(context);
        self.resume(context);
    }

    /// Ends the session because its token has expired: subscriptions that need its scopes are
    /// suspended.
    pub(super) fn expire(&mut self, context: &mut DialectContext<'_>) {
        if let Some(identity) = self.identity.take() {
            let user = &identity.principal.user;
            match context.env.config.cluster.is_some() {
                true => self.end_session(context, user),
                false => context.env.zenith.state.leave(user, context.conn),
            }
        }
        self.refresh(context);
        self.suspend(context);
    }

    /// Handles a reload of the configuration: ends the session if its user or guard is no longer
    /// configured, and sends changed data of the server's own topics.
    pub(super) fn on_reload(&mut self, context: &mut DialectContext<'_>) {
        let env = context.env;
        let known = self.identity.as_ref().is_none_or(|it| match &it.principal.guard {
            Some(name) => env.runtime.has_guard(name),
            None => env.zenith.has(&it.principal),
        });
        if !known {
            return self.expire(context);
        }
        self.refresh(context);
    }

    /// The data of `Auth/Identify`.
    pub(super) fn identify(&self, now: Now) -> Value {
        match &self.identity {
            Some(identity) => identity.value(now, self.secure, &self.secure_scopes),
            None => rejected(),
        }
    }

    /// Whether the client has a scope; the empty scope is granted to all.
    pub(super) fn may(&self, scope: &str) -> bool {
        let granted = |it: &ZenithSession| it.principal.scopes.iter().any(|own| **own == *scope);
        scope.is_empty()
            || self.identity.as_ref().is_some_and(granted)
                && (self.secure || !self.secure_scopes.iter().any(|it| it == scope))
    }
}

impl ZenithSession {
    pub(super) fn new(principal: Arc<Principal>, given: &str, now: Now) -> ZenithSession {
        let until = principal.expires_unix_s.map_or(Deadline::NEVER, |end| at_unix(now, end));
        ZenithSession { principal, given: given.into(), until }
    }

    fn value(&self, now: Now, secure: bool, secure_scopes: &[String]) -> Value {
        let principal = &self.principal;
        let given = match &*self.given {
            // The vendor's client requires a non-empty token.
            "" => "-",
            given => given,
        };
        let mut members: Vec<(Box<str>, Value)> = Vec::new();
        let mut add = |key: &str, value: Value| members.push((key.into(), value));
        add("Result", Value::text("Success"));
        add("AccessToken", Value::text(given));
        add("UserID", Value::text(&principal.user));
        add("DisplayName", Value::text(&principal.display_name));
        if !principal.expires.is_empty() {
            add("ExpiryDate", Value::text(&principal.expires));
        }
        let rest = principal
            .expires_unix_s
            .map_or(REST_MOST_S, |end| end.saturating_sub(now.unix_s).min(REST_MOST_S));
        let rest = format!("{:02}:{:02}:{:02}.0", rest / 3600, rest / 60 % 60, rest % 60);
        add("ExpiresIn", Value::text(&rest));
        let granted = |scope: &str| secure || !secure_scopes.iter().any(|it| it == scope);
        let scopes = principal.scopes.iter().filter(|scope| granted(scope));
        let scopes = scopes.map(|scope| Value::text(scope));
        add("Scope", Value::Array(scopes.collect()));
        Value::Map(members)
    }
}

/// Whether a token has not expired.
pub(super) fn is_alive(principal: &Principal, now: Now) -> bool {
    principal.expires_unix_s.is_none_or(|end| end > now.unix_s)
}

/// The data of `Auth/Identify` for a client that is not signed in.
fn rejected() -> Value {
    Value::map([("Result", Value::text("Rejected"))])
}
