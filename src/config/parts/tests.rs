//! What a build without an optional part says of a configuration that uses it.

use super::*;
use crate::config::FileFormat;
use std::path::PathBuf;

const EXAMPLE: &str = include_str!("../../../polycast.example.toml");
const APP: &str = "[[apps]]\nid = '1'\nkey = 'k'\nsecret = 's'\n";

fn parsed(text: &str) -> Result<Config, Error> {
    Config::parse_with(text, FileFormat::Toml, "f", &|_| None)
}

/// The configuration as written, with what uses an optional part.
fn uses_of(text: &str) -> Vec<(String, OptionalPart)> {
    uses(&toml::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}")))
}

/// The error of a build without `part`.
fn without(part: OptionalPart, text: &str) -> Option<String> {
    let config = toml::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    refuse_absent(&config, &|it| it != part).err().map(|error| error.to_string())
}

#[test]
fn parts_every_use_of_an_optional_part_is_found() {
    let model = |model: &str| {
        format!("{APP}[[routes]]\nendpoint = 'echo'\n[routes.model]\nsent.text = {model}")
    };
    let named = |text: &str| format!("{APP}{text}");
    let acme = "[[listeners]]\naddress = '127.0.0.1:443'\n[listeners.tls.acme]\n";
    for (text, key, part) in [
        (named(acme), "listeners[0].tls.acme", OptionalPart::Acme),
        (named("[[routes]]\nendpoint = 'zilliqa'"), "routes[0].endpoint", OptionalPart::Zilliqa),
        (named("[zilliqa]\nmessage_bytes = 1000"), "zilliqa", OptionalPart::Zilliqa),
        (named("[zilliqa.node]\nurls = ['http://a']"), "zilliqa", OptionalPart::Zilliqa),
        (named("[[routes]]\nendpoint = 'zenith'"), "routes[0].endpoint", OptionalPart::Zenith),
        (named("[zenith]"), "zenith", OptionalPart::Zenith),
        (named("[cluster]"), "cluster", OptionalPart::ClusterNats),
        (named("[cluster]\nengine = ['redis://a:6379']"), "cluster", OptionalPart::ClusterRedis),
        (
            named("[[links]]\nsource = { zenith = 'a/b' }"),
            "links[0].source.zenith",
            OptionalPart::Zenith,
        ),
        (
            named("[[links]]\nviews = [{ path = '/a' }, { zenith = 'a/b' }]"),
            "links[0].views[1].zenith",
            OptionalPart::Zenith,
        ),
        (named("[[catalogs]]\nname = 'a'\ntype = 'inline'"), "catalogs[0]", OptionalPart::Models),
        (model("{ model = 'avro' }"), "routes[0].model.sent.text.model", OptionalPart::Models),
        (model("{ model = 'protobuf' }"), "routes[0].model.sent.text.model", OptionalPart::Models),
        (
            model("{ model = 'json', catalog = 'c' }"),
            "routes[0].model.sent.text.model",
            OptionalPart::Models,
        ),
    ] {
        assert_eq!(uses_of(&text), [(key.to_owned(), part)], "{text}");
        let error = without(part, &text).expect(key);
        let wanted = format!(": {key}: this needs the feature `{}`", part.feature());
        assert!(error.starts_with(&wanted), "{error}");
        for other in OptionalPart::ALL.into_iter().filter(|other| *other != part) {
            assert_eq!(without(other, &text), None, "{text}");
        }
    }
}

#[test]
fn parts_a_configuration_without_optional_parts_uses_none() {
    let model = "[routes.model]\nreceived.text = { model = 'json' }\n\
                 received.binary = { model = 'int32', format = 'binary' }";
    for text in [
        APP.to_owned(),
        format!("{APP}[zilliqa]\n[zilliqa.node]\n"),
        format!("{APP}[[routes]]\nendpoint = 'echo'\n{model}"),
        format!("{APP}[[links]]\nsource = {{ channel = 'a' }}\nviews = [{{ path = '/a' }}]"),
    ] {
        assert_eq!(uses_of(&text), [], "{text}");
    }
}

#[test]
fn parts_the_example_and_the_demo_work_in_every_build() {
    let example = parsed(EXAMPLE).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(uses(&example), []);
    assert_eq!(uses(&Config::demo()), []);
}

/// What this build says of a file with this text.
#[allow(dead_code)]
fn refusal(name: &str, text: &str) -> String {
    // Other tests use files at the same time.
    let folder = format!("polycast-parts-{}-{name}", std::process::id());
    let folder = std::env::temp_dir().join(folder);
    std::fs::create_dir_all(&folder).expect("a folder");
    let path: PathBuf = folder.join(name);
    std::fs::write(&path, text).expect("a file");
    let error = Config::load(&path).expect_err(text).to_string();
    let _ = std::fs::remove_file(&path);
    let _ = std::fs::remove_dir(&folder);
    error.replace(&format!("{}/", folder.display()), "")
}

/// The end of the error that a part is not compiled in.
#[allow(dead_code)]
fn absent(feature: &str) -> String {
    format!(
        "this needs the feature `{feature}`, which is not compiled into this build of polycast; \
         use a build that has it (see `polycast --version`)"
    )
}

#[cfg(not(feature = "acme"))]
#[test]
fn parts_without_acme_its_section_is_refused() {
    let section = "[[listeners]]\naddress = '127.0.0.1:443'\n[listeners.tls.acme]\n";
    let wanted = format!("l.toml:7:16: listeners[0].tls.acme: {}", absent("acme"));
    assert_eq!(refusal("l.toml", &format!("{APP}{section}")), wanted);
}

#[cfg(not(feature = "zilliqa"))]
#[test]
fn parts_without_zilliqa_its_route_and_section_are_refused() {
    let text = format!("{APP}[[routes]]\nendpoint = 'zilliqa'\n");
    let wanted = format!("a.toml:6:1: routes[0].endpoint: {}", absent("zilliqa"));
    assert_eq!(refusal("a.toml", &text), wanted);
    let text = format!("{APP}[zilliqa]\npublish_token = '0123456789abcdef'\n");
    assert_eq!(refusal("b.toml", &text), format!("b.toml:5:2: zilliqa: {}", absent("zilliqa")));
    assert!(parsed(&format!("{APP}[zilliqa]\n")).is_ok(), "a section at its defaults");
}

#[cfg(not(feature = "zenith"))]
#[test]
fn parts_without_zenith_its_route_section_and_links_are_refused() {
    let text = format!("{APP}[[routes]]\nendpoint = 'zenith'\n");
    let wanted = format!("c.toml:6:1: routes[0].endpoint: {}", absent("zenith"));
    assert_eq!(refusal("c.toml", &text), wanted);
    let text = format!("{APP}[zenith]\n");
    assert_eq!(refusal("d.toml", &text), format!("d.toml:5:2: zenith: {}", absent("zenith")));
    let text = format!("{APP}[[links]]\nsource = {{ zenith = 'a/b' }}\n");
    let wanted = format!("e.toml:6:12: links[0].source.zenith: {}", absent("zenith"));
    assert_eq!(refusal("e.toml", &text), wanted);
}

#[cfg(not(feature = "zenith"))]
#[test]
fn parts_without_zenith_there_are_no_binary_formats() {
    use crate::codec::json::Scratch;
    use crate::codec::{self, DecodeLimits, Format, Value};
    let (limits, mut scratch) = (DecodeLimits::default(), Scratch::default());
    for format in [Format::Bson, Format::MsgPack] {
        let read = codec::decode(format, &mut b"\x80".to_vec(), &limits, &mut scratch);
        assert_eq!(read, Err(codec::Error::Absent));
        let written = codec::encode(format, &Value::map([]), &mut Vec::new());
        assert_eq!(written, Err(codec::Error::Absent));
    }
}

#[cfg(not(feature = "models"))]
#[test]
fn parts_without_models_catalogs_and_schemas_are_refused() {
    let text = format!("{APP}[[catalogs]]\nname = 'a'\ntype = 'inline'\n");
    assert_eq!(refusal("g.toml", &text), format!("g.toml:5:1: catalogs[0]: {}", absent("models")));
    let route = format!("{APP}[[routes]]\nendpoint = 'echo'\n[routes.model]\n");
    let text = format!("{route}received.binary = {{ model = 'avro' }}\n");
    let wanted =
        format!("h.toml:8:21: routes[0].model.received.binary.model: {}", absent("models"));
    assert_eq!(refusal("h.toml", &text), wanted);
    let plain = format!("{route}received.text = {{ model = 'json' }}\n");
    assert!(parsed(&plain).is_ok(), "a model without a schema");
}

#[cfg(not(feature = "models"))]
#[test]
fn parts_without_models_no_schema_can_be_compiled() {
    use crate::model::{Avro, JsonModel, Protobuf};
    let errors = [
        JsonModel::new("{}").map(drop),
        Avro::new("\"null\"").map(drop),
        Protobuf::new("message A {}", None).map(drop),
    ];
    for error in errors {
        assert_eq!(error.expect_err("no part").to_string(), absent("models"));
    }
}

#[cfg(not(feature = "pkcs12"))]
#[test]
fn parts_without_pkcs12_its_files_are_refused() {
    let listener = "[[listeners]]\naddress = '127.0.0.1:6001'\n[listeners.tls]\n";
    let text = format!("{APP}{listener}certificates = [{{ pkcs12 = 's.p12', password = 'p' }}]\n");
    let wanted = format!(
        "i.toml:8:19: listeners[0].tls.certificates[0].pkcs12: s.p12 is PKCS#12, and {}",
        absent("pkcs12")
    );
    assert_eq!(refusal("i.toml", &text), wanted);
    let text = format!(
        "{APP}[[routes]]\nendpoint = 'proxy'\n[routes.proxy]\nupstreams = ['wss://127.0.0.1:1']\n\
         tls = {{ ca_file = 'ca.p12', ca_password = 'p' }}\n"
    );
    let error = refusal("j.toml", &text);
    assert!(error.starts_with("j.toml:9:9: routes[0].proxy.tls.ca_file: "), "{error}");
    assert!(error.ends_with(&format!("ca.p12 is PKCS#12, and {}", absent("pkcs12"))), "{error}");
}

#[cfg(not(feature = "yaml"))]
#[test]
fn parts_without_yaml_its_files_are_refused() {
    for name in ["k.yaml", "k.yml"] {
        assert_eq!(refusal(name, "threads: 1\n"), format!("{name}: {}", absent("yaml")));
    }
}

#[cfg(all(feature = "yaml", not(feature = "import-zilla")))]
#[test]
fn parts_without_import_zilla_its_files_are_refused() {
    let text = include_str!("../../../examples/zilla/echo.yaml");
    let line = 1 + text.lines().position(|line| line == "bindings:").expect("the key");
    let wanted = format!("l.yaml:{line}:1: bindings: {}", absent("import-zilla"));
    assert_eq!(refusal("l.yaml", text), wanted);
}
