//! What a server says of itself.

use crate::config::EngineKind;

/// The answer to `INFO`.
#[derive(Debug, Default)]
pub(super) struct ServerInfo {
    lines: Vec<(String, String)>,
}

impl ServerInfo {
    pub(super) fn read(text: &str) -> ServerInfo {
        let lines = text.lines().filter_map(|line| line.split_once(':'));
        let lines = lines.map(|(key, value)| (key.to_owned(), value.trim().to_owned()));
        ServerInfo { lines: lines.collect() }
    }

    /// The value of a field; empty if there is none.
    pub(super) fn get(&self, key: &str) -> &str {
        self.lines.iter().find(|(it, _)| it == key).map_or("", |(_, value)| value)
    }

    /// The product and its version.
    pub(super) fn product(&self) -> String {
        match self.get("valkey_version") {
            "" => format!("Redis {}", self.get("redis_version")),
            version => format!("Valkey {version}"),
        }
    }

    /// What differs after a restart and after a fail-over, when entries may have been lost.
    pub(super) fn run_id(&self) -> &str {
        self.get("run_id")
    }

    pub(super) fn is_primary(&self) -> bool {
        self.get("role") == "master"
    }

    /// Why a node cannot use the server.
    pub(super) fn problem(&self, kind: EngineKind) -> Option<String> {
        // Valkey says with which version of Redis it is compatible.
        let version = self.get("redis_version");
        let major = version.split('.').next().and_then(|it| it.parse::<u32>().ok());
        if major.unwrap_or(0) < 7 {
            let product = self.product();
            return Some(format!("the engine is {product}, but version 7.0 or newer is needed"));
        }
        let policy = self.get("maxmemory_policy");
        if policy != "noeviction" {
            return Some(format!(
                "the engine's maxmemory-policy is {policy}, with which it may remove entries of \
                 the log; it must be noeviction"
            ));
        }
        // Valkey has renamed the field.
        let is_cluster = ["redis_mode", "server_mode"].iter().any(|it| self.get(it) == "cluster");
        match (is_cluster, kind == EngineKind::RedisCluster) {
            (true, false) => {
                Some("the engine is a Redis Cluster: write redis+cluster:// in `engine`".to_owned())
            }
            (false, true) => {
                Some("the engine is no Redis Cluster: write redis:// in `engine`".to_owned())
            }
            _ => None,
        }
    }

    /// What could be better for a log of at most `log_bytes` bytes, in one line each.
    pub(super) fn warnings(&self, log_bytes: u64) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.get("aof_enabled") == "0" {
            let text = "appendonly is off, so a restart loses the log, or goes back to an old dump";
            warnings.push(text.to_owned());
        }
        let needed = log_bytes.saturating_add(log_bytes / 4);
        // 0 is no limit.
        let max = self.get("maxmemory").parse::<u64>().ok().filter(|max| *max > 0);
        if let Some(max) = max.filter(|max| *max < needed) {
            warnings.push(format!(
                "maxmemory is {max}, but cluster.log_bytes = {log_bytes} may need {needed} bytes; \
                 at its maximum the engine stores nothing, also no renewals of nodes"
            ));
        }
        warnings
    }
}

/// The command whose answer this is.
pub(super) fn command() -> redis::Cmd {
    let mut info = redis::cmd("INFO");
    info.arg(&["server", "replication", "memory", "persistence"]);
    info
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: &str = "# Server\r\nredis_version:7.0.15\r\nredis_mode:standalone\r\n\
        run_id:aa\r\n# Replication\r\nrole:master\r\n\
        # Memory\r\nmaxmemory_policy:noeviction\r\n# Persistence\r\naof_enabled:1\r\n";

    #[test]
    fn cluster_redis_server_that_can_be_used() {
        let info = ServerInfo::read(SERVER);
        assert_eq!(info.product(), "Redis 7.0.15");
        assert_eq!(info.run_id(), "aa");
        assert!(info.is_primary());
        assert_eq!(info.problem(EngineKind::Redis), None);
        assert_eq!(info.problem(EngineKind::RedisSentinel), None);
        assert!(info.warnings(1 << 30).is_empty());
        let valkey = ServerInfo::read("redis_version:7.2.4\r\nvalkey_version:9.1.2\r\n");
        assert_eq!(valkey.product(), "Valkey 9.1.2");
    }

    #[test]
    fn cluster_redis_server_that_cannot_be_used() {
        for (old, new, kind, part) in [
            ("7.0.15", "6.2.14", EngineKind::Redis, "Redis 6.2.14, but version 7.0"),
            ("noeviction", "allkeys-lru", EngineKind::Redis, "maxmemory-policy is allkeys-lru"),
            ("standalone", "cluster", EngineKind::Redis, "redis+cluster://"),
            ("7.0.15", "7.0.15", EngineKind::RedisCluster, "redis://"),
        ] {
            let info = ServerInfo::read(&SERVER.replace(old, new));
            let problem = info.problem(kind).unwrap_or_default();
            assert!(problem.contains(part), "{new}: {problem}");
        }
        let cluster = ServerInfo::read(&SERVER.replace("standalone", "cluster"));
        assert_eq!(cluster.problem(EngineKind::RedisCluster), None);
        let valkey = SERVER.replace("redis_mode:standalone", "server_mode:cluster");
        assert_eq!(ServerInfo::read(&valkey).problem(EngineKind::RedisCluster), None);
        assert!(!ServerInfo::read(&SERVER.replace("master\r", "slave\r")).is_primary());
        let warnings = ServerInfo::read(&SERVER.replace("enabled:1", "enabled:0")).warnings(1000);
        assert!(warnings[0].contains("appendonly is off"));
    }

    #[test]
    fn cluster_redis_server_with_too_little_memory_is_warned_of() {
        let warnings = |max: &str, log_bytes| {
            let line = format!("# Memory\r\nmaxmemory:{max}\r\n");
            ServerInfo::read(&SERVER.replace("# Memory\r\n", &line)).warnings(log_bytes)
        };
        for enough in ["0", "1250", "1251", "", "18446744073709551615"] {
            assert_eq!(warnings(enough, 1000), Vec::<String>::new(), "{enough}");
        }
        for small in ["1", "1000", "1249"] {
            let expected = format!("maxmemory is {small}, but cluster.log_bytes = 1000 may need");
            let warnings = warnings(small, 1000);
            assert!(warnings.len() == 1 && warnings[0].contains(&expected), "{warnings:?}");
            assert!(warnings[0].contains("may need 1250 bytes"), "{warnings:?}");
        }
        assert_eq!(warnings("1", u64::MAX).len(), 1);
    }
}
