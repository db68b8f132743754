//! Where the model of a message comes from: the configuration, or a registry.

use super::registry::{Find, Registries, RegistryHandle, SchemaCell};
use super::schema::{Schema, SchemaRef, Shape};
use super::spec::{Catalog, OnMiss};
use super::{Invalid, Model, SchemaId};
use std::sync::{Arc, OnceLock};

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
