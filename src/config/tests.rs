//! Tests of the schema against the example file, and of each error with the line that it reports.

use super::*;
use crate::model::spec::{ApicurioApi, Catalog, CatalogKind, IdEncoding, SchemaIdKind};
use toml::{Table, Value};

const EXAMPLE: &str = include_str!("../../polycast.example.toml");
const REFERENCE: &str = include_str!("../../docs/configuration.md");
const APP: &str = "[[apps]]\nid = '1'\nkey = 'k'\nsecret = 's'\n";
const APP_YAML: &str = "apps:\n  - id: '1'\n    key: k\n    secret: s\n";

fn parse(text: &str, format: FileFormat) -> Result<Config, Error> {
    let lookup = |name: &str| match name {
        "THREADS" => Some("3".to_owned()),
        "YES" => Some("true".to_owned()),
        "SIZE" => Some("128KiB".to_owned()),
        "WORD" => Some("drop".to_owned()),
        "SECRET" => Some("from the environment".to_owned()),
        _ => None,
    };
    Config::parse_with(text, format, "f", &lookup)
}

fn toml(text: &str) -> Config {
    parse(text, FileFormat::Toml).unwrap_or_else(|error| panic!("{error}"))
}

fn yaml(text: &str) -> Config {
    parse(text, FileFormat::Yaml).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// The error of a TOML text, after which the smallest application is appended where that is
/// possible.
fn toml_error(text: &str) -> String {
    parse(text, FileFormat::Toml).expect_err(text).to_string()
}

fn yaml_error(text: &str) -> String {
    parse(text, FileFormat::Yaml).expect_err(text).to_string()
}

/// Every table of the example, also of those in comments, has its part of the reference.
#[test]
fn config_reference_has_every_table_of_the_example() {
    let lines = EXAMPLE.lines().map(|line| line.trim_start_matches(['#', ' ']));
    let is_table = |line: &&str| line.starts_with('[') && line.ends_with(']');
    let tables: Vec<&str> = lines.filter(is_table).collect();
    assert!(tables.contains(&"[zilliqa.node]") && tables.contains(&"[[zenith.topics]]"));
    for table in tables {
        assert!(REFERENCE.contains(&format!("\n## `{table}`\n")), "{table}");
    }
}

#[test]
fn config_example_has_the_defaults() {
    let smallest = "[[apps]]\nid = '1'\nkey = 'change-this-key'\nsecret = 'change-this-secret'\n";
    assert_eq!(toml(EXAMPLE), toml(smallest));
    let Config { apps, .. } = toml(smallest);
    assert_eq!(toml(smallest), Config { apps, ..Config::default() });
}

/// The example has a webhook as a comment, since its URL has no default.
#[test]
fn config_example_webhook_has_every_default() {
    let from = EXAMPLE.find("# [[apps.webhooks]]").unwrap();
    let block = EXAMPLE[from..].lines().take_while(|line| line.starts_with("# "));
    let text: String = block.map(|line| format!("{}\n", &line[2..])).collect();
    let config = toml(&format!("{APP}{text}"));
    assert_eq!(config.apps[0].webhooks, [Webhook::new("https://example.com/hook")]);
    let error = toml_error(&format!("{APP}{text}no_such_key = 1\n"));
    let known = error.split("accepted keys: ").nth(1).unwrap();
    for key in known.split(", ") {
        assert!(text.contains(&format!("\n{key} = ")), "{key}");
    }
}

/// The commented-out Zenith section of the example, with `front` before each line.
fn zenith_block(front: &str) -> String {
    commented_block("# [zenith]", front)
}

/// The example has the section of a cluster as a comment, since without it the process is alone.
#[test]
fn config_example_cluster_has_every_default() {
    let it = toml(&format!("{APP}{}", commented_block("# [cluster]", "")));
    let it = *it.cluster.expect("a section");
    let engine = it.engine.clone();
    assert_eq!(it, Cluster { engine, ..Cluster::default() });
}

/// A section that the example has as a comment, each line with `front` in place of its mark.
fn commented_block(begin: &str, front: &str) -> String {
    let from = EXAMPLE.find(begin).unwrap();
    let lines = EXAMPLE[from..].lines().take_while(|line| line.starts_with('#'));
    lines.map(|line| format!("{front}{}\n", line[1..].trim_start_matches(' '))).collect()
}

/// The example has the Zenith section as a comment, since without it the dialect is not served.
#[test]
fn config_example_zenith_has_every_default() {
    let it = *toml(&zenith_block("")).zenith.expect("a section");
    let defaults = Zenith { tokens: it.tokens.clone(), ..Zenith::default() };
    let defaults = Zenith { services: it.services.clone(), feeds: it.feeds.clone(), ..defaults };
    assert_eq!(it, Zenith { topics: it.topics.clone(), ..defaults });
    let smallest = "[zenith]\ntokens = [{ token = 'change-this-token', user = 'ada' }]\n\
                    services = [{ token = 'change-this-token-too' }]\n\
                    feeds = [{ name = 'XYZ', class = 'Market' }]\n\
                    topics = [{ controller = 'Market', kind = 'Security' }]\n";
    assert_eq!(it, *toml(smallest).zenith.expect("a section"));
}

/// The example has a guard as a comment, since its name and keys have no default.
#[test]
fn config_example_guard_has_every_default() {
    let from = EXAMPLE.find("# [[guards]]").unwrap();
    let block = EXAMPLE[from..].lines().take_while(|line| line.starts_with('#'));
    let text: String = block.map(|line| format!("{}\n", line[1..].trim_start())).collect();
    let guards = |text: &str| toml(&format!("{APP}{text}")).guards;
    let url = "https://auth.example.com/.well-known/jwks.json";
    let guard = GuardConfig { keys_url: url.to_owned(), ..GuardConfig::new("my_jwt") };
    assert_eq!(guards(&text), [guard]);
    let minimal = "[[guards]]\nname = 'my_jwt'\nissuer = 'https://auth.example.com/'\n";
    assert_eq!(guards(minimal)[0].url(), url);
    let full = text.replace("\nkeys = []", "").replace("# keys = [{", "keys = [{");
    let none = "no_such_key = 1";
    for (table, text) in [
        ("", text.replace("[guards.cred", &format!("{none}\n[guards.cred"))),
        (".credentials", text.replace("[guards.cert", &format!("{none}\n[guards.cert"))),
        (".certificate", format!("{text}{none}")),
        (".keys[0]", full.replace("keys = [{", &format!("keys = [{{ {none},"))),
    ] {
        let error = toml_error(&format!("{APP}{text}\n"));
        let (place, known) = error.split_once(": unknown key; accepted keys: ").expect(&error);
        assert!(place.ends_with(&format!("guards[0]{table}.no_such_key")), "{error}");
        for key in known.split(", ") {
            let line = text.contains(&format!("\n{key} = "))
                || ["credentials", "certificate"].contains(&key);
            assert!(line || full.contains(&format!(" {key} = \"\",")) || key == "k", "{key}");
        }
    }
}

/// The example has a proxy route as a comment, since its upstreams have no default.
#[test]
fn config_example_proxy_has_every_default() {
    let from = EXAMPLE.find("# [[routes]]").unwrap();
    let block = EXAMPLE[from..].lines().take_while(|line| line.starts_with("# "));
    let text: String = block.map(|line| format!("{}\n", &line[2..])).collect();
    let urls = ["wss://a.example.com", "ws://10.0.0.2:8080/chat"];
    let upstreams = urls.map(|url| Upstream::new(url).expect(url)).to_vec();
    let want = Proxy { upstreams, ..Proxy::default() };
    assert_eq!(toml(&text).routes[0].proxy.as_deref(), Some(&want), "no application is needed");
    let none = "no_such_key = 1";
    for (table, text) in [
        ("", text.replace("\n[routes.proxy.tls]", &format!("\n{none}\n[routes.proxy.tls]"))),
        (".tls", format!("{text}{none}")),
        (".tls.certificate", text.replace("e = { c", &format!("e = {{ {none}, c"))),
    ] {
        let error = toml_error(&text);
        let (place, known) = error.split_once(": unknown key; accepted keys: ").expect(&error);
        assert!(place.ends_with(&format!("routes[0].proxy{table}.no_such_key")), "{error}");
        for key in known.split(", ").filter(|key| *key != "tls") {
            let inline = text.contains(&format!(" {key} = \"\""));
            assert!(inline || text.contains(&format!("\n{key} = ")), "{key}");
        }
    }
}

/// The example has catalogs and models as comments, since they refer to each other by name.
#[test]
fn config_example_model_is_accepted() {
    let block = |from: &str| {
        let from = EXAMPLE.find(from).unwrap();
        let block = EXAMPLE[from..].lines().take_while(|line| line.starts_with("# "));
        block.map(|line| format!("{}\n", &line[2..])).collect::<String>()
    };
    let (catalog, model) = (block("# [[catalogs]]"), block("# [routes.model]"));
    let text = format!("{APP}{catalog}[[routes]]\nendpoint = 'echo'\n{model}");
    let config = toml(&text);
    assert_eq!(config.catalogs[0].subjects[0].version, "latest");
    assert!(config.routes[0].compile_models(&config.catalogs).unwrap().is_some());
    for key in ["model", "catalog", "version"] {
        assert!(toml_error(&text.replace(&format!(" {key} = "), " nope = ")).contains("nope"));
    }
}

/// The example has a schema registry as a comment, since its URL has no default.
#[test]
fn config_example_registry_has_every_default() {
    let from = EXAMPLE.find("# [[catalogs]]\n# name = \"registry\"").unwrap();
    let block = EXAMPLE[from..].lines().take_while(|line| line.starts_with("# "));
    let text: String = block.map(|line| format!("{}\n", &line[2..])).collect();
    let catalogs = |text: &str| toml(&format!("{APP}{text}")).catalogs;
    let url = "https://registry.example.com";
    let plain = Catalog::registry("registry", CatalogKind::SchemaRegistry, url);
    let (max_age_s, context) = (Some(300), Some("default".to_owned()));
    assert_eq!(plain.max_age_ms(), 300_000);
    assert_eq!(catalogs(&text), [Catalog { max_age_s, context, ..plain }]);
    let apicurio =
        text.replace("context =", "# context =").replace("# # ", "").replace("# gr", "gr");
    let apicurio = apicurio.replace("# use", "use").replace("# id_", "id_");
    let apicurio = apicurio.replace("# api =", "api =");
    let apicurio = apicurio.replace("schema-registry", "apicurio");
    let found = &catalogs(&apicurio)[0];
    assert_eq!(
        (&found.group_id, found.use_id),
        (&Some("default".to_owned()), Some(SchemaIdKind::GlobalId))
    );
    assert_eq!(found.id_encoding, Some(IdEncoding::Default));
    assert_eq!(found.api, Some(ApicurioApi::V2));
    let v3 = catalogs(&apicurio.replace("\"v2\"", "\"v3\"")).remove(0);
    assert_eq!(v3.api, Some(ApicurioApi::V3));
    let error = toml_error(&format!("{APP}{text}no_such_key = 1\n"));
    for key in error.split("accepted keys: ").nth(1).unwrap().split(", ") {
        assert!(text.contains(&format!("{key} = ")) || key == "subjects", "{key}");
    }
}

#[test]
fn config_registry_errors_name_line_and_key() {
    let minimal = "type = 'karapace'\nurl = 'https://r.example/api'";
    let api = "type = 'apicurio'\nurl = 'https://r.example'";
    let url = "8:1: catalogs[0].url: `";
    for (rest, want) in [
        (minimal.to_owned(), ""),
        (format!("{minimal}\nmax_age_s = 1"), ""),
        (format!("{minimal}\nmax_age_s = 86400"), ""),
        (format!("{minimal}\nmax_age_s = 0"), "9:1: catalogs[0].max_age_s: 0 is out of range"),
        (format!("{minimal}\nmax_age_s = 86401"), "9:1: catalogs[0].max_age_s: 86401 is out of"),
        (format!("{minimal}\ncontext = 'a.b'"), ""),
        (format!("{minimal}\ncontext = ':a'"), "9:1: catalogs[0].context: `:a` is not accepted"),
        (format!("{minimal}\ncontext = ''"), "9:1: catalogs[0].context: `` is not accepted"),
        (format!("{minimal}\nuse_id = 'globalId'"), "9:1: catalogs[0].use_id: a catalog of this"),
        (format!("{minimal}\nsubjects = [{{ name = 'a' }}]"), "9:1: catalogs[0].subjects: a cat"),
        (format!("{api}\nuse_id = 'contentId'\nid_encoding = 'legacy'\ngroup_id = 'g'"), ""),
        (format!("{api}\ngroup_id = ''"), "9:1: catalogs[0].group_id: `` is not accepted"),
        (format!("{api}\ncontext = 'a'"), "9:1: catalogs[0].context: a catalog of this type"),
        (format!("{api}\nuse_id = 'other'"), "9:10: catalogs[0].use_id"),
        (format!("{api}\napi = 'v3'"), ""),
        (format!("{api}\napi = 'v4'"), "9:7: catalogs[0].api"),
        (format!("{minimal}\napi = 'v2'"), "9:1: catalogs[0].api: a catalog of this type"),
        ("type = 'karapace'\nurl = 'ftp://a'".to_owned(), url),
        ("type = 'karapace'\nurl = 'http://u@a'".to_owned(), url),
        ("type = 'karapace'\nurl = 'http://a/?b'".to_owned(), url),
        ("type = 'karapace'".to_owned(), "catalogs[0].url: `` is not accepted"),
        ("type = 'inline'\nurl = 'http://a/'".to_owned(), "8:1: catalogs[0].url: a catalog of th"),
        ("type = 'elsewhere'".to_owned(), "7:8: catalogs[0].type"),
        (
            format!("{minimal}\ncredentials.headers.authorization = \"Bearer nobody-knows\\n\""),
            "catalogs[0].credentials.headers.authorization: the value (not shown) is not accepted",
        ),
    ] {
        match parse(&format!("{APP}[[catalogs]]\nname = 'r'\n{rest}\n"), FileFormat::Toml) {
            Ok(_) => assert_eq!(want, "", "{rest}"),
            Err(error) => {
                let error = error.to_string();
                assert!(!want.is_empty() && error.contains(want), "{rest}: {error}");
                assert!(!error.contains("nobody-knows"), "{error}");
            }
        }
    }
}

#[test]
fn config_registry_types_have_their_other_names() {
    for name in [
        "schema-registry",
        "confluent-schema-registry",
        "karapace",
        "karapace-schema-registry",
        "apicurio",
        "apicurio-registry",
    ] {
        let text = format!("{APP}[[catalogs]]\nname = 'r'\ntype = '{name}'\nurl = 'http://a'\n");
        let config = toml(&text);
        let kind = config.catalogs[0].kind;
        assert_eq!(kind == CatalogKind::Apicurio, name.starts_with("apicurio"));
        let with_secret =
            format!("{text}credentials.headers.authorization = 'Bearer nobody-knows'");
        assert!(
            !format!("{:?}", toml(&with_secret)).contains("nobody-knows"),
            "it is not for the log"
        );
    }
}

#[test]
fn config_model_errors_name_their_line() {
    let route = |rest: &str| format!("{APP}[[routes]]\nendpoint = {rest}");
    for (text, want) in [
        (
            route(
                "'echo'\nmodel.received.text = { model = 'json', catalog = 'no', subject = 's' }",
            ),
            "f:7:41: routes[0].model.received.text.catalog: the catalog `no` does not exist",
        ),
        (
            route("'apps'\nmodel.sent.text = { model = 'bytes' }"),
            "routes[0].model.sent: only the endpoints `echo` and `proxy` accept",
        ),
        (
            route("'health'\nmodel.received.text = { model = 'bytes' }"),
            "routes[0].model: this endpoint has no WebSocket messages",
        ),
        (
            route(
                "'echo'\n[[catalogs]]\nname = 'a'\ntype = 'inline'\nsubjects = []\n\
                   [[catalogs]]\nname = 'a'\ntype = 'inline'\nsubjects = []\n",
            ),
            "catalogs[1].name: `a` is already used at catalogs[0].name",
        ),
    ] {
        let error = toml_error(&text);
        assert!(error.contains(want), "{error}");
    }
}

#[test]
fn config_groups_need_a_reflect_route() {
    let route = |rest: &str| format!("[[routes]]\nendpoint = {rest}");
    let config = toml(&route("'reflect'"));
    assert_eq!(config.routes[0].reflect, Reflect::default());
    let config = toml(&route("'reflect'\nreflect = { group = 'path', exclude_sender = true }"));
    let group = Reflect { group: Grouping::Path, exclude_sender: true, ..Reflect::default() };
    assert_eq!(config.routes[0].reflect, group);
    for (text, bytes) in [("125", 125), ("'16MiB'", 16 << 20), ("0", 0)] {
        let config = toml(&route(&format!("'echo'\nmessage_bytes = {text}")));
        assert_eq!(config.routes[0].message_bytes, bytes);
    }
    assert_eq!(
        toml(APP).routes[0].message_bytes,
        64 * 1024,
        "of the echo that is there by default"
    );
    assert!(!config.routes[0].stream && toml(&route("'echo'\nstream = true")).routes[0].stream);
    let config = toml(&route("'reflect'\nreflect = { history = 50, history_bytes = '4KiB' }"));
    let group = Reflect { history: 50, history_bytes: 4096, ..Reflect::default() };
    assert_eq!(config.routes[0].reflect, group);
    for (rest, want) in [
        ("'echo'\nreflect.group = 'path'", "f:7:1: routes[0].reflect: only the endpoint `reflect`"),
        ("'reflect'\nreflect.group = 'room'", "f:7:17: routes[0].reflect.group"),
        ("'apps'\nmessage_bytes = 200", "f:7:1: routes[0].message_bytes: only the endpoint `echo`"),
        ("'echo'\nmessage_bytes = 124", "f:7:1: routes[0].message_bytes: 124 is out of range"),
        ("'echo'\nmessage_bytes = 16777217", "f:7:1: routes[0].message_bytes: 16777217 is out"),
        ("'apps'\nstream = true", "f:7:1: routes[0].stream: only the endpoints `echo`, `reflect`"),
        ("'echo'\nstream = 1", "routes[0].stream"),
        ("'reflect'\nreflect.histories = 1", "f:7:9: routes[0].reflect.histories"),
        ("'echo'\nreflect.history = 1", "f:7:1: routes[0].reflect: only the endpoint `reflect`"),
        (
            "'reflect'\nmodel.sent.text = { model = 'bytes' }",
            "routes[0].model.sent: only the endpoints `echo` and `proxy` accept",
        ),
    ] {
        let error = toml_error(&format!("{APP}{}", route(rest)));
        assert!(error.contains(want), "{error}");
    }
}

#[test]
fn config_example_in_yaml_is_the_same() {
    let example: Table = EXAMPLE.parse().unwrap();
    assert_eq!(yaml(&serde_saphyr::to_string(&example).unwrap()), toml(EXAMPLE));
}

/// Every table of a document by its path; a list is represented by its first entry.
fn tables(value: &Value, path: &str, out: &mut Vec<String>) {
    match value {
        Value::Table(table) => {
            out.push(path.to_owned());
            for (key, value) in table {
                tables(value, &format!("{path}/{key}"), out);
            }
        }
        Value::Array(entries) => {
            if let Some(first) = entries.first() {
                tables(first, &format!("{path}/0"), out);
            }
        }
        _ => {}
    }
}

fn at<'a>(mut value: &'a mut Value, path: &str) -> &'a mut Table {
    for segment in path.split('/').filter(|segment| !segment.is_empty()) {
        value = match segment {
            "0" => &mut value[0],
            key => &mut value[key],
        };
    }
    value.as_table_mut().unwrap()
}

/// The schema lists the keys that it knows, table by table; the example must have all of them.
#[test]
fn config_example_has_every_key_and_tables_refuse_others() {
    let full = EXAMPLE.replace("\nkeys = []", "").replace("# keys = [{", "keys = [{");
    let full = full.replace("\nwhen = [{ path = \"/echo\" }]", "");
    let full = full.replacen("# when = [{", "when = [{", 1);
    let full = full.replace("\ncertificates = []", "");
    let full = full.replace("# certificates = [{", "certificates = [{");
    let full = full.replace(&zenith_block("# "), "") + &zenith_block("");
    let cluster = |front| commented_block("# [cluster]", front);
    let full = full.replace(&cluster("# "), "") + &cluster("");
    let full: Value = Value::Table(full.parse().unwrap());
    let mut paths = Vec::new();
    tables(&full, "", &mut paths);
    // The keys of `guarded` are names of guards.
    paths.retain(|path| !path.ends_with("/guarded"));
    assert!(paths.contains(&"/apps/0/keys/0".to_owned()), "{paths:?}");
    // Models by direction have no defaults; `config_example_model_is_accepted` tests them.
    paths.retain(|path| !path.starts_with("/routes/0/model/"));
    // The keys of `headers` are names of header fields, which the operator chooses.
    for path in paths.into_iter().filter(|path| !path.ends_with("/headers")) {
        let mut document = full.clone();
        at(&mut document, &path).insert("no_such_key".to_owned(), Value::Boolean(true));
        let error = parse(&toml::to_string(&document).unwrap(), FileFormat::Toml).expect_err(&path);
        let Problem::UnknownKey { known } = *error.problem else { panic!("{path}: {error}") };
        let mut schema = known.to_vec();
        // `proxy` has no default; `config_example_proxy_has_every_default` tests it.
        schema.retain(|key| path != "/routes/0" || *key != "proxy");
        // `acme` has no default; `config_example_acme_has_every_key` tests it.
        schema.retain(|key| path != "/listeners/0/tls" || *key != "acme");
        let mut example: Vec<_> = at(&mut document, &path).keys().map(String::as_str).collect();
        example.retain(|key| *key != "no_such_key");
        schema.sort_unstable();
        example.sort_unstable();
        assert_eq!(example, schema, "{path}");
    }
}

#[test]
fn config_example_acme_has_every_key() {
    let lines = EXAMPLE.lines().skip_while(|line| *line != "# [listeners.tls.acme]");
    let lines = lines.map_while(|line| line.strip_prefix("# "));
    let block: Vec<&str> = lines.collect();
    let text = format!("[[listeners]]\naddress = '127.0.0.1:443'\n{}\n{APP}", block.join("\n"));
    let config = toml(&text);
    let acme = config.acme_sections().next().expect("the section of the example");
    assert_eq!((acme.accept_terms, acme.domains.len()), (true, 1));
    let document: Table = text.parse().unwrap();
    let mut example: Vec<&str> = document["listeners"][0]["tls"]["acme"]
        .as_table()
        .unwrap()
        .keys()
        .map(|it| &**it)
        .collect();
    let mut schema = crate::settings::section::words_of::<Acme>();
    schema.sort_unstable();
    example.sort_unstable();
    assert_eq!(example, schema);
    let defaults = Acme { accept_terms: true, domains: acme.domains.clone(), ..Acme::default() };
    assert_eq!(Acme { store: String::new(), ..acme.clone() }, defaults, "the others are defaults");
}

#[test]
fn config_example_comments_every_key() {
    let mut before = "";
    for line in EXAMPLE.lines().filter(|line| !line.starts_with('[')) {
        let is_key = !line.starts_with('#') && line.contains(" = ");
        let is_explained = before.starts_with('#') || is_route(line);
        assert!(!is_key || is_explained, "{line}");
        before = line;
    }
}

fn is_route(line: &str) -> bool {
    ["when", "guarded", "listeners", "endpoint"].iter().any(|key| line.starts_with(key))
}

#[test]
fn config_variables_in_values_of_every_type() {
    let text = format!(
        "threads = '${{THREADS}}'\npin = '${{NONE:-false}}'\nslow_consumer = '${{WORD}}'\n\
         listeners = [{{ address = '127.0.0.1:${{THREADS}}' }}]\n\
         limits.write_queue_bytes = '${{SIZE}}'\npusher.strict_protocol = '${{YES}}'\n\
         {}",
        APP.replace("'s'", "'${SECRET} $$'")
    );
    let config = toml(&text);
    assert_eq!((config.threads, config.pin), (3, false));
    assert_eq!(config.slow_consumer, SlowConsumer::Drop);
    assert_eq!(config.listeners[0].address.port(), 3);
    assert_eq!(config.limits.write_queue_bytes, 131_072);
    assert!(config.pusher.strict_protocol);
    assert_eq!(config.apps[0].secret.expose(), "from the environment $");
    let config = yaml(&format!("threads: ${{THREADS}}\npin: ${{YES}}\n{APP_YAML}"));
    assert_eq!((config.threads, config.pin), (3, true));
}

/// Each case: the text before the smallest application, then position, key and problem of the
/// error.
fn check_toml(cases: &[(&str, &str, &str)]) {
    for (text, place, problem) in cases {
        let error = toml_error(&format!("{text}\n{APP}"));
        assert_eq!(error, format!("f:{place}: {problem}"), "{text}");
    }
}

#[test]
fn config_refuses_values_of_another_type() {
    let expected = |found: &str| format!("expected an integer, 0 or more, found {found}");
    check_toml(&[
        ("threads = true", "1:11: threads", &expected("a boolean")),
        ("threads = -1", "1:11: threads", &expected("-1")),
        ("threads = '-1'", "1:11: threads", &expected("-1")),
        ("threads = 1.5", "1:11: threads", &expected("a number with a fraction")),
        ("threads = 'x'", "1:11: threads", &expected("a string")),
        ("threads = 99999999999999999999", "1:11: threads", &expected("an integer beyond 64 bits")),
        ("\n pin = 1", "2:8: pin", "expected true or false, found an integer"),
        ("limits = 1", "1:10: limits", "expected a table, found an integer"),
        ("limits = []", "1:10: limits", "expected a table, found a list"),
        ("listeners = {}", "1:13: listeners", "expected a list, found a table"),
        ("routes = [[]]", "1:11: routes[0]", "expected a table, found a list"),
        ("log.level = 1", "1:13: log.level", "expected a string, in quotes, found an integer"),
        (
            "slow_consumer = 1",
            "1:17: slow_consumer",
            "expected one of close, drop, found an integer",
        ),
    ]);
    let fragments = "expected an integer from 0 to 4294967295, found 4294967296";
    check_toml(&[("limits.fragments = 4294967296", "1:20: limits.fragments", fragments)]);
}

#[test]
fn config_refuses_malformed_words_sizes_and_addresses() {
    check_toml(&[
        ("log.format = 'xml'", "1:14: log.format", "`xml` is not accepted; accepted: text, json"),
        (
            "routes = [{ endpoint = 'pipe' }]",
            "1:24: routes[0].endpoint",
            "`pipe` is not accepted; accepted: echo, reflect, proxy, console, metrics, health, \
             apps, channel, zilliqa, zenith, reject",
        ),
        (
            "listeners = [{ address = 'localhost:1' }]",
            "1:26: listeners[0].address",
            "expected an IPv4 or IPv6 address and a port, such as \"127.0.0.1:6001\" or \
             \"[::1]:6001\", or \"unix:\" and an absolute path of at most 107 bytes, found \
             `localhost:1`",
        ),
        (
            "limits.frame_bytes = '4 kilo'",
            "1:22: limits.frame_bytes",
            "expected a size: an integer in bytes, or a string with a unit (B, KiB, MiB, GiB, \
             KB, MB, GB) such as \"64KiB\", found `4 kilo`",
        ),
        (
            "limits.frame_bytes = -4",
            "1:22: limits.frame_bytes",
            "expected a size: an integer in bytes, or a string with a unit (B, KiB, MiB, GiB, \
             KB, MB, GB) such as \"64KiB\", found -4",
        ),
        (
            "threads = '${NONE}'",
            "1:11: threads",
            "the environment variable `NONE` is not set; set it, or write ${NONE:-default}",
        ),
        (
            "log.level = 'a$b'",
            "1:13: log.level",
            "`$` must begin ${NAME}, ${NAME:-default}, ${file:PATH} or ${credential:NAME}; a \
             literal `$` is written `$$`",
        ),
    ]);
}

#[test]
fn config_refuses_unknown_missing_and_duplicate_keys() {
    let known = "unknown key; accepted keys: level, format, events_to_stdout";
    check_toml(&[
        ("[log]\n lebel = 1", "2:2: log.lebel", known),
        ("log = { lebel = 1 }", "1:9: log.lebel", known),
        ("[[routes]]", "1:1: routes[0].endpoint", "the key is missing and has no default"),
    ]);
    assert_eq!(yaml_error("log:\n  lebel: 1"), format!("f:2:3: log.lebel: {known}"));
    assert_eq!(
        yaml_error("apps:\n  - id: a\n    key: b"),
        "f:2:5: apps[0].secret: the key is missing and has no default"
    );
    assert_eq!(toml_error("pin = true\npin = true"), "f:2:1: duplicate key");
    assert!(yaml_error("pin: true\npin: true").starts_with("f:2:1: duplicate mapping key"));
}

#[test]
fn config_refuses_text_that_is_neither_toml_nor_yaml() {
    for (text, start) in [
        ("é = 1", "f:1:1: "),
        ("log.level = 'é' x", "f:1:17: "),
        ("threads = [", "f:1:12: unclosed array"),
        ("threads = 1\nthreads", "f:2:8: "),
    ] {
        let error = toml_error(text);
        assert!(error.starts_with(start) && !error.contains('\n'), "{error}");
    }
    for (text, start) in [
        ("apps: [", "f:1:7: "),
        ("log:\n\tlevel: x", "f:2:"),
        ("- 1", "f:1:1: expected a table, found a list"),
        ("pin: true\n---\npin: true", "f:3:1: "),
        ("? [1]\n: 2", "f:1:"),
        ("apps: *none", "f:1:7: "),
        ("x: &a [*a]", "f:1:"),
    ] {
        let error = yaml_error(text);
        let is_plain = ![
            "
", "_str", "Policy",
        ]
        .iter()
        .any(|word| error.contains(word));
        assert!(error.starts_with(start) && is_plain, "{error}");
    }
}

#[test]
fn config_yaml_sections_may_be_empty_and_anchors_work() {
    assert_eq!(yaml(&format!("limits:\nlog:\n{APP_YAML}")), toml(APP));
    let text = "apps:\n  - &a { id: '1', key: k, secret: s }\n  - { <<: *a, id: '2', key: l }\n";
    assert_eq!(yaml(text).apps[1].secret, Secret::new("s"));
    let needed = "apps: expected at least one entry, or the variables POLYCAST_APP_ID, \
                  POLYCAST_APP_KEY and POLYCAST_APP_SECRET";
    assert_eq!(yaml_error(""), format!("f: {needed}"));
    assert_eq!(yaml_error("apps:"), format!("f:1:1: {needed}"));
}

#[test]
fn config_yaml_alias_bomb_is_an_error() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let aliases = vec![format!("*a{}", level - 1); 8].join(", ");
        text += &format!("a{level}: &a{level} [{aliases}]\n");
    }
    yaml_error(&text);
    toml_error(&format!("a = {}", "[".repeat(100_000)));
    yaml_error(&"[".repeat(100_000));
}

#[test]
fn config_errors_do_not_contain_secrets() {
    let config = toml(&APP.replace("'s'", "'hush-hush'"));
    assert!(!format!("{config:?}").contains("hush-hush"));
    for text in [
        APP.replace("'s'", "['hush-hush']"),
        APP.replace("'s'", "'hush-hush'\nenabled = '${SECRET}'"),
        APP.replace("'s'", "'hush-hush'\nsecrets = 's'"),
    ] {
        let error = toml_error(&text);
        assert!(!error.contains("hush-hush") && !error.contains("from the env"), "{error}");
    }
}

#[test]
fn config_pid_file_is_an_absolute_path_and_an_upgrade_has_a_time() {
    assert_eq!(toml(APP).pid_file, "");
    let config = toml(&format!("pid_file = '/run/p.pid'\nupgrade_timeout_s = 1\n{APP}"));
    assert_eq!((&*config.pid_file, config.upgrade_timeout_s), ("/run/p.pid", 1));
    let error = toml_error(&format!("pid_file = 'run/p.pid'\n{APP}"));
    assert!(error.contains("f:1") && error.contains("pid_file"), "{error}");
    for (seconds, is_fine) in [(0, false), (86_400, true), (86_401, false)] {
        let text = format!("upgrade_timeout_s = {seconds}\n{APP}");
        assert_eq!(parse(&text, FileFormat::Toml).is_ok(), is_fine, "{seconds}");
    }
}
