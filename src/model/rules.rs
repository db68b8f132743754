//! The models of a route, ready to use.

use super::plain::{Encoding, Float, Integer, Range, Text, Width, Writing};
use super::spec::{
    Catalog, CatalogKind, Direction, EncodingKind, Governance, Kind, OnInvalid, PrefixKind, Spec,
    Validate, WritingKind,
};
use super::{Avro, BadSchema, Invalid, Json, Model, Prefix, Protobuf, SchemaId};
use std::borrow::Cow;
use std::path::Path;

/// What the messages of a route have to look like.
#[derive(Debug)]
pub struct Rules {
    received: Pair,
    sent: Pair,
    on_invalid: OnInvalid,
}

#[derive(Debug)]
struct Pair {
    text: Option<Bound>,
    binary: Option<Bound>,
}

/// A model with what stands around it.
#[derive(Debug)]
struct Bound {
    model: Model,
    lenient: bool,
    view: bool,
    prefix: Option<(Prefix, SchemaId)>,
}

/// What a message is sent as (RFC 6455 section 5.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A text message.
    Text,
    /// A binary message.
    Binary,
}

/// A message that goes on.
#[derive(Debug, PartialEq, Eq)]
pub struct Passed<'m> {
    /// What it is sent as now.
    pub form: Form,
    /// Its bytes now.
    pub payload: Cow<'m, [u8]>,
    /// Whether it breaks its schema's rules, and passes because the model is lenient.
    pub broken: bool,
}

/// A description that means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct BadSpec {
    /// The key, below the description's own place.
    pub key: String,
    /// What is wrong there.
    pub problem: String,
}

impl Rules {
    /// Prepares what `governance` describes; schemas come from `catalogs`, files from `folder`.
    ///
    /// # Errors
    /// A key that the model does not have, a schema that is missing or is none.
    pub fn new(
        governance: &Governance,
        catalogs: &[Catalog],
        folder: &Path,
    ) -> Result<Rules, BadSpec> {
        let pair = |name: &str, direction: &Direction| {
            let bound = |kind: &str, spec: &Option<Spec>| {
                let place =
                    |(key, problem)| BadSpec { key: format!("{name}.{kind}{key}"), problem };
                spec.as_ref()
                    .map(|spec| Bound::new(spec, catalogs, folder).map_err(place))
                    .transpose()
            };
            let (text, binary) = (&direction.text, &direction.binary);
            Ok(Pair { text: bound("text", text)?, binary: bound("binary", binary)? })
        };
        Ok(Rules {
            received: pair("received", &governance.received)?,
            sent: pair("sent", &governance.sent)?,
            on_invalid: governance.on_invalid,
        })
    }

    /// What happens to what does not pass.
    pub fn on_invalid(&self) -> OnInvalid {
        self.on_invalid
    }

    /// Whether messages to clients are looked at.
    pub fn govern_sent(&self) -> bool {
        self.sent.text.is_some() || self.sent.binary.is_some()
    }

    /// Looks at a whole message from a client.
    ///
    /// # Errors
    /// It is not as it has to be.
    pub fn receive<'m>(&self, form: Form, message: &'m [u8]) -> Result<Passed<'m>, Invalid> {
        let bound = match form {
            Form::Text => &self.received.text,
            Form::Binary => &self.received.binary,
        };
        match bound {
            Some(bound) => bound.receive(form, message),
            None => Ok(Passed { form, payload: Cow::Borrowed(message), broken: false }),
        }
    }

    /// Looks at a whole message to a client.
    ///
    /// # Errors
    /// It is not as it has to be.
    pub fn send<'m>(&self, form: Form, message: &'m [u8]) -> Result<Passed<'m>, Invalid> {
        let view = self.sent.binary.as_ref().filter(|bound| bound.view);
        let bound = match form {
            Form::Text => view.or(self.sent.text.as_ref()),
            Form::Binary => self.sent.binary.as_ref(),
        };
        match bound {
            Some(bound) => bound.send(form, message),
            None => Ok(Passed { form, payload: Cow::Borrowed(message), broken: false }),
        }
    }
}

/// A key below a model, with a dot before it or empty, and what is wrong there.
type Wrong = (String, String);

impl Bound {
    fn new(spec: &Spec, catalogs: &[Catalog], folder: &Path) -> Result<Bound, Wrong> {
        if let Some(key) = spec.strange_key() {
            let problem = format!("a model of this kind has no `{key}`");
            return Err((format!(".{key}"), problem));
        }
        let model = spec.model(catalogs, folder)?;
        let prefix = match (spec.prefix, spec.id) {
            (None, None) => None,
            (Some(kind), Some(id)) => Some((prefix_of(kind, id)?, id)),
            (Some(_), None) => {
                return Err((".id".to_owned(), "missing, beside `prefix`".to_owned()));
            }
            (None, Some(_)) => {
                return Err((".prefix".to_owned(), "missing, beside `id`".to_owned()));
            }
        };
        let lenient = spec.validate == Validate::Lenient;
        Ok(Bound { model, lenient, view: spec.view.is_some(), prefix })
    }

    fn receive<'m>(&self, form: Form, message: &'m [u8]) -> Result<Passed<'m>, Invalid> {
        let body = match self.prefix {
            None => message,
            Some((prefix, id)) => match prefix.split(message)? {
                (found, body) if found == id => body,
                (found, _) => return Err(Invalid::broken(format_args!("unknown schema {found}"))),
            },
        };
        if self.view {
            let payload = Cow::Owned(self.model.to_json(body)?);
            return Ok(Passed { form: Form::Text, payload, broken: false });
        }
        Ok(Passed { form, payload: Cow::Borrowed(body), broken: self.check(body)? })
    }

    fn send<'m>(&self, form: Form, message: &'m [u8]) -> Result<Passed<'m>, Invalid> {
        let (form, body, broken) = match self.view && form == Form::Text {
            true => (Form::Binary, Cow::Owned(self.model.encode_json(message)?), false),
            false => (form, Cow::Borrowed(message), self.check(message)?),
        };
        let Some((prefix, id)) = self.prefix else {
            return Ok(Passed { form, payload: body, broken });
        };
        let mut payload = Vec::with_capacity(body.len() + 9);
        prefix.push(id, &mut payload);
        payload.extend_from_slice(&body);
        Ok(Passed { form, payload: Cow::Owned(payload), broken })
    }

    /// Says whether the message passes although it breaks a rule.
    fn check(&self, message: &[u8]) -> Result<bool, Invalid> {
        match self.model.check(message) {
            Ok(()) => Ok(false),
            Err(invalid) if self.lenient && !invalid.malformed => Ok(true),
            Err(invalid) => Err(invalid),
        }
    }
}

fn prefix_of(kind: PrefixKind, id: SchemaId) -> Result<Prefix, Wrong> {
    match kind {
        PrefixKind::Apicurio => Ok(Prefix::Eight),
        PrefixKind::Confluent if u32::try_from(id).is_ok() => Ok(Prefix::Four),
        PrefixKind::Confluent => {
            Err((".id".to_owned(), "it has no room in the four bytes of `confluent`".to_owned()))
        }
    }
}

impl Spec {
    /// A key that is given and means nothing to a model of this kind.
    fn strange_key(&self) -> Option<&'static str> {
        use Kind::{Avro, Bytes, Double, Float, Int32, Int64, Json, Protobuf};
        let schema = matches!(self.model, Json | Avro | Protobuf);
        let view = matches!(self.model, Avro | Protobuf);
        let number = matches!(self.model, Int32 | Int64 | Float | Double);
        let text = self.model == Kind::String;
        let written = number || self.model == Kind::Boolean;
        [
            ("catalog", schema, self.catalog.is_some()),
            ("subject", schema, self.subject.is_some()),
            ("version", schema, self.version != "latest"),
            ("prefix", schema, self.prefix.is_some()),
            ("id", schema, self.id.is_some()),
            ("record", self.model == Protobuf, self.record.is_some()),
            ("view", view, self.view.is_some()),
            ("encoding", text, self.encoding.is_some()),
            ("min_length", text, self.min_length.is_some()),
            ("max_length", text, self.max_length.is_some()),
            ("pattern", text, self.pattern.is_some()),
            ("format", written, self.format.is_some()),
            ("range", number, self.range.is_some()),
            ("multiple", number, self.multiple.is_some()),
            ("validate", self.model != Bytes, self.validate != Validate::Strict),
        ]
        .into_iter()
        .find_map(|(key, known, given)| (given && !known).then_some(key))
    }

    fn model(&self, catalogs: &[Catalog], folder: &Path) -> Result<Model, Wrong> {
        let wrong = |key: &str| {
            let key = format!(".{key}");
            move |error: BadSchema| (key, error.to_string())
        };
        let writing = match self.format {
            None | Some(WritingKind::Text) => Writing::Text,
            Some(WritingKind::Binary) => Writing::Binary,
        };
        let width = match self.model {
            Kind::Int32 | Kind::Float => Width::Bits32,
            _ => Width::Bits64,
        };
        Ok(match self.model {
            Kind::Json if self.catalog.is_none() => Model::Json(Json::any()),
            Kind::Json => {
                Model::Json(Json::new(&self.schema(catalogs, folder)?).map_err(wrong("subject"))?)
            }
            Kind::Avro => {
                Model::Avro(Avro::new(&self.schema(catalogs, folder)?).map_err(wrong("subject"))?)
            }
            Kind::Protobuf => {
                let schema = self.schema(catalogs, folder)?;
                let model = Protobuf::new(&schema, self.record.as_deref());
                Model::Protobuf(model.map_err(wrong("subject"))?)
            }
            Kind::String => {
                let encoding = match self.encoding {
                    None | Some(EncodingKind::Utf8) => Encoding::Utf8,
                    Some(EncodingKind::Utf16) => Encoding::Utf16,
                };
                let (least, most) = (self.min_length, self.max_length);
                let text = Text::new(encoding, least, most, self.pattern.as_deref());
                Model::Text(text.map_err(wrong("pattern"))?)
            }
            Kind::Int32 | Kind::Int64 => {
                let (range, multiple) = self.numbers(|multiple: &i64| *multiple > 0)?;
                Model::Integer(Integer { width, writing, range, multiple })
            }
            Kind::Float | Kind::Double => {
                let good = |multiple: &f64| *multiple > 0.0 && multiple.is_finite();
                let (range, multiple) = self.numbers(good)?;
                Model::Float(Float { width, writing, range, multiple })
            }
            Kind::Boolean => Model::Boolean(writing),
            Kind::Bytes => Model::Bytes,
        })
    }

    fn numbers<T: PartialOrd + Copy + std::str::FromStr>(
        &self,
        good: impl Fn(&T) -> bool,
    ) -> Result<(Option<Range<T>>, Option<T>), Wrong> {
        let range = self.range.as_deref().map(Range::parse).transpose();
        let range = range.map_err(|error| (".range".to_owned(), error.to_string()))?;
        let multiple =
            self.multiple.as_deref().map(|text| text.parse().ok().filter(&good).ok_or(text));
        let multiple = multiple
            .transpose()
            .map_err(|text| (".multiple".to_owned(), format!("`{text}` is no number above 0")))?;
        Ok((range, multiple))
    }

    /// The text of its schema.
    fn schema(&self, catalogs: &[Catalog], folder: &Path) -> Result<String, Wrong> {
        let missing =
            |key: &str| (format!(".{key}"), "missing; the schema is known by it".to_owned());
        let name = self.catalog.as_deref().ok_or_else(|| missing("catalog"))?;
        let subject = self.subject.as_deref().ok_or_else(|| missing("subject"))?;
        let catalog = catalogs.iter().find(|catalog| catalog.name == name);
        let unknown = || (".catalog".to_owned(), format!("no catalog is named `{name}`"));
        let catalog = catalog.ok_or_else(unknown)?;
        let mut subjects = catalog.subjects.iter();
        let subject = subjects.find(|it| it.name == subject && it.version == self.version);
        let subject = subject.ok_or_else(|| {
            let problem = format!("the catalog `{name}` has no such subject of this version");
            (".subject".to_owned(), problem)
        })?;
        let text = match (catalog.kind, &subject.schema, &subject.path) {
            (CatalogKind::Inline, Some(schema), _) => Ok(schema.clone()),
            (CatalogKind::Filesystem, _, Some(path)) => std::fs::read_to_string(folder.join(path))
                .map_err(|error| format!("{path}: {error}")),
            (CatalogKind::Inline, None, _) => Err("the subject has no `schema`".to_owned()),
            (CatalogKind::Filesystem, _, None) => Err("the subject has no `path`".to_owned()),
        };
        text.map_err(|problem| (".subject".to_owned(), problem))
    }
}

#[cfg(test)]
mod tests {
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

    fn rules(governance: &str) -> Result<Rules, BadSpec> {
        let catalog: Catalog = toml::from_str(CATALOG).unwrap();
        Rules::new(&toml::from_str(governance).unwrap(), &[catalog], Path::new(""))
    }

    fn problem(governance: &str) -> String {
        rules(governance).unwrap_err().to_string()
    }

    #[test]
    fn messages_by_direction_and_type() {
        let rules = rules(
            "received.text = { model = 'json', catalog = 'local', subject = 'chat' }\n\
             received.binary = { model = 'int32', format = 'binary' }\n\
             sent.text = { model = 'string', max_length = 3 }",
        )
        .unwrap();
        let as_it_came = |form, payload: &'static [u8]| {
            Ok(Passed { form, payload: Cow::Borrowed(payload), broken: false })
        };
        let chat = br#"{"text":"x"}"#;
        assert_eq!(rules.receive(Form::Text, chat), as_it_came(Form::Text, chat));
        assert!(rules.receive(Form::Text, b"{}").is_err_and(|error| !error.malformed));
        assert_eq!(rules.receive(Form::Binary, &[0; 4]), as_it_came(Form::Binary, &[0; 4]));
        assert!(rules.receive(Form::Binary, &[0; 3]).is_err_and(|error| error.malformed));
        assert_eq!(rules.send(Form::Text, b"abc"), as_it_came(Form::Text, b"abc"));
        assert!(rules.send(Form::Text, b"abcd").is_err());
        assert_eq!(rules.send(Form::Binary, b"abcd"), as_it_came(Form::Binary, b"abcd"));
        assert!(rules.govern_sent());
        assert_eq!(rules.on_invalid(), OnInvalid::Close);
    }

    #[test]
    fn a_lenient_model_passes_what_is_well_formed() {
        let lenient = rules(
            "received.text = { model = 'json', catalog = 'local', subject = 'chat', \
             validate = 'lenient' }",
        )
        .unwrap();
        assert!(lenient.receive(Form::Text, b"{}").is_ok_and(|passed| passed.broken));
        assert!(lenient.receive(Form::Text, b"{").is_err());
        assert!(!lenient.govern_sent());
    }

    #[test]
    fn a_view_turns_binary_into_text_and_back_and_the_prefix_comes_and_goes() {
        let tick = "{ model = 'avro', catalog = 'local', subject = 'tick', view = 'json', \
                    prefix = 'confluent', id = 7 }";
        let rules = rules(&format!("received.binary = {tick}\nsent.binary = {tick}")).unwrap();
        let wire: &[u8] = b"\0\0\0\0\x07\x02\x04\0";
        let received = rules.receive(Form::Binary, wire).unwrap();
        assert_eq!((received.form, &*received.payload), (Form::Text, &b"[2]"[..]));
        let sent = rules.send(Form::Text, b"[2]").unwrap();
        assert_eq!((sent.form, &*sent.payload), (Form::Binary, wire));
        let other = rules.receive(Form::Binary, b"\0\0\0\0\x08\x02\x04\0").unwrap_err();
        assert_eq!(other.reason, "unknown schema 8");
        assert!(rules.receive(Form::Binary, b"\x02\x04\0").is_err_and(|error| error.malformed));
        assert!(rules.send(Form::Text, b"[").is_err_and(|error| error.malformed));
        let plain = rules.send(Form::Binary, b"\x02\x04\0").unwrap();
        assert_eq!((plain.form, &*plain.payload), (Form::Binary, wire));
    }

    #[test]
    fn schemas_are_found_by_catalog_subject_and_version() {
        let proto = "{ model = 'protobuf', catalog = 'local', subject = 'proto', version = '2', \
                     record = 'C' }";
        let rules = rules(&format!("received.binary = {proto}")).unwrap();
        assert!(rules.receive(Form::Binary, b"\x08\x01").is_ok());
        let wrong =
            |from: &str, to: &str| problem(&format!("sent.binary = {}", proto.replace(from, to)));
        for (from, to, want) in [
            ("'local'", "'none'", "sent.binary.catalog: no catalog is named `none`"),
            (
                "'2'",
                "'3'",
                "sent.binary.subject: the catalog `local` has no such subject of this \
                            version",
            ),
            ("'C'", "'X'", "sent.binary.subject: it declares no message `X`"),
            (", subject = 'proto'", "", "sent.binary.subject: missing; the schema is known by it"),
        ] {
            assert_eq!(wrong(from, to), want);
        }
    }

    #[test]
    fn files_are_read() {
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
            Rules::new(&governance, std::slice::from_ref(&catalog), &std::env::temp_dir())
        };
        assert!(rules("a").unwrap().receive(Form::Text, b"null").is_ok());
        assert!(rules("b").unwrap_err().problem.starts_with("/no/such/file: No such file"));
        assert_eq!(rules("c").unwrap_err().problem, "the subject has no `path`");
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn keys_that_mean_nothing_and_values_that_are_none_are_refused() {
        for (spec, want) in [
            ("model = 'bytes', range = '[1,2]'", ".range: a model of this kind has no `range`"),
            ("model = 'json', view = 'json'", ".view: a model of this kind has no `view`"),
            (
                "model = 'int32', min_length = 1",
                ".min_length: a model of this kind has no \
                                                 `min_length`",
            ),
            ("model = 'int32', range = '1'", ".range: `1` is no range such as [1,10) or (,5]"),
            ("model = 'int64', multiple = '0'", ".multiple: `0` is no number above 0"),
            ("model = 'double', multiple = 'x'", ".multiple: `x` is no number above 0"),
            ("model = 'json', prefix = 'apicurio'", ".id: missing, beside `prefix`"),
            ("model = 'json', id = 1", ".prefix: missing, beside `id`"),
            (
                "model = 'json', prefix = 'confluent', id = 4294967296",
                ".id: it has no room in the four bytes of `confluent`",
            ),
        ] {
            let found = problem(&format!("received.text = {{ {spec} }}"));
            assert_eq!(found, format!("received.text{want}"));
        }
        assert!(rules("received.text = { model = 'float', multiple = '0.5' }").is_ok());
        assert!(
            rules("received.text = { model = 'json', prefix = 'confluent', id = 4294967295 }")
                .is_ok()
        );
    }
}
