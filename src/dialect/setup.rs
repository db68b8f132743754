//! Builds the environment of a configuration, and that of a reloaded one.

use super::app::App;
use super::apps::Apps;
use super::channels::ids::SocketIds;
use super::entry::DialectKind;
use super::env::Env;
use super::links::{LinkPlace, Links};
use super::zenith::{self, Directory};
use super::{plain, reflect};
use crate::config::{self, Config, LinkEnd, LinkTarget, NameTemplate, reflect_routes};
use crate::hub::EventMask;
use crate::jwt::{Guard, Remotes};
use crate::model::Registries;
use crate::upstream::Names;
use std::sync::Arc;

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
        let links = Links::default().reloaded(&config, &|end| place(end, &config, &apps));
        let zenith = Directory::new(config.zenith.as_deref(), Arc::<zenith::State>::default());
        Env {
            config,
            apps,
            links,
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
        env.links = self.links.reloaded(&env.config, &|end| place(end, &env.config, &env.apps));
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
}

/// The channel events to report of each application; none for an application that was removed.
fn watched(apps: &Apps) -> Arc<[EventMask]> {
    let mask = |app: &App| match DialectKind::from(app.config.dialect).webhooks() {
        Some(format) if !app.is_gone() => (format.mask)(&app.config),
        _ => EventMask::NONE,
    };
    apps.iter().map(|(_, app)| mask(app)).collect()
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

/// The application number of a source or view, and the template of its names in the hub.
fn place(end: &LinkEnd, config: &Config, apps: &Apps) -> LinkPlace {
    let (target, _, text) = end.target();
    let template = end.template();
    match target {
        LinkTarget::App(id) => Some((apps.by_id(id)?, template)),
        LinkTarget::Path => Some((plain::APP, template)),
        LinkTarget::Zenith => {
            let (controller, topic) = text.split_once('/')?;
            let name = zenith::channel_name(controller, topic);
            Some((zenith::APP, NameTemplate::parse(&name).ok()?))
        }
        LinkTarget::Reflect => {
            let pattern = template.pattern();
            let route = reflect_routes(&config.routes, &pattern).next()?;
            Some((reflect::APP, template.under(&reflect::group_prefix(route))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
