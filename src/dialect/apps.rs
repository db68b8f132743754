//! The applications, which all cores share.

use super::app::{App, Tally};
use super::channels::idempotency::IdempotencyCounts;
use crate::config;
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
    /// Whether any application lets pages of every origin read its responses.
    any_shares_with_everybody: bool,
    /// The number of connections of all applications, on all cores.
    open: Arc<AtomicUsize>,
    /// The memory of the idempotency keys of all applications, in bytes.
    idempotency_bytes: Arc<AtomicUsize>,
}

impl Apps {
    pub(super) fn new(configs: &[config::AppConfig]) -> Apps {
        let (open, bytes) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let new = |app: &config::AppConfig| App::new(app.clone(), Tally::new(&bytes), open.clone());
        let list = configs.iter().map(new).collect();
        Apps::of(list, configs.len(), open, bytes)
    }

    /// Creates the look-up tables of `list`. Removed applications are not found by key or id;
    /// `present` is the number of the others.
    fn of(
        list: Vec<App>,
        present: usize,
        open: Arc<AtomicUsize>,
        idempotency_bytes: Arc<AtomicUsize>,
    ) -> Apps {
        let (by_key, by_id) = (HashMap::new(), HashMap::new());
        let any_shares_with_everybody = list.iter().any(App::shares_with_everybody);
        let mut apps =
            Apps { list, by_key, by_id, any_shares_with_everybody, open, idempotency_bytes };
        for (number, app) in apps.list.iter().enumerate() {
            let number = number as u32;
            if !app.is_gone() {
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
            let mut app = App::new(config, old.tally.clone(), self.open.clone());
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
        let (open, bytes) = (&self.open, &self.idempotency_bytes);
        list.extend(added.map(|app| App::new(app.clone(), Tally::new(bytes), open.clone())));
        Apps::of(list, configs.len(), open.clone(), bytes.clone())
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
        self.open.load(Ordering::Relaxed)
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
}
