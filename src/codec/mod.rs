//! Payload formats, in and out.

pub mod json;
pub mod raw;
pub mod value;

pub use value::{Body, Envelope, Error, Format, Limits, Value, decode, encode, encode_any};
