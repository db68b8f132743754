//! Socket ids: the public ids of connections, used by clients, authorisation endpoints and the HTTP
//! API.
//!
//! Applications sign socket ids, so an id must never be used for a second connection, neither in
//! this process nor in the next one. Other clients can see an id, so it must not reveal which core
//! a connection is on, or how many connections there were before it. An id is therefore the
//! encryption of (core, slot, generation) by a permutation whose key is created when the process
//! starts.

use crate::crypto::{Permutation, sha256};
use crate::hub::ConnId;
use crate::mem::Slot;

/// The lowest 16 bits of each number before the permutation. An id that is made up, or that is of
/// another process, decrypts to this value once in 65 536 times, and then to a generation that is
/// very unlikely to exist.
const SIGN: u128 = 0;
const SIGN_BITS: u32 = 16;

/// The text does not have the format of a socket id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a socket id")]
pub struct NotASocketId;

/// Creates and parses the socket ids of one process.
#[derive(Clone, Debug)]
pub struct SocketIds(Permutation);

impl SocketIds {
    /// Creates socket ids under a secret key.
    pub fn new(key: [u8; 16]) -> SocketIds {
        SocketIds(Permutation::new(key))
    }

    /// Creates socket ids under a key derived from `node`, so that they are the same in each run.
    /// For simulations and tests.
    pub fn of_number(node: u32) -> SocketIds {
        let digest = sha256(&[&node.to_be_bytes()]);
        SocketIds::new(std::array::from_fn(|at| digest[at]))
    }

    /// The socket id of a connection: two decimal numbers of 64 bits separated by a dot. Client
    /// libraries sign ids of this format (`^\d+\.\d+$`) only.
    pub fn write(&self, conn: ConnId) -> String {
        let [high, low] = self.numbers_of(conn);
        format!("{high}.{low}")
    }

    /// The two numbers of the socket id of a connection.
    pub fn numbers_of(&self, conn: ConnId) -> [u64; 2] {
        let Slot { index, generation } = conn.slot;
        let place = u128::from(conn.core) << 96 | u128::from(index) << 64 | u128::from(generation);
        let image = self.0.apply(place << SIGN_BITS | SIGN);
        [(image >> 64) as u64, image as u64]
    }

    /// The connection that a socket id stands for; the connection may be closed already. `None` if
    /// the id was not created by this process.
    ///
    /// # Errors
    /// The text does not have the format of a socket id.
    pub fn read(&self, text: &str) -> Result<Option<ConnId>, NotASocketId> {
        Ok(SocketIds::numbers(text)?.and_then(|numbers| self.find(numbers)))
    }

    /// The two numbers of a socket id of any process; `None` if they have more than 64 bits.
    ///
    /// # Errors
    /// The text does not have the format of a socket id.
    pub fn numbers(text: &str) -> Result<Option<[u64; 2]>, NotASocketId> {
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|it| it.is_ascii_digit());
        let (high, low) = text.split_once('.').ok_or(NotASocketId)?;
        if !digits(high) || !digits(low) {
            return Err(NotASocketId);
        }
        Ok(high.parse().ok().zip(low.parse().ok()).map(|(high, low)| [high, low]))
    }

    /// The connection whose socket id has these numbers; it may be closed already. `None` if the id
    /// was not created by this process.
    pub fn find(&self, [high, low]: [u64; 2]) -> Option<ConnId> {
        let number = self.0.invert(u128::from(high) << 64 | u128::from(low));
        if number & ((1 << SIGN_BITS) - 1) != SIGN {
            return None;
        }
        let place = number >> SIGN_BITS;
        let slot = Slot { index: (place >> 64) as u32, generation: place as u64 };
        Some(ConnId { core: (place >> 96) as u16, slot })
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
            // The socket ids of another process, or of this server before a restart.
            let foreign = SocketIds::of_number(1).read(&id);
            assert_ne!(foreign, Ok(Some(conn)), "{id}");
        }
        assert_eq!(ids.read("99999999999999999999999.1"), Ok(None));
        for bad in ["", ".", "1", "1.", ".1", "1.2.3", "a.1", "1.-2", "+1.2", "1.2 "] {
            assert_eq!(ids.read(bad), Err(NotASocketId), "{bad:?}");
        }
    }

    /// A made-up id is accepted as an id of this process once in 65 536 times.
    #[test]
    fn socket_id_that_is_invented_names_no_connection() {
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
        // Completions hold 24 bits of the generation, but socket ids differ beyond these bits, too.
        assert_ne!(ids.write(conn(0, 1, 5)), ids.write(conn(0, 1, 5 + (1 << 24))));
    }

    /// Neighbouring connections have unrelated ids: each of the 128 bits changes in half of all
    /// cases.
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
            // Half of 1000, within 8 standard deviations.
            assert!(changes.iter().all(|count| (373..=627).contains(count)), "{changes:?}");
        }
    }
}
