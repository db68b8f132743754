//! Follows bindings from type tcp to the ends of their chains.

use super::bindings::{Bindings, kind, ports};
use super::guards::{self, Guarded};
use super::place::YamlPlace;
use super::{upstream, vaults};
use crate::config::Listener;
use crate::config::guard::GuardConfig;
use crate::config::proxy::Proxy;
use crate::config::root::Config;
use crate::config::route::Condition;
use crate::config::route::{EndpointKind, Route};
use crate::settings::error::Error;
use crate::settings::pattern::Pattern;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

/// The status with which Zilla answers a request that no route matches.
const NO_ROUTE: u16 = 404;
/// The keys that every binding may have.
const KEYS: [&str; 4] = ["type", "kind", "telemetry", "exit"];

/// The chains of a file.
pub(super) struct BindingChain<'a> {
    bindings: Bindings<'a>,
    guards: Vec<GuardConfig>,
}

/// A next step of a chain: an exit of a binding with its conditions.
struct Branch<'a> {
    /// The conditions, of which one must match; empty matches always.
    when: Vec<Condition>,
    guarded: Guarded,
    exit: YamlPlace<'a>,
}

/// The end of a chain.
struct End {
    endpoint: EndpointKind,
    proxy: Option<Arc<Proxy>>,
}

impl<'a> BindingChain<'a> {
    pub(super) fn new(top: &YamlPlace<'a>) -> Result<BindingChain<'a>, Error> {
        Ok(BindingChain { bindings: Bindings::new(top)?, guards: guards::read(top)? })
    }

    /// Makes the listeners and routes of every chain.
    pub(super) fn serve(&self, config: &mut Config) -> Result<(), Error> {
        for binding in &self.bindings.all {
            if kind(binding)? == ("tcp".to_owned(), "server".to_owned()) {
                self.tcp(binding, config)?;
            }
        }
        match config.listeners.is_empty() {
            true => Err(self
                .bindings
                .top
                .need("bindings")?
                .wrong("at least one binding of type tcp, kind server is required")),
            false => Ok(()),
        }
    }

    /// Converts a tcp binding. Each port continues with the first route that names it, or with the
    /// binding's exit.
    fn tcp(&self, here: &YamlPlace<'a>, config: &mut Config) -> Result<(), Error> {
        here.only(&["type", "kind", "telemetry", "options", "routes", "exit"])?;
        let options = here.need("options")?;
        options.only(&["host", "port"])?;
        let host = match options.word("host")?.as_deref() {
            None => IpAddr::from(Ipv4Addr::UNSPECIFIED),
            Some("localhost") => Ipv4Addr::LOCALHOST.into(),
            Some(host) => {
                host.parse().map_err(|_| here.wrong(format!("`{host}` is not an IP address")))?
            }
        };
        let mut branches = Vec::new();
        for route in here.list("routes") {
            route.only(&["when", "exit"])?;
            let when = route.list("when");
            let mut taken = Vec::new();
            for entry in &when {
                entry.only(&["port"])?;
                taken.extend(ports(entry)?);
            }
            branches.push((taken, when.is_empty(), route.need("exit")?));
        }
        branches.extend(here.get("exit").map(|exit| (Vec::new(), true, exit)));
        let mut exits: Vec<(String, YamlPlace<'a>, Vec<usize>)> = Vec::new();
        for port in ports(&options)? {
            let way = branches.iter().find(|(ports, always, _)| *always || ports.contains(&port));
            let (_, _, exit) = way.ok_or_else(|| here.wrong("the binding has no exit"))?;
            let number = config.listeners.len();
            let name = format!("{}.{port}", here.name);
            let address = SocketAddr::new(host, port).into();
            config.listeners.push(Listener { address, name, ..Listener::default() });
            let to = exit.text()?;
            match exits.iter_mut().find(|(exit, ..)| *exit == to) {
                Some((.., listeners)) => listeners.push(number),
                None => exits.push((to, exit.clone(), vec![number])),
            }
        }
        for (_, exit, listeners) in exits {
            let next = self.bindings.exit(here, &exit, "server", &["http", "tls"])?;
            self.enter(&next, &listeners, config)?;
        }
        Ok(())
    }

    /// Converts the binding after tcp: http, optionally after tls.
    fn enter(
        &self,
        next: &YamlPlace<'a>,
        listeners: &[usize],
        config: &mut Config,
    ) -> Result<(), Error> {
        if kind(next)?.0 == "http" {
            return self.http(next, listeners, config);
        }
        next.only(&["type", "kind", "telemetry", "vault", "options", "routes", "exit"])?;
        let tls = vaults::server(&self.bindings.top, next)?;
        for listener in listeners {
            config.listeners[*listener].tls = tls.clone();
        }
        let mut exit = next.get("exit");
        for route in next.list("routes").iter().rev() {
            route.only(&["exit"])?;
            exit = Some(route.need("exit")?);
        }
        let exit = exit.ok_or_else(|| next.wrong("the binding has no exit"))?;
        self.http(&self.bindings.exit(next, &exit, "server", &["http"])?, listeners, config)
    }

    fn http(
        &self,
        here: &YamlPlace<'a>,
        listeners: &[usize],
        config: &mut Config,
    ) -> Result<(), Error> {
        here.only(&["type", "kind", "telemetry", "options", "routes", "exit"])?;
        let mut authorised = None;
        let mut origins = vec![Pattern::new("same-origin")];
        if let Some(options) = here.get("options") {
            options.only(&["versions", "access-control", "authorization"])?;
            let versions = options.texts("versions")?;
            if options.get("versions").is_some() && !versions.iter().any(|it| it == "http/1.1") {
                return Err(
                    options.wrong("versions must include http/1.1, which WebSockets require")
                );
            }
            origins = access(&options)?;
            authorised = guards::authorise(&options, &self.guards, config)?;
        }
        let mut names = Vec::new();
        for listener in listeners {
            let listener = &mut config.listeners[*listener];
            listener.allowed_origins.clone_from(&origins);
            names.push(listener.name.clone());
        }
        let authorised = authorised.as_deref();
        for outer in self.branches(here, authorised)? {
            let ws = self.bindings.exit(here, &outer.exit, "server", &["ws"])?;
            ws.only(&["type", "kind", "telemetry", "routes", "exit"])?;
            for listener in listeners {
                let binding = &mut config.listeners[*listener].binding;
                // If several ws bindings follow, the first one counts.
                if binding.is_empty() {
                    ws.name.clone_into(binding);
                }
            }
            for inner in self.branches(&ws, authorised)? {
                let route = self.route(here, &ws, &outer, inner)?;
                config.routes.push(Route { listeners: names.clone(), ..route });
            }
            // A request that no ws route admits is rejected here, not tried with the next http
            // route.
            let when = both(&[], outer.when).unwrap_or_default();
            let (guarded, listeners, status) = (outer.guarded, names.clone(), NO_ROUTE);
            let route = Route::to(EndpointKind::Reject);
            config.routes.push(Route { when, guarded, listeners, status, ..route });
        }
        Ok(())
    }

    /// The route of the requests that branch `outer` of the http binding `here` and branch `inner`
    /// of the ws binding admit.
    fn route(
        &self,
        here: &YamlPlace<'a>,
        ws: &YamlPlace<'a>,
        outer: &Branch<'a>,
        inner: Branch<'a>,
    ) -> Result<Route, Error> {
        let types = ["echo", "fan", "ws"];
        let end = match self.bindings.exit(ws, &inner.exit, "client", &["ws"]) {
            Ok(client) => upstream::read(&self.bindings, &client).map(End::proxy)?,
            Err(_) => self.end(&self.bindings.exit(ws, &inner.exit, "server", &types[..2])?)?,
        };
        let when = both(&outer.when, inner.when).ok_or_else(|| {
            ws.wrong(format!("a route of {} has a condition with the same key", here.name))
        })?;
        let mut guarded = outer.guarded.clone();
        for (guard, roles) in inner.guarded {
            guarded.entry(guard).or_default().extend(roles);
        }
        Ok(Route { when, guarded, proxy: end.proxy, ..Route::to(end.endpoint) })
    }

    /// The next steps of a binding in order: those of its routes, then its own exit.
    fn branches(
        &self,
        here: &YamlPlace<'a>,
        authorised: Option<&str>,
    ) -> Result<Vec<Branch<'a>>, Error> {
        let mut branches = Vec::new();
        for route in here.list("routes") {
            route.only(&["when", "guarded", "exit"])?;
            let when = route.list("when").iter().map(|entry| condition(here, entry)).collect();
            let guarded = guards::guarded(&route, authorised)?;
            let exit = route.get("exit").or_else(|| here.get("exit"));
            let exit = exit.ok_or_else(|| here.wrong("a route of the binding has no exit"))?;
            let when: Result<Vec<_>, Error> = when;
            branches.push(Branch { when: when?, guarded, exit });
        }
        let own = |exit| Branch { when: Vec::new(), guarded: Guarded::new(), exit };
        branches.extend(here.get("exit").map(own));
        Ok(branches)
    }

    /// The end of a chain: `echo`, or `fan` followed by `echo`.
    fn end(&self, here: &YamlPlace<'a>) -> Result<End, Error> {
        here.only(&KEYS)?;
        if kind(here)?.0 == "echo" {
            return match here.get("exit") {
                Some(exit) => Err(exit.wrong("a binding of type echo cannot have an exit")),
                None => Ok(End { endpoint: EndpointKind::Echo, proxy: None }),
            };
        }
        let exit = here.need("exit")?;
        self.end(&self.bindings.exit(here, &exit, "server", &["echo"])?)?;
        Ok(End { endpoint: EndpointKind::Reflect, proxy: None })
    }
}

impl End {
    fn proxy(proxy: Proxy) -> End {
        End { endpoint: EndpointKind::Proxy, proxy: Some(Arc::new(proxy)) }
    }
}

/// The origins that an http binding allows; the default is the same origin.
fn access(options: &YamlPlace<'_>) -> Result<Vec<Pattern>, Error> {
    let same = vec![Pattern::new("same-origin")];
    let Some(access) = options.get("access-control") else { return Ok(same) };
    // Keys that concern only plain HTTP requests have no effect here.
    access.only(&["policy", "allow", "max-age", "expose"])?;
    match access.word("policy")?.as_deref() {
        None | Some("same-origin") => Ok(same),
        Some("cross-origin") => {
            let Some(allow) = access.get("allow") else { return Ok(Vec::new()) };
            allow.only(&["origins", "methods", "headers", "credentials"])?;
            let origins = allow.texts("origins")?;
            if allow.get("origins").is_some() && origins.is_empty() {
                return Err(allow.wrong("origins is empty; remove it to allow all origins"));
            }
            Ok(origins.iter().map(|it| Pattern::new(it.to_ascii_lowercase())).collect())
        }
        Some(other) => {
            Err(access.wrong(format!("policy must be same-origin or cross-origin, not {other}")))
        }
    }
}

fn condition(here: &YamlPlace<'_>, entry: &YamlPlace<'_>) -> Result<Condition, Error> {
    let entries = match kind(here)?.0.as_str() {
        "http" => {
            entry.only(&["headers"])?;
            let Some(headers) = entry.get("headers") else { return Ok(Condition::default()) };
            headers.only(&["upgrade", ":scheme", ":authority", ":path"])?;
            headers.table()?
        }
        _ => {
            entry.only(&["protocol", "scheme", "authority", "path"])?;
            entry.table()?
        }
    };
    let mut condition = Condition::default();
    for entry in entries {
        let text = entry.text()?;
        let place = match entry.name.trim_start_matches(':') {
            "protocol" => &mut condition.protocol,
            "scheme" => &mut condition.scheme,
            "authority" => &mut condition.authority,
            "path" => &mut condition.path,
            // All conditions apply to WebSockets only, so `upgrade: websocket` always matches.
            _ if text.eq_ignore_ascii_case("websocket") => continue,
            _ => return Err(entry.wrong("only `upgrade: websocket` is supported")),
        };
        *place = Pattern::new(text);
    }
    Ok(condition)
}

/// Combines each condition of `outer` with each of `inner`; `None` if a key is in both.
fn both(outer: &[Condition], inner: Vec<Condition>) -> Option<Vec<Condition>> {
    let any = [Condition::default()];
    let outer = if outer.is_empty() { &any } else { outer };
    let inner = if inner.is_empty() { any.to_vec() } else { inner };
    let mut all = Vec::new();
    for (one, other) in outer.iter().flat_map(|one| inner.iter().map(move |other| (one, other))) {
        let mut both = other.clone();
        for (place, more) in [
            (&mut both.scheme, &one.scheme),
            (&mut both.authority, &one.authority),
            (&mut both.path, &one.path),
        ] {
            match (place.is_empty(), more.is_empty()) {
                (_, true) => {}
                (true, false) => *place = more.clone(),
                (false, false) => return None,
            }
        }
        all.push(both);
    }
    // A condition that always matches makes the others redundant.
    Some(if all.contains(&Condition::default()) { Vec::new() } else { all })
}
