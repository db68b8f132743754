//! The commands with which README.md starts a cluster.

use super::engine::EngineServer;
use super::lives::is_ready;
use crate::live::child::{self, Process};
use crate::net::*;
use std::fs::File;
use std::process::{Command, Stdio};

const README: &str = include_str!("../../../../README.md");
const SECTION: &str = "\n## More than one machine\n";

/// The words of the section's commands, with this test's configuration and addresses.
fn commands(config: &str) -> Vec<Vec<String>> {
    let (_, section) = README.split_once(SECTION).unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let urls = ["nats://10.0.0.5:4222", "redis://10.0.0.5:6379"];
    assert!(urls.iter().all(|url| section.contains(&format!("[\"{url}\"]"))));
    let lines = section.lines().filter_map(|line| line.strip_prefix("$ "));
    let local = |word: &str| match word.strip_suffix(":6001") {
        Some(address) if address.starts_with("10.0.0.") => "127.0.0.1:0".to_owned(),
        _ if word == "polycast.toml" => config.to_owned(),
        _ => word.to_owned(),
    };
    lines.map(|line| line.split_whitespace().map(local).collect()).collect()
}

#[test]
fn cluster_commands_of_the_readme_start_two_nodes() {
    let Some(engine) = EngineServer::start("readme") else { return };
    let text = format!("[cluster]\nengine = ['{}']\n", engine.url());
    let written = child::command("cluster-readme", &text);
    let config = written.get_args().nth(1).unwrap().to_str().unwrap();
    let commands = commands(config);
    let [server, nodes @ ..] = &commands[..] else { panic!("{commands:?}") };
    // `EngineServer` has started it with these words and a port and a folder of its own.
    assert_eq!(server[..3], ["nats-server", "-js", "-sd"]);
    let nodes: Vec<Process> = nodes
        .iter()
        .enumerate()
        .map(|(number, words)| {
            assert_eq!(words[0], "polycast");
            let log = engine.folder().join(format!("node-{number}.log"));
            let mut command = Command::new(env!("CARGO_BIN_EXE_polycast"));
            command.args(&words[1..]).stdin(Stdio::null()).stderr(File::create(&log).unwrap());
            Process::spawn(command, log)
        })
        .collect();
    let [first, second] = &nodes[..] else { panic!("{} nodes", nodes.len()) };
    wait("the nodes join", || is_ready(first.address) && is_ready(second.address));
    let mut subscribers = [first, second].map(|node| Client::subscriber(node.address, "a"));
    Client::connect(first.address).publish("a", "1");
    for subscriber in &mut subscribers {
        assert_eq!(subscriber.text(), event("a", "1"));
    }
}
