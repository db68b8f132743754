//! The models of routes, made ready to use.

use super::error::{Error, Problem};
use super::schema::{Config, EndpointKind};
use crate::model::ModelRules;
use crate::model::spec::Governance;
use std::path::Path;
use std::sync::Arc;

/// The rules of one route, which follow from its description: no two routes differ by them.
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

/// Reads the schemas that routes name, files below `folder`, and prepares their rules.
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
            let problem = "the messages of this endpoint are its own; only `received` ones have \
                           models here";
            return Err(Error::keyed(format!("{key}.sent"), Problem::Other(problem.to_owned())));
        }
        route.rules = Prepared(Some(Arc::new(rules)));
    }
    Ok(())
}
