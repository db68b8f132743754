//! Webhooks: channel events become signed requests to the endpoints of applications.

mod debounce;
pub(super) mod endpoints;
pub(super) mod post;
mod queue;
