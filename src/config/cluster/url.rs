//! The URLs of engines.

use crate::parts::OptionalPart;
use std::net::Ipv6Addr;

/// What an engine is, and how its servers are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineKind {
    /// NATS JetStream.
    Nats,
    /// Redis or Valkey, of which the URLs name the server.
    Redis,
    /// Redis or Valkey, of which Sentinel names the server.
    RedisSentinel,
    /// Redis Cluster or Valkey Cluster, of which any server names the one that has the log.
    RedisCluster,
}

impl EngineKind {
    /// The part of the server that uses it.
    pub fn part(self) -> OptionalPart {
        match self {
            EngineKind::Nats => OptionalPart::ClusterNats,
            _ => OptionalPart::ClusterRedis,
        }
    }

    /// Whether it is Redis or Valkey.
    pub fn is_redis(self) -> bool {
        self != EngineKind::Nats
    }
}

/// The URL of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineUrl {
    /// What the server is part of.
    pub kind: EngineKind,
    /// Whether connections use TLS.
    pub is_tls: bool,
    /// The name or the address of the server, an IPv6 address without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The name by which Sentinel knows the primary; empty for other kinds.
    pub primary: String,
}

/// The schemes of URLs: what the server is part of, and whether it uses TLS.
const SCHEMES: [(&str, EngineKind, bool); 8] = [
    ("nats", EngineKind::Nats, false),
    ("tls", EngineKind::Nats, true),
    ("redis", EngineKind::Redis, false),
    ("rediss", EngineKind::Redis, true),
    ("redis+sentinel", EngineKind::RedisSentinel, false),
    ("rediss+sentinel", EngineKind::RedisSentinel, true),
    ("redis+cluster", EngineKind::RedisCluster, false),
    ("rediss+cluster", EngineKind::RedisCluster, true),
];

impl EngineUrl {
    /// The accepted URLs, for errors.
    pub(super) const ACCEPTED: &str = "nats://HOST:PORT, tls://HOST:PORT, redis://HOST:PORT, \
        rediss://HOST:PORT, redis+sentinel://HOST:PORT/MASTER or redis+cluster://HOST:PORT, \
        without user and path; `user`, `password` and `token` are keys of their own";

    /// Reads a URL: a scheme, a host, a port, and for Sentinel the name of the primary.
    pub fn parse(url: &str) -> Option<EngineUrl> {
        let (scheme, rest) = url.split_once("://")?;
        let (_, kind, is_tls) = SCHEMES.into_iter().find(|(name, ..)| *name == scheme)?;
        let (server, primary) = match kind {
            EngineKind::RedisSentinel => rest.split_once('/')?,
            _ => (rest, ""),
        };
        let (host, port) = server.rsplit_once(':')?;
        let plain = |text: &str, more: &[u8]| {
            !text.is_empty()
                && text.bytes().all(|it| it.is_ascii_alphanumeric() || more.contains(&it))
        };
        let v6 = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
        let v6 = v6.filter(|it| it.parse::<Ipv6Addr>().is_ok());
        let host = v6.or_else(|| plain(host, b"_.-").then_some(host))?;
        let port = port.bytes().all(|it| it.is_ascii_digit()).then(|| port.parse().ok())??;
        if kind == EngineKind::RedisSentinel && !plain(primary, b"_.-:") {
            return None;
        }
        Some(EngineUrl { kind, is_tls, host: host.to_owned(), port, primary: primary.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_config_urls_are_read() {
        let of = |kind, is_tls, host: &str, primary: &str| {
            let (host, primary) = (host.to_owned(), primary.to_owned());
            Some(EngineUrl { kind, is_tls, host, port: 6379, primary })
        };
        for (url, expected) in [
            ("nats://a:6379", of(EngineKind::Nats, false, "a", "")),
            ("tls://a.b-c:6379", of(EngineKind::Nats, true, "a.b-c", "")),
            ("redis://10.0.0.1:6379", of(EngineKind::Redis, false, "10.0.0.1", "")),
            ("rediss://[::1]:6379", of(EngineKind::Redis, true, "::1", "")),
            ("redis+sentinel://a:6379/m-1", of(EngineKind::RedisSentinel, false, "a", "m-1")),
            ("rediss+sentinel://a:6379/m", of(EngineKind::RedisSentinel, true, "a", "m")),
            ("redis+cluster://a:6379", of(EngineKind::RedisCluster, false, "a", "")),
            ("rediss+cluster://a:6379", of(EngineKind::RedisCluster, true, "a", "")),
        ] {
            assert_eq!(EngineUrl::parse(url), expected, "{url}");
        }
        for url in [
            "a:6379",
            "http://a:6379",
            "redis://a",
            "redis://:6379",
            "redis://a:65536",
            "redis://a:+1",
            "redis://u:p@a:6379",
            "redis://a:6379/0",
            "redis://[::g]:6379",
            "redis+sentinel://a:6379",
            "redis+sentinel://a:6379/",
            "redis+sentinel://a:6379/m/n",
            "redis+cluster://a:6379/m",
        ] {
            assert_eq!(EngineUrl::parse(url), None, "{url}");
        }
    }
}
