//! The files of `packaging/`, as far as they can be checked without Docker or Kubernetes.

use serde_json::Value;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging").join(name)
}

fn text(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The documents of a YAML file.
fn yaml(name: &str) -> Vec<Value> {
    let text = text(name);
    let parse =
        |document| serde_saphyr::from_str(document).unwrap_or_else(|e| panic!("{name}: {e}"));
    text.split("\n---\n").map(parse).collect()
}

/// The variables of an application, which each container needs.
const APP: [(&str, &str); 3] =
    [("POLYCAST_APP_ID", "1"), ("POLYCAST_APP_KEY", "a-key"), ("POLYCAST_APP_SECRET", "a-secret")];

/// Checks a configuration with `polycast check`; without a file, that of the variables.
fn check(file: Option<&Path>, variables: &[(&str, &str)]) -> Output {
    let mut check = Command::new(env!("CARGO_BIN_EXE_polycast"));
    check.arg("check").args(file).envs(variables.iter().copied());
    check.output().unwrap()
}

/// The longest time that a server takes to stop, in seconds.
fn stop_s(lame_duck_s: i64, drain_s: i64) -> i64 {
    lame_duck_s + drain_s
}

#[test]
fn packaging_container_has_time_to_stop_and_a_valid_configuration() {
    let file = path("docker/polycast.toml");
    let output = check(Some(&file), &APP);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    // Without the variables it does not start, and says which ones it needs.
    let output = check(Some(&file), &[]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && error.contains("POLYCAST_APP_SECRET"), "{error}");
    let config: toml::Table = fs::read_to_string(&file).unwrap().parse().unwrap();
    let seconds = |key: &str| config[key].as_integer().unwrap();
    let stop_s = stop_s(seconds("lame_duck_s"), seconds("drain_s"));
    let compose = &yaml("docker/compose.yaml")[0]["services"]["polycast"];
    let environment = compose["environment"].as_object().unwrap();
    let names: Vec<&str> = environment.keys().map(String::as_str).collect();
    assert_eq!(names, ["POLYCAST_APP_ID", "POLYCAST_APP_KEY", "POLYCAST_APP_SECRET_FILE"]);
    let grace = compose["stop_grace_period"].as_str().unwrap();
    let grace_s: i64 = grace.strip_suffix('s').unwrap().parse().unwrap();
    assert!(grace_s > stop_s, "{grace_s} s are not enough for {stop_s} s");
    let options: Vec<&str> =
        compose["security_opt"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(options, ["no-new-privileges:true"], "a seccomp profile has to be made first");
    let dockerfile = text("docker/Dockerfile");
    assert!(dockerfile.contains("packaging/docker/polycast.toml"));
    assert!(dockerfile.lines().any(|line| line.starts_with("USER 65532")), "root");
}

#[test]
fn packaging_cluster_has_two_nodes_with_the_same_valid_configuration() {
    let single = &yaml("docker/compose.yaml")[0]["services"]["polycast"];
    let engine = "POLYCAST_CLUSTER__ENGINE";
    for (file, url, service, command) in [
        ("docker/cluster-nats.compose.yaml", "nats://nats:4222", "nats", "-js"),
        ("docker/cluster-redis.compose.yaml", "redis://valkey:6379", "valkey", "noeviction"),
    ] {
        let services = &yaml(file)[0]["services"];
        for node in ["first", "second"] {
            let node = &services[node];
            let engine = node["environment"][engine].as_str().unwrap();
            assert_eq!(engine, format!("[\"{url}\"]"), "the host is the service `{service}`");
            is_valid(&[("POLYCAST_CLUSTER__ENGINE", engine)]);
        }
        let words = services[service]["command"].as_array().unwrap();
        assert!(words.contains(&command.into()), "{words:?}");
    }
    let nats = &yaml("docker/cluster-nats.compose.yaml")[0]["services"];
    for node in ["first", "second"] {
        for key in ["stop_grace_period", "security_opt", "cap_drop", "read_only", "ulimits"] {
            assert_eq!(nats[node][key], single[key], "{key}");
        }
        let extended = &yaml("docker/cluster-redis.compose.yaml")[0]["services"][node]["extends"];
        assert_eq!(extended["file"], "cluster-nats.compose.yaml");
        assert_eq!(extended["service"], node);
    }
}

#[test]
fn packaging_engines_of_kubernetes_name_valid_variables() {
    for (file, count) in [("kubernetes/nats.yaml", 2), ("kubernetes/valkey.yaml", 1)] {
        let manifest = text(file);
        let variables: Vec<Value> = manifest
            .lines()
            .filter_map(|line| line.strip_prefix("#   - "))
            .map(|line| serde_saphyr::from_str(line).unwrap())
            .collect();
        assert_eq!(variables.len(), count, "{manifest}");
        let field = |it: &Value, key: &str| it[key].as_str().unwrap().to_owned();
        let variables: Vec<(String, String)> =
            variables.iter().map(|it| (field(it, "name"), field(it, "value"))).collect();
        let variables: Vec<(&str, &str)> =
            variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        is_valid(&variables);
    }
}

/// Asserts that these variables and those of an application are a configuration.
fn is_valid(variables: &[(&str, &str)]) {
    let output = check(None, &[variables, &APP].concat());
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

/// Gives a profile to the script that allows io_uring. `None` if Python is not installed.
fn with_io_uring(profile: &str) -> Option<Output> {
    let mut script = Command::new("python3");
    script.arg(path("docker/allow_io_uring.py"));
    script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut script = script.spawn().ok()?;
    script.stdin.take().unwrap().write_all(profile.as_bytes()).unwrap();
    Some(script.wait_with_output().unwrap())
}

#[test]
fn packaging_seccomp_script_adds_the_calls_of_io_uring_and_changes_nothing_else() {
    let default =
        r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"A"}]}"#;
    let Some(output) = with_io_uring(default) else {
        return println!("SKIPPED: Python is not installed");
    };
    assert!(output.status.success());
    let made: Value = serde_json::from_slice(&output.stdout).unwrap();
    let calls = ["io_uring_setup", "io_uring_enter", "io_uring_register"];
    let rule = serde_json::json!({"names": calls, "action": "SCMP_ACT_ALLOW"});
    let mut expected: Value = serde_json::from_str(default).unwrap();
    expected["syscalls"].as_array_mut().unwrap().push(rule);
    assert_eq!(made, expected);
    for text in ["", "[]", "{}", r#"{"syscalls":1}"#] {
        let output = with_io_uring(text).unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(output.stdout.is_empty(), "{text}");
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(message.starts_with("standard input is no seccomp profile"), "{message}");
    }
}

#[test]
fn packaging_kubernetes_pod_is_restricted_and_has_time_to_stop() {
    let documents = yaml("kubernetes/polycast.yaml");
    let of = |kind: &str| {
        let found = documents.iter().find(|document| document["kind"] == kind);
        found.unwrap_or_else(|| panic!("no {kind}"))
    };
    let pod = &of("Deployment")["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    assert_eq!(container["args"], serde_json::json!(["serve"]));
    let text = |entry: &Value, key: &str| entry[key].as_str().unwrap().to_owned();
    let variables: Vec<(String, String)> = container["env"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (text(entry, "name"), text(entry, "value")))
        .collect();
    let mut all: Vec<(&str, &str)> =
        variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let seconds = |name: &str| {
        let (_, value) = variables.iter().find(|(it, _)| it == name).unwrap();
        value.parse::<i64>().unwrap()
    };
    let stop_s = stop_s(seconds("POLYCAST_LAME_DUCK_S"), seconds("POLYCAST_DRAIN_S"));
    // Kubernetes adds variables for the service, which must not be taken for keys.
    all.extend([("POLYCAST_PORT", "tcp://10.0.0.1:80"), ("POLYCAST_SERVICE_HOST", "10.0.0.1")]);
    all.extend(APP);
    let output = check(None, &all);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    assert!(pod["terminationGracePeriodSeconds"].as_i64().unwrap() > stop_s);
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    assert_eq!(container["livenessProbe"]["httpGet"]["path"], "/live");
    assert_eq!(container["readinessProbe"]["httpGet"]["path"], "/ready");
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
    assert_eq!(container["securityContext"]["allowPrivilegeEscalation"], false);
    let labels = &of("Deployment")["spec"]["template"]["metadata"]["labels"];
    assert_eq!(&of("Service")["spec"]["selector"], labels);
    assert_eq!(&of("PodDisruptionBudget")["spec"]["selector"]["matchLabels"], labels);
}

#[test]
fn packaging_systemd_unit_is_one() {
    let unit = text("systemd/polycast.service");
    for line in ["Type=notify-reload", "LimitMEMLOCK=infinity", "User=polycast"] {
        assert!(unit.lines().any(|it| it == line), "{line}");
    }
    assert!(text("systemd/polycast.sysusers").contains("\nu polycast "));
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--man=no"]);
    verify.args([path("systemd/polycast.service"), path("systemd/polycast.socket")]);
    let Ok(output) = verify.output() else {
        return println!("SKIPPED: there is no systemd-analyze");
    };
    let messages = String::from_utf8_lossy(&output.stderr);
    // The program is not installed, and systemd before 253 does not know this type.
    let expected = ["is not executable", "Failed to parse service type, ignoring: notify-reload"];
    let is_about_unit =
        |line: &&str| line.contains("polycast.service") || line.contains("polycast.socket");
    let wrong: Vec<&str> = messages
        .lines()
        .filter(is_about_unit)
        .filter(|line| !expected.iter().any(|known| line.contains(known)))
        .collect();
    assert!(wrong.is_empty(), "{messages}");
}
