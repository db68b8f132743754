//! What a cluster refuses: log-ins, streams that differ, and what it does not carry yet.

use super::engine::{EngineServer, QUIET, cluster_of};
use super::{joined, nodes, ready};
use crate::certs::Authority;
use crate::net::*;
use polycast::config::Secret;
use polycast::server::Server;
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::thread;

/// Asserts that a node does not serve anybody.
pub fn serves_nobody(node: &Server) {
    thread::sleep(QUIET);
    assert_eq!(ready(node), 503);
    let mut api = Client::connect(node.addresses()[0]);
    api.send(&publish("a", "1"));
    let refused = api.response();
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.body.contains("has not joined its cluster"), "{refused:?}");
    let mut client = Client::open(node.addresses()[0], APP_PATH);
    let text = client.text();
    assert!(text.contains("pusher:error"), "{text}");
    assert_eq!(client.close().0, 4100);
}

#[test]
fn cluster_wrong_password_keeps_a_node_out() {
    let login = ["--user", "ada", "--pass", "right"];
    let Some(nats) = EngineServer::start_with("password", &login) else { return };
    for password in ["", "wrong", "right"] {
        let mut config = cluster_of(&nats);
        let cluster = config.cluster.as_mut().unwrap();
        if !password.is_empty() {
            (cluster.user, cluster.password) = ("ada".to_owned(), Secret::new(password));
        }
        let Some(node) = start(config) else { return };
        match password {
            "right" => {
                joined(&node);
                Client::connect(node.addresses()[0]).publish("a", "1");
            }
            _ => serves_nobody(&node),
        }
    }
}

#[test]
fn cluster_stream_with_other_settings_keeps_a_node_out() {
    let Some(nats) = EngineServer::start_with("settings", &[]) else { return };
    let Some([node]) = nodes(&nats) else { return };
    let mut config = cluster_of(&nats);
    config.cluster.as_mut().unwrap().log_bytes /= 2;
    let Some(other) = start(config) else { return };
    serves_nobody(&other);
    Client::connect(node.addresses()[0]).publish("a", "1");
}

/// The answer of JetStream's API to a request.
fn jetstream(nats: &EngineServer, what: &str, body: &str) -> Value {
    let mut stream = TcpStream::connect(("127.0.0.1", nats.port)).unwrap();
    let request = format!("PUB $JS.API.{what} answer {}\r\n{body}", body.len());
    write!(stream, "CONNECT {{\"verbose\":false}}\r\nSUB answer 1\r\n{request}\r\n").unwrap();
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.starts_with("MSG answer ")));
    let answer: Value = serde_json::from_str(&lines.next().unwrap()).unwrap();
    assert_eq!(answer["error"], Value::Null, "{body}");
    answer
}

/// What the stream of a node is, with one setting that would lose or refuse entries.
#[test]
fn cluster_stream_that_would_lose_entries_keeps_a_node_out() {
    if !has_uring() {
        return;
    }
    let Some(nats) = EngineServer::start_with("lossy", &[]) else { return };
    let section = format!("[cluster]\nengine = ['{}']\nlog_bytes = '64MiB'\n", nats.url());
    let (report, code) = doctor("lossy-none.toml", &section);
    assert!(report.contains("the stream polycast-log has 0 of") && code == Some(0), "{report}");
    let ours = jetstream(&nats, "STREAM.INFO.polycast-log", "")["config"].take();
    let with = |key: &str, value: &Value| {
        let mut config = ours.clone();
        config[key] = value.clone();
        config.to_string()
    };
    jetstream(&nats, "STREAM.DELETE.polycast-log", "");
    let max_subject = with("max_msgs_per_subject", &json!(1));
    jetstream(&nats, "STREAM.CREATE.polycast-log", &max_subject);
    let Some(node) = start(cluster_of(&nats)) else { return };
    serves_nobody(&node);
    for (key, value) in [
        ("max_msgs_per_subject", json!(1)),
        ("max_msgs", json!(1000)),
        ("max_msg_size", json!(1000)),
        ("no_ack", json!(true)),
        ("sources", json!([{ "name": "another" }])),
        ("subject_transform", json!({ "src": "polycast.i.>", "dest": "another.>" })),
    ] {
        jetstream(&nats, "STREAM.UPDATE.polycast-log", &with(key, &value));
        let (report, code) = doctor("lossy.toml", &section);
        let expected = format!("the stream polycast-log has other settings: {key} is ");
        assert!(report.contains(&expected) && code == Some(1), "{key}: {report}");
    }
    // It may limit entries to what the server accepts, and a node that waits joins then.
    let max_payload = with("max_msg_size", &json!(1 << 20));
    jetstream(&nats, "STREAM.UPDATE.polycast-log", &max_payload);
    joined(&node);
    Client::connect(node.addresses()[0]).publish("a", "1");
    let (report, code) = doctor("lossy-not.toml", &section);
    assert!(report.contains("engine: stored 100 entries") && code == Some(0), "{report}");
}

#[test]
fn cluster_token_logs_in() {
    let Some(nats) = EngineServer::start_with("token", &["--auth", "the token"]) else { return };
    for token in ["another", "the token"] {
        let mut config = cluster_of(&nats);
        config.cluster.as_mut().unwrap().token = Secret::new(token);
        let Some(node) = start(config) else { return };
        match token {
            "another" => serves_nobody(&node),
            _ => joined(&node),
        }
    }
}

/// The engine's certificate is verified by `ca_file`, or by the system's authorities, which do not
/// know it.
#[test]
fn cluster_tls_verifies_the_engine() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("nats-tls");
    fs::create_dir_all(&folder).unwrap();
    let authority = Authority::new();
    let leaf = authority.leaf(&["127.0.0.1"]);
    let file = |name: &str, text: String| {
        let path = folder.join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (cert, key) =
        (file("cert.pem", leaf.cert.pem()), file("key.pem", leaf.key.serialize_pem()));
    let ca = file("ca.pem", authority.pem());
    let arguments = ["--tls", "--tlscert", &cert, "--tlskey", &key];
    let Some(nats) = EngineServer::start_with("tls", &arguments) else { return };
    for ca_file in ["", &ca] {
        let mut config = cluster_of(&nats);
        let cluster = config.cluster.as_mut().unwrap();
        cluster.engine = vec![nats.url().replace("nats://", "tls://")];
        cluster.ca_file = ca_file.to_owned();
        let Some(node) = start(config) else { return };
        match ca_file {
            "" => serves_nobody(&node),
            _ => {
                joined(&node);
                Client::connect(node.addresses()[0]).publish("a", "1");
            }
        }
    }
}

/// The output of `polycast doctor --config` and its exit code.
pub fn doctor(name: &str, section: &str) -> (String, Option<i32>) {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("nats-doctor");
    fs::create_dir_all(&folder).unwrap();
    let file = folder.join(name);
    let app = "[[apps]]\nid = '1'\nkey = 'k'\nsecret = 's'\n";
    fs::write(&file, format!("{app}{section}")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_polycast"));
    let output = command.args(["doctor", "--io", io(), "--config"]).arg(&file).output().unwrap();
    (String::from_utf8(output.stdout).unwrap(), output.status.code())
}

#[test]
fn cluster_check_examines_the_engine_on_demand() {
    let Some(nats) = EngineServer::start_with("check", &[]) else { return };
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("nats-check");
    fs::create_dir_all(&folder).unwrap();
    let file = folder.join("polycast.toml");
    let check = |url: &str, more: &[&str]| {
        let app = "[[apps]]\nid = '1'\nkey = 'k'\nsecret = 's'\n";
        fs::write(&file, format!("{app}[cluster]\nengine = ['{url}']\n")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_polycast"));
        let output = command.arg("check").arg(&file).args(more).output().unwrap();
        (String::from_utf8(output.stdout).unwrap(), output.status.code())
    };
    let away = "nats://127.0.0.1:1";
    let (report, code) = check(away, &[]);
    assert!(report.contains(": ok: ") && code == Some(0), "{report}");
    let (report, code) = check(away, &["--engine"]);
    assert!(report.contains("cannot be reached") && code == Some(1), "{report}");
    let (report, code) = check(&nats.url(), &["--engine"]);
    assert!(report.contains("engine: NATS 2.") && code == Some(0), "{report}");
}

#[test]
fn cluster_doctor_examines_the_engine() {
    if !has_uring() {
        return;
    }
    let (report, code) = doctor("none.toml", "");
    assert!(report.contains("no section `cluster`") && code == Some(0), "{report}");
    let (report, code) = doctor("away.toml", "[cluster]\nengine = ['nats://127.0.0.1:1']\n");
    assert!(report.contains("cannot be reached") && code == Some(1), "{report}");
    let Some(nats) = EngineServer::start_with("doctor", &["--user", "ada", "--pass", "right"])
    else {
        return;
    };
    let section = |more: &str| format!("[cluster]\nengine = ['{}']\n{more}", nats.url());
    let (report, code) = doctor("refused.toml", &section("user = 'ada'\npassword = 'wrong'\n"));
    assert!(report.contains("refuses us") && code == Some(1), "{report}");
    let login = "user = 'ada'\npassword = 'right'\n";
    let (report, code) = doctor("good.toml", &section(login));
    for line in
        ["engine: NATS 2.", "entries of up to 1048576 bytes", "stream polycast-log has 0 of"]
    {
        assert!(report.contains(line) && code == Some(0), "{report}");
    }
    assert!(report.contains("engine: stored 100 entries: p50 "), "{report}");
    // Of what was stored to measure the engine the last entry is there.
    let (report, _) = doctor("again.toml", &section(login));
    assert!(!report.contains("has 0 of") && report.contains(" p99 "), "{report}");
    // A user who may not do all that a node does.
    let rights = r#"publish: ["$JS.API.STREAM.INFO.polycast-log", "$JS.API.STREAM.CREATE.>",
        "$JS.API.CONSUMER.MSG.NEXT.>"], subscribe: ["_INBOX.>"]"#;
    let user = format!("user: ada, password: right, permissions: {{ {rights} }}");
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("rights.cfg");
    fs::write(&file, format!("authorization {{ users = [ {{ {user} }} ] }}")).unwrap();
    let limited =
        EngineServer::start_with("doctor-rights", &["-c", file.to_str().unwrap()]).unwrap();
    let text = format!("[cluster]\nengine = ['{}']\n{login}", limited.url());
    let (report, code) = doctor("rights.toml", &text);
    assert_eq!(code, Some(1), "{report}");
    for subject in [
        "\"polycast.i.+d\"",
        "\"$JS.API.STREAM.PURGE.polycast-log\"",
        "\"$JS.API.CONSUMER.CREATE.polycast-log.doctor-",
    ] {
        let is_named = |line: &str| line.starts_with("engine: reports") && line.contains(subject);
        assert!(report.lines().any(is_named), "{subject}: {report}");
    }
    assert_eq!(report.matches("engine: reports").count(), 3, "{report}");
    let other = section(&format!("{login}storage = 'memory'\n"));
    let (report, code) = doctor("other.toml", &other);
    assert!(report.contains("storage is \"file\" there") && code == Some(1), "{report}");
}
