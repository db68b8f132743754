//! The engine on a real server: what each call of the trait promises. `REDIS_SERVER` names the
//! program; `tests/run cluster` runs them with Redis and with Valkey.

use super::link::{Login, REQUEST, ServerAddress, ServerLink};
use super::page::log_state;
use super::script::{Keys, Known, number};
use super::*;
use crate::cluster::{LogInfo, Refusal};
use redis::Value;
use std::collections::VecDeque;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::time::sleep;

const PATIENCE: Duration = Duration::from_secs(20);

/// A server, and a node's engine on it.
struct Setup {
    child: Child,
    folder: PathBuf,
    engine: RedisEngine,
    events: VecDeque<EngineEvent>,
    link: ServerLink,
    sent: u64,
}

impl Drop for Setup {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Runs a test on a new server; prints SKIPPED if there is no program.
fn with_server(name: &str, cluster: Cluster, test: impl AsyncFnOnce(&mut Setup)) {
    let program = std::env::var_os("REDIS_SERVER").unwrap_or("/usr/bin/redis-server".into());
    if !PathBuf::from(&program).exists() {
        println!("SKIPPED: no Redis server: REDIS_SERVER is not set");
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "SKIPPED");
        return;
    }
    let free = TcpListener::bind(("127.0.0.1", 0)).and_then(|it| it.local_addr());
    let port = free.expect("a port").port();
    let folder = std::env::temp_dir().join(format!("polycast-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let child = Command::new(program)
        .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--dir"])
        .arg(&folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("the server starts");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, async move {
        let engine = vec![format!("redis://127.0.0.1:{port}")];
        let cluster = Cluster { engine, name: "p".to_owned(), ..cluster };
        let engine = RedisEngine::start(&cluster, &Notifier::new(|| {})).expect("it starts");
        let address = ServerAddress { host: "127.0.0.1".to_owned(), port };
        let login = Login { tls: None, user: String::new(), password: String::new() };
        let link = loop {
            match ServerLink::open(&address, &login).await {
                Ok(link) => break link,
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        };
        let events = VecDeque::new();
        let mut setup = Setup { child, folder, engine, events, link, sent: 0 };
        let up = setup.next().await;
        assert!(matches!(up, EngineEvent::Up(LogInfo { epoch: 1.., last: 0 })), "{up:?}");
        test(&mut setup).await;
    });
}

fn entry(subject: &str) -> Append {
    Append {
        number: 0,
        subject: subject.to_owned(),
        id: String::new(),
        ttl_s: Some(60),
        replaces: false,
        expected: None,
        body: b"body".to_vec(),
    }
}

fn state(subject: &str) -> Append {
    Append { ttl_s: None, replaces: true, ..entry(subject) }
}

impl Setup {
    /// Sets access rules: a user, and rules that are added to those it has.
    async fn rules(&mut self, rules: &str) {
        let words: Vec<&str> = rules.split(' ').collect();
        let answer = self.link.ask(redis::cmd("ACL").arg("SETUSER").arg(words), REQUEST).await;
        assert_eq!(answer, Ok(Value::Okay), "{rules}");
    }

    async fn next(&mut self) -> EngineEvent {
        let begun = Instant::now();
        loop {
            self.events.extend(self.engine.take());
            match self.events.pop_front() {
                Some(EngineEvent::Size(_)) => {}
                Some(event) => return event,
                None => sleep(Duration::from_millis(1)).await,
            }
            assert!(begun.elapsed() < PATIENCE, "no event");
        }
    }

    /// Appends an entry with a new id. Returns its sequence number, or why it has none.
    async fn append(&mut self, append: Append) -> Result<u64, Refusal> {
        self.sent += 1;
        let number = self.sent;
        let id = if append.id.is_empty() { format!("0f-{number}") } else { append.id };
        self.engine.append(Append { number, id, ..append });
        loop {
            match self.next().await {
                EngineEvent::Stored { number: of, sequence, .. } if of == number => {
                    return Ok(sequence);
                }
                EngineEvent::Refused { number: of, refusal } if of == number => {
                    return Err(refusal);
                }
                _ => {}
            }
        }
    }

    /// The sequence numbers of what is stored after a position.
    async fn stored(&mut self, after: u64) -> Vec<u64> {
        self.engine.take();
        self.events.clear();
        self.engine.follow(after);
        let mut stored = Vec::new();
        loop {
            match self.next().await {
                EngineEvent::Entry { sequence, stored_ms, .. } => {
                    assert!(stored_ms > 1_700_000_000_000, "{stored_ms}");
                    stored.push(sequence);
                }
                EngineEvent::Current => return stored,
                other => panic!("{other:?}"),
            }
        }
    }

    async fn ask(&mut self, words: &[&str]) -> Value {
        let mut command = redis::Cmd::new();
        words.iter().for_each(|word| _ = command.arg(word));
        self.link.ask(&command, REQUEST).await.expect("an answer")
    }
}

#[test]
fn cluster_redis_stores_entries_once_and_in_order() {
    with_server("order", Cluster::default(), async |setup| {
        assert_eq!(setup.append(entry("p.i.1.a")).await, Ok(1));
        assert_eq!(setup.append(entry("p.i.1.b")).await, Ok(2));
        let again = Append { id: "0f-1".to_owned(), ..entry("p.i.1.a") };
        assert_eq!(setup.append(again).await, Ok(1), "it is stored already");
        assert_eq!(setup.stored(0).await, [1, 2]);
        assert_eq!(setup.stored(1).await, [2]);
        // More than are asked for at a time, some of which live longer.
        for n in 3..=150_u64 {
            let ttl_s = if n % 3 == 0 { 3600 } else { 60 };
            let append = Append { ttl_s: Some(ttl_s), ..entry("p.i.1.a") };
            assert_eq!(setup.append(append).await, Ok(n));
        }
        assert_eq!(setup.stored(0).await, (1..=150).collect::<Vec<_>>());
        // Live.
        assert_eq!(setup.stored(150).await, [0_u64; 0]);
        let append = Append { number: 1000, id: "live".to_owned(), ..entry("p.i.1.a") };
        setup.engine.append(append);
        let mut events = [setup.next().await, setup.next().await];
        events.sort_by_key(|event| matches!(event, EngineEvent::Entry { .. }));
        assert!(matches!(events[0], EngineEvent::Stored { number: 1000, sequence: 151, .. }));
        match &events[1] {
            EngineEvent::Entry { sequence: 151, is_last: true, body, .. } => {
                assert_eq!(body, b"body");
            }
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn cluster_redis_entry_replaces_and_expects_others() {
    with_server("expect", Cluster::default(), async |setup| {
        let expects = |expected| Append { expected: Some(expected), ..state("p.i.+n.0f") };
        assert_eq!(setup.append(expects(1)).await, Err(Refusal::Conflict));
        assert_eq!(setup.append(expects(0)).await, Ok(1));
        assert_eq!(setup.append(expects(0)).await, Err(Refusal::Conflict));
        assert_eq!(setup.append(state("p.i.+n.1f")).await, Ok(2));
        assert_eq!(setup.append(expects(1)).await, Ok(3));
        assert_eq!(setup.stored(0).await, [2, 3], "the first one is replaced");
        // All earlier entries of the subject are removed, those that live longer among them.
        for ttl_s in [Some(60), Some(3600), None] {
            let append = Append { ttl_s, ..entry("p.i.1.a") };
            assert!(setup.append(append).await.is_ok());
        }
        assert_eq!(setup.stored(0).await, [2, 3, 4, 5, 6]);
        let ends = Append { replaces: true, ..entry("p.i.1.a") };
        assert_eq!(setup.append(ends).await, Ok(7));
        assert_eq!(setup.stored(0).await, [2, 3, 7]);
        assert_eq!(number(&setup.ask(&["ZCARD", "{p}:kept"]).await), Some(2));
        assert_eq!(number(&setup.ask(&["ZCARD", "{p}:ends"]).await), Some(0));
    });
}

#[test]
fn cluster_redis_entries_that_live_longer_outlive_the_stream() {
    with_server("kept", Cluster::default(), async |setup| {
        assert_eq!(setup.append(entry("p.i.1.a")).await, Ok(1));
        assert_eq!(setup.append(state("p.i.+s.0f.1.a")).await, Ok(2));
        let cached = Append { ttl_s: Some(3600), ..entry("p.i.1.cache-a") };
        assert_eq!(setup.append(cached).await, Ok(3));
        assert_eq!(setup.append(entry("p.i.1.b")).await, Ok(4));
        setup.ask(&["XTRIM", "{p}:log", "MINID", "4"]).await;
        assert_eq!(setup.stored(0).await, [2, 3, 4]);
        assert_eq!(setup.stored(2).await, [3, 4]);
        // A delivery that is paused for so long goes on without a hole.
        assert_eq!(setup.stored(4).await, [0_u64; 0]);
        setup.engine.pause(true);
        sleep(Duration::from_millis(600)).await;
        setup.engine.take();
        assert_eq!(setup.append(state("p.i.+s.0f.1.b")).await, Ok(5));
        assert_eq!(setup.append(entry("p.i.1.b")).await, Ok(6));
        setup.ask(&["XTRIM", "{p}:log", "MINID", "6"]).await;
        setup.engine.pause(false);
        for expected in [5, 6] {
            match setup.next().await {
                EngineEvent::Entry { sequence, .. } => assert_eq!(sequence, expected),
                other => panic!("{other:?}"),
            }
        }
    });
}

#[test]
fn cluster_redis_purge_removes_subjects_below_tokens() {
    with_server("purge", Cluster::default(), async |setup| {
        for subject in ["p.i.+s.0f.1.a", "p.i.+s.0f.1.b", "p.i.+s.0f1.1.a", "p.i.1.a", "p.i.+s.0f"]
        {
            assert!(setup.append(state(subject)).await.is_ok());
        }
        setup.engine.purge("p.i.+s.0f");
        let begun = Instant::now();
        while setup.stored(0).await != [3, 4, 5] {
            assert!(begun.elapsed() < PATIENCE, "they are not removed");
        }
        // What is removed is expected by nobody.
        let again = Append { expected: Some(0), ..state("p.i.+s.0f.1.a") };
        assert_eq!(setup.append(again).await, Ok(6));
    });
}

#[test]
fn cluster_redis_full_log_takes_state_only() {
    let cluster = Cluster { log_bytes: 1 << 20, ..Cluster::default() };
    with_server("full", cluster, async |setup| {
        let large = |append: Append| Append { body: vec![b'x'; 10_000], ..append };
        let mut events = 0;
        while setup.append(large(entry("p.i.1.a"))).await.is_ok() {
            events += 1;
        }
        // The last one begins below 80 % of a mebibyte.
        assert_eq!(events, 82);
        assert_eq!(setup.append(large(entry("p.i.1.b"))).await, Err(Refusal::Never));
        let mut states = 0;
        loop {
            match setup.append(large(state(&format!("p.i.+s.0f.{states}")))).await {
                Ok(_) => states += 1,
                Err(refusal) => break assert_eq!(refusal, Refusal::Never),
            }
        }
        // They are in the stream, and besides.
        assert!((8..=12).contains(&states), "{states}");
        // What is removed makes room; the stream's share does so when it expires.
        let begun = Instant::now();
        loop {
            let mut events = setup.engine.take().into_iter();
            // 80 % are events, and the rest, but for less than one entry, is state.
            if events.any(|it| matches!(it, EngineEvent::Size(1_027_000..=1_048_576))) {
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "the size is not reported");
            sleep(Duration::from_millis(50)).await;
        }
        let before = number(&setup.ask(&["HGET", "{p}:meta", "k"]).await).unwrap_or(0);
        assert!(before > states * 10_000, "{before}");
        setup.engine.purge("p.i.+s.0f");
        let begun = Instant::now();
        while number(&setup.ask(&["HGET", "{p}:meta", "k"]).await) != Some(0) {
            assert!(begun.elapsed() < PATIENCE, "there is no room");
        }
    });
}

#[test]
fn cluster_redis_entries_expire() {
    let cluster = Cluster { keep_s: 1, ..Cluster::default() };
    with_server("expire", cluster, async |setup| {
        // More than one node of the stream, of which the last one stays.
        for n in 0..250 {
            let append = Append { ttl_s: Some(1), ..entry(&format!("p.i.1.{n}")) };
            assert!(setup.append(append).await.is_ok());
        }
        let cached = Append { ttl_s: Some(3), ..entry("p.i.1.cache-a") };
        assert_eq!(setup.append(cached).await, Ok(251));
        assert_eq!(setup.append(state("p.i.+n.0f")).await, Ok(252));
        sleep(Duration::from_millis(2200)).await;
        let late = Append { ttl_s: Some(1), ..entry("p.i.1.late") };
        let begun = Instant::now();
        let stored = loop {
            assert!(setup.append(late.clone()).await.is_ok());
            let stored = setup.stored(0).await;
            assert!(stored.iter().all(|it| *it > 250), "they have expired: {stored:?}");
            if number(&setup.ask(&["XLEN", "{p}:log"]).await) < Some(110) {
                break stored;
            }
            assert!(begun.elapsed() < PATIENCE, "the stream is not trimmed");
        };
        assert!(stored.contains(&252), "state stays: {stored:?}");
        // A node removes what has expired also when nobody appends.
        let begun = Instant::now();
        while number(&setup.ask(&["ZCARD", "{p}:kept"]).await) != Some(1) {
            assert!(begun.elapsed() < PATIENCE, "the cached event has expired");
            sleep(Duration::from_millis(50)).await;
        }
        while number(&setup.ask(&["LLEN", "{p}:marks"]).await) != Some(0) {
            assert!(begun.elapsed() < PATIENCE, "nothing is accounted for it");
            sleep(Duration::from_millis(50)).await;
        }
        assert!(setup.append(late).await.is_ok());
        assert!(setup.stored(0).await.contains(&252), "state stays");
    });
}

#[test]
fn cluster_redis_without_memory_refuses_entries_and_removes_what_expires() {
    let cluster = Cluster { keep_s: 1, ..Cluster::default() };
    with_server("memory", cluster, async |setup| {
        let short = |subject: &str| Append { ttl_s: Some(1), ..entry(subject) };
        assert_eq!(setup.append(short("p.i.1.a")).await, Ok(1));
        setup.ask(&["CONFIG", "SET", "maxmemory", "1"]).await;
        assert_eq!(setup.append(short("p.i.1.a")).await, Err(Refusal::Never));
        let begun = Instant::now();
        while number(&setup.ask(&["LLEN", "{p}:marks"]).await) != Some(0) {
            assert!(begun.elapsed() < PATIENCE, "nothing expires");
            sleep(Duration::from_millis(50)).await;
        }
        setup.ask(&["CONFIG", "SET", "maxmemory", "0"]).await;
        assert_eq!(setup.append(short("p.i.1.a")).await, Ok(2));
    });
}

/// The server forgets its scripts, and the nodes load them again.
#[test]
fn cluster_redis_loads_its_scripts_again() {
    with_server("scripts", Cluster::default(), async |setup| {
        assert_eq!(setup.append(entry("p.i.1.a")).await, Ok(1));
        setup.ask(&["SCRIPT", "FLUSH"]).await;
        assert_eq!(setup.append(entry("p.i.1.a")).await, Err(Refusal::Later));
        let up = setup.next().await;
        assert!(matches!(up, EngineEvent::Up(LogInfo { last: 1, .. })), "{up:?}");
        assert_eq!(setup.append(entry("p.i.1.a")).await, Ok(2));
    });
}

/// Begins a connection as a node that knows this. Returns the epoch and the tag of the run.
async fn attach(setup: &mut Setup, known: Known, server: &str, drawn: u64) -> (u64, u64) {
    let attach = Keys::new("p").attach(known, server, drawn);
    let answer = setup.link.ask(&attach, REQUEST).await.expect("an answer");
    let log = log_state(answer).expect("well-formed");
    (log.epoch, log.run)
}

/// A log that has served nodes in several processes, of which each begins with what it has.
#[test]
fn cluster_redis_log_that_has_lost_what_a_node_has_seen_gets_one_epoch() {
    with_server("epochs", Cluster::default(), async |setup| {
        for n in 1..=5 {
            assert_eq!(setup.append(entry("p.i.1.a")).await, Ok(n));
        }
        let epoch = setup.engine.shared.known.get().epoch;
        let (of, tag) = attach(setup, Known::default(), "second", 22).await;
        assert_eq!((of, tag), (epoch, 22), "a node that knows nothing loses nothing");
        let knows = |run, seen| Known { epoch, run, seen };
        // What was there when the next process began was not lost, whatever came since.
        setup.ask(&["HSET", "{p}:meta", "q", "9"]).await;
        assert_eq!(attach(setup, knows(22, 9), "third", 33).await, (epoch, 33));
        assert_eq!(attach(setup, knows(33, 9), "third", 34).await, (epoch, 33), "it is the same");
        setup.ask(&["HSET", "{p}:meta", "q", "7"]).await;
        assert_eq!(attach(setup, knows(33, 7), "fourth", 44).await, (epoch, 44));
        setup.ask(&["HSET", "{p}:meta", "q", "12"]).await;
        assert_eq!(attach(setup, knows(22, 7), "fourth", 45).await, (epoch, 44), "two runs later");
        assert_eq!(attach(setup, knows(44, 12), "fourth", 46).await, (epoch, 44));
        // Eight was lost before the fourth process, although there is another eight now.
        assert_eq!(attach(setup, knows(33, 8), "fourth", 47).await, (47, 44));
        assert_eq!(attach(setup, knows(33, 9), "fourth", 48).await, (47, 44), "once");
        // A run that the log does not know was lost with what came in it.
        let knows = Known { epoch: 47, run: 99, seen: 1 };
        assert_eq!(attach(setup, knows, "fourth", 49).await, (49, 44));
    });
}

/// The list of runs is bounded; a node that was away for longer than the list reaches begins again.
#[test]
fn cluster_redis_runs_are_bounded() {
    with_server("runs", Cluster::default(), async |setup| {
        let epoch = setup.engine.shared.known.get().epoch;
        let first = setup.engine.shared.known.get().run;
        for n in 1..64 {
            let knows = Known { epoch, run: first, seen: 0 };
            assert_eq!(attach(setup, knows, &format!("s{n}"), 1000 + n).await, (epoch, 1000 + n));
        }
        let knows = Known { epoch, run: first, seen: 0 };
        assert_eq!(attach(setup, knows, "last", 2000).await, (2000, 2000));
        assert_eq!(number(&setup.ask(&["LLEN", "{p}:runs"]).await), Some(64));
    });
}

/// Each permission that the documentation asks for is missed under its name, and nothing else; and
/// what is tried leaves no key.
#[test]
fn cluster_redis_rights_that_are_missing_are_named() {
    with_server("redis-rights", Cluster::default(), async |setup| {
        let page = include_str!("../../../../docs/cluster.md");
        let rules = page.lines().find_map(|line| line.strip_prefix("ACL SETUSER ")).expect("rules");
        let rules = rules.replace("PASSWORD", "secret").replace("NAME", "p");
        let address = setup.engine.shared.primary.borrow().as_ref().map(|it| it.1.clone());
        let password = "secret".to_owned();
        let login = Login { tls: None, user: "polycast".to_owned(), password };
        setup.rules(&rules).await;
        let mut link = ServerLink::open(&address.expect("up"), &login).await.expect("it logs in");
        let engine = vec!["redis+cluster://127.0.0.1:1".to_owned()];
        let acks = crate::config::ClusterAcks::Replica;
        let user = login.user.clone();
        let all = Cluster { engine, acks, user, name: "p".to_owned(), ..Cluster::default() };
        let some = Cluster { engine: vec!["redis://127.0.0.1:1".to_owned()], ..Cluster::default() };
        let some = Cluster { name: "p".to_owned(), ..some };
        let keys = Keys::new("p");
        let mut missing = async |cluster: &Cluster| {
            let missing = rights::missing(&mut link, &keys, cluster).await.expect("answers");
            missing.into_iter().collect::<Vec<_>>()
        };
        assert_eq!(missing(&all).await, Vec::<String>::new());
        let commands = rules.split(' ').filter_map(|rule| rule.strip_prefix('+'));
        for name in commands.clone() {
            setup.rules(&format!("polycast -{name}")).await;
            let expected = [format!("+{name}")];
            assert_eq!(missing(&all).await, expected, "{name}");
            let is_used = !["wait", "exists"].contains(&name);
            assert_eq!(missing(&some).await, if is_used { &expected[..] } else { &[] }, "{name}");
            setup.rules(&format!("polycast +{name}")).await;
        }
        for (rules, expected) in [
            ("-set -rpush -xadd", &["+rpush", "+set", "+xadd"][..]),
            ("+rpush -lpop", &["+lpop", "+set", "+xadd"]),
            ("+set +lpop +xadd -set -unlink", &["+set", "+unlink"]),
            ("-lpop", &["+lpop", "+set", "+unlink"]),
            ("-rpush +lpop +set +unlink", &["+rpush"]),
            ("+rpush resetkeys", &["~{p}:*"]),
            ("%R~{p}:*", &["~{p}:*"]),
            ("resetkeys ~{p}:[imekrs]* -scan", &["+scan", "~{p}:*"]),
            ("resetkeys ~{p}:*", &["+scan"]),
        ] {
            setup.rules(&format!("polycast {rules}")).await;
            assert_eq!(missing(&all).await, expected, "{rules}");
        }
        // A text that could not be removed has expired.
        sleep(Duration::from_millis(1100)).await;
        let left = setup.link.ask(redis::cmd("KEYS").arg("*doctor*"), REQUEST).await;
        assert_eq!(left, Ok(Value::Array(Vec::new())));
        assert_eq!(
            rights::advice(&all, &["+scan".to_owned(), "+xadd".to_owned()].into()),
            "the user polycast may not do all that a node does; ACL SETUSER polycast +scan +xadd \
             permits it"
        );
    });
}

mod faults;
