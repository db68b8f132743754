//! Finds the server that has the log.

use super::info::{self, ServerInfo};
use super::link::{Login, REQUEST, RequestFailure, ServerAddress, ServerLink};
use super::page::list;
use super::script::{Keys, text};
use crate::config::{Cluster, EngineKind, EngineUrl};
use redis::cmd;

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
    for url in cluster.urls() {
        let found = match url.kind {
            EngineKind::RedisSentinel => match ask_sentinel(&url, login).await {
                Ok(address) => connect(address, login).await,
                Err(failure) => Err(failure),
            },
            EngineKind::RedisCluster => of_cluster(&url, login, keys).await,
            _ => connect(address(&url), login).await,
        };
        match found {
            Ok(primary) => return Ok(primary),
            // A server that refuses us says more than one that cannot be reached.
            Err(RequestFailure::Lost(_)) if matches!(failure, RequestFailure::Refused { .. }) => {}
            Err(other) => failure = other,
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

/// Whether Sentinel names another primary than this one. `false` if it does not answer.
pub(super) async fn has_moved(cluster: &Cluster, login: &Login, primary: &ServerAddress) -> bool {
    for url in cluster.urls() {
        if url.kind != EngineKind::RedisSentinel {
            continue;
        }
        if let Ok(address) = ask_sentinel(&url, login).await {
            return address != *primary;
        }
    }
    false
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
