//! Any bytes as JSON: a value that all formats can express, or an error.

use polycast::codec::Format;

pub(crate) fn run(data: &[u8]) {
    super::codec(Format::Json, data);
}
