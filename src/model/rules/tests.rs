//! Tests of route models: their configuration, and the checks of messages.

use super::super::{Doc, Schema, SchemaFetch, SchemaRef};
use super::*;

const CATALOG: &str = r#"
    name = "local"
    type = "inline"
    [[subjects]]
    name = "chat"
    schema = '{"type": "object", "required": ["text"]}'
    [[subjects]]
    name = "tick"
    schema = '{"type": "array", "items": "int"}'
    [[subjects]]
    name = "proto"
    version = "2"
    schema = 'syntax = "proto3"; message A { string b = 1; } message C { bool d = 1; }'
"#;

fn rules(governance: &str) -> Result<ModelRules, BadSpec> {
    let catalog: Catalog = toml::from_str(CATALOG).unwrap();
    ModelRules::new(&toml::from_str(governance).unwrap(), &[catalog])
}

fn problem(governance: &str) -> String {
    rules(governance).unwrap_err().to_string()
}

#[test]
fn models_apply_by_direction_and_type() {
    let rules = rules(
        "received.text = { model = 'json', catalog = 'local', subject = 'chat' }\n\
         received.binary = { model = 'int32', format = 'binary' }\n\
         sent.text = { model = 'string', max_length = 3 }",
    )
    .unwrap();
    let as_it_came = |kind, payload: &'static [u8]| Ok(Passed::as_is(kind, payload));
    let chat = br#"{"text":"x"}"#;
    assert_eq!(rules.receive(PayloadKind::Text, chat), as_it_came(PayloadKind::Text, chat));
    assert!(rules.receive(PayloadKind::Text, b"{}").is_err_and(|error| !error.malformed));
    assert_eq!(
        rules.receive(PayloadKind::Binary, &[0; 4]),
        as_it_came(PayloadKind::Binary, &[0; 4])
    );
    assert!(rules.receive(PayloadKind::Binary, &[0; 3]).is_err_and(|error| error.malformed));
    assert_eq!(rules.send(PayloadKind::Text, b"abc"), as_it_came(PayloadKind::Text, b"abc"));
    assert!(rules.send(PayloadKind::Text, b"abcd").is_err());
    assert_eq!(rules.send(PayloadKind::Binary, b"abcd"), as_it_came(PayloadKind::Binary, b"abcd"));
    assert!(rules.govern_sent());
    assert_eq!(rules.on_invalid(), OnInvalid::Close);
}

#[test]
fn models_lenient_passes_well_formed_messages() {
    let lenient = rules(
        "received.text = { model = 'json', catalog = 'local', subject = 'chat', \
         validate = 'lenient' }",
    )
    .unwrap();
    assert!(lenient.receive(PayloadKind::Text, b"{}").is_ok_and(|passed| passed.broken));
    assert!(lenient.receive(PayloadKind::Text, b"{").is_err());
    assert!(!lenient.govern_sent());
}

#[test]
fn models_json_view_converts_both_ways_with_the_prefix() {
    let tick = "{ model = 'avro', catalog = 'local', subject = 'tick', view = 'json', \
                prefix = 'confluent', id = 7 }";
    let rules = rules(&format!("received.binary = {tick}\nsent.binary = {tick}")).unwrap();
    let wire: &[u8] = b"\0\0\0\0\x07\x02\x04\0";
    let received = rules.receive(PayloadKind::Binary, wire).unwrap();
    assert_eq!((received.kind, &*received.payload), (PayloadKind::Text, &b"[2]"[..]));
    let sent = rules.send(PayloadKind::Text, b"[2]").unwrap();
    assert_eq!((sent.kind, &*sent.payload), (PayloadKind::Binary, wire));
    let other = rules.receive(PayloadKind::Binary, b"\0\0\0\0\x08\x02\x04\0").unwrap_err();
    assert_eq!(other.reason, "unknown schema 8");
    assert!(rules.receive(PayloadKind::Binary, b"\x02\x04\0").is_err_and(|error| error.malformed));
    assert!(rules.send(PayloadKind::Text, b"[").is_err_and(|error| error.malformed));
    let plain = rules.send(PayloadKind::Binary, b"\x02\x04\0").unwrap();
    assert_eq!((plain.kind, &*plain.payload), (PayloadKind::Binary, wire));
}

#[test]
fn models_find_schemas_by_catalog_subject_and_version() {
    let proto = "{ model = 'protobuf', catalog = 'local', subject = 'proto', version = '2', \
                 record = 'C' }";
    let rules = rules(&format!("received.binary = {proto}")).unwrap();
    assert!(rules.receive(PayloadKind::Binary, b"\x08\x01").is_ok());
    let wrong =
        |from: &str, to: &str| problem(&format!("sent.binary = {}", proto.replace(from, to)));
    for (from, to, want) in [
        ("'local'", "'none'", "sent.binary.catalog: the catalog `none` does not exist"),
        (
            "'2'",
            "'3'",
            "sent.binary.subject: the catalog `local` does not have the subject in this version",
        ),
        ("'C'", "'X'", "sent.binary.subject: it declares no message `X`"),
        (
            ", subject = 'proto'",
            "",
            "sent.binary.subject: the key is required, because it identifies the schema",
        ),
    ] {
        assert_eq!(wrong(from, to), want);
    }
}

#[test]
fn models_read_schema_files() {
    let name = format!("polycast-schema-{}", std::process::id());
    let path = std::env::temp_dir().join(&name);
    std::fs::write(&path, "{\"type\": \"null\"}").unwrap();
    let catalog = format!(
        "name = 'files'\ntype = 'filesystem'\n[[subjects]]\nname = 'a'\npath = '{name}'\n\
         [[subjects]]\nname = 'b'\npath = '/no/such/file'\n[[subjects]]\nname = 'c'\n"
    );
    let catalog: Catalog = toml::from_str(&catalog).unwrap();
    let rules = |subject: &str| {
        let spec = format!("{{ model = 'json', catalog = 'files', subject = '{subject}' }}");
        let governance = toml::from_str(&format!("received.text = {spec}")).unwrap();
        let governance: Governance = governance;
        let mut catalog = catalog.clone();
        let specs: Vec<_> = governance.specs().collect();
        catalog.read_files(&specs, &std::env::temp_dir());
        let unused = catalog.subjects.iter().filter(|it| it.name != subject);
        assert!(unused.into_iter().all(|it| it.content.is_none()), "only what is used is read");
        ModelRules::new(&governance, &[catalog])
    };
    assert!(rules("a").unwrap().receive(PayloadKind::Text, b"null").is_ok());
    assert!(rules("b").unwrap_err().problem.starts_with("/no/such/file: No such file"));
    assert_eq!(rules("c").unwrap_err().problem, "the subject has no `path`");
    std::fs::remove_file(path).unwrap();
}

#[test]
fn models_refuse_unknown_keys_and_values() {
    for (spec, want) in [
        (
            "model = 'bytes', range = '[1,2]'",
            ".range: a model of this kind does not accept the key `range`",
        ),
        (
            "model = 'json', view = 'json'",
            ".view: a model of this kind does not accept the key `view`",
        ),
        (
            "model = 'int32', min_length = 1",
            ".min_length: a model of this kind does not accept the key `min_length`",
        ),
        ("model = 'int32', range = '1'", ".range: `1` is not a range such as [1,10) or (,5]"),
        ("model = 'int64', multiple = '0'", ".multiple: `0` is not a number above 0"),
        ("model = 'double', multiple = 'x'", ".multiple: `x` is not a number above 0"),
        ("model = 'json', prefix = 'apicurio'", ".id: the key is required if `prefix` is set"),
        ("model = 'json', id = 1", ".prefix: the key is required if `id` is set"),
        (
            "model = 'json', prefix = 'confluent', id = 4294967296",
            ".id: the id does not fit into the four bytes of `confluent`",
        ),
    ] {
        let found = problem(&format!("received.text = {{ {spec} }}"));
        assert_eq!(found, format!("received.text{want}"));
    }
    assert!(rules("received.text = { model = 'float', multiple = '0.5' }").is_ok());
    assert!(
        rules("received.text = { model = 'json', prefix = 'confluent', id = 4294967295 }").is_ok()
    );
}

const REGISTRY: &str = r#"
    name = "reg"
    type = "karapace"
    url = "http://registry.example"
"#;
const APICURIO: &str = r#"
    name = "api"
    type = "apicurio-registry"
    url = "http://registry.example"
"#;

fn remote(governance: &str) -> Result<ModelRules, BadSpec> {
    let catalogs = [REGISTRY, APICURIO, CATALOG].map(|text| toml::from_str(text).unwrap());
    ModelRules::new(&toml::from_str(governance).unwrap(), &catalogs)
}

/// Completes all due fetches with a schema of this text. Its id is the requested one, or 7 if the
/// fetch is by subject.
fn fetch(registries: &Registries, text: &str) -> Vec<SchemaRef> {
    let doc = Doc { text: text.to_owned(), references: Vec::new() };
    let jobs: Vec<SchemaFetch> =
        registries.places().iter().flat_map(|place| place.due(0)).collect();
    for job in &jobs {
        let id = if let SchemaRef::Id(id) = job.what { id } else { 7 };
        let schema = Schema { id, model: job.shape.compile(&doc).unwrap() };
        job.place.outcome(job, Ok(Some(Arc::new(schema))), 0);
    }
    jobs.into_iter().map(|job| job.what).collect()
}

#[test]
fn models_registry_schema_is_missing_until_fetched() {
    let spec = "{ model = 'avro', catalog = 'reg', subject = 'tick', view = 'json', \
                prefix = 'confluent' }";
    let rules = remote(&format!("received.binary = {spec}\nsent.binary = {spec}")).unwrap();
    assert!(rules.need_registry() && rules.govern_sent());
    let wire: &[u8] = b"\0\0\0\0\x07\x02\x04\0";
    let registries = Registries::default();
    for bound in [false, true] {
        if bound {
            rules.bind(&registries);
        }
        let missing = rules.receive(PayloadKind::Binary, wire).unwrap_err();
        assert_eq!((missing.missing, &*missing.reason), (true, "the schema is not there yet"));
        assert!(rules.send(PayloadKind::Text, b"[2]").is_err_and(|it| it.missing));
    }
    let (name, version) = ("tick".to_owned(), "latest".to_owned());
    let tick = [SchemaRef::Subject { name, version }];
    assert_eq!(fetch(&registries, r#"{"type":"array","items":"int"}"#), tick, "for both");
    let received = rules.receive(PayloadKind::Binary, wire).unwrap();
    assert_eq!((received.kind, &*received.payload), (PayloadKind::Text, &b"[2]"[..]));
    assert_eq!(&*rules.send(PayloadKind::Text, b"[2]").unwrap().payload, wire);
    let other = rules.receive(PayloadKind::Binary, b"\0\0\0\0\x08\x02\x04\0").unwrap_err();
    assert_eq!((other.missing, &*other.reason), (false, "unknown schema 8"));
    // The same rules bound to another `Registries` use the same schema, which is refreshed there.
    let others = Registries::default();
    rules.bind(&others);
    assert_eq!(others.places().len(), 1);
    assert!(rules.receive(PayloadKind::Binary, wire).is_ok());
}

#[test]
fn models_schema_id_in_every_encoding() {
    for (catalog, prefix, wire) in [
        ("reg", "", &b"\0\0\0\0\x09{}"[..]),
        ("api", "", b"\0\0\0\0\0\0\0\0\x09{}"),
        ("api", ", prefix = 'confluent'", b"\0\0\0\0\x09{}"),
        ("api", ", prefix = 'apicurio'", b"\0\0\0\0\0\0\0\0\x09{}"),
    ] {
        let rules = |more: &str| {
            let spec = format!("model = 'json', catalog = '{catalog}', strategy = 'encoded'");
            remote(&format!("received.binary = {{ {spec}{prefix}{more} }}")).unwrap()
        };
        let (reject, pass) = (rules(""), rules(", on_miss = 'pass'"));
        let registries = Registries::default();
        [&reject, &pass].iter().for_each(|rules| rules.bind(&registries));
        let missing = reject.receive(PayloadKind::Binary, wire).unwrap_err();
        assert_eq!((missing.missing, &*missing.reason), (true, "schema 9 is not there yet"));
        let passed = pass.receive(PayloadKind::Binary, wire).unwrap();
        assert_eq!((passed.missed, &*passed.payload), (true, wire));
        assert_eq!(fetch(&registries, r#"{"type": "object"}"#), [SchemaRef::Id(9)]);
        for rules in [&reject, &pass] {
            let passed = rules.receive(PayloadKind::Binary, wire).unwrap();
            assert_eq!((passed.missed, &*passed.payload), (false, &b"{}"[..]));
            let list = [&wire[..wire.len() - 2], b"[]"].concat();
            let broken = rules.receive(PayloadKind::Binary, &list);
            assert!(broken.is_err_and(|it| !it.malformed && !it.missing));
            assert!(rules.receive(PayloadKind::Binary, b"{}").is_err_and(|it| it.malformed));
        }
    }
}

#[test]
fn models_legacy_encoding_has_four_bytes() {
    let legacy = format!("{APICURIO}id_encoding = 'legacy'");
    let catalog: Catalog = toml::from_str(&legacy).unwrap();
    let rules = |more: &str| {
        let spec = format!("sent.binary = {{ model = 'json', catalog = 'api', {more} }}");
        let governance: Governance = toml::from_str(&spec).unwrap();
        ModelRules::new(&governance, std::slice::from_ref(&catalog))
    };
    let seven = rules("id = 7, prefix = 'apicurio'").unwrap();
    let registries = Registries::default();
    seven.bind(&registries);
    assert_eq!(fetch(&registries, "{}"), [SchemaRef::Id(7)]);
    assert_eq!(&*seven.send(PayloadKind::Binary, b"1").unwrap().payload, b"\0\0\0\0\x071");
    assert!(rules("id = 4294967295, prefix = 'apicurio'").is_ok());
    let error = rules("id = 4294967296, prefix = 'apicurio'").unwrap_err();
    assert_eq!(error.problem, "the id does not fit into the four bytes of the prefix");
    // The id of a subject is known only after the fetch, and may not fit into the prefix.
    let name = rules("subject = 'a', prefix = 'confluent'").unwrap();
    name.bind(&registries);
    for job in registries.places().iter().flat_map(|place| place.due(0)) {
        let model = job.shape.compile(&Doc { text: "{}".into(), references: vec![] }).unwrap();
        job.place.outcome(&job, Ok(Some(Arc::new(Schema { id: 1 << 32, model }))), 0);
    }
    assert!(name.send(PayloadKind::Binary, b"1").is_err());
}

#[test]
fn models_refuse_unknown_registry_keys() {
    for (direction, spec, want) in [
        (
            "received",
            "catalog = 'reg'",
            "subject: the key is required, because it identifies the schema",
        ),
        ("received", "catalog = 'reg', subject = 's', id = 1", "id: the key is not accepted with"),
        ("received", "catalog = 'reg', id = 1, version = '2'", "version: the key is not"),
        (
            "received",
            "catalog = 'reg', subject = 's', on_miss = 'pass'",
            "on_miss: the key is accepted",
        ),
        (
            "received",
            "catalog = 'local', subject = 'chat', on_miss = 'pass'",
            "on_miss: the key is",
        ),
        (
            "received",
            "catalog = 'local', subject = 'chat', strategy = 'encoded'",
            "strategy: the key is accepted only if the catalog is a registry",
        ),
        (
            "received",
            "catalog = 'reg', subject = 's', strategy = 'encoded'",
            "subject: the key is not accepted with `strategy`, because each message",
        ),
        (
            "sent",
            "catalog = 'reg', strategy = 'encoded'",
            "strategy: sent messages have no schema id yet; use `subject`",
        ),
    ] {
        let error = remote(&format!("{direction}.text = {{ model = 'json', {spec} }}"));
        let error = error.unwrap_err().to_string();
        assert!(error.starts_with(&format!("{direction}.text.{want}")), "{error}");
    }
    let strange = "received.text = { model = 'int32', strategy = 'encoded' }";
    assert!(remote(strange).unwrap_err().problem.contains("accept the key `strategy`"));
}

#[test]
fn models_confluent_protobuf_has_a_message_index() {
    let proto = "syntax = \"proto3\"; message A { string b = 1; } message C { bool d = 1; }";
    let spec = "model = 'protobuf', catalog = 'reg', view = 'json'";
    let rules = remote(&format!(
        "received.binary = {{ {spec}, strategy = 'encoded' }}\n\
         sent.binary = {{ {spec}, subject = 'p', record = 'C', prefix = 'confluent' }}"
    ));
    let rules = rules.unwrap();
    let registries = Registries::default();
    rules.bind(&registries);
    let (first, second) = (&b"\0\0\0\0\x07\0\x0a\x01x"[..], b"\0\0\0\0\x07\x02\x02\x08\x01");
    assert!(rules.receive(PayloadKind::Binary, first).is_err_and(|it| it.missing));
    assert_eq!(fetch(&registries, proto).len(), 2);
    assert_eq!(&*rules.receive(PayloadKind::Binary, first).unwrap().payload, br#"{"b":"x"}"#);
    assert_eq!(&*rules.receive(PayloadKind::Binary, second).unwrap().payload, br#"{"d":true}"#);
    assert_eq!(&*rules.send(PayloadKind::Text, br#"{"d":true}"#).unwrap().payload, second);
    let third = rules.receive(PayloadKind::Binary, b"\0\0\0\0\x07\x02\x04").unwrap_err();
    assert_eq!((third.malformed, third.missing), (false, false));
    assert!(rules.receive(PayloadKind::Binary, b"\0\0\0\0\x07").is_err_and(|it| it.malformed));
    // Apicurio's format has no message indexes.
    let plain = remote(&format!(
        "sent.binary = {{ {} }}",
        spec.replace("'reg'", "'api'") + ", id = 7, prefix = 'apicurio'"
    ));
    let plain = plain.unwrap();
    plain.bind(&registries);
    fetch(&registries, proto);
    let sent = plain.send(PayloadKind::Text, br#"{"b":"x"}"#).unwrap();
    assert_eq!(&*sent.payload, b"\0\0\0\0\0\0\0\0\x07\x0a\x01x");
}
