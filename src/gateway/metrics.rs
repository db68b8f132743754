//! The counters in the text format of Prometheus, version 0.0.4.
//!
//! A metric's name is `polycast_` and the counter's name, and ends in `_total` if its type is
//! counter. A value is the sum over all cores and the control thread, except for the counters in
//! `BY_CORE`, which have a sample for each core. The optional metrics of streams have Zilla's
//! names.

mod exposition;
mod streams;
mod turns;

use super::access;
use super::page::{NO_STORE, Page, Visit};
use crate::config::Config;
use crate::http::Request;
use crate::stats::Counters;
use crate::tls::IssuedCertificates;
use exposition::{Exposition, Kind};
use std::sync::Arc;

/// Counters that can decrease, exported as gauges.
const GAUGES: [&str; 28] = [
    "acme_domains",
    "acme_missing",
    "cluster_up",
    "cluster_position",
    "cluster_lag_ms",
    "cluster_held_bytes",
    "cluster_log_bytes",
    "cluster_keys",
    "cluster_joins_waiting",
    "cluster_nodes",
    "cluster_reserved",
    "connections",
    "count_reads_waiting",
    "event_streams",
    "upstreams",
    "channels",
    "subscriptions",
    "kept_bytes",
    "history_events",
    "history_bytes",
    "queued_bytes",
    "inflated_bytes",
    "memory_bytes",
    "memory_limit_bytes",
    "memory_input_bytes",
    "memory_frames_bytes",
    "idempotency_keys",
    "last_epoch",
];
/// Counters with one sample for each core: a channel with subscribers on two cores is counted by
/// both, and a sum would hide that one core does all the work.
const BY_CORE: [&str; 4] = ["channels", "turns", "wakes_sent", "mail_waited"];

pub(super) fn answer(request: &Request<'_>, visit: &Visit<'_>) -> Page {
    let token = &visit.config.metrics.token;
    let is_open = visit.config.metrics.open || access::is_local(request, visit.peer);
    if token.expose().is_empty() && !is_open {
        return Page::text(
            403,
            "metrics are for this machine, under a name of its own, unless metrics.token is set\n",
        );
    }
    if !token.expose().is_empty() && !access::presents(request, token) {
        return Page::text(403, "the token of metrics is missing or wrong\n");
    }
    let apps = visit.config.apps.iter().enumerate();
    let counts = |number| AppCounts {
        connections: (visit.connections)(number) as u64,
        dropped_hooks: (visit.dropped_hooks)(number),
    };
    let apps: Vec<_> = apps.map(|(number, app)| (&*app.id, counts(number))).collect();
    let mut text = text(visit.counters, visit.control, &apps, visit.config);
    text += &expiries(visit.issued);
    Page {
        status: 200,
        content_type: "text/plain; version=0.0.4; charset=utf-8",
        fields: NO_STORE,
        body: text.into_bytes().into(),
    }
}

/// The values of one application.
#[derive(Clone, Copy, Default)]
struct AppCounts {
    connections: u64,
    dropped_hooks: u64,
}

/// The ends of the certificates that are ordered by ACME; empty if there are none.
fn expiries(issued: &IssuedCertificates) -> String {
    let expiries = issued.expiries();
    if expiries.is_empty() {
        return String::new();
    }
    let mut out = Exposition(String::new());
    let help = "The last second of the validity of the certificate of an ACME domain, since 1970; \
                0 if there is no certificate yet.";
    let name = out.family("acme_certificate_expiry_timestamp_seconds", Kind::Gauge, help);
    for (domain, until_s) in &expiries {
        let until_s = until_s.and_then(|until_s| u64::try_from(until_s).ok()).unwrap_or(0);
        out.sample(&name, &[("domain", domain)], until_s);
    }
    out.0
}

fn text(
    cores: &[Arc<Counters>],
    control: &Counters,
    apps: &[(&str, AppCounts)],
    config: &Config,
) -> String {
    let mut out = Exposition(String::with_capacity(8 * 1024));
    let name = out.family(
        "build_info",
        Kind::Gauge,
        "The version of the server, in the label; the value is always 1.",
    );
    out.sample(&name, &[("version", env!("CARGO_PKG_VERSION"))], 1);
    let lists: Vec<_> = cores.iter().map(|counters| counters.list()).collect();
    for (at, (counter, outside)) in control.list().into_iter().enumerate() {
        let kind = if GAUGES.contains(&counter) { Kind::Gauge } else { Kind::Counter };
        let name = out.family(counter, kind, Counters::HELP[at]);
        if BY_CORE.contains(&counter) {
            for (core, list) in lists.iter().enumerate() {
                out.sample(&name, &[("core", &core.to_string())], list[at].1);
            }
        } else {
            // One core may count the opening and another the end of the same thing, so the sum
            // wraps.
            let sum = lists.iter().fold(outside, |sum, list| sum.wrapping_add(list[at].1));
            out.sample(&name, &[], sum);
        }
    }
    let help = "Connections open now, by core.";
    let name = out.family("core_connections", Kind::Gauge, help);
    for (core, counters) in cores.iter().enumerate() {
        out.sample(&name, &[("core", &core.to_string())], counters.connections.get());
    }
    let help = "Connections open now, by application.";
    let name = out.family("app_connections", Kind::Gauge, help);
    for (id, counts) in apps {
        out.sample(&name, &[("app", id)], counts.connections);
    }
    let help = "Webhook events dropped, by application.";
    let name = out.family("app_hooks_dropped", Kind::Counter, help);
    for (id, counts) in apps {
        out.sample(&name, &[("app", id)], counts.dropped_hooks);
    }
    turns::write(&mut out, cores, control);
    if config.metrics.zilla {
        streams::write(&mut out, config, cores);
    }
    out.0
}

#[cfg(test)]
mod tests;
