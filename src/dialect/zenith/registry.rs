//! What the connections of all cores share: who has a session, and which back end serves what.
//!
//! Signing in and registering lock it; a subscription and a call look a back end up under a lock
//! that they share. Data is published and delivered without it.

use super::attempts::SignInAttempts;
use super::directory::{Backend, Rule};
use crate::hub::ConnId;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct State {
    /// The sessions of each user. Users are spread over several tables, so that those of one core
    /// seldom wait for those of another.
    sessions: [Mutex<SessionTable>; SESSION_TABLES],
    hasher: ahash::RandomState,
    /// Wrong tokens and passwords.
    pub(super) attempts: SignInAttempts,
    served: RwLock<HashMap<Box<str>, Vec<Served>>>,
    feeds: RwLock<HashMap<Box<str>, Box<str>>>,
}

const SESSION_TABLES: usize = 32;

/// The sessions of some users.
#[derive(Debug, Default)]
struct SessionTable {
    users: HashMap<Box<str>, UserSessions>,
    /// Numbers all sessions, in the order in which they began.
    last: u64,
}

/// The sessions of one user, by their number, and the number of each.
#[derive(Debug, Default)]
struct UserSessions {
    by_age: BTreeMap<u64, ConnId>,
    numbers: HashMap<ConnId, u64>,
}

/// What a back end has registered for a controller.
#[derive(Clone, Debug)]
pub(super) struct Served {
    /// The kind of topics; all that nobody else has if there is none.
    pub(super) kind: Option<Box<str>>,
    /// `None` when it is gone.
    pub(super) conn: Option<ConnId>,
    /// Whether it is asked about each subscription.
    pub(super) authorises: bool,
    /// What holds for topics that are not configured.
    pub(super) rule: Arc<Rule>,
}

/// Kinds that all back ends together may have registered.
const REGISTERED_MOST: usize = 4096;

impl State {
    // --- sessions ---

    /// A connection is a session of `user` now. Gives those that are too many, the oldest first.
    pub(super) fn enter(&self, user: &str, conn: ConnId, max: usize) -> Vec<ConnId> {
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
        let too_many: Vec<ConnId> = too_many.map(|(_, conn)| conn).collect();
        for conn in &too_many {
            sessions.numbers.remove(conn);
        }
        too_many
    }

    /// A connection is no session of `user` any more.
    pub(super) fn leave(&self, user: &str, conn: ConnId) {
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
    pub(super) fn sessions(&self, user: &str) -> Vec<ConnId> {
        let table = self.sessions_of(user);
        table.users.get(user).map(|it| it.by_age.values().copied().collect()).unwrap_or_default()
    }

    fn sessions_of(&self, user: &str) -> MutexGuard<'_, SessionTable> {
        let at = self.hasher.hash_one(user) as usize % self.sessions.len();
        self.sessions[at].lock().unwrap_or_else(PoisonError::into_inner)
    }

    // --- back ends ---

    /// A back end serves a kind of topics from now on; false if there is no room for it.
    pub(super) fn register(&self, controller: &str, served: Served) -> bool {
        let mut all = self.served.write().unwrap_or_else(PoisonError::into_inner);
        if all.values().map(Vec::len).sum::<usize>() >= REGISTERED_MOST {
            return false;
        }
        let list = all.entry(controller.into()).or_default();
        // Who comes back takes the place of who has left.
        list.retain(|it| it.kind != served.kind || it.conn.is_some() && it.conn != served.conn);
        list.push(served);
        true
    }

    /// A back end is gone. Its kinds are remembered, so that they are missed.
    pub(super) fn unregister(&self, conn: ConnId) {
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

    /// Whether a back end serves a controller, or has.
    pub(super) fn serves(&self, controller: &str) -> bool {
        let all = self.served.read().unwrap_or_else(PoisonError::into_inner);
        all.contains_key(controller)
    }

    /// Who serves a kind: who has registered it, or else all of the controller; of several the
    /// first.
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

    /// Sets the state of a feed, or leaves it to the configuration again; true if it is another.
    pub(super) fn set_feed(&self, name: &str, status: Option<&str>) -> bool {
        let mut feeds = self.feeds.write().unwrap_or_else(PoisonError::into_inner);
        match status {
            Some(status) => feeds.insert(name.into(), status.into()).as_deref() != Some(status),
            None => feeds.remove(name).is_some(),
        }
    }

    /// Gives the states that are not the configuration's to `read`.
    pub(super) fn with_feeds(&self, read: impl FnOnce(&HashMap<Box<str>, Box<str>>)) {
        read(&self.feeds.read().unwrap_or_else(PoisonError::into_inner));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::Slot;

    fn conn(index: u32) -> ConnId {
        ConnId { core: 0, slot: Slot { index, generation: 1 } }
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
        for at in 0..REGISTERED_MOST {
            assert!(state.register("M", served(Some(&at.to_string()), 1)), "{at}");
        }
        assert!(!state.register("M", served(Some("one more"), 1)));
    }
}
