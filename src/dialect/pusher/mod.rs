//! Under construction.
pub mod signature;
