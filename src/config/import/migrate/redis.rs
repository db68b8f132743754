//! What becomes of the Redis by which soketi and sockudo connect their servers.

use super::ForeignServer;
use super::address::{AddressLogin, address};
use super::draft::Draft;
use super::options::{Options, Setting};
use crate::settings::error::{Error, Problem};
use std::collections::BTreeMap;

const DATABASE: &str = "database.redis";
/// Where sockudo has the URL of the one server that its adapter uses whatever `DATABASE` says.
const URL: &str = "adapter.redis.redis_pub_options.url";
/// The same for a second connection, which this server has not.
const SECOND_URL: &str = "adapter.redis.redis_sub_options.url";
const DEFAULT_HOST: &str = "127.0.0.1";
const DEFAULT_PORT: &str = "6379";
const SENTINEL_PORT: &str = "26379";
/// The port of sockudo's servers of a Redis Cluster if nothing else is set.
const CLUSTER_PORT: &str = "7000";
/// The name of Sentinel's primary if nothing else is set.
const PRIMARY: &str = "mymaster";
const OTHER_DATABASE: &str = "the log lies in the database 0 of Redis";

/// The servers of a Redis, as URLs of this server name them.
struct Servers {
    /// `redis`, or what says how the server is found.
    scheme: &'static str,
    /// Each with its port, and whether it uses TLS.
    list: Vec<(String, bool)>,
    /// What follows the port: for Sentinel the name of the primary.
    path: String,
    login: Option<AddressLogin>,
}

/// Converts the adapter through Redis; `is_cluster` says that it is one through Redis Cluster.
pub(super) fn convert(
    options: &mut Options,
    draft: &mut Draft,
    is_cluster: bool,
) -> Result<(), Error> {
    let mode = options.take("adapter.redis.cluster_mode").map(|it| it.flag()).transpose()?;
    // The other adapter, through Redis Cluster, has its own list of servers.
    let url = match options.server == ForeignServer::Sockudo && !is_cluster {
        true => options.take(URL).filter(|it| it.value != ""),
        false => None,
    };
    let is_cluster = is_cluster || mode == Some(true);
    let servers = match url {
        Some(url) => of_url(&url, options, draft, is_cluster)?,
        None => of_database(options, draft, is_cluster)?,
    };
    let login = login(options, is_cluster, servers.login)?;
    let urls = servers.list.iter().map(|(host, is_tls)| {
        let scheme = match is_tls {
            true => servers.scheme.replacen("redis", "rediss", 1),
            false => servers.scheme.to_owned(),
        };
        toml::Value::from(format!("{scheme}://{host}{}", servers.path))
    });
    draft.set("cluster.engine", urls.collect::<Vec<_>>());
    if let Some((user, password)) = login {
        draft.set("cluster.user", user);
        draft.set("cluster.password", password);
    }
    rest(options, draft, is_cluster)
}

/// The servers that the section of databases names.
fn of_database(
    options: &mut Options,
    draft: &mut Draft,
    is_cluster: bool,
) -> Result<Servers, Error> {
    let sentinels = nodes(options, &format!("{DATABASE}.sentinels"), SENTINEL_PORT)?;
    match (is_cluster, sentinels) {
        (true, _) => cluster(options),
        (false, Some(list)) => {
            let name = text(options, &format!("{DATABASE}.name"))?;
            let path = format!("/{}", name.unwrap_or_else(|| PRIMARY.to_owned()));
            let is_tls = |path: &str, options: &mut Options| {
                let flag = options.take(path).map(|it| it.flag()).transpose();
                flag.map(|it| it == Some(true))
            };
            let sentinel = is_tls("database.redis.sentinel_tls.enabled", options)?;
            let primary = is_tls("database.redis.master_tls.enabled", options)?;
            if sentinel != primary {
                draft.note(
                    "database.redis.sentinel_tls",
                    "with rediss+sentinel both Sentinel and the primary use TLS, with \
                     redis+sentinel none",
                );
            }
            let list = list.into_iter().map(|(host, _)| (host, sentinel && primary)).collect();
            Ok(Servers { scheme: "redis+sentinel", list, path, login: None })
        }
        (false, None) => one(options),
    }
}

/// The server of sockudo's URL, with the log-in and the database in it. What the section of
/// databases has is not used beside it.
fn of_url(
    url: &Setting,
    options: &mut Options,
    draft: &mut Draft,
    is_cluster: bool,
) -> Result<Servers, Error> {
    let text = url.text()?;
    let (place, more) = text.split_at(text.find(['?', '#']).unwrap_or(text.len()));
    let (scheme, rest) = place.split_once("://").ok_or_else(|| wrong(&url.name))?;
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    let found = server(&format!("{scheme}://{authority}"), DEFAULT_PORT);
    let (host, is_tls, login) = found.ok_or_else(|| wrong(&url.name))?;
    if !more.is_empty() {
        draft.note(&url.name, "what follows `?` or `#` in the URL is not used");
    }
    if !["", "0"].contains(&database) {
        draft.note(&url.name, OTHER_DATABASE);
    }
    if let Some(second) = options.take(SECOND_URL).filter(|it| it.value != url.value) {
        draft.note(&second.name, &format!("is not used beside {}", url.name));
    }
    for setting in options.take_below(&format!("{DATABASE}.")).into_values() {
        draft.note(&setting.name, &format!("is not used beside {}", url.name));
    }
    let scheme = if is_cluster { "redis+cluster" } else { "redis" };
    Ok(Servers { scheme, list: vec![(host, is_tls)], path: String::new(), login })
}

/// The one server of a Redis. sockudo takes a scheme before its name.
fn one(options: &mut Options) -> Result<Servers, Error> {
    let host = options.take("database.redis.host").filter(|it| it.value != "");
    let port = text(options, "database.redis.port")?.unwrap_or_else(|| DEFAULT_PORT.to_owned());
    let (name, host) = match host {
        Some(setting) => (setting.name.clone(), setting.text()?),
        None => ("database.redis.host".to_owned(), DEFAULT_HOST.to_owned()),
    };
    let (host, is_tls, login) = server(&host, &port).ok_or_else(|| wrong(&name))?;
    Ok(Servers { scheme: "redis", list: vec![(host, is_tls)], path: String::new(), login })
}

/// The servers of a Redis Cluster.
fn cluster(options: &mut Options) -> Result<Servers, Error> {
    let is_sockudo = options.server == ForeignServer::Sockudo;
    let port = if is_sockudo { CLUSTER_PORT } else { DEFAULT_PORT };
    let mut found = None;
    let mut login = None;
    // Each place counts if the ones before it have nothing.
    if let Some(seeds) = options.take("adapter.cluster.nodes") {
        let mut list = Vec::new();
        for seed in seeds.texts()?.iter().filter(|it| !it.is_empty()) {
            let (host, is_tls, user) =
                server(seed, DEFAULT_PORT).ok_or_else(|| wrong(&seeds.name))?;
            list.push((host, is_tls));
            login = login.or(user);
        }
        found = Some(list).filter(|list| !list.is_empty());
    }
    for place in ["database.redis.cluster.nodes", "database.redis.cluster_nodes"] {
        let list = nodes(options, place, port)?;
        found = found.or(list);
    }
    let tls = options.take("database.redis.cluster.use_tls");
    let tls = tls.or_else(|| options.take("database.redis.cluster.use_t_l_s"));
    let is_tls = tls.map(|it| it.flag()).transpose()?.unwrap_or(false);
    let mut list = found.unwrap_or_else(|| vec![(format!("{DEFAULT_HOST}:{port}"), false)]);
    list.iter_mut().for_each(|(_, server_tls)| *server_tls |= is_tls);
    Ok(Servers { scheme: "redis+cluster", list, path: String::new(), login })
}

/// The user and the password. A password without a user is that of the user `default`.
fn login(
    options: &mut Options,
    is_cluster: bool,
    in_address: Option<AddressLogin>,
) -> Result<Option<(String, String)>, Error> {
    let mut take = |name: &str| -> Result<Option<String>, Error> {
        let own = text(options, &format!("{DATABASE}.cluster.{name}"))?;
        let general = text(options, &format!("{DATABASE}.{name}"))?;
        Ok(own.filter(|_| is_cluster).or(general))
    };
    let (mut user, mut password) = (take("username")?, take("password")?);
    if let Some((name, Some(secret))) = in_address {
        (user, password) = (Some(name).filter(|it| !it.is_empty()), Some(secret));
    }
    Ok(password.map(|password| (user.unwrap_or_else(|| "default".to_owned()), password)))
}

/// Converts the prefix, and names what has no counterpart.
fn rest(options: &mut Options, draft: &mut Draft, is_cluster: bool) -> Result<(), Error> {
    let mut prefixes = vec!["adapter.redis.prefix"];
    if is_cluster {
        prefixes.insert(0, "adapter.cluster.prefix");
    }
    let prefixes: Vec<Setting> = prefixes.into_iter().filter_map(|it| options.take(it)).collect();
    if let Some(prefix) = prefixes.into_iter().find(|it| it.value != "" && !it.value.is_null()) {
        match name_of(&prefix.text()?) {
            Some(name) => draft.set("cluster.name", name),
            None => draft.note(
                &prefix.name,
                "`cluster.name` has 1 to 32 of A-Z, a-z, 0-9, `_` and `-`, so it stays `polycast`",
            ),
        }
    }
    if let Some(number) = options.take("database.redis.db")
        && !["0", ""].contains(&number.text()?.as_str())
    {
        draft.note(&number.name, OTHER_DATABASE);
    }
    for (path, why) in [
        ("database.redis.key_prefix", "the keys begin with `cluster.name`"),
        (
            "database.redis.sentinel_password",
            "Sentinel is asked with `cluster.user` and `cluster.password` if it wants a log-in",
        ),
        (
            "database.redis.sentinel_username",
            "Sentinel is asked with `cluster.user` and `cluster.password` if it wants a log-in",
        ),
    ] {
        if let Some(setting) = options.take(path).filter(|it| it.value != "") {
            draft.note(&setting.name, why);
        }
    }
    Ok(())
}

/// The name of a cluster whose servers had this prefix, such as `name:`.
fn name_of(prefix: &str) -> Option<&str> {
    let name = prefix.trim_end_matches([':', '#', '.', '/']);
    let is_plain = |it: u8| it.is_ascii_alphanumeric() || b"_-".contains(&it);
    ((1..=32).contains(&name.len()) && name.bytes().all(is_plain)).then_some(name)
}

/// A text that is not empty.
fn text(options: &mut Options, path: &str) -> Result<Option<String>, Error> {
    let text = options.take(path).map(|it| it.text()).transpose()?;
    Ok(text.filter(|it| !it.is_empty()))
}

/// The servers of a list of objects with a host and a port, or of addresses, and whether each uses
/// TLS; `None` if it is empty.
fn nodes(
    options: &mut Options,
    path: &str,
    default_port: &str,
) -> Result<Option<Vec<(String, bool)>>, Error> {
    let mut list = Vec::new();
    if let Some(addresses) = options.take(path) {
        for text in addresses.texts()?.iter().filter(|it| !it.is_empty()) {
            let (host, is_tls, _) =
                server(text, default_port).ok_or_else(|| wrong(&addresses.name))?;
            list.push((host, is_tls));
        }
    }
    let mut objects: BTreeMap<usize, (Option<Setting>, Option<Setting>)> = BTreeMap::new();
    for (place, setting) in options.take_below(&format!("{path}.")) {
        let (index, member) = place.split_once('.').unwrap_or((&place, ""));
        let entry = objects.entry(index.parse().unwrap_or(usize::MAX)).or_default();
        match member {
            "host" => entry.0 = Some(setting),
            "port" => entry.1 = Some(setting),
            _ => return Err(wrong(&setting.name)),
        }
    }
    for (host, port) in objects.into_values() {
        let port = port.map_or(Ok(default_port.to_owned()), |it| it.text())?;
        let (name, host) = match host {
            Some(setting) => (setting.name.clone(), setting.text()?),
            None => (path.to_owned(), DEFAULT_HOST.to_owned()),
        };
        let (host, is_tls, _) = server(&host, &port).ok_or_else(|| wrong(&name))?;
        list.push((host, is_tls));
    }
    Ok(Some(list).filter(|list| !list.is_empty()))
}

/// The name and port of a server, whether it uses TLS, and the log-in in its address.
fn server(text: &str, default_port: &str) -> Option<(String, bool, Option<AddressLogin>)> {
    let (scheme, host, login) = address(text, &["redis", "rediss"], default_port)?;
    Some((host, scheme == "rediss", login))
}

fn wrong(name: &str) -> Error {
    let problem = "expected servers as HOST:PORT, redis://HOST:PORT or rediss://HOST:PORT, or \
                   objects with host and port";
    Error::keyed(name.to_owned(), Problem::Other(problem.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn import_redis_prefix_becomes_a_name_if_it_is_one() {
        for (prefix, name) in [
            ("sockudo_adapter:", Some("sockudo_adapter")),
            ("a-1", Some("a-1")),
            ("chat#:", Some("chat")),
            (&"a".repeat(32), Some(&*"a".repeat(32))),
            (&"a".repeat(33), None),
            ("a:b", None),
            (":", None),
            ("", None),
        ] {
            assert_eq!(name_of(prefix), name, "{prefix}");
        }
    }

    #[test]
    fn import_redis_servers_in_every_form() {
        for (text, host, is_tls) in [
            ("redis.test", "redis.test:6379", false),
            ("10.0.0.1:7", "10.0.0.1:7", false),
            ("rediss://r/", "r:6379", true),
            ("redis://u:p@[::1]:7", "[::1]:7", false),
        ] {
            let (found, tls, _) = server(text, DEFAULT_PORT).expect(text);
            assert_eq!((found.as_str(), tls), (host, is_tls), "{text}");
        }
        for text in ["http://a", "redis://", "redis://a:1/path", "redis+sentinel://a:1/m"] {
            assert!(server(text, DEFAULT_PORT).is_none(), "{text}");
        }
    }
}
