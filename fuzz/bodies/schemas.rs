//! Schemas as a registry may give them, and messages that name them: all is bounded, and the JSON
//! of a view can be encoded again.

use polycast::config::{Config, FileFormat};
use polycast::model::{Doc, PayloadKind, Registries, Schema, SchemaRef};
use std::sync::Arc;

/// A kind; a schema, another one that it may refer to and a message, with 0xff between them.
pub(crate) fn run(data: &[u8]) {
    let Some((&kind, rest)) = data.split_first() else { return };
    let mut parts = rest.splitn(3, |byte| *byte == 0xff);
    let mut text = || String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let doc = Doc { text: text(), references: vec![("other".to_owned(), text())] };
    let message = parts.next().unwrap_or_default();
    let kind = ["json", "avro', view = 'json", "protobuf', view = 'json"][usize::from(kind % 3)];
    let config = format!(
        "[[catalogs]]\nname = 'r'\ntype = 'karapace'\nurl = 'http://a'\n\
         [[routes]]\nendpoint = 'echo'\nmodel.received.binary = {{ model = '{kind}', \
         catalog = 'r', strategy = 'encoded' }}\n"
    );
    let config = Config::parse(&config, FileFormat::Toml, "fuzz").expect("a configuration");
    let rules = config.routes[0].compile_models(&config.catalogs);
    let rules = rules.ok().flatten().expect("rules");
    let registries = Registries::default();
    rules.bind(&registries);
    let wire = [&[0, 0, 0, 0, 7], message].concat();
    assert!(rules.receive(PayloadKind::Binary, &wire).is_err_and(|invalid| invalid.missing));
    let jobs = registries.places()[0].due(0);
    assert_eq!((jobs.len(), &jobs[0].what), (1, &SchemaRef::Id(7)));
    let Ok(model) = jobs[0].shape.compile(&doc) else { return };
    if let Err(invalid) = model.check(message) {
        assert!(invalid.reason.len() <= 123);
    }
    if let Ok(json) = model.to_json(message)
        && model.has_view()
        && let Ok(again) = model.encode_json(&json)
    {
        assert!(model.to_json(&again).is_ok());
    }
    let _ = model.encode_json(message);
    jobs[0].place.outcome(&jobs[0], Ok(Some(Arc::new(Schema { id: 7, model }))), 0);
    match rules.receive(PayloadKind::Binary, &wire) {
        Ok(passed) => assert!(!passed.missed),
        Err(invalid) => assert!(!invalid.missing && invalid.reason.len() <= 123),
    }
}
