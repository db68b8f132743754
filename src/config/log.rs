//! The section `log`: logging to standard error.

use serde::Deserialize;
use tracing_subscriber::EnvFilter;

use super::error::Error;
use super::text::shape;

/// Logging to standard error.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct Log {
    /// Log level or filter directives of `tracing_subscriber::EnvFilter`, such as `info` or
    /// `warn,polycast=debug`. Default: `info`.
    pub level: String,
    /// The format of log lines: text (default) or JSON.
    pub format: LogFormat,
    /// Whether events (log lines with the field `event`) are also written to standard output,
    /// whatever `level` is, in the format of Zilla's exporter of type stdout. Default: false.
    pub events_to_stdout: bool,
}

impl Default for Log {
    fn default() -> Log {
        Log { level: "info".to_owned(), format: LogFormat::default(), events_to_stdout: false }
    }
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Readable text.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Checks the log level. `EnvFilter` would accept a misspelt level as the name of a target and log
/// nothing for it.
pub(super) fn check(log: &Log) -> Result<(), Error> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let level = log.level.as_str();
    let is_plain = |part: &str| !part.contains(['=', '[']);
    let is_level = |part: &str| LEVELS.iter().any(|level| level.eq_ignore_ascii_case(part));
    let misspelt = level.split(',').map(str::trim).any(|part| is_plain(part) && !is_level(part));
    if misspelt || EnvFilter::try_new(level).is_err() {
        let accepted = "off, error, warn, info, debug, trace, or directives separated by commas \
                        such as `warn,polycast=debug`";
        return Err(shape("log.level", level, accepted));
    }
    Ok(())
}
