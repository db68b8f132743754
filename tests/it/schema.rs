//! The JSON Schema of the configuration: it accepts what the server accepts, and refuses what it
//! refuses by type, range, word or unknown key.

use jsonschema::Validator;
use polycast::config::{self, Config, FileFormat};
use serde_json::Value;
use std::fs;
use std::path::Path;

const APP: &str = "[[apps]]\nid = '1'\nkey = 'k'\nsecret = 's'\n";

fn schema() -> Value {
    serde_json::from_str(&config::schema()).unwrap()
}

fn validator() -> Validator {
    jsonschema::draft202012::new(&schema()).unwrap()
}

fn document(text: &str) -> Value {
    let table: toml::Table = text.parse().unwrap_or_else(|error| panic!("{error}: {text}"));
    serde_json::to_value(table).unwrap()
}

fn complaints(validator: &Validator, document: &Value) -> Vec<String> {
    let complaint =
        |error: jsonschema::ValidationError<'_>| format!("{}: {error}", error.instance_path());
    validator.iter_errors(document).map(complaint).collect()
}

/// The example with its comments that are keys as keys.
fn uncommented(example: &str) -> Vec<String> {
    let block = |from: &str| {
        let start = example.find(from).unwrap_or_else(|| panic!("{from}"));
        let lines = example[start..].lines().take_while(|line| line.starts_with('#'));
        let text: String = lines.map(|line| format!("{}\n", line[1..].trim_start())).collect();
        format!("{APP}{text}")
    };
    ["# [[guards]]", "# [[apps.webhooks]]", "# [[apps.history]]", "# [zenith]"].map(block).to_vec()
}

#[test]
fn schema_is_valid_and_describes_every_key() {
    let schema = schema();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert!(jsonschema::meta::is_valid(&schema));
    let mut keys = 0;
    let mut tables = vec![("".to_owned(), &schema)];
    while let Some((path, table)) = tables.pop() {
        assert_eq!(table["additionalProperties"], false, "{path}");
        for (name, key) in table["properties"].as_object().unwrap() {
            let path = format!("{path}.{name}");
            keys += 1;
            assert!(key["description"].as_str().is_some_and(|it| it.len() > 5), "{path}");
            let entries = if key["items"].is_object() { &key["items"] } else { key };
            if entries["properties"].is_object() {
                tables.push((path, entries));
            } else {
                let kind = &entries["type"];
                let is_map = entries["additionalProperties"].is_object();
                assert!(*kind != "object" || is_map, "{path}: a table without keys");
            }
        }
    }
    assert!(keys > 250, "{keys} keys");
}

#[test]
fn schema_has_the_keys_that_the_reader_accepts() {
    let schema = schema();
    for (path, text) in [
        ("", "no_such_key = 1\n".to_owned() + APP),
        ("limits", format!("[limits]\nno_such_key = 1\n{APP}")),
        ("apps", format!("{APP}no_such_key = 1\n")),
        ("apps.limits", format!("{APP}[apps.limits]\nno_such_key = 1\n")),
        ("apps.webhooks", format!("{APP}[[apps.webhooks]]\nno_such_key = 1\n")),
        ("listeners", format!("[[listeners]]\nno_such_key = 1\n{APP}")),
        ("listeners.tls", format!("[[listeners]]\ntls.no_such_key = 1\n{APP}")),
        ("routes", format!("[[routes]]\nno_such_key = 1\n{APP}")),
        ("routes.proxy.tls", format!("[[routes]]\nproxy.tls.no_such_key = 1\n{APP}")),
        ("routes.model.sent.text", format!("[[routes]]\nmodel.sent.text.no_such_key = 1\n{APP}")),
        ("catalogs", format!("[[catalogs]]\nno_such_key = 1\n{APP}")),
        ("zenith.topics", format!("[[zenith.topics]]\nno_such_key = 1\n{APP}")),
        ("links.views", format!("[[links]]\n[[links.views]]\nno_such_key = 1\n{APP}")),
    ] {
        let error = Config::parse(&text, FileFormat::Toml, "f").unwrap_err().to_string();
        let known = error.split_once("accepted keys: ").unwrap_or_else(|| panic!("{error}")).1;
        let mut known: Vec<&str> = known.split(", ").collect();
        known.sort_unstable();
        let mut table = &schema;
        for part in path.split('.').filter(|part| !part.is_empty()) {
            table = &table["properties"][part];
            table = if table["items"].is_object() { &table["items"] } else { table };
        }
        let properties: Vec<&String> = table["properties"].as_object().unwrap().keys().collect();
        assert_eq!(properties, known, "{path}");
    }
}

#[test]
fn schema_accepts_the_example_and_other_valid_files() {
    let validator = validator();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let example = config::example();
    let mut files = vec![("example".to_owned(), document(&example))];
    for text in uncommented(&example) {
        files.push((text.clone(), document(&text)));
    }
    for folder in ["examples", "packaging/docker"] {
        for entry in fs::read_dir(root.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if FileFormat::of(&path) == Some(FileFormat::Toml) {
                let text = fs::read_to_string(&path).unwrap();
                files.push((path.display().to_string(), document(&text)));
            }
        }
    }
    assert!(files.len() > 5, "{}", files.len());
    let yaml = "log:\nprocess:\napps:\n  - id: '1'\n    key: k\n    secret: s\n    webhooks:\n";
    files.push((yaml.to_owned(), serde_saphyr::from_str(yaml).unwrap()));
    for (name, file) in files {
        let complaints = complaints(&validator, &file);
        assert!(complaints.is_empty(), "{name}: {complaints:?}");
    }
}

/// Each text is read by the server, too, with the same outcome.
#[test]
fn schema_agrees_with_the_reader() {
    let validator = validator();
    let mut wrong = Vec::new();
    let registry = "[[catalogs]]\nname = 'r'\nurl = 'https://r.example'\n";
    for (text, is_valid) in [
        ("threads = 0", true),
        ("threads = 256", true),
        ("threads = 257", false),
        ("threads = -1", false),
        ("threads = 1.5", false),
        ("threads = '12'", true),
        ("threads = 'twelve'", false),
        ("threads = '${THREADS:-3}'", true),
        ("pin = false", true),
        ("pin = 'true'", true),
        ("pin = 'yes'", false),
        ("pin = 1", false),
        ("io = 'epoll'", true),
        ("io = '${IO:-epoll}'", true),
        ("io = 'kqueue'", false),
        ("no_such_key = 1", false),
        ("log.level = 'warn'", true),
        ("log = 'warn'", false),
        ("limits.memory_bytes = 0", true),
        ("limits.memory_bytes = 16777215", false),
        ("limits.memory_bytes = 16777216", true),
        ("limits.memory_bytes = '32 MiB'", true),
        ("limits.memory_bytes = '32 Mi'", false),
        ("limits.receive_buffers = 32", true),
        ("limits.receive_buffers = 33", false),
        ("limits.receive_buffers = 8", false),
        ("limits.http_body_bytes = '2MB'", true),
        ("metrics.namespace = ''", false),
        ("metrics.namespace = 'n'", true),
        ("listeners = [{ address = '[::1]:1', forwarded_hops = 17 }]", false),
        ("listeners = [{ name = 'a' }]", false),
        ("listeners = [{ address = '[::1]:1', name = 'a' }]", true),
        ("listeners = '127.0.0.1:1'", false),
        ("routes = [{ endpoint = 'echo' }, { endpoint = 'apps', guarded = {} }]", true),
        ("routes = [{ endpoint = 'tcp' }]", false),
        ("routes = [{ when = [{ paht = '/' }], endpoint = 'echo' }]", false),
        (
            "routes = [{ endpoint = 'proxy', proxy.upstreams = 'ws://a' }, { endpoint = 'apps' }]",
            true,
        ),
        ("routes = [{ endpoint = 'proxy', proxy.upstreams = [] }]", false),
        ("routes = [{ endpoint = 'echo', model.received.text = { model = 'json' } }]", true),
        ("routes = [{ endpoint = 'echo', model.received.text = { model = 'xml' } }]", false),
        ("routes = [{ endpoint = 'echo', model.received.text = { view = 'json' } }]", false),
        ("zilliqa.contracts = 'any'", true),
        ("zilliqa.contracts = ['0x2ce491a0fd9e318b39172258101b7c836da7449b']", true),
        ("zilliqa.contracts = 'all'", false),
        (&format!("{registry}type = 'karapace'"), true),
        (&format!("{registry}type = 'kafka'"), false),
    ] {
        // An array that is inline must be above the table of the application.
        let text = format!("{text}\n{APP}");
        let complaints = complaints(&validator, &document(&text));
        let parsed = Config::parse(&text, FileFormat::Toml, "f").map(drop);
        if complaints.is_empty() != is_valid || parsed.is_ok() != is_valid {
            wrong.push(format!("{text}: {complaints:?}, {parsed:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for text in ["apps = [{ id = '1', key = 'k' }]", "apps = {}", "apps = [1]"] {
        assert!(!complaints(&validator, &document(text)).is_empty(), "{text}");
        assert!(Config::parse(text, FileFormat::Toml, "f").is_err(), "{text}");
    }
}

#[test]
fn schema_defaults_are_those_of_the_server() {
    let schema = schema();
    let default = |path: &str| {
        let mut at = &schema;
        for part in path.split('.') {
            at = &at["properties"][part];
            at = if at["items"]["properties"].is_object() { &at["items"] } else { at };
        }
        at["default"].clone()
    };
    for (path, value) in [
        ("pin", Value::from(true)),
        ("drain_s", 10.into()),
        ("limits.receive_buffers", 1024.into()),
        ("apps.limits.event_bytes", 10_240.into()),
        ("apps.enabled", true.into()),
        ("apps.id", Value::Null),
        ("apps.profile", "polycast".into()),
        ("guards.keys_url", "".into()),
        ("apps.webhooks.batch_ms", 50.into()),
        ("routes.proxy.pass_headers", serde_json::json!(config::Proxy::default().pass_headers)),
        ("catalogs.max_age_s", 300.into()),
        ("listeners", Value::Null),
    ] {
        assert_eq!(default(path), value, "{path}");
    }
    // A document of all defaults of the top level is valid.
    let properties = schema["properties"].as_object().unwrap();
    let defaults = properties
        .iter()
        .filter_map(|(name, key)| Some((name.clone(), key.get("default")?.clone())));
    let document = Value::Object(defaults.collect());
    assert!(complaints(&validator(), &document).is_empty());
}
