//! Under construction.
pub mod pusher;
