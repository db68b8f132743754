//! WebSocket metrics under the names that Zilla uses for its `ws` binding: streams from the client
//! (`received`) and to it (`sent`), labelled by namespace and binding.
//! <https://docs.aklivity.io/zilla/latest/reference/config/telemetry/metrics/stream.html>

use super::exposition::{Exposition, Kind};
use crate::config::{Config, Listener};
use crate::stats::{Counters, Streams};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Reads the value of one metric in one direction.
type Of = fn(&Streams) -> u64;

/// Name, type, help text, and the values of the directions `received` and `sent`.
const FAMILIES: [(&str, Kind, &str, [Of; 2]); 5] = [
    ("stream_active", Kind::Gauge, "WebSockets open now.", [active, active]),
    ("stream_opens", Kind::Counter, "WebSockets opened.", [opened, opened]),
    (
        "stream_data",
        Kind::Counter,
        "Bytes of WebSocket frames, after compression.",
        [|it| it.received_bytes.get(), |it| it.sent_bytes.get()],
    ),
    (
        "stream_errors",
        Kind::Counter,
        "WebSockets that ended without a close frame in this direction.",
        [|it| ended(it, it.closes_received.get()), |it| ended(it, it.closes_sent.get())],
    ),
    (
        "stream_closes",
        Kind::Counter,
        "WebSockets that ended with a close frame in this direction.",
        [|it| it.closes_received.get(), |it| it.closes_sent.get()],
    ),
];

fn opened(streams: &Streams) -> u64 {
    streams.opened.get()
}

/// The same core counts both, but the two counters are not read at the same moment.
fn active(streams: &Streams) -> u64 {
    let ended = streams.ended.get();
    streams.opened.get().saturating_sub(ended)
}

fn ended(streams: &Streams, closed: u64) -> u64 {
    streams.ended.get().saturating_sub(closed)
}

/// The label `binding`: the binding of Zilla's configuration file, or else the listener's name or
/// address.
fn label(listener: &Listener) -> String {
    match (listener.binding.as_str(), listener.name.as_str()) {
        ("", "") => listener.address.to_string(),
        ("", name) => name.to_owned(),
        (binding, _) => binding.to_owned(),
    }
}

pub(super) fn write(out: &mut Exposition, config: &Config, cores: &[Arc<Counters>]) {
    // Several listeners may belong to one binding. Listeners beyond `Streams::LISTENERS` share the
    // counters of the last one.
    let mut bindings: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (number, listener) in config.listeners.iter().enumerate().take(Streams::LISTENERS) {
        bindings.entry(label(listener)).or_default().push(number);
    }
    let namespace = config.metrics.namespace.as_str();
    for (family, kind, help, directions) in FAMILIES {
        for (direction, of) in ["received", "sent"].into_iter().zip(directions) {
            let name = out.plain_family(&format!("{family}_{direction}"), kind, help);
            for (binding, listeners) in &bindings {
                let cores = cores.iter();
                let each =
                    cores.flat_map(|it| listeners.iter().map(|at| of(it.streams(*at as u16))));
                let labels = [("namespace", namespace), ("binding", binding.as_str())];
                out.sample(&name, &labels, each.sum::<u64>());
            }
        }
    }
}
