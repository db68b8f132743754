//! Payload formats, in and out.

pub mod json;
pub mod raw;
