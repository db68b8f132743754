//! In place of the binary formats in a build without Zenith, the only dialect that has them. No
//! connection chooses such a format then.

pub(super) mod bson {
    use crate::codec::value::{DecodeLimits, Envelope, EnvelopeBody, Error, Value};

    pub(in crate::codec::value) fn read(_: &[u8], _: &DecodeLimits) -> Result<Value, Error> {
        Err(Error::Absent)
    }

    pub(in crate::codec::value) fn write(
        _: &EnvelopeBody<'_>,
        _: Option<&Envelope>,
        _: &mut Vec<u8>,
    ) -> Result<(), Error> {
        Err(Error::Absent)
    }
}

pub(super) use bson as msgpack;
