//! Who a client is: tokens, their end, and what that means for its topics.

use super::client::{Client, at_unix};
use super::realm::{Found, Person};
use super::told::{Told, told};
use super::words::{Container, codes};
use crate::codec::value::Value;
use crate::config::{self, GuardKind};
use crate::dialect::{Action, Context};
use crate::time::{Deadline, Now};
use std::sync::Arc;

/// A client that has signed in.
pub(super) struct Identity {
    pub(super) person: Arc<Person>,
    /// The token, as the client wrote it; nothing after a password.
    given: Box<str>,
    /// When the token ends.
    pub(super) until: Deadline,
}

const TOO_MANY: &str = "the account has too many sessions";
/// The longest rest of a token's time that is told: two digits of hours.
const REST_MOST_S: u64 = 86_399;

impl Client {
    /// A call of controller `Auth`.
    pub(super) fn auth(&mut self, context: &mut Context<'_>, it: &Container) {
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
        let realm = &context.env.zenith;
        let person = match it.topic() {
            "AuthToken" if text("Provider") != Some("Bearer") => None,
            "AuthToken" => match realm.token(given) {
                Some(Found::Person(person)) => Some(person),
                Some(Found::Service(_)) => None,
                None => self.guarded_person(context, given),
            },
            "AuthOwner" => {
                let user = text("UserName").or_else(|| text("Username")).unwrap_or("");
                realm.owner(user, text("Password").unwrap_or(""))
            }
            _ => realm.grantee(text("AuthGrant").unwrap_or("")),
        };
        let alive = |it: &Arc<Person>| is_alive(it, context.now);
        let Some(person) = person.filter(alive) else {
            return self.reply(context, at, tid, Some(&rejected()));
        };
        let told = Identity::new(person, given, context.now);
        let answer = told.value(context.now, self.secure, &realm.config.secure_scopes);
        self.reply(context, at, tid, Some(&answer));
        self.sign_in(context, told);
    }

    /// Whom a token names that a guard of the client's route believes. That guard's time for this
    /// identity goes on.
    fn guarded_person(&self, context: &Context<'_>, token: &str) -> Option<Arc<Person>> {
        let (env, now_s) = (context.env, context.now.unix_s);
        let mut found = None;
        for (name, roles) in &self.guarded {
            let mut guards = env.guards.iter().zip(&env.config.guards);
            let by_token = |guard: &config::Guard| guard.kind == GuardKind::Jwt;
            let found_guard = guards.find(|(it, config)| it.name == *name && by_token(config));
            let Some((guard, _)) = found_guard else { continue };
            let checked = guard.check(token, now_s).ok();
            let Some(claims) = checked.filter(|it| it.have(roles)) else { continue };
            if guard.tenants.renew(&claims)
                && let Some(counters) = env.counters.get(usize::from(context.conn.core))
            {
                counters.guard_renewals.add(1);
            }
            found = found.or_else(|| Person::of_claims(name, &claims));
        }
        found
    }

    /// A client has the rights of a person from now on.
    pub(super) fn sign_in(&mut self, context: &mut Context<'_>, identity: Identity) {
        let state = &context.env.zenith.state;
        let person = identity.person.clone();
        if let Some(before) = &self.identity
            && before.person.user != person.user
        {
            state.leave(&before.person.user, context.conn);
        }
        for too_many in state.enter(&person.user, context.conn, person.sessions) {
            let what = told(Told::Kick(TOO_MANY));
            context.actions.push(Action::Tell { to: too_many, what });
        }
        self.look_at(identity.until);
        self.identity = Some(identity);
        self.secure_scopes = context.env.zenith.config.secure_scopes.clone();
        self.refresh(context);
        self.resume(context);
    }

    /// The token has ended: data that needs it stops, and is remembered.
    pub(super) fn expire(&mut self, context: &mut Context<'_>) {
        if let Some(identity) = self.identity.take() {
            context.env.zenith.state.leave(&identity.person.user, context.conn);
        }
        self.refresh(context);
        self.suspend(context);
    }

    /// The configuration was read anew: rights may be others, and so may what is told.
    pub(super) fn renewed(&mut self, context: &mut Context<'_>) {
        let env = context.env;
        let known = self.identity.as_ref().is_none_or(|it| match &it.person.guard {
            Some(name) => env.guards.iter().any(|guard| *guard.name == **name),
            None => env.zenith.has(&it.person),
        });
        if !known {
            return self.expire(context);
        }
        self.refresh(context);
    }

    /// The Identify object.
    pub(super) fn identify(&self, now: Now) -> Value {
        match &self.identity {
            Some(identity) => identity.value(now, self.secure, &self.secure_scopes),
            None => rejected(),
        }
    }

    /// Whether a scope is granted; the empty one is to all.
    pub(super) fn may(&self, scope: &str) -> bool {
        let granted = |it: &Identity| it.person.scopes.iter().any(|own| **own == *scope);
        scope.is_empty()
            || self.identity.as_ref().is_some_and(granted)
                && (self.secure || !self.secure_scopes.iter().any(|it| it == scope))
    }
}

impl Identity {
    pub(super) fn new(person: Arc<Person>, given: &str, now: Now) -> Identity {
        let until = person.expires_unix_s.map_or(Deadline::NEVER, |end| at_unix(now, end));
        Identity { person, given: given.into(), until }
    }

    fn value(&self, now: Now, secure: bool, secure_scopes: &[String]) -> Value {
        let person = &self.person;
        let given = match &*self.given {
            // The client insists on one.
            "" => "-",
            given => given,
        };
        let mut members: Vec<(Box<str>, Value)> = Vec::new();
        let mut add = |key: &str, value: Value| members.push((key.into(), value));
        add("Result", Value::text("Success"));
        add("AccessToken", Value::text(given));
        add("UserID", Value::text(&person.user));
        add("DisplayName", Value::text(&person.display_name));
        if !person.expires.is_empty() {
            add("ExpiryDate", Value::text(&person.expires));
        }
        let rest = person
            .expires_unix_s
            .map_or(REST_MOST_S, |end| end.saturating_sub(now.unix_s).min(REST_MOST_S));
        let rest = format!("{:02}:{:02}:{:02}.0", rest / 3600, rest / 60 % 60, rest % 60);
        add("ExpiresIn", Value::text(&rest));
        let granted = |scope: &str| secure || !secure_scopes.iter().any(|it| it == scope);
        let scopes = person.scopes.iter().filter(|scope| granted(scope));
        let scopes = scopes.map(|scope| Value::text(scope));
        add("Scope", Value::Array(scopes.collect()));
        Value::Map(members)
    }
}

/// Whether a token's time has not ended.
pub(super) fn is_alive(person: &Person, now: Now) -> bool {
    person.expires_unix_s.is_none_or(|end| end > now.unix_s)
}

/// What one is told who is nobody.
fn rejected() -> Value {
    Value::map([("Result", Value::text("Rejected"))])
}
