//! The permissions that the user of a node lacks, as `polycast doctor` names them.
//!
//! A node uses some commands only after hours, for instance when another node has died, and Redis
//! names only the first one that it refuses. So each command is tried, with arguments with which it
//! changes nothing: permissions are checked before all arguments but their number.

use super::link::{Login, REQUEST, RequestFailure, ServerLink};
use super::primary;
use super::script::Keys;
use crate::cluster::subject;
use crate::config::{Cluster, ClusterAcks, EngineKind};
use redis::Cmd;
use std::collections::BTreeSet;

/// A command as access rules name it, and its arguments. KEY is a key that does not exist, ALL are
/// all keys with their number before them.
type Trial = (&'static str, &'static str);

/// The commands of a node that leave nothing with these arguments.
const TRIALS: [Trial; 28] = [
    ("info", "server"),
    // This is no script, so the server does not keep it.
    ("script|load", "("),
    // No script has this digest. What a script may do with its keys must be permitted whole.
    ("evalsha", "0000000000000000000000000000000000000000 ALL"),
    ("xread", "COUNT 1 STREAMS KEY 0-0"),
    ("xrange", "KEY - + COUNT 1"),
    ("xadd", "KEY NOMKSTREAM * e none"),
    ("xdel", "KEY 1-0"),
    ("xtrim", "KEY MINID 0"),
    ("zadd", "KEY XX 0 none"),
    ("zrem", "KEY none"),
    ("zrangebyscore", "KEY 0 0"),
    ("zremrangebyscore", "KEY 0 0"),
    ("hget", "KEY none"),
    ("hmget", "KEY none"),
    // A field without a value.
    ("hset", "KEY none none none"),
    ("hincrby", "KEY none no-number"),
    ("get", "KEY"),
    ("mget", "KEY"),
    ("set", "KEY none XX"),
    ("pttl", "KEY"),
    ("unlink", "KEY"),
    ("lindex", "KEY 0"),
    ("lset", "KEY 0 none"),
    ("lrange", "KEY 0 0"),
    ("ltrim", "KEY 0 0"),
    ("lpop", "KEY"),
    ("time", ""),
    ("scan", "0 COUNT 1"),
];

/// What is used with `acks = "replica"` only.
const OF_REPLICAS: Trial = ("wait", "0 1");

/// What is used in a Redis Cluster only.
const OF_CLUSTERS: Trial = ("exists", "KEY");

/// A list cannot be made of a key with a text, which expires after a second. Without the permission
/// to set it there is a list, which either of the two others removes.
const PUSH: [Trial; 4] =
    [("set", "KEY none PX 1000"), ("rpush", "KEY none"), ("lpop", "KEY"), ("unlink", "KEY")];

/// The access rules that a user of these servers lacks, such as `+xadd` and `~{NAME}:*`.
///
/// # Errors
/// The server does not answer.
pub(super) async fn missing(
    link: &mut ServerLink,
    keys: &Keys,
    cluster: &Cluster,
) -> Result<BTreeSet<String>, RequestFailure> {
    let mut trials = TRIALS.to_vec();
    trials.extend((cluster.acks == ClusterAcks::Replica).then_some(OF_REPLICAS));
    trials.extend((cluster.kind() == EngineKind::RedisCluster).then_some(OF_CLUSTERS));
    let mut missing = refused(link, keys, cluster, &trials).await?;
    // Without any of these permissions a list would stay.
    if ["+set", "+lpop", "+unlink"].iter().any(|rule| !missing.contains(*rule)) {
        missing.extend(refused(link, keys, cluster, &PUSH).await?);
    }
    Ok(missing)
}

/// What the server does not permit of these trials.
async fn refused(
    link: &mut ServerLink,
    keys: &Keys,
    cluster: &Cluster,
    trials: &[Trial],
) -> Result<BTreeSet<String>, RequestFailure> {
    let all = keys.of_all_kinds(&subject::of_probes(&cluster.name), "doctor");
    let mut pipeline = redis::pipe();
    for trial in trials {
        pipeline.add_command(command(trial, &all));
    }
    let mut rules = BTreeSet::new();
    let answers = link.ask_all(&pipeline, REQUEST).await?;
    for ((name, _), answer) in trials.iter().zip(answers) {
        match answer {
            // The command is looked at before its keys.
            Err(RequestFailure::Refused { code, text }) if code == "NOPERM" => {
                let is_command = text.contains("to run the '");
                rules.insert(match is_command {
                    true => format!("+{name}"),
                    false => format!("~{{{}}}:*", cluster.name),
                });
            }
            _ => {}
        }
    }
    Ok(rules)
}

fn command((name, arguments): &Trial, all: &[String]) -> Cmd {
    let mut command = Cmd::new();
    command.arg(name.split('|').collect::<Vec<_>>());
    for argument in arguments.split_whitespace() {
        match argument {
            "ALL" => command.arg(all.len()).arg(all),
            "KEY" => command.arg(all.last()),
            word => command.arg(word),
        };
    }
    command
}

/// What a user who lacks these rules is told.
pub(super) fn advice(cluster: &Cluster, rules: &BTreeSet<String>) -> String {
    let user = if cluster.user.is_empty() { "default" } else { &cluster.user };
    let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
    let rules = rules.join(" ");
    format!(
        "the user {user} may not do all that a node does; ACL SETUSER {user} {rules} permits it"
    )
}

/// What is missing at the first server of the configuration that can be asked, whether it is the
/// primary or not. That is for a user who may not even ask which server is.
pub(super) async fn of_any_server(cluster: &Cluster, login: &Login, keys: &Keys) -> Option<String> {
    for address in primary::addresses(cluster, login).await {
        let Ok(mut link) = ServerLink::open(&address, login).await else { continue };
        let missing = missing(&mut link, keys, cluster).await;
        if let Some(rules) = missing.ok().filter(|rules| !rules.is_empty()) {
            return Some(advice(cluster, &rules));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The commands of all trials.
    fn names() -> BTreeSet<String> {
        let trials = TRIALS.iter().chain(&PUSH).chain([&OF_REPLICAS, &OF_CLUSTERS]);
        trials.map(|(name, _)| (*name).to_owned()).collect()
    }

    #[test]
    fn cluster_redis_rights_are_those_of_the_documentation() {
        let page = include_str!("../../../../docs/cluster.md");
        let rules = page.lines().find(|line| line.starts_with("ACL SETUSER ")).expect("the rules");
        let documented = rules.split(' ').filter_map(|word| word.strip_prefix('+'));
        assert_eq!(names(), documented.map(str::to_owned).collect());
    }

    #[test]
    fn cluster_redis_rights_have_all_commands_of_the_scripts() {
        let names = names();
        for script in super::super::script::SCRIPTS.all() {
            for call in script.text().split("redis.call('").skip(1) {
                let name = call.split('\'').next().expect("a name").to_lowercase();
                assert!(names.contains(&name), "{name}");
            }
        }
    }

    #[test]
    fn cluster_redis_rights_are_tried_on_keys_of_the_cluster() {
        let keys = Keys::new("p").of_all_kinds("p.i.+d", "doctor");
        let words = |trial: &Trial| {
            let packed = String::from_utf8(command(trial, &keys).get_packed_command());
            let packed = packed.expect("text");
            let words = packed.split("\r\n").filter(|it| !it.starts_with(['$', '*']));
            words.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(words(&("script|load", "(")), "script load ( ");
        assert_eq!(words(&("get", "KEY")), "get {p}:id:doctor ");
        let all = "x 8 {p}:meta {p}:log {p}:kept {p}:ends {p}:marks {p}:runs \
                   {p}:subject:p.i.+d {p}:id:doctor ";
        assert_eq!(words(&("x", "ALL")), all);
    }
}
