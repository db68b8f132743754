//! How the path of a request names an application, and with it the dialect.

use super::apps::PathError;
use super::entry::DialectKind;
use super::env::Env;
use super::webhooks::WebhookFormat;
use crate::config;
use crate::http;
use crate::http::query::{self, PlusSign};

impl Env {
    /// The number of the application that a WebSocket path names by `/app/{key}`, or by a path that
    /// its dialect owns.
    ///
    /// # Errors
    /// The path is not one of applications, or no application has the key.
    pub fn app_of_socket(&self, path: &str) -> Result<u32, PathError> {
        if let Some(key) = self.key_below("/app/", path) {
            return self.apps.by_key(key).ok_or(PathError::UnknownApp);
        }
        let Some((owner, key)) = self.owner_of_socket(path) else {
            return Err(PathError::NoSuchPath);
        };
        match self.apps.by_key(key) {
            Some(app) if self.dialect_of(app) == owner => Ok(app),
            None if self.apps.iter().any(|(app, _)| self.dialect_of(app) == owner) => {
                Err(PathError::UnknownApp)
            }
            _ => Err(PathError::NoSuchPath),
        }
    }

    /// The number of the application whose channels a path names as server-sent events: a path of
    /// its WebSockets, followed by `/events`. Where such a path may be one of the HTTP API, too,
    /// only requests that read are for events.
    ///
    /// # Errors
    /// The path is not one of events, or no application has the key.
    pub fn app_of_events(&self, path: &str, method: &str) -> Result<u32, PathError> {
        let socket = path.strip_suffix("/events").filter(|socket| !socket.ends_with('/'));
        let socket = socket.ok_or(PathError::NoSuchPath)?;
        if self.key_below("/app/", socket).is_some() {
            return self.app_of_socket(socket);
        }
        // A signed publish is a POST to such a path: it is passed on without a search.
        if !matches!(method, "GET" | "HEAD" | "OPTIONS") {
            return Err(PathError::NoSuchPath);
        }
        let found = self.app_of_socket(socket);
        match method {
            "GET" | "HEAD" if found.is_ok() => found,
            _ if self.api_target(path).is_some() => Err(PathError::NoSuchPath),
            _ => found,
        }
    }

    /// The dialect that owns a WebSocket path besides `/app/{key}`, and the path's key.
    fn owner_of_socket<'p>(&self, path: &'p str) -> Option<(DialectKind, &'p str)> {
        let owned = DialectKind::ALL.iter().flat_map(|kind| {
            let starts = kind.own_sockets().iter();
            starts.map(move |start| (*kind, *start))
        });
        let mut keys = owned.filter_map(|(kind, start)| Some((kind, self.key_below(start, path)?)));
        keys.next()
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
        if let Some(kind) = DialectKind::of_route(endpoint) {
            return kind;
        }
        match self.app_of_socket(path) {
            Ok(app) => self.dialect_of(app),
            Err(PathError::UnknownApp) if let Some((owner, _)) = self.owner_of_socket(path) => {
                owner
            }
            Err(_) => self.apps.common_dialect().into(),
        }
    }

    /// The dialect of an application. Some numbers are reserved for dialects without applications.
    pub(super) fn dialect_of(&self, app: u32) -> DialectKind {
        let reserved = DialectKind::of_reserved(app);
        reserved.unwrap_or_else(|| self.apps.get(app).config.dialect.into())
    }

    /// The webhook format of an application, if its dialect has webhooks.
    pub fn webhooks(&self, app: u32) -> Option<&'static WebhookFormat> {
        self.dialect_of(app).webhooks()
    }

    /// The application that an HTTP request is for, and the rest of its path.
    pub(super) fn target<'p>(
        &self,
        endpoint: config::EndpointKind,
        path: &'p str,
        query: &str,
    ) -> Option<(u32, &'p str)> {
        match DialectKind::of_route(endpoint).and_then(DialectKind::reserved_app) {
            Some(app) => Some((app, path)),
            None => self.api_target(path).or_else(|| self.api_target_by_key(path, query)),
        }
    }

    /// The application of an API path `/apps/{id}/...`, and the rest of the path. Some
    /// dialects let a path name the application by its key, too.
    pub(super) fn api_target<'p>(&self, path: &'p str) -> Option<(u32, &'p str)> {
        let below = self.strip_prefix(path)?.strip_prefix("/apps/")?;
        let (name, rest) = below.split_at(below.find('/').unwrap_or(below.len()));
        let name = query::decode(name, PlusSign::Literal)?;
        let has_key = |app: &u32| self.dialect_of(*app).has_api_by_key();
        let by_key = || self.apps.by_key(&name).filter(has_key);
        Some((self.apps.by_id(&name).or_else(by_key)?, rest))
    }

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

/// The web origins that may read a response of the HTTP API (CORS).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SharedWith {
    /// Any origin.
    Everybody,
    /// This origin.
    Origin(String),
}

/// Whether application `app` admits a request for server-sent events by its origin. A browser names
/// no origin if the page has the origin of the request itself.
pub fn admits_events(env: &Env, app: u32, request: &http::Request<'_>) -> bool {
    let origins = &env.apps.get(app).config.allowed_origins;
    let is_allowed = |origin: &str| origins.iter().any(|allowed| allowed.matches(origin));
    let own = || {
        let is_own = request.header("sec-fetch-site") == Some("same-origin");
        let authority = request.authority().filter(|_| is_own);
        // Behind a proxy that terminates TLS, the scheme is not known.
        authority.is_some_and(|host| {
            ["https", "http"].iter().any(|scheme| is_allowed(&format!("{scheme}://{host}")))
        })
    };
    origins.is_empty() || request.header("origin").map_or_else(own, is_allowed)
}

/// The web origin that may read the response to a request of the HTTP API, by `cors_origins` of the
/// application that the path names. `None` if the request's origin may not.
pub fn shared_with(env: &Env, request: &http::Request<'_>) -> Option<SharedWith> {
    let origin = request.header("origin");
    if origin.is_none() && !env.apps.any_shares_with_everybody() {
        // Spares the requests of back ends the search for their application.
        return None;
    }
    let target = env.target(config::EndpointKind::Apps, request.path(), request.query());
    let app = env.apps.get(target?.0);
    if app.shares_with_everybody() {
        return Some(SharedWith::Everybody);
    }
    let origin = origin?;
    let allowed = app.config.cors_origins.iter().any(|allowed| allowed.matches(origin));
    allowed.then(|| SharedWith::Origin(origin.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn env(prefix: &str) -> Env {
        let mut config = Config::demo();
        config.pusher.path_prefix = prefix.to_owned();
        Env::new(config, 0).unwrap()
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
        Env::new(config, 0).unwrap()
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
    fn apps_events_path_names_the_application_and_leaves_the_api_its_own() {
        use config::AppDialect::{Broadcastt, Pusher};
        let (unknown, none) = (Err(PathError::UnknownApp), Err(PathError::NoSuchPath));
        let mixed = two(Pusher, Broadcastt);
        for (path, method, expected) in [
            ("/app/app-key/events", "GET", Ok(0)),
            ("/app/app-key/events", "POST", Ok(0)),
            ("/app/second/events", "GET", Ok(1)),
            ("/app/other/events", "GET", unknown),
            ("/app/app-key/events/", "GET", none),
            ("/app/app-key//events", "GET", none),
            ("/app/events", "GET", none),
            ("/app/app-key", "GET", none),
            ("/apps/second/events", "GET", Ok(1)),
            ("/apps/second/events", "HEAD", Ok(1)),
            ("/apps/second/events", "OPTIONS", Ok(1)),
            ("/apps/second/events", "POST", none),
            ("/apps/app-key/events", "GET", none),
            // The path of the HTTP API, by the id of an application.
            ("/apps/1/events", "GET", none),
            ("/apps/2/events", "OPTIONS", none),
            ("/apps/other/events", "GET", unknown),
            ("/apps/2/channels/a/events", "GET", none),
        ] {
            assert_eq!(mixed.app_of_events(path, method), expected, "{method} {path}");
        }
        // An id that is a key, too: what reads is for events, everything else is for the API.
        let mut config = Config::demo();
        let app = &mut config.apps[0];
        (app.id, app.dialect) = (app.key.clone(), Broadcastt);
        let same = Env::new(config, 0).unwrap();
        for (method, expected) in
            [("GET", Ok(0)), ("HEAD", Ok(0)), ("OPTIONS", none), ("POST", none)]
        {
            assert_eq!(same.app_of_events("/apps/app-key/events", method), expected, "{method}");
        }
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
}
