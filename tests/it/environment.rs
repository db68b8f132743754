//! Keys that environment variables set: which names, which types, and the errors.

use polycast::config::{
    Config, ConfigInput, DuplicateSubscribe, Environment, FileFormat, SlowConsumer,
};
use proptest::collection::vec;
use proptest::prelude::*;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

const APP: &str = "[[apps]]\nid = '1'\nkey = 'k'\nsecret = 's'\n";
const APP_VARIABLES: [(&str, &str); 3] =
    [("POLYCAST_APP_ID", "7"), ("POLYCAST_APP_KEY", "k7"), ("POLYCAST_APP_SECRET", "s7")];

fn environment(variables: &[(&str, &str)]) -> Environment {
    variables.iter().copied().collect()
}

/// A file with variables. The name of the file is `f`.
fn with_file(text: &str, variables: &[(&str, &str)]) -> Result<Config, String> {
    let parsed = Config::parse_in(text, FileFormat::Toml, "f", &environment(variables));
    parsed.map_err(|error| error.to_string())
}

/// Variables and an application from a file.
fn with(variables: &[(&str, &str)]) -> Config {
    with_file(APP, variables).unwrap_or_else(|error| panic!("{variables:?}: {error}"))
}

fn refused(variables: &[(&str, &str)]) -> String {
    with_file(APP, variables).expect_err(&format!("{variables:?}"))
}

/// Variables without a file.
fn alone(variables: &[(&str, &str)]) -> Result<Config, String> {
    Config::from_environment(&environment(variables)).map_err(|error| error.to_string())
}

fn file(name: &str, content: &[u8]) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("environment");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(name), content).unwrap();
    folder.join(name)
}

#[test]
fn environment_sets_keys_of_every_type() {
    let config = with(&[
        ("POLYCAST_THREADS", "2"),
        ("POLYCAST_PIN", "false"),
        ("POLYCAST_SLOW_CONSUMER", "drop"),
        ("POLYCAST_PUSHER__ACTIVITY_TIMEOUT_S", "30"),
        ("POLYCAST_PUSHER__PATH_PREFIX", "/ws"),
        ("POLYCAST_LIMITS__WRITE_QUEUE_BYTES", "2MiB"),
        ("POLYCAST_LIMITS__MEMORY_BYTES", "33554432"),
        ("POLYCAST_APPS__0__LIMITS__EVENT_BYTES", "20KiB"),
        ("POLYCAST_APPS__0__DUPLICATE_SUBSCRIBE", "ack"),
        ("POLYCAST_APPS__0__ALLOWED_ORIGINS", "https://a.example, https://b.example"),
        ("POLYCAST_APPS__0__CORS_ORIGINS", "['https://c.example']"),
        ("POLYCAST_PROCESS__READABLE", ""),
        ("POLYCAST_APPS__0__WEBHOOKS__0__URL", "https://h.example/?a=1,2"),
        ("POLYCAST_APPS__0__WEBHOOKS__0__HEADERS", "{ X-Token = 't', X-Other = '$${A}' }"),
    ]);
    assert_eq!((config.threads, config.pin), (2, false));
    assert_eq!(config.slow_consumer, SlowConsumer::Drop);
    assert_eq!(config.pusher.activity_timeout_s, 30);
    assert_eq!(config.pusher.path_prefix, "/ws");
    assert_eq!(config.limits.write_queue_bytes, 2 << 20);
    assert_eq!(config.limits.memory_bytes, 32 << 20);
    let app = &config.apps[0];
    assert_eq!((app.id.as_str(), app.limits.event_bytes), ("1", 20 * 1024));
    assert_eq!(app.duplicate_subscribe, DuplicateSubscribe::Ack);
    let origins: Vec<&str> = app.allowed_origins.iter().map(|it| it.as_str()).collect();
    assert_eq!(origins, ["https://a.example", "https://b.example"]);
    assert_eq!(app.cors_origins[0].as_str(), "https://c.example");
    assert_eq!(config.process.readable, [""; 0]);
    let hook = &app.webhooks[0];
    assert_eq!(hook.url.expose(), "https://h.example/?a=1,2");
    assert_eq!(hook.headers["X-Other"].expose(), "$${A}", "no text of a variable is expanded");
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
}

#[test]
fn environment_sets_and_adds_entries_of_lists() {
    let text = format!(
        "{APP}[[listeners]]\naddress = '127.0.0.1:1'\nname = 'main'\n\
         [[listeners]]\naddress = '127.0.0.1:2'\n"
    );
    let variables = [
        ("POLYCAST_LISTENERS__10__ADDRESS", "127.0.0.1:11"),
        ("POLYCAST_LISTENERS__0__ADDRESS", "127.0.0.1:9"),
        ("POLYCAST_LISTENERS__3__ADDRESS", "127.0.0.1:4"),
        ("POLYCAST_LISTENERS__2__ADDRESS", "127.0.0.1:3"),
        ("POLYCAST_LISTENERS__4__ADDRESS", "127.0.0.1:5"),
        ("POLYCAST_LISTENERS__5__ADDRESS", "127.0.0.1:6"),
        ("POLYCAST_LISTENERS__6__ADDRESS", "127.0.0.1:7"),
        ("POLYCAST_LISTENERS__7__ADDRESS", "127.0.0.1:8"),
        ("POLYCAST_LISTENERS__8__ADDRESS", "127.0.0.1:9"),
        ("POLYCAST_LISTENERS__9__ADDRESS", "127.0.0.1:10"),
    ];
    let config = with_file(&text.replace("127.0.0.1:9", ""), &variables[..8]).unwrap_err();
    assert!(config.contains("the list has 8 entries before it"), "{config}");
    let mut whole = variables;
    whole[1].1 = "127.0.0.1:99";
    let config = with_file(&text, &whole).unwrap();
    let addresses: Vec<String> =
        config.listeners.iter().map(|listener| listener.address.to_string()).collect();
    let ports = [99, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];
    assert_eq!(addresses, ports.map(|port| format!("127.0.0.1:{port}")));
    assert!(config.listeners[0].name == "main", "the other keys of an entry stay");
}

#[test]
fn environment_takes_precedence_over_the_file() {
    let text = format!("threads = 3\n[pusher]\nactivity_timeout_s = 0\n{APP}");
    let config = with_file(&text, &[("POLYCAST_PUSHER__ACTIVITY_TIMEOUT_S", "9")]).unwrap();
    assert_eq!((config.threads, config.pusher.activity_timeout_s), (3, 9));
    // The value in the file is wrong, and so are both: each error says where.
    let error = with_file(&text, &[]).unwrap_err();
    assert!(error.starts_with("f:3:1: pusher.activity_timeout_s: 0 is out of range"), "{error}");
    let error = with_file(&text, &[("POLYCAST_PUSHER__ACTIVITY_TIMEOUT_S", "86401")]).unwrap_err();
    let want = "POLYCAST_PUSHER__ACTIVITY_TIMEOUT_S: pusher.activity_timeout_s: 86401 is out of";
    assert!(error.starts_with(want), "{error}");
    // A variable can set all of a section or list that the file has.
    let variables = [("POLYCAST_APPS", "[{ id = '2', key = 'k2', secret = '${S}' }]")];
    let config = with_file(&text.replace("= 0", "= 5"), &variables).unwrap();
    assert_eq!((config.apps.len(), config.apps[0].secret.expose()), (1, "${S}"));
}

#[test]
fn environment_names_that_are_unknown_are_refused_with_the_accepted_ones() {
    for (variable, replies) in [
        ("POLYCAST_PUSHR__PATH_PREFIX", ": pushr: unknown key; accepted keys: threads, pin, io,"),
        ("POLYCAST_PUSHER__PATH", ": pusher.path: unknown key; accepted keys: path_prefix, "),
        ("POLYCAST_APPS__0__LIMIT__CHANNELS", ": apps[0].limit: unknown key; accepted keys: id, "),
        ("POLYCAST_APPS__0__LIMITS__CHANNEL", ": apps[0].limits.channel: unknown key; accepted"),
        ("POLYCAST_THREADS__0", ": threads: expected an integer"),
        ("POLYCAST_LOG__", ": the name of a variable with `__` must be POLYCAST_SECTION__KEY"),
        ("POLYCAST___LOG", ": the name of a variable with `__` must be POLYCAST_SECTION__KEY"),
        ("POLYCAST_LOG__0", ": log: expected a table, found a list"),
    ] {
        let error = refused(&[(variable, "1")]);
        assert!(error.starts_with(&format!("{variable}{replies}")), "{error}");
        assert!(!error.contains('\n'));
    }
    let deep = |parts: usize| format!("POLYCAST_{}X", "A__".repeat(parts - 1));
    assert!(refused(&[(&deep(16), "1")]).contains("a: unknown key; accepted keys: threads"));
    assert!(refused(&[(&deep(17), "1")]).contains("must be POLYCAST_SECTION__KEY"));
    assert!(refused(&[(&deep(40_000), "1")]).contains("must be POLYCAST_SECTION__KEY"));
}

/// Kubernetes sets POLYCAST_PORT and others for a service of this name.
#[test]
fn environment_names_without_a_section_are_keys_or_warned_of() {
    let config = with(&[
        ("POLYCAST_DRAIN_S", "5"),
        ("POLYCAST_PORT", "tcp://10.0.0.1:80"),
        ("POLYCAST_PORT_80_TCP_ADDR", "10.0.0.1"),
        ("POLYCAST_SERVICE_HOST", "10.0.0.1"),
        ("POLYCAST_SERVICE_PORT_HTTP", "80"),
        ("POLYCAST_TEST_IO", "epoll"),
        ("POLYCAST_COUNT_HEAP", "1"),
        ("OTHER", "1"),
    ]);
    assert_eq!((config.drain_s, config.warnings.len()), (5, 0), "{:?}", config.warnings);
    let config = with(&[("POLYCAST_THREAD", "5")]);
    let warning = "the environment variable POLYCAST_THREAD has no effect, because there is no";
    assert!(config.warnings[0].starts_with(warning), "{:?}", config.warnings);
    let used = APP.replace("'s'", "'${POLYCAST_MY_SECRET}'");
    let config = with_file(&used, &[("POLYCAST_MY_SECRET", "mine")]).unwrap();
    assert_eq!((config.apps[0].secret.expose(), config.warnings.len()), ("mine", 0));
}

#[test]
fn environment_values_that_are_wrong_name_the_variable() {
    for (variable, value, replies) in [
        ("POLYCAST_THREADS", "257", "threads: 257 is out of range; accepted: 0 to 256"),
        ("POLYCAST_THREADS", "-1", "threads: expected an integer"),
        ("POLYCAST_THREADS", "1.5", "threads: expected an integer"),
        ("POLYCAST_THREADS", "", "threads: expected an integer"),
        ("POLYCAST_PIN", "yes", "pin: expected true or false, found a string"),
        ("POLYCAST_IO", "uring", "io: `uring` is not accepted; accepted: auto, io_uring, epoll"),
        ("POLYCAST_LOG", "debug", "log: expected a table, found a string"),
        ("POLYCAST_LOG", "{ level = ", "log: the value is not a TOML array or inline table: "),
        ("POLYCAST_LOG", "{ lebel = 'a' }", "log.lebel: unknown key; accepted keys: level, "),
        ("POLYCAST_LISTENERS", "[]\nx = 1", "listeners: the value is not a TOML array"),
        ("POLYCAST_LISTENERS__0__ADDRESS", "localhost:1", "listeners[0].address: "),
        ("POLYCAST_LIMITS__MEMORY_BYTES", "1 TB", "limits.memory_bytes: expected a size: "),
        ("POLYCAST_APPS__0__ID", "a b", "apps[0].id: `a b` is not accepted"),
        ("POLYCAST_APPS__0__ALLOWED_ORIGINS", "https://a,B", "apps[0].allowed_origins[1]: `B` "),
        ("POLYCAST_APPS__1__ID", "2", "apps[1].key: the key is missing and has no default"),
    ] {
        let error = refused(&[(variable, value)]);
        let by = variable.replace("APPS__1__ID", "APPS__1__KEY");
        assert!(error.starts_with(&format!("{by}: {replies}")), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
    // A relation between keys: the one that the file sets has its line.
    let text = format!("[limits]\nframe_bytes = 2000\n{APP}");
    let error = with_file(&text, &[("POLYCAST_LIMITS__MESSAGE_BYTES", "1000")]).unwrap_err();
    assert!(error.starts_with("f:2:1: limits.frame_bytes: 2000 is too large"), "{error}");
    // Deep nesting ends with an error.
    let error = refused(&[("POLYCAST_ROUTES", &"[".repeat(10_000))]);
    assert!(error.contains("the value is not a TOML array"), "{error}");
}

#[test]
fn environment_list_with_a_gap_is_refused() {
    let address = |index: usize| format!("POLYCAST_LISTENERS__{index}__ADDRESS");
    for (text, given, found) in [("", [0, 2], 1), ("", [1, 2], 0)] {
        let variables = given.map(address);
        let variables = [(variables[0].as_str(), "[::1]:1"), (variables[1].as_str(), "[::1]:2")];
        let error = with_file(&format!("{text}{APP}"), &variables).unwrap_err();
        let first = given.into_iter().find(|index| *index > found).unwrap();
        let want = format!(
            "{}: listeners[{first}].address: the list has {found} entries before it; entries are \
             numbered from 0 without gaps",
            address(first)
        );
        assert_eq!(error, want);
    }
    let huge = "POLYCAST_LISTENERS__18446744073709551615__ADDRESS";
    assert!(refused(&[(huge, "[::1]:1")]).contains("numbered from 0"));
    let beyond = "POLYCAST_LISTENERS__18446744073709551616__ADDRESS";
    assert!(refused(&[(beyond, "[::1]:1")]).contains("listeners: expected a list, found a table"));
}

#[test]
fn environment_value_that_is_not_utf8_is_refused() {
    let variable = (OsString::from("POLYCAST_LOG__LEVEL"), OsString::from_vec(vec![0xff]));
    let environment: Environment = [variable].into_iter().collect();
    let error = Config::parse_in(APP, FileFormat::Toml, "f", &environment).unwrap_err();
    assert_eq!(error.to_string(), "POLYCAST_LOG__LEVEL: log.level: the value is not UTF-8");
    // A name that is not UTF-8 is no key. Values of other programs' variables do not matter.
    let name = OsString::from_vec(b"POLYCAST_LOG__\xff".to_vec());
    let environment: Environment = [(name, OsString::from("1"))].into_iter().collect();
    let error = Config::parse_in(APP, FileFormat::Toml, "f", &environment).unwrap_err();
    assert!(error.to_string().contains("log.\u{fffd}: unknown key; accepted keys: level"));
    let variable = (OsString::from("OTHER"), OsString::from_vec(vec![0xff]));
    assert!(
        Config::parse_in(APP, FileFormat::Toml, "f", &[variable].into_iter().collect()).is_ok()
    );
}

#[test]
fn environment_value_that_is_long_is_bounded() {
    let longest = "x".repeat(64 * 1024);
    let config = with(&[("POLYCAST_APPS__0__SECRET", &longest)]);
    assert_eq!(config.apps[0].secret.expose(), longest);
    let error = refused(&[("POLYCAST_APPS__0__SECRET", &format!("{longest}x"))]);
    let want = "POLYCAST_APPS__0__SECRET: apps[0].secret: the value has more than 65536 bytes";
    assert_eq!(error, want);
    // An error shows only the beginning of a long value.
    let error = refused(&[("POLYCAST_APPS__0__ID", &longest.replace('x', "é"))]);
    assert!(error.contains("more than 65536 bytes"), "{error}");
    let error = refused(&[("POLYCAST_APPS__0__ID", &"é".repeat(10_000))]);
    assert!(error.contains("é... is not accepted") || error.contains("é...` is"), "{error}");
    assert!(error.chars().count() < 400, "{error}");
}

#[test]
fn environment_key_that_two_variables_set_is_refused() {
    for (one, two) in [
        ("POLYCAST_LOG", "POLYCAST_LOG__LEVEL"),
        ("POLYCAST_LOG__LEVEL", "POLYCAST_LOG__level"),
        ("POLYCAST_APPS", "POLYCAST_APPS__0__ID"),
        ("POLYCAST_APPS__00__ID", "POLYCAST_APPS__0__ID"),
    ] {
        let error = refused(&[(one, "1"), (two, "1")]);
        let names = error.contains(&format!("`{one}`")) && error.starts_with(two)
            || error.contains(&format!("`{two}`")) && error.starts_with(one);
        assert!(names && error.contains("set only one of the two"), "{error}");
    }
}

#[test]
fn environment_application_needs_no_file() {
    let config = alone(&APP_VARIABLES).unwrap();
    let app = &config.apps[0];
    assert_eq!((app.id.as_str(), app.key.as_str(), app.secret.expose()), ("7", "k7", "s7"));
    assert!(!config.is_demo && !app.client_events && config.warnings.is_empty());
    assert_eq!(config.routes, Config::default().routes);
    // Further keys of the same application, and a second one.
    let mut more = APP_VARIABLES.to_vec();
    more.extend([
        ("POLYCAST_APPS__0__CLIENT_EVENTS", "true"),
        ("POLYCAST_APPS__1__ID", "8"),
        ("POLYCAST_APPS__1__KEY", "k8"),
        ("POLYCAST_APPS__1__SECRET", "s8"),
        ("POLYCAST_LISTENERS__0__ADDRESS", "0.0.0.0:0"),
    ]);
    let config = alone(&more).unwrap();
    assert!(config.apps[0].client_events && config.apps.len() == 2);
    // Two of three, also if the third has its long name.
    for missing in 0..3 {
        let mut two = APP_VARIABLES.to_vec();
        let (name, value) = two.remove(missing);
        let error = alone(&two).unwrap_err();
        let given = two[0].0;
        assert!(error.starts_with(&format!("{name}: the variable is not set, but {given} is")));
        let long = name.replace("POLYCAST_APP_", "POLYCAST_APPS__0__");
        two.push((&long, value));
        assert_eq!(alone(&two).unwrap().apps[0].id, "7");
        two.push((name, value));
        assert!(alone(&two).unwrap_err().contains("set only one of the two"));
    }
}

/// Files that use the variables in `${...}` stay valid, also with several applications.
#[test]
fn environment_application_yields_to_those_of_the_file() {
    let two = "[[apps]]\nid = 'a'\nkey = 'a'\nsecret = 'a'\n[[apps]]\n\
               id = '${POLYCAST_APP_ID}'\nkey = 'b'\nsecret = '${POLYCAST_APP_SECRET}'\n";
    let config = with_file(two, &[APP_VARIABLES[0], APP_VARIABLES[2]]).unwrap();
    let secrets: Vec<&str> = config.apps.iter().map(|app| app.secret.expose()).collect();
    assert_eq!((secrets, config.warnings.len()), (vec!["a", "s7"], 0));
    let config = with(&APP_VARIABLES);
    assert_eq!(config.apps[0].id, "1");
    let warning = "POLYCAST_APP_ID has no effect, because the configuration file has applications";
    assert!(config.warnings.len() == 3 && config.warnings[0].contains(warning));
    // A file without applications, or with an empty list, gets the one of the variables.
    for text in ["threads = 1\n", "threads = 1\napps = []\n"] {
        assert_eq!(with_file(text, &APP_VARIABLES).unwrap().apps[0].id, "7");
    }
}

#[test]
fn environment_without_an_application_serves_the_demo() {
    assert_eq!(alone(&[]).unwrap(), Config::demo());
    let config = alone(&[("POLYCAST_THREADS", "2")]).unwrap();
    assert_eq!(config, Config { threads: 2, ..Config::demo() });
    let error = alone(&[("POLYCAST_LISTENERS__0__ADDRESS", "0.0.0.0:0")]).unwrap_err();
    let named = error.starts_with("POLYCAST_LISTENERS__0__ADDRESS: ");
    assert!(named && error.contains("not a loopback") && error.contains("POLYCAST_APP_ID"));
    // What needs no application gets none.
    let echo = [("POLYCAST_ROUTES__0__ENDPOINT", "echo")];
    assert_eq!(alone(&echo).unwrap().apps, []);
    let zenith = [("POLYCAST_ZENITH__NAME", "z")];
    let config = alone(&zenith).unwrap();
    assert!(config.apps.is_empty() && !config.is_demo && config.zenith.is_some());
    let error = alone(&[("POLYCAST_APPS__0__NAME", "mine")]).unwrap_err();
    assert!(error.starts_with("POLYCAST_APPS__0__ID: apps[0].id: the key is missing"), "{error}");
}

#[test]
fn environment_profile_applies_to_an_application_of_variables() {
    let mut variables = APP_VARIABLES.to_vec();
    variables.push(("POLYCAST_APPS__0__PROFILE", "soketi"));
    let config = alone(&variables).unwrap();
    assert_eq!(config.apps[0].duplicate_subscribe, DuplicateSubscribe::Ack);
    assert_eq!(config.apps[0].limits.event_bytes, 100 * 1024);
    variables.push(("POLYCAST_APPS__0__LIMITS__EVENT_BYTES", "7"));
    assert_eq!(alone(&variables).unwrap().apps[0].limits.event_bytes, 7);
}

#[test]
fn environment_secret_of_the_application_from_a_file() {
    let secret = file("secret", b"from a file\n");
    let (id, key) = (APP_VARIABLES[0], APP_VARIABLES[1]);
    let from = |path: &str| alone(&[id, key, ("POLYCAST_APP_SECRET_FILE", path)]);
    let config = from(secret.to_str().unwrap()).unwrap();
    assert_eq!(config.apps[0].secret.expose(), "from a file");
    assert_eq!(config.secret_files, std::slice::from_ref(&secret));
    let error = from("no/such").unwrap_err();
    let want = "POLYCAST_APP_SECRET_FILE: apps[0].secret: the file no/such cannot be read: No such";
    assert!(error.starts_with(want), "{error}");
    let both = [id, key, APP_VARIABLES[2], ("POLYCAST_APP_SECRET_FILE", secret.to_str().unwrap())];
    assert!(alone(&both).unwrap_err().contains("set only one of the two"));
}

/// `_FILE` after the name of a key, unless that is a key itself.
#[test]
fn environment_value_of_any_key_from_a_file() {
    let (level, secret) = (file("level", b"warn\n"), file("hook", b"https://h.example/${X}"));
    let name = |path: &PathBuf| path.to_str().unwrap().to_owned();
    let config = with(&[
        ("POLYCAST_LOG__LEVEL_FILE", &name(&level)),
        ("POLYCAST_APPS__0__WEBHOOKS__0__URL_FILE", &name(&secret)),
        ("POLYCAST_APPS__0__WEBHOOKS__0__CA_FILE", ""),
    ]);
    assert_eq!(config.log.level, "warn");
    let hook = &config.apps[0].webhooks[0];
    assert_eq!((hook.url.expose(), hook.ca_file.as_str()), ("https://h.example/${X}", ""));
    assert_eq!(config.secret_files, [secret, level.clone()]);
    for (variable, replies) in [
        ("POLYCAST_LOG__LEVLE_FILE", "log.levle_file: unknown key; accepted keys: level, format"),
        ("POLYCAST_LOG__FILE", "log.file: unknown key"),
        ("POLYCAST_THREADS__FILE", "threads: expected an integer"),
        ("POLYCAST_LOG__FORMAT_FILE", "log.format: `warn` is not accepted; accepted: text, json"),
        ("POLYCAST_PUSHER__PONG_TIMEOUT_S_FILE", "pusher.pong_timeout_s: expected an integer"),
    ] {
        let error = refused(&[(variable, &name(&level))]);
        assert!(error.starts_with(&format!("{variable}: {replies}")), "{error}");
    }
    let both = [("POLYCAST_LOG__LEVEL_FILE", name(&level)), ("POLYCAST_LOG__LEVEL", "info".into())];
    let both = both.each_ref().map(|(name, value)| (*name, value.as_str()));
    assert!(refused(&both).contains("set only one of the two"));
}

#[test]
fn environment_secrets_of_a_file_are_read_again_with_each_load() {
    let secret = file("rotated", b"one\n");
    let folder = secret.parent().unwrap().to_owned();
    let text = "[[apps]]\nid = '1'\nkey = 'k'\nsecret = '${file:rotated}'\n\
                [[apps.keys]]\nkey = 'old'\nsecret = '${credential:rotated}'\n";
    let input = ConfigInput::File(file("rotated.toml", text.as_bytes()));
    let variables = environment(&[("CREDENTIALS_DIRECTORY", folder.to_str().unwrap())]);
    for content in ["one", "two"] {
        fs::write(&secret, format!("{content}\n")).unwrap();
        let config = input.load(&variables).unwrap();
        assert_eq!(config.apps[0].secret.expose(), content);
        assert_eq!(config.apps[0].keys[0].secret.expose(), content);
        assert_eq!(config.secret_files, std::slice::from_ref(&secret));
    }
    fs::remove_file(&secret).unwrap();
    let error = input.load(&variables).unwrap_err().to_string();
    let place = ":7:10: apps[0].keys[0].secret";
    let want = format!("{place}: the file {} cannot be read: No such file", secret.display());
    assert!(error.contains(&want), "{error}");
    let error = input.load(&environment(&[])).unwrap_err().to_string();
    assert!(error.contains(&format!("{place}: the credential `rotated` cannot be")), "{error}");
}

#[test]
fn environment_cannot_set_keys_of_a_zilla_file() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/zilla/echo.yaml");
    let input = ConfigInput::File(path.into());
    assert!(input.load(&environment(&[("POLYCAST_THREAD", "1")])).is_ok());
    let error = input.load(&environment(&[("POLYCAST_THREADS", "1")])).unwrap_err().to_string();
    assert!(error.starts_with("POLYCAST_THREADS: a variable cannot set a key of a Zilla file"));
}

#[test]
fn environment_debug_output_has_no_values() {
    let text = format!("{:?}", environment(&APP_VARIABLES));
    assert!(text.contains("POLYCAST_APP_SECRET") && !text.contains("s7"), "{text}");
}

proptest! {
    /// Whatever variables there are, the answer is a configuration, or an error of one line.
    #[test]
    fn environment_of_any_variables_is_read_or_refused(
        variables in vec(("[A-Z_0-9]{0,12}(__[A-Z_0-9]{0,10}){0,4}", "\\PC{0,20}"), 0..4),
        section in prop::sample::select(vec!["APPS__0", "LOG", "LISTENERS", "ROUTES__0", "LIMITS"]),
        key in prop::sample::select(vec!["ID", "LEVEL", "0__ADDRESS", "ENDPOINT", "FRAGMENTS"]),
        value in "[-0-9a-z,.:\\[\\]{}='\" ]{0,16}",
    ) {
        let mut all: Vec<(String, String)> = variables
            .into_iter()
            .map(|(name, value)| (format!("POLYCAST_{name}"), value))
            .collect();
        all.push((format!("POLYCAST_{section}__{key}"), value));
        let environment: Environment = all.into_iter().collect();
        if let Err(error) = Config::parse_in(APP, FileFormat::Toml, "f", &environment) {
            let error = error.to_string();
            prop_assert!(!error.contains('\n') && error.contains(": "), "{error}");
        }
    }
}
