//! Events as log lines in the format of Zilla's exporter of type `stdout`, one line each:
//!
//! ```text
//! example.polycast [28/Nov/2026:15:54:24 +0000] [0000000000000000] BINDING_TLS_TLS_FAILED ...
//! ```
//!
//! A line consists of the namespace and the component, the time in UTC, the trace id, the event's
//! name, and the message. The component is the guard or the catalog of the event, otherwise
//! `polycast`. There are no traces, so the trace id is always 0.

use std::fmt::{self, Write as _};
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::Context;

/// The component of an event without a guard or a catalog.
const NO_COMPONENT: &str = "polycast";
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// A layer of `tracing` that writes each event as one line.
pub(crate) struct EventLines<W> {
    namespace: String,
    writer: W,
}

impl<W> EventLines<W> {
    /// Writes the events of `namespace`, with one write for each event.
    pub(crate) fn new(namespace: &str, writer: W) -> EventLines<W> {
        EventLines { namespace: namespace.to_owned(), writer }
    }
}

impl<S, W> Layer<S> for EventLines<W>
where
    S: Subscriber,
    W: for<'w> MakeWriter<'w> + 'static,
{
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        // An error is ignored here: the writer counts what it cannot write.
        let _ = self.writer.make_writer().write_all(fields.line(&self.namespace, now).as_bytes());
    }
}

/// The fields of one event.
#[derive(Default)]
struct Fields {
    name: String,
    component: String,
    message: String,
    /// All other fields, each with a space in front.
    others: String,
}

impl Fields {
    /// The line of the event, which contains no line break except the one at its end.
    fn line(&self, namespace: &str, unix_s: u64) -> String {
        let Fields { name, component, message, others } = self;
        let component = if component.is_empty() { NO_COMPONENT } else { component };
        let time = time(unix_s);
        let line = format!("{namespace}.{component} [{time}] [{:016x}] {name} {message}", 0);
        let mut out = String::with_capacity(line.len() + others.len() + 1);
        for letter in line.chars().chain(others.chars()) {
            // Escape control characters: parts of the text come from peers, who could forge log
            // lines.
            match letter.is_control() {
                true => out.extend(letter.escape_default()),
                false => out.push(letter),
            }
        }
        out.push('\n');
        out
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "event" => self.name.push_str(value),
            "guard" | "catalog" => self.component.push_str(value),
            _ => self.record_debug(field, &value),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            "event" => write!(self.name, "{value:?}"),
            "guard" | "catalog" => {
                write!(self.component, "{}", format!("{value:?}").trim_matches('"'))
            }
            name => write!(self.others, " {name}={value:?}"),
        };
    }
}

/// Formats a Unix time in seconds as day, month, year and time of day in UTC.
fn time(unix_s: u64) -> String {
    let (days, second) = (unix_s / 86_400, unix_s % 86_400);
    // Years begin in March here, in cycles of 400 years or 146 097 days, counted from 0000-03-01.
    let days = days + 719_468;
    let (cycle, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let from_march = (5 * day + 2) / 153;
    let day = day - (153 * from_march + 2) / 5 + 1;
    let month = (from_march + 2) % 12;
    let year = cycle * 400 + year + u64::from(month < 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let month = MONTHS[month as usize];
    format!("{day:02}/{month}/{year:04}:{hour:02}:{minute:02}:{second:02} +0000")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::sync::{Arc, Mutex};
    use tracing_subscriber::prelude::*;

    #[test]
    fn events_have_their_time_in_utc() {
        for (unix_s, text) in [
            (0, "01/Jan/1970:00:00:00 +0000"),
            (951_782_399, "28/Feb/2000:23:59:59 +0000"),
            (951_782_400, "29/Feb/2000:00:00:00 +0000"),
            (951_868_800, "01/Mar/2000:00:00:00 +0000"),
            (1_709_164_800, "29/Feb/2024:00:00:00 +0000"),
            (1_767_225_599, "31/Dec/2025:23:59:59 +0000"),
            (1_767_225_600, "01/Jan/2026:00:00:00 +0000"),
            (4_107_542_400, "01/Mar/2100:00:00:00 +0000"),
        ] {
            assert_eq!(time(unix_s), text, "{unix_s}");
        }
    }

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(line);
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn events_are_lines_in_the_form_of_zilla() {
        let lines = Lines::default();
        let writer = lines.clone();
        let layer = EventLines::new("example", move || writer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let guard = String::from("my_jwt");
            tracing::debug!(event = "GUARD_X", guard, count = 2, "it is not \"believed\"");
            tracing::warn!(event = "NAMES", name = "a\nb", error = %"c\r\nd", "not found");
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        let parts: Vec<&str> = lines[0].splitn(3, ['[', ']']).collect();
        assert_eq!(parts[0], "example.my_jwt ");
        assert_eq!(parts[1].len(), "28/Nov/2026:15:54:24 +0000".len());
        let rest = " [0000000000000000] GUARD_X it is not \"believed\" count=2";
        assert_eq!(parts[2], rest);
        assert!(lines[1].starts_with("example.polycast ["), "{text}");
        let rest = r#"NAMES not found name="a\nb" error=c\r\nd"#;
        assert!(lines[1].ends_with(rest), "{text}");
    }
}
