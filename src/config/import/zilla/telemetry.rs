//! Zilla telemetry: the endpoints of Prometheus exporters become listeners, and an exporter of type
//! stdout enables events on standard output.

use super::place::YamlPlace;
use crate::config::Listener;
use crate::config::root::Config;
use crate::config::route::{EndpointKind, Route};
use crate::settings::error::Error;
use crate::settings::pattern::Pattern;
use std::net::{Ipv4Addr, SocketAddr};

/// The default path of a Prometheus endpoint.
const PATH: &str = "/metrics";

/// The supported exporter types.
const KINDS: &str = "stdout, prometheus, otlp";

/// Applies the telemetry settings of the Zilla file named `file`.
pub(super) fn serve(top: &YamlPlace<'_>, file: &str, config: &mut Config) -> Result<(), Error> {
    config.metrics.zilla = true;
    if let Some(name) = top.word("name")? {
        config.metrics.namespace = name;
    }
    let Some(telemetry) = top.get("telemetry") else { return Ok(()) };
    telemetry.only(&["metrics", "exporters"])?;
    telemetry.texts("metrics")?;
    for exporter in telemetry.below("exporters")? {
        match exporter.need("type")?.text()?.as_str() {
            "stdout" => {
                exporter.only(&["type"])?;
                config.log.events_to_stdout = true;
            }
            "prometheus" => {
                exporter.only(&["type", "options"])?;
                let options = exporter.need("options")?;
                options.only(&["endpoints"])?;
                for endpoint in options.list("endpoints") {
                    listen(exporter.name, &endpoint, config)?;
                }
            }
            "otlp" => {
                check_otlp(&exporter)?;
                let problem = "an exporter of type otlp has no effect, because the server does not \
                               send telemetry; use an exporter of type prometheus for metrics, and \
                               one of type stdout for events";
                config.warnings.push(exporter.wrong(problem).named(file).to_string());
            }
            kind => {
                let problem =
                    format!("an exporter of type {kind} is not supported; supported: {KINDS}");
                return Err(exporter.wrong(problem));
            }
        }
    }
    Ok(())
}

/// Checks an otlp exporter, which has no effect, so that mistakes in it are still reported.
fn check_otlp(exporter: &YamlPlace<'_>) -> Result<(), Error> {
    exporter.only(&["type", "vault", "options"])?;
    let options = exporter.need("options")?;
    options.only(&["interval", "signals", "endpoint", "tls", "credentials"])?;
    options.number("interval")?;
    for signal in options.list("signals") {
        if !matches!(signal.text()?.as_str(), "metrics" | "logs") {
            return Err(signal.wrong("a signal must be metrics or logs"));
        }
    }
    let endpoint = options.need("endpoint")?;
    endpoint.only(&["protocol", "location", "overrides"])?;
    if let Some(protocol) = endpoint.get("protocol")
        && protocol.text()? != "http"
    {
        return Err(protocol.wrong("the protocol must be http"));
    }
    let location = endpoint.need("location")?;
    match location.text()?.starts_with("http://") || location.text()?.starts_with("https://") {
        true => Ok(()),
        false => Err(location.wrong("the location must begin with http:// or https://")),
    }
}

fn listen(exporter: &str, endpoint: &YamlPlace<'_>, config: &mut Config) -> Result<(), Error> {
    endpoint.only(&["scheme", "port", "path"])?;
    let scheme = endpoint.need("scheme")?.text()?;
    if scheme != "http" {
        return Err(endpoint.wrong(format!("the scheme must be http, not {scheme}")));
    }
    let port = endpoint.need("port")?;
    let number = port.text()?.parse().map_err(|_| port.wrong("expected a port number"))?;
    let path = endpoint.word("path")?.unwrap_or_else(|| PATH.to_owned());
    let (name, address) = (format!("{exporter}.{number}"), (Ipv4Addr::UNSPECIFIED, number));
    let mut route = Route::of(&[], EndpointKind::Metrics);
    route.when.push(crate::config::Condition { path: Pattern::new(path), ..Default::default() });
    route.listeners = vec![name.clone()];
    // Inserted before the routes of the chains.
    config.routes.insert(0, route);
    if !config.listeners.iter().any(|it| it.name == name) {
        let address = SocketAddr::from(address).into();
        config.listeners.push(Listener { address, name, ..Listener::default() });
    }
    // A Prometheus server usually runs on another machine.
    config.metrics.open = true;
    Ok(())
}
