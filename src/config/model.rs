//! The models of routes, prepared for use.

use super::error::{Error, Problem};
use crate::model::ModelRules;
use crate::model::spec::{Catalog, Governance};
use std::path::Path;
use std::sync::Arc;

/// The prepared rules of one route. Two values always compare as equal, because the rules follow
/// from the route's other keys, which are compared.
#[derive(Clone, Debug, Default)]
pub struct Prepared(Option<Arc<ModelRules>>);

impl Prepared {
    /// The rules, if the route has any.
    pub fn get(&self) -> Option<&Arc<ModelRules>> {
        self.0.as_ref()
    }
}

impl PartialEq for Prepared {
    fn eq(&self, _other: &Prepared) -> bool {
        true
    }
}

impl Eq for Prepared {}

/// What the rules of a route need of its endpoint.
pub(super) struct ModelUse {
    /// Whether the endpoint has WebSocket messages.
    pub(super) has_sockets: bool,
    /// Whether the endpoint sends messages that a model can check.
    pub(super) sends: bool,
}

/// Reads the schemas that a model names, from files below `folder` where they are files, and
/// prepares its rules. The keys in errors are relative to the model.
///
/// # Errors
/// The endpoint has no WebSocket messages, or no `sent` messages to check, or the model is invalid.
pub(super) fn prepare(
    model: &Governance,
    endpoint: &ModelUse,
    catalogs: &[Catalog],
    folder: &Path,
) -> Result<Prepared, Error> {
    if *model == Governance::default() {
        return Ok(Prepared::default());
    }
    if !endpoint.has_sockets {
        let problem = "this endpoint has no WebSocket messages".to_owned();
        return Err(Error::keyed("", Problem::Other(problem)));
    }
    let rules = ModelRules::new(model, catalogs, folder)
        .map_err(|bad| Error::keyed(bad.key, Problem::Other(bad.problem)))?;
    if rules.govern_sent() && !endpoint.sends {
        let problem = "only the endpoints `echo` and `proxy` accept this key; use `received`";
        return Err(Error::keyed("sent", Problem::Other(problem.to_owned())));
    }
    Ok(Prepared(Some(Arc::new(rules))))
}
