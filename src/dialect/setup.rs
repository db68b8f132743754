//! Builds the environment of a configuration, and that of a reloaded one.

use super::app::App;
use super::apps::Apps;
use super::channels::ids::SocketIds;
use super::entry::DialectKind;
use super::env::Env;
use super::links::{LinkPlace, Links};
use super::zenith::{self, Directory};
use super::{plain, reflect, zilliqa};
use crate::config::{self, Config, LinkEnd, LinkTarget, reflect_routes};
use crate::hub::EventMask;
use crate::runtime::{self, Runtime};
use std::sync::Arc;

impl Env {
    /// Creates the environment of `config`. Socket ids are derived from `node`, which is for tests:
    /// a server replaces [`Env::socket_ids`] by ids under a secret key.
    ///
    /// # Errors
    /// As for [`runtime::build`].
    pub fn new(config: Config, node: u32) -> Result<Env, config::Error> {
        let runtime = runtime::build(&config)?;
        let apps = Apps::new(&config.apps, config.cluster.is_some());
        let zenith = Directory::new(config.zenith.as_deref(), Arc::<zenith::State>::default());
        let links = links(&Links::default(), &config, &apps)?;
        Ok(Env::with(config, runtime, apps, zenith, SocketIds::of_number(node), links))
    }

    fn with(
        config: Config,
        runtime: Runtime,
        apps: Apps,
        zenith: Directory,
        socket_ids: SocketIds,
        links: Links,
    ) -> Env {
        let off = |route: &config::Route| route.compression == config::CompressionMode::Off;
        let compresses = !config.routes.iter().all(off);
        let streams = config.routes.iter().any(|route| route.stream);
        let watched = watched(&apps, config.cluster.is_some());
        let zilliqa = Arc::<zilliqa::Shared>::default();
        zilliqa.set_history(config.zilliqa.history, config.zilliqa.history_bytes);
        Env {
            config,
            runtime,
            apps,
            compresses,
            streams,
            watched,
            socket_ids,
            zilliqa,
            links,
            zenith,
        }
    }

    /// Creates the environment of a reloaded configuration. Applications keep their numbers and
    /// their connections; an application that `config` no longer has is disabled.
    ///
    /// # Errors
    /// As for [`runtime::build`]. This environment then stays in use.
    pub fn reloaded(&self, config: Config) -> Result<Env, config::Error> {
        let apps = self.apps.reloaded(&config.apps);
        let links = links(&self.links, &config, &apps)?;
        let runtime = self.runtime.reload(&self.config, &config)?;
        let zenith = self.zenith.reloaded(config.zenith.as_deref());
        let env = Env::with(config, runtime, apps, zenith, self.socket_ids.clone(), links);
        let section = &env.config.zilliqa;
        self.zilliqa.set_history(section.history, section.history_bytes);
        Ok(Env { zilliqa: self.zilliqa.clone(), ..env })
    }
}

/// The channel events to report of each application; none for an application that was removed.
fn watched(apps: &Apps, is_clustered: bool) -> Arc<[EventMask]> {
    let mask = |app: &App| {
        let mask = match DialectKind::from(app.config.dialect).webhooks() {
            Some(format) if !app.is_gone() => (format.mask)(&app.config),
            _ => EventMask::NONE,
        };
        if is_clustered && app.config.counts_in_reads { mask | EventMask::READS } else { mask }
    };
    apps.iter().map(|(_, app)| mask(app)).collect()
}

/// The links of a configuration, after those of the one before.
fn links(before: &Links, config: &Config, apps: &Apps) -> Result<Links, config::Error> {
    let links = before.reloaded(config, &|end| place(end, config, apps));
    links.ok_or_else(|| config::Error {
        source_name: String::new(),
        position: None,
        key: "links".to_owned(),
        problem: Box::new(config::Problem::Other(
            "the links have changed too often since the start; restart the server".to_owned(),
        )),
    })
}

/// The application number of a source or view, and the template of its names in the hub.
fn place(end: &LinkEnd, config: &Config, apps: &Apps) -> LinkPlace {
    let (target, _, text) = end.target();
    let template = end.template();
    match target {
        LinkTarget::App(id) => {
            let app = apps.by_id(id)?;
            Some((app, template, apps.get(app).config.limits.channel_name_length))
        }
        LinkTarget::Path => Some((plain::APP, template, usize::MAX)),
        LinkTarget::Zenith => zenith::link_place(config, text),
        LinkTarget::Reflect => {
            let pattern = template.pattern();
            let route = reflect_routes(&config.routes, &pattern).next()?;
            Some((reflect::APP, template.under(&reflect::group_prefix(route)), usize::MAX))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::Admission;

    fn admits(env: &Env, app: u32) -> bool {
        env.apps.get(app).admit(0) == Admission::Admitted
    }

    #[test]
    fn apps_overload_counts_all_applications() {
        let mut config = Config::demo();
        let mut second = config.apps[0].clone();
        (second.id, second.key) = ("2".to_owned(), "second".to_owned());
        config.apps.push(second);
        assert!(!Env::new(config.clone(), 0).unwrap().is_overloaded(), "0 is never");
        config.limits.overload_sockets = 2;
        let env = Env::new(config.clone(), 0).unwrap();
        assert!(admits(&env, 0) && !env.is_overloaded());
        assert!(admits(&env, 1) && env.is_overloaded());
        let env = env.reloaded(config).unwrap();
        assert!(env.is_overloaded());
        env.apps.get(0).release();
        assert!(!env.is_overloaded());
    }

    #[test]
    fn apps_overload_by_bytes_on_all_cores() {
        let mut config = Config::demo();
        config.limits.overload_bytes = 100;
        let mut env = Env::new(config.clone(), 0).unwrap();
        env.runtime.counters = vec![Arc::default(), Arc::default()];
        env.runtime.counters[0].queued_bytes.set(60);
        env.runtime.counters[1].queued_bytes.set(39);
        assert!(!env.is_overloaded());
        env.runtime.counters[1].queued_bytes.set(40);
        assert!(env.is_overloaded());
        config.limits.overload_bytes = 0;
        assert!(!env.reloaded(config).unwrap().is_overloaded(), "0 is never");
    }

    #[test]
    fn apps_event_masks_follow_the_new_configuration() {
        let mut config = Config::demo();
        let env = Env::new(config.clone(), 0).unwrap();
        assert!(!env.watches(0, EventMask::COUNTS));
        config.apps[0].subscription_count = true;
        config.apps[0].webhooks = vec![config::Webhook::new("http://a")];
        let env = env.reloaded(config.clone()).unwrap();
        let all = [EventMask::COUNTS, EventMask::OCCUPANCY, EventMask::CLIENT_EVENTS];
        assert!(all.iter().all(|mask| env.watches(0, *mask)) && env.runtime.version == 1);
        // Events of a removed application are not reported.
        config.apps[0].id = "2".to_owned();
        let env = env.reloaded(config).unwrap();
        assert!(!env.watches(0, EventMask::OCCUPANCY) && env.watches(1, EventMask::OCCUPANCY));
    }

    #[test]
    fn apps_connections_are_bounded() {
        let mut config = Config::demo();
        config.apps[0].limits.connections = 2;
        let env = Env::new(config, 0).unwrap();
        let app = env.apps.get(0);
        assert_eq!([admits(&env, 0), admits(&env, 0), admits(&env, 0)], [true, true, false]);
        app.release();
        assert_eq!(app.connections(), 1);
        assert!(admits(&env, 0));
    }

    #[test]
    fn apps_keep_numbers_and_counts_over_a_reload() {
        let mut config = Config::demo();
        let mut second = config.apps[0].clone();
        (second.id, second.key) = ("2".to_owned(), "second".to_owned());
        config.apps.push(second.clone());
        config.apps[1].limits.connections = 1;
        let env = Env::new(config.clone(), 7).unwrap();
        assert!(admits(&env, 1));
        let mut third = second;
        (third.id, third.key) = ("3".to_owned(), "third".to_owned());
        config.apps = vec![third, config.apps[1].clone()];
        config.apps[1].dialect = config::AppDialect::Broadcastt;
        let env = env.reloaded(config.clone()).unwrap();
        assert_eq!(env.apps.get(1).config.dialect, config::AppDialect::Pusher);
        assert_eq!(env.apps.by_key("app-key"), None);
        assert!(!env.apps.get(0).config.enabled);
        assert_eq!((env.apps.by_key("second"), env.apps.by_id("3")), (Some(1), Some(2)));
        assert!(!admits(&env, 1), "its connection still counts");
        // An application that is configured again gets its old number.
        config.apps.push(Config::demo().apps.remove(0));
        let env = env.reloaded(config).unwrap();
        assert_eq!(env.apps.by_id("1"), Some(0));
        assert!(env.apps.get(0).config.enabled);
    }
}
