//! A model as its keys describe it: which keys belong together, the model that they are compiled to,
//! and where its schema comes from.

use super::plain::{Encoding, Float, Integer, Range, Text, Width, Writing};
use super::schema::{SchemaRef, Shape};
use super::source::{RemoteSchema, SchemaSource};
use super::spec::{
    Catalog, CatalogKind, EncodingKind, IdEncoding, ModelKind, PrefixKind, Spec, Strategy,
    Validate, WritingKind,
};
use super::{Avro, BadSchema, JsonModel, Model, Prefix, Protobuf, SchemaId};

/// An error in a model's configuration: the key below the model with a leading dot, or an empty
/// text, and what is wrong with it.
pub(super) type Wrong = (String, String);

fn wrong<T>(key: &str, problem: &str) -> Result<T, Wrong> {
    Err((format!(".{key}"), problem.to_owned()))
}

/// The prefix of this kind, which has room for `id`.
pub(super) fn prefix_of(kind: PrefixKind, id: SchemaId) -> Result<Prefix, Wrong> {
    match kind {
        PrefixKind::Apicurio => Ok(Prefix::Eight),
        PrefixKind::Confluent if Prefix::Four.holds(id) => Ok(Prefix::Four),
        PrefixKind::Confluent => {
            wrong("id", "the id does not fit into the four bytes of `confluent`")
        }
    }
}

impl Spec {
    /// A key that is set but is not valid for this kind of model.
    pub(super) fn strange_key(&self) -> Option<&'static str> {
        use ModelKind::{Avro, Bytes, Double, Float, Int32, Int64, Json, Protobuf};
        let schema = matches!(self.model, Json | Avro | Protobuf);
        let view = matches!(self.model, Avro | Protobuf);
        let number = matches!(self.model, Int32 | Int64 | Float | Double);
        let text = self.model == ModelKind::String;
        let written = number || self.model == ModelKind::Boolean;
        [
            ("catalog", schema, self.catalog.is_some()),
            ("subject", schema, self.subject.is_some()),
            ("version", schema, self.version != "latest"),
            ("strategy", schema, self.strategy.is_some()),
            ("on_miss", schema, self.on_miss.is_some()),
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

    pub(super) fn model(&self, catalogs: &[Catalog]) -> Result<Model, Wrong> {
        let wrong = |key: &str| {
            let key = format!(".{key}");
            move |error: BadSchema| (key, error.to_string())
        };
        let writing = match self.format {
            None | Some(WritingKind::Text) => Writing::Text,
            Some(WritingKind::Binary) => Writing::Binary,
        };
        let width = match self.model {
            ModelKind::Int32 | ModelKind::Float => Width::Bits32,
            _ => Width::Bits64,
        };
        Ok(match self.model {
            ModelKind::Json if self.catalog.is_none() => Model::Json(JsonModel::any()),
            ModelKind::Json => {
                Model::Json(JsonModel::new(&self.schema(catalogs)?).map_err(wrong("subject"))?)
            }
            ModelKind::Avro => {
                Model::Avro(Avro::new(&self.schema(catalogs)?).map_err(wrong("subject"))?)
            }
            ModelKind::Protobuf => {
                let schema = self.schema(catalogs)?;
                let model = Protobuf::new(&schema, self.record.as_deref());
                Model::Protobuf(model.map_err(wrong("subject"))?)
            }
            ModelKind::String => {
                let encoding = match self.encoding {
                    None | Some(EncodingKind::Utf8) => Encoding::Utf8,
                    Some(EncodingKind::Utf16) => Encoding::Utf16,
                };
                let (min, max) = (self.min_length, self.max_length);
                let text = Text::new(encoding, min, max, self.pattern.as_deref());
                Model::Text(text.map_err(wrong("pattern"))?)
            }
            ModelKind::Int32 | ModelKind::Int64 => {
                let (range, multiple) = self.numbers(|multiple: &i64| *multiple > 0)?;
                Model::Integer(Integer { width, writing, range, multiple })
            }
            ModelKind::Float | ModelKind::Double => {
                let good = |multiple: &f64| *multiple > 0.0 && multiple.is_finite();
                let (range, multiple) = self.numbers(good)?;
                Model::Float(Float { width, writing, range, multiple })
            }
            ModelKind::Boolean => Model::Boolean(writing),
            ModelKind::Bytes => Model::Bytes,
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
        let multiple = multiple.transpose().map_err(|text| {
            (".multiple".to_owned(), format!("`{text}` is not a number above 0"))
        })?;
        Ok((range, multiple))
    }

    /// The text of the model's schema, from an inline or filesystem catalog.
    fn schema(&self, catalogs: &[Catalog]) -> Result<String, Wrong> {
        let missing = |key: &str| {
            (format!(".{key}"), "the key is required, because it identifies the schema".to_owned())
        };
        let name = self.catalog.as_deref().ok_or_else(|| missing("catalog"))?;
        let subject = self.subject.as_deref().ok_or_else(|| missing("subject"))?;
        let catalog = catalogs.iter().find(|catalog| catalog.name == name);
        let unknown = || (".catalog".to_owned(), format!("the catalog `{name}` does not exist"));
        let catalog = catalog.ok_or_else(unknown)?;
        let mut subjects = catalog.subjects.iter();
        let subject = subjects.find(|it| it.name == subject && it.version == self.version);
        let subject = subject.ok_or_else(|| {
            let problem = format!("the catalog `{name}` does not have the subject in this version");
            (".subject".to_owned(), problem)
        })?;
        let text = match (catalog.kind, &subject.schema, &subject.path) {
            (CatalogKind::Inline, Some(schema), _) => Ok(schema.clone()),
            (CatalogKind::Filesystem, _, Some(path)) => match &subject.content {
                Some(content) => content.clone(),
                None => Err(format!("{path}: the file has not been read")),
            },
            (CatalogKind::Inline, None, _) => Err("the subject has no `schema`".to_owned()),
            (CatalogKind::Filesystem, _, None) => Err("the subject has no `path`".to_owned()),
            // Not reached: the models of a registry's schemas are built after a fetch.
            (CatalogKind::SchemaRegistry | CatalogKind::Apicurio, ..) => Err(String::new()),
        };
        text.map_err(|problem| (".subject".to_owned(), problem))
    }

    /// The catalog that has the model's schema, if that is a registry.
    pub(super) fn registry<'c>(&self, catalogs: &'c [Catalog]) -> Option<&'c Catalog> {
        let with_schema =
            matches!(self.model, ModelKind::Json | ModelKind::Avro | ModelKind::Protobuf);
        let name = self.catalog.as_deref().filter(|_| with_schema)?;
        catalogs.iter().find(|it| it.name == name && it.is_registry())
    }

    /// The source of the model's schema in the registry `catalog`, and the prefix of its messages.
    pub(super) fn remote(
        &self,
        catalog: &Catalog,
    ) -> Result<(SchemaSource, Option<Prefix>), Wrong> {
        let eight = catalog.kind == CatalogKind::Apicurio
            && catalog.id_encoding.unwrap_or_default() == IdEncoding::Default;
        let own = if eight { Prefix::Eight } else { Prefix::Four };
        let prefix = self.prefix.map(|kind| match kind {
            PrefixKind::Confluent => Prefix::Four,
            PrefixKind::Apicurio if catalog.kind == CatalogKind::Apicurio => own,
            PrefixKind::Apicurio => Prefix::Eight,
        });
        let shape = Shape { kind: self.model, record: self.record.clone() };
        if let Some(Strategy::Encoded) = self.strategy {
            self.check_encoded()?;
            let remote = RemoteSchema::new(catalog, None, shape);
            let source = SchemaSource::Encoded(remote, self.on_miss.unwrap_or_default());
            return Ok((source, Some(prefix.unwrap_or(own))));
        }
        if self.on_miss.is_some() {
            return wrong("on_miss", "the key is accepted only with `strategy`");
        }
        let what = self.schema_ref()?;
        if let (SchemaRef::Id(id), Some(prefix)) = (&what, prefix)
            && !prefix.holds(*id)
        {
            return wrong("id", "the id does not fit into the four bytes of the prefix");
        }
        Ok((SchemaSource::Named(RemoteSchema::new(catalog, Some(what), shape)), prefix))
    }

    /// Checks that no key names a schema, because each message names its own.
    fn check_encoded(&self) -> Result<(), Wrong> {
        let keys = [
            ("subject", self.subject.is_some()),
            ("id", self.id.is_some()),
            ("version", self.version != "latest"),
        ];
        match keys.into_iter().find(|(_, given)| *given) {
            Some((key, _)) => wrong(
                key,
                "the key is not accepted with `strategy`, because each message names its schema",
            ),
            None => Ok(()),
        }
    }

    /// How the keys identify the schema in its registry.
    fn schema_ref(&self) -> Result<SchemaRef, Wrong> {
        match (&self.subject, self.id) {
            (Some(name), None) => {
                Ok(SchemaRef::Subject { name: name.clone(), version: self.version.clone() })
            }
            (None, Some(_)) if self.version != "latest" => {
                wrong("version", "the key is not accepted with `id`, because an id has one version")
            }
            (None, Some(id)) => Ok(SchemaRef::Id(id)),
            (Some(_), Some(_)) => wrong(
                "id",
                "the key is not accepted with `subject`, because the registry has the id of the \
                 subject",
            ),
            (None, None) => {
                wrong("subject", "the key is required, because it identifies the schema")
            }
        }
    }
}
