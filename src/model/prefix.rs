//! The schema id in front of a message, and the message indexes that Confluent's Protobuf format
//! adds.

use super::Invalid;

/// The id that a registry has given to a schema.
pub type SchemaId = u64;

/// How the schema id is written in front of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefix {
    /// A zero byte and the id in four bytes, big-endian: Confluent's format, and Apicurio's
    /// `legacy`.
    Four,
    /// A zero byte and the id in eight bytes, big-endian: Apicurio's `default`.
    Eight,
}

impl Prefix {
    /// Splits a message into the schema id and the bytes after the prefix.
    ///
    /// # Errors
    /// The message does not begin with such a prefix.
    pub fn split(self, message: &[u8]) -> Result<(SchemaId, &[u8]), Invalid> {
        let missing = || Invalid::malformed("no schema id in front of the message");
        match (self, message) {
            (Prefix::Four, [0, rest @ ..]) => {
                let (id, rest) = rest.split_first_chunk::<4>().ok_or_else(missing)?;
                Ok((u32::from_be_bytes(*id).into(), rest))
            }
            (Prefix::Eight, [0, rest @ ..]) => {
                let (id, rest) = rest.split_first_chunk::<8>().ok_or_else(missing)?;
                Ok((u64::from_be_bytes(*id), rest))
            }
            _ => Err(missing()),
        }
    }

    /// Whether the id fits into the bytes of the prefix.
    pub fn holds(self, id: SchemaId) -> bool {
        self == Prefix::Eight || u32::try_from(id).is_ok()
    }

    /// Appends the prefix to `out`. The caller checks with [`Prefix::holds`] that the id fits:
    /// `Four` writes only its low 32 bits.
    pub fn push(self, id: SchemaId, out: &mut Vec<u8>) {
        out.push(0);
        match self {
            Prefix::Four => out.extend_from_slice(&(id as u32).to_be_bytes()),
            Prefix::Eight => out.extend_from_slice(&id.to_be_bytes()),
        }
    }
}

/// The maximum number of message indexes, which is the nesting depth of the message type.
const LEVELS: usize = 16;

/// Splits the message indexes off, which Confluent's format has between the schema id and a
/// Protobuf message. They locate the message type in the schema: its index in the file, then its
/// index in each enclosing message. The number of indexes and each index are zigzag varints; a
/// single zero stands for the first message type of the file.
///
/// # Errors
/// The message indexes are missing or malformed, or there are more than 16.
pub(super) fn split_indexes(message: &[u8]) -> Result<(Vec<usize>, &[u8]), Invalid> {
    let (count, mut rest) = split_varint(message)?;
    if count == 0 {
        return Ok((vec![0], rest));
    }
    if count > LEVELS {
        return Err(no_index());
    }
    let mut indexes = Vec::with_capacity(count);
    for _ in 0..count {
        let (index, behind) = split_varint(rest)?;
        indexes.push(index);
        rest = behind;
    }
    Ok((indexes, rest))
}

/// Appends message indexes in the form that [`split_indexes`] reads.
pub(super) fn push_indexes(indexes: &[usize], out: &mut Vec<u8>) {
    match indexes {
        [0] => out.push(0),
        _ => std::iter::once(&indexes.len()).chain(indexes).for_each(|it| push_varint(*it, out)),
    }
}

/// Splits a zigzag varint off, which must not be negative and must have at most five bytes.
fn split_varint(message: &[u8]) -> Result<(usize, &[u8]), Invalid> {
    let mut zigzag = 0u64;
    for (at, byte) in message.iter().take(5).enumerate() {
        zigzag |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            let is_positive = zigzag & 1 == 0;
            return if is_positive {
                Ok(((zigzag >> 1) as usize, &message[at + 1..]))
            } else {
                break;
            };
        }
    }
    Err(no_index())
}

fn push_varint(number: usize, out: &mut Vec<u8>) {
    let mut zigzag = (number as u64) << 1;
    while zigzag >= 0x80 {
        out.push(zigzag as u8 | 0x80);
        zigzag >>= 7;
    }
    out.push(zigzag as u8);
}

fn no_index() -> Invalid {
    Invalid::malformed("no message index behind the schema id")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_indexes_round_trip() {
        for (indexes, bytes) in [
            (vec![0], &[0][..]),
            (vec![1], &[2, 2]),
            (vec![0, 0], &[4, 0, 0]),
            (vec![1, 64, 0], &[6, 2, 0x80, 1, 0]),
            (vec![3; LEVELS], &[&[2 * LEVELS as u8][..], &[6; LEVELS]].concat()),
        ] {
            let mut message = Vec::new();
            push_indexes(&indexes, &mut message);
            assert_eq!(message, bytes);
            message.push(9);
            assert_eq!(split_indexes(&message), Ok((indexes, &[9][..])));
            for end in 0..bytes.len() {
                assert!(split_indexes(&bytes[..end]).is_err());
            }
        }
        let deep = [&[2 * LEVELS as u8 + 2][..], &[6; LEVELS + 1]].concat();
        for bad in
            [&deep[..], b"", &[1], &[2, 1], &[0xff; 6], &[2, 0x80, 0x80, 0x80, 0x80, 0x80, 0]]
        {
            assert!(split_indexes(bad).is_err_and(|error| error.malformed), "{bad:x?}");
        }
    }

    #[test]
    fn prefix_of_both_kinds_round_trips() {
        for (prefix, bytes) in [(Prefix::Four, 5), (Prefix::Eight, 9)] {
            let mut message = Vec::new();
            prefix.push(0x0102_0304, &mut message);
            assert_eq!(message.len(), bytes);
            message.push(7);
            assert_eq!(prefix.split(&message), Ok((0x0102_0304, &[7][..])));
            assert_eq!(prefix.split(&message[..bytes]), Ok((0x0102_0304, &[][..])));
            assert!(prefix.split(&message[..bytes - 1]).is_err());
            message[0] = 1;
            assert!(prefix.split(&message).is_err());
        }
        assert!(Prefix::Four.split(b"").is_err());
    }
}
