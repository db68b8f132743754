//! A Zilla file: its chains of bindings become listeners and routes.
//!
//! They are `tcp server`, perhaps `tls server`, `http server`, `ws server`, and then `echo`, or
//! `fan` and `echo`, or `ws client`, `http client`, perhaps `tls client`, `tcp client`. What is not
//! understood is refused with its line.
//! <https://docs.aklivity.io/zilla/latest/reference/config/bindings/>

mod chain;
mod guards;
mod place;
mod telemetry;
#[cfg(test)]
mod tests;
mod upstream;
mod vaults;

use super::env::Lookup;
use super::error::Error;
use super::schema::Config;
use super::tree::Node;
use chain::BindingChain;
use place::YamlPlace;

/// Whether a file is one of Zilla's: its top has `bindings`.
pub(super) fn is_zilla(tree: &Node) -> bool {
    place::entry(tree, "bindings").is_some()
}

/// The configuration that the Zilla file of this name stands for.
pub(super) fn read(tree: &Node, lookup: &Lookup<'_>, name: &str) -> Result<Config, Error> {
    let top = YamlPlace::top(tree, lookup);
    top.only(&["name", "vaults", "guards", "catalogs", "telemetry", "bindings"])?;
    if let Some(catalog) = top.below("catalogs")?.first() {
        return Err(catalog.wrong("no binding that is served here has models, or uses a catalog"));
    }
    let mut config = Config { listeners: Vec::new(), routes: Vec::new(), ..Config::default() };
    let chain = BindingChain::new(&top)?;
    chain.serve(&mut config)?;
    telemetry::serve(&top, name, &mut config)?;
    Ok(config)
}

/// The path in a Zilla file of what a key of its configuration was made of.
pub(super) fn origin(config: &Config, key: &str) -> Option<String> {
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
