//! In place of the reader of PKCS#12 files, in a build without it.

use crate::parts::{AbsentPart, OptionalPart};
use crate::tls::files::{Error, FileKind, Pair, Roots};
use std::path::Path;

fn absent(path: &Path) -> Error {
    Error::new(path, FileKind::Absent(AbsentPart(OptionalPart::Pkcs12)))
}

/// Returns the error that the part is absent.
pub fn pkcs12_pair(path: &Path, _: &str, _: &str) -> Result<Pair, Error> {
    Err(absent(path))
}

/// Returns the error that the part is absent.
pub fn pkcs12_roots(path: &Path, _: &str, _: &[String]) -> Result<Roots, Error> {
    Err(absent(path))
}
