//! The privileges that the program has dropped, and that it serves without them.

use super::child::*;
use crate::net::*;
use std::fs;
use std::process::{Command, Stdio};

fn rights_of(process: &Process) -> String {
    // The status of a reactor's thread, which has inherited the restrictions.
    let tasks = fs::read_dir(format!("/proc/{}/task", process.child.id())).unwrap();
    let status = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("status")).unwrap());
    status.into_iter().find(|text| text.contains("reactor-0")).expect("a reactor")
}

fn right<'s>(status: &'s str, name: &str) -> &'s str {
    let line = status.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
    line.unwrap_or_else(|| panic!("{name}: {status}")).trim()
}

/// The program itself tries the forbidden operations.
#[test]
fn confined_process_is_refused_what_it_does_not_need() {
    if !has_uring() {
        return;
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_polycast"));
    let output = command.args(["doctor", "--restrictions"]).stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    println!("{text}");
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(!text.contains("NOT"), "{text}");
    let refused = text.matches(" refused").count();
    match text.contains("not support Landlock") {
        true => skip(&text),
        false => assert_eq!(refused, 8, "{text}"),
    }
    assert!(refused >= 6, "{text}");
}

#[test]
fn confined_by_default_are_rings_and_programs_that_it_starts() {
    if !has_uring() {
        return;
    }
    let process = Process::start("confined-default", BASE);
    assert_eq!(right(&rights_of(&process), "NoNewPrivs"), "1");
    let config = format!("{BASE}process = {{ no_new_privs = false, ring_restrictions = false }}\n");
    let process = Process::start("confined-not", &config);
    assert_eq!(right(&rights_of(&process), "NoNewPrivs"), "0");
    let mut client = Client::subscriber(process.address, "c");
    Client::connect(process.address).publish("c", "x");
    assert_eq!(client.text(), event("c", "x"));
}

/// Without privileges it serves, publishes across cores, and reloads its configuration.
#[test]
fn confined_process_serves_and_reloads() {
    if !has_uring() {
        return;
    }
    let all = "process = { drop_capabilities = true, landlock = true, seccomp = true }\n";
    let mut process = Process::start("confined", &format!("{BASE}{all}"));
    let rights = rights_of(&process);
    assert_eq!(
        (right(&rights, "CapEff"), right(&rights, "CapPrm")),
        ("0000000000000000", "0000000000000000")
    );
    assert_eq!(right(&rights, "Seccomp"), "2");
    let mut clients: Vec<Client> =
        (0..8).map(|_| Client::subscriber(process.address, "c")).collect();
    Client::connect(process.address).publish("c", "x");
    clients.iter_mut().for_each(|client| assert_eq!(client.text(), event("c", "x")));
    rewrite("confined", "[[apps]]\nid = '2'\nkey = 'second'\nsecret = 's'\n");
    process.signal(libc::SIGHUP);
    wait("the second application", || {
        let mut client = Client::open(process.address, "/app/second?protocol=7");
        client.text().contains("connection_established")
    });
    process.signal(libc::SIGTERM);
    drop(clients);
    assert_eq!(process.ended().code(), Some(0));
    assert!(!process.logged().contains("not reloaded"), "{}", process.logged());
}

#[test]
fn confined_process_goes_on_as_another_user() {
    if !has_uring() {
        return;
    }
    let user = |name: &str| format!("{BASE}process.user = '{name}'\n");
    if fs::read_to_string("/proc/self/status")
        .is_ok_and(|own| right(&own, "Uid").starts_with("0\t"))
    {
        let process = Process::start("confined-user", &user("nobody"));
        let rights = rights_of(&process);
        assert!(!right(&rights, "Uid").split('\t').any(|id| id == "0"), "{rights}");
        assert!(!right(&rights, "Gid").split('\t').any(|id| id == "0"), "{rights}");
        assert_eq!(right(&rights, "CapEff"), "0000000000000000");
        let mut client = Client::subscriber(process.address, "c");
        Client::connect(process.address).publish("c", "x");
        assert_eq!(client.text(), event("c", "x"));
    } else {
        println!("SKIPPED: only root can go on as another user");
    }
    let mut nobody = command("confined-nobody", &user("no-such-user-here"));
    let output = nobody.output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("process.user: the user no-such-user-here does not exist"), "{text}");
}
