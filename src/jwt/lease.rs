//! Token leases: how long a connection may stay open on the strength of its tokens, and how a new
//! token extends that.
//!
//! A renewal is stored under its identity. A connection looks it up when its own lease is due, so
//! that a renewal needs no mail between cores, and processing a message takes no lock.

use crate::claims::Claims;
use crate::time::{Deadline, Now};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The identities that are connected by tokens of one guard, on all cores.
#[derive(Debug, Default)]
pub struct TokenHolders(Mutex<HashMap<Arc<str>, TokenHolder>>);

#[derive(Debug, Default)]
struct TokenHolder {
    connections: usize,
    /// The claims of the last renewal, if there was one since the first of these connections.
    renewal: Option<Renewal>,
}

#[derive(Clone, Debug)]
struct Renewal {
    expires_s: Option<u64>,
    roles: Vec<String>,
}

impl TokenHolders {
    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, TokenHolder>> {
        // No code that can panic runs while the lock is held, so it is never poisoned.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores a new token's claims for all connections of its identity. False if the token has no
    /// identity, or no connection has it.
    pub fn renew(&self, claims: &Claims) -> bool {
        let Some(identity) = claims.identity.as_deref() else { return false };
        let mut holders = self.lock();
        let Some(holder) = holders.get_mut(identity) else { return false };
        let (expires_s, roles) = (claims.expires_s, claims.roles.clone());
        holder.renewal = Some(Renewal { expires_s, roles });
        true
    }

    /// The number of connected identities.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether no identity is connected.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The time that one token gives one connection.
#[derive(Debug)]
pub struct TokenLease {
    holders: Arc<TokenHolders>,
    identity: Option<Arc<str>>,
    /// The roles that a renewal must have, too.
    roles: Vec<String>,
    expires_s: u64,
    /// How many seconds before the expiry the client is asked to renew; 0 is never.
    challenge_s: u64,
    challenged: bool,
}

impl TokenLease {
    /// The lease that `claims` give; `None` if the token never expires.
    pub fn new(
        claims: &Claims,
        roles: &[String],
        challenge_s: u64,
        holders: &Arc<TokenHolders>,
    ) -> Option<TokenLease> {
        let expires_s = claims.expires_s?;
        let identity = claims.identity.as_deref().map(|name| {
            let mut all = holders.lock();
            let name = match all.get_key_value(name) {
                Some((known, _)) => known.clone(),
                None => Arc::from(name),
            };
            all.entry(name.clone()).or_default().connections += 1;
            name
        });
        let (holders, roles) = (holders.clone(), roles.to_vec());
        Some(TokenLease { holders, identity, roles, expires_s, challenge_s, challenged: false })
    }

    /// When the lease is due next, for a challenge or its expiry, in seconds since 1970.
    fn next_s(&self) -> u64 {
        match self.challenge_s {
            0 => self.expires_s,
            _ if self.challenged => self.expires_s,
            early => self.expires_s.saturating_sub(early),
        }
    }

    /// Applies the last renewal of the identity, if it has the roles and expires later. False if
    /// the renewal never expires, so that the lease is no longer needed.
    fn refresh(&mut self) -> bool {
        let Some(identity) = &self.identity else { return true };
        let renewal = self.holders.lock().get(identity).and_then(|it| it.renewal.clone());
        let Some(renewal) = renewal else { return true };
        if !self.roles.iter().all(|role| renewal.roles.contains(role)) {
            return true;
        }
        match renewal.expires_s {
            None => return false,
            Some(at) if at > self.expires_s => {
                self.expires_s = at;
                self.challenged = false;
            }
            Some(_) => {}
        }
        true
    }
}

impl Drop for TokenLease {
    fn drop(&mut self) {
        let Some(identity) = &self.identity else { return };
        let mut holders = self.holders.lock();
        if let Some(holder) = holders.get_mut(identity) {
            holder.connections -= 1;
            if holder.connections == 0 {
                holders.remove(identity);
            }
        }
    }
}

/// The state of a connection's leases at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// No lease is due.
    None,
    /// A lease expires soon: the client is to be asked for a new token.
    Challenge,
    /// A lease has expired.
    Expired,
}

/// The leases of one connection, one for each guard. The connection may stay open until the first
/// of them expires.
#[derive(Debug)]
pub struct TokenLeases {
    all: Vec<TokenLease>,
    deadline: Deadline,
}

impl TokenLeases {
    /// The leases of one connection; `None` if there are none.
    pub fn new(all: Vec<TokenLease>, now: Now) -> Option<Box<TokenLeases>> {
        let mut leases = TokenLeases { all, deadline: Deadline::NEVER };
        leases.arm(now);
        (!leases.all.is_empty()).then(|| Box::new(leases))
    }

    /// When [`TokenLeases::look`] is to be called.
    pub fn deadline(&self) -> Deadline {
        self.deadline
    }

    /// Applies renewals to the leases that are due, and returns whether a challenge is to be sent
    /// or a lease has expired.
    pub fn look(&mut self, now: Now) -> Expiry {
        let mut expiry = Expiry::None;
        self.all.retain_mut(|lease| {
            if now.unix_s < lease.next_s() {
                return true;
            }
            let goes_on = lease.refresh();
            if goes_on && now.unix_s >= lease.expires_s {
                expiry = Expiry::Expired;
            } else if goes_on && now.unix_s >= lease.next_s() {
                lease.challenged = true;
                expiry = if expiry == Expiry::None { Expiry::Challenge } else { expiry };
            }
            goes_on
        });
        self.arm(now);
        expiry
    }

    fn arm(&mut self, now: Now) {
        let next_s = self.all.iter().map(TokenLease::next_s).min();
        self.deadline = next_s.map_or(Deadline::NEVER, |at| {
            now.plus_ms(at.saturating_sub(now.unix_s).saturating_mul(1000))
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(unix_s: u64) -> Now {
        Now { ms: unix_s * 1000, unix_s }
    }

    fn claims(identity: &str, expires_s: u64, roles: &[&str]) -> Claims {
        Claims {
            identity: Some(identity.to_owned()),
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            expires_s: Some(expires_s).filter(|at| *at > 0),
            attributes: Vec::new(),
        }
    }

    fn leases(holders: &Arc<TokenHolders>, challenge_s: u64) -> Box<TokenLeases> {
        let roles = ["r".to_owned()];
        let lease = TokenLease::new(&claims("ada", 110, &["r"]), &roles, challenge_s, holders);
        TokenLeases::new(lease.into_iter().collect(), now(100)).unwrap()
    }

    #[test]
    fn lease_ends_at_its_second() {
        let holders = Arc::default();
        let mut it = leases(&holders, 0);
        assert_eq!(it.deadline(), Deadline(110_000));
        assert_eq!(it.look(now(109)), Expiry::None);
        assert_eq!(it.look(now(110)), Expiry::Expired);
        assert_eq!(holders.len(), 1);
        drop(it);
        assert!(holders.is_empty(), "nothing is kept of who is gone");
    }

    #[test]
    fn lease_challenge_comes_once_for_each_renewal() {
        let holders = Arc::default();
        let mut it = leases(&holders, 4);
        assert_eq!(it.deadline(), Deadline(106_000));
        assert_eq!(it.look(now(105)), Expiry::None);
        assert_eq!(it.look(now(106)), Expiry::Challenge);
        assert_eq!((it.look(now(107)), it.deadline()), (Expiry::None, Deadline(110_000)));
        assert!(holders.renew(&claims("ada", 120, &["r"])));
        assert_eq!((it.look(now(110)), it.deadline()), (Expiry::None, Deadline(116_000)));
        assert_eq!(it.look(now(116)), Expiry::Challenge);
        assert_eq!(it.look(now(120)), Expiry::Expired);
    }

    #[test]
    fn lease_renewal_needs_identity_roles_and_a_later_end() {
        let holders = Arc::default();
        let mut it = leases(&holders, 0);
        assert!(!holders.renew(&claims("eve", 200, &["r"])));
        assert!(!holders.renew(&Claims { identity: None, ..claims("", 200, &["r"]) }));
        assert!(holders.renew(&claims("ada", 200, &["other"])));
        assert_eq!(it.look(now(110)), Expiry::Expired);
        assert!(holders.renew(&claims("ada", 105, &["r"])));
        assert_eq!(it.look(now(110)), Expiry::Expired);
        assert!(holders.renew(&claims("ada", 200, &["x", "r"])));
        assert_eq!((it.look(now(110)), it.deadline()), (Expiry::None, Deadline(200_000)));
        assert!(holders.renew(&claims("ada", 0, &["r"])));
        assert_eq!((it.look(now(200)), it.deadline()), (Expiry::None, Deadline::NEVER));
    }

    #[test]
    fn lease_renewal_that_ends_sooner_changes_nothing() {
        let holders = Arc::default();
        let mut it = leases(&holders, 4);
        assert!(holders.renew(&claims("ada", 108, &["r"])));
        assert_eq!((it.look(now(106)), it.deadline()), (Expiry::Challenge, Deadline(110_000)));
        assert_eq!([it.look(now(109)), it.look(now(110))], [Expiry::None, Expiry::Expired]);
    }

    #[test]
    fn lease_shortest_of_several_counts() {
        let holders = Arc::default();
        let lease = |at| TokenLease::new(&claims("ada", at, &[]), &[], 0, &holders);
        assert!(lease(0).is_none() && TokenLeases::new(Vec::new(), now(0)).is_none());
        let both = [120, 105].into_iter().filter_map(lease).collect();
        let mut it = TokenLeases::new(both, now(100)).unwrap();
        assert_eq!(it.deadline(), Deadline(105_000));
        assert_eq!(it.look(now(105)), Expiry::Expired);
    }
}
