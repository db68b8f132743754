//! The estimated cost of operations, and how much work one turn and one connection may do.
//!
//! The layers below the reactor read no clock, so work is estimated. Its unit is one nanosecond of
//! one server core. A turn exceeds its share of work by at most one operation; the remaining input
//! of the connections waits and is processed in the next turns, one connection after the other. A
//! share begins at the end of a reactor's turn, when the waiting connections are served, so one
//! turn of the reactor contains at most two shares.
//!
//! Of the connections that wait, those that have caused little work lately ([`LIGHT`]) are served
//! before the others, so that a quiet client does not wait until every busy one had its share. The
//! busy ones get half of a turn ([`TURN`]) together, one share each, in the order in which they
//! began to wait. While some of them wait, the others wait behind them.
//!
//! | operation | cost in ns | measured or estimated |
//! | --- | --- | --- |
//! | step of a connection: one message or request | [`STEP`] | 200-400 measured |
//! | four bytes received, or four written | 1 | copy, mask, UTF-8: 0.2 ns a byte |
//! | delivery of an event to one subscriber | [`DELIVERY`] | 40-90, without the send |
//! | effect of a message: join, leave, publish | [`EFFECT`] | 0.5-2 us with channel events |
//! | message to another connection (Zenith's calls) | [`MESSAGE`] | 1-2 us |
//! | list of channels, for each channel that the core knows | [`LISTED`] | 26 ms at 0.6 million |
//! | list of members, for each member | [`LISTED`] | as above |
//! | message checked by a model | [`MODEL`] | |
//! | byte of such a message | [`MODEL_BYTE`] | 27-34 ns: JSON to a tree, and a schema |
//! | byte of a message for a dialect, beyond [`CONNECTION_BYTES`] | [`JSON_BYTE`] | simd-json |
//! | TLS handshake flight | [`HANDSHAKE`] | 150 us (ECDSA) to 960 us (RSA-2048): 8 a turn |
//! | decompressed byte | 1 | counted by `ws::output` |
//! | token that is rejected by its form | [`TOKEN`] | |
//! | signature of a token | [`crate::jwt::Algorithm::cost_us`] | 1-750 us |

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

/// The work that one turn may do before its connections wait for the next turn, in ns: about 4 ms.
pub const TURN: u64 = 4 * 1024 * 1024;
/// The work that one connection may cause in one turn, in ns: about 1 ms. [`CONNECTION_MESSAGES`]
/// and [`CONNECTION_BYTES`] apply as well.
pub const CONNECTION_WORK: u64 = 1024 * 1024;
/// The maximum number of messages or requests of one connection that are processed in one turn.
pub const CONNECTION_MESSAGES: u32 = 256;
/// The maximum number of bytes of one connection that are processed in one turn, exceeded by at
/// most one receive buffer.
pub const CONNECTION_BYTES: usize = 64 * 1024;

/// The part of a connection's share of one turn, as a divisor, that a light connection may use in
/// one period of [`LIGHT_MS`]: 16 messages, 4 KiB, 64 us of work. A connection that has used more
/// is busy until the next period.
pub const LIGHT: u64 = 16;
/// The length of the periods by which light connections are distinguished from busy ones, in
/// milliseconds.
pub const LIGHT_MS: u64 = 64;

/// The cost of a step of a connection, in ns. The table in the module's documentation explains all
/// costs.
pub const STEP: u64 = 300;
/// The cost of delivering an event to one subscriber, in ns.
pub const DELIVERY: u64 = 60;
/// The cost of a join, leave or publish, in ns.
pub const EFFECT: u64 = 1000;
/// The cost of a message to another connection, in ns.
pub const MESSAGE: u64 = 1000;
/// The cost of listing one channel or member, in ns.
pub const LISTED: u64 = 50;
/// The cost of checking a message by a model, without [`MODEL_BYTE`], in ns.
pub const MODEL: u64 = 2000;
/// The cost of each byte of a message that a model checks, in ns.
pub const MODEL_BYTE: u64 = 32;
/// The cost of each byte of a large message for a dialect, in ns.
pub const JSON_BYTE: u64 = 2;
/// The cost of a TLS handshake flight that contains a signature, in ns.
pub const HANDSHAKE: u64 = TURN / 8;
/// The cost of a token, without its signature, in ns.
pub const TOKEN: u64 = 2000;

/// The number of failures, such as tokens that are not accepted, after which a connection is
/// closed.
pub const CONNECTION_FAILURES: u8 = 3;
/// The number of failures of one address within one second, on one core, after which nothing more
/// is verified for this address until the next second.
pub const ADDRESS_FAILURES: u16 = 32;
/// The maximum number of addresses with failures that a core tracks in one second. All further
/// addresses are counted as one.
const ADDRESSES: usize = 4096;

/// The kinds of work that the log line of a long turn names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WorkKind {
    /// Many messages, each of which costs little.
    #[default]
    Messages,
    /// Verifying a token.
    Token,
    /// Checking a message by a model.
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

/// The connection that has caused the most work in a turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CostliestWork {
    /// The index of the connection.
    pub index: u32,
    /// The kind of the most expensive single operation of this connection.
    pub kind: WorkKind,
    /// The work of this connection between [`Meter::begin`] and [`Meter::end`], in nanoseconds by
    /// the costs of this module.
    pub ns: u64,
}

/// The work of one core. Only one thread uses it, so it needs no locks.
#[derive(Debug, Default)]
pub struct Meter {
    /// All work since the start, in ns; wraps around.
    total: Cell<u64>,
    /// The value of `total` when the turn began.
    turn: Cell<u64>,
    /// The kind and the cost of the most expensive operation since [`Meter::begin`].
    kind: Cell<(WorkKind, u64)>,
    costliest: Cell<CostliestWork>,
    /// Failures of the connection that is being served.
    failures: Cell<u8>,
    attempts: RefCell<Attempts>,
}

impl Meter {
    /// Adds the cost of an expensive operation, `ns` nanoseconds, of this kind.
    pub fn charge(&self, kind: WorkKind, ns: u64) {
        self.add(ns);
        if ns > self.kind.get().1 {
            self.kind.set((kind, ns));
        }
    }

    /// Adds `ns` nanoseconds of work without a kind.
    #[inline]
    pub fn add(&self, ns: u64) {
        self.total.set(self.total.get().wrapping_add(ns));
    }

    /// All work since the start, in nanoseconds.
    #[inline]
    pub fn total(&self) -> u64 {
        self.total.get()
    }

    /// Whether this turn has used up its share of work.
    #[inline]
    pub fn is_spent(&self) -> bool {
        self.of_turn() >= TURN
    }

    /// The work of this turn so far, in nanoseconds.
    pub fn of_turn(&self) -> u64 {
        self.total.get().wrapping_sub(self.turn.get())
    }

    /// Begins a new turn.
    pub fn new_turn(&self) {
        self.turn.set(self.total.get());
    }

    /// Begins to process a connection's input. Returns the argument `begun` of [`Meter::end`].
    pub fn begin(&self) -> u64 {
        self.kind.set((WorkKind::default(), 0));
        self.total.get()
    }

    /// Ends the processing of the connection at `index`, which began at `begun`.
    pub fn end(&self, index: u32, begun: u64) {
        let ns = self.total.get().wrapping_sub(begun);
        if ns > self.costliest.get().ns {
            self.costliest.set(CostliestWork { index, kind: self.kind.get().0, ns });
        }
    }

    /// Returns and resets the connection that has caused the most work since the last call.
    pub fn take_costliest(&self) -> CostliestWork {
        self.costliest.take()
    }

    // --- failures ---

    /// Whether a token or the like may be verified for this address. If the address has used up its
    /// failures of this second, the answer is no, and counts as a failure of the connection.
    pub fn may_verify(&self, address: IpAddr, now_s: u64) -> bool {
        let may = self.attempts.borrow_mut().failures(address, now_s) < ADDRESS_FAILURES;
        if !may {
            self.failures.set(self.failures.get().saturating_add(1));
        }
        may
    }

    /// Counts a failed verification for the connection and for its address.
    pub fn fail(&self, address: IpAddr, now_s: u64) {
        self.failures.set(self.failures.get().saturating_add(1));
        self.attempts.borrow_mut().add(address, now_s);
    }

    /// Failures of the connection since [`Meter::take_failures`].
    pub fn failures(&self) -> u8 {
        self.failures.get()
    }

    /// Returns and resets the number of failures since the last call.
    pub fn take_failures(&self) -> u8 {
        self.failures.take()
    }
}

/// Failures by address in the current second.
#[derive(Debug, Default)]
struct Attempts {
    second: u64,
    failed: HashMap<IpAddr, u16>,
    /// Failures of all addresses that found no room in `failed`.
    others: u16,
}

impl Attempts {
    fn look(&mut self, now_s: u64) {
        if self.second != now_s {
            self.second = now_s;
            self.others = 0;
            // Keep no more capacity than the last second needed.
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

/// The network of an address, by which limits count: an IPv4 address itself, or the 64-bit prefix
/// of an IPv6 address, because one host usually controls a whole prefix.
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
        let expected = CostliestWork { index: 2, kind: WorkKind::Token, ns: EFFECT + 3 * TOKEN };
        assert_eq!(meter.take_costliest(), expected);
        assert_eq!(meter.take_costliest(), CostliestWork::default());
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
