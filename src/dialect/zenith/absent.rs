//! In place of the Zenith dialect, in a build without it. No configuration uses it then.

use crate::codec::Envelope;
use crate::config;
use crate::dialect::links::LinkPlace;
use crate::dialect::{DialectMessage, Env, Event};
use crate::hub::{ConnId, PicturePiece};
use std::sync::Arc;

pub(super) mod messages {
    /// A message of this dialect, of which there is none.
    #[derive(Debug)]
    pub enum ZenithMessage {}
}

/// The state of the dialect, which is empty.
#[derive(Debug, Default)]
pub struct State;

/// The tokens, topics and back ends of a configuration, of which there are none.
#[derive(Debug)]
pub struct Directory;

impl Directory {
    /// Creates the directory.
    pub fn new(_: Option<&config::Zenith>, _: Arc<State>) -> Directory {
        Directory
    }

    /// Creates the directory of a reloaded configuration.
    pub fn reloaded(&self, _: Option<&config::Zenith>) -> Directory {
        Directory
    }
}

/// No channels of a link, because the dialect has none.
pub(super) fn link_place(_: &config::Config, _: &str) -> LinkPlace {
    None
}

/// The application number of all channels of the dialect, as in a build with it.
pub const APP: u32 = u32::MAX;

/// No event is one of a topic.
pub fn event_into_log(_: &Env, _: &Event) -> Option<Vec<u8>> {
    None
}

/// No event of a topic can be read.
pub fn event_of_log(_: &Env, _: &str, _: &[u8]) -> Option<Event> {
    None
}

/// An empty envelope.
pub fn channel_envelope(_: &str) -> Envelope {
    Envelope::default()
}

/// No time.
pub fn kept_s(_: &Env, _: &Event) -> u64 {
    0
}

/// No event is a message to one connection.
pub fn direct_of(_: &Event) -> Option<Option<(ConnId, DialectMessage)>> {
    None
}

/// No member concerns anybody.
pub fn note_member(
    _: &Env,
    _: &str,
    _: u64,
    _: (&str, Option<&str>),
) -> Vec<(ConnId, DialectMessage)> {
    Vec::new()
}

/// Nothing follows from an event.
pub fn note_event(_: &Env, _: &str, _: &Event, _: u64) -> Option<(String, Event)> {
    None
}

/// Nothing follows from a picture.
pub fn note_piece(_: &Env, _: &str, _: &PicturePiece) -> Option<(String, Event)> {
    None
}

/// Nothing is to be confirmed.
pub fn begin_refresh(_: &Env) {}

/// Nothing is removed.
pub fn remove_node(_: &Env, _: Option<u64>, _: bool) -> Vec<(String, Event)> {
    Vec::new()
}

/// No picture ends with members of a channel.
pub fn owned_picture(_: &str) -> Option<&str> {
    None
}
