//! The content of a part that says what nodes have reserved of the connections of an application.

use super::{LIMIT, push_number, take_byte, take_number, take_u64, write_parts};

/// The nodes had time to reserve again what they had before the log began.
const IS_SETTLED: u8 = 1;

/// What nodes have reserved of the connections of an application.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LimitPart {
    /// The life of the log in which all nodes had time to reserve again what they had reserved
    /// before; `None` if they may need more.
    pub settled_in: Option<u64>,
    /// The nodes, each with the number of connections.
    pub reserved: Vec<(u64, u32)>,
}

impl LimitPart {
    /// Reads a part; `None` if it is malformed.
    pub(super) fn read(mut rest: &[u8]) -> Option<LimitPart> {
        let (flags, epoch) = (take_byte(&mut rest)?, take_u64(&mut rest)?);
        if flags & !IS_SETTLED != 0 {
            return None;
        }
        let mut reserved = Vec::new();
        for _ in 0..take_number(&mut rest)? {
            let node = take_u64(&mut rest)?;
            reserved.push((node, u32::try_from(take_number(&mut rest)?).ok()?));
        }
        let settled_in = (flags & IS_SETTLED != 0).then_some(epoch);
        rest.is_empty().then_some(LimitPart { settled_in, reserved })
    }
}

/// Writes the entry with this number of a process that says what nodes have reserved of the
/// connections of an application, of which the id is given.
pub fn write_limit(author: (u64, u64), app: &str, part: &LimitPart) -> Vec<u8> {
    let mut bytes = vec![if part.settled_in.is_some() { IS_SETTLED } else { 0 }];
    bytes.extend_from_slice(&part.settled_in.unwrap_or_default().to_le_bytes());
    push_number(&mut bytes, part.reserved.len() as u64);
    for (node, count) in &part.reserved {
        bytes.extend_from_slice(&node.to_le_bytes());
        push_number(&mut bytes, (*count).into());
    }
    write_parts((author, app, ""), LIMIT, [&*bytes].into_iter())
}
