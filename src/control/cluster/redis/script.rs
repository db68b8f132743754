//! The names of the keys, the scripts that run on the server, and their answers.
//!
//! A script is known by its digest, so nodes of different releases can each use their own.

use super::link::RequestFailure;
use crate::cluster::{Append, Refusal};
use crate::config::{Cluster, ClusterAcks};
use crate::crypto;
use redis::{Cmd, Value, cmd};
use std::sync::LazyLock;

/// How long the id of an entry is known, in milliseconds. Longer than `cluster.hold_ms` can be, in
/// which an entry is sent again.
const REPEAT_MS: u64 = 20_000;

const COMMON: &str = include_str!("common.lua");
/// What expires or is removed makes room, so it needs none.
const WITHOUT_MEMORY: &str = "#!lua flags=allow-oom\n";

/// A script and the digest by which the server knows it.
pub(super) struct Script {
    text: String,
    digest: String,
}

impl Script {
    fn new(first_line: &str, text: &str) -> Script {
        let text = format!("{first_line}{COMMON}{text}");
        let digest: [u8; 40] = crypto::hex(&crypto::sha1(text.as_bytes()));
        let digest = digest.iter().copied().map(char::from).collect();
        Script { text, digest }
    }

    /// The command that makes the server know the script.
    pub(super) fn load(&self) -> Cmd {
        let mut load = cmd("SCRIPT");
        load.arg("LOAD").arg(&self.text);
        load
    }

    /// The text that the server runs.
    #[cfg(test)]
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The command that runs the script, without its keys and arguments.
    fn run(&self, keys: &[&str]) -> Cmd {
        let mut run = cmd("EVALSHA");
        run.arg(&self.digest).arg(keys.len()).arg(keys);
        run
    }
}

/// All scripts.
pub(super) struct Scripts {
    append: Script,
    attach: Script,
    expire: Script,
    purge: Script,
}

impl Scripts {
    pub(super) fn all(&self) -> [&Script; 4] {
        [&self.append, &self.attach, &self.expire, &self.purge]
    }
}

pub(super) static SCRIPTS: LazyLock<Scripts> = LazyLock::new(|| Scripts {
    append: Script::new("", include_str!("append.lua")),
    attach: Script::new("", include_str!("attach.lua")),
    expire: Script::new(WITHOUT_MEMORY, include_str!("expire.lua")),
    purge: Script::new(WITHOUT_MEMORY, include_str!("purge.lua")),
});

/// The names of the keys of a cluster. All have one hash tag, so that they lie on one server.
pub(super) struct Keys {
    pub(super) meta: String,
    pub(super) log: String,
    pub(super) kept: String,
    ends: String,
    marks: String,
    runs: String,
    subjects: String,
    ids: String,
}

/// What a node knows of the log when it begins a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// The epoch, 0 for none.
    pub(super) epoch: u64,
    /// The tag of the run of the server in which the node last began.
    pub(super) run: u64,
    /// The highest sequence number that was delivered or acknowledged.
    pub(super) seen: u64,
}

/// The state of the log when a connection begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LogState {
    pub(super) epoch: u64,
    /// The last sequence number.
    pub(super) last: u64,
    /// The tag of the run of the server.
    pub(super) run: u64,
}

impl Keys {
    /// The keys of the cluster `name`.
    pub(super) fn new(name: &str) -> Keys {
        let key = |rest: &str| format!("{{{name}}}:{rest}");
        Keys {
            meta: key("meta"),
            log: key("log"),
            kept: key("kept"),
            ends: key("ends"),
            marks: key("marks"),
            runs: key("runs"),
            subjects: key("subject:"),
            ids: key("id:"),
        }
    }

    /// The keys that every script has.
    fn common(&self) -> [&str; 5] {
        [&self.meta, &self.log, &self.kept, &self.ends, &self.marks]
    }

    /// One key of each kind; of those that subjects and ids have, the ones of this subject and this
    /// id.
    pub(super) fn of_all_kinds(&self, subject: &str, id: &str) -> Vec<String> {
        let mut keys = self.common().map(str::to_owned).to_vec();
        let of_entries = [format!("{}{subject}", self.subjects), format!("{}{id}", self.ids)];
        keys.push(self.runs.clone());
        keys.extend(of_entries);
        keys
    }

    fn with(&self, script: &Script, more: &[&str]) -> Cmd {
        script.run(&[&self.common()[..], more].concat())
    }

    /// Stores an entry.
    pub(super) fn append(&self, append: &Append, epoch: u64, cluster: &Cluster) -> Cmd {
        let subject = format!("{}{}", self.subjects, append.subject);
        let id = format!("{}{}", self.ids, append.id);
        let mut run = self.with(&SCRIPTS.append, &[&subject, &id]);
        let text = |number: Option<u64>| number.map_or(String::new(), |it| it.to_string());
        run.arg(epoch)
            .arg(text(append.ttl_s.map(|it| it.saturating_mul(1000))))
            .arg(u8::from(append.replaces))
            .arg(text(append.expected))
            .arg(cluster.keep_s * 1000)
            .arg(cluster.log_bytes)
            .arg(REPEAT_MS)
            .arg(u8::from(cluster.acks == ClusterAcks::Replica))
            .arg(&append.body);
        run
    }

    /// Asks for the state of the log; makes it if there is none. `run_id` is the server's name for
    /// its run; `drawn` is a random number for what is new.
    pub(super) fn attach(&self, known: Known, run_id: &str, drawn: u64) -> Cmd {
        let mut run = self.with(&SCRIPTS.attach, &[&self.runs]);
        run.arg(known.epoch).arg(known.run).arg(known.seen).arg(run_id).arg(drawn);
        run
    }

    /// Removes what has expired.
    pub(super) fn expire(&self, cluster: &Cluster) -> Cmd {
        let mut run = self.with(&SCRIPTS.expire, &[]);
        run.arg(cluster.keep_s * 1000);
        run
    }

    /// Removes the entries of the subject with this key.
    pub(super) fn purge(&self, subject: &str) -> Cmd {
        self.with(&SCRIPTS.purge, &[subject])
    }

    /// Asks for the keys of subjects that begin with these tokens, from a cursor on. Tokens have no
    /// wildcards.
    pub(super) fn scan(&self, tokens: &str, cursor: u64) -> Cmd {
        let mut scan = cmd("SCAN");
        let pattern = format!("{}{tokens}.*", self.subjects);
        scan.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(1000);
        scan
    }
}

/// What the server has done with an entry.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Stored(u64),
    Refused(Refusal),
    /// The log is another one than the node knows, or the server does not know the script: the
    /// entry was not stored, and the connection is to begin again.
    Changed,
    /// The server is not the primary of the log any more.
    Moved(String),
}

/// Reads the answer to an append.
pub(super) fn outcome(answer: Result<Value, RequestFailure>) -> Outcome {
    let value = match answer {
        Ok(value) => value,
        Err(RequestFailure::Refused { code, text }) => return refusal(&code, text),
        Err(RequestFailure::Lost(text)) => return Outcome::Moved(text),
    };
    let words = match value {
        Value::Array(words) => words,
        _ => Vec::new(),
    };
    match (words.first().and_then(text), words.get(1).and_then(number)) {
        (Some("stored"), Some(sequence)) => Outcome::Stored(sequence),
        (Some("conflict"), _) => Outcome::Refused(Refusal::Conflict),
        (Some("full"), _) => Outcome::Refused(Refusal::Never),
        _ => Outcome::Changed,
    }
}

/// What an error of the server says of the entry that it answers.
fn refusal(code: &str, text: String) -> Outcome {
    match code {
        "OOM" => Outcome::Refused(Refusal::Never),
        "NOSCRIPT" => Outcome::Changed,
        "READONLY" | "MOVED" | "ASK" | "NOAUTH" | "NOPERM" | "UNBLOCKED" => Outcome::Moved(text),
        // A script that is too slow, a disk that is full, a cluster or replicas that are missing.
        _ => Outcome::Refused(Refusal::Later),
    }
}

/// Whether an error of the server says that it does not write now, but may a little later.
pub(super) fn is_temporary(code: &str) -> bool {
    refusal(code, String::new()) == Outcome::Refused(Refusal::Later)
}

/// A text in an answer.
pub(super) fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

/// A number in an answer, as which scripts write it or as a text.
pub(super) fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        value => text(value)?.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn cluster_redis_outcomes_of_an_append() {
        let of = |words: &[&str]| {
            outcome(Ok(Value::Array(words.iter().map(|word| bulk(word)).collect())))
        };
        assert_eq!(of(&["stored", "41"]), Outcome::Stored(41));
        assert_eq!(of(&["conflict"]), Outcome::Refused(Refusal::Conflict));
        assert_eq!(of(&["full"]), Outcome::Refused(Refusal::Never));
        for words in [&["epoch"][..], &[], &["stored"], &["stored", "x"]] {
            assert_eq!(of(words), Outcome::Changed, "{words:?}");
        }
        let refused = |code: &str| {
            outcome(Err(RequestFailure::Refused { code: code.to_owned(), text: code.to_owned() }))
        };
        assert_eq!(refused("OOM"), Outcome::Refused(Refusal::Never));
        assert_eq!(refused("NOSCRIPT"), Outcome::Changed);
        for code in ["MISCONF", "NOREPLICAS", "BUSY", "CLUSTERDOWN", "TRYAGAIN", "LOADING"] {
            assert_eq!(refused(code), Outcome::Refused(Refusal::Later), "{code}");
            assert!(is_temporary(code), "{code}");
        }
        for code in ["READONLY", "MOVED", "NOAUTH"] {
            assert_eq!(refused(code), Outcome::Moved(code.to_owned()));
        }
        for code in ["READONLY", "NOAUTH", "NOPERM", "NOSCRIPT", "OOM"] {
            assert!(!is_temporary(code), "{code}");
        }
    }

    #[test]
    fn cluster_redis_keys_have_one_hash_tag() {
        let keys = Keys::new("p");
        let append = Append {
            number: 1,
            subject: "p.i.1.a".to_owned(),
            id: "0f-1".to_owned(),
            ttl_s: None,
            replaces: true,
            expected: Some(0),
            body: b"body".to_vec(),
        };
        let packed = keys.append(&append, 7, &Cluster::default()).get_packed_command();
        let packed = String::from_utf8(packed).expect("text");
        let words: Vec<&str> = packed.split("\r\n").filter(|it| !it.starts_with('$')).collect();
        let expected = [
            "7",
            "{p}:meta",
            "{p}:log",
            "{p}:kept",
            "{p}:ends",
            "{p}:marks",
            "{p}:subject:p.i.1.a",
            "{p}:id:0f-1",
            "7",
            "",
            "1",
            "0",
            "60000",
            "1073741824",
            "20000",
            "0",
            "body",
            "",
        ];
        assert_eq!(words[3..], expected);
    }
}
