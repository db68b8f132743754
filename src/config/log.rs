//! The section `log`: logging to standard error.

use serde::Deserialize;
use tracing_subscriber::EnvFilter;

use super::text::shape;
use crate::settings::error::Error;
use crate::settings::section::{section, words};

words!(LogFormat);

section! {
    /// Logging to standard error.
    pub struct Log {
        /// Log level: off, error, warn, info, debug, trace, or filter directives separated by
        /// commas: "warn,polycast=debug". The field `event` of a line has Zilla's event names:
        /// GUARD_JWT_AUTHORIZATION_FAILED, MODEL_*_VALIDATION_FAILED, BINDING_TLS_HANDSHAKE_FAILED
        /// and BINDING_TLS_TLS_FAILED at debug; BINDING_TCP_DNS_FAILED; and those of
        /// CATALOG_SCHEMA_REGISTRY_* (also for Confluent's and Karapace's registries) and
        /// CATALOG_APICURIO_REGISTRY_*.
        pub level: String = "info".to_owned();
        /// Format of log lines: "text", or "json" with one object per line.
        pub format: LogFormat = LogFormat::default();
        /// Whether events (lines with the field `event`) are also written to standard output,
        /// whatever the level is, in the format of Zilla's exporter of type stdout: namespace (that
        /// of `[metrics]`) and component, time, trace (always 0), name, and a description.
        pub events_to_stdout: bool = false;
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
        return Err(shape("level", level, accepted));
    }
    Ok(())
}
