//! The applications, which all cores share.

use super::app::{App, Tally};
use super::channels::idempotency::IdempotencyCounts;
use super::room::AllRooms;
use crate::config;
use crate::mem::Notifier;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Why a WebSocket path names no application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathError {
    /// The path is not one of applications.
    NoSuchPath,
    /// No application has the key.
    UnknownApp,
}

/// All applications, by number, key and id.
#[derive(Debug)]
pub struct Apps {
    list: Vec<App>,
    by_key: HashMap<String, u32>,
    by_id: HashMap<String, u32>,
    /// The numbers of removed applications, by id.
    removed: HashMap<String, u32>,
    /// Whether any application lets pages of every origin read its responses.
    any_shares_with_everybody: bool,
    /// What the connections of all applications have in common.
    rooms: Arc<AllRooms>,
    /// Whether the process is a node of a cluster.
    is_clustered: bool,
    /// The memory of the idempotency keys of all applications, in bytes.
    idempotency_bytes: Arc<AtomicUsize>,
}

impl Apps {
    pub(super) fn new(configs: &[config::AppConfig], is_clustered: bool) -> Apps {
        let (rooms, bytes) = (Arc::<AllRooms>::default(), Arc::<AtomicUsize>::default());
        let new = |app: &config::AppConfig| {
            App::new(app.clone(), Tally::new(&bytes), rooms.clone(), is_clustered)
        };
        let list = configs.iter().map(new).collect();
        Apps::of(list, configs.len(), (rooms, is_clustered), bytes)
    }

    /// Creates the look-up tables of `list`. Removed applications are not found by key or id;
    /// `present` is the number of the others.
    fn of(
        list: Vec<App>,
        present: usize,
        (rooms, is_clustered): (Arc<AllRooms>, bool),
        idempotency_bytes: Arc<AtomicUsize>,
    ) -> Apps {
        let any_shares_with_everybody = list.iter().any(App::shares_with_everybody);
        let mut apps = Apps {
            list,
            by_key: HashMap::new(),
            by_id: HashMap::new(),
            removed: HashMap::new(),
            any_shares_with_everybody,
            rooms,
            is_clustered,
            idempotency_bytes,
        };
        for (number, app) in apps.list.iter().enumerate() {
            let number = number as u32;
            if app.is_gone() {
                apps.removed.insert(app.config.id.clone(), number);
            } else {
                apps.by_id.insert(app.config.id.clone(), number);
                let keys = app.config.key_pairs();
                apps.by_key.extend(keys.map(|(key, _)| (key.to_owned(), number)));
            }
        }
        debug_assert_eq!(apps.by_id.len(), present);
        apps
    }

    pub(super) fn reloaded(&self, configs: &[config::AppConfig]) -> Apps {
        let mut list = Vec::new();
        for old in &self.list {
            let new = configs.iter().find(|app| app.id == old.config.id);
            let config = new.unwrap_or(&old.config).clone();
            let mut app = self.app(config, old.tally.clone());
            // Existing connections keep their dialect, so events are published in that dialect,
            // too.
            app.config.dialect = old.config.dialect;
            if new.is_none() {
                app.config.enabled = false;
                app.keys.clear();
            }
            list.push(app);
        }
        let is_new = |app: &&config::AppConfig| self.list.iter().all(|old| old.config.id != app.id);
        let added = configs.iter().filter(is_new);
        let bytes = &self.idempotency_bytes;
        let tally = if self.is_clustered { Tally::unread } else { Tally::new };
        list.extend(added.map(|app| self.app(app.clone(), tally(bytes))));
        Apps::of(list, configs.len(), (self.rooms.clone(), self.is_clustered), bytes.clone())
    }

    fn app(&self, config: config::AppConfig, tally: Arc<Tally>) -> App {
        App::new(config, tally, self.rooms.clone(), self.is_clustered)
    }

    /// Wakes the thread of this notifier when connections wait until more are reserved.
    pub fn notify_of_need(&self, notifier: &Notifier) {
        self.rooms.attach(notifier.clone());
    }

    /// Whether connections may have to be reserved, since the last call.
    pub fn take_need(&self) -> bool {
        self.rooms.take_asked()
    }

    /// All applications, with their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &App)> {
        (0..).zip(&self.list)
    }

    /// The application with this number, which must exist.
    pub fn get(&self, number: u32) -> &App {
        &self.list[number as usize]
    }

    /// The application with this number, if there is one.
    pub fn find(&self, number: u32) -> Option<&App> {
        self.list.get(number as usize)
    }

    /// The maximum number of occupied channels of each application, by its number.
    pub fn channel_bounds(&self) -> Arc<[usize]> {
        self.list.iter().map(|app| app.config.limits.channels).collect()
    }

    /// The dialect of all applications if they have the same one, else the default.
    pub(super) fn common_dialect(&self) -> config::AppDialect {
        let mut dialect_kind = self.list.iter().map(|app| app.config.dialect);
        let first = dialect_kind.next().unwrap_or_default();
        if dialect_kind.all(|other| other == first) { first } else { config::AppDialect::default() }
    }

    /// Whether any application lets pages of every origin read its responses.
    pub(super) fn any_shares_with_everybody(&self) -> bool {
        self.any_shares_with_everybody
    }

    /// The number of open connections of all applications, on all cores.
    pub(super) fn open_count(&self) -> usize {
        self.rooms.open.load(Ordering::Relaxed)
    }

    /// The memory of the idempotency keys of all applications, in bytes.
    pub fn idempotency_bytes(&self) -> usize {
        self.idempotency_bytes.load(Ordering::Relaxed)
    }

    /// Removes the idempotency keys whose time is over. Returns the counts of all applications.
    pub fn sweep_idempotency(&self, now_ms: u64) -> IdempotencyCounts {
        let mut counts = IdempotencyCounts::default();
        for app in &self.list {
            counts += app.idempotency().sweep(now_ms);
        }
        counts
    }

    /// The number of the application with this key.
    pub fn by_key(&self, key: &str) -> Option<u32> {
        self.by_key.get(key).copied()
    }

    /// The number of the application with this id.
    pub fn by_id(&self, id: &str) -> Option<u32> {
        self.by_id.get(id).copied()
    }

    /// The number of the application that has this id, or had it until it was removed: the log of a
    /// cluster still has what is true of it.
    pub fn by_id_or_removed(&self, id: &str) -> Option<u32> {
        self.by_id(id).or_else(|| self.removed.get(id).copied())
    }
}
