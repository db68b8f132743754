//! What dialects without applications are called in the log of a cluster, and what it carries of
//! them.

use super::context::Rejection;
use super::env::Env;
use super::{DialectMessage, Event, reflect, zenith, zilliqa};
use crate::codec::Envelope;
use crate::hub::{ConnId, PicturePiece};

/// The ids of dialects without applications in the log, by their reserved application numbers. No
/// application has such an id, because ids of applications have no `@`.
const RESERVED: &[(u32, &str)] =
    &[(reflect::APP, "@reflect"), (zenith::APP, "@zenith"), (zilliqa::APP, "@zilliqa")];

impl Env {
    /// The id by which the log of a cluster names an application; `None` if it carries nothing of
    /// it.
    pub fn log_id(&self, app: u32) -> Option<&str> {
        let reserved = RESERVED.iter().find(|(number, _)| *number == app).map(|(_, id)| *id);
        reserved.or_else(|| Some(self.apps.find(app)?.config.id.as_str()))
    }

    /// The number of the application that the log of a cluster names so, if this node has it, or
    /// had it before a reload.
    pub fn app_of_log_id(&self, id: &str) -> Option<u32> {
        let reserved = RESERVED.iter().find(|(_, known)| *known == id).map(|(app, _)| *app);
        reserved.or_else(|| self.apps.by_id_or_removed(id))
    }

    /// Whether the log of a cluster has idempotency keys of what is published under a name. It has
    /// none of a topic of Zenith, because each node makes the changes of a picture again when it
    /// reads the log again.
    pub(super) fn logs_keys(&self, app: u32, name: &str) -> bool {
        self.links.resolve(app, name).is_none_or(|source| !has_own_form(source.app))
    }

    /// Refuses a client of a dialect whose events come from the log of a cluster, until this node
    /// has read it: the client would get an incomplete history.
    pub(super) fn check_joined(&self) -> Result<(), Rejection> {
        match self.runtime.cluster.serves() {
            true => Ok(()),
            false => Err(Rejection { status: 503, text: NOT_JOINED.into() }),
        }
    }
}

const NOT_JOINED: &str = "this node has not joined its cluster yet";

/// Whether the log of a cluster has the events of an application's channels in the form of their
/// dialect.
pub fn has_own_form(app: u32) -> bool {
    app == zenith::APP
}

/// An event in the form of its dialect; `None` if a cluster does not carry it.
pub fn event_into_log(env: &Env, app: u32, event: &Event) -> Option<Vec<u8>> {
    match app {
        zenith::APP => zenith::event_into_log(env, event),
        _ => None,
    }
}

/// Reads an event of a channel as [`event_into_log`] has written it; `None` if it is malformed.
pub fn event_of_log(env: &Env, (app, channel): (u32, &str), part: &[u8]) -> Option<Event> {
    match app {
        zenith::APP => zenith::event_of_log(env, channel, part),
        _ => None,
    }
}

/// To which connection of this process an event is a message, if it is one to any connection:
/// `Some(None)` if it is for another process.
pub fn direct_of(event: &Event) -> Option<Option<(ConnId, DialectMessage)>> {
    zenith::direct_of(event)
}

/// Notes whether a member, with an info, is on a node. Returns messages for connections of this
/// process.
pub fn note_member(
    env: &Env,
    (app, channel): (u32, &str),
    node: u64,
    member: (&str, Option<&str>),
) -> Vec<(ConnId, DialectMessage)> {
    match app {
        zenith::APP => zenith::note_member(env, channel, node, member),
        _ => Vec::new(),
    }
}

/// Notes an event at a place of the log. Returns the event that follows from it for another
/// channel.
pub fn note_event(
    env: &Env,
    (app, channel): (u32, &str),
    event: &Event,
    serial: u64,
) -> Option<(String, Event)> {
    (app == zenith::APP).then(|| zenith::note_event(env, channel, event, serial))?
}

/// Notes a piece of a picture of the log. Returns the event that follows from it for another
/// channel.
pub fn note_piece(
    env: &Env,
    (app, channel): (u32, &str),
    piece: &PicturePiece,
) -> Option<(String, Event)> {
    (app == zenith::APP).then(|| zenith::note_piece(env, channel, piece))?
}

/// Notes that the log is read from its beginning.
pub fn begin_refresh(env: &Env) {
    zenith::begin_refresh(env);
}

/// Removes what a node has stated, which has ended, or without one what was not confirmed since
/// [`begin_refresh`]. Returns the events that report it to all nodes, each with its application and
/// channel. `has_left` says that the node had announced its end.
pub fn remove_node(env: &Env, node: Option<u64>, has_left: bool) -> Vec<(u32, String, Event)> {
    let reports = zenith::remove_node(env, node, has_left).into_iter();
    reports.map(|(channel, event)| (zenith::APP, channel, event)).collect()
}

/// The channel whose picture ends with the members of this one; `None` if there is none.
pub fn owned_picture(app: u32, channel: &str) -> Option<&str> {
    zenith::owned_picture(channel).filter(|_| app == zenith::APP)
}

/// What is around the picture of a channel; `None` if the dialect has no pictures.
pub fn picture_envelope((app, channel): (u32, &str)) -> Option<Envelope> {
    match app {
        zenith::APP => Some(zenith::channel_envelope(channel)),
        _ => None,
    }
}

/// What the log of a cluster gets of an event, and for how many seconds it keeps the event for the
/// sake of the channel's history. A node that reads the event keeps as much of a group's history as
/// its own configuration says.
pub fn into_log(env: &Env, app: u32, event: Event) -> (Event, u64) {
    match app {
        reflect::APP => reflect::into_log(env, event),
        zenith::APP => {
            let kept_s = zenith::kept_s(env, &event);
            (event, kept_s)
        }
        _ => (event, 0),
    }
}

/// Completes an event of the log, which was stored `age_ms` ago, by what this node's configuration
/// says of its channel.
pub fn from_log(env: &Env, (app, channel): (u32, &str), age_ms: u64, event: Event) -> Event {
    match app {
        reflect::APP => reflect::from_log(env, channel, age_ms, event),
        _ => event,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, FileFormat};
    use crate::runtime::ClusterPhase;

    #[test]
    fn log_ids_of_dialects_are_not_those_of_applications() {
        let env = Env::new(Config::demo(), 0).expect("an environment");
        for (app, id) in RESERVED {
            assert_eq!((env.log_id(*app), env.app_of_log_id(id)), (Some(*id), Some(*app)));
            let text = format!("[[apps]]\nid = '{id}'\nkey = 'k'\nsecret = 's'\n");
            let refused = Config::parse_with(&text, FileFormat::Toml, "f", &|_| None);
            assert!(refused.expect_err("no such id").to_string().contains("apps[0].id"), "{id}");
        }
        assert_eq!((env.log_id(0), env.app_of_log_id("1")), (Some("1"), Some(0)));
        assert_eq!((env.log_id(1), env.app_of_log_id("@other")), (None, None));
    }

    #[test]
    fn log_must_be_read_before_clients_are_served() {
        let env = Env::new(Config::demo(), 0).expect("an environment");
        for (phase, is_served) in [
            (ClusterPhase::Alone, true),
            (ClusterPhase::Joining, false),
            (ClusterPhase::Joined, true),
            (ClusterPhase::Away, true),
        ] {
            env.runtime.cluster.set(phase);
            assert_eq!(env.check_joined().is_ok(), is_served, "{phase:?}");
        }
    }
}
