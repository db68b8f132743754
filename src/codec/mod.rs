//! Payload formats, in and out.

pub mod json;
pub mod raw;
pub mod value;

pub use value::{
    DecodeLimits, Envelope, EnvelopeBody, Error, Format, Value, decode, encode, encode_any,
};
