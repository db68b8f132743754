//! The applications, which all cores share, and how a request path names one.

use super::app::App;
use super::channels::ids::SocketIds;
use super::pusher::hooks;
use super::zenith::{self, Directory};
use super::{DialectKind, reflect, zilliqa};
use crate::config::{self, Config};
use crate::http::query::{self, PlusSign};
use crate::hub::EventMask;
use crate::jwt::{Guard, Remotes};
use crate::model::Registries;
use crate::stats::Counters;
use crate::upstream::Names;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The configuration and the state that every dialect can look up. All cores share it, without a
/// lock around it.
#[derive(Debug)]
pub struct Env {
    /// The configuration.
    pub config: Config,
    /// The applications.
    pub apps: Apps,
    /// The token and certificate guards, in the order of the configuration.
    pub guards: Vec<Guard>,
    /// The remote key sets of the guards; the same for all configurations of the process.
    pub remotes: Arc<Remotes>,
    /// The DNS names of upstreams; the same for all configurations of the process.
    pub names: Arc<Names>,
    /// The schema registries; the same for all configurations of the process.
    pub registries: Arc<Registries>,
    /// Whether any route uses compression, so that events carry their compressed encodings.
    pub compresses: bool,
    /// Whether any route accepts requests with a streamed body.
    pub streams: bool,
    /// The number of reloads of the configuration since the start of the process.
    pub version: u32,
    /// The channel events to report of each application, by the application's number.
    pub watched: Arc<[EventMask]>,
    /// Creates and parses the socket ids of connections; the same for all configurations of the
    /// process.
    pub socket_ids: SocketIds,
    /// The state of the Zilliqa dialect that all cores share.
    pub zilliqa: Arc<zilliqa::Shared>,
    /// The counters of each core, by the core's number.
    pub counters: Vec<Arc<Counters>>,
    /// The tokens, topics and back ends of the Zenith dialect.
    pub zenith: Directory,
    /// The counters of the control thread; all 0 if there is none.
    pub control: Arc<Counters>,
}

impl Env {
    /// Creates the environment of `config`. Socket ids are derived from `node`, which is for tests:
    /// a server replaces [`Env::socket_ids`] by ids under a secret key.
    pub fn new(config: Config, node: u32) -> Env {
        Env::with(config, SocketIds::of_number(node), Arc::default())
    }

    fn with(mut config: Config, socket_ids: SocketIds, registries: Arc<Registries>) -> Env {
        let names = Arc::new(Names::default());
        config.make_pools(&Config::default(), &names);
        let rules = config.routes.iter().filter_map(|route| route.rules.get());
        rules.for_each(|rules| rules.bind(&registries));
        let apps = Apps::new(&config.apps);
        let off = |route: &config::Route| route.compression == config::CompressionMode::Off;
        let compresses = !config.routes.iter().all(off);
        let streams = config.routes.iter().any(|route| route.stream);
        let watched = watched(&apps);
        let remotes = Arc::new(Remotes::default());
        let guards = guards(&config, &[], &remotes);
        let zenith = Directory::new(config.zenith.as_deref(), Arc::<zenith::State>::default());
        Env {
            config,
            apps,
            guards,
            remotes,
            names,
            registries,
            compresses,
            streams,
            version: 0,
            watched,
            socket_ids,
            zilliqa: Arc::default(),
            counters: Vec::new(),
            zenith,
            control: Arc::default(),
        }
    }

    /// Creates the environment of a reloaded configuration. Applications keep their numbers and
    /// their connections; an application that `config` no longer has is disabled.
    pub fn reloaded(&self, config: Config) -> Env {
        let mut env = Env::with(config, self.socket_ids.clone(), self.registries.clone());
        env.apps = self.apps.reloaded(&env.config.apps);
        env.counters = self.counters.clone();
        env.control = self.control.clone();
        env.zilliqa = self.zilliqa.clone();
        env.zenith = self.zenith.reloaded(env.config.zenith.as_deref());
        let rules = self.config.routes.iter().filter_map(|route| route.rules.get());
        rules.for_each(|rules| rules.retire());
        env.version = self.version.wrapping_add(1);
        env.watched = watched(&env.apps);
        env.names = self.names.clone();
        env.config.make_pools(&self.config, &env.names);
        env.remotes = self.remotes.clone();
        env.guards = guards(&env.config, &self.guards, &env.remotes);
        env
    }

    /// The listener with this number, which is its position in the configuration at start.
    pub fn listener(&self, number: u16) -> &config::Listener {
        // The configuration has at least one listener.
        let listeners = &self.config.listeners;
        listeners.get(usize::from(number)).unwrap_or(&listeners[0])
    }

    /// Whether the events of `mask` are to be reported for application `app`.
    pub fn watches(&self, app: u32, mask: EventMask) -> bool {
        self.watched.get(app as usize).is_some_and(|watched| watched.has(mask))
    }

    /// The path after the configured prefix; `None` if it does not have that prefix.
    pub fn strip_prefix<'p>(&self, path: &'p str) -> Option<&'p str> {
        path.strip_prefix(&*self.config.pusher.path_prefix)
    }

    /// Whether the process is overloaded: the open WebSockets of all applications, or the bytes in
    /// all write queues, have reached their limit. A limit of 0 is none.
    pub fn is_overloaded(&self) -> bool {
        let (sockets, bytes) = {
            let limits = &self.config.limits;
            (limits.overload_sockets, limits.overload_bytes)
        };
        let waiting = || self.counters.iter().map(|core| core.queued_bytes.get()).sum::<u64>();
        sockets > 0 && self.apps.open.load(Ordering::Relaxed) >= sockets
            || bytes > 0 && waiting() >= bytes
    }

    /// The number of the application that a WebSocket path names by `/app/{key}`, or, for
    /// Broadcastt's clients, by `/apps/{key}`.
    ///
    /// # Errors
    /// The path is not one of applications, or no application has the key.
    pub fn app_of_socket(&self, path: &str) -> Result<u32, PathError> {
        if let Some(key) = self.key_below("/app/", path) {
            return self.apps.by_key(key).ok_or(PathError::UnknownApp);
        }
        let Some(key) = self.key_below("/apps/", path) else { return Err(PathError::NoSuchPath) };
        let is_broadcastt =
            |app: u32| self.apps.get(app).config.dialect == config::AppDialect::Broadcastt;
        match self.apps.by_key(key) {
            Some(app) if is_broadcastt(app) => Ok(app),
            None if self.apps.has(config::AppDialect::Broadcastt) => Err(PathError::UnknownApp),
            _ => Err(PathError::NoSuchPath),
        }
    }

    fn key_below<'p>(&self, start: &str, path: &'p str) -> Option<&'p str> {
        let key = self.strip_prefix(path)?.strip_prefix(start)?;
        let key = key.strip_suffix('/').unwrap_or(key);
        (!key.is_empty() && !key.contains('/')).then_some(key)
    }

    /// The dialect of a request at an endpoint. At the endpoint of the applications it is the
    /// dialect of the application that the path names; if the path names none, it is the dialect
    /// that all applications share.
    pub(super) fn dialect_kind(&self, endpoint: config::EndpointKind, path: &str) -> DialectKind {
        match endpoint {
            config::EndpointKind::Zilliqa => return DialectKind::Zilliqa,
            config::EndpointKind::Zenith => return DialectKind::Zenith,
            config::EndpointKind::Reflect => return DialectKind::Reflect,
            _ => {}
        }
        match self.app_of_socket(path) {
            Ok(app) => self.spoken_by(app),
            Err(PathError::UnknownApp) if self.key_below("/apps/", path).is_some() => {
                DialectKind::Broadcastt
            }
            Err(_) => self.apps.common_dialect().into(),
        }
    }

    /// The dialect of an application. Some numbers are reserved for dialects without applications.
    pub(super) fn spoken_by(&self, app: u32) -> DialectKind {
        match app {
            zilliqa::APP => DialectKind::Zilliqa,
            zenith::APP => DialectKind::Zenith,
            reflect::APP => DialectKind::Reflect,
            app => self.apps.get(app).config.dialect.into(),
        }
    }

    /// The application that an HTTP request is for, and the rest of its path.
    pub(super) fn target<'p>(
        &self,
        endpoint: config::EndpointKind,
        path: &'p str,
        query: &str,
    ) -> Option<(u32, &'p str)> {
        match endpoint {
            config::EndpointKind::Zilliqa => Some((zilliqa::APP, path)),
            config::EndpointKind::Zenith => Some((zenith::APP, "")),
            config::EndpointKind::Reflect => Some((reflect::APP, path)),
            _ => self.api_target(path).or_else(|| self.api_target_by_key(path, query)),
        }
    }

    /// The application of an API path `/apps/{id}/...`, and the rest of the path. A Pusher
    /// application is found by its key, too.
    pub(super) fn api_target<'p>(&self, path: &'p str) -> Option<(u32, &'p str)> {
        let below = self.strip_prefix(path)?.strip_prefix("/apps/")?;
        let (name, rest) = below.split_at(below.find('/').unwrap_or(below.len()));
        let name = query::decode(name, PlusSign::Literal)?;
        let is_pusher =
            |app: &u32| self.apps.get(*app).config.dialect == config::AppDialect::Pusher;
        let by_key = || self.apps.by_key(&name).filter(is_pusher);
        Some((self.apps.by_id(&name).or_else(by_key)?, rest))
    }
}

/// The channel events to report of each application; none for an application that was removed.
fn watched(apps: &Apps) -> Arc<[EventMask]> {
    let mask = |app: &App| match app.config.dialect {
        _ if app.is_gone() => EventMask::NONE,
        config::AppDialect::Pusher => hooks::mask(&app.config),
        config::AppDialect::Broadcastt => EventMask::NONE,
    };
    apps.list.iter().map(mask).collect()
}

/// The guards of a configuration. A guard takes over the token holders of the old guard with the
/// same name, so that their leases continue.
fn guards(config: &Config, old: &[Guard], remotes: &Remotes) -> Vec<Guard> {
    let new = config.guards.iter().map(|guard| {
        let url = guard.url();
        let (refresh_ms, floor_ms) = (guard.keys_refresh_s * 1000, guard.keys_floor_s * 1000);
        let remote = || remotes.at(&url, guard.allow_private, &guard.ca_file, refresh_ms, floor_ms);
        let namesake = old.iter().find(|it| it.name == guard.name);
        let remote = (!url.is_empty()).then(remote);
        let mut new = Guard::new(guard.name.clone(), guard.policy(), guard.keys(), remote);
        new.challenge_s = guard.challenge_s;
        new.holders = namesake.map(|it| it.holders.clone()).unwrap_or_default();
        new
    });
    let new: Vec<Guard> = new.collect();
    remotes.replace(new.iter().filter_map(|guard| guard.remote.clone()).collect());
    new
}

impl Env {
    /// The application of `/users/{id}/terminate_connections`, where one client library leaves out
    /// the application. The query's `auth_key` names it, and the signature covers the path as it
    /// was sent.
    pub(super) fn api_target_by_key<'p>(
        &self,
        path: &'p str,
        text: &str,
    ) -> Option<(u32, &'p str)> {
        let below = self.strip_prefix(path)?;
        let user = below.strip_prefix("/users/")?.strip_suffix("/terminate_connections")?;
        let key = query::decode(query::get(text, "auth_key")?, PlusSign::Space)?;
        let app = self.apps.by_key(&key)?;
        (!user.contains('/')).then_some((app, below))
    }
}

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
    fn new(configs: &[config::AppConfig]) -> Apps {
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

    fn reloaded(&self, configs: &[config::AppConfig]) -> Apps {
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

    /// Whether any application has this dialect.
    fn has(&self, dialect: config::AppDialect) -> bool {
        self.list.iter().any(|app| app.config.dialect == dialect)
    }

    /// The dialect of all applications if they have the same one, else the default.
    fn common_dialect(&self) -> config::AppDialect {
        let mut dialect_kind = self.list.iter().map(|app| app.config.dialect);
        let first = dialect_kind.next().unwrap_or_default();
        if dialect_kind.all(|other| other == first) { first } else { config::AppDialect::default() }
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
    fn apps_socket_path_names_the_application() {
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

    /// An environment with two applications, which have these dialects.
    fn two(first: config::AppDialect, second: config::AppDialect) -> Env {
        let mut config = Config::demo();
        config.apps.push(config.apps[0].clone());
        (config.apps[1].id, config.apps[1].key) = ("2".to_owned(), "second".to_owned());
        (config.apps[0].dialect, config.apps[1].dialect) = (first, second);
        Env::new(config, 0)
    }

    #[test]
    fn apps_broadcastt_has_both_socket_paths_and_an_api() {
        use config::AppDialect::{Broadcastt, Pusher};
        let endpoint = config::EndpointKind::Apps;
        let (mixed, alone) = (two(Pusher, Broadcastt), two(Broadcastt, Broadcastt));
        for (path, app, in_mixed, in_alone) in [
            ("/app/second", Ok(1), Broadcastt, Broadcastt),
            ("/apps/second", Ok(1), Broadcastt, Broadcastt),
            ("/apps/second/", Ok(1), Broadcastt, Broadcastt),
            ("/apps/other", Err(PathError::UnknownApp), Broadcastt, Broadcastt),
            ("/app/other", Err(PathError::UnknownApp), Pusher, Broadcastt),
            ("/apps/second/x", Err(PathError::NoSuchPath), Pusher, Broadcastt),
            ("/apps/", Err(PathError::NoSuchPath), Pusher, Broadcastt),
        ] {
            for (env, dialect_kind) in [(&mixed, in_mixed), (&alone, in_alone)] {
                assert_eq!(env.app_of_socket(path), app, "{path}");
                assert_eq!(env.dialect_kind(endpoint, path), dialect_kind.into(), "{path}");
            }
        }
        assert_eq!(mixed.app_of_socket("/apps/app-key"), Err(PathError::NoSuchPath));
        assert_eq!(alone.app_of_socket("/apps/app-key"), Ok(0));
        let pushers = two(Pusher, Pusher);
        assert_eq!(pushers.app_of_socket("/apps/other"), Err(PathError::NoSuchPath));
        assert_eq!(mixed.api_target("/apps/app-key/event"), Some((0, "/event")));
        assert_eq!(mixed.api_target("/apps/second/event"), None);
        assert_eq!(mixed.api_target("/apps/2/event"), Some((1, "/event")));
    }

    #[test]
    fn apps_api_path_names_the_application_by_id_or_key() {
        let env = env("");
        assert_eq!(env.api_target("/apps/1/events"), Some((0, "/events")));
        assert_eq!(env.api_target("/apps/app-key/events"), Some((0, "/events")));
        assert_eq!(env.api_target("/apps/app%2Dkey/events"), Some((0, "/events")));
        assert_eq!(env.api_target("/apps/1"), Some((0, "")));
        assert_eq!(env.api_target("/apps/2/events"), None);
        assert_eq!(env.api_target("/events"), None);
    }

    #[test]
    fn apps_path_without_application_uses_the_key() {
        let env = env("/ws");
        let path = "/ws/users/ada/terminate_connections";
        let target = |path, query| env.api_target_by_key(path, query);
        let below = "/users/ada/terminate_connections";
        assert_eq!(target(path, "a=b&auth_key=app-key"), Some((0, below)));
        assert_eq!(target(path, "auth_key=app%2Dkey"), Some((0, below)));
        assert_eq!(target(path, "auth_key=other"), None);
        assert_eq!(target(path, ""), None);
        assert_eq!(target(below, "auth_key=app-key"), None, "without the prefix");
        assert_eq!(target("/ws/users/ada/events", "auth_key=app-key"), None);
        assert_eq!(target("/ws/users/a/b/terminate_connections", "auth_key=app-key"), None);
    }

    #[test]
    fn apps_overload_counts_all_applications() {
        let mut config = Config::demo();
        let mut second = config.apps[0].clone();
        (second.id, second.key) = ("2".to_owned(), "second".to_owned());
        config.apps.push(second);
        assert!(!Env::new(config.clone(), 0).is_overloaded(), "0 is never");
        config.limits.overload_sockets = 2;
        let env = Env::new(config.clone(), 0);
        assert!(env.apps.get(0).admit() && !env.is_overloaded());
        assert!(env.apps.get(1).admit() && env.is_overloaded());
        let env = env.reloaded(config);
        assert!(env.is_overloaded());
        env.apps.get(0).release();
        assert!(!env.is_overloaded());
    }

    #[test]
    fn apps_overload_by_bytes_on_all_cores() {
        let mut config = Config::demo();
        config.limits.overload_bytes = 100;
        let mut env = Env::new(config.clone(), 0);
        env.counters = vec![Arc::default(), Arc::default()];
        env.counters[0].queued_bytes.set(60);
        env.counters[1].queued_bytes.set(39);
        assert!(!env.is_overloaded());
        env.counters[1].queued_bytes.set(40);
        assert!(env.is_overloaded());
        config.limits.overload_bytes = 0;
        assert!(!env.reloaded(config).is_overloaded(), "0 is never");
    }

    #[test]
    fn apps_event_masks_follow_the_new_configuration() {
        let mut config = Config::demo();
        let env = Env::new(config.clone(), 0);
        assert!(!env.watches(0, EventMask::COUNTS));
        config.apps[0].subscription_count = true;
        config.apps[0].webhooks = vec![config::Webhook::new("http://a")];
        let env = env.reloaded(config.clone());
        let all = [EventMask::COUNTS, EventMask::OCCUPANCY, EventMask::CLIENT_EVENTS];
        assert!(all.iter().all(|mask| env.watches(0, *mask)) && env.version == 1);
        // Events of a removed application are not reported.
        config.apps[0].id = "2".to_owned();
        let env = env.reloaded(config);
        assert!(!env.watches(0, EventMask::OCCUPANCY) && env.watches(1, EventMask::OCCUPANCY));
    }

    #[test]
    fn apps_connections_are_bounded() {
        let mut config = Config::demo();
        config.apps[0].limits.connections = 2;
        let env = Env::new(config, 0);
        let app = env.apps.get(0);
        assert_eq!([app.admit(), app.admit(), app.admit()], [true, true, false]);
        app.release();
        assert_eq!(app.connections(), 1);
        assert!(app.admit());
    }

    #[test]
    fn apps_keep_numbers_and_counts_over_a_reload() {
        let mut config = Config::demo();
        let mut second = config.apps[0].clone();
        (second.id, second.key) = ("2".to_owned(), "second".to_owned());
        config.apps.push(second.clone());
        config.apps[1].limits.connections = 1;
        let env = Env::new(config.clone(), 7);
        assert!(env.apps.get(1).admit());
        let mut third = second;
        (third.id, third.key) = ("3".to_owned(), "third".to_owned());
        config.apps = vec![third, config.apps[1].clone()];
        config.apps[1].dialect = config::AppDialect::Broadcastt;
        let env = env.reloaded(config.clone());
        assert_eq!(env.apps.get(1).config.dialect, config::AppDialect::Pusher);
        assert_eq!(env.apps.by_key("app-key"), None);
        assert!(!env.apps.get(0).config.enabled);
        assert_eq!((env.apps.by_key("second"), env.apps.by_id("3")), (Some(1), Some(2)));
        assert!(!env.apps.get(1).admit(), "its connection still counts");
        // An application that is configured again gets its old number.
        config.apps.push(Config::demo().apps.remove(0));
        let env = env.reloaded(config);
        assert_eq!(env.apps.by_id("1"), Some(0));
        assert!(env.apps.get(0).config.enabled);
    }
}
