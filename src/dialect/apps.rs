//! The applications, as all cores share them, and how a path names one.

use super::Reply;
use super::pusher::signature;
use crate::config::{self, Config};
use crate::http::query::{self, Plus};
use crate::stats::Counters;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What every dialect can look up. Shared by all cores; nothing in it is locked.
#[derive(Debug)]
pub struct Env {
    /// The configuration.
    pub config: Config,
    /// The applications.
    pub apps: Apps,
    /// Whether any route compresses, so that events carry their compressed forms.
    pub compresses: bool,
    /// Distinguishes this process from others in ids that clients see.
    pub node: u32,
    /// What each core counts, for who asks how the process is.
    pub counters: Vec<Arc<Counters>>,
}

impl Env {
    /// Prepares the applications of `config`.
    pub fn new(config: Config, node: u32) -> Env {
        let apps = Apps::new(&config.apps);
        let off = |route: &config::Route| route.compression == config::Compression::Off;
        let compresses = !config.routes.iter().all(off);
        Env { config, apps, compresses, node, counters: Vec::new() }
    }

    /// The path below the configured prefix, if it has that prefix.
    pub fn strip_prefix<'p>(&self, path: &'p str) -> Option<&'p str> {
        path.strip_prefix(&*self.config.pusher.path_prefix)
    }

    /// The application that a WebSocket path `/app/{key}` names.
    pub fn app_of_socket(&self, path: &str) -> Result<u32, PathError> {
        let key = self.strip_prefix(path).and_then(|path| path.strip_prefix("/app/"));
        let key = key.map(|key| key.strip_suffix('/').unwrap_or(key));
        match key {
            Some(key) if !key.is_empty() && !key.contains('/') => {
                self.apps.by_key(key).ok_or(PathError::UnknownApp)
            }
            _ => Err(PathError::NoSuchPath),
        }
    }

    pub(super) fn dialect_of(&self, path: &str) -> config::Dialect {
        match self.app_of_socket(path) {
            Ok(app) => self.apps.get(app).config.dialect,
            Err(_) => config::Dialect::default(),
        }
    }

    /// The application and the rest of an API path `/apps/{id}/...`; the application's key serves
    /// as well as its id.
    pub(super) fn api_target<'p>(&self, path: &'p str) -> Option<(u32, &'p str)> {
        let below = self.strip_prefix(path)?.strip_prefix("/apps/")?;
        let (name, rest) = below.split_at(below.find('/').unwrap_or(below.len()));
        let name = query::decode(name, Plus::Plus)?;
        let app = self.apps.by_id(&name).or_else(|| self.apps.by_key(&name))?;
        Some((app, rest))
    }
}

/// Why a path names no application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathError {
    /// It is not a path of applications.
    NoSuchPath,
    /// No application has that key.
    UnknownApp,
}

pub(super) fn no_such_target(path: &str) -> Reply {
    let body: &[u8] = if path.contains("/apps/") {
        br#"{"error":"no application has this id","code":404}"#
    } else {
        br#"{"error":"nothing is served at this path","code":404}"#
    };
    Reply { status: 404, body: Cow::Borrowed(body), allow: None }
}

/// One application.
#[derive(Debug)]
pub struct App {
    /// Its section of the configuration.
    pub config: config::App,
    /// Its keys, ready to verify with.
    pub keys: Vec<signature::Key>,
    /// Its connections on all cores. Not touched by messages.
    connections: AtomicUsize,
}

impl App {
    /// Counts one more connection, unless the application has as many as it may.
    pub fn admit(&self) -> bool {
        let most = match self.config.limits.connections {
            0 => usize::MAX,
            most => most,
        };
        let step = |count: usize| (count < most).then_some(count + 1);
        self.connections.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step).is_ok()
    }

    /// Its connections now, on all cores.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Counts one connection less.
    pub fn release(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// All applications, by number, key and id.
#[derive(Debug)]
pub struct Apps {
    list: Vec<App>,
    by_key: HashMap<String, u32>,
    by_id: HashMap<String, u32>,
}

impl Apps {
    fn new(configs: &[config::App]) -> Apps {
        let mut apps = Apps { list: Vec::new(), by_key: HashMap::new(), by_id: HashMap::new() };
        for (number, app) in configs.iter().enumerate() {
            let number = number as u32;
            let keys = app.key_pairs();
            apps.by_id.insert(app.id.clone(), number);
            apps.by_key.extend(app.key_pairs().map(|(key, _)| (key.to_owned(), number)));
            apps.list.push(App {
                keys: keys.map(|(key, secret)| signature::Key::new(key, secret.expose())).collect(),
                config: app.clone(),
                connections: AtomicUsize::new(0),
            });
        }
        apps
    }

    /// The application with this number.
    pub fn get(&self, number: u32) -> &App {
        &self.list[number as usize]
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

#[cfg(test)]
mod tests {
    use super::*;

    fn env(prefix: &str) -> Env {
        let mut config = Config::demo();
        config.pusher.path_prefix = prefix.to_owned();
        Env::new(config, 0)
    }

    #[test]
    fn a_socket_path_names_an_application_below_the_prefix() {
        let cases = [
            ("", "/app/app-key", Ok(0)),
            ("", "/app/app-key/", Ok(0)),
            ("", "/app/other", Err(PathError::UnknownApp)),
            ("", "/app/", Err(PathError::NoSuchPath)),
            ("", "/app/app-key/x", Err(PathError::NoSuchPath)),
            ("", "/", Err(PathError::NoSuchPath)),
            ("/ws", "/ws/app/app-key", Ok(0)),
            ("/ws", "/app/app-key", Err(PathError::NoSuchPath)),
        ];
        for (prefix, path, expected) in cases {
            assert_eq!(env(prefix).app_of_socket(path), expected, "{prefix} {path}");
        }
    }

    #[test]
    fn an_api_path_names_an_application_by_id_or_key() {
        let env = env("");
        assert_eq!(env.api_target("/apps/1/events"), Some((0, "/events")));
        assert_eq!(env.api_target("/apps/app-key/events"), Some((0, "/events")));
        assert_eq!(env.api_target("/apps/app%2Dkey/events"), Some((0, "/events")));
        assert_eq!(env.api_target("/apps/1"), Some((0, "")));
        assert_eq!(env.api_target("/apps/2/events"), None);
        assert_eq!(env.api_target("/events"), None);
    }

    #[test]
    fn an_application_admits_as_many_as_it_may() {
        let mut config = Config::demo();
        config.apps[0].limits.connections = 2;
        let env = Env::new(config, 0);
        let app = env.apps.get(0);
        assert_eq!([app.admit(), app.admit(), app.admit()], [true, true, false]);
        app.release();
        assert_eq!(app.connections(), 1);
        assert!(app.admit());
    }
}
