//! What dialects without applications are called in the log of a cluster, and what it carries of
//! them.

use super::context::Rejection;
use super::env::Env;
use super::{Event, reflect, zilliqa};

/// The ids of dialects without applications in the log, by their reserved application numbers. No
/// application has such an id, because ids of applications have no `@`.
const RESERVED: &[(u32, &str)] = &[(reflect::APP, "@reflect"), (zilliqa::APP, "@zilliqa")];

impl Env {
    /// The id by which the log of a cluster names an application; `None` if it carries nothing of
    /// it.
    pub fn log_id(&self, app: u32) -> Option<&str> {
        let reserved = RESERVED.iter().find(|(number, _)| *number == app).map(|(_, id)| *id);
        reserved.or_else(|| Some(self.apps.find(app)?.config.id.as_str()))
    }

    /// The number of the application that the log of a cluster names so, if this node has it.
    pub fn app_of_log_id(&self, id: &str) -> Option<u32> {
        let reserved = RESERVED.iter().find(|(_, known)| *known == id).map(|(app, _)| *app);
        reserved.or_else(|| self.apps.by_id(id))
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

/// What the log of a cluster gets of an event, and for how many seconds it keeps the event for the
/// sake of the channel's history. A node that reads the event keeps as much of a group's history as
/// its own configuration says.
pub fn into_log(env: &Env, app: u32, event: Event) -> (Event, u64) {
    match app {
        reflect::APP => reflect::into_log(env, event),
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
        assert_eq!((env.log_id(1), env.app_of_log_id("@zenith")), (None, None));
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
