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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_prefixes_there_and_back() {
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
