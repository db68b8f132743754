//! Routing: finds the first route that matches a request and whose guards let it in.

use super::{certificate, token};
use crate::claims::Claims;
use crate::config::{Config, EndpointKind, GuardKind, Listener, Route, RouteQuery};
use crate::http::{NormalPath, Request};
use crate::jwt::{Guard, TokenLease, TokenLeases, Unverified};
use crate::stats::Counters;
use crate::time::Now;
use crate::tls::PeerCertificate;
use crate::work::{Meter, WorkKind};
use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

/// The context in which a request is routed: configuration, guards, listener and client.
#[derive(Clone)]
pub struct Router<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// The guards of `config.guards`, in the same order.
    pub guards: &'a [Guard],
    /// The listener that accepted the connection.
    pub listener: &'a Listener,
    /// Whether the connection uses TLS.
    pub secure: bool,
    /// The client's verified certificate, if it has shown one.
    pub client: Option<Arc<PeerCertificate>>,
    /// The current time.
    pub now: Now,
    /// The counters of this core.
    pub counters: &'a Counters,
    /// The work of this event loop turn so far, and the failed token verifications by client
    /// address.
    pub work: &'a Meter,
    /// The address of the client.
    pub peer: IpAddr,
}

/// The route of a request, with what the guards know of the client.
pub struct RouteMatch<'a, 'r> {
    /// The route.
    pub route: &'a Route,
    /// The route's position in the configuration.
    pub number: usize,
    /// The subprotocol that is chosen for the response.
    pub protocol: Option<&'r str>,
    /// How long the connection may stay open by its tokens; `None` is without end.
    pub leases: Option<Box<TokenLeases>>,
    /// The claims of the first guard of the route, if it has any guards.
    pub claims: Option<Claims>,
}

/// Why a request is refused. The order is that of precedence: if several guarded routes refuse a
/// request, the greatest refusal is the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RouteRefusal {
    /// No route matches the request.
    NoRoute,
    /// Only guarded routes match, and the client has shown no certificate.
    NoCertificate,
    /// Only guarded routes match, and the request has no token.
    NoToken,
    /// The token was verified and not accepted.
    BadToken,
    /// The client's certificate is not one that the guard accepts.
    BadCertificate,
    /// The token or certificate lacks a role that the route requires, or no connection has the
    /// identity that a renewal names. The answer is 404, so that the client does not learn that a
    /// route exists.
    NoRole,
    /// The token cannot be verified, because no keys have been fetched so far.
    NoKeys,
    /// The path is ambiguous: servers differ in how they read it, and its route leads to an
    /// upstream server.
    Path,
    /// The token is not verified, because the client's address has sent too many unacceptable
    /// tokens in this second.
    Throttled,
    /// A challenge response, which renews a token, has a body.
    Body,
    /// The listener does not admit the request's `Origin`.
    Origin,
}

impl RouteRefusal {
    /// The HTTP status code of the response.
    pub fn status(self) -> u16 {
        match self {
            RouteRefusal::NoRoute | RouteRefusal::NoRole => 404,
            RouteRefusal::NoToken | RouteRefusal::NoCertificate => 401,
            RouteRefusal::BadToken | RouteRefusal::BadCertificate | RouteRefusal::Origin => 403,
            RouteRefusal::Body | RouteRefusal::Path => 400,
            RouteRefusal::NoKeys => 503,
            RouteRefusal::Throttled => 429,
        }
    }

    /// The response text, for people.
    pub fn text(self) -> &'static str {
        match self {
            RouteRefusal::NoRoute | RouteRefusal::NoRole => "nothing is served at this path",
            RouteRefusal::NoToken => "a token is needed",
            RouteRefusal::NoCertificate => "a client certificate is needed",
            RouteRefusal::BadToken => "the token is not accepted",
            RouteRefusal::BadCertificate => "the client certificate is not accepted",
            RouteRefusal::NoKeys => "tokens cannot be checked at the moment",
            RouteRefusal::Path => "the path is ambiguous",
            RouteRefusal::Throttled => "too many refused tokens",
            RouteRefusal::Body => "an answer to a challenge has no body",
            RouteRefusal::Origin => "the origin is not accepted",
        }
    }

    /// Further header fields of the response, as names and values.
    pub fn fields(self) -> &'static [(&'static str, &'static str)] {
        match self {
            RouteRefusal::NoToken => &[("WWW-Authenticate", "Bearer")],
            // RFC 9110 section 15.5.2 requires a challenge; no scheme is registered for
            // certificates.
            RouteRefusal::NoCertificate => &[("WWW-Authenticate", "ClientCertificate")],
            RouteRefusal::NoKeys => &[("Retry-After", "5")],
            RouteRefusal::Throttled => &[("Retry-After", "1")],
            _ => &[],
        }
    }
}

/// Whether the route refuses ambiguous paths: it is a proxy route without `allow_ambiguous_paths`,
/// and how its upstream servers read a path is not known.
fn is_strict(route: &Route) -> bool {
    route.endpoint == EndpointKind::Proxy
        && route.proxy.as_ref().is_none_or(|proxy| !proxy.allow_ambiguous_paths)
}

/// The result of checking a request with one guard.
enum GuardOutcome {
    NoCertificate,
    BadCertificate,
    NoToken,
    Throttled,
    Unverified(Unverified),
    Accepted(Claims),
}

impl GuardOutcome {
    fn claims(&self) -> Result<&Claims, RouteRefusal> {
        match self {
            GuardOutcome::NoCertificate => Err(RouteRefusal::NoCertificate),
            GuardOutcome::BadCertificate => Err(RouteRefusal::BadCertificate),
            GuardOutcome::NoToken => Err(RouteRefusal::NoToken),
            GuardOutcome::Throttled => Err(RouteRefusal::Throttled),
            GuardOutcome::Unverified(Unverified::NoKeys) => Err(RouteRefusal::NoKeys),
            GuardOutcome::Unverified(Unverified::Flaw(_)) => Err(RouteRefusal::BadToken),
            GuardOutcome::Accepted(claims) => Ok(claims),
        }
    }
}

impl Router<'_> {
    fn route_query<'r>(
        &'r self,
        request: &Request<'r>,
        path: &'r NormalPath<'_>,
    ) -> RouteQuery<'r> {
        RouteQuery {
            path: path.matched(),
            query: request.query(),
            authority: request.authority(),
            secure: self.secure,
            listener: &self.listener.name,
        }
    }
}

impl<'a> Router<'a> {
    /// Finds the route of an HTTP request that is not an upgrade.
    ///
    /// # Errors
    /// Why the request is refused.
    pub fn page(&self, request: &Request<'_>) -> Result<RouteMatch<'a, 'static>, RouteRefusal> {
        let (entry, _) = self.find(request, &[], |_| true)?;
        self.allow(entry.route);
        Ok(RouteMatch { protocol: None, ..entry })
    }

    /// All routes that match an HTTP request which is not an upgrade; guards are not checked.
    pub fn candidates(&self, request: &Request<'_>) -> Vec<&'a Route> {
        let path = NormalPath::new(request.path());
        let route_query = self.route_query(request, &path);
        let routes = self.config.routes.iter();
        routes.filter(|route| route.takes(&route_query, &[]).is_some()).collect()
    }

    /// Finds the route of a request whose body may be streamed. `None` if that is not a route with
    /// `stream`; then [`Router::page`] is to be called.
    pub fn stream(
        &self,
        request: &Request<'_>,
    ) -> Option<Result<RouteMatch<'a, 'static>, RouteRefusal>> {
        if !self.config.routes.iter().any(|route| route.stream) {
            return None;
        }
        let path = NormalPath::new(request.path());
        let route_query = self.route_query(request, &path);
        let takes = |route: &Route| route.stream && route.takes(&route_query, &[]).is_some();
        if self.renews(request) || !self.config.routes.iter().any(takes) {
            return None;
        }
        match self.find(request, &[], |_| true) {
            Ok((entry, _)) if !entry.route.stream => None,
            Ok(_) if !self.listener.admits(request.header("origin"), request.authority()) => {
                self.counters.origins_refused.add(1);
                Some(Err(RouteRefusal::Origin))
            }
            Ok((entry, _)) => {
                self.allow(entry.route);
                Some(Ok(RouteMatch { protocol: None, ..entry }))
            }
            Err(refusal) => Some(Err(refusal)),
        }
    }

    /// Finds the route of a WebSocket handshake. Routes to pages are skipped, so that a client with
    /// a wrong path gets an error in its own protocol.
    ///
    /// # Errors
    /// Why the request is refused.
    pub fn socket<'r>(&self, request: &Request<'r>) -> Result<RouteMatch<'a, 'r>, RouteRefusal> {
        let origin = request.header("origin");
        if !self.listener.admits(origin, request.authority()) {
            self.counters.origins_refused.add(1);
            return Err(RouteRefusal::Origin);
        }
        let offered: Vec<&'r str> = request.headers.tokens("sec-websocket-protocol").collect();
        let (mut entry, plain) =
            self.find(request, &offered, |route| route.endpoint.has_sockets())?;
        self.allow(entry.route);
        // A browser fails the connection if none of the subprotocols that it offers is chosen.
        if entry.protocol.is_none() && plain.len() < offered.len() {
            entry.protocol = plain.first().or(offered.first()).copied();
        }
        Ok(entry)
    }

    /// The first route that matches the request and whose guards accept it, with the offered
    /// subprotocols that carry no token.
    fn find<'r>(
        &self,
        request: &Request<'_>,
        offered: &[&'r str],
        serves: impl Fn(&Route) -> bool,
    ) -> Result<(RouteMatch<'a, 'r>, Vec<&'r str>), RouteRefusal> {
        let path = NormalPath::new(request.path());
        let route_query = self.route_query(request, &path);
        let carries = |name: &str| {
            let mut guards = self.config.guards.iter();
            guards.any(|guard| token::in_protocol(&guard.credentials, name).is_some())
        };
        let plain: Vec<&'r str> = offered.iter().copied().filter(|name| !carries(name)).collect();
        let mut outcomes: Vec<Option<GuardOutcome>> = self.guards.iter().map(|_| None).collect();
        let mut refusal = RouteRefusal::NoRoute;
        let mut found = None;
        let routes = self.config.routes.iter().enumerate();
        for (number, route) in routes.filter(|(_, route)| serves(route)) {
            let Some(protocol) = route.takes(&route_query, &plain) else { continue };
            match self.pass(route, request, offered, &mut outcomes) {
                Ok(_) if path.is_ambiguous() && is_strict(route) => {
                    self.counters.paths_refused.add(1);
                    return Err(RouteRefusal::Path);
                }
                Ok((leases, claims)) => {
                    found = Some(RouteMatch { route, number, protocol, leases, claims });
                    break;
                }
                Err(other) => refusal = refusal.max(other),
            }
        }
        self.note_failure(outcomes.iter().flatten());
        if let Some(entry) = found {
            return Ok((entry, plain));
        }
        self.count(refusal);
        Err(refusal)
    }

    /// Counts the request as one failed verification of its client's address, if at least one guard
    /// did not accept its token and no guard accepted one. Several guards count once.
    fn note_failure<'v>(&self, outcomes: impl Iterator<Item = &'v GuardOutcome>) {
        let (mut has_unverified, mut has_accepted) = (false, false);
        for outcome in outcomes {
            has_unverified |= matches!(outcome, GuardOutcome::Unverified(Unverified::Flaw(_)));
            has_accepted |= matches!(outcome, GuardOutcome::Accepted(_));
        }
        if has_unverified && !has_accepted {
            self.work.fail(self.peer, self.now.unix_s);
        }
    }

    fn allow(&self, route: &Route) {
        self.counters.guard_allowed.add(u64::from(!route.guarded.is_empty()));
    }

    fn count(&self, refusal: RouteRefusal) {
        match refusal {
            RouteRefusal::NoRoute
            | RouteRefusal::Body
            | RouteRefusal::Origin
            | RouteRefusal::Path => {}
            RouteRefusal::NoToken => self.counters.guard_no_token.add(1),
            RouteRefusal::BadToken => self.counters.guard_bad_token.add(1),
            RouteRefusal::NoCertificate => self.counters.guard_no_certificate.add(1),
            RouteRefusal::BadCertificate => self.counters.guard_bad_certificate.add(1),
            RouteRefusal::NoRole => self.counters.guard_no_role.add(1),
            RouteRefusal::NoKeys => self.counters.guard_no_keys.add(1),
            RouteRefusal::Throttled => self.counters.guard_throttled.add(1),
        }
    }

    /// Checks the request with every guard of a route, and its roles. Results are kept in
    /// `outcomes`, so that each guard is checked at most once for a request.
    fn pass(
        &self,
        route: &Route,
        request: &Request<'_>,
        offered: &[&str],
        outcomes: &mut [Option<GuardOutcome>],
    ) -> Result<(Option<Box<TokenLeases>>, Option<Claims>), RouteRefusal> {
        let mut found = None;
        let mut leases = Vec::new();
        for (name, roles) in &route.guarded {
            let at = self.guards.iter().position(|guard| guard.name == *name);
            let (at, guard) = at.map(|at| (at, &self.guards[at])).ok_or(RouteRefusal::NoRoute)?;
            let outcome =
                outcomes[at].get_or_insert_with(|| self.check_guard(at, request, offered));
            let claims = outcome.claims()?;
            if !claims.have(roles) {
                return Err(RouteRefusal::NoRole);
            }
            leases.extend(TokenLease::new(claims, roles, guard.challenge_s, &guard.holders));
            found.get_or_insert_with(|| claims.clone());
        }
        Ok((TokenLeases::new(leases, self.now), found))
    }

    /// Checks the request with guard number `at`.
    fn check_guard(&self, at: usize, request: &Request<'_>, offered: &[&str]) -> GuardOutcome {
        let Some(guard) = self.config.guards.get(at) else { return GuardOutcome::NoToken };
        if guard.kind == GuardKind::Certificate {
            let Some(client) = &self.client else { return GuardOutcome::NoCertificate };
            let claims = certificate::claims(&guard.certificate, client, self.now.unix_s);
            return claims.map_or(GuardOutcome::BadCertificate, GuardOutcome::Accepted);
        }
        let places = &guard.credentials;
        let carried = offered.iter().find_map(|name| token::in_protocol(places, name));
        let token = token::find(places, request).or(carried.map(Cow::Borrowed));
        let Some(token) = token else { return GuardOutcome::NoToken };
        let (guard, now_s) = (&self.guards[at], self.now.unix_s);
        if !self.work.may_verify(self.peer, now_s) {
            return GuardOutcome::Throttled;
        }
        self.work.charge(WorkKind::Token, guard.price(&token));
        match guard.check(&token, now_s) {
            Ok(claims) => GuardOutcome::Accepted(claims),
            Err(unverified) => {
                let (event, guard) = ("GUARD_JWT_AUTHORIZATION_FAILED", &self.guards[at].name);
                tracing::debug!(event, guard, ?unverified, "a token was refused");
                GuardOutcome::Unverified(unverified)
            }
        }
    }

    /// Whether the request is a challenge response: a POST of type
    /// `application/x-challenge-response`, on a server with guards.
    pub fn renews(&self, request: &Request<'_>) -> bool {
        const ANSWER: &str = "application/x-challenge-response";
        let of_type = |value: &str| {
            let essence = value.split(';').next().unwrap_or_default();
            essence.trim().eq_ignore_ascii_case(ANSWER)
        };
        !self.guards.is_empty()
            && request.method == "POST"
            && request.header("content-type").is_some_and(of_type)
    }

    /// Renews the leases of the connections with the identity of the request's token, if the
    /// request is a challenge response, which must have no body. `None` for any other request.
    pub fn renewal(&self, request: &Request<'_>) -> Option<Result<(), RouteRefusal>> {
        if !self.renews(request) {
            return None;
        }
        if !request.body.is_empty() {
            return Some(Err(RouteRefusal::Body));
        }
        let (mut refusal, mut is_renewed) = (RouteRefusal::NoToken, false);
        let all = (0..self.guards.len()).map(|at| self.check_guard(at, request, &[]));
        let outcomes: Vec<GuardOutcome> = all.collect();
        self.note_failure(outcomes.iter());
        for (guard, outcome) in self.guards.iter().zip(&outcomes) {
            match outcome.claims() {
                // Continue: other guards may accept the same token, or find another token of the
                // request.
                Ok(claims) if guard.holders.renew(claims) => {
                    self.counters.guard_renewals.add(1);
                    is_renewed = true;
                }
                // No connection has this identity.
                Ok(_) => refusal = refusal.max(RouteRefusal::NoRole),
                Err(other) => refusal = refusal.max(other),
            }
        }
        if is_renewed {
            return Some(Ok(()));
        }
        self.count(refusal);
        Some(Err(refusal))
    }
}
