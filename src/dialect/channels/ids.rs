//! Socket ids, by which clients, authorisation endpoints and the HTTP API know a connection.
//!
//! Applications sign these ids, so an id must never name a second connection, in this process or
//! the next one. And strangers see them, so they must not say which core a connection is on, or
//! how many there were before it. An id is therefore the image of (core, slot, generation) under a
//! permutation whose key is made when the process starts.

use crate::crypto::{Permutation, sha256};
use crate::hub::ConnId;
use crate::mem::Slot;

/// What stands in the last bits of each number before it is permuted: an id that somebody made
/// up, or another process, has it once in 65 536 times, and then a generation that never was.
const SIGN: u128 = 0;
const SIGN_BITS: u32 = 16;

/// A text that has not the form of a socket id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a socket id")]
pub struct NotASocketId;

/// Makes and reads the socket ids of one process.
#[derive(Clone, Debug)]
pub struct SocketIds(Permutation);

impl SocketIds {
    /// Ids under a secret key.
    pub fn new(key: [u8; 16]) -> SocketIds {
        SocketIds(Permutation::new(key))
    }

    /// Ids that are the same in each run, for simulations and tests.
    pub fn of_number(node: u32) -> SocketIds {
        let digest = sha256(&[&node.to_be_bytes()]);
        SocketIds::new(std::array::from_fn(|at| digest[at]))
    }

    /// The id of a connection: two decimal numbers of 64 bits with a dot between them, which is
    /// the only form (`^\d+\.\d+$`) that client libraries agree to sign.
    pub fn write(&self, conn: ConnId) -> String {
        let Slot { index, generation } = conn.slot;
        let place = u128::from(conn.core) << 96 | u128::from(index) << 64 | u128::from(generation);
        let image = self.0.apply(place << SIGN_BITS | SIGN);
        format!("{}.{}", (image >> 64) as u64, image as u64)
    }

    /// The connection that an id names, which may be gone; `None` if it is none of this process.
    ///
    /// # Errors
    /// It has not the form of a socket id.
    pub fn read(&self, text: &str) -> Result<Option<ConnId>, NotASocketId> {
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|it| it.is_ascii_digit());
        let (high, low) = text.split_once('.').ok_or(NotASocketId)?;
        if !digits(high) || !digits(low) {
            return Err(NotASocketId);
        }
        let (Ok(high), Ok(low)) = (high.parse::<u64>(), low.parse::<u64>()) else {
            return Ok(None);
        };
        let number = self.0.invert(u128::from(high) << 64 | u128::from(low));
        if number & ((1 << SIGN_BITS) - 1) != SIGN {
            return Ok(None);
        }
        let place = number >> SIGN_BITS;
        let slot = Slot { index: (place >> 64) as u32, generation: place as u64 };
        Ok(Some(ConnId { core: (place >> 96) as u16, slot }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn conn(core: u16, index: u32, generation: u64) -> ConnId {
        ConnId { core, slot: Slot { index, generation } }
    }

    #[test]
    fn socket_id_leads_back_to_its_connection_in_this_process_only() {
        let ids = SocketIds::of_number(0xfeed_beef);
        for conn in [
            conn(0, 0, 1),
            conn(255, 77, 0xff_ffff),
            conn(255, 77, 0x100_0000),
            conn(u16::MAX, u32::MAX, u64::MAX),
        ] {
            let id = ids.write(conn);
            assert_eq!(ids.read(&id), Ok(Some(conn)), "{id}");
            assert!(id.len() <= 41, "{id}");
            // Of another process, or of this one before it was started again.
            let foreign = SocketIds::of_number(1).read(&id);
            assert_ne!(foreign, Ok(Some(conn)), "{id}");
        }
        assert_eq!(ids.read("99999999999999999999999.1"), Ok(None));
        for bad in ["", ".", "1", "1.", ".1", "1.2.3", "a.1", "1.-2", "+1.2", "1.2 "] {
            assert_eq!(ids.read(bad), Err(NotASocketId), "{bad:?}");
        }
    }

    /// Of ids that somebody makes up, one in 65 536 is taken for one of this process at all.
    #[test]
    fn socket_id_that_is_made_up_names_nobody() {
        let ids = SocketIds::of_number(7);
        let named = (0..10_000).filter(|n| ids.read(&format!("{n}.{n}")) != Ok(None)).count();
        assert!(named < 10, "{named}");
    }

    #[test]
    fn socket_id_never_repeats_over_a_million_connections_of_32_places() {
        let ids = SocketIds::of_number(3);
        let names = (0..1_000_000_u64).map(|n| ids.write(conn(0, (n % 32) as u32, 1 + n / 32)));
        let mut seen = HashSet::with_capacity(1_000_000);
        assert!(names.into_iter().all(|id| seen.insert(id)));
        // After 24 bits, which is all that completions hold, it is another one, too.
        assert_ne!(ids.write(conn(0, 1, 5)), ids.write(conn(0, 1, 5 + (1 << 24))));
    }

    /// Neighbours have nothing in common: each bit of the two numbers changes in half of all cases.
    #[test]
    fn socket_id_does_not_tell_core_slot_or_count() {
        let ids = SocketIds::of_number(9);
        let bits = |conn| {
            let id = ids.write(conn);
            let (high, low) = id.split_once('.').expect("a dot");
            let number = |text: &str| text.parse::<u64>().expect("a number");
            u128::from(number(high)) << 64 | u128::from(number(low))
        };
        for step in [conn(1, 0, 0), conn(0, 1, 0), conn(0, 0, 1)] {
            let mut changes = [0_u32; 128];
            for n in 0..1000 {
                let here = conn(0, 100, 1 + n * 2);
                let Slot { index, generation } = here.slot;
                let next =
                    conn(step.core, index + step.slot.index, generation + step.slot.generation);
                let differs = bits(here) ^ bits(next);
                for (bit, changes) in changes.iter_mut().enumerate() {
                    *changes += (differs >> bit & 1) as u32;
                }
            }
            // Half of 1000, within 8 times the standard deviation.
            assert!(changes.iter().all(|count| (373..=627).contains(count)), "{changes:?}");
        }
    }
}
