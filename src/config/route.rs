//! The section `routes`: which requests reach which endpoint.

use super::compression::CompressionMode;
use super::proxy::{self, Proxy};
use super::reflect::{self, Reflect};
use super::size;
use super::text::shape;
use crate::http::NormalPath;
use crate::http::query::{self, PlusSign};
use crate::limits::WS_CONTROL_BYTES;
use crate::model::spec::Governance;
use crate::parts::OptionalPart;
use crate::settings::error::{Error, Problem};
use crate::settings::pattern::Pattern;
use crate::settings::section::{section, words};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;

words!(EndpointKind);

section! {
    required
    /// Routes: a request reaches the endpoint of the first route of which any condition in `when`
    /// matches and whose guards admit it. A route whose `when` is empty or missing matches every
    /// request. Endpoints:
    /// - "echo" sends each WebSocket message back to its sender
    /// - "console" and "metrics" are described in the sections above
    /// - "health" answers 200 while the process runs; a path that ends in /ready gets 503 when the
    ///   process is about to end
    /// - "reject" answers with a status
    /// - "apps" is the applications below
    /// - "reflect" sends each WebSocket message to all members of a group
    /// - "channel" is a plain WebSocket on a linked channel: see the section `links`
    /// - "proxy" forwards each WebSocket to another server
    /// - "zilliqa" and "zenith" are the dialects of these names
    ///
    /// A WebSocket handshake considers only routes to endpoints that accept WebSockets, and to
    /// "reject".
    pub struct Route {
        /// Conditions. All keys of a condition must match; `*` matches any run of characters.
        /// - path: the path without the query, with escapes of visible characters decoded, runs of
        ///   `/` as one, and `.` and `..` removed. A "proxy" forwards the path in this form, except
        ///   that of the escapes it decodes only those of letters, digits and -._~
        /// - query: name=value, decoded; several separated by &
        /// - authority: the host in lower case; without a port, the scheme's default port is meant
        /// - scheme: http or https (ws and wss mean the same)
        /// - protocol: a subprotocol that the client offers, which the server then selects
        #[serde(default)]
        pub when: Vec<Condition>;
        /// Guards that must all admit the request, each with the roles that the token must have: {
        /// my_jwt = ["echo:stream"] }. A request that no later route takes is answered with 401 if
        /// it has no token, 403 if the token is invalid, and 404 if a role is missing. Of several
        /// guards, the first by name determines the client's identity.
        #[serde(default)]
        pub guarded: BTreeMap<String, Vec<String>>;
        /// Names of the listeners whose requests this route takes. Empty is all.
        #[serde(default)]
        pub listeners: Vec<String>;
        /// The endpoint that handles the matching requests.
        pub endpoint: EndpointKind;
        /// The HTTP status with which "reject" answers. 400 to 599.
        #[serde(default = "reject")]
        pub status: u16;
        /// Compression for clients that offer it: "off"; "shared", without context takeover, so
        /// that a broadcast is compressed once for all subscribers; "dedicated", with context
        /// takeover and windows for each connection. As clients, Tornado (6.6) and Mojolicious
        /// (9.31) compress with context takeover although the server's response to their offer
        /// forbids it with "shared" (client_no_context_takeover), so their connection is closed
        /// with 1007 at the second compressed message: use "dedicated" for them, or disable
        /// compression in the client.
        #[serde(default)]
        pub compression: CompressionMode;
        /// Maximum payload of one message to "echo". Bytes, 125 to limits.message_bytes; 0 is
        /// limits.message_bytes.
        #[serde(default, deserialize_with = "size::wide")]
        pub message_bytes: u64;
        /// Whether "echo", "reflect", "channel" and "proxy" also accept an HTTP/1.1 POST in place
        /// of a WebSocket: the request body and the response are streamed at the same time, and
        /// each record in them is a message. To the upstream server of a "proxy" it is a WebSocket,
        /// whose pings this server answers. The Content-Type determines the records:
        /// - application/x-ndjson: each record is a line of JSON; in messages to the client, line
        ///   breaks become spaces
        /// - text/plain, or other text: each record is a line. Binary messages, empty messages and
        ///   messages with line breaks are not sent to such a client, only counted
        /// - application/octet-stream: each record is 4 bytes of length, most significant byte
        ///   first, and a binary message; the length ffffffff is not a message. Text messages are
        ///   written in the same way
        ///
        /// An empty line, or the length ffffffff, is a keep-alive, which the server sends after
        /// silence. The end of the request body ends the response of "echo"; with the other
        /// endpoints the client continues to receive. If the server ends the stream with a close
        /// code, the trailer field Polycast-Close has the code and the reason.
        ///
        /// If Accept names text/event-stream, the response of all but "echo" has server-sent
        /// events, and a GET opens a stream that only receives: see docs/sse.md.
        #[serde(default)]
        pub stream: bool;
        /// The groups of the endpoint "reflect".
        #[serde(default)]
        pub reflect: Reflect;
        /// The upstream servers of the endpoint "proxy".
        #[serde(default, deserialize_with = "proxy::shared")]
        pub proxy: Option<Arc<Proxy>>;
        /// The models that the WebSocket messages of the route must match.
        #[serde(default)]
        pub model: Governance;
    }
}

/// Defines [`EndpointKind`], with the dialects that the table says routes choose, in every build.
/// The first of them stands beside `echo`: the order is that of error messages.
macro_rules! endpoints {
    (
        applications { $($applications:tt)* }
        routes {
            $(#[$first_cfg:meta])* $First:ident in $first_folder:ident {
                name: $first_name:tt,
                about: $first_about:tt,
                section: $first_section:expr,
                has_api: $first_has_api:tt,
                part: $first_part:expr,
            }
            $($(#[$cfg:meta])* $Name:ident in $folder:ident {
                name: $name:tt,
                about: $about:tt,
                section: $section:expr,
                has_api: $has_api:tt,
                part: $part:expr,
            })*
        }
    ) => {
        /// The endpoint of a route.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
        #[serde(rename_all = "lowercase")]
        pub enum EndpointKind {
            /// A WebSocket that sends each message back to its sender.
            Echo,
            #[doc = $first_about]
            #[serde(rename = $first_name)]
            $First,
            /// A WebSocket that is forwarded to an upstream server: see the section `proxy`.
            Proxy,
            /// The console page: see the section `console`.
            Console,
            /// The counters: see the section `metrics`.
            Metrics,
            /// Health check: whether the process runs; for a path that ends in `/ready`, whether it
            /// accepts more work.
            Health,
            /// The applications, by the paths of their dialects.
            Apps,
            $(
                #[doc = $about]
                #[serde(rename = $name)]
                $Name,
            )*
            /// No endpoint: the request is answered with the route's `status`.
            Reject,
        }

        impl EndpointKind {
            /// Whether the endpoint is a dialect that routes choose.
            pub fn is_dialect(self) -> bool {
                match self {
                    EndpointKind::$First => true,
                    $(EndpointKind::$Name => true,)*
                    _ => false,
                }
            }

            /// Whether a dialect answers the HTTP requests of the endpoint.
            pub fn has_api(self) -> bool {
                match self {
                    EndpointKind::Apps => true,
                    EndpointKind::$First => $first_has_api,
                    $(EndpointKind::$Name => $has_api,)*
                    _ => false,
                }
            }

            /// The optional part that the endpoint is, if it is one.
            pub fn part(self) -> Option<OptionalPart> {
                match self {
                    EndpointKind::$First => $first_part,
                    $(EndpointKind::$Name => $part,)*
                    _ => None,
                }
            }
        }
    };
}
dialects!(endpoints);

impl EndpointKind {
    /// Whether the endpoint answers WebSocket handshakes.
    pub fn has_sockets(self) -> bool {
        use EndpointKind::{Apps, Echo, Proxy, Reject};
        matches!(self, Echo | Proxy | Apps | Reject) || self.is_dialect()
    }
}

section! {
    /// A condition on a request. All keys that are not empty must match; `*` matches any run of
    /// characters.
    pub struct Condition {
        /// A subprotocol that the client offers.
        pub protocol: Pattern = Default::default();
        /// `http` or `ws` without TLS, `https` or `wss` with TLS.
        pub scheme: Pattern = Default::default();
        /// The request's host in lower case, optionally with a port.
        pub authority: Pattern = Default::default();
        /// The path without the query, in its normal form.
        pub path: Pattern = Default::default();
        /// Decoded query parameters: `name=value`, several separated by `&`.
        pub query: Pattern = Default::default();
    }
}

/// The properties of a request that routes match.
#[derive(Clone, Copy, Debug)]
pub struct RouteQuery<'r> {
    /// The path without the query, in the form of [`NormalPath::matched`].
    pub path: &'r str,
    /// The query.
    pub query: &'r str,
    /// The host and port that the request is for.
    pub authority: Option<&'r str>,
    /// Whether the connection uses TLS.
    pub secure: bool,
    /// The name of the listener that accepted the connection.
    pub listener: &'r str,
}

/// Maximum payload in bytes of one message to the `echo` of the default routes.
const ECHO_BYTES: u64 = 64 * 1024;

impl Route {
    /// The default routes: fixed paths for `echo`, console, metrics and health; all other requests
    /// go to the applications.
    pub(super) fn defaults() -> Vec<Route> {
        vec![
            // For a first test; the limit is low because any client may use it.
            Route { message_bytes: ECHO_BYTES, ..Route::of(&["/echo"], EndpointKind::Echo) },
            Route::of(&["/", "/console", "/console/*"], EndpointKind::Console),
            Route::of(&["/metrics"], EndpointKind::Metrics),
            Route::of(&["/live", "/ready"], EndpointKind::Health),
            Route::of(&[], EndpointKind::Apps),
        ]
    }

    /// A route from these paths to `endpoint`.
    pub(super) fn of(paths: &[&str], endpoint: EndpointKind) -> Route {
        let condition =
            |path: &&str| Condition { path: Pattern::new(*path), ..Condition::default() };
        let when = paths.iter().map(condition).collect();
        Route { when, ..Route::to(endpoint) }
    }

    /// A route from every request to `endpoint`.
    pub fn to(endpoint: EndpointKind) -> Route {
        Route {
            when: Vec::new(),
            guarded: BTreeMap::new(),
            listeners: Vec::new(),
            endpoint,
            status: reject(),
            compression: CompressionMode::Off,
            message_bytes: 0,
            stream: false,
            reflect: Default::default(),
            proxy: None,
            model: Default::default(),
        }
    }

    /// Whether the route may match a request for `path`; only the conditions on the path are
    /// compared.
    pub(super) fn matches(&self, path: &str) -> bool {
        let holds = |it: &Condition| it.path.is_empty() || it.path.matches(path);
        self.when.is_empty() || self.when.iter().any(holds)
    }

    /// Whether the route matches the request: `None` if not, else the subprotocol that is chosen,
    /// which is the first offered one that a matching condition names.
    pub fn takes<'r>(
        &self,
        route_query: &RouteQuery<'_>,
        offered: &[&'r str],
    ) -> Option<Option<&'r str>> {
        if !self.listeners.is_empty() && !self.listeners.iter().any(|it| it == route_query.listener)
        {
            return None;
        }
        let holding = || self.when.iter().filter(|it| it.holds(route_query));
        let has =
            |name: &&&str| holding().any(|it| !it.protocol.is_empty() && it.protocol.matches(name));
        let chosen = offered.iter().find(has).copied();
        let open = self.when.is_empty() || holding().any(|it| it.protocol.is_empty());
        (open || chosen.is_some()).then_some(chosen)
    }
}

/// The default status of a route that rejects.
pub(super) fn reject() -> u16 {
    403
}

impl Condition {
    /// Whether every key except the subprotocol matches.
    fn holds(&self, route_query: &RouteQuery<'_>) -> bool {
        let Condition { protocol: _, scheme, authority, path, query } = self;
        (path.is_empty() || path.matches(route_query.path))
            && is_scheme(scheme.as_str(), route_query.secure)
            && (authority.is_empty() || is_authority(authority, route_query))
            && (query.is_empty()
                || query.as_str().split('&').all(|pair| has_pair(pair, route_query.query)))
    }
}

fn is_scheme(scheme: &str, secure: bool) -> bool {
    match scheme {
        "" | "*" => true,
        "https" | "wss" => secure,
        _ => !secure,
    }
}

/// Matches the authority with and without the scheme's default port.
fn is_authority(pattern: &Pattern, route_query: &RouteQuery<'_>) -> bool {
    let Some(authority) = route_query.authority else { return false };
    let authority = authority.to_ascii_lowercase();
    let own = if route_query.secure { ":443" } else { ":80" };
    pattern.matches(&authority)
        || match authority.strip_suffix(own) {
            Some(bare) => pattern.matches(bare),
            None => !has_port(&authority) && pattern.matches(&format!("{authority}{own}")),
        }
}

/// Whether an authority has a port. A colon inside brackets belongs to an IPv6 address.
fn has_port(authority: &str) -> bool {
    authority.rfind(':') > authority.rfind(']')
}

/// Whether any decoded `name=value` pair of the query matches `pattern`.
fn has_pair(pattern: &str, query: &str) -> bool {
    let pattern = Pattern::new(pattern);
    pattern.is_empty()
        || query::pairs(query).any(|(name, value)| {
            let decoded = |text| query::decode(text, PlusSign::Space);
            match (decoded(name), decoded(value)) {
                (Some(name), Some(value)) => pattern.matches(&format!("{name}={value}")),
                _ => false,
            }
        })
}

/// What the check of a route needs of the other sections.
pub(super) struct RouteContext<'c> {
    /// Whether a guard has this name.
    pub(super) is_guard: &'c dyn Fn(&str) -> bool,
    /// Whether a listener has this name.
    pub(super) is_listener: &'c dyn Fn(&str) -> bool,
    /// `limits.message_bytes`.
    pub(super) message_bytes: u64,
}

/// Checks routes and the guards and listeners that they name.
pub(super) fn check(routes: &[Route], context: &RouteContext<'_>) -> Result<(), Error> {
    if routes.is_empty() {
        return Err(Error::keyed("routes", Problem::Empty));
    }
    for (index, route) in routes.iter().enumerate() {
        check_route(route, context).map_err(|error| error.under(&format!("routes[{index}]")))?;
    }
    Ok(())
}

fn check_route(route: &Route, context: &RouteContext<'_>) -> Result<(), Error> {
    reflect::check(&route.reflect, route.endpoint == EndpointKind::Reflect)?;
    proxy::check(route.proxy.as_deref(), route.endpoint == EndpointKind::Proxy)?;
    let takes_streams = matches!(
        route.endpoint,
        EndpointKind::Echo | EndpointKind::Reflect | EndpointKind::Channel | EndpointKind::Proxy
    );
    if route.stream && !takes_streams {
        let problem = "only the endpoints `echo`, `reflect`, `channel` and `proxy` accept this key"
            .to_owned();
        return Err(Error::keyed("stream", Problem::Other(problem)));
    }
    check_message_bytes(route, context.message_bytes)?;
    for (place, condition) in route.when.iter().enumerate() {
        check_condition(condition).map_err(|error| error.under(&format!("when[{place}]")))?;
    }
    for name in route.guarded.keys() {
        if !(context.is_guard)(name) {
            return Err(shape(format!("guarded.{name}"), name, "the name of one of [[guards]]"));
        }
    }
    for (place, name) in route.listeners.iter().enumerate() {
        if name.is_empty() || !(context.is_listener)(name) {
            let accepted = "the name of one of [[listeners]]";
            return Err(shape(format!("listeners[{place}]"), name, accepted));
        }
    }
    let (min, max) = (400, 599);
    let found = u64::from(route.status);
    if route.endpoint == EndpointKind::Reject && !(min..=max).contains(&found) {
        return Err(Error::keyed("status", Problem::Range { found, min, max, unit: "" }));
    }
    Ok(())
}

fn check_message_bytes(route: &Route, max: u64) -> Result<(), Error> {
    let (found, min) = (route.message_bytes, WS_CONTROL_BYTES as u64);
    // The default of `echo` is not an error if it exceeds `limits.message_bytes`.
    if found == 0 || found == ECHO_BYTES && max < found {
        return Ok(());
    }
    if route.endpoint != EndpointKind::Echo {
        let problem = "only the endpoint `echo` accepts this key".to_owned();
        return Err(Error::keyed("message_bytes", Problem::Other(problem)));
    }
    if !(min..=max).contains(&found) {
        let problem = Problem::Range { found, min, max, unit: " bytes" };
        return Err(Error::keyed("message_bytes", problem));
    }
    Ok(())
}

fn check_condition(condition: &Condition) -> Result<(), Error> {
    let Condition { protocol, scheme, authority, path, query } = condition;
    if [protocol, scheme, authority, path, query].iter().all(|it| it.is_empty()) {
        return Err(Error::keyed("", Problem::Empty));
    }
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let host =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._:[]*".contains(&byte);
    let visible = |byte: u8| byte.is_ascii_graphic() && !b"?#".contains(&byte);
    let pair = |pair: &str| pair.contains(['=', '*']);
    for (key, text, fits, accepted) in [
        (
            "protocol",
            protocol.as_str(),
            protocol.as_str().bytes().all(token),
            "characters of a subprotocol; `*` matches any run of characters",
        ),
        (
            "scheme",
            scheme.as_str(),
            matches!(scheme.as_str(), "" | "*" | "http" | "https" | "ws" | "wss"),
            "http, https, ws, wss or *",
        ),
        (
            "authority",
            authority.as_str(),
            authority.as_str().bytes().all(host),
            "a host in lower case, with or without a port; `*` matches any run of characters",
        ),
        (
            "path",
            path.as_str(),
            path.is_empty()
                || path.as_str().starts_with(['/', '*'])
                    && path.as_str().bytes().all(visible)
                    && is_normal(path.as_str()),
            "a path that begins with `/` or `*`, without empty segments, `.`, `..` and escapes of \
             visible characters, because request paths are normalised before the comparison; `*` \
             matches any run of characters",
        ),
        (
            "query",
            query.as_str(),
            query.is_empty() || query.as_str().split('&').all(pair),
            "`name=value` pairs separated by `&`; `*` matches any run of characters",
        ),
    ] {
        if !fits {
            return Err(shape(key, text, accepted));
        }
    }
    Ok(())
}

/// Whether a normalised path can match the pattern. A `*` is treated as a letter.
fn is_normal(pattern: &str) -> bool {
    let slash = if pattern.starts_with('/') { "" } else { "/" };
    let path = format!("{slash}{pattern}");
    NormalPath::new(&path).matched() == path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route_query<'r>(target: &'r str, authority: &'r str, secure: bool) -> RouteQuery<'r> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        RouteQuery { path, query, authority: Some(authority), secure, listener: "main" }
    }

    fn when(key: &str, pattern: &str) -> Condition {
        let mut condition = Condition::default();
        let pattern = Pattern::new(pattern);
        match key {
            "protocol" => condition.protocol = pattern,
            "scheme" => condition.scheme = pattern,
            "authority" => condition.authority = pattern,
            "path" => condition.path = pattern,
            _ => condition.query = pattern,
        }
        condition
    }

    fn route(when: Vec<Condition>) -> Route {
        Route { when, ..Route::to(EndpointKind::Echo) }
    }

    #[test]
    fn route_condition_keys() {
        for (key, pattern, target, authority, secure, holds) in [
            ("path", "/echo", "/echo?a=b", "h", false, true),
            ("path", "/echo*", "/echo/x", "h", false, true),
            ("path", "/e.ho", "/echo", "h", false, false),
            ("path", "/Echo", "/echo", "h", false, false),
            ("scheme", "http", "/", "h", false, true),
            ("scheme", "ws", "/", "h", true, false),
            ("scheme", "wss", "/", "h", true, true),
            ("scheme", "https", "/", "h", false, false),
            ("scheme", "*", "/", "h", true, true),
            ("authority", "example.com", "/", "example.com", false, true),
            ("authority", "example.com", "/", "Example.COM:80", false, true),
            ("authority", "example.com", "/", "example.com:443", false, false),
            ("authority", "example.com", "/", "example.com:443", true, true),
            ("authority", "example.com:80", "/", "example.com", false, true),
            ("authority", "example.com:443", "/", "example.com", true, true),
            ("authority", "example.com:443", "/", "example.com", false, false),
            ("authority", "example.com", "/", "examplescom", false, false),
            ("authority", "*.example.com", "/", "a.example.com", false, true),
            ("authority", "*.example.com:*", "/", "a.example.com:9", false, true),
            ("authority", "[::1]", "/", "[::1]:80", false, true),
            ("authority", "[::1]:80", "/", "[::1]", false, true),
            ("query", "a=1", "/?a=1", "h", false, true),
            ("query", "a=1", "/?b=2&a=1", "h", false, true),
            ("query", "a=1", "/?a=12", "h", false, false),
            ("query", "a=1&b=*", "/?b=&a=1", "h", false, true),
            ("query", "a=1&b=*", "/?a=1", "h", false, false),
            ("query", "a=x y", "/?a=x%20y", "h", false, true),
            ("query", "a=x y", "/?a=x+y", "h", false, true),
            ("query", "access_token=*", "/", "h", false, false),
            ("query", "*", "/?x", "h", false, true),
        ] {
            let found =
                route(vec![when(key, pattern)]).takes(&route_query(target, authority, secure), &[]);
            assert_eq!(found.is_some(), holds, "{key} {pattern}: {target} {authority} {secure}");
        }
    }

    #[test]
    fn route_conditions_any_entry_with_all_keys() {
        let both = Condition { scheme: Pattern::new("https"), ..when("path", "/a") };
        let route = route(vec![both, when("path", "/b")]);
        let takes = |target, secure| route.takes(&route_query(target, "h", secure), &[]).is_some();
        assert!(takes("/a", true) && !takes("/a", false) && takes("/b", false));
        assert!(!takes("/c", true));
        assert!(
            super::tests::route(Vec::new()).takes(&route_query("/", "h", false), &[]).is_some()
        );
    }

    #[test]
    fn route_takes_the_clients_first_known_subprotocol() {
        let chosen = |when: Vec<Condition>, offered: &[&'static str]| {
            route(when).takes(&route_query("/", "h", false), offered)
        };
        let two = || vec![when("protocol", "b"), when("protocol", "a.*")];
        assert_eq!(chosen(two(), &["x", "a.1", "b"]), Some(Some("a.1")));
        assert_eq!(chosen(two(), &["b", "a.1"]), Some(Some("b")));
        assert_eq!(chosen(two(), &["x", "B"]), None);
        assert_eq!(chosen(two(), &[]), None);
        assert_eq!(chosen(vec![when("protocol", "*")], &["x"]), Some(Some("x")));
        assert_eq!(chosen(vec![when("protocol", "*")], &[]), None, "as if it had no name");
        // A subprotocol that no condition names is not chosen.
        assert_eq!(chosen(vec![when("path", "/")], &["x"]), Some(None));
        assert_eq!(chosen(Vec::new(), &["x"]), Some(None));
        let mixed = || vec![when("path", "*"), when("protocol", "b")];
        assert_eq!(chosen(mixed(), &["x", "b"]), Some(Some("b")));
        assert_eq!(chosen(mixed(), &["x"]), Some(None));
        let elsewhere = Condition { path: Pattern::new("/other"), ..when("protocol", "b") };
        assert_eq!(chosen(vec![elsewhere], &["b"]), None);
    }

    #[test]
    fn route_may_belong_to_one_listener() {
        let only = |name: &str| Route { listeners: vec![name.to_owned()], ..route(Vec::new()) };
        assert!(only("main").takes(&route_query("/", "h", false), &[]).is_some());
        assert!(only("admin").takes(&route_query("/", "h", false), &[]).is_none());
    }
}
