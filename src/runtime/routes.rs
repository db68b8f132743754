//! The live parts of routes: compiled models, and pools of upstream servers.

use crate::config::{Config, Error, Proxy, Route, Upstream};
use crate::model::spec::Catalog;
use crate::model::{ModelRules, Registries};
use crate::tls::{Connector, Filter};
use crate::upstream::{Names, Pool, PoolOptions, UpstreamServer};
use std::sync::Arc;

/// The live parts of one route.
#[derive(Clone, Debug, Default)]
pub struct LiveRoute {
    /// The compiled models, if the route has any.
    pub rules: Option<Arc<ModelRules>>,
    /// The upstream servers, if the route has any.
    pub upstreams: Option<Arc<Upstreams>>,
}

/// The upstream servers of a route.
#[derive(Debug)]
pub struct Upstreams {
    /// The configuration of the servers.
    pub proxy: Arc<Proxy>,
    /// The pool that servers are chosen from; its indexes are those of `proxy.upstreams`.
    pub pool: Pool,
    /// Makes the TLS connections to the `wss` servers; `None` if no server is `wss`, or if the
    /// files of the TLS settings have not been read.
    connector: Option<Connector>,
}

impl Upstreams {
    /// The TLS filter for a connection to `upstream`; `None` if it is not `wss` or the files have
    /// not been read.
    pub fn connect(&self, upstream: &Upstream) -> Option<Filter> {
        let connector = self.connector.as_ref().filter(|_| upstream.secure)?;
        connector.connect(self.proxy.tls.name_of(upstream))
    }

    /// Whether both use the same object to connect by TLS, with its stored sessions; false if one
    /// uses none.
    pub fn share_sessions(&self, other: &Upstreams) -> bool {
        let both = self.connector.as_ref().zip(other.connector.as_ref());
        both.is_some_and(|(one, other)| one.is_same(other))
    }
}

/// The rules of the routes of a configuration.
pub(super) struct NextRules {
    /// The rules by route.
    by_route: Vec<Option<Arc<ModelRules>>>,
    /// Those that the old configuration did not have.
    new: Vec<Arc<ModelRules>>,
    /// Those of the old configuration that are no longer used.
    retired: Vec<Arc<ModelRules>>,
}

impl NextRules {
    /// Applies the rules: from now on `registries` fetches the schemas that the new rules use, and
    /// no longer those that only the retired rules used.
    pub(super) fn enter(&self, registries: &Registries) {
        // The new ones come first, so that schemas that both use are kept.
        self.new.iter().for_each(|rules| rules.bind(registries));
        self.retired.iter().for_each(|rules| rules.retire());
    }
}

/// The rules of the routes of the configuration `new`, which replaces `old`. `live` are the live
/// parts of the routes of `old`. A new route keeps the rules of an old route with equal models and
/// catalogs.
pub(super) fn next_rules(
    live: &[LiveRoute],
    old: &Config,
    new: &Config,
) -> Result<NextRules, Error> {
    let with_rules = |(live, route)| Some((Option::clone(live)?, route));
    let rules = live.iter().map(|live| &live.rules).zip(&old.routes);
    let mut left: Vec<(Arc<ModelRules>, &Route)> = rules.filter_map(with_rules).collect();
    let (mut by_route, mut fresh) = (Vec::new(), Vec::new());
    for (index, route) in new.routes.iter().enumerate() {
        let is_same = |(_, it): &(_, &Route)| {
            it.model == route.model && catalogs(it, old) == catalogs(route, new)
        };
        let kept = left.iter().position(is_same).map(|at| left.remove(at).0);
        let rules = match kept {
            Some(kept) => Some(kept),
            None => {
                let made = route.compile_models(&new.catalogs);
                let made = made.map_err(|error| error.under(&format!("routes[{index}]")))?;
                let made = made.map(Arc::new);
                fresh.extend(made.clone());
                made
            }
        };
        by_route.push(rules);
    }
    let retired = left.into_iter().map(|(rules, _)| rules).collect();
    Ok(NextRules { by_route, new: fresh, retired })
}

/// The catalogs that the models of a route use.
fn catalogs<'c>(route: &Route, config: &'c Config) -> Vec<&'c Catalog> {
    let names = route.model.specs().filter_map(|spec| spec.catalog.as_ref());
    names.filter_map(|name| config.catalogs.iter().find(|it| it.name == *name)).collect()
}

/// The upstream servers of the routes of the configuration `new`. `live` are the live parts of the
/// old routes. A new route keeps the upstream servers of an old route with equal settings. If there
/// is none, it takes over from an old route with some of its servers what is known of their state,
/// and the TLS sessions if the TLS settings are equal.
pub(super) fn next_upstreams(
    live: &[LiveRoute],
    new: &Config,
    names: &Names,
) -> Result<Vec<Option<Arc<Upstreams>>>, Error> {
    let mut left: Vec<Arc<Upstreams>> =
        live.iter().filter_map(|route| route.upstreams.clone()).collect();
    let mut next = Vec::new();
    for (index, route) in new.routes.iter().enumerate() {
        let Some(proxy) = &route.proxy else {
            next.push(None);
            continue;
        };
        let equal = left.iter().position(|it| it.proxy == *proxy);
        if let Some(kept) = equal.map(|at| left.remove(at)) {
            next.push(Some(kept));
            continue;
        }
        let fresh = pool(proxy, &Pool::default(), names);
        let same = left.iter().position(|it| it.proxy.upstreams == proxy.upstreams);
        let known = same.or_else(|| left.iter().position(|it| it.pool.is_kin(&fresh)));
        let known = known.map(|at| left.remove(at));
        let connector = match &known {
            Some(known) if known.proxy.tls == proxy.tls => known.connector.clone(),
            _ => {
                let made = proxy.tls.connector();
                made.map_err(|error| error.under(&format!("routes[{index}].proxy.tls")))?
            }
        };
        let pool = known.map_or(fresh, |known| pool(proxy, &known.pool, names));
        next.push(Some(Arc::new(Upstreams { proxy: proxy.clone(), pool, connector })));
    }
    Ok(next)
}

/// Makes a pool, which takes over the state of the servers that `old` also has.
fn pool(proxy: &Proxy, old: &Pool, names: &Names) -> Pool {
    let server =
        |it: &Upstream| UpstreamServer { secure: it.secure, host: it.host.clone(), port: it.port };
    let options = PoolOptions {
        balance: proxy.balance,
        fail_after: proxy.fail_after,
        retry_ms: proxy.retry_ms,
        refresh_ms: proxy.resolve_s * 1000,
    };
    Pool::after(old, proxy.upstreams.iter().map(server), options, names)
}

/// The live parts of all routes. `names` is given the host names to resolve.
pub(super) fn join(
    rules: NextRules,
    upstreams: Vec<Option<Arc<Upstreams>>>,
    names: &Names,
) -> Vec<LiveRoute> {
    let named = upstreams.iter().flatten().flat_map(|it| it.pool.names());
    names.replace(named.collect());
    let parts = rules.by_route.into_iter().zip(upstreams);
    parts.map(|(rules, upstreams)| LiveRoute { rules, upstreams }).collect()
}
