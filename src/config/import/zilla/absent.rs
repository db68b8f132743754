//! In place of the importer of Zilla files, in a build without it.

use crate::config::env::Lookup;
use crate::config::root::Config;
use crate::config::tree::Node;
use crate::parts::{AbsentPart, OptionalPart};
use crate::settings::error::{Error, Problem};

pub(in crate::config) fn read(tree: &Node, _: &Lookup<'_>, _: &str) -> Result<Config, Error> {
    let error = Error::keyed("bindings", Problem::Absent(AbsentPart(OptionalPart::ImportZilla)));
    Err(error.or_at(tree.locate("bindings")))
}

/// No key, because no file is converted.
pub(in crate::config) fn origin(_: &Config, _: &str) -> Option<String> {
    None
}
