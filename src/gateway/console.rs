//! The console page: static files of this folder, and the data that the page needs from the server:
//! `settings`, and the `nodes` of its cluster.
//!
//! The page is an ordinary client. It signs its own requests: in the demo with the demo's public
//! secret, elsewhere with a secret that its user types in. So the console grants no access that an
//! application's own API does not.

mod nodes;

use super::{Page, Visit, access};
use crate::codec::json::push_string;
use crate::config::{AppConfig, AppDialect, Config, EndpointKind};
use crate::http::Request;

/// Answers a request for the console. `None` if the console is switched off, or has no such page.
pub(super) fn answer(request: &Request<'_>, visit: &Visit<'_>) -> Option<Page> {
    let (config, token) = (visit.config, &visit.config.console.token);
    let is_open = config.is_demo && token.expose().is_empty();
    if !is_open && token.expose().is_empty() {
        return None;
    }
    let name = request.path().rsplit('/').next().unwrap_or_default();
    // These files hold nothing secret, and a browser requests them without the token.
    if let Some((_, content_type, text)) = FILES.iter().find(|(file, ..)| *file == name) {
        return Some(page(content_type, text.as_bytes().into()));
    }
    let is_page = matches!(name, "" | "console");
    if !is_page && !matches!(name, "settings" | "nodes") {
        return None;
    }
    if !is_open && !access::presents(request, token) {
        let words = "this page needs the token of the console: /?token=...\n";
        return Some(Page { fields: CHALLENGE, ..Page::text(401, words) });
    }
    Some(match name {
        "settings" => page("application/json", settings(config).into()),
        "nodes" => page("application/json", nodes::nodes(visit.cluster, visit.now_ms).into()),
        _ => page("text/html; charset=utf-8", PAGE.as_bytes().into()),
    })
}

fn page(content_type: &'static str, body: std::borrow::Cow<'static, [u8]>) -> Page {
    Page { status: 200, content_type, fields: FIELDS, body }
}

/// The JSON that the page loads first: the paths and the applications that it can connect to. Only
/// the demo's secret, which is public, is in it.
fn settings(config: &Config) -> Vec<u8> {
    let mut out = format!(r#"{{"demo":{},"version":"#, config.is_demo).into_bytes();
    push_string(&mut out, env!("CARGO_PKG_VERSION"));
    out.extend_from_slice(format!(r#","cluster":{}"#, config.cluster.is_some()).as_bytes());
    out.extend_from_slice(br#","prefix":"#);
    push_string(&mut out, &config.pusher.path_prefix);
    out.extend_from_slice(br#","zenith":"#);
    match zenith_path(config) {
        None => out.extend_from_slice(b"null"),
        Some(path) => {
            out.extend_from_slice(br#"{"path":"#);
            push_string(&mut out, path);
            out.push(b'}');
        }
    }
    out.extend_from_slice(br#","apps":["#);
    // The page does not implement Broadcastt's protocol.
    let is_enabled_pusher = |app: &&AppConfig| app.enabled && app.dialect == AppDialect::Pusher;
    for (at, app) in config.apps.iter().filter(is_enabled_pusher).enumerate() {
        if at > 0 {
            out.push(b',');
        }
        let secret = if config.is_demo { app.secret.expose() } else { "" };
        let members = [("id", &*app.id), ("key", &*app.key), ("name", &*app.name)];
        out.push(b'{');
        for (name, text) in members {
            push_string(&mut out, name);
            out.push(b':');
            push_string(&mut out, text);
            out.push(b',');
        }
        out.extend_from_slice(br#""secret":"#);
        push_string(&mut out, secret);
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
    out
}

/// The path of the Zenith endpoint; `None` without such a route. If the route's paths are all
/// patterns, it is the vendor's own path `/Zenith`.
fn zenith_path(config: &Config) -> Option<&str> {
    let route = config.routes.iter().find(|it| it.endpoint == EndpointKind::Zenith)?;
    let mut paths = route.when.iter().map(|it| it.path.as_str());
    let is_plain = |path: &&str| path.starts_with('/') && !path.contains('*');
    Some(paths.find(is_plain).unwrap_or("/Zenith"))
}

const PAGE: &str = include_str!("console/page.html");
/// The static files: name, media type, text.
const FILES: [(&str, &str, &str); 9] = [
    ("page.css", "text/css; charset=utf-8", include_str!("console/page.css")),
    ("page.js", JAVASCRIPT, include_str!("console/page.js")),
    ("details.js", JAVASCRIPT, include_str!("console/details.js")),
    ("client.js", JAVASCRIPT, include_str!("console/client.js")),
    ("nodes.js", JAVASCRIPT, include_str!("console/nodes.js")),
    ("sign.js", JAVASCRIPT, include_str!("console/sign.js")),
    ("zenith.js", JAVASCRIPT, include_str!("console/zenith.js")),
    ("formats.js", JAVASCRIPT, include_str!("console/formats.js")),
    ("icon.svg", "image/svg+xml", include_str!("console/icon.svg")),
];
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const CHALLENGE: &[(&str, &str)] = &[("WWW-Authenticate", "Bearer"), ("Cache-Control", "no-store")];
/// The header fields of every console page. The page loads and runs only its own files, no site may
/// frame it, and its URL, which may hold the token, is not sent as a referrer.
const FIELDS: &[(&str, &str)] = &[
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
         connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'; trusted-types 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cache-Control", "no-store"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    #[test]
    fn console_reveals_only_the_secret_of_the_demo() {
        let mut config = Config::demo();
        let text = |config: &Config| String::from_utf8(settings(config)).unwrap();
        let app = |secret| {
            format!(r#"[{{"id":"1","key":"app-key","name":"demo","secret":"{secret}"}}]}}"#)
        };
        assert!(text(&config).starts_with(r#"{"demo":true,"version":"#));
        assert!(text(&config).contains(r#","cluster":false,"prefix":"#));
        assert!(text(&config).ends_with(&app("app-secret")), "{}", text(&config));
        config.is_demo = false;
        config.apps[0].secret = Secret::new("hush");
        assert!(text(&config).ends_with(&app("")), "{}", text(&config));
        config.apps[0].dialect = AppDialect::Broadcastt;
        assert!(text(&config).ends_with(r#""apps":[]}"#));
        (config.apps[0].dialect, config.apps[0].enabled) = (AppDialect::Pusher, false);
        assert!(text(&config).ends_with(r#""apps":[]}"#));
    }

    #[cfg(feature = "zenith")]
    #[test]
    fn console_page_has_the_zenith_path() {
        let page = |more: &str| {
            let text = format!("[zenith]\n{more}");
            let format = crate::config::FileFormat::Toml;
            let config = Config::parse_with(&text, format, "test", &|_| None).unwrap();
            String::from_utf8(settings(&config)).unwrap()
        };
        assert!(String::from_utf8(settings(&Config::demo())).unwrap().contains(r#""zenith":null"#));
        assert!(page("").contains(r#""zenith":{"path":"/Zenith"},"apps":[]"#), "{}", page(""));
        for (path, found) in [("/a/Zenith", "/a/Zenith"), ("/z/*", "/Zenith")] {
            let text =
                page(&format!("[[routes]]\nwhen = [{{ path = '{path}' }}]\nendpoint = 'zenith'"));
            assert!(text.contains(&format!(r#""zenith":{{"path":"{found}"}}"#)), "{text}");
        }
    }

    #[test]
    fn console_page_names_existing_files_only() {
        let linked = PAGE.split(['"', '\'']).filter(|text| text.starts_with("console/"));
        let linked: Vec<_> = linked.collect();
        assert!(linked.len() >= 3, "{linked:?}");
        for file in linked {
            assert!(FILES.iter().any(|(name, ..)| format!("console/{name}") == file), "{file}");
        }
        for (name, _, text) in FILES.iter().chain([&("page.html", "", PAGE)]) {
            for word in ["innerHTML", "outerHTML", "document.write", "eval(", "<style", " style="] {
                assert!(!text.contains(word), "{name}: {word}");
            }
            let outside = ["https://", "http://"].map(|it| text.matches(it).count());
            let allowed = usize::from(text.contains("http://www.w3.org/2000/svg"));
            assert_eq!(outside, [0, allowed], "{name}");
        }
    }
}
