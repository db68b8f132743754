//! The pages of endpoints without a dialect: what they are made from, and what they are.

use crate::config::Config;
use crate::runtime::ClusterStatus;
use crate::stats::Counters;
use crate::tls::IssuedCertificates;
use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

/// The header field of pages that must not be cached.
pub(super) const NO_STORE: &[(&str, &str)] = &[("Cache-Control", "no-store")];

/// The input of [`super::page`], beside the request.
#[derive(Clone, Copy)]
pub struct Visit<'a> {
    /// The client's address.
    pub peer: IpAddr,
    /// The configuration.
    pub config: &'a Config,
    /// The counters of each core.
    pub counters: &'a [Arc<Counters>],
    /// The counters of the control thread.
    pub control: &'a Counters,
    /// Returns the number of open connections of the application with this number.
    pub connections: &'a dyn Fn(usize) -> usize,
    /// Returns how many webhook events of the application with this number were dropped.
    pub dropped_hooks: &'a dyn Fn(usize) -> u64,
    /// The certificates that are ordered by ACME.
    pub issued: &'a IssuedCertificates,
    /// What the process knows of its cluster.
    pub cluster: &'a ClusterStatus,
    /// Whether the server is about to drain, or drains already.
    pub leaving: bool,
    /// The time in milliseconds, on the monotonic clock that all threads share.
    pub now_ms: u64,
}

/// The response to an HTTP request that is not an upgrade.
#[derive(Debug)]
pub struct Page {
    /// The HTTP status code.
    pub status: u16,
    /// The media type of the body, for `Content-Type`.
    pub content_type: &'static str,
    /// Further header fields, as names and values.
    pub fields: &'static [(&'static str, &'static str)],
    /// The body.
    pub body: Cow<'static, [u8]>,
}

impl Page {
    /// A plain-text page that must not be cached.
    pub(super) fn text(status: u16, words: &'static str) -> Page {
        Page {
            status,
            content_type: "text/plain; charset=utf-8",
            fields: NO_STORE,
            body: Cow::Borrowed(words.as_bytes()),
        }
    }
}
