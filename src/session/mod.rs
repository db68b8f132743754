//! Under construction.
pub mod upgrade;
