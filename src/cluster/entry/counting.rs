//! The content of a part about an application of which somebody reads numbers of subscribers, so
//! that all nodes state them.

use super::{COUNTING, push_number, take_number, take_u64, write_parts};

/// A question for the numbers of subscribers of an application, or what follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountingPart {
    /// The node that says it.
    pub node: u64,
    /// The core of the node that has stated the numbers of all channels that it is the home of, and
    /// how many cores the node has; `None` if the node asks that all nodes state theirs.
    pub stated: Option<(u16, u16)>,
}

impl CountingPart {
    /// Writes the part.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = self.node.to_le_bytes().to_vec();
        if let Some((core, cores)) = self.stated {
            push_number(&mut out, core.into());
            push_number(&mut out, cores.into());
        }
        out
    }

    /// Reads a part; `None` if it is malformed.
    pub(super) fn read(mut rest: &[u8]) -> Option<CountingPart> {
        let node = take_u64(&mut rest)?;
        if rest.is_empty() {
            return Some(CountingPart { node, stated: None });
        }
        let mut number = || u16::try_from(take_number(&mut rest)?).ok();
        let (core, cores) = (number()?, number()?);
        let is_sound = rest.is_empty() && core < cores;
        is_sound.then_some(CountingPart { node, stated: Some((core, cores)) })
    }
}

/// Writes the entry with this number of a process, of a part about an application, of which the id
/// is given, as [`CountingPart::bytes`] has written it.
pub fn write_counting(author: (u64, u64), app: &str, part: &[u8]) -> Vec<u8> {
    write_parts((author, app, ""), COUNTING, [part].into_iter())
}
