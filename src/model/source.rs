//! Where the model of a message comes from: the configuration, or a registry.

use super::registry::{Find, Registries, RegistryHandle, Schema, SchemaCell, SchemaRef, Shape};
use super::spec::{
    Catalog, CatalogKind, IdEncoding, ModelKind, OnMiss, PrefixKind, Spec, Strategy,
};
use super::{Invalid, Model, Prefix, SchemaId};
use std::sync::{Arc, OnceLock};

/// An error in a model's configuration: the key below the model with a leading dot, or an empty
/// text, and what is wrong with it.
pub(super) type Wrong = (String, String);

/// Where the schema of a message comes from.
#[derive(Debug)]
pub(super) enum SchemaSource {
    /// The model was built from the configuration or a file, when the configuration was loaded. The
    /// id is the one that the prefix of its messages has.
    Here(Box<Model>, SchemaId),
    /// The schema is fetched from a registry by a subject or an id of the configuration.
    Named(RemoteSchema),
    /// The schema is fetched from a registry by the id in the prefix of each message.
    Encoded(RemoteSchema, OnMiss),
}

/// A schema of a registry, or all schemas of a registry if each message names its own.
#[derive(Debug)]
pub(super) struct RemoteSchema {
    catalog: Catalog,
    what: Option<SchemaRef>,
    shape: Shape,
    /// Set when the configuration is applied, by [`SchemaSource::bind`].
    link: OnceLock<Link>,
}

#[derive(Debug)]
struct Link {
    place: Arc<RegistryHandle>,
    cell: Option<Arc<SchemaCell>>,
    /// The index of the shape in the registry's list of shapes.
    shape: usize,
}

impl SchemaSource {
    /// Registers the schema with `registries`, which keeps it fetched until
    /// [`SchemaSource::release`].
    pub(super) fn bind(&self, registries: &Registries) {
        let (SchemaSource::Named(remote) | SchemaSource::Encoded(remote, _)) = self else { return };
        let link = remote.link.get_or_init(|| remote.connect(registries));
        // The same rules may be bound to several `Registries` in one process.
        registries.keep(&link.place);
        self.hold();
        link.place.ring();
    }

    fn cell(&self) -> Option<&Arc<SchemaCell>> {
        match self {
            SchemaSource::Named(remote) => remote.link.get().and_then(|link| link.cell.as_ref()),
            SchemaSource::Here(..) | SchemaSource::Encoded(..) => None,
        }
    }

    /// Adds a user of the schema. The schema is refreshed while it has users.
    pub(super) fn hold(&self) {
        if let Some(cell) = self.cell() {
            cell.hold();
        }
    }

    /// Removes a user of the schema.
    pub(super) fn release(&self) {
        if let Some(cell) = self.cell() {
            cell.release();
        }
    }

    /// Whether the schema comes from a registry.
    pub(super) fn is_remote(&self) -> bool {
        !matches!(self, SchemaSource::Here(..))
    }
}

impl RemoteSchema {
    pub(super) fn new(catalog: &Catalog, what: Option<SchemaRef>, shape: Shape) -> RemoteSchema {
        RemoteSchema { catalog: catalog.clone(), what, shape, link: OnceLock::new() }
    }

    fn connect(&self, registries: &Registries) -> Link {
        let (place, like) = registries.place(&self.catalog);
        let cell = self.what.as_ref().map(|what| place.cell(what, &self.shape, like.as_deref()));
        let shape = place.shape(&self.shape);
        Link { place, cell, shape }
    }

    /// The current version of the schema that the configuration names.
    ///
    /// # Errors
    /// The schema has not been fetched yet.
    pub(super) fn current(&self) -> Result<Arc<Schema>, Invalid> {
        let cell = self.link.get().and_then(|link| link.cell.as_ref());
        let schema = cell.and_then(|cell| cell.current());
        schema.ok_or_else(|| Invalid::missing("the schema is not there yet"))
    }

    /// The schema with this id. If it is not cached, its fetch is queued for the connection
    /// `requester`.
    ///
    /// # Errors
    /// The schema has not been fetched yet, or the registry does not have a valid schema with this
    /// id.
    pub(super) fn of(&self, requester: u64, id: SchemaId) -> Result<Arc<Schema>, Invalid> {
        match self.link.get().map(|link| link.place.find(requester, id, link.shape)) {
            Some(Find::Here(schema)) => Ok(schema),
            Some(Find::NotFound) => Err(Invalid::broken(format_args!("unknown schema {id}"))),
            Some(Find::Coming) | None => {
                Err(Invalid::missing(format_args!("schema {id} is not there yet")))
            }
        }
    }
}

impl Spec {
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
        let wrong = |key: &str, problem: &str| Err((format!(".{key}"), problem.to_owned()));
        let shape = Shape { kind: self.model, record: self.record.clone() };
        if let Some(Strategy::Encoded) = self.strategy {
            for (key, given) in [
                ("subject", self.subject.is_some()),
                ("id", self.id.is_some()),
                ("version", self.version != "latest"),
            ] {
                if given {
                    return wrong(
                        key,
                        "the key is not accepted with `strategy`, because each message names its \
                         schema",
                    );
                }
            }
            let remote = RemoteSchema::new(catalog, None, shape);
            let source = SchemaSource::Encoded(remote, self.on_miss.unwrap_or_default());
            return Ok((source, Some(prefix.unwrap_or(own))));
        }
        if self.on_miss.is_some() {
            return wrong("on_miss", "the key is accepted only with `strategy`");
        }
        let what = match (&self.subject, self.id) {
            (Some(name), None) => {
                SchemaRef::Subject { name: name.clone(), version: self.version.clone() }
            }
            (None, Some(_)) if self.version != "latest" => {
                return wrong(
                    "version",
                    "the key is not accepted with `id`, because an id has one version",
                );
            }
            (None, Some(id)) => SchemaRef::Id(id),
            (Some(_), Some(_)) => {
                return wrong(
                    "id",
                    "the key is not accepted with `subject`, because the registry has the id of \
                     the subject",
                );
            }
            (None, None) => {
                return wrong("subject", "the key is required, because it identifies the schema");
            }
        };
        if let (SchemaRef::Id(id), Some(prefix)) = (&what, prefix)
            && !prefix.holds(*id)
        {
            return wrong("id", "the id does not fit into the four bytes of the prefix");
        }
        Ok((SchemaSource::Named(RemoteSchema::new(catalog, Some(what), shape)), prefix))
    }
}
