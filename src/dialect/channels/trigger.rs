//! One event that a request of the HTTP API publishes, validated.

use super::super::context::freeze_text;
use super::super::effects::Effect;
use super::super::env::Env;
use super::data::ChannelKind;
use super::ids::SocketIds;
use super::messages::push_event;
use super::reads::Info;
use super::reply::ApiRefusal;
use super::vendor::Vendor;
use super::{channel, positions};
use crate::codec::json::JsonText;
use crate::config;
use crate::dialect::{Event, EventPayload};
use crate::hub::{CacheEntry, Excluded, Retention, SharedFrame};
use std::borrow::Cow;
use std::sync::Arc;

/// One event to publish, validated.
pub(super) struct Trigger<'t> {
    event: &'t str,
    data: Cow<'t, str>,
    except: Option<Excluded>,
    /// The channels to publish on, without duplicates.
    pub(super) channels: Vec<&'t str>,
    pub(super) info: Option<Info>,
}

impl<'t> Trigger<'t> {
    /// An event that goes to a user's own channel instead of channels that the request names.
    pub(super) fn without_channel<V: Vendor>(
        env: &Env,
        limits: &config::AppLimits,
        body: JsonText<'t, '_>,
    ) -> Result<Trigger<'t>, ApiRefusal> {
        Ok(Trigger {
            event: event_name::<V>(body, limits)?,
            data: event_data::<V>(body, limits)?,
            except: excluded(env, body)?,
            channels: Vec::new(),
            info: None,
        })
    }

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
            Some(list) if V::DATA.quirks.publish_asks => Some(
                Info::read::<V>(list.text().unwrap_or("that is not a string"))
                    .and_then(|info| info.detail().map_or(Ok(info), |it| Err(it.to_owned())))
                    .map_err(|unknown| (400, Cow::Owned(format!("info {unknown} is not known"))))?,
            ),
            _ => None,
        };
        let channels = channel_names::<V>(env, &env.apps.get(app).config, body)?;
        if let Some(name) = channels.iter().find(|name| !env.links.may_publish(app, name)) {
            return Err((403, format!("channel {name} is linked and accepts no events").into()));
        }
        Ok(Trigger { event, data, except, channels, info })
    }

    /// The effect that publishes the event on channel `name`. `part` is the number under which the
    /// answer about the channel is reported.
    pub(super) fn publish<V: Vendor>(&self, env: &Env, app: u32, name: &str, part: u16) -> Effect {
        let event = published::<V>(env, app, name, (self.event, &self.data));
        let event = Event { except: self.except, ..event };
        Effect::Publish { app, name: name.to_owned(), event, part }
    }
}

/// The event with this name and data on channel `name`, and what the channel's home keeps of it.
pub(super) fn published<V: Vendor>(
    env: &Env,
    app: u32,
    name: &str,
    (event, data): (&str, &str),
) -> Event {
    let mut scratch = Vec::with_capacity(64 + data.len() + data.len() / 4);
    let frame = freeze_text(&mut scratch, |out| push_event(out, event, name, data));
    let config = &env.apps.get(app).config;
    let cache_entry = || {
        Arc::new(CacheEntry {
            ttl_ms: config.limits.cache_ttl_s * 1000,
            event: event.into(),
            data: data.into(),
        })
    };
    let limit = config.history_of(name).map(positions::limit_of);
    let retain = match (channel::is_cached(V::DATA, name), limit) {
        (true, None) => Retention::Cache(cache_entry()),
        (true, Some(limit)) => Retention::CacheAndHistory(cache_entry(), limit),
        (false, Some(limit)) => Retention::History(limit),
        (false, None) => Retention::Nothing,
    };
    let compressed = env.compresses.then(Default::default);
    let payload = EventPayload::Frame(SharedFrame { frame, compressed });
    Event { payload, retain, ..Event::default() }
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
        Some(name) => match V::DATA.own_events.iter().find(|own| name.starts_with(**own)) {
            Some(own) => {
                Err((400, format!("names that begin with {own} are the server's own").into()))
            }
            None => Ok(name),
        },
    }
}

/// The connection that the member `socket_id` excludes. It may be one of another node of a cluster,
/// or of the process that this one replaces.
fn excluded(env: &Env, body: JsonText<'_, '_>) -> Result<Option<Excluded>, ApiRefusal> {
    let Some(given) = body.get("socket_id").filter(|given| !given.is_null()) else {
        return Ok(None);
    };
    let parsed = given.text().map(SocketIds::numbers);
    match parsed {
        Some(Ok(None)) => Ok(None),
        Some(Ok(Some(numbers))) => match env.socket_ids.find(numbers) {
            Some(conn) => Ok(Some(conn.into())),
            None => Ok(Some(Excluded::Elsewhere(numbers))),
        },
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
        if let Err(problem) = channel::check(V::DATA, name, V::settings(env, app).name_length) {
            return Err((400, problem.into()));
        }
    }
    if names.len() > 1 {
        if names.iter().any(|name| channel::kind(V::DATA, name) == ChannelKind::Encrypted) {
            return Err((400, "an encrypted channel must be the only one".into()));
        }
        let mut seen = std::collections::HashSet::new();
        names.retain(|name| seen.insert(*name));
    }
    Ok(names)
}
