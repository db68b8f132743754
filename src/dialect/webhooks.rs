//! The format of a vendor's webhooks.

use super::channels::signature::AppKey;
use crate::config::{AppConfig, HookEvent};
use crate::hub::{ChannelEvent, EventMask};

/// A channel event in a vendor's format, with its type.
pub type EventText = (HookEvent, Vec<u8>);
/// Header fields that sign a body.
pub type SignatureFields = [(&'static str, String); 2];

/// How channel events are sent to the webhooks of an application.
#[derive(Debug)]
pub struct WebhookFormat {
    /// The channel events that an application's webhooks need.
    pub mask: fn(&AppConfig) -> EventMask,
    /// A channel event in the vendor's format, with its type; `None` if the vendor has no such
    /// event.
    pub event: fn(&ChannelEvent) -> Option<EventText>,
    /// The body of a request with these events. The time is in milliseconds since 1970.
    pub body: fn(u64, &[&[u8]]) -> Vec<u8>,
    /// The header fields that sign a body, with their names in lower case.
    pub sign: fn(&AppKey, &[u8]) -> SignatureFields,
}
