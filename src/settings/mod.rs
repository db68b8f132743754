//! What sections of the configuration are declared with: the macro that makes a struct with its
//! documentation, defaults and ranges, the types of values that are no plain texts or numbers, and
//! errors with their position.
//!
//! This module knows no section. Most are in [`crate::config`]; a module below it declares its own,
//! as [`crate::model`] does.

pub mod error;
pub mod pattern;
pub mod range;
pub mod secret;
pub mod section;

pub use error::{Error, Position, Problem};
pub use pattern::Pattern;
pub use secret::Secret;
