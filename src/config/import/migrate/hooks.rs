//! The webhooks of soketi's and sockudo's applications.

use serde_json::{Map, Value};

use super::draft::Draft;
use super::options::Setting;
use crate::config::webhook::HookEvent;
use crate::settings::error::{Error, Problem};
use crate::settings::section::words_of;

/// How the other server gathers events into one request.
#[derive(Clone, Copy)]
pub(super) struct Batching {
    pub(super) is_on: bool,
    /// How long an event waits, in milliseconds.
    pub(super) wait_ms: u64,
}

/// Converts the webhooks of the application at `app`, such as `apps.0`.
pub(super) fn convert(
    setting: &Setting,
    app: &str,
    batching: Batching,
    draft: &mut Draft,
) -> Result<(), Error> {
    let wrong = |name: &str, problem: &str| {
        Error::keyed(name.to_owned(), Problem::Other(problem.to_owned()))
    };
    let Value::Array(hooks) = &setting.value else {
        return Err(wrong(&setting.name, "expected a list of webhooks"));
    };
    let mut made = 0;
    for (index, hook) in hooks.iter().enumerate() {
        let name = format!("{}.{index}", setting.name);
        let Value::Object(hook) = hook else { return Err(wrong(&name, "expected an object")) };
        let Some(url) = hook.get("url").and_then(Value::as_str) else {
            draft.note(&name, "is left out, because it has no `url`; a function is not called");
            continue;
        };
        let Some(events) = events(hook, &name, draft)? else { continue };
        let at = format!("{app}.webhooks.{made}");
        made += 1;
        draft.set(&format!("{at}.url"), url);
        draft.set(&format!("{at}.event_types"), events);
        draft.set(&format!("{at}.allow_private"), true);
        if batching.is_on {
            draft.set(&format!("{at}.batch"), true);
            draft.set_number(&format!("{at}.batch_ms"), "webhooks.batching", batching.wait_ms);
        }
        details(hook, &name, &at, draft)?;
    }
    if made > 0 {
        draft.note(
            &setting.name,
            "may be sent to private addresses, as before; remove allow_private if they are not",
        );
    }
    Ok(())
}

/// The events of a webhook that this server has; `None` if there are none.
fn events(
    hook: &Map<String, Value>,
    name: &str,
    draft: &mut Draft,
) -> Result<Option<Vec<toml::Value>>, Error> {
    let types = match hook.get("event_types") {
        Some(Value::Array(types)) => types.as_slice(),
        None => &[],
        Some(_) => {
            let problem = Problem::Other("expected a list of event types".to_owned());
            return Err(Error::keyed(format!("{name}.event_types"), problem));
        }
    };
    let known = words_of::<HookEvent>();
    let mut events = Vec::new();
    for event in types {
        match event.as_str() {
            Some(event) if known.contains(&event) => events.push(toml::Value::from(event)),
            _ => {
                let text = format!("there is no event of type {event}");
                draft.note(&format!("{name}.event_types"), &text);
            }
        }
    }
    if events.is_empty() {
        draft.note(name, "is left out, because none of its event types exists");
        return Ok(None);
    }
    Ok(Some(events))
}

/// The header fields and the filter of a webhook.
fn details(
    hook: &Map<String, Value>,
    name: &str,
    at: &str,
    draft: &mut Draft,
) -> Result<(), Error> {
    for (key, value) in hook {
        let key_name = format!("{name}.{key}");
        let table = value.as_object();
        match (key.as_str(), table) {
            ("url" | "event_types", _) => {}
            (_, _) if value.is_null() => {}
            ("headers", Some(headers)) => {
                let mut fields = toml::Table::new();
                for (field, value) in headers {
                    let text = value.as_str().ok_or_else(|| {
                        let problem = Problem::Other("expected a text".to_owned());
                        Error::keyed(format!("{key_name}.{field}"), problem)
                    })?;
                    fields.insert(field.clone(), text.into());
                }
                draft.set(&format!("{at}.headers"), fields);
            }
            ("filter", Some(filter)) => {
                for (rule, value) in filter {
                    let ours = match rule.as_str() {
                        "channel_name_starts_with" | "channel_prefix" => "filter_prefix",
                        "channel_name_ends_with" | "channel_suffix" => "filter_suffix",
                        _ if value.is_null() => continue,
                        _ => {
                            let text = "has no counterpart, so the webhook gets more events";
                            draft.note(&format!("{key_name}.{rule}"), text);
                            continue;
                        }
                    };
                    if let Some(text) = value.as_str() {
                        draft.set(&format!("{at}.{ours}"), text);
                    }
                }
            }
            _ => draft.note(&key_name, "has no counterpart"),
        }
    }
    Ok(())
}
