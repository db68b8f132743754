//! The HTTP API: <https://pusher.com/docs/channels/library_auth_reference/rest-api/>.

use super::super::{Action, Answered, Context, Env, Reply, freeze_text};
use super::channel::{self, Kind};
use super::reads::{self, Info};
use super::{batch, codes, json_error, parse_socket_id, signature, words};
use crate::codec::json::{Json, Malformed, push_string};
use crate::config;
use crate::http::Request;
use crate::http::query::{self, Plus};
use crate::hub::{Answer, ConnId, Event, Keep};
use std::borrow::Cow;
use std::sync::Arc;

/// Seconds that a request's own time may be off.
const TOLERANCE_S: u64 = 600;

/// Answers a request for application `app`, where `path` follows the application's id.
pub(super) fn answer(
    context: &mut Context<'_>,
    app: u32,
    path: &str,
    request: &mut Request<'_>,
) -> Answered {
    let entry = context.env.apps.get(app);
    if let Err(refused) = verify(context, app, request) {
        return Answered::Now(json_error(refused.status(), &refused.to_string()));
    }
    if !entry.config.enabled {
        return Answered::Now(json_error(403, "The application is disabled"));
    }
    if context.draining {
        return Answered::Now(json_error(503, "The server is shutting down"));
    }
    let Some(target) = Target::read(path) else {
        return Answered::Now(json_error(404, "The API has no such path"));
    };
    let method = match target {
        Target::Channels | Target::Channel(_) | Target::Users(_) => "GET",
        _ => "POST",
    };
    if request.method != method {
        let message = format!("The method {} is not allowed here", request.method);
        return Answered::Now(Reply { allow: Some(method), ..json_error(405, &message) });
    }
    match target {
        Target::Events => events(context, app, request.body),
        Target::Batch => batch::events(context, app, request.body),
        Target::Channels => reads::channels(context, app, request.query()),
        Target::Channel(name) => reads::channel(context, app, &name, request.query()),
        Target::Users(name) => reads::users(context, app, &name),
        Target::ToUser(user) => to_user(context, app, &user, request.body),
        Target::Terminate(user) => terminate(context, app, &user),
    }
}

/// What a path below the application names.
enum Target<'p> {
    Events,
    Batch,
    Channels,
    Channel(Cow<'p, str>),
    Users(Cow<'p, str>),
    /// `POST /users/{id}/events`, as Vask has it.
    ToUser(Cow<'p, str>),
    Terminate(Cow<'p, str>),
}

impl<'p> Target<'p> {
    fn read(path: &'p str) -> Option<Target<'p>> {
        let name = |text: &'p str| query::decode(text, Plus::Plus).filter(|name| !name.is_empty());
        let mut parts = path.strip_prefix('/')?.split('/');
        let target = match (parts.next()?, parts.next(), parts.next()) {
            ("events", None, _) => Target::Events,
            ("batch_events", None, _) => Target::Batch,
            ("channels", None, _) => Target::Channels,
            ("channels", Some(channel), None) => Target::Channel(name(channel)?),
            ("channels", Some(channel), Some("users")) => Target::Users(name(channel)?),
            ("users", Some(user), Some("events")) => Target::ToUser(name(user)?),
            ("users", Some(user), Some("terminate_connections")) => Target::Terminate(name(user)?),
            _ => return None,
        };
        parts.next().is_none().then_some(target)
    }
}

fn verify(
    context: &Context<'_>,
    app: u32,
    request: &Request<'_>,
) -> Result<(), signature::Refused> {
    let entry = context.env.apps.get(app);
    let signed = signature::Signed {
        method: request.method,
        path: request.path(),
        query: request.query(),
        body: request.body,
        prefix: &context.env.config.pusher.path_prefix,
    };
    let tolerance = entry.config.check_timestamp.then_some(TOLERANCE_S);
    signature::verify(&signed, &entry.keys, context.now.unix_s, tolerance)
}

/// `POST /events`: one event to one channel or several.
fn events(context: &mut Context<'_>, app: u32, body: &mut [u8]) -> Answered {
    let env = context.env;
    let before = context.actions.len();
    let actions = &mut *context.actions;
    let triggered = context.json.parse(body, |body| {
        let trigger = Trigger::read(env, app, body)?;
        let names: Vec<String> = trigger.channels.iter().map(|&name| name.to_owned()).collect();
        for (part, name) in names.iter().enumerate() {
            actions.push(trigger.publish(env, app, name, part as u16));
        }
        Ok((trigger.info, names))
    });
    match triggered {
        Ok(Ok((None, _))) => Answered::Now(empty()),
        Ok(Ok((Some(info), names))) => {
            Answered::Later(Box::new(move |answers| trigger_reply(info, &names, &answers)))
        }
        refused => Answered::Now(settled(context, before, refused.map(|it| it.map(drop)))),
    }
}

fn empty() -> Reply {
    Reply { status: 200, body: Cow::Borrowed(b"{}"), allow: None }
}

/// The reply to a request that needs no answers. One that is refused publishes nothing.
fn settled(
    context: &mut Context<'_>,
    before: usize,
    done: Result<Result<(), Refusal>, Malformed>,
) -> Reply {
    let refused = match done {
        Ok(Ok(())) => return empty(),
        Ok(Err((status, message))) => json_error(status, &message),
        Err(Malformed) => json_error(400, "The body is not valid JSON"),
    };
    context.actions.truncate(before);
    refused
}

fn trigger_reply(info: Info, names: &[String], answers: &[(u16, Answer)]) -> Reply {
    let mut out = br#"{"channels":{"#.to_vec();
    for (part, name) in names.iter().enumerate() {
        if part > 0 {
            out.push(b',');
        }
        push_string(&mut out, name);
        out.push(b':');
        let facts = reads::facts_of(answers, part as u16);
        out.extend_from_slice(&reads::object(info, name, &facts));
    }
    out.extend_from_slice(b"}}");
    reads::ok(out)
}

/// `POST /users/{id}/events`: one event to all connections of a user who has signed in.
fn to_user(context: &mut Context<'_>, app: u32, user: &str, body: &mut [u8]) -> Answered {
    let env = context.env;
    let limits = &env.apps.get(app).config.limits;
    let before = context.actions.len();
    let actions = &mut *context.actions;
    let name = format!("{}{user}", channel::USER);
    let done = context.json.parse(body, |body| {
        channel::check(&name, limits.channel_name_length).map_err(|text| (400, text.into()))?;
        let trigger = Trigger {
            event: event_name(body, limits)?,
            data: event_data(body, limits)?,
            except: excluded(env, body)?,
            channels: Vec::new(),
            info: None,
        };
        actions.push(trigger.publish(env, app, &name, 0));
        Ok(())
    });
    Answered::Now(settled(context, before, done))
}

/// `POST /users/{id}/terminate_connections`.
fn terminate(context: &mut Context<'_>, app: u32, user: &str) -> Answered {
    let name = format!("{}{user}", channel::USER);
    let code = context.env.apps.get(app).config.terminate_close_code;
    let close = Some((code, codes::TERMINATED));
    let event = Event { close, ..Event::default() };
    context.actions.push(Action::Publish { app, name, event, part: 0 });
    Answered::Now(empty())
}

pub(super) type Refusal = (u16, Cow<'static, str>);

/// One event of a request, checked.
pub(super) struct Trigger<'t> {
    event: &'t str,
    data: Cow<'t, str>,
    except: Option<ConnId>,
    /// Each once.
    pub(super) channels: Vec<&'t str>,
    pub(super) info: Option<Info>,
}

impl<'t> Trigger<'t> {
    pub(super) fn read(env: &Env, app: u32, body: Json<'t, '_>) -> Result<Trigger<'t>, Refusal> {
        if !body.is_object() {
            return Err((400, "The body must be a JSON object".into()));
        }
        let limits = &env.apps.get(app).config.limits;
        let event = event_name(body, limits)?;
        let except = excluded(env, body)?;
        let data = event_data(body, limits)?;
        let info = match body.get("info").filter(|info| !info.is_null()) {
            Some(list) => Some(
                Info::read(list.text().unwrap_or("that is not a string"))
                    .map_err(|unknown| (400, Cow::Owned(format!("info {unknown} is not known"))))?,
            ),
            None => None,
        };
        let channels = channel_names(body, limits)?;
        Ok(Trigger { event, data, except, channels, info })
    }

    /// The action that publishes it on one channel.
    pub(super) fn publish(&self, env: &Env, app: u32, name: &str, part: u16) -> Action {
        let mut scratch = Vec::with_capacity(64 + self.data.len() + self.data.len() / 4);
        let frame = freeze_text(&mut scratch, |out| {
            words::push_event(out, self.event, name, &self.data);
        });
        let keep = channel::is_cached(name).then(|| {
            Arc::new(Keep {
                ttl_ms: env.apps.get(app).config.limits.cache_ttl_s * 1000,
                event: self.event.into(),
                data: (*self.data).into(),
            })
        });
        let squeezed = env.compresses.then(Default::default);
        let event = Event { frame, squeezed, except: self.except, keep, ..Event::default() };
        Action::Publish { app, name: name.to_owned(), event, part }
    }
}

fn event_name<'t>(body: Json<'t, '_>, limits: &config::AppLimits) -> Result<&'t str, Refusal> {
    let name = body.get("name").and_then(|name| name.text());
    let most = limits.event_name_length;
    match name {
        None | Some("") => Err((400, "name must be a string that is not empty".into())),
        Some(name) if name.len() > most => {
            Err((400, format!("name is longer than {most} characters").into()))
        }
        Some(name) if name.starts_with("pusher:") || name.starts_with("pusher_internal:") => {
            Err((400, "names that begin with pusher: are the server's own".into()))
        }
        Some(name) => Ok(name),
    }
}

fn excluded(env: &Env, body: Json<'_, '_>) -> Result<Option<ConnId>, Refusal> {
    let Some(given) = body.get("socket_id").filter(|given| !given.is_null()) else {
        return Ok(None);
    };
    let parsed = given.text().map(|text| parse_socket_id(env, text));
    match parsed {
        Some(Ok(conn)) => Ok(conn),
        _ => Err((400, "socket_id must be two numbers with a dot between them".into())),
    }
}

/// The event's data as text: a string's content, or any other value written out once.
fn event_data<'t>(body: Json<'t, '_>, limits: &config::AppLimits) -> Result<Cow<'t, str>, Refusal> {
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
    let most = limits.event_bytes;
    match text.len() > most {
        true => Err((413, format!("data is longer than {most} bytes").into())),
        false => Ok(text),
    }
}

/// The channels to publish to, each once.
fn channel_names<'t>(
    body: Json<'t, '_>,
    limits: &config::AppLimits,
) -> Result<Vec<&'t str>, Refusal> {
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
                    let most = limits.channels_per_trigger;
                    return Err((400, format!("more than {most} channels").into()));
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
        if let Err(problem) = channel::check(name, limits.channel_name_length) {
            return Err((400, problem.into()));
        }
    }
    if names.len() > 1 {
        if names.iter().any(|name| channel::kind(name) == Kind::Encrypted) {
            return Err((400, "an encrypted channel must be the only one".into()));
        }
        let mut seen = std::collections::HashSet::new();
        names.retain(|name| seen.insert(*name));
    }
    Ok(names)
}
