//! The HTTP API: <https://pusher.com/docs/channels/library_auth_reference/rest-api/>.

use super::super::{Action, Context, Env, Reply, freeze_text};
use super::channel::{self, Kind};
use super::{json_error, parse_socket_id, signature, words};
use crate::codec::json::Json;
use crate::config;
use crate::http::Request;
use crate::hub::{ConnId, Event};
use std::borrow::Cow;

/// Seconds that a request's own time may be off.
const TOLERANCE_S: u64 = 600;

/// Answers a request for application `app`, where `path` follows the application's id.
pub(super) fn answer(
    context: &mut Context<'_>,
    app: u32,
    path: &str,
    request: &mut Request<'_>,
) -> Reply {
    let entry = context.env.apps.get(app);
    if let Err(refused) = verify(context, app, request) {
        return json_error(refused.status(), &refused.to_string());
    }
    if !entry.config.enabled {
        return json_error(403, "The application is disabled");
    }
    if context.draining {
        return json_error(503, "The server is shutting down");
    }
    match (path, request.method) {
        ("/events", "POST") => events(context, app, request.body),
        ("/events", method) => Reply {
            allow: Some("POST"),
            ..json_error(405, &format!("The method {method} is not allowed here, POST is"))
        },
        _ => json_error(404, "The API has no such path"),
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

/// `POST /apps/{id}/events`: one event to one channel or several.
fn events(context: &mut Context<'_>, app: u32, body: &mut [u8]) -> Reply {
    let env = context.env;
    let limits = &env.apps.get(app).config.limits;
    let actions = &mut *context.actions;
    let before = actions.len();
    let published = context.json.parse(body, |body| trigger(env, limits, app, body, actions));
    match published {
        Ok(Ok(())) => Reply { status: 200, body: Cow::Borrowed(b"{}"), allow: None },
        Ok(Err((status, message))) => {
            context.actions.truncate(before);
            json_error(status, &message)
        }
        Err(_) => json_error(400, "The body is not valid JSON"),
    }
}

type Refusal = (u16, Cow<'static, str>);

fn trigger(
    env: &Env,
    limits: &config::AppLimits,
    app: u32,
    body: Json<'_, '_>,
    actions: &mut Vec<Action>,
) -> Result<(), Refusal> {
    if !body.is_object() {
        return Err((400, "The body must be a JSON object".into()));
    }
    if body.get("info").is_some_and(|info| !info.is_null()) {
        return Err((400, "This server does not answer info".into()));
    }
    let name = event_name(body, limits)?;
    let except = excluded(env, body)?;
    let mut text = Vec::new();
    let data = event_data(body, limits, &mut text)?;
    let names = channel_names(body, limits)?;
    let mut scratch = Vec::with_capacity(64 + data.len() + data.len() / 4);
    for channel in names {
        let frame = freeze_text(&mut scratch, |out| words::push_event(out, name, channel, data));
        let squeezed = env.compresses.then(Default::default);
        let event = Event { frame, squeezed, except };
        actions.push(Action::Publish { app, name: channel.to_owned(), event });
    }
    Ok(())
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

/// The event's data as text: a string's content, or any other value written out once into `text`.
fn event_data<'t>(
    body: Json<'t, '_>,
    limits: &config::AppLimits,
    text: &'t mut Vec<u8>,
) -> Result<&'t str, Refusal> {
    let data = body.get("data").ok_or((400, Cow::Borrowed("data is missing")))?;
    let data = match data.text() {
        Some(data) => data,
        None => {
            data.push_to(text);
            str::from_utf8(text).map_err(|_| (400, Cow::Borrowed("data is not UTF-8")))?
        }
    };
    let most = limits.event_bytes;
    match data.len() > most {
        true => Err((413, format!("data is longer than {most} bytes").into())),
        false => Ok(data),
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
