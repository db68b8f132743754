//! The messages of JetStream's API that this server sends and reads, in JSON.

use crate::cluster::{Append, Refusal, subject};
use crate::config::{Cluster, ClusterStorage};
use async_nats::HeaderMap;
use serde::{Deserialize, Serialize};

/// How long the engine knows the ids of entries, in nanoseconds. Longer than `cluster.hold_ms` can
/// be, in which an entry is sent again.
const DUPLICATES_NS: u64 = 20_000_000_000;

/// The value of a limit of a stream that does not limit anything.
const UNLIMITED: i64 = -1;

/// The headers with which an entry is sent.
pub(super) fn headers(append: &Append) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Msg-Id", append.id.as_str());
    if let Some(ttl_s) = append.ttl_s {
        headers.insert("Nats-TTL", format!("{ttl_s}s"));
    }
    if append.replaces {
        headers.insert("Nats-Rollup", "sub");
    }
    if let Some(expected) = append.expected {
        headers.insert("Nats-Expected-Last-Subject-Sequence", expected.to_string());
    }
    headers
}

/// The name of the stream of a cluster.
pub(super) fn stream_name(cluster: &Cluster) -> String {
    format!("{}-log", cluster.name)
}

/// The settings of a stream that this server makes, and compares. A server leaves out some of them
/// if they are not set.
#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
pub(super) struct StreamConfig {
    pub(super) name: String,
    #[serde(default)]
    pub(super) subjects: Vec<String>,
    pub(super) storage: String,
    pub(super) num_replicas: u16,
    pub(super) discard: String,
    pub(super) max_bytes: i64,
    pub(super) duplicate_window: u64,
    #[serde(default)]
    pub(super) allow_msg_ttl: bool,
    #[serde(default)]
    pub(super) allow_rollup_hdrs: bool,
    #[serde(default)]
    pub(super) max_age: u64,
    #[serde(flatten)]
    pub(super) unset: UnsetConfig,
}

/// The settings with which a stream would lose, change or refuse entries. Older releases do not
/// send them, and get the same stream.
#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub(super) struct UnsetConfig {
    /// What removes entries: "limits", that is only the limits of the stream.
    retention: String,
    /// The maximum number of entries; -1 if there is none.
    max_msgs: i64,
    /// The maximum number of entries of a subject; -1 if there is none.
    max_msgs_per_subject: i64,
    /// The maximum size of an entry in bytes; -1 if there is none besides that of the server.
    max_msg_size: i64,
    /// Whether entries are not acknowledged.
    no_ack: bool,
    /// Whether entries cannot be removed by subject.
    deny_purge: bool,
    /// Whether nothing can be stored.
    sealed: bool,
    /// The stream that this one repeats.
    mirror: Option<serde_json::Value>,
    /// The streams whose messages are taken, too.
    sources: Option<serde_json::Value>,
    /// How subjects are changed.
    subject_transform: Option<serde_json::Value>,
}

impl Default for UnsetConfig {
    fn default() -> UnsetConfig {
        UnsetConfig {
            retention: "limits".to_owned(),
            max_msgs: UNLIMITED,
            max_msgs_per_subject: UNLIMITED,
            max_msg_size: UNLIMITED,
            no_ack: false,
            deny_purge: false,
            sealed: false,
            mirror: None,
            sources: None,
            subject_transform: None,
        }
    }
}

impl StreamConfig {
    pub(super) fn new(cluster: &Cluster) -> StreamConfig {
        let storage = match cluster.storage {
            ClusterStorage::File => "file",
            ClusterStorage::Memory => "memory",
        };
        StreamConfig {
            name: stream_name(cluster),
            subjects: vec![subject::of_all(&cluster.name)],
            storage: storage.to_owned(),
            num_replicas: cluster.replicas,
            discard: "new".to_owned(),
            max_bytes: cluster.log_bytes as i64,
            duplicate_window: DUPLICATES_NS,
            allow_msg_ttl: true,
            allow_rollup_hdrs: true,
            max_age: 0,
            unset: UnsetConfig::default(),
        }
    }

    /// In what an existing stream differs from these settings, in words; `None` if it does not. The
    /// server accepts messages of up to `max_payload` bytes, so the stream may have a maximum that
    /// is not below that.
    pub(super) fn difference(&self, existing: &StreamConfig, max_payload: usize) -> Option<String> {
        let text = |it: &StreamConfig| serde_json::to_value(it).unwrap_or_default();
        let (ours, mut theirs) = (text(self), text(existing));
        let max_msg_size = usize::try_from(existing.unset.max_msg_size).ok();
        if max_msg_size.is_some_and(|bytes| bytes >= max_payload) {
            theirs["max_msg_size"] = UNLIMITED.into();
        }
        let (ours, theirs) = (ours.as_object()?, theirs.as_object()?);
        let differ = ours.iter().filter(|(key, value)| theirs.get(*key) != Some(*value));
        let words: Vec<String> = differ
            .map(|(key, value)| {
                let other = theirs.get(key).unwrap_or(&serde_json::Value::Null);
                format!("{key} is {other} there and must be {value}")
            })
            .collect();
        (!words.is_empty()).then(|| words.join("; "))
    }
}

/// The answer to most requests.
#[derive(Debug, Deserialize)]
pub(super) struct Reply<T> {
    pub(super) error: Option<ApiError>,
    #[serde(flatten)]
    pub(super) content: Option<T>,
}

/// An error of the API.
#[derive(Debug, Default, Deserialize)]
pub(super) struct ApiError {
    #[serde(default)]
    pub(super) code: u16,
    #[serde(default)]
    pub(super) err_code: u32,
    #[serde(default)]
    pub(super) description: String,
}

impl ApiError {
    /// No stream has this name.
    pub(super) const NO_STREAM: u32 = 10_059;
    /// The stream has its maximum size.
    const FULL: u32 = 10_077;
    /// The entry is larger than the stream accepts.
    const TOO_LARGE: u32 = 10_054;

    /// The last entry of the subject is not the expected one.
    const WRONG_LAST: u32 = 10_071;

    /// What the error says of the entry that it answers.
    pub(super) fn refusal(&self) -> Refusal {
        match self.err_code {
            ApiError::FULL | ApiError::TOO_LARGE => Refusal::Never,
            ApiError::WRONG_LAST => Refusal::Conflict,
            _ => Refusal::Later,
        }
    }
}

/// What is known of a stream.
#[derive(Debug, Deserialize)]
pub(super) struct StreamInfo {
    pub(super) config: StreamConfig,
    /// The time at which the stream was made.
    pub(super) created: String,
    pub(super) state: StreamState,
}

/// The content of a stream.
#[derive(Debug, Deserialize)]
pub(super) struct StreamState {
    pub(super) bytes: u64,
    pub(super) last_seq: u64,
}

/// The acknowledgement of an entry.
#[derive(Debug, Deserialize)]
pub(super) struct Acknowledgement {
    #[serde(default)]
    pub(super) seq: u64,
    pub(super) error: Option<ApiError>,
}

/// The request for a consumer that delivers the stream from a position on, without
/// acknowledgements, and that ends when nobody has asked it for ten seconds.
pub(super) fn consumer(stream: &str, name: &str, after: u64) -> serde_json::Value {
    let mut config = serde_json::json!({
        "name": name,
        "ack_policy": "none",
        "replay_policy": "instant",
        "deliver_policy": "all",
        "mem_storage": true,
        "num_replicas": 1,
        "inactive_threshold": 10_000_000_000u64,
        "max_waiting": 8,
    });
    if after > 0 {
        config["deliver_policy"] = "by_start_sequence".into();
        config["opt_start_seq"] = (after + 1).into();
    }
    serde_json::json!({ "stream_name": stream, "config": config, "action": "create" })
}

/// What a consumer has made known.
#[derive(Debug, Deserialize)]
pub(super) struct ConsumerInfo {
    #[serde(default)]
    pub(super) num_pending: u64,
}

/// The place of a delivered entry, from its reply subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Delivered {
    /// Its sequence number in the stream.
    pub(super) sequence: u64,
    /// Its number among the deliveries of the consumer.
    pub(super) number: u64,
    /// When it was stored, in milliseconds of Unix time.
    pub(super) stored_ms: u64,
    /// The number of later entries that were not delivered yet.
    pub(super) pending: u64,
}

impl Delivered {
    /// Reads `$JS.ACK.STREAM.CONSUMER.COUNT.SEQUENCE.NUMBER.TIME.PENDING`; newer servers have a
    /// domain and an account in front of the stream's name, and one more token at the end.
    pub(super) fn read(reply: &str) -> Option<Delivered> {
        let tokens: Vec<&str> = reply.split('.').collect();
        let from = match (tokens.len(), tokens.first(), tokens.get(1)) {
            (9, Some(&"$JS"), Some(&"ACK")) => 5,
            (11.., Some(&"$JS"), Some(&"ACK")) => 7,
            _ => return None,
        };
        let number = |at: usize| tokens.get(from + at)?.parse::<u64>().ok();
        let (sequence, place, ns) = (number(0)?, number(1)?, number(2)?);
        Some(Delivered { sequence, number: place, stored_ms: ns / 1_000_000, pending: number(3)? })
    }
}

/// What an entry has besides its event: the names of the event, its channel and its subject, the
/// key, and the headers of NATS, in bytes.
const BESIDES_BYTES: usize = 2048;

/// What is wrong with the maximum size of an entry, if the largest event has so many bytes: with a
/// quarter more for escapes it must fit.
pub(super) fn too_small(max_payload: usize, event_bytes: usize) -> Option<String> {
    let needed = event_bytes + event_bytes / 4 + BESIDES_BYTES;
    (max_payload < needed).then(|| {
        format!(
            "max_payload is {max_payload}, but an event of limits.event_bytes = {event_bytes} may \
             need {needed}; larger entries are refused, with 503"
        )
    })
}

/// Whether a server of this version has all that is needed: time to live of single messages.
pub(super) fn is_new_enough(version: &str) -> bool {
    let mut numbers = version.split(['.', '-']).map(|it| it.parse::<u32>().unwrap_or(0));
    let (major, minor) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    (major, minor) >= (2, 11)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_delivery_is_read_from_both_forms_of_its_reply() {
        let expected =
            Some(Delivered { sequence: 7, number: 3, stored_ms: 1_700_000_000_123, pending: 4 });
        let short = "$JS.ACK.polycast-log.c.1.7.3.1700000000123456789.4";
        assert_eq!(Delivered::read(short), expected);
        let long = "$JS.ACK._.hash.polycast-log.c.1.7.3.1700000000123456789.4.random";
        assert_eq!(Delivered::read(long), expected);
        for bad in ["", "_INBOX.a", "$JS.ACK.s.c.1.x.3.4.5", "$JS.ACK.s.c.1.7.3"] {
            assert_eq!(Delivered::read(bad), None, "{bad}");
        }
    }

    #[test]
    fn cluster_doctor_warns_if_the_largest_event_may_not_fit() {
        let needed = 8000 + 2000 + BESIDES_BYTES;
        assert_eq!(too_small(needed, 8000), None);
        let warning = too_small(needed - 1, 8000).expect("it is too small");
        assert!(warning.contains("event_bytes = 8000 may need 12048"), "{warning}");
    }

    #[test]
    fn cluster_engine_must_have_version_2_11() {
        for (version, is_enough) in [
            ("2.11.0", true),
            ("2.15.1", true),
            ("3.0.0-RC.1", true),
            ("2.10.29", false),
            ("2.9.10", false),
            ("", false),
        ] {
            assert_eq!(is_new_enough(version), is_enough, "{version}");
        }
    }

    #[test]
    fn cluster_stream_with_other_settings_is_named() {
        let mut cluster = Cluster::default();
        let ours = StreamConfig::new(&cluster);
        assert_eq!(ours.difference(&StreamConfig::new(&cluster), MAX_PAYLOAD), None);
        cluster.storage = ClusterStorage::Memory;
        let words = ours.difference(&StreamConfig::new(&cluster), MAX_PAYLOAD);
        let expected = "storage is \"memory\" there and must be \"file\"";
        assert_eq!(words.as_deref(), Some(expected));
    }

    const MAX_PAYLOAD: usize = 1 << 20;

    /// The stream of the default configuration, as servers of the versions 2.11.11 and 2.15.1
    /// report it, with these settings in place of theirs.
    fn reported(settings: serde_json::Value) -> StreamConfig {
        let mut config = serde_json::json!({
            "name": "polycast-log", "subjects": ["polycast.i.>"], "retention": "limits",
            "max_consumers": -1, "max_msgs": -1, "max_bytes": 1 << 30, "max_age": 0,
            "max_msgs_per_subject": -1, "max_msg_size": -1, "discard": "new", "storage": "file",
            "num_replicas": 1, "duplicate_window": DUPLICATES_NS, "compression": "none",
            "allow_direct": false, "mirror_direct": false, "sealed": false, "deny_delete": false,
            "deny_purge": false, "allow_rollup_hdrs": true, "consumer_limits": {},
            "allow_msg_ttl": true, "metadata": { "_nats.level": "1" },
        });
        for (key, value) in settings.as_object().expect("settings") {
            config[key] = value.clone();
        }
        serde_json::from_value(config).expect("a stream")
    }

    #[test]
    fn cluster_stream_that_would_lose_or_refuse_entries_is_named() {
        let ours = StreamConfig::new(&Cluster::default());
        let difference = |settings| ours.difference(&reported(settings), MAX_PAYLOAD);
        for same in [
            serde_json::json!({}),
            serde_json::json!({ "max_msg_size": MAX_PAYLOAD, "compression": "s2" }),
            serde_json::json!({ "no_ack": false, "mirror": null, "sources": null }),
        ] {
            assert_eq!(difference(same.clone()), None, "{same}");
        }
        for (key, value, ours) in [
            ("retention", "interest".into(), "\"limits\""),
            ("max_msgs", 1_000_000.into(), "-1"),
            ("max_msgs_per_subject", 1.into(), "-1"),
            ("max_msg_size", (MAX_PAYLOAD - 1).into(), "-1"),
            ("no_ack", true.into(), "false"),
            ("deny_purge", true.into(), "false"),
            ("sealed", true.into(), "false"),
            ("mirror", serde_json::json!({ "name": "another" }), "null"),
            ("sources", serde_json::json!([{ "name": "another" }]), "null"),
            ("subject_transform", serde_json::json!({ "src": ">", "dest": "a.>" }), "null"),
        ] {
            let words = difference(serde_json::json!({ key: value }));
            let expected = format!("{key} is {value} there and must be {ours}");
            assert_eq!(words, Some(expected));
        }
    }

    #[test]
    fn cluster_append_that_is_refused_for_good_is_known() {
        let of = |err_code| ApiError { err_code, ..ApiError::default() };
        let refusals = [10_077, 10_054, 10_071, 10_008].map(|code| of(code).refusal());
        assert_eq!(refusals, [Refusal::Never, Refusal::Never, Refusal::Conflict, Refusal::Later]);
    }

    #[test]
    fn cluster_consumer_begins_after_a_position() {
        let first = consumer("s", "n", 0);
        assert_eq!(first["config"]["deliver_policy"], "all");
        let later = consumer("s", "n", 41);
        assert_eq!(later["config"]["opt_start_seq"], 42);
    }
}
