//! Warnings about settings that are valid but probably not intended.

use std::path::Path;

use super::acme::AcmeChallenge;
use super::guard::GuardConfig;
use super::listener::Listener;
use super::root::Config;
use super::route::{Condition, EndpointKind, Route};
use crate::settings::pattern::Pattern;

impl Config {
    /// The warnings of `polycast check`, each with its key. File names are relative to `folder`.
    pub fn risks(&self, folder: &Path) -> Vec<String> {
        let mut warnings = Vec::new();
        self.routes.iter().enumerate().for_each(|(at, _)| warnings.extend(self.open_path(at)));
        warnings.extend(self.cookies());
        warnings.extend(self.key_files(folder));
        warnings.extend(self.acme(folder));
        warnings
    }

    /// Warns of a route without a guard below a guarded one that matches the same requests: a
    /// request that the guard refuses is tried with the routes below.
    fn open_path(&self, at: usize) -> Option<String> {
        let guarded = &self.routes[at];
        let first = guarded.guarded.keys().next()?;
        for (below, route) in self.routes.iter().enumerate().skip(at + 1) {
            let overlaps = route.guarded.is_empty() && overlap(guarded, route);
            match route.endpoint {
                EndpointKind::Reject if overlaps && covers(route, guarded) => return None,
                EndpointKind::Reject => {}
                _ if overlaps => {
                    return Some(format!(
                        "routes[{at}].guarded: routes[{below}] takes the requests that guard \
                         `{first}` of this route refuses, because it matches them and has no \
                         guard; put a route with `endpoint = \"reject\"` between them"
                    ));
                }
                _ => {}
            }
        }
        None
    }

    /// Warns of tokens in cookies on listeners that accept any origin: browsers send cookies with a
    /// WebSocket that any web page opens.
    fn cookies(&self) -> Vec<String> {
        let has_cookies = |guard: &&GuardConfig| !guard.credentials.cookies.is_empty();
        let mut warnings = Vec::new();
        for guard in self.guards.iter().filter(has_cookies) {
            let routes = || self.routes.iter().filter(|it| it.guarded.contains_key(&guard.name));
            for (index, listener) in self.listeners.iter().enumerate() {
                let is_of =
                    |it: &Route| it.listeners.is_empty() || it.listeners.contains(&listener.name);
                if listener.allowed_origins.is_empty() && routes().any(is_of) {
                    warnings.push(format!(
                        "listeners[{index}].allowed_origins: the list is empty and guard `{}` \
                         takes tokens from cookies, so any web page can open WebSockets with the \
                         token of its visitor",
                        guard.name
                    ));
                }
            }
        }
        warnings
    }

    /// Warns of ACME settings with which no certificate can be issued, as far as this machine can
    /// tell.
    fn acme(&self, folder: &Path) -> Vec<String> {
        let mut warnings = Vec::new();
        let port = |listener: &Listener| listener.address.ip().map(|address| address.port());
        for (index, listener) in self.listeners.iter().enumerate() {
            let Some(acme) = &listener.tls.acme else { continue };
            let key = format!("listeners[{index}].tls.acme");
            let is_plain = |it: &&Listener| !it.tls.is_on();
            let mut plain = self.listeners.iter().filter(is_plain);
            match acme.challenge {
                AcmeChallenge::TlsAlpn if port(listener) != Some(443) => warnings.push(format!(
                    "{key}.challenge: the certificate authority connects to port 443 of each \
                     domain; this listener has another address, so port 443 must be forwarded to \
                     it without ending TLS"
                )),
                AcmeChallenge::Http if plain.clone().next().is_none() => warnings.push(format!(
                    "{key}.challenge: the certificate authority sends plain HTTP to port 80 of \
                     each domain, and there is no listener without TLS"
                )),
                AcmeChallenge::Http if plain.all(|it| port(it) != Some(80)) => {
                    warnings.push(format!(
                        "{key}.challenge: the certificate authority sends plain HTTP to port 80 \
                         of each domain; no listener without TLS has that port, so it must be \
                         forwarded to one"
                    ));
                }
                _ => {}
            }
            let store = folder.join(&acme.store);
            if let Some(problem) = store_problem(&store) {
                warnings.push(format!("{key}.store: {} {problem}", store.display()));
            }
        }
        warnings
    }

    fn key_files(&self, folder: &Path) -> Vec<String> {
        let mut files = Vec::new();
        for (index, listener) in self.listeners.iter().enumerate() {
            for (at, certificate) in listener.tls.certificates.iter().enumerate() {
                let key = format!("listeners[{index}].tls.certificates[{at}]");
                files.push((format!("{key}.key"), &certificate.key));
                files.push((format!("{key}.pkcs12"), &certificate.pkcs12));
            }
        }
        if let Some(it) = &self.cluster {
            let named = [("key", &it.key_file), ("creds", &it.creds_file), ("nkey", &it.nkey_file)];
            files.extend(named.map(|(name, file)| (format!("cluster.{name}_file"), file)));
        }
        let warnings = files.into_iter().filter_map(|(key, file)| {
            let mode = open_mode(&folder.join(file)).filter(|_| !file.is_empty())?;
            Some(format!(
                "{key}: users other than the owner can read the private key in {file} (mode \
                 {mode:03o}); use `chmod 600`"
            ))
        });
        warnings.collect()
    }
}

/// What is wrong with a folder in which private keys are stored. A folder that does not exist is
/// created later, in the first folder above it that exists.
fn store_problem(store: &Path) -> Option<String> {
    use nix::unistd::{AccessFlags, access};
    let Some(there) = store.ancestors().find(|folder| folder.exists()) else {
        return Some("cannot be created".to_owned());
    };
    if !there.is_dir() {
        return Some(format!("cannot be used, because {} is no folder", there.display()));
    }
    if access(there, AccessFlags::W_OK | AccessFlags::X_OK).is_err() {
        return Some(format!("cannot be written, because {} cannot", there.display()));
    }
    let mode = open_mode(there).filter(|_| there == store)?;
    Some(format!("can be read by users other than the owner (mode {mode:03o}); use `chmod 700`"))
}

/// The permission bits of a file, if its group or others may read it.
fn open_mode(file: &Path) -> Option<u32> {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(file).ok()?.permissions().mode() & 0o777;
    (mode & 0o044 != 0).then_some(mode)
}

/// Whether any request can match both routes. Subprotocols are ignored: a client can offer those of
/// both routes.
fn overlap(a: &Route, b: &Route) -> bool {
    let listeners = a.listeners.is_empty()
        || b.listeners.is_empty()
        || a.listeners.iter().any(|it| b.listeners.contains(it));
    let any = [Condition::default()];
    let conditions = |route: &Route| match route.when.as_slice() {
        [] => any.to_vec(),
        when => when.to_vec(),
    };
    let (a, b) = (conditions(a), conditions(b));
    let meet = |a: &Condition, b: &Condition| {
        let fields = [(&a.path, &b.path), (&a.authority, &b.authority), (&a.scheme, &b.scheme)];
        fields.into_iter().all(|(a, b)| a.is_empty() || b.is_empty() || a.overlaps(b))
    };
    listeners && a.iter().any(|a| b.iter().any(|b| meet(a, b)))
}

/// Whether `a` certainly matches every request that `b` matches.
fn covers(a: &Route, b: &Route) -> bool {
    let same = |a: &Pattern, b: &Pattern| a.is_empty() || a.as_str() == "*" || a == b;
    let covers = |a: &Condition, b: &Condition| {
        same(&a.path, &b.path)
            && same(&a.authority, &b.authority)
            && same(&a.scheme, &b.scheme)
            && same(&a.query, &b.query)
            && same(&a.protocol, &b.protocol)
    };
    let listeners = a.listeners.is_empty() || a.listeners == b.listeners;
    let conditions = a.when.is_empty()
        || !b.when.is_empty() && b.when.iter().all(|b| a.when.iter().any(|a| covers(a, b)));
    listeners && conditions
}

#[cfg(test)]
mod tests {
    use super::super::FileFormat;
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const GUARD: &str = "[[apps]]\nid = '1'\nkey = 'k'\nsecret = 's'\n[[guards]]\nname = 'g'\n\
                         keys = [{ secret = '0123456789abcdef0123456789abcdef' }]\n";

    fn risks(text: &str) -> Vec<String> {
        let config = Config::parse(&format!("{GUARD}{text}"), FileFormat::Toml, "test").unwrap();
        config.risks(Path::new("/nowhere"))
    }

    fn route(path: &str, more: &str) -> String {
        format!("[[routes]]\nwhen = [{{ path = '{path}' }}]\nendpoint = 'echo'\n{more}\n")
    }

    #[test]
    fn check_warns_of_an_open_route_below_a_guarded_one() {
        let closed = |path| route(path, "guarded = { g = [] }");
        let reject =
            |path| format!("[[routes]]\nwhen = [{{ path = '{path}' }}]\nendpoint = 'reject'\n");
        let any = "[[routes]]\nendpoint = 'echo'\n";
        for (routes, is_open) in [
            (closed("/a"), false),
            (closed("/a") + &route("/b", ""), false),
            (closed("/a") + &closed("/a"), false),
            (closed("/a") + &route("/a", ""), true),
            (closed("/admin/*") + &route("/*", ""), true),
            (closed("/admin/*") + &route("*/x", ""), true),
            (closed("/admin/*") + any, true),
            (any.to_owned() + &closed("/admin/*"), false),
            (closed("/admin/*") + &reject("/admin/*") + any, false),
            (closed("/admin/*") + &reject("/admin/x") + any, true),
            (closed("/a") + &route("/a", "listeners = ['none']"), true),
        ] {
            let listeners = "listeners = [{ address = '127.0.0.1:0' }, { address = '127.0.0.1:0', \
                             name = 'none' }]\n";
            let config = format!("{listeners}{GUARD}{routes}");
            let config = Config::parse(&config, FileFormat::Toml, "test").unwrap();
            let found = config.risks(Path::new("/nowhere"));
            assert_eq!(!found.is_empty(), is_open, "{routes}: {found:?}");
        }
        let found = risks(&(closed("/a") + &route("/b", "") + any));
        assert!(found[0].starts_with("routes[0].guarded: routes[2] takes"), "{found:?}");
    }

    #[test]
    fn check_warns_of_cookies_that_any_origin_can_use() {
        let cookies = "[guards.credentials]\ncookies = { t = '{credentials}' }\n";
        let route = route("/a", "guarded = { g = [] }");
        let of = |listener: &str, cookies: &str| {
            let listener = format!("listeners = [{{ address = '127.0.0.1:0'{listener} }}]\n");
            let text = format!("{listener}{GUARD}{cookies}{route}");
            let config = Config::parse(&text, FileFormat::Toml, "test").unwrap();
            config.risks(Path::new("/nowhere")).len()
        };
        assert_eq!(of("", cookies), 1);
        assert_eq!(of("", ""), 0);
        assert_eq!(of(", allowed_origins = ['same-origin']", cookies), 0);
    }

    #[test]
    fn check_warns_of_key_files_that_others_can_read() {
        let name = format!("polycast-mode-{}", std::process::id());
        let file = std::env::temp_dir().join(name);
        std::fs::write(&file, "").unwrap();
        for (mode, is_open) in [(0o600, false), (0o400, false), (0o640, true), (0o604, true)] {
            std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)).unwrap();
            assert_eq!(open_mode(&file), is_open.then_some(mode), "{mode:o}");
        }
        std::fs::remove_file(&file).unwrap();
        assert_eq!(open_mode(&file), None);
    }

    #[cfg(feature = "cluster-nats")]
    #[test]
    fn check_warns_of_secrets_for_the_engine_that_others_can_read() {
        let folder = std::env::temp_dir().join(format!("polycast-engine-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        for name in ["key", "creds", "nkey", "cert"] {
            std::fs::write(folder.join(name), "").unwrap();
        }
        let of = |more: &str| {
            let text = format!("{GUARD}[cluster]\nengine = ['tls://a:1']\n{more}");
            Config::parse(&text, FileFormat::Toml, "test").unwrap().risks(&folder)
        };
        for (mode, count) in [(0o600, 0), (0o640, 1)] {
            for (key, more) in [
                ("key_file", "cert_file = 'cert'\nkey_file = 'key'"),
                ("creds_file", "creds_file = 'creds'"),
                ("nkey_file", "nkey_file = 'nkey'"),
            ] {
                let file = folder.join(key.trim_end_matches("_file"));
                std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)).unwrap();
                let warnings = of(more);
                assert_eq!(warnings.len(), count, "{warnings:?}");
                let is_named = |it: &String| it.starts_with(&format!("cluster.{key}: users other"));
                assert!(warnings.iter().all(is_named), "{warnings:?}");
            }
        }
        assert_eq!(of(""), [""; 0]);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    /// A configuration with these listeners; `ACME` is an ACME section whose store is `/nowhere/s`.
    fn of_listeners(text: &str) -> Config {
        let acme = "accept_terms = true, domains = ['a.test'], store = 's'";
        let text = format!("listeners = [{}]\n{GUARD}", text.replace("ACME", acme));
        Config::parse(&text, FileFormat::Toml, "test").unwrap()
    }

    #[cfg(feature = "acme")]
    #[test]
    fn check_warns_of_acme_challenges_that_cannot_reach_a_listener() {
        let at = |port: u16, tls: &str| format!("{{ address = '127.0.0.1:{port}'{tls} }}");
        let alpn = ", tls = { acme = { ACME } }";
        let http = ", tls = { acme = { ACME, challenge = 'http-01' } }";
        for (listeners, warning) in [
            (at(443, alpn), None),
            (at(8443, alpn), Some("connects to port 443 of each domain; this")),
            (format!("{}, {}", at(80, ""), at(443, http)), None),
            (
                format!("{}, {}", at(443, http), at(8080, "")),
                Some("port 80 of each domain; no listener"),
            ),
            (at(80, http), Some("port 80 of each domain, and there is no")),
        ] {
            let config = of_listeners(&listeners);
            let found = config.acme(&std::env::temp_dir());
            assert_eq!(found.len(), usize::from(warning.is_some()), "{listeners}: {found:?}");
            let warning = warning.unwrap_or_default();
            assert!(found.iter().all(|it| it.contains(warning)), "{found:?}");
        }
    }

    #[test]
    fn check_warns_of_a_store_that_cannot_be_used() {
        let name = format!("polycast-risks-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let store = folder.join("store");
        assert_eq!(store_problem(&store), None, "it can be created");
        std::fs::write(&store, "").unwrap();
        assert!(store_problem(&store).is_some_and(|it| it.contains("is no folder")));
        assert!(store_problem(&store.join("below")).is_some_and(|it| it.contains("is no folder")));
        std::fs::remove_file(&store).unwrap();
        std::fs::create_dir(&store).unwrap();
        for (mode, is_open) in [(0o700, false), (0o750, true), (0o704, true)] {
            std::fs::set_permissions(&store, PermissionsExt::from_mode(mode)).unwrap();
            assert_eq!(store_problem(&store).is_some(), is_open, "{mode:o}");
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
