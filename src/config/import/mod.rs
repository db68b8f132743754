//! Reads the configuration files of other servers and converts them to a [`Config`].
//!
//! An importer knows the sections; no section knows an importer.
//!
//! [`Config`]: super::Config

pub(super) mod zilla;
