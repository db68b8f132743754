//! Payload formats, in and out.

pub mod json;
