//! The section `metrics`: the counters for a monitoring system.

use super::text::check_token;
use crate::settings::error::Error;
use crate::settings::secret::Secret;
use crate::settings::section::{Section, section};

section! {
    /// The counters, in the Prometheus text format.
    pub struct Metrics {
        /// The token that a request must present to read the counters, as /metrics?token=... or
        /// `Authorization: Bearer ...`. At least 16 characters. If it is empty, only clients on
        /// this machine may read them that use localhost or a loopback address as the host and do
        /// not forward a request for another client. Behind a proxy on this machine, set a token:
        /// if the proxy adds no header field such as X-Forwarded-For, its own requests cannot be
        /// distinguished from those that it forwards.
        pub token: Secret = Secret::default();
        /// Whether any client may read the counters that can reach a route to them. It has no
        /// effect if there is a token.
        pub open: bool = false;
        /// Whether the WebSocket counters are also given under Zilla's metric names, such as
        /// stream_opens_received_total. Their label `binding` is the listener: the first `ws`
        /// binding of its chain in a Zilla file, else its name, or else its address. With more than
        /// 16 listeners, the counts of all from the 16th on are given as one, under the label of
        /// the 16th.
        pub zilla: bool = false;
        /// The label `namespace` of Zilla's metrics.
        pub namespace: String = "polycast".to_owned(), characters(1..=128);
    }
}

/// Checks the token and the namespace; the keys in errors are relative to the section.
pub(super) fn check(section: &Metrics) -> Result<(), Error> {
    check_token("token", &section.token)?;
    section.check_ranges()
}
