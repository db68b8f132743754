//! The state that connections of all cores share: the sessions of users, the back ends with their
//! registrations, and the states of feeds.
//!
//! Sign-in and registration take exclusive locks; a subscription and a call look up a back end
//! under a shared lock. Publishing and delivering data takes none of these locks.

use super::attempts::SignInAttempts;
use super::members::LoggedMembers;
use super::peer::ZenithPeer;
use super::rule::{Backend, Rule};
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

/// The state that connections of all cores share; see the module's documentation.
#[derive(Debug, Default)]
pub struct State {
    /// The sessions of each user. Users are distributed over several tables, so that cores seldom
    /// wait for the same lock.
    sessions: [Mutex<SessionTable>; SESSION_TABLES],
    hasher: ahash::RandomState,
    /// The counts of wrong tokens and passwords, by address.
    pub(super) attempts: SignInAttempts,
    /// The registrations of back ends, by controller.
    served: RwLock<HashMap<Box<str>, Vec<Served>>>,
    /// The states of feeds that differ from the configuration, by name.
    feeds: RwLock<HashMap<Box<str>, Box<str>>>,
    /// What other nodes of a cluster, and this one, have stated of these.
    pub(super) members: Mutex<LoggedMembers>,
}

const SESSION_TABLES: usize = 32;

/// The sessions of some users.
#[derive(Debug, Default)]
struct SessionTable {
    users: HashMap<Box<str>, UserSessions>,
    /// The number of the newest session; numbers follow the order in which sessions began.
    last: u64,
}

/// The sessions of one user: the connection by session number, and the session number by
/// connection.
#[derive(Debug, Default)]
struct UserSessions {
    by_age: BTreeMap<u64, ZenithPeer>,
    numbers: HashMap<ZenithPeer, u64>,
}

/// One registration of a back end for a controller.
#[derive(Clone, Debug)]
pub(super) struct Served {
    /// The kind of topics; `None` stands for all kinds that have no registration of their own.
    pub(super) kind: Option<Box<str>>,
    /// The back end's connection; `None` after it has closed.
    pub(super) conn: Option<ZenithPeer>,
    /// Whether the back end is asked to grant each first subscription of a client.
    pub(super) authorises: bool,
    /// The rule that applies to topics which are not configured.
    pub(super) rule: Arc<Rule>,
}

/// The maximum number of registrations of all back ends together.
const MAX_REGISTERED: usize = 4096;

impl State {
    // --- sessions ---

    /// Adds a connection to the sessions of `user`. Removes and returns the sessions over the
    /// maximum `max`, the oldest first; a `max` of 0 is no maximum.
    pub(super) fn enter(
        &self,
        user: &str,
        conn: impl Into<ZenithPeer>,
        max: usize,
    ) -> Vec<ZenithPeer> {
        let conn = conn.into();
        let mut table = self.sessions_of(user);
        table.last += 1;
        let number = table.last;
        let sessions = table.users.entry(user.into()).or_default();
        if let Entry::Vacant(place) = sessions.numbers.entry(conn) {
            place.insert(number);
            sessions.by_age.insert(number, conn);
        }
        let over = if max == 0 { 0 } else { sessions.by_age.len().saturating_sub(max) };
        let too_many = (0..over).filter_map(|_| sessions.by_age.pop_first());
        let too_many: Vec<ZenithPeer> = too_many.map(|(_, conn)| conn).collect();
        for conn in &too_many {
            sessions.numbers.remove(conn);
        }
        too_many
    }

    /// Removes a connection from the sessions of `user`.
    pub(super) fn leave(&self, user: &str, conn: impl Into<ZenithPeer>) {
        let conn = conn.into();
        let mut table = self.sessions_of(user);
        let Some(sessions) = table.users.get_mut(user) else { return };
        if let Some(number) = sessions.numbers.remove(&conn) {
            sessions.by_age.remove(&number);
        }
        if sessions.by_age.is_empty() {
            table.users.remove(user);
        }
    }

    /// The sessions of `user`, the oldest first.
    pub(super) fn sessions(&self, user: &str) -> Vec<ZenithPeer> {
        let table = self.sessions_of(user);
        table.users.get(user).map(|it| it.by_age.values().copied().collect()).unwrap_or_default()
    }

    fn sessions_of(&self, user: &str) -> MutexGuard<'_, SessionTable> {
        let at = self.hasher.hash_one(user) as usize % self.sessions.len();
        self.sessions[at].lock().unwrap_or_else(PoisonError::into_inner)
    }

    // --- back ends ---

    /// Registers a back end for a kind of topics; false if the maximum number of registrations is
    /// reached.
    pub(super) fn register(&self, controller: &str, served: Served) -> bool {
        let mut all = self.served.write().unwrap_or_else(PoisonError::into_inner);
        if all.values().map(Vec::len).sum::<usize>() >= MAX_REGISTERED {
            return false;
        }
        let list = all.entry(controller.into()).or_default();
        // A new registration replaces registrations for the same kind by closed connections, and an
        // earlier registration for the same kind by the same connection.
        list.retain(|it| it.kind != served.kind || it.conn.is_some() && it.conn != served.conn);
        list.push(served);
        true
    }

    /// Removes the registrations of a back end that has closed. If no other registration for a kind
    /// is left, the entry is kept without a connection, so that requests for the kind fail as
    /// unavailable instead of unknown.
    pub(super) fn unregister(&self, conn: impl Into<ZenithPeer>) {
        let conn = conn.into();
        let mut all = self.served.write().unwrap_or_else(PoisonError::into_inner);
        for list in all.values_mut() {
            for at in (0..list.len()).rev() {
                if list[at].conn != Some(conn) {
                    continue;
                }
                list[at].conn = None;
                let kind = list[at].kind.clone();
                if list.iter().filter(|it| it.kind == kind).count() > 1 {
                    list.remove(at);
                }
            }
        }
    }

    /// Whether there is room for `more` registrations.
    pub(super) fn has_room(&self, more: usize) -> bool {
        let all = self.served.read().unwrap_or_else(PoisonError::into_inner);
        all.values().map(Vec::len).sum::<usize>() + more <= MAX_REGISTERED
    }

    /// Whether a back end is registered.
    pub(super) fn has_peer(&self, conn: ZenithPeer) -> bool {
        let all = self.served.read().unwrap_or_else(PoisonError::into_inner);
        all.values().flatten().any(|served| served.conn == Some(conn))
    }

    /// Whether a back end has registered a controller, now or before.
    pub(super) fn serves(&self, controller: &str) -> bool {
        let all = self.served.read().unwrap_or_else(PoisonError::into_inner);
        all.contains_key(controller)
    }

    /// The rule and the back end of a kind: the first connected back end that has registered the
    /// kind, else the first that has registered the whole controller.
    pub(super) fn served(&self, controller: &str, kind: &str) -> (Option<Arc<Rule>>, Backend) {
        let all = self.served.read().unwrap_or_else(PoisonError::into_inner);
        let list = all.get(controller).map_or(&[][..], Vec::as_slice);
        let exact = list.iter().filter(|it| it.kind.as_deref() == Some(kind));
        let whole = list.iter().filter(|it| it.kind.is_none());
        let mut found = (None, Backend::None);
        for served in exact.chain(whole) {
            match served.conn {
                Some(conn) => {
                    let backend = Backend::At(conn, served.authorises);
                    return (Some(served.rule.clone()), backend);
                }
                None if found.0.is_none() => {
                    found = (Some(served.rule.clone()), Backend::Away);
                }
                None => {}
            }
        }
        found
    }

    // --- feeds ---

    /// Sets the state of a feed, or resets it to the configured state with `None`. True if the
    /// state has changed.
    pub(super) fn set_feed(&self, name: &str, status: Option<&str>) -> bool {
        let mut feeds = self.feeds.write().unwrap_or_else(PoisonError::into_inner);
        match status {
            Some(status) => feeds.insert(name.into(), status.into()).as_deref() != Some(status),
            None => feeds.remove(name).is_some(),
        }
    }

    /// Calls `read` with the states of feeds that differ from the configuration.
    pub(super) fn with_feeds(&self, read: impl FnOnce(&HashMap<Box<str>, Box<str>>)) {
        read(&self.feeds.read().unwrap_or_else(PoisonError::into_inner));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::ConnId;
    use crate::mem::Slot;

    fn conn(index: u32) -> ZenithPeer {
        ConnId { core: 0, slot: Slot { index, generation: 1 } }.into()
    }

    fn served(kind: Option<&str>, index: u32) -> Served {
        let rule = Arc::new(Rule::default());
        Served { kind: kind.map(Into::into), conn: Some(conn(index)), authorises: false, rule }
    }

    #[test]
    fn zenith_registry_returns_the_oldest_sessions_over_the_limit() {
        let state = State::default();
        assert_eq!(state.enter("u", conn(1), 2), []);
        assert_eq!(state.enter("u", conn(2), 2), []);
        assert_eq!(state.enter("u", conn(2), 2), [], "it signs in again");
        assert_eq!(state.enter("v", conn(3), 2), []);
        assert_eq!(state.enter("u", conn(4), 2), [conn(1)]);
        assert_eq!(state.sessions("u"), [conn(2), conn(4)]);
        state.leave("u", conn(1));
        state.leave("u", conn(2));
        state.leave("u", conn(4));
        assert_eq!(state.sessions("u"), []);
        let users = state.sessions.iter().map(|table| table.lock().unwrap().users.len());
        assert_eq!(users.sum::<usize>(), 1);
    }

    #[test]
    fn zenith_registry_prefers_an_exact_kind() {
        let state = State::default();
        assert_eq!(state.served("M", "Q").1, Backend::None);
        assert!(state.register("M", served(None, 1)));
        assert!(state.register("M", served(Some("Q"), 2)));
        assert!(state.register("M", served(Some("Q"), 3)));
        assert_eq!(state.served("M", "Q").1, Backend::At(conn(2), false));
        assert_eq!(state.served("M", "R").1, Backend::At(conn(1), false));
        state.unregister(conn(2));
        assert_eq!(state.served("M", "Q").1, Backend::At(conn(3), false));
        state.unregister(conn(3));
        assert_eq!(state.served("M", "Q").1, Backend::At(conn(1), false));
        state.unregister(conn(1));
        assert_eq!(state.served("M", "Q").1, Backend::Away);
        assert_eq!(state.served("M", "R").1, Backend::Away);
        assert!(state.serves("M") && !state.serves("N"));
        assert!(state.register("M", served(Some("Q"), 4)));
        assert_eq!(state.served("M", "Q").1, Backend::At(conn(4), false));
        assert_eq!(state.served.read().unwrap()["M"].len(), 2, "the tombstone is gone");
    }

    #[test]
    fn zenith_registry_is_bounded() {
        let state = State::default();
        for at in 0..MAX_REGISTERED {
            assert!(state.register("M", served(Some(&at.to_string()), 1)), "{at}");
        }
        assert!(!state.register("M", served(Some("one more"), 1)));
    }
}
