//! The content of a part about an application of which somebody reads numbers of subscribers, so
//! that all nodes state them.

use super::{
    COUNTING, NUMBERS, push_number, push_part, take_byte, take_number, take_u64, write_head,
};
use crate::hub::{CountedKind, CountingStep};

/// The bit of the first byte that says that the numbers are those by view.
const BY_VIEW: u8 = 1;
/// The first byte without that bit.
const ASKED: u8 = 0;
const STATED: u8 = 2;
const READ: u8 = 4;
const ENDED: u8 = 6;

/// A question for the numbers of subscribers of an application, or what follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountingPart {
    /// The node that says it.
    pub node: u64,
    /// Which numbers.
    pub kind: CountedKind,
    /// What is said. The number of a question is its place in the log, and so not in the part.
    pub step: CountingStep,
}

impl CountingPart {
    /// Writes the part.
    pub fn bytes(&self) -> Vec<u8> {
        let by_view = if self.kind == CountedKind::ByView { BY_VIEW } else { 0 };
        let first = match self.step {
            CountingStep::Asked(_) => ASKED,
            CountingStep::Stated { .. } => STATED,
            CountingStep::Read => READ,
            CountingStep::Ended => ENDED,
        };
        let mut out = match self.kind {
            CountedKind::Unleased => Vec::new(),
            CountedKind::Totals | CountedKind::ByView => vec![first | by_view],
        };
        out.extend_from_slice(&self.node.to_le_bytes());
        if let CountingStep::Stated { question, core, cores } = self.step {
            if self.kind != CountedKind::Unleased {
                push_number(&mut out, question);
            }
            push_number(&mut out, core.into());
            push_number(&mut out, cores.into());
        }
        out
    }

    /// Reads a part; `None` if it is malformed.
    pub(super) fn read(mut rest: &[u8]) -> Option<CountingPart> {
        let first = take_byte(&mut rest)?;
        let by_view = first & BY_VIEW != 0;
        let kind = if by_view { CountedKind::ByView } else { CountedKind::Totals };
        let node = take_u64(&mut rest)?;
        let step = match first & !BY_VIEW {
            ASKED => CountingStep::Asked(0),
            STATED => {
                let question = take_number(&mut rest)?;
                read_stated(question, &mut rest)?
            }
            READ => CountingStep::Read,
            ENDED => CountingStep::Ended,
            _ => return None,
        };
        rest.is_empty().then_some(CountingPart { node, kind, step })
    }

    /// Reads a part as releases before leases write it; `None` if it is malformed.
    pub(super) fn read_unleased(mut rest: &[u8]) -> Option<CountingPart> {
        let node = take_u64(&mut rest)?;
        let step = match rest.is_empty() {
            true => CountingStep::Asked(0),
            false => read_stated(0, &mut rest)?,
        };
        rest.is_empty().then_some(CountingPart { node, kind: CountedKind::Unleased, step })
    }
}

fn read_stated(question: u64, rest: &mut &[u8]) -> Option<CountingStep> {
    let mut number = || u16::try_from(take_number(rest)?).ok();
    let (core, cores) = (number()?, number()?);
    (core < cores).then_some(CountingStep::Stated { question, core, cores })
}

/// Writes the entry with this number of a process, of a part about an application, of which the id
/// is given, as [`CountingPart::bytes`] has written it.
pub fn write_counting(author: (u64, u64), app: &str, kind: CountedKind, part: &[u8]) -> Vec<u8> {
    let mut out = write_head((author, app, ""), 1);
    let part_kind = if kind == CountedKind::Unleased { COUNTING } else { NUMBERS };
    push_part(&mut out, part_kind, part);
    out
}
