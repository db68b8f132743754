//! Telemetry: the endpoints of a Prometheus exporter become listeners.

use super::place::YamlPlace;
use crate::config::Listener;
use crate::config::error::Error;
use crate::config::pattern::Pattern;
use crate::config::schema::{Config, EndpointKind, Route};
use std::net::{Ipv4Addr, SocketAddr};

/// Where an exporter's counters are, unless it says so.
const PATH: &str = "/metrics";

pub(super) fn serve(top: &YamlPlace<'_>, config: &mut Config) -> Result<(), Error> {
    config.metrics.zilla = true;
    if let Some(name) = top.word("name")? {
        config.metrics.namespace = name;
    }
    let Some(telemetry) = top.get("telemetry") else { return Ok(()) };
    telemetry.only(&["metrics", "exporters"])?;
    telemetry.texts("metrics")?;
    for exporter in telemetry.below("exporters")? {
        exporter.only(&["type", "options"])?;
        let kind = exporter.need("type")?.text()?;
        if kind != "prometheus" {
            return Err(exporter.wrong(format!("an exporter of type {kind} is not supported")));
        }
        let options = exporter.need("options")?;
        options.only(&["endpoints"])?;
        for endpoint in options.list("endpoints") {
            listen(exporter.name, &endpoint, config)?;
        }
    }
    Ok(())
}

fn listen(exporter: &str, endpoint: &YamlPlace<'_>, config: &mut Config) -> Result<(), Error> {
    endpoint.only(&["scheme", "port", "path"])?;
    let scheme = endpoint.need("scheme")?.text()?;
    if scheme != "http" {
        return Err(endpoint.wrong(format!("the scheme is http, not {scheme}")));
    }
    let port = endpoint.need("port")?;
    let number = port.text()?.parse().map_err(|_| port.wrong("it is no port"))?;
    let path = endpoint.word("path")?.unwrap_or_else(|| PATH.to_owned());
    let (name, address) = (format!("{exporter}.{number}"), (Ipv4Addr::UNSPECIFIED, number));
    let mut route = Route::of(&[], EndpointKind::Metrics);
    route.when.push(crate::config::Condition { path: Pattern::new(path), ..Default::default() });
    route.listeners = vec![name.clone()];
    // Before those of the chains, which do not ask which listener it is.
    config.routes.insert(0, route);
    if !config.listeners.iter().any(|it| it.name == name) {
        let address = SocketAddr::from(address);
        config.listeners.push(Listener { address, name, ..Listener::default() });
    }
    // Who scrapes is seldom on the same machine.
    config.metrics.open = true;
    Ok(())
}
