//! The section `metrics`: the counters for a monitoring system.

use serde::Deserialize;

use super::error::Error;
use super::range::range;
use super::secret::Secret;
use super::text::check_token;

/// The counters in the Prometheus text format.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct Metrics {
    /// The token that a request must present to read the counters; at least 16 characters. Empty
    /// (default): only clients on this machine may read them.
    pub token: Secret,
    /// Whether any client may read the counters if `token` is empty. Default: false.
    pub open: bool,
    /// Whether the counters are also given under Zilla's metric names. Default: false.
    pub zilla: bool,
    /// The value of the label `namespace` of Zilla's metrics. 1 to 128 characters, default
    /// `polycast`.
    pub namespace: String,
}

impl Default for Metrics {
    fn default() -> Metrics {
        let (token, namespace) = (Secret::new(""), "polycast".to_owned());
        Metrics { token, open: false, zilla: false, namespace }
    }
}

/// Checks the token and the namespace.
pub(super) fn check(section: &Metrics) -> Result<(), Error> {
    check_token("metrics.token", &section.token)?;
    let namespace = section.namespace.chars().count() as u64;
    range("metrics.namespace", namespace, 1..=128, " characters")
}
