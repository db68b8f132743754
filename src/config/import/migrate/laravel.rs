//! What becomes of the variables by which a Laravel application is set up for Reverb or Pusher.

use super::draft::Draft;
use super::options::{Options, Setting};
use super::rules::{address, make_room};
use crate::settings::error::{Error, Problem};

/// Converts the variables of Reverb.
pub(super) fn reverb(mut options: Options, draft: &mut Draft) -> Result<(), Error> {
    start(&mut options, draft, "REVERB")?;
    let host = options.take("host").map_or(Ok("0.0.0.0".to_owned()), |it| it.text())?;
    let port = options.take("port").map_or(Ok(8080.0), |it| it.number())?;
    draft.set("listeners.0.address", address(&host, port)?);
    if let Some(prefix) = options.take("path_prefix") {
        let path = prefix.text()?;
        match path.trim_matches('/') {
            "" => {}
            path => draft.set("pusher.path_prefix", format!("/{path}")),
        }
    }
    let activity = options.take("activity_timeout");
    match &activity {
        Some(it) => draft.set_number("apps.0.activity_timeout_s", &it.name, whole(it)?),
        None => draft.set("apps.0.activity_timeout_s", 30),
    }
    let message = options.take("max_message_size");
    match &message {
        Some(it) => draft.set_number("apps.0.limits.message_bytes", &it.name, whole(it)?),
        None => draft.set("apps.0.limits.message_bytes", 10_000),
    }
    if let Some(it) = options.take("max_request_size") {
        draft.set_number("apps.0.limits.event_bytes", &it.name, whole(&it)?);
    }
    if let Some(it) = options.take("max_connections") {
        draft.set_number("apps.0.limits.connections", &it.name, whole(&it)?);
    }
    client_events(&mut options, draft)?;
    rate(&mut options, draft)?;
    make_room(1, draft);
    draft.note(
        "config/reverb.php",
        "is not read: add what it sets without env(), such as further applications, \
         allowed_origins and certificates",
    );
    Ok(())
}

/// Converts the variables of Pusher Channels.
pub(super) fn pusher(mut options: Options, draft: &mut Draft) -> Result<(), Error> {
    start(&mut options, draft, "PUSHER")?;
    draft.set("apps.0.profile", "pusher");
    draft.set("listeners.0.address", "0.0.0.0:6001");
    draft.note(
        "Pusher's dashboard",
        "is not read: client events, subscription counts, webhooks and further keys are set in \
         [[apps]]",
    );
    Ok(())
}

/// The notes, and the id, key and secret of the application.
fn start(options: &mut Options, draft: &mut Draft, prefix: &str) -> Result<(), Error> {
    for (name, text) in options.take_notes() {
        draft.note(&name, &text);
    }
    for key in ["id", "key", "secret"] {
        let variable = format!("{prefix}_APP_{}", key.to_ascii_uppercase());
        let missing = || {
            let problem = "the variable is not set; an application needs id, key and secret";
            Error::keyed(variable, Problem::Other(problem.to_owned()))
        };
        let setting = options.take(key).ok_or_else(missing)?;
        draft.set(&format!("apps.0.{key}"), setting.text()?);
    }
    Ok(())
}

fn client_events(options: &mut Options, draft: &mut Draft) -> Result<(), Error> {
    let Some(setting) = options.take("client_events") else {
        draft.set("apps.0.client_events", true);
        return Ok(());
    };
    let from = setting.text()?;
    match from.as_str() {
        "members" => {}
        "all" => draft.note(
            &setting.name,
            "clients may publish only on private and presence channels that they are in",
        ),
        "none" => {}
        _ => {
            let problem = "expected all, members or none".to_owned();
            return Err(Error::keyed(setting.name, Problem::Other(problem)));
        }
    }
    draft.set("apps.0.client_events", from != "none");
    Ok(())
}

/// The limit of messages; Reverb has none by default.
fn rate(options: &mut Options, draft: &mut Draft) -> Result<(), Error> {
    let is_on = options.take("rate.enabled").map(|it| it.flag()).transpose()?.unwrap_or(false);
    let attempts = options.take("rate.max_attempts");
    let decay = options.take("rate.decay_seconds");
    let of = |setting: &Option<Setting>| setting.as_ref().map_or(Ok(60), whole);
    let per_s = match is_on {
        true => of(&attempts)?.div_ceil(of(&decay)?.max(1)).max(1),
        false => 0,
    };
    if is_on {
        let text = "counted all messages of a client; here it is the average number of events that \
                    a client may publish per second";
        draft.note("REVERB_APP_RATE_LIMIT_MAX_ATTEMPTS", text);
    }
    draft.set_number(
        "apps.0.limits.client_events_per_s",
        "REVERB_APP_RATE_LIMITING_ENABLED",
        per_s,
    );
    Ok(())
}

/// A number of 0 or more without a fraction.
fn whole(setting: &Setting) -> Result<u64, Error> {
    let number = setting.number()?;
    if number < 0.0 || number.fract() != 0.0 {
        let problem = Problem::Other("expected an integer, 0 or more".to_owned());
        return Err(Error::keyed(setting.name.clone(), problem));
    }
    Ok(number as u64)
}
