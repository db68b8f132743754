//! Payload formats: reading and writing JSON, BSON and MessagePack. Knows no protocol.

pub mod compact;
pub mod json;
pub mod raw;
pub mod value;

pub use value::{
    DecodeLimits, Envelope, EnvelopeBody, Error, Format, Value, decode, encode, encode_any,
};
