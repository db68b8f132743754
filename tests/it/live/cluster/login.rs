//! How nodes log in at the engine: with certificates, keys and JWTs.

use super::engine::{EngineServer, cluster_of, free_port};
use super::joined;
use super::refusals::{doctor, serves_nobody};
use crate::certs::{Authority, folder};
use crate::live::child::{BASE, Process};
use crate::net::*;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use polycast::config::Cluster;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Asserts that a node with this log-in joins and publishes, and that `doctor` can log in, too. The
/// keys are those of the section in TOML.
fn admits(engine: &EngineServer, url: &str, name: &str, keys: &[(&str, &str)]) {
    let Some(node) = start_with(engine, url, keys) else { return };
    joined(&node);
    let mut hears = Client::subscriber(node.addresses()[0], "a");
    Client::connect(node.addresses()[0]).publish("a", "1");
    assert_eq!(hears.text(), event("a", "1"));
    if has_uring() {
        let (report, code) = doctor(&format!("{name}.toml"), &section(url, keys));
        assert!(report.contains("engine: stored 100 entries") && code == Some(0), "{report}");
    }
}

/// Asserts that a node with this log-in does not join, and that `doctor` says these words.
fn refuses(engine: &EngineServer, url: &str, name: &str, keys: &[(&str, &str)], words: &str) {
    let Some(node) = start_with(engine, url, keys) else { return };
    serves_nobody(&node);
    if has_uring() {
        let (report, code) = doctor(&format!("{name}-refused.toml"), &section(url, keys));
        assert!(report.contains("engine: cannot be reached or refuses us: "), "{report}");
        assert!(report.contains(words) && code == Some(1), "{report}");
    }
}

fn start_with(
    engine: &EngineServer,
    url: &str,
    keys: &[(&str, &str)],
) -> Option<polycast::server::Server> {
    let mut config = cluster_of(engine);
    let cluster = config.cluster.as_mut().unwrap();
    cluster.engine = vec![url.to_owned()];
    for (key, value) in keys {
        *file_key(cluster, key) = (*value).to_owned();
    }
    start(config)
}

fn file_key<'c>(cluster: &'c mut Cluster, key: &str) -> &'c mut String {
    match key {
        "ca_file" => &mut cluster.ca_file,
        "cert_file" => &mut cluster.cert_file,
        "key_file" => &mut cluster.key_file,
        "creds_file" => &mut cluster.creds_file,
        "nkey_file" => &mut cluster.nkey_file,
        key => panic!("{key}"),
    }
}

/// The section for `doctor`, with the settings of the log that the nodes of these tests have.
fn section(url: &str, keys: &[(&str, &str)]) -> String {
    let keys: String = keys.iter().map(|(key, value)| format!("{key} = '{value}'\n")).collect();
    format!("[cluster]\nengine = ['{url}']\nlog_bytes = '64MiB'\n{keys}")
}

/// Writes a file and returns its path.
fn file(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Files in PEM of an authority, of the engine, and of a node that the authority knows.
struct Certificates {
    ca: String,
    engine: [String; 2],
    node: [String; 2],
}

impl Certificates {
    fn new(name: &str) -> Certificates {
        let folder = folder(name);
        let authority = Authority::new();
        let pair = |name: &str| {
            authority.leaf(&["127.0.0.1"]).write(&folder, name);
            [".pem", ".key"].map(|end| folder.join(format!("{name}{end}")).display().to_string())
        };
        let (engine, node) = (pair("engine"), pair("node"));
        Certificates { ca: file(&folder, "ca.pem", &authority.pem()), engine, node }
    }

    /// The keys of a node with, or without, a certificate.
    fn keys(&self, has_certificate: bool) -> Vec<(&str, &str)> {
        let [cert, key] = &self.node;
        let mut keys = vec![("ca_file", &*self.ca)];
        if has_certificate {
            keys.extend([("cert_file", &**cert), ("key_file", &**key)]);
        }
        keys
    }
}

#[test]
fn cluster_login_shows_nats_a_certificate() {
    let of = Certificates::new("login-nats");
    let [cert, key] = &of.engine;
    let arguments = ["--tlsverify", "--tlscert", cert, "--tlskey", key, "--tlscacert", &of.ca];
    let Some(nats) = EngineServer::start_with("login-tls", &arguments) else { return };
    let url = nats.url().replace("nats://", "tls://");
    refuses(&nats, &url, "login-tls", &of.keys(false), "CertificateRequired");
    admits(&nats, &url, "login-tls", &of.keys(true));
    // A certificate of another authority.
    let other = Certificates::new("login-nats-other");
    let [cert, key] = &other.node;
    let keys = [("ca_file", &*of.ca), ("cert_file", cert), ("key_file", key)];
    refuses(&nats, &url, "login-tls-other", &keys, "received fatal alert");
}

#[test]
fn cluster_login_shows_redis_a_certificate() {
    let Some(plain) = EngineServer::start_redis("login-redis-plain", &[]) else { return };
    if !plain.uses_library("libssl") {
        return println!("this server was built without TLS");
    }
    let of = Certificates::new("login-redis");
    let (port, [cert, key]) = (free_port().to_string(), &of.engine);
    let more = ["--tls-port", &port, "--tls-auth-clients", "yes", "--tls-ca-cert-file", &of.ca];
    let files = ["--tls-cert-file", cert, "--tls-key-file", key];
    let redis = EngineServer::start_redis("login-redis", &[&more[..], &files].concat());
    let Some(redis) = redis else { return };
    let url = format!("rediss://127.0.0.1:{port}");
    refuses(&redis, &url, "login-redis", &of.keys(false), "CertificateRequired");
    admits(&redis, &url, "login-redis", &of.keys(true));
}

/// The folder of the files of one test.
fn secrets(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&folder).unwrap();
    folder
}

#[test]
fn cluster_login_signs_with_an_nkey() {
    let (folder, user) = (secrets("login-nkey"), KeyPair::new_user());
    let users = format!("authorization {{ users = [ {{ nkey: {} }} ] }}", user.public_key());
    let config = file(&folder, "nats.cfg", &users);
    let Some(nats) = EngineServer::start_with("login-nkey", &["-c", &config]) else { return };
    let nkey = file(&folder, "user.nk", &user.seed().unwrap());
    let other = file(&folder, "other.nk", &KeyPair::new_user().seed().unwrap());
    let violation = "authorization violation";
    refuses(&nats, &nats.url(), "login-nkey", &[], violation);
    refuses(&nats, &nats.url(), "login-nkey", &[("nkey_file", &*other)], violation);
    // The log says why, and where more is to be learnt, but not the seed, whatever is logged.
    let section = section(&nats.url(), &[("nkey_file", &*other)]);
    let text = format!("{BASE}log.level = 'trace,async_nats=trace'\n{section}");
    let node = Process::start("login-nkey", &text);
    let line = format!("the engine cannot be reached: nats: {violation}; see `polycast doctor`");
    wait("the node is refused", || node.logged().contains(&line));
    let (logged, seed) = (node.logged(), fs::read_to_string(&other).unwrap());
    assert!(logged.contains("async_nats") && !logged.contains(&seed), "{logged}");
    admits(&nats, &nats.url(), "login-nkey", &[("nkey_file", &*nkey)]);
}

/// A JWT of NATS with these claims.
fn jwt(issuer: &KeyPair, subject: &KeyPair, name: &str, nats: Value) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let (iss, sub) = (issuer.public_key(), subject.public_key());
    let id = data_id(&format!("{iss}{sub}{name}"));
    let claims = json!({
        "jti": id, "iat": now, "iss": iss, "sub": sub, "name": name, "nats": nats
    });
    let header = json!({ "typ": "JWT", "alg": "ed25519-nkey" });
    let encode = |text: String| URL_SAFE_NO_PAD.encode(text);
    let signed = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
    let signature = URL_SAFE_NO_PAD.encode(issuer.sign(signed.as_bytes()).unwrap());
    format!("{signed}.{signature}")
}

/// A name for a JWT, which no other one has.
fn data_id(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02X}")).collect()
}

/// The claims of a user or of an account without limits.
fn claims(kind: &str, limits: Value) -> Value {
    json!({ "type": kind, "version": 2, "limits": limits })
}

#[test]
fn cluster_login_signs_with_the_seed_of_a_jwt() {
    let (folder, operator) = (secrets("login-jwt"), KeyPair::new_operator());
    let (account, system) = (KeyPair::new_account(), KeyPair::new_account());
    let limits = |disk: i64| {
        json!({
            "subs": -1, "data": -1, "payload": -1, "conn": -1, "leaf": -1, "imports": -1,
            "exports": -1, "wildcards": true, "mem_storage": disk, "disk_storage": disk,
            "streams": disk, "consumer": disk
        })
    };
    let [log, sys] = [(&account, "log", -1), (&system, "sys", 0)].map(|(key, name, disk)| {
        let signed = jwt(&operator, key, name, claims("account", limits(disk)));
        format!("{}: {signed}", key.public_key())
    });
    let own = json!({ "type": "operator", "version": 2, "system_account": system.public_key() });
    let config = format!(
        "operator: {}\nresolver: MEMORY\nresolver_preload: {{\n{log}\n{sys}\n}}\n\
         jetstream: enabled\n",
        jwt(&operator, &operator, "operator", own)
    );
    let config = file(&folder, "nats.cfg", &config);
    let Some(nats) = EngineServer::start_with("login-jwt", &["-c", &config]) else { return };
    let credentials = |name: &str, issuer: &KeyPair| {
        let user = KeyPair::new_user();
        let limits = json!({ "subs": -1, "data": -1, "payload": -1 });
        let mut rights = claims("user", Value::Null);
        rights.as_object_mut().unwrap().remove("limits");
        rights.as_object_mut().unwrap().extend(limits.as_object().unwrap().clone());
        let signed = jwt(issuer, &user, name, rights);
        let text = format!(
            "-----BEGIN NATS USER JWT-----\n{signed}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
            user.seed().unwrap()
        );
        file(&folder, &format!("{name}.creds"), &text)
    };
    let (good, other) = (credentials("node", &account), credentials("o", &KeyPair::new_account()));
    let violation = "authorization violation";
    refuses(&nats, &nats.url(), "login-jwt", &[], violation);
    refuses(&nats, &nats.url(), "login-jwt", &[("creds_file", &*other)], violation);
    admits(&nats, &nats.url(), "login-jwt", &[("creds_file", &*good)]);
}
