//! A table of tokens that were refused a short time ago, so that a client that sends such a token
//! repeatedly does not cause a signature verification each time.
//!
//! The table stores a keyed hash of 128 bits in place of the token; without the hash keys, nobody
//! can make another token with the same hash. The table has a fixed number of entries. A token's
//! hash selects one of them, and a later token with the same entry replaces the earlier one.

use super::Flaw;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};

/// Entries of one table: 128 KiB, allocated at the first refusal.
pub(super) const PLACES: usize = 4096;
/// How long a refusal is remembered, in seconds.
pub(super) const KEPT_S: u64 = 60;

#[derive(Clone, Copy)]
struct Entry {
    hash: [u64; 2],
    until_s: u32,
    /// The generation of the keys by which the token was verified.
    keys: u32,
    flaw: Flaw,
}

/// The refused tokens of one guard; see the module's documentation. Each guard has its own, because
/// another guard may accept the same token.
pub(super) struct Refused {
    hashers: [RandomState; 2],
    places: Mutex<Vec<Option<Entry>>>,
}

impl Default for Refused {
    fn default() -> Refused {
        let hashers = [RandomState::new(), RandomState::new()];
        Refused { hashers, places: Mutex::default() }
    }
}

impl fmt::Debug for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refused").finish_non_exhaustive()
    }
}

/// The keyed hash of a token in one table.
#[derive(Clone, Copy)]
pub(super) struct Mark([u64; 2]);

impl Mark {
    fn place(self) -> usize {
        self.0[0] as usize % PLACES
    }
}

impl Refused {
    pub(super) fn mark(&self, token: &str) -> Mark {
        Mark([self.hashers[0].hash_one(token), self.hashers[1].hash_one(token)])
    }

    /// Why this token was refused, if that was by the same keys and less than [`KEPT_S`] ago.
    pub(super) fn find(&self, mark: Mark, keys: u32, now_s: u64) -> Option<Flaw> {
        let places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = places.get(mark.place()).copied().flatten()?;
        let is_it = entry.hash == mark.0 && entry.keys == keys;
        // If the clock was set back, entries of later than now are ignored.
        let left_s = u64::from(entry.until_s).checked_sub(now_s)?;
        (is_it && (1..=KEPT_S).contains(&left_s)).then_some(entry.flaw)
    }

    /// Stores a refusal if it has cost a signature verification and is expected to stay the same.
    pub(super) fn put(&self, mark: Mark, keys: u32, now_s: u64, flaw: Flaw) {
        let is_lasting = match flaw {
            Flaw::Signature | Flaw::Claims | Flaw::Missing | Flaw::Expired => true,
            Flaw::Issuer | Flaw::Audience => true,
            // These are cheap to find, or may change soon.
            Flaw::TooLong | Flaw::Shape | Flaw::Header | Flaw::Algorithm => false,
            Flaw::Key | Flaw::NotYet => false,
        };
        let Ok(until_s) = u32::try_from(now_s + KEPT_S) else { return };
        if !is_lasting {
            return;
        }
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if places.is_empty() {
            places.resize(PLACES, None);
        }
        if let Some(place) = places.get_mut(mark.place()) {
            *place = Some(Entry { hash: mark.0, until_s, keys, flaw });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_S: u64 = 1_760_000_000;

    #[test]
    fn jwt_refusal_is_remembered_for_a_minute_and_for_its_keys() {
        let table = Refused::default();
        let mark = table.mark("a.b.c");
        assert_eq!(table.find(mark, 1, NOW_S), None);
        table.put(mark, 1, NOW_S, Flaw::Signature);
        assert_eq!(table.find(mark, 1, NOW_S), Some(Flaw::Signature));
        assert_eq!(table.find(mark, 1, NOW_S + KEPT_S - 1), Some(Flaw::Signature));
        assert_eq!(table.find(mark, 1, NOW_S + KEPT_S), None);
        assert_eq!(table.find(mark, 2, NOW_S), None, "by other keys it may be right");
        assert_eq!(table.find(mark, 1, NOW_S - 1), None, "the clock was set back");
        assert_eq!(table.find(table.mark("a.b.d"), 1, NOW_S), None);
        assert_eq!(Refused::default().find(mark, 1, NOW_S), None);
    }

    #[test]
    fn jwt_refusal_that_is_cheap_or_may_change_is_not_remembered() {
        for (flaw, is_kept) in [
            (Flaw::Signature, true),
            (Flaw::Claims, true),
            (Flaw::Missing, true),
            (Flaw::Expired, true),
            (Flaw::Issuer, true),
            (Flaw::Audience, true),
            (Flaw::TooLong, false),
            (Flaw::Shape, false),
            (Flaw::Header, false),
            (Flaw::Algorithm, false),
            (Flaw::Key, false),
            (Flaw::NotYet, false),
        ] {
            let table = Refused::default();
            table.put(table.mark("t"), 0, NOW_S, flaw);
            assert_eq!(table.find(table.mark("t"), 0, NOW_S).is_some(), is_kept, "{flaw:?}");
        }
    }

    #[test]
    fn jwt_refusals_have_a_fixed_number_of_places() {
        let table = Refused::default();
        assert_eq!(table.places.lock().unwrap().capacity(), 0, "nothing before it is needed");
        let marks: Vec<Mark> = (0..50_000).map(|n| table.mark(&n.to_string())).collect();
        marks.iter().for_each(|mark| table.put(*mark, 0, NOW_S, Flaw::Signature));
        assert_eq!(table.places.lock().unwrap().len(), PLACES);
        let kept = marks.iter().filter(|it| table.find(**it, 0, NOW_S).is_some()).count();
        assert!((PLACES * 9 / 10..=PLACES).contains(&kept), "{kept}");
        assert!(table.find(*marks.last().unwrap(), 0, NOW_S).is_some(), "the newest is there");
        assert!(std::mem::size_of::<Option<Entry>>() <= 32);
    }
}
