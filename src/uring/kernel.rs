//! The version of the running kernel, and what follows from it.

use std::fs;

/// The release of the running kernel, such as `6.18.5-generic`; empty if it cannot be read.
pub(super) fn release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

/// The first two numbers of a release.
pub(super) fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// The oldest kernel whose receive bundles are used. Kernels from 6.10 up to 6.17 may store a
/// shortened length in the buffer ring, so that a later bundle has a partly filled buffer in its
/// middle.
const BUNDLES_FLOOR: (u32, u32) = (6, 18);

/// Whether this kernel's receive bundles can be trusted.
pub(super) fn bundles_are_sound() -> bool {
    version(&release()).is_some_and(|kernel| kernel >= BUNDLES_FLOOR)
}
