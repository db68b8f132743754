//! Finds the server that has the log.

use super::info::{self, ServerInfo};
use super::link::{Login, REQUEST, RequestFailure, ServerAddress, ServerLink};
use super::page::list;
use super::script::{Keys, text};
use crate::config::{Cluster, EngineKind, EngineUrl};
use redis::cmd;
use std::cmp::Reverse;
use tokio::task::spawn_local;

/// A connection to the primary.
pub(super) struct Primary {
    pub(super) link: ServerLink,
    pub(super) address: ServerAddress,
    pub(super) info: ServerInfo,
}

fn address(url: &EngineUrl) -> ServerAddress {
    ServerAddress { host: url.host.clone(), port: url.port }
}

/// The first word of the server's error; empty if it has not answered.
pub(super) fn code(failure: &RequestFailure) -> &str {
    match failure {
        RequestFailure::Refused { code, .. } => code,
        RequestFailure::Lost(_) => "",
    }
}

/// Connects to the primary that the servers of the configuration are or name.
///
/// # Errors
/// No server leads to a primary; the reason of the last one.
pub(super) async fn find(
    cluster: &Cluster,
    login: &Login,
    keys: &Keys,
) -> Result<Primary, RequestFailure> {
    let mut failure = RequestFailure::Lost("the engine has no server".to_owned());
    if cluster.kind() == EngineKind::RedisSentinel {
        let (named, failures) = ask_sentinels(cluster, login).await;
        failures.into_iter().for_each(|other| prefer(&mut failure, other));
        for (address, _) in named {
            match connect(address, login).await {
                Ok(primary) => return Ok(primary),
                Err(other) => prefer(&mut failure, other),
            }
        }
        return Err(failure);
    }
    for url in cluster.urls() {
        let found = match url.kind {
            EngineKind::RedisCluster => of_cluster(&url, login, keys).await,
            _ => connect(address(&url), login).await,
        };
        match found {
            Ok(primary) => return Ok(primary),
            Err(other) => prefer(&mut failure, other),
        }
    }
    Err(failure)
}

/// The servers of the configuration, or the primaries that those of Sentinel name.
pub(super) async fn addresses(cluster: &Cluster, login: &Login) -> Vec<ServerAddress> {
    let mut addresses = Vec::new();
    for url in cluster.urls() {
        match url.kind {
            EngineKind::RedisSentinel => addresses.extend(ask_sentinel(&url, login).await.ok()),
            _ => addresses.push(address(&url)),
        }
    }
    addresses
}

/// Replaces a failure by a later one, unless that says less: a server that refuses us says more
/// than one that cannot be reached.
fn prefer(failure: &mut RequestFailure, other: RequestFailure) {
    let is_less = matches!(other, RequestFailure::Lost(_));
    if !(is_less && matches!(failure, RequestFailure::Refused { .. })) {
        *failure = other;
    }
}

async fn connect(address: ServerAddress, login: &Login) -> Result<Primary, RequestFailure> {
    let mut link = ServerLink::open(&address, login).await?;
    let info = read_info(&mut link).await?;
    if !info.is_primary() {
        let text = format!("{address} is not a primary");
        return Err(RequestFailure::Refused { code: "READONLY".to_owned(), text });
    }
    Ok(Primary { link, address, info })
}

/// What the server says of itself now.
///
/// # Errors
/// It does not answer, or its user may not ask.
pub(super) async fn read_info(link: &mut ServerLink) -> Result<ServerInfo, RequestFailure> {
    let answer = link.ask(&info::command(), REQUEST).await?;
    Ok(ServerInfo::read(text(&answer).unwrap_or_default()))
}

/// The server of a cluster that has the keys: the one that is asked, or the one it names.
async fn of_cluster(
    url: &EngineUrl,
    login: &Login,
    keys: &Keys,
) -> Result<Primary, RequestFailure> {
    let asked = address(url);
    let mut link = ServerLink::open(&asked, login).await?;
    let mut question = cmd("EXISTS");
    question.arg(&keys.meta);
    match link.ask(&question, REQUEST).await {
        Ok(_) => connect(asked, login).await,
        Err(failure) => match moved_to(&failure, &asked) {
            Some(address) => connect(address, login).await,
            None => Err(failure),
        },
    }
}

/// The server that the answer `MOVED SLOT HOST:PORT` names. Without a host it is the same one.
fn moved_to(failure: &RequestFailure, asked: &ServerAddress) -> Option<ServerAddress> {
    let RequestFailure::Refused { code, text } = failure else { return None };
    let place = text.split(' ').nth(2).filter(|_| code == "MOVED")?;
    let (host, port) = place.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let host = if matches!(host, "" | "?") { &asked.host } else { host };
    Some(ServerAddress { host: host.to_owned(), port: port.parse().ok()? })
}

/// The address of the primary by Sentinel, which often has no users.
async fn ask_sentinel(url: &EngineUrl, login: &Login) -> Result<ServerAddress, RequestFailure> {
    match ask_sentinel_as(url, &login.anonymous()).await {
        Err(failure) if matches!(code(&failure), "NOAUTH" | "NOPERM") => {
            ask_sentinel_as(url, login).await
        }
        answer => answer,
    }
}

async fn ask_sentinel_as(url: &EngineUrl, login: &Login) -> Result<ServerAddress, RequestFailure> {
    let mut link = ServerLink::open(&address(url), login).await?;
    let mut question = cmd("SENTINEL");
    question.arg("GET-MASTER-ADDR-BY-NAME").arg(&url.primary);
    let answer = link.ask(&question, REQUEST).await?;
    let words = list(answer).unwrap_or_default();
    let host = words.first().and_then(text);
    let port = words.get(1).and_then(text).and_then(|it| it.parse().ok());
    match (host, port) {
        (Some(host), Some(port)) => Ok(ServerAddress { host: host.to_owned(), port }),
        _ => {
            let text = format!("Sentinel at {} knows no primary {:?}", address(url), url.primary);
            Err(RequestFailure::Refused { code: String::new(), text })
        }
    }
}

/// The primaries that the Sentinels name and how many name each, and why others name none. A
/// Sentinel that was cut off from the others may name one that they have replaced, so the one that
/// has the largest number comes first; of several with the same number the first one in the order
/// of the configuration.
async fn ask_sentinels(
    cluster: &Cluster,
    login: &Login,
) -> (Vec<(ServerAddress, usize)>, Vec<RequestFailure>) {
    let ask = |url| {
        let login = login.clone();
        spawn_local(async move { ask_sentinel(&url, &login).await })
    };
    // They are asked at the same time, so that several that are away cost the time of one.
    let asked: Vec<_> = cluster.urls().into_iter().map(ask).collect();
    let (mut named, mut failures) = (Vec::<(ServerAddress, usize)>::new(), Vec::new());
    for task in asked {
        let Ok(answer) = task.await else { continue };
        match answer {
            Ok(address) => match named.iter_mut().find(|(other, _)| *other == address) {
                Some((_, count)) => *count += 1,
                None => named.push((address, 1)),
            },
            Err(failure) => failures.push(failure),
        }
    }
    named.sort_by_key(|(_, count)| Reverse(*count));
    (named, failures)
}

/// Whether more Sentinels name another primary than this one, and it is one. `false` if none
/// answers.
pub(super) async fn has_moved(cluster: &Cluster, login: &Login, primary: &ServerAddress) -> bool {
    if cluster.kind() != EngineKind::RedisSentinel {
        return false;
    }
    let (named, _) = ask_sentinels(cluster, login).await;
    let own = named.iter().find(|(address, _)| address == primary).map_or(0, |(_, count)| *count);
    match named.into_iter().next() {
        Some((other, count)) if count > own => connect(other, login).await.is_ok(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_redis_server_of_a_cluster_names_another() {
        let asked = ServerAddress { host: "a".to_owned(), port: 7000 };
        let moved = |code: &str, text: &str| {
            let (code, text) = (code.to_owned(), text.to_owned());
            let to = moved_to(&RequestFailure::Refused { code, text }, &asked);
            to.map(|it| it.to_string()).unwrap_or_default()
        };
        assert_eq!(moved("MOVED", "MOVED 77 10.0.0.2:7001"), "10.0.0.2:7001");
        assert_eq!(moved("MOVED", "MOVED 77 ::1:7001"), "[::1]:7001");
        assert_eq!(moved("MOVED", "MOVED 77 :7001"), "a:7001");
        assert_eq!(moved("MOVED", "MOVED 77 ?:7001"), "a:7001");
        for (code, text) in [("MOVED", "MOVED 77"), ("MOVED", "MOVED 77 b:x"), ("ASK", "ASK 7 b:1")]
        {
            assert_eq!(moved(code, text), "", "{text}");
        }
        assert_eq!(moved_to(&RequestFailure::Lost("MOVED 1 b:1".to_owned()), &asked), None);
    }
}
