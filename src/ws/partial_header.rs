//! A frame header that is cut by the end of an input.

use super::Violation;
use super::frame::{FrameRules, HEADER_BYTES, Header};

/// The octets of an unfinished header that have arrived. A header of the maximum length is never
/// unfinished.
#[derive(Debug)]
pub(super) struct PartialHeader {
    octets: [u8; HEADER_BYTES - 1],
    len: u8,
}

impl PartialHeader {
    pub(super) const fn new() -> PartialHeader {
        PartialHeader { octets: [0; HEADER_BYTES - 1], len: 0 }
    }

    /// Whether no octet of a header is kept.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Continues the header with `input`. Returns how many octets of `input` belong to it; `None`
    /// if all were kept because the header is not complete.
    ///
    /// # Errors
    /// The header breaks a rule; this is found at the octet that breaks it.
    #[inline(never)]
    pub(super) fn read(
        &mut self,
        rules: &FrameRules,
        input: &[u8],
    ) -> Result<Option<(usize, Header)>, Violation> {
        let had = usize::from(self.len);
        let more = input.len().min(HEADER_BYTES - had);
        let mut head = [0; HEADER_BYTES];
        head[..had].copy_from_slice(&self.octets[..had]);
        head[had..had + more].copy_from_slice(&input[..more]);
        let Some((size, header)) = rules.read(&head[..had + more])? else {
            // A header of the maximum length is complete.
            self.octets.copy_from_slice(&head[..HEADER_BYTES - 1]);
            self.len = (had + more) as u8;
            return Ok(None);
        };
        self.len = 0;
        Ok(Some((size - had, header)))
    }
}
