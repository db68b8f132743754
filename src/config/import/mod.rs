//! Reads the configuration files of other servers: those of Zilla become a [`Config`], those of
//! Pusher servers a file of this server.
//!
//! An importer knows the sections; no section knows an importer.
//!
//! [`Config`]: super::Config

use super::tree::{ConfigValue, Node};

pub(super) mod migrate;
#[cfg_attr(not(feature = "import-zilla"), path = "zilla/absent.rs")]
pub(super) mod zilla;

/// Whether a YAML file is one of Zilla: it has the top-level key `bindings`.
pub(super) fn is_zilla(tree: &Node) -> bool {
    match &tree.value {
        ConfigValue::Table(entries) => entries.iter().any(|(key, _)| key.name == "bindings"),
        _ => false,
    }
}
