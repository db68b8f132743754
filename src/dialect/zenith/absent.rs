//! In place of the Zenith dialect, in a build without it. No configuration uses it then.

use crate::config;
use crate::dialect::links::LinkPlace;
use std::sync::Arc;

pub(super) mod messages {
    /// A message of this dialect, of which there is none.
    #[derive(Debug)]
    pub enum ZenithMessage {}
}

/// The state of the dialect, which is empty.
#[derive(Debug, Default)]
pub struct State;

/// The tokens, topics and back ends of a configuration, of which there are none.
#[derive(Debug)]
pub struct Directory;

impl Directory {
    /// Creates the directory.
    pub fn new(_: Option<&config::Zenith>, _: Arc<State>) -> Directory {
        Directory
    }

    /// Creates the directory of a reloaded configuration.
    pub fn reloaded(&self, _: Option<&config::Zenith>) -> Directory {
        Directory
    }
}

/// No channels of a link, because the dialect has none.
pub(super) fn link_place(_: &config::Config, _: &str) -> LinkPlace {
    None
}
