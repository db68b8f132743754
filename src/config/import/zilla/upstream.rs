//! The client chain of a `ws` server: ws, http, optionally tls, tcp.

use super::bindings::{self, Bindings};
use super::place::YamlPlace;
use super::vaults;
use crate::config::proxy::{Proxy, ProxyTls, Upstream};
use crate::settings::error::Error;
use crate::settings::secret::Secret;

/// The upstream servers of a binding of type ws, kind client.
pub(super) fn read(bindings: &Bindings<'_>, ws: &YamlPlace<'_>) -> Result<Proxy, Error> {
    ws.only(&["type", "kind", "telemetry", "options", "exit"])?;
    if let Some(options) = ws.get("options") {
        // The defaults apply only to requests that are not WebSockets, which cannot come from a ws
        // server.
        options.only(&["defaults"])?;
    }
    let next = |from: &YamlPlace<'_>, types: &[&str]| {
        bindings.exit(from, &from.need("exit")?, "client", types)
    };
    let http = next(ws, &["http"])?;
    http.only(&["type", "kind", "telemetry", "options", "exit"])?;
    let mut proxy = Proxy::default();
    if let Some(options) = http.get("options") {
        options.only(&["versions", "overrides"])?;
        overrides(&options, &mut proxy)?;
    }
    let mut last = next(&http, &["tls", "tcp"])?;
    let secure = last.need("type")?.text()? == "tls";
    if secure {
        last.only(&["type", "kind", "telemetry", "vault", "options", "exit"])?;
        proxy.tls = vaults::client(&bindings.top, &last)?;
        last = next(&last, &["tcp"])?;
    }
    last.only(&["type", "kind", "telemetry", "options"])?;
    let options = last.need("options")?;
    options.only(&["host", "port"])?;
    options.need("host")?;
    let ports = bindings::ports(&options)?;
    for place in options.list("host") {
        let host = place.text()?;
        for port in &ports {
            let scheme = if secure { "wss" } else { "ws" };
            let bracketed = if host.contains(':') { format!("[{host}]") } else { host.clone() };
            let upstream = Upstream::new(&format!("{scheme}://{bracketed}:{port}"));
            let wrong = || place.wrong(format!("`{host}:{port}` is not a valid host and port"));
            proxy
                .upstreams
                .push(upstream.filter(|it| it.target.expose().is_empty()).ok_or_else(wrong)?);
        }
    }
    if !secure {
        proxy.tls = ProxyTls::default();
    }
    Ok(proxy)
}

/// Applies the http overrides: header fields that every request sets. `:authority` becomes `Host`.
fn overrides(options: &YamlPlace<'_>, proxy: &mut Proxy) -> Result<(), Error> {
    for field in options.below("overrides")? {
        let name = match field.name {
            ":authority" => "Host",
            name if name.starts_with(':') => {
                return Err(field.wrong("only `:authority` and header fields can be overridden"));
            }
            name => name,
        };
        proxy.pass_headers.retain(|it| !it.eq_ignore_ascii_case(name));
        proxy.set_headers.insert(name.to_owned(), Secret::new(field.text()?));
    }
    Ok(())
}
