//! What becomes of the options by which soketi and sockudo connect their servers.

use super::ForeignServer;
use super::address::{AddressLogin, address};
use super::draft::Draft;
use super::names::CLUSTER;
use super::options::Options;
use super::redis;
use crate::settings::error::{Error, Problem};

/// Where both look for NATS if nothing else is set.
const DEFAULT_SERVER: &str = "127.0.0.1:4222";
const DEFAULT_PORT: &str = "4222";

/// Converts the adapter, if it is one through NATS or Redis, and names it if it is another one.
pub(super) fn convert(options: &mut Options, draft: &mut Draft) -> Result<(), Error> {
    let Some(driver) = options.take("adapter.driver") else { return Ok(()) };
    match driver.text()?.as_str() {
        "local" => {}
        "nats" => {
            nats(options, draft)?;
            draft.note(
                &driver.name,
                "servers are connected by [cluster], through a log of NATS JetStream, which needs \
                 version 2.11 or newer with `jetstream` in its configuration; docs/cluster.md says \
                 what is carried",
            );
        }
        name @ ("redis" | "redis-cluster") => {
            redis::convert(options, draft, name == "redis-cluster")?;
            draft.note(
                &driver.name,
                "servers are connected by [cluster], through a log in Redis, which needs version \
                 7.0 or newer, or Valkey, with `maxmemory-policy noeviction` and `appendonly yes`; \
                 docs/cluster.md says what is carried",
            );
        }
        _ => draft.note(&driver.name, CLUSTER),
    }
    Ok(())
}

fn nats(options: &mut Options, draft: &mut Draft) -> Result<(), Error> {
    let servers = options.take("adapter.nats.servers");
    let (name, texts) = match &servers {
        Some(setting) => (setting.name.as_str(), setting.texts()?),
        None => ("adapter.nats.servers", vec![DEFAULT_SERVER.to_owned()]),
    };
    let mut engine = Vec::new();
    let mut login = None;
    for text in texts.iter().filter(|text| !text.is_empty()) {
        let (url, user) = server(text).ok_or_else(|| {
            let problem = "expected servers as nats://HOST:PORT, tls://HOST:PORT or HOST:PORT";
            Error::keyed(name, Problem::Other(problem.to_owned()))
        })?;
        engine.push(toml::Value::from(url));
        login = login.or(user);
    }
    draft.set("cluster.engine", engine);
    let (user, password) = match options.server {
        ForeignServer::Soketi => ("adapter.nats.user", "adapter.nats.pass"),
        _ => ("adapter.nats.username", "adapter.nats.password"),
    };
    let mut keys = Vec::new();
    for (theirs, ours) in [(user, "user"), (password, "password"), ("adapter.nats.token", "token")]
    {
        if let Some(setting) = options.take(theirs).filter(|it| !it.value.is_null()) {
            keys.push((ours, setting.text()?));
        }
    }
    if keys.is_empty()
        && let Some((user, password)) = login
    {
        match password {
            Some(password) => keys.extend([("user", user), ("password", password)]),
            None => keys.push(("token", user)),
        }
    }
    keys.retain(|(_, text)| !text.is_empty());
    keys.into_iter().for_each(|(key, text)| draft.set(&format!("cluster.{key}"), text));
    Ok(())
}

/// The address of a server as this one writes it, and the log-in in it.
fn server(text: &str) -> Option<(String, Option<AddressLogin>)> {
    let (scheme, host, login) = address(text, &["nats", "tls"], DEFAULT_PORT)?;
    Some((format!("{scheme}://{host}"), login))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn import_nats_servers_in_every_form() {
        let login = |user: &str, password: Option<&str>| {
            Some((user.to_owned(), password.map(str::to_owned)))
        };
        for (text, url, found) in [
            ("127.0.0.1:4222", "nats://127.0.0.1:4222", None),
            ("nats.test", "nats://nats.test:4222", None),
            ("nats://a:1/", "nats://a:1", None),
            ("tls://[::1]", "tls://[::1]:4222", None),
            ("nats://[::1]:9", "nats://[::1]:9", None),
            ("nats://u:p%40@a:1", "nats://a:1", login("u", Some("p@"))),
            ("nats://token@a:1", "nats://a:1", login("token", None)),
        ] {
            assert_eq!(server(text), Some((url.to_owned(), found)), "{text}");
        }
        for text in ["ws://a:1", "nats://", "nats://a:1/path", "http://a"] {
            assert_eq!(server(text), None, "{text}");
        }
    }
}
