//! Refuses a configuration that uses an optional part that is not compiled into this build.
//!
//! PKCS#12 files, YAML and Zilla files are refused where they are read.

use super::root::Config;
use super::zilliqa::Zilliqa;
use crate::model::spec::ModelKind;
use crate::parts::{AbsentPart, OptionalPart};
use crate::settings::error::{Error, Problem};

/// Checks every key of the file that uses an optional part. It must be called before
/// [`Config::complete`], which adds what the file leaves out. A section at its defaults that no
/// route uses has no effect, so it is accepted.
pub(super) fn check(config: &Config) -> Result<(), Error> {
    refuse_absent(config, &OptionalPart::is_compiled)
}

fn refuse_absent(config: &Config, is_compiled: &dyn Fn(OptionalPart) -> bool) -> Result<(), Error> {
    match uses(config).into_iter().find(|(_, part)| !is_compiled(*part)) {
        Some((key, part)) => Err(Error::keyed(key, Problem::Absent(AbsentPart(part)))),
        None => Ok(()),
    }
}

/// The keys that use an optional part.
fn uses(config: &Config) -> Vec<(String, OptionalPart)> {
    let mut uses = Vec::new();
    if let Some(cluster) = &config.cluster {
        uses.push(("cluster".to_owned(), cluster.kind().part()));
    }
    if config.zenith.is_some() {
        uses.push(("zenith".to_owned(), OptionalPart::Zenith));
    }
    if config.zilliqa != Zilliqa::default() {
        uses.push(("zilliqa".to_owned(), OptionalPart::Zilliqa));
    }
    if !config.catalogs.is_empty() {
        uses.push(("catalogs[0]".to_owned(), OptionalPart::Models));
    }
    for (index, listener) in config.listeners.iter().enumerate() {
        if listener.tls.acme.is_some() {
            uses.push((format!("listeners[{index}].tls.acme"), OptionalPart::Acme));
        }
    }
    for (index, route) in config.routes.iter().enumerate() {
        let key = |rest: &str| format!("routes[{index}].{rest}");
        uses.extend(route.endpoint.part().map(|part| (key("endpoint"), part)));
        uses.extend(route.model.places().filter_map(|(place, spec)| {
            let has_schema = match spec.model {
                ModelKind::Json => spec.catalog.is_some(),
                kind => matches!(kind, ModelKind::Avro | ModelKind::Protobuf),
            };
            has_schema.then(|| (key(&format!("model.{place}.model")), OptionalPart::Models))
        }));
    }
    for (index, link) in config.links.iter().enumerate() {
        let views = link.views.iter().enumerate();
        let views = views.map(|(at, view)| (format!("views[{at}]"), view));
        for (end, it) in std::iter::once(("source".to_owned(), &link.source)).chain(views) {
            if !it.zenith.is_empty() {
                uses.push((format!("links[{index}].{end}.zenith"), OptionalPart::Zenith));
            }
        }
    }
    uses
}

#[cfg(test)]
mod tests;
