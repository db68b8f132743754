//! The settings that all nodes of a cluster should have the same.

use crate::config::{AppConfig, AppHistory, AppLimits, ChannelLink, Config, LinkEnd};
use crate::crypto::sha256;

/// A digest of these settings: times of the cluster, and of each application the id, the key and
/// what all nodes keep or bound of it; and the links.
pub(super) fn digest(config: &Config) -> u64 {
    let cluster = config.cluster.as_ref();
    let times = cluster.map(|it| [it.keep_s, it.history_s, it.dead_ms, it.drain_linger_ms]);
    let mut words: Vec<String> = times.iter().flatten().map(u64::to_string).collect();
    let mut apps: Vec<_> = config.apps.iter().map(words_of_app).collect();
    apps.sort_unstable();
    words.extend(apps.into_iter().flatten());
    let mut links: Vec<_> = config.links.iter().map(words_of_link).collect();
    links.sort_unstable();
    let links = links.iter().flatten().copied();
    let words = words.iter().map(String::as_str).chain(links);
    let parts: Vec<_> = words.flat_map(|word| [word.as_bytes(), b"\0"]).collect();
    let digest = sha256(&parts);
    digest.iter().take(8).fold(0, |bits, byte| bits << 8 | u64::from(*byte))
}

fn words_of_app(app: &AppConfig) -> Vec<String> {
    let AppLimits { connections, presence_members, cache_ttl_s, .. } = app.limits;
    let AppLimits { idempotency_keys, idempotency_bytes, .. } = app.limits;
    let limits = [connections, presence_members, idempotency_keys, idempotency_bytes];
    let mut words = vec![app.id.to_string(), app.key.to_string(), cache_ttl_s.to_string()];
    words.extend(limits.map(|limit| limit.to_string()));
    for history in &app.history {
        let AppHistory { channels, events, bytes, ttl_s, client_events, rewind } = history;
        words.extend(channels.iter().map(|channel| channel.as_str().to_owned()));
        words.push(format!("{events} {bytes} {ttl_s} {client_events} {rewind}"));
    }
    words
}

/// The texts of a link, end by end: the order of the views has no meaning.
fn words_of_link(link: &ChannelLink) -> Vec<&str> {
    let words = |end| {
        let LinkEnd { app, channel, zenith, reflect, path, event, publish }: &LinkEnd = end;
        let publish = if *publish { "publish" } else { "" };
        [&**app, channel, zenith, reflect, path, event, publish]
    };
    let mut views: Vec<_> = link.views.iter().map(words).collect();
    views.sort_unstable();
    std::iter::once(words(&link.source)).chain(views).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Cluster, FileFormat};

    fn digest_of(links: &str) -> u64 {
        let apps = ["1", "2"]
            .map(|id| format!("[[apps]]\nid = '{id}'\nkey = 'k{id}'\nsecret = 's'\n"))
            .concat();
        digest(&config_of(&(apps + links)))
    }

    fn config_of(text: &str) -> Config {
        let config = Config::parse_with(text, FileFormat::Toml, "f", &|_| None);
        config.expect("a configuration")
    }

    #[test]
    fn cluster_node_digest_differs_if_links_do_and_not_by_their_order() {
        let link = |source: &str, views: &str| {
            format!("[[links]]\nsource = {{ app = '1', {source} }}\nviews = [{views}]\n")
        };
        let (one, two) = (
            link("channel = 'a'", "{ app = '2', channel = 'b' }"),
            link("channel = 'c'", "{ app = '2', channel = 'd' }"),
        );
        let digest = digest_of(&format!("{one}{two}"));
        assert_eq!(digest_of(&format!("{two}{one}")), digest);
        let named = link("channel = 'a', event = 'x'", "{ app = '2', channel = 'b' }");
        let may_publish = link("channel = 'a'", "{ app = '2', channel = 'b', publish = true }");
        for other in [String::new(), one, format!("{named}{two}"), format!("{may_publish}{two}")] {
            assert_ne!(digest_of(&other), digest, "{other}");
        }
    }

    #[test]
    fn cluster_node_digest_differs_if_what_is_kept_or_bounded_does() {
        let digest_with = |cluster: Cluster, app: &str| {
            let text = format!("[[apps]]\nid = '1'\nkey = 'k'\nsecret = 's'\n{app}\n");
            let config = config_of(&text);
            digest(&Config { cluster: Some(Box::new(cluster)), ..config })
        };
        let default = Cluster::default;
        let clusters = [
            default(),
            Cluster { keep_s: 61, ..default() },
            Cluster { history_s: 3601, ..default() },
            Cluster { dead_ms: 5001, ..default() },
            Cluster { drain_linger_ms: 10_001, ..default() },
        ];
        let apps = [
            "limits.connections = 9",
            "limits.presence_members = 99",
            "limits.cache_ttl_s = 9",
            "limits.idempotency_keys = 9",
            "limits.idempotency_bytes = 2048",
            "[[apps.history]]\nchannels = ['a']",
            "[[apps.history]]\nchannels = ['b']",
            "[[apps.history]]\nchannels = ['b']\nttl_s = 9",
        ];
        let mut digests: Vec<_> = clusters.map(|cluster| digest_with(cluster, "")).into();
        digests.extend(apps.map(|app| digest_with(default(), app)));
        let different: std::collections::BTreeSet<_> = digests.iter().collect();
        assert_eq!(different.len(), digests.len());
        // What each node may have of its own.
        let own = digest_with(Cluster { hold_ms: 9000, ..default() }, "limits.channels = 9");
        assert_eq!(own, digests[0]);
    }
}
