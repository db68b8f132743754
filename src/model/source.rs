//! Where the model of a message comes from: the configuration, or a registry.

use super::registry::{Find, Registries, RegistryHandle, Schema, SchemaCell, SchemaRef, Shape};
use super::rules::Wrong;
use super::spec::{
    Catalog, CatalogKind, IdEncoding, ModelKind, OnMiss, PrefixKind, Spec, Strategy,
};
use super::{Invalid, Model, Prefix, SchemaId};
use std::sync::{Arc, OnceLock};

/// See the module's documentation.
#[derive(Debug)]
pub(super) enum SchemaSource {
    /// It was there when the configuration was read; with the number that its messages have.
    Here(Box<Model>, SchemaId),
    /// A registry has it, by a name or a number of the configuration.
    Named(RemoteSchema),
    /// A registry has it, by the number in the message.
    Encoded(RemoteSchema, OnMiss),
}

/// A way to a registry.
#[derive(Debug)]
pub(super) struct RemoteSchema {
    catalog: Catalog,
    what: Option<SchemaRef>,
    shape: Shape,
    /// Made when the configuration comes into force.
    link: OnceLock<Link>,
}

#[derive(Debug)]
struct Link {
    place: Arc<RegistryHandle>,
    cell: Option<Arc<SchemaCell>>,
    /// The number of the shape there.
    shape: usize,
}

impl SchemaSource {
    /// From now on its schema is fetched for `registries`, until it is released.
    pub(super) fn bind(&self, registries: &Registries) {
        let (SchemaSource::Named(remote) | SchemaSource::Encoded(remote, _)) = self else { return };
        let link = remote.link.get_or_init(|| remote.connect(registries));
        // The same rules may serve twice in one process.
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

    /// One more needs its schema to be fresh.
    pub(super) fn hold(&self) {
        if let Some(cell) = self.cell() {
            cell.hold();
        }
    }

    /// One less does.
    pub(super) fn release(&self) {
        if let Some(cell) = self.cell() {
            cell.release();
        }
    }

    /// Whether a registry has it.
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

    /// The schema that the configuration names.
    ///
    /// # Errors
    /// It was not to be had so far.
    pub(super) fn current(&self) -> Result<Arc<Schema>, Invalid> {
        let cell = self.link.get().and_then(|link| link.cell.as_ref());
        let schema = cell.and_then(|cell| cell.current());
        schema.ok_or_else(|| Invalid::missing("the schema is not there yet"))
    }

    /// The schema of that number, which the connection `asker` needs.
    ///
    /// # Errors
    /// It is not there, or there is none.
    pub(super) fn of(&self, asker: u64, id: SchemaId) -> Result<Arc<Schema>, Invalid> {
        match self.link.get().map(|link| link.place.find(asker, id, link.shape)) {
            Some(Find::Here(schema)) => Ok(schema),
            Some(Find::Gone) => Err(Invalid::broken(format_args!("unknown schema {id}"))),
            Some(Find::Coming) | None => {
                Err(Invalid::missing(format_args!("schema {id} is not there yet")))
            }
        }
    }
}

impl Spec {
    /// The registry that has its schema, if one has.
    pub(super) fn registry<'c>(&self, catalogs: &'c [Catalog]) -> Option<&'c Catalog> {
        let with_schema =
            matches!(self.model, ModelKind::Json | ModelKind::Avro | ModelKind::Protobuf);
        let name = self.catalog.as_deref().filter(|_| with_schema)?;
        catalogs.iter().find(|it| it.name == name && it.is_registry())
    }

    /// Its way to that registry, and what stands in front of its messages.
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
                    return wrong(key, "with this strategy the message names its schema");
                }
            }
            let remote = RemoteSchema::new(catalog, None, shape);
            let source = SchemaSource::Encoded(remote, self.on_miss.unwrap_or_default());
            return Ok((source, Some(prefix.unwrap_or(own))));
        }
        if self.on_miss.is_some() {
            return wrong("on_miss", "only with `strategy`; what a route names is always needed");
        }
        let what = match (&self.subject, self.id) {
            (Some(name), None) => {
                SchemaRef::Subject { name: name.clone(), version: self.version.clone() }
            }
            (None, Some(_)) if self.version != "latest" => {
                return wrong("version", "a number has one version");
            }
            (None, Some(id)) => SchemaRef::Id(id),
            (Some(_), Some(_)) => {
                return wrong("id", "the registry knows that of the `subject`; one of them");
            }
            (None, None) => return wrong("subject", "missing; the schema is known by it"),
        };
        if let (SchemaRef::Id(id), Some(prefix)) = (&what, prefix)
            && !prefix.holds(*id)
        {
            return wrong("id", "it has no room in the four bytes of the prefix");
        }
        Ok((SchemaSource::Named(RemoteSchema::new(catalog, Some(what), shape)), prefix))
    }
}
