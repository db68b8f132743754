//! The number of its schema, in front of a message.

use super::Invalid;

/// The number that a registry has given a schema.
pub type SchemaId = u64;

/// How the number is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefix {
    /// A zero byte and four bytes, most significant first: Confluent's, and Apicurio's `legacy`.
    Four,
    /// A zero byte and eight bytes: Apicurio's `default`.
    Eight,
}

impl Prefix {
    /// Splits a message into number and rest.
    ///
    /// # Errors
    /// There is no such prefix.
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

    /// Whether the number has room.
    pub fn holds(self, id: SchemaId) -> bool {
        self == Prefix::Eight || u32::try_from(id).is_ok()
    }

    /// Writes the prefix; a number that has no room in four bytes is none of a registry's that
    /// uses those.
    pub fn push(self, id: SchemaId, out: &mut Vec<u8>) {
        out.push(0);
        match self {
            Prefix::Four => out.extend_from_slice(&(id as u32).to_be_bytes()),
            Prefix::Eight => out.extend_from_slice(&id.to_be_bytes()),
        }
    }
}

/// Levels of a Protobuf message's place.
const LEVELS: usize = 16;

/// Splits what Confluent writes between a schema's number and a Protobuf message: where the type of
/// the message stands in the schema, as the index in the file, then in the message around it. Their
/// count and each of them is a zigzag varint; a single zero is the first of the file.
///
/// # Errors
/// There is no such thing, or it is deeper than 16 levels.
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

/// Writes the same.
pub(super) fn push_indexes(indexes: &[usize], out: &mut Vec<u8>) {
    match indexes {
        [0] => out.push(0),
        _ => std::iter::once(&indexes.len()).chain(indexes).for_each(|it| push_varint(*it, out)),
    }
}

/// A number that is not negative, in zigzag; of at most 32 bits.
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
