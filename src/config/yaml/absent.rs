//! In place of the reader of YAML documents, in a build without it.

use crate::config::error::{Error, Problem};
use crate::config::tree::Node;
use crate::parts::{AbsentPart, OptionalPart};

pub(super) fn from_yaml(_: &str) -> Result<Node, Error> {
    Err(Error::new(Problem::Absent(AbsentPart(OptionalPart::Yaml))))
}
