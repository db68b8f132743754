//! The command line: its output and its exit codes.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

const APP: &str = "[[apps]]\nid = '1'\nkey = 'k'\nsecret = 's'\n";
const APP_YAML: &str = "apps:\n  - id: '1'\n    key: k\n    secret: s\n";

fn polycast(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_polycast"));
    command.args(arguments).stdin(Stdio::null()).env_remove("POLYCAST_TEST_UNSET");
    command.output().unwrap()
}

/// Writes a file for one test, under a name that no other test uses.
fn file(name: &str, text: &str) -> String {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("cli");
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn stdout(output: &Output) -> &str {
    str::from_utf8(&output.stdout).unwrap()
}

/// Runs the command, which must fail: one line on standard error, nothing on standard output, and
/// exit code 2. Returns the line.
fn refusal(arguments: &[&str]) -> String {
    let output = polycast(arguments);
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
    assert_eq!(stdout(&output), "", "{arguments:?}");
    assert_eq!(text.matches('\n').count(), 1, "{arguments:?}: {text}");
    assert!(text.starts_with("polycast: ") && text.ends_with('\n'), "{text}");
    text
}

#[test]
fn cli_help_names_every_command_and_option() {
    let output = polycast(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(output.stderr, b"");
    for word in [
        "serve",
        "check",
        "config",
        "doctor",
        "genconfig",
        "import",
        "schema",
        "--compat",
        "--config",
        "--listen",
        "--threads",
        "--no-pin",
        "--log-level",
        "--log-format",
        "--version",
        "Examples:",
        "Exit codes:",
        "app-secret",
    ] {
        assert!(stdout(&output).contains(word), "{word}");
    }
    for command in ["serve", "check", "config", "doctor", "genconfig", "import", "schema"] {
        assert_eq!(polycast(&[command, "--help"]).status.code(), Some(0), "{command}");
    }
}

#[test]
fn cli_config_prints_the_example_and_the_reference() {
    let example = include_str!("../../polycast.example.toml");
    let reference = include_str!("../../docs/configuration.md");
    for (what, file) in [("example", example), ("reference", reference)] {
        let output = polycast(&["config", what]);
        assert_eq!((output.status.code(), stdout(&output)), (Some(0), file));
    }
    assert!(refusal(&["config", "other"]).contains("invalid value 'other'"));
}

#[test]
fn cli_version_is_the_crates_with_the_optional_parts() {
    let output = polycast(&["--version"]);
    assert_eq!(output.status.code(), Some(0));
    let wanted = concat!(
        "polycast ",
        env!("CARGO_PKG_VERSION"),
        "\nfeatures: acme, cluster-nats, cluster-redis, import-zilla, models, pkcs12, yaml, ",
        "zenith, zilliqa\n",
        "not compiled in: none\n"
    );
    assert_eq!(stdout(&output), wanted);
    assert_eq!(stdout(&polycast(&["-V"])), wanted);
}

#[test]
fn cli_check_summarises_a_good_file() {
    let two = "listeners = [{ address = '127.0.0.1:1' }, { address = '[::1]:1' }]\nthreads = 2\n";
    for (name, text, sum) in [
        ("good.toml", APP.to_owned(), "1 listener, 1 app, 5 routes, one thread per core"),
        ("two.toml", format!("{two}{APP}"), "2 listeners, 1 app, 5 routes, 2 threads"),
        ("good.yaml", APP_YAML.to_owned(), "1 listener, 1 app, 5 routes, one thread per core"),
        ("good.yml", format!("threads: 1\n{APP_YAML}"), "1 listener, 1 app, 5 routes, 1 thread"),
    ] {
        let path = file(name, &text);
        let output = polycast(&["check", &path]);
        assert_eq!(stdout(&output), format!("{path}: ok: {sum}\n"));
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(output.stderr, b"");
    }
}

#[test]
fn check_warns_of_an_exporter_that_has_no_effect() {
    let echo = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/zilla/echo.yaml"));
    let otlp = "type: otlp\n      options:\n        endpoint:\n          location: http://c:4318\n";
    let path = file("otlp.yaml", &echo.unwrap().replace("type: stdout\n", otlp));
    let output = polycast(&["check", &path]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let warning = String::from_utf8(output.stderr).unwrap();
    let want =
        format!("polycast: warning: {path}:36:5: telemetry.exporters.events: an exporter of");
    assert!(warning.starts_with(&want), "{warning}");
    assert_eq!(warning.lines().count(), 1);
}

#[test]
fn cli_check_accepts_the_example() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/polycast.example.toml");
    assert_eq!(polycast(&["check", example]).status.code(), Some(0));
}

#[test]
fn cli_check_reads_the_files_of_a_listener() {
    let pair = |key: &str| {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");
        let pair = format!("{{ cert = '{folder}/ec.pem', key = '{folder}/{key}' }}");
        let listener = "[[listeners]]\naddress = '127.0.0.1:1'\ntls.certificates";
        (folder, format!("{listener} = [{pair}]\n{APP}"))
    };
    let path = file("tls.toml", &pair("ec.key").1);
    let output = polycast(&["check", &path]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let (folder, text) = pair("none.key");
    let path = file("tls.toml", &text);
    let output = polycast(&["check", &path]);
    assert_eq!(output.status.code(), Some(2));
    let replies = String::from_utf8(output.stderr).unwrap();
    let key = "listeners[0].tls.certificates[0].key";
    let clear = format!(": {key}: {folder}/none.key cannot be read: No such file");
    assert!(replies.contains(&format!("{path}:3:")) && replies.contains(&clear), "{replies}");
}

#[test]
fn cli_check_names_line_key_and_accepted_values() {
    for (name, text, replies) in [
        (
            "range.toml",
            format!("\nthreads = 999\n{APP}"),
            ":2:1: threads: 999 is out of range; accepted: 0 to 256",
        ),
        (
            "range.yaml",
            format!("{APP_YAML}threads: 999\n"),
            ":5:1: threads: 999 is out of range; accepted: 0 to 256",
        ),
        (
            "word.toml",
            format!("slow_consumer = 'wait'\n{APP}"),
            ":1:17: slow_consumer: `wait` is not accepted; accepted: close, drop",
        ),
        (
            "word.yml",
            format!("slow_consumer: wait\n{APP_YAML}"),
            ":1:16: slow_consumer: `wait` is not accepted; accepted: close, drop",
        ),
        (
            "key.toml",
            format!("log.lebel = 'info'\n{APP}"),
            ":1:5: log.lebel: unknown key; accepted keys: level, format",
        ),
        (
            "key.yaml",
            format!("log:\n  lebel: info\n{APP_YAML}"),
            ":2:3: log.lebel: unknown key; accepted keys: level, format",
        ),
        (
            "type.toml",
            format!("pin = 'yes'\n{APP}"),
            ":1:7: pin: expected true or false, found a string",
        ),
        ("syntax.toml", "threads = \n".to_owned(), ":1:"),
        ("syntax.yaml", "threads: [\n".to_owned(), ":1:"),
        (
            "variable.toml",
            format!("threads = '${{POLYCAST_TEST_UNSET}}'\n{APP}"),
            ":1:11: threads: the environment variable `POLYCAST_TEST_UNSET` is not set",
        ),
        (
            "empty.toml",
            String::new(),
            ": apps: expected at least one entry, or the variables POLYCAST_APP_ID",
        ),
    ] {
        let path = file(name, &text);
        for arguments in [&["check", &path][..], &["--config", &path], &["serve", "-c", &path]] {
            let error = refusal(arguments);
            assert!(error.starts_with(&format!("polycast: {path}{replies}")), "{error}");
        }
    }
}

#[test]
fn cli_names_a_file_that_cannot_be_read() {
    assert!(refusal(&["check", "no/such.toml"]).contains("no/such.toml: cannot be read: No such"));
    assert!(refusal(&["--config", "no/such.yaml"]).contains("no/such.yaml: cannot be read"));
    assert!(refusal(&["check", "polycast.conf"]).contains(".toml, .yaml or .yml"));
    assert!(refusal(&["check", "polycast"]).contains(".toml, .yaml or .yml"));
}

#[test]
fn cli_wrong_arguments_are_one_line() {
    for (arguments, replies) in [
        (
            &["--lisen", "127.0.0.1:1"][..],
            "unexpected argument '--lisen' found; tip: a similar argument exists: '--listen'",
        ),
        (&["completions"], "required arguments were not provided: <SHELL>"),
        (&["frob"], "unrecognized subcommand 'frob'"),
        (&["--listen", "localhost:1"], "invalid value 'localhost:1' for '--listen <ADDR>'"),
        (&["serve", "--threads", "x"], "invalid value 'x' for '--threads <N>'"),
        (&["--log-format", "xml"], "[possible values: text, json]"),
        (
            &["--log-level", "debgu"],
            "command line: log.level: `debgu` is not accepted; accepted: off",
        ),
        (&["--threads", "257"], "command line: threads: 257 is out of range; accepted: 0 to 256"),
    ] {
        let error = refusal(arguments);
        assert!(error.contains(replies), "{error}");
    }
}

#[test]
fn cli_demo_refuses_addresses_beyond_loopback() {
    let error = refusal(&["--listen", "0.0.0.0:0"]);
    assert!(error.contains("0.0.0.0:0 is not a loopback address"), "{error}");
    assert!(error.contains("write a configuration"), "{error}");
}

#[test]
fn cli_variables_come_from_the_environment() {
    let path = file("environment.toml", &format!("threads = '${{POLYCAST_TEST_N}}'\n{APP}"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_polycast"));
    let output = command.args(["check", &path]).env("POLYCAST_TEST_N", "3").output().unwrap();
    assert!(stdout(&output).ends_with(", 3 threads\n"), "{}", stdout(&output));
}

#[test]
fn cli_check_honours_the_variables_of_keys() {
    let path = file("layer.toml", &format!("threads = 1\n{APP}"));
    let run = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_polycast"));
        command.args(arguments).envs(variables.iter().copied()).stdin(Stdio::null());
        command.output().unwrap()
    };
    let output = run(&["check", &path], &[("POLYCAST_THREADS", "2")]);
    assert!(stdout(&output).ends_with(", 2 threads\n"), "{output:?}");
    let output = run(&["check"], &[("POLYCAST_THREADS", "3")]);
    let sum = "environment: ok: 1 listener, 1 app, 5 routes, 3 threads\n";
    assert_eq!(stdout(&output), sum, "{output:?}");
    for arguments in [&["check", &path][..], &["check"], &["serve"], &["--config", &path]] {
        let output = run(arguments, &[("POLYCAST_LOG__LEVLE", "info")]);
        assert_eq!(output.status.code(), Some(2));
        let want = "polycast: POLYCAST_LOG__LEVLE: log.levle: unknown key; accepted keys: level, ";
        assert!(String::from_utf8_lossy(&output.stderr).starts_with(want), "{output:?}");
    }
    let output = run(&["check", &path], &[("POLYCAST_THREAD", "2")]);
    let warning = "polycast: warning: the environment variable POLYCAST_THREAD has no effect";
    assert!(String::from_utf8_lossy(&output.stderr).starts_with(warning), "{output:?}");
}

#[test]
fn cli_genconfig_writes_a_valid_file_with_fresh_secrets_once() {
    use std::os::unix::fs::PermissionsExt;
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("genconfig");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    let paths = ["a.toml", "b.toml"].map(|name| folder.join(name).to_str().unwrap().to_owned());
    for path in &paths {
        let output = polycast(&["genconfig", "-o", path]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        let output = polycast(&["check", path]);
        assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "{output:?}");
    }
    let texts = paths.each_ref().map(|path| fs::read_to_string(path).unwrap());
    let secrets = |text: &str| -> Vec<String> {
        let names = ["key = \"", "secret = \"", "token = \"", "# token = \""];
        let is_secret = |line: &&str| names.iter().any(|name| line.starts_with(name));
        let lines = text.lines().filter(is_secret).map(str::to_owned);
        lines.filter(|line| !line.ends_with("\"\"")).collect()
    };
    let all: Vec<String> = texts.iter().flat_map(|text| secrets(text)).collect();
    assert_eq!(all.len(), 12, "key, secret, and tokens of console, metrics and Zenith: {all:?}");
    for (at, line) in all.iter().enumerate() {
        assert!(!all[..at].contains(line), "{line} is there twice");
        assert!(line.split('"').nth(1).is_some_and(|it| it.len() >= 20), "{line}");
    }
    assert!(!texts[0].contains("change-this"));
    // An existing file stays as it is, and a name of another format is refused.
    let output = polycast(&["genconfig", "--output", &paths[0]]);
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(message.contains(&format!("{} cannot be written: File exists", paths[0])), "{message}");
    assert_eq!(fs::read_to_string(&paths[0]).unwrap(), texts[0]);
    assert!(refusal(&["genconfig", "-o", "a.yaml"]).contains("a.yaml: expected a file name that"));
    // Without a file, it is printed.
    assert!(stdout(&polycast(&["genconfig"])).contains("[[apps]]"));
}

#[test]
fn cli_import_prints_a_file_that_passes_the_check() {
    let theirs = file(
        "soketi.json",
        r#"{ "port": 6009, "appManager.array.apps": [{ "id": "a", "key": "k", "secret": "s" }],
             "database.redis.host": "redis" }"#,
    );
    let output = polycast(&["import", "soketi", &theirs]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let notes = String::from_utf8_lossy(&output.stderr);
    let want = "polycast: database.redis.host: applications are in this server's configuration";
    assert!(notes.starts_with(want) && notes.lines().count() == 1, "{notes}");
    let ours = file("imported.toml", stdout(&output));
    let checked = polycast(&["check", &ours]);
    assert_eq!(checked.status.code(), Some(0), "{checked:?}");
    assert!(stdout(&output).contains("address = \"0.0.0.0:6009\""), "{output:?}");
    let unknown = refusal(&["import", "socketcluster", &theirs]);
    assert!(unknown.contains("accepted: soketi, sockudo, reverb, pusher"), "{unknown}");
    assert!(refusal(&["import", "reverb"]).contains("required arguments were not provided"));
    let php = file("reverb.php", "<?php return [];");
    assert!(refusal(&["import", "reverb", &php]).contains("a PHP file cannot be read"));
}

#[test]
fn cli_compat_excludes_a_configuration_file() {
    let path = file("compat.toml", APP);
    let error = refusal(&["--compat", "soketi", "--config", &path]);
    assert!(error.contains("'--compat <SERVER>' cannot be used with '--config <FILE>'"), "{error}");
    assert!(refusal(&["--compat", "other"]).contains("accepted: soketi, sockudo, reverb, pusher"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_polycast"));
    let output = command.args(["--compat", "reverb"]).stdin(Stdio::null()).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("REVERB_APP_ID: the variable is not set"), "{error}");
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn cli_schema_prints_the_schema() {
    let output = polycast(&["schema"]);
    let schema: serde_json::Value = serde_json::from_str(stdout(&output)).unwrap();
    assert_eq!(schema["properties"]["log"]["additionalProperties"], false);
}

#[test]
fn cli_survives_a_full_disk_and_closed_output() {
    let good = file("output.toml", APP);
    for (arguments, code) in [(&["check", &good][..], 0), (&["check", "none.toml"], 2)] {
        let full = || fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_polycast"));
        command.args(arguments).stdout(full()).stderr(full());
        assert_eq!(command.status().unwrap().code(), Some(code), "{arguments:?}");
        let closed = std::io::pipe().unwrap().1;
        command.stdout(closed.try_clone().unwrap()).stderr(closed);
        assert_eq!(command.status().unwrap().code(), Some(code), "{arguments:?}");
    }
}

#[test]
fn cli_prints_completions_for_each_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = polycast(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0), "{shell}");
        let script = stdout(&output);
        for word in ["polycast", "log-format", "doctor"] {
            assert!(script.contains(word), "{shell} without {word}");
        }
    }
    let text = refusal(&["completions", "tcl"]);
    assert!(text.contains("tcl") && text.contains("bash"), "{text}");
}

#[test]
fn cli_prints_the_manual_page() {
    let output = polycast(&["man"]);
    assert_eq!(output.status.code(), Some(0));
    let page = stdout(&output);
    for line in [".TH polycast 1", ".SH OPTIONS", "log\\-format", "Exit codes:", "completions"] {
        assert!(page.contains(line), "no {line}: {page}");
    }
    assert!(page.contains(env!("CARGO_PKG_VERSION")));
}
