//! In place of the reader of YAML documents, in a build without it.

use crate::config::tree::Node;
use crate::parts::{AbsentPart, OptionalPart};
use crate::settings::error::{Error, Problem};

pub(super) fn from_yaml(_: &str) -> Result<Node, Error> {
    Err(Error::new(Problem::Absent(AbsentPart(OptionalPart::Yaml))))
}
