//! Servers without a configuration file, from environment variables.

use super::child::*;
use crate::net::*;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Starts the program with these variables and arguments, and with its log in a file.
fn start(name: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Process {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("live");
    fs::create_dir_all(&folder).unwrap();
    let log = folder.join(format!("{name}.log"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_polycast"));
    command.args(["--io", io(), "--no-pin", "--threads", "2"]).args(arguments);
    command.envs(variables.iter().copied()).stdin(Stdio::null());
    command.stderr(fs::File::create(&log).unwrap());
    Process::spawn(command, log)
}

/// The status of a publish, to another channel than that of the test, that these keys sign.
fn status(process: &Process, keys: Keys<'_>) -> u16 {
    let mut client = Client::connect(process.address);
    client.send(&keys.request("POST", EVENTS, &event_body("d", "x")));
    client.response().status
}

#[test]
fn environment_serves_an_application_and_reloads_its_secret() {
    if !has_uring() {
        return;
    }
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("live");
    fs::create_dir_all(&folder).unwrap();
    let secret = folder.join("environment-secret");
    fs::write(&secret, "app-secret\n").unwrap();
    let process = start(
        "environment",
        &[],
        &[
            ("POLYCAST_APP_ID", "1"),
            ("POLYCAST_APP_KEY", "app-key"),
            ("POLYCAST_APP_SECRET_FILE", secret.to_str().unwrap()),
            ("POLYCAST_LISTENERS__0__ADDRESS", "127.0.0.1:0"),
        ],
    );
    let mut client = Client::subscriber(process.address, "c");
    Client::connect(process.address).publish("c", "x");
    assert_eq!(client.text(), event("c", "x"));
    let (old, new) = (Keys("app-key", "app-secret"), Keys("app-key", "rotated"));
    assert_eq!((status(&process, old), status(&process, new)), (200, 401));
    // A mounted secret is replaced by a rename. The connection stays.
    let beside = folder.join("environment-secret.new");
    fs::write(&beside, "rotated\n").unwrap();
    fs::rename(beside, &secret).unwrap();
    wait("the reload", || process.logged().contains("configuration reloaded"));
    // Each core takes the new configuration at the end of a turn, so one may have the old one.
    let is_new = || (0..8).all(|_| status(&process, new) == 200 && status(&process, old) == 401);
    wait("the new secret", is_new);
    client.sync();
    // A file that is missing when it is read again changes nothing.
    fs::remove_file(&secret).unwrap();
    process.signal(libc::SIGHUP);
    wait("the refusal", || process.logged().contains("configuration not reloaded"));
    let log = process.logged();
    assert!(log.contains("POLYCAST_APP_SECRET_FILE: apps[0].secret: the file "), "{log}");
    wait("the new secret", is_new);
}

#[test]
fn environment_of_soketi_is_served_by_compat() {
    if !has_uring() {
        return;
    }
    let process = start(
        "compat",
        &["--compat", "soketi"],
        &[
            ("SOKETI_DEFAULT_APP_ID", "1"),
            ("SOKETI_DEFAULT_APP_KEY", "app-key"),
            ("SOKETI_DEFAULT_APP_SECRET", "app-secret"),
            ("SOKETI_HOST", "127.0.0.1"),
            ("SOKETI_PORT", "0"),
            ("SOKETI_DB_REDIS_HOST", "redis"),
            ("POLYCAST_APPS__0__CLIENT_EVENTS", "true"),
        ],
    );
    let mut client = Client::open(process.address, APP_PATH);
    let first = client.text();
    // The profile's activity timeout, and each note as a line of the log.
    assert!(first.contains(r#"\"activity_timeout\":30"#), "{first}");
    client.subscribe("c");
    Client::connect(process.address).publish("c", "x");
    assert_eq!(client.text(), event("c", "x"));
    assert!(process.logged().contains("SOKETI_DB_REDIS_HOST: "), "{}", process.logged());
}
