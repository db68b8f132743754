//! A frame and its compressed versions, which all cores share.

use crate::mem::Frozen;
use crate::ws::output::{BITS, Codecs};
use std::sync::{Arc, OnceLock};

/// A frame that all cores share.
#[derive(Clone, Debug, Default)]
pub struct SharedFrame {
    /// The frame.
    pub frame: Frozen,
    /// The compressed frames, if an endpoint compresses.
    pub compressed: Option<Arc<CompressedFrames>>,
}

/// The compressed frames of one frame, by window size. The first core that needs one of them makes
/// it; all others share it.
#[derive(Debug, Default)]
pub struct CompressedFrames([OnceLock<Option<Frozen>>; BITS]);

impl CompressedFrames {
    /// The compressed frame of `frame` for peers with a window of `bits` (9 to 15); `frame` itself
    /// if compression does not make it shorter. `self` must belong to `frame`.
    pub fn encoded<'f>(&'f self, frame: &'f Frozen, bits: u8, codecs: &mut Codecs) -> &'f Frozen {
        let encoded = &self.0[usize::from(bits.clamp(9, 15) - 9)];
        let compress = || codecs.compress_frame(frame, bits).map(|frame| Frozen::new(&frame));
        encoded.get_or_init(compress).as_ref().unwrap_or(frame)
    }
}
