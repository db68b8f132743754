//! Reads a Zilla configuration file and converts its chains of bindings to listeners and routes.
//!
//! A chain is `tcp server`, optionally `tls server`, `http server`, `ws server`, and then `echo`,
//! or `fan` and `echo`, or `ws client`, `http client`, optionally `tls client`, `tcp client`.
//! Anything else is refused with its line.
//! <https://docs.aklivity.io/zilla/latest/reference/config/bindings/>

mod bindings;
mod chain;
mod guards;
mod place;
mod telemetry;
#[cfg(test)]
mod tests;
mod upstream;
mod vaults;

use crate::config::env::Lookup;
use crate::config::root::Config;
use crate::config::tree::Node;
use crate::settings::error::Error;
use chain::BindingChain;
use place::YamlPlace;

/// Converts the Zilla file `name` to a configuration.
pub(in crate::config) fn read(
    tree: &Node,
    lookup: &Lookup<'_>,
    name: &str,
) -> Result<Config, Error> {
    let top = YamlPlace::top(tree, lookup);
    top.only(&["name", "vaults", "guards", "catalogs", "telemetry", "bindings"])?;
    if let Some(catalog) = top.below("catalogs")?.first() {
        return Err(catalog.wrong("catalogs are not supported in a Zilla file"));
    }
    let mut config = Config { listeners: Vec::new(), routes: Vec::new(), ..Config::default() };
    let chain = BindingChain::new(&top)?;
    chain.serve(&mut config)?;
    telemetry::serve(&top, name, &mut config)?;
    Ok(config)
}

/// The path in the Zilla file from which a key of the converted configuration was made.
pub(in crate::config) fn origin(config: &Config, key: &str) -> Option<String> {
    let (section, rest) = key.split_once('[')?;
    let index: usize = rest.split_once(']')?.0.parse().ok()?;
    let of_listener = |name: &str| Some(format!("bindings.{}", name.rsplit_once('.')?.0));
    match section {
        "listeners" => of_listener(&config.listeners.get(index)?.name),
        "routes" => of_listener(config.routes.get(index)?.listeners.first()?),
        "guards" => Some(format!("guards.{}", config.guards.get(index)?.name)),
        _ => None,
    }
}
