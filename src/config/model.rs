//! The models of routes, prepared for use.

use super::error::{Error, Problem};
use super::schema::{Config, EndpointKind};
use crate::model::ModelRules;
use crate::model::spec::Governance;
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

/// Reads the schemas that routes name, from files below `folder` where they are files, and prepares
/// the rules of each route.
///
/// # Errors
/// The endpoint has no WebSocket messages, or no `sent` messages to check, or the model is invalid.
pub(super) fn prepare(config: &mut Config, folder: &Path) -> Result<(), Error> {
    for (index, route) in config.routes.iter_mut().enumerate() {
        let model = &route.model;
        if *model == Governance::default() {
            continue;
        }
        let key = format!("routes[{index}].model");
        if !route.endpoint.has_sockets() {
            let problem = "this endpoint has no WebSocket messages".to_owned();
            return Err(Error::keyed(key, Problem::Other(problem)));
        }
        let rules = ModelRules::new(model, &config.catalogs, folder).map_err(|bad| {
            Error::keyed(format!("{key}.{}", bad.key), Problem::Other(bad.problem))
        })?;
        if rules.govern_sent()
            && !matches!(route.endpoint, EndpointKind::Echo | EndpointKind::Proxy)
        {
            let problem = "only the endpoints `echo` and `proxy` accept this key; use `received`";
            return Err(Error::keyed(format!("{key}.sent"), Problem::Other(problem.to_owned())));
        }
        route.rules = Prepared(Some(Arc::new(rules)));
    }
    Ok(())
}
