//! The applications, which all cores share.

use super::app::App;
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
    /// The number of connections of all applications, on all cores.
    open: Arc<AtomicUsize>,
}

impl Apps {
    pub(super) fn new(configs: &[config::AppConfig]) -> Apps {
        let open = Arc::<AtomicUsize>::default();
        let list = configs.iter().map(|app| App::new(app.clone(), Arc::default(), open.clone()));
        Apps::of(list.collect(), configs.len(), open)
    }

    /// Creates the look-up tables of `list`. Removed applications are not found by key or id;
    /// `present` is the number of the others.
    fn of(list: Vec<App>, present: usize, open: Arc<AtomicUsize>) -> Apps {
        let mut apps = Apps { list, by_key: HashMap::new(), by_id: HashMap::new(), open };
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
        let open = &self.open;
        list.extend(added.map(|app| App::new(app.clone(), Arc::default(), open.clone())));
        Apps::of(list, configs.len(), open.clone())
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

    /// The number of open connections of all applications, on all cores.
    pub(super) fn open_count(&self) -> usize {
        self.open.load(Ordering::Relaxed)
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
