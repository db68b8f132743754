//! The text format of Prometheus, version 0.0.4.

use std::fmt::{Display, Write};

/// The type of a metric.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// The text that is being written.
pub(super) struct Exposition(pub(super) String);

impl Exposition {
    /// Writes the help and type lines of a metric family and returns its full name.
    pub(super) fn family(&mut self, name: &str, kind: Kind, help: &str) -> String {
        self.plain_family(&format!("polycast_{name}"), kind, help)
    }

    /// As [`Exposition::family`], without the prefix `polycast_`.
    pub(super) fn plain_family(&mut self, name: &str, kind: Kind, help: &str) -> String {
        let (end, kind) = match kind {
            Kind::Counter => ("_total", "counter"),
            Kind::Gauge => ("", "gauge"),
            Kind::Histogram => ("", "histogram"),
        };
        let name = format!("{name}{end}");
        let help = help.trim().replace('\\', "\\\\").replace('\n', "\\n");
        // Writing to a string cannot fail.
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        name
    }

    pub(super) fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (at, (label, text)) in labels.iter().enumerate() {
            self.0.push(if at == 0 { '{' } else { ',' });
            let _ = write!(self.0, "{label}=\"");
            for c in text.chars() {
                match c {
                    '\\' => self.0.push_str("\\\\"),
                    '"' => self.0.push_str("\\\""),
                    '\n' => self.0.push_str("\\n"),
                    c => self.0.push(c),
                }
            }
            self.0.push('"');
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }
}
