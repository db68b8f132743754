//! What applies to a topic: its rule, and the back end that serves it.

use super::peer::ZenithPeer;
use crate::codec::json::Scratch;
use crate::codec::value::{DecodeLimits, Value, decode_json};
use crate::config::{self, RetainConfig};
use std::sync::Arc;

/// The rule of a topic.
#[derive(Debug, Default)]
pub(super) struct Rule {
    /// How the topic's picture is kept.
    pub(super) retain: RetainConfig,
    /// Whether a subscription is refused if the topic has no picture.
    pub(super) strict: bool,
    /// Whether a null value removes a member from a merged picture.
    pub(super) null_deletes: bool,
    /// The scope that clients must have; empty if none.
    pub(super) scope: Box<str>,
    /// Whether the topic requires a connected back end.
    pub(super) served: bool,
    /// The configured data for subscribers, if there is one.
    pub(super) data: Option<Arc<Value>>,
    /// The configured reply to calls, if there is one.
    pub(super) reply: Option<Arc<Value>>,
}

impl Rule {
    pub(super) fn new(topic: &config::ZenithTopic) -> Rule {
        Rule {
            retain: topic.retain,
            strict: topic.strict,
            null_deletes: topic.null_deletes,
            scope: topic.scope.as_str().into(),
            served: topic.served,
            data: value(&topic.data),
            reply: value(&topic.reply),
        }
    }
}

/// The back end that serves a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Backend {
    /// No back end has registered it.
    None,
    /// The connection of the back end, and whether it is asked to grant each first subscription.
    At(ZenithPeer, bool),
    /// A back end has registered it and has closed since.
    Away,
}

/// Parses a value of `Retain`; `None` if it is unknown.
pub(super) fn retain_of(word: &str) -> Option<RetainConfig> {
    match word {
        "Replace" => Some(RetainConfig::Replace),
        "Merge" => Some(RetainConfig::Merge),
        "Log" => Some(RetainConfig::Log),
        "None" => Some(RetainConfig::None),
        _ => None,
    }
}

/// The word for how pictures are kept, as [`retain_of`] reads it.
pub(super) fn retain_word(retain: RetainConfig) -> &'static str {
    match retain {
        RetainConfig::Replace => "Replace",
        RetainConfig::Merge => "Merge",
        RetainConfig::Log => "Log",
        RetainConfig::None => "None",
    }
}

/// Parses a value that is JSON text in the configuration; `None` if the text is empty.
fn value(json: &str) -> Option<Arc<Value>> {
    if json.is_empty() {
        return None;
    }
    let limits = DecodeLimits { bytes: json.len(), ..DecodeLimits::default() };
    let mut bytes = json.as_bytes().to_vec();
    decode_json(&mut bytes, &limits, &mut Scratch::default()).ok().map(Arc::new)
}
