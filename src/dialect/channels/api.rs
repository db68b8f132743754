//! The HTTP API: verifies requests, routes them by path and method, and publishes events.

use super::super::{Answered, DialectContext, Effect, Env, HttpReply, freeze_text};
use super::reads::{self, Info};
use super::vendor::{ChannelKind, Target, USER, Vendor};
use super::{batch, channel, json_error, push_event, signature};
use crate::codec::json::{JsonText, MalformedJson, push_string};
use crate::config;
use crate::http::Request;
use crate::http::query;
use crate::hub::{Answer, CacheEntry, ConnId, Event};
use std::borrow::Cow;
use std::sync::Arc;

/// The largest difference between `auth_timestamp` and the server's clock, in seconds.
const TOLERANCE_S: u64 = 600;

/// Answers an HTTP API request for application `app`. `path` is the part after the application's
/// id.
pub(super) fn answer<V: Vendor>(
    context: &mut DialectContext<'_>,
    app: u32,
    path: &str,
    request: &mut Request<'_>,
) -> Answered {
    let entry = context.env.apps.get(app);
    if let Err(refused) = verify::<V>(context, app, request) {
        if let signature::SignatureError::Expired { given, now, .. } = refused {
            stale(context, app, given, now);
        }
        let foreign = V::QUIRKS.foreign_key != 401
            && refused == signature::SignatureError::Key
            && is_foreign::<V>(context, request);
        let status = if foreign { V::QUIRKS.foreign_key } else { refused.status() };
        return Answered::Now(json_error::<V>(status, &refused.to_string()));
    }
    if !entry.config.enabled {
        return Answered::Now(json_error::<V>(403, "The application is disabled"));
    }
    if context.draining {
        return Answered::Now(json_error::<V>(503, "The server is shutting down"));
    }
    let Some(target) = V::target(path) else {
        return Answered::Now(json_error::<V>(404, "The API has no such path"));
    };
    let method = match target {
        Target::Channels | Target::Channel(_) | Target::Users(_) => "GET",
        _ => "POST",
    };
    if request.method != method {
        let message = format!("The method {} is not allowed here", request.method);
        return Answered::Now(HttpReply { allow: Some(method), ..json_error::<V>(405, &message) });
    }
    match target {
        Target::Events => events::<V>(context, app, request.body),
        Target::Batch => batch::events::<V>(context, app, request.body),
        Target::Channels => reads::channels::<V>(context, app, request.query()),
        Target::Channel(name) => reads::channel::<V>(context, app, &name, request.query()),
        Target::Users(name) => reads::users::<V>(context, app, &name),
        Target::ToUser(user) => to_user::<V>(context, app, &user, request.body),
        Target::Terminate(user) => terminate::<V>(context, app, &user),
    }
}

/// Counts a request refused because of its `auth_timestamp`, and logs a warning at most once a
/// minute, because a wrong clock makes every request fail.
fn stale(context: &DialectContext<'_>, app: u32, given: u64, now: u64) {
    if let Some(counters) = context.env.counters.get(usize::from(context.conn.core)) {
        counters.requests_stale.add(1);
    }
    let entry = context.env.apps.get(app);
    if entry.stale_is_news(context.now.ms) {
        let id = &*entry.config.id;
        tracing::warn!(
            app = id,
            auth_timestamp = given,
            server_time = now,
            "requests are refused because of their auth_timestamp: a clock is wrong, or requests \
             are repeated"
        );
    }
}

/// Whether the request is signed with a key of another application.
fn is_foreign<V: Vendor>(context: &DialectContext<'_>, request: &Request<'_>) -> bool {
    let key = query::get(request.query(), "auth_key").unwrap_or("");
    let other = context.env.apps.by_key(key);
    other.is_some_and(|other| is_signed::<V>(context, other, request))
}

/// Whether the request's head is signed with a key of application `app`. The signature covers
/// `body_md5`, but the body is not compared with it here.
pub(super) fn is_signed<V: Vendor>(
    context: &DialectContext<'_>,
    app: u32,
    request: &Request<'_>,
) -> bool {
    check::<V>(context, app, request, false).is_ok()
}

fn verify<V: Vendor>(
    context: &DialectContext<'_>,
    app: u32,
    request: &Request<'_>,
) -> Result<(), signature::SignatureError> {
    check::<V>(context, app, request, true)
}

fn check<V: Vendor>(
    context: &DialectContext<'_>,
    app: u32,
    request: &Request<'_>,
    has_body: bool,
) -> Result<(), signature::SignatureError> {
    let entry = context.env.apps.get(app);
    let signed = signature::Signed {
        method: request.method,
        path: request.path(),
        query: request.query(),
        body: has_body.then_some(&*request.body),
        prefix: &context.env.config.pusher.path_prefix,
    };
    let tolerance = entry.config.check_timestamp.then_some(TOLERANCE_S);
    signature::verify(&signed, V::SIGNING, &entry.keys, context.now.unix_s, tolerance)
}

/// `POST /events`: publishes one event on one or several channels.
fn events<V: Vendor>(context: &mut DialectContext<'_>, app: u32, body: &mut [u8]) -> Answered {
    let env = context.env;
    let before = context.effects.mark();
    let effects = &mut context.effects;
    let triggered = context.json.parse(body, |body| {
        let trigger = Trigger::read::<V>(env, app, body)?;
        let names: Vec<String> = trigger.channels.iter().map(|&name| name.to_owned()).collect();
        for (part, name) in names.iter().enumerate() {
            effects.push(trigger.publish::<V>(env, app, name, part as u16));
        }
        Ok((trigger.info, names))
    });
    match triggered {
        Ok(Ok((None, _))) => Answered::Now(empty()),
        Ok(Ok((Some(info), names))) => {
            Answered::Later(Box::new(move |answers| trigger_reply::<V>(info, &names, &answers)))
        }
        refused => Answered::Now(settled::<V>(context, before, refused.map(|it| it.map(drop)))),
    }
}

fn empty() -> HttpReply {
    HttpReply { status: 200, body: Cow::Borrowed(b"{}"), allow: None }
}

/// The reply to a publish that requests no channel attributes. An error removes the effects added
/// since index `before`, so that nothing is published.
fn settled<V: Vendor>(
    context: &mut DialectContext<'_>,
    before: usize,
    done: Result<Result<(), ApiRefusal>, MalformedJson>,
) -> HttpReply {
    let refused = match done {
        Ok(Ok(())) => return empty(),
        Ok(Err((status, message))) => json_error::<V>(status, &message),
        Err(MalformedJson) => json_error::<V>(400, "The body is not valid JSON"),
    };
    context.effects.truncate(before);
    refused
}

fn trigger_reply<V: Vendor>(info: Info, names: &[String], answers: &[(u16, Answer)]) -> HttpReply {
    let mut out = br#"{"channels":{"#.to_vec();
    for (part, name) in names.iter().enumerate() {
        if part > 0 {
            out.push(b',');
        }
        push_string(&mut out, name);
        out.push(b':');
        let channel_info = reads::channel_info_of(answers, part as u16);
        out.extend_from_slice(&reads::object::<V>(info, name, &channel_info));
    }
    out.extend_from_slice(b"}}");
    reads::ok(out)
}

/// Publishes one event to all connections of a signed-in user.
fn to_user<V: Vendor>(
    context: &mut DialectContext<'_>,
    app: u32,
    user: &str,
    body: &mut [u8],
) -> Answered {
    let env = context.env;
    let limits = &env.apps.get(app).config.limits;
    let before = context.effects.mark();
    let effects = &mut context.effects;
    let name = format!("{}{user}", USER);
    let done = context.json.parse(body, |body| {
        channel::check::<V>(&name, V::name_length(env, &env.apps.get(app).config))
            .map_err(|text| (400, text.into()))?;
        let trigger = Trigger {
            event: event_name::<V>(body, limits)?,
            data: event_data::<V>(body, limits)?,
            except: excluded(env, body)?,
            channels: Vec::new(),
            info: None,
        };
        effects.push(trigger.publish::<V>(env, app, &name, 0));
        Ok(())
    });
    Answered::Now(settled::<V>(context, before, done))
}

/// Closes all connections of a signed-in user, with the application's `terminate_close_code`.
fn terminate<V: Vendor>(context: &mut DialectContext<'_>, app: u32, user: &str) -> Answered {
    let name = format!("{}{user}", USER);
    let code = context.env.apps.get(app).config.terminate_close_code;
    let close = Some((code, V::CODES.terminated));
    let event = Event { close, ..Event::default() };
    context.effects.push(Effect::Publish { app, name, event, part: 0 });
    Answered::Now(empty())
}

pub(super) type ApiRefusal = (u16, Cow<'static, str>);

/// One event to publish, validated.
pub(super) struct Trigger<'t> {
    event: &'t str,
    data: Cow<'t, str>,
    except: Option<ConnId>,
    /// The channels to publish on, without duplicates.
    pub(super) channels: Vec<&'t str>,
    pub(super) info: Option<Info>,
}

impl<'t> Trigger<'t> {
    pub(super) fn read<V: Vendor>(
        env: &Env,
        app: u32,
        body: JsonText<'t, '_>,
    ) -> Result<Trigger<'t>, ApiRefusal> {
        if !body.is_object() {
            return Err((400, "The body must be a JSON object".into()));
        }
        let limits = &env.apps.get(app).config.limits;
        let event = event_name::<V>(body, limits)?;
        let except = excluded(env, body)?;
        let data = event_data::<V>(body, limits)?;
        let info = match body.get("info").filter(|info| !info.is_null()) {
            Some(list) if V::QUIRKS.publish_asks => Some(
                Info::read::<V>(list.text().unwrap_or("that is not a string"))
                    .map_err(|unknown| (400, Cow::Owned(format!("info {unknown} is not known"))))?,
            ),
            _ => None,
        };
        let channels = channel_names::<V>(env, &env.apps.get(app).config, body)?;
        Ok(Trigger { event, data, except, channels, info })
    }

    /// The effect that publishes the event on channel `name`. `part` is the number under which the
    /// answer about the channel is reported.
    pub(super) fn publish<V: Vendor>(&self, env: &Env, app: u32, name: &str, part: u16) -> Effect {
        let mut scratch = Vec::with_capacity(64 + self.data.len() + self.data.len() / 4);
        let frame = freeze_text(&mut scratch, |out| {
            push_event(out, self.event, name, &self.data);
        });
        let keep = channel::is_cached::<V>(name).then(|| {
            Arc::new(CacheEntry {
                ttl_ms: env.apps.get(app).config.limits.cache_ttl_s * 1000,
                event: self.event.into(),
                data: (*self.data).into(),
            })
        });
        let compressed = env.compresses.then(Default::default);
        let event = Event { frame, compressed, except: self.except, keep, ..Event::default() };
        Effect::Publish { app, name: name.to_owned(), event, part }
    }
}

fn event_name<'t, V: Vendor>(
    body: JsonText<'t, '_>,
    limits: &config::AppLimits,
) -> Result<&'t str, ApiRefusal> {
    let name = body.get("name").and_then(|name| name.text());
    let max = limits.event_name_length;
    match name {
        None | Some("") => Err((400, "name must be a string that is not empty".into())),
        Some(name) if name.len() > max => {
            Err((400, format!("name is longer than {max} characters").into()))
        }
        Some(name) if V::OWN_EVENTS.iter().any(|own| name.starts_with(own)) => {
            let [own, _] = V::OWN_EVENTS;
            Err((400, format!("names that begin with {own} are the server's own").into()))
        }
        Some(name) => Ok(name),
    }
}

fn excluded(env: &Env, body: JsonText<'_, '_>) -> Result<Option<ConnId>, ApiRefusal> {
    let Some(given) = body.get("socket_id").filter(|given| !given.is_null()) else {
        return Ok(None);
    };
    let parsed = given.text().map(|text| env.socket_ids.read(text));
    match parsed {
        Some(Ok(conn)) => Ok(conn),
        _ => Err((400, "socket_id must be two numbers with a dot between them".into())),
    }
}

/// The event's data as text: the content of a JSON string, or any other JSON value serialized.
/// Returns status 413 if it is longer than `limits.event_bytes`.
fn event_data<'t, V: Vendor>(
    body: JsonText<'t, '_>,
    limits: &config::AppLimits,
) -> Result<Cow<'t, str>, ApiRefusal> {
    let data = body.get("data").ok_or((400, Cow::Borrowed("data is missing")))?;
    let text = match data.text() {
        Some(text) => Cow::Borrowed(text),
        None => {
            let mut written = Vec::new();
            data.push_to(&mut written);
            let invalid = |_| (400, Cow::Borrowed("data is not UTF-8"));
            Cow::Owned(String::from_utf8(written).map_err(invalid)?)
        }
    };
    let max = limits.event_bytes;
    match text.len() > max {
        // Pusher's own test suites look for this text.
        true => {
            let text = "The data content of this event exceeds the allowed maximum";
            Err((413, format!("{text} ({max} bytes).").into()))
        }
        false => Ok(V::event_data(text, data.text().is_some())),
    }
}

/// The names of the channels to publish on, without duplicates, from `channel` or `channels`.
fn channel_names<'t, V: Vendor>(
    env: &Env,
    app: &config::AppConfig,
    body: JsonText<'t, '_>,
) -> Result<Vec<&'t str>, ApiRefusal> {
    let limits = &app.limits;
    let one = body.get("channel").filter(|one| !one.is_null());
    let several = body.get("channels").filter(|several| !several.is_null());
    let mut names: Vec<&str> = Vec::new();
    match (one, several) {
        (Some(one), None) => names.extend(one.text()),
        (None, Some(several)) => {
            for name in several.elements().into_iter().flatten() {
                let Some(name) = name.text() else {
                    return Err((400, "channels must be strings".into()));
                };
                if names.len() == limits.channels_per_trigger {
                    let max = limits.channels_per_trigger;
                    return Err((400, format!("more than {max} channels").into()));
                }
                names.push(name);
            }
        }
        (Some(_), Some(_)) => return Err((400, "channel and channels are both given".into())),
        (None, None) => return Err((400, "channels is missing".into())),
    }
    if names.is_empty() {
        return Err((400, "channels must be one string or more".into()));
    }
    for name in &names {
        if let Err(problem) = channel::check::<V>(name, V::name_length(env, app)) {
            return Err((400, problem.into()));
        }
    }
    if names.len() > 1 {
        if names.iter().any(|name| channel::kind::<V>(name) == ChannelKind::Encrypted) {
            return Err((400, "an encrypted channel must be the only one".into()));
        }
        let mut seen = std::collections::HashSet::new();
        names.retain(|name| seen.insert(*name));
    }
    Ok(names)
}
