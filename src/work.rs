//! What operations cost, and how much of it one turn of a reactor and one connection may ask for.
//!
//! Nothing above the reactor reads a clock, so work is estimated: its unit is a nanosecond of one
//! server core. A turn ends at most one operation after its share is used up; what is left of the
//! connections' input waits, and is served in the next turns, one connection after the other.
//! Shares begin when those that wait are served, at the end of a reactor's turn, so that one turn
//! of the reactor holds two shares at most.
//!
//! | operation | price in ns | measured or estimated |
//! | --- | --- | --- |
//! | step of a connection: one message or request | [`STEP`] | 200-400 measured |
//! | four bytes received, or four written | 1 | copy, mask, UTF-8: 0.2 ns a byte |
//! | delivery of an event to one subscriber | [`DELIVERY`] | 40-90, without the send |
//! | effect of a message: join, leave, publish | [`EFFECT`] | 0.5-2 us with notices |
//! | message to another connection (Zenith's calls) | [`TELL`] | 1-2 us |
//! | listing, for each channel that the core knows | [`LISTED`] | 26 ms at 0.6 million |
//! | list of members, for each of them | [`LISTED`] | as above |
//! | message for a model | [`MODEL`] | |
//! | byte of such a message | [`MODEL_BYTE`] | 27-34 ns: JSON to a tree, and a schema |
//! | byte of a message for a dialect, beyond [`CONNECTION_BYTES`] | [`JSON_BYTE`] | simd-json |
//! | TLS handshake's flight | [`HANDSHAKE`] | 150 us (ECDSA) to 960 us (RSA-2048): 8 a turn |
//! | decompressed octet | 1 | `ws::output` counts these itself |
//! | token that is refused by its shape | [`TOKEN`] | |
//! | signature of a token | [`crate::jwt::Algorithm::cost_us`] | 1-750 us |

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

/// What one turn of a reactor does before its connections wait for the next one: 4 ms.
pub const TURN: u64 = 4 * 1024 * 1024;
/// What one connection may ask for in one turn, beside the two bounds below: 1 ms.
pub const CONNECTION_WORK: u64 = 1024 * 1024;
/// Messages, or requests, of one connection that are taken in one turn.
pub const CONNECTION_MESSAGES: u32 = 256;
/// Bytes of one connection that are taken in one turn, and one receive buffer more at most.
pub const CONNECTION_BYTES: usize = 64 * 1024;

/// See the table in the module's documentation; so for all prices.
pub const STEP: u64 = 300;
/// To one subscriber.
pub const DELIVERY: u64 = 60;
/// Join, leave, publish.
pub const EFFECT: u64 = 1000;
/// To another connection.
pub const TELL: u64 = 1000;
/// One channel or member.
pub const LISTED: u64 = 50;
/// A message for a model, beside its bytes.
pub const MODEL: u64 = 2000;
/// One byte of it.
pub const MODEL_BYTE: u64 = 32;
/// One byte of a large message for a dialect.
pub const JSON_BYTE: u64 = 2;
/// A flight of a TLS handshake that has a signature in it.
pub const HANDSHAKE: u64 = TURN / 8;
/// A token, beside its signature.
pub const TOKEN: u64 = 2000;

/// Failures, such as tokens that are not believed, with which a connection is closed.
pub const CONNECTION_FAILURES: u8 = 3;
/// Failures of one address in one second, on one core, with which nothing more is verified for it
/// until the next second.
pub const ADDRESS_FAILURES: u16 = 32;
/// Addresses with failures that a core remembers in one second; all further ones are counted as
/// one address.
const ADDRESSES: usize = 4096;

/// The kinds of work that a log line names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WorkKind {
    /// Many messages, each of which is cheap.
    #[default]
    Messages,
    /// Verifying a token.
    Token,
    /// Checking a message against a model.
    Model,
    /// Parsing a large message.
    Parse,
    /// A TLS handshake.
    Handshake,
    /// Compressing or decompressing.
    Compression,
    /// Joining, leaving or publishing.
    Effect,
    /// Delivering events to subscribers.
    Delivery,
    /// Listing channels or members.
    Listing,
}

/// Who has cost most in a turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dearest {
    /// The index of the connection.
    pub index: u32,
    /// The dearest single operation that it has asked for.
    pub kind: WorkKind,
    /// What all that it has asked for has cost at once, in nanoseconds by the prices above.
    pub ns: u64,
}

/// The work of one core. One thread uses it; nothing is locked.
#[derive(Debug, Default)]
pub struct Meter {
    /// Since the start.
    total: Cell<u64>,
    /// What `total` was when the turn began.
    turn: Cell<u64>,
    /// The dearest operation since [`Meter::begin`], and its price.
    kind: Cell<(WorkKind, u64)>,
    dearest: Cell<Dearest>,
    /// Failures of the connection that is being served.
    failures: Cell<u8>,
    attempts: RefCell<Attempts>,
}

impl Meter {
    /// Counts a dear operation.
    pub fn charge(&self, kind: WorkKind, ns: u64) {
        self.add(ns);
        if ns > self.kind.get().1 {
            self.kind.set((kind, ns));
        }
    }

    /// Counts what every message costs.
    #[inline]
    pub fn add(&self, ns: u64) {
        self.total.set(self.total.get().wrapping_add(ns));
    }

    /// All work since the start.
    #[inline]
    pub fn total(&self) -> u64 {
        self.total.get()
    }

    /// Whether this turn has done as much as a turn may.
    #[inline]
    pub fn is_spent(&self) -> bool {
        self.total.get().wrapping_sub(self.turn.get()) >= TURN
    }

    /// A new turn begins.
    pub fn new_turn(&self) {
        self.turn.set(self.total.get());
    }

    /// A connection's input is about to be taken. Gives what [`Meter::end`] wants.
    pub fn begin(&self) -> u64 {
        self.kind.set((WorkKind::default(), 0));
        self.total.get()
    }

    /// The connection at `index` has been served since `begun`.
    pub fn end(&self, index: u32, begun: u64) {
        let ns = self.total.get().wrapping_sub(begun);
        if ns > self.dearest.get().ns {
            self.dearest.set(Dearest { index, kind: self.kind.get().0, ns });
        }
    }

    /// Who has cost most since the last call.
    pub fn take_dearest(&self) -> Dearest {
        self.dearest.take()
    }

    // --- failures ---

    /// Whether something may be verified for this address, which has had its failures otherwise:
    /// that counts as a failure of the connection, too.
    pub fn may_verify(&self, address: IpAddr, now_s: u64) -> bool {
        let may = self.attempts.borrow_mut().failures(address, now_s) < ADDRESS_FAILURES;
        if !may {
            self.failures.set(self.failures.get().saturating_add(1));
        }
        may
    }

    /// What the connection has brought is not believed.
    pub fn fail(&self, address: IpAddr, now_s: u64) {
        self.failures.set(self.failures.get().saturating_add(1));
        self.attempts.borrow_mut().add(address, now_s);
    }

    /// Failures of the connection since [`Meter::take_failures`].
    pub fn failures(&self) -> u8 {
        self.failures.get()
    }

    /// Failures since the last call.
    pub fn take_failures(&self) -> u8 {
        self.failures.take()
    }
}

/// Failures by address in the present second.
#[derive(Debug, Default)]
struct Attempts {
    second: u64,
    failed: HashMap<IpAddr, u16>,
    /// Those of addresses for which there was no room.
    others: u16,
}

impl Attempts {
    fn look(&mut self, now_s: u64) {
        if self.second != now_s {
            self.second = now_s;
            self.others = 0;
            // No more than was needed in the last second is kept.
            self.failed.shrink_to(2 * self.failed.len());
            self.failed.clear();
        }
    }

    fn failures(&mut self, address: IpAddr, now_s: u64) -> u16 {
        self.look(now_s);
        match self.failed.get(&network(address)) {
            Some(failed) => *failed,
            None if self.failed.len() < ADDRESSES => 0,
            None => self.others,
        }
    }

    fn add(&mut self, address: IpAddr, now_s: u64) {
        self.look(now_s);
        let address = network(address);
        let count = match self.failed.contains_key(&address) || self.failed.len() < ADDRESSES {
            true => self.failed.entry(address).or_insert(0),
            false => &mut self.others,
        };
        *count = count.saturating_add(1);
    }
}

/// An IPv4 address, or the 64-bit network of an IPv6 one: whoever has one address of such a
/// network has them all.
pub fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => IpAddr::V4(v4),
            None => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect(text)
    }

    #[test]
    fn work_of_a_turn_is_spent_at_its_bound_and_not_before() {
        let meter = Meter::default();
        meter.add(TURN - 1);
        assert!(!meter.is_spent());
        meter.charge(WorkKind::Token, 1);
        assert!(meter.is_spent());
        meter.new_turn();
        assert!(!meter.is_spent() && meter.total() == TURN);
    }

    #[test]
    fn work_names_the_connection_that_cost_most_and_its_dearest_operation() {
        let meter = Meter::default();
        for (index, tokens) in [(1, 1), (2, 3), (3, 2)] {
            let begun = meter.begin();
            meter.charge(WorkKind::Effect, EFFECT);
            (0..tokens).for_each(|_| meter.charge(WorkKind::Token, TOKEN));
            meter.end(index, begun);
        }
        let expected = Dearest { index: 2, kind: WorkKind::Token, ns: EFFECT + 3 * TOKEN };
        assert_eq!(meter.take_dearest(), expected);
        assert_eq!(meter.take_dearest(), Dearest::default());
    }

    #[test]
    fn failures_of_an_address_are_bounded_in_a_second() {
        let meter = Meter::default();
        let (one, other) = (address("10.0.0.1"), address("10.0.0.2"));
        for _ in 0..ADDRESS_FAILURES {
            assert!(meter.may_verify(one, 5));
            meter.fail(one, 5);
        }
        assert!(!meter.may_verify(one, 5) && meter.may_verify(other, 5));
        assert_eq!(meter.take_failures(), ADDRESS_FAILURES as u8 + 1);
        assert_eq!(meter.failures(), 0);
        assert!(meter.may_verify(one, 6), "the next second");
    }

    #[test]
    fn failures_of_one_ipv6_network_count_together() {
        let meter = Meter::default();
        for host in 0..u128::from(ADDRESS_FAILURES) {
            let v6 = Ipv6Addr::from_bits(0x2001_0db8_0000_0001 << 64 | host << 32 | 1);
            meter.fail(IpAddr::V6(v6), 5);
        }
        assert!(!meter.may_verify(address("2001:db8:0:1::ffff"), 5));
        assert!(meter.may_verify(address("2001:db8:0:2::1"), 5));
        assert_eq!(network(address("::ffff:10.0.0.1")), address("10.0.0.1"));
    }

    #[test]
    fn failures_of_addresses_without_room_count_as_those_of_one() {
        let meter = Meter::default();
        let nth = |n: usize| IpAddr::from((0x0a00_0000 + n as u32).to_be_bytes());
        for n in 0..ADDRESSES {
            meter.fail(nth(n), 5);
        }
        assert!(meter.may_verify(nth(ADDRESSES), 5));
        for n in 0..usize::from(ADDRESS_FAILURES) {
            meter.fail(nth(ADDRESSES + n), 5);
        }
        assert!(!meter.may_verify(nth(2 * ADDRESSES), 5), "all of these are one");
        assert!(meter.may_verify(nth(0), 5), "which had room has its own");
        assert_eq!(meter.attempts.borrow().failed.len(), ADDRESSES);
    }
}
