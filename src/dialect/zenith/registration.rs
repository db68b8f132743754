//! What a back end registers: controllers, kinds of topics, and feeds.

use super::nodes::{GONE, state_feeds};
use super::registry::Served;
use super::rule::{Rule, retain_of};
use super::wire::MessageEnvelope;
use crate::codec::Value;
use crate::dialect::{Effects, Env};
use crate::hub::ConnId;
use std::collections::HashMap;
use std::sync::Arc;

/// How far a registration has come.
pub(super) enum Registering {
    Done,
    /// It is on its way into the log of the cluster.
    Stated,
}

/// The registrations of a back end in a cluster.
#[derive(Default)]
pub(super) struct LoggedRegistrations {
    /// The heads of those that the log does not have yet, by the channels of which the back end
    /// becomes a member.
    pub(super) stated: HashMap<String, MessageEnvelope>,
    pub(super) count: usize,
    /// The feeds, which become [`GONE`] when the back end closes.
    pub(super) feeds: Vec<Box<str>>,
}

impl LoggedRegistrations {
    /// Handles the close of the connection. The registrations end with it.
    pub(super) fn on_drop(&mut self, env: &Env, out: &mut Effects<'_>) {
        let feeds: Vec<_> = self.feeds.drain(..).map(|feed| (feed, Some(GONE))).collect();
        if !feeds.is_empty() {
            out.push(state_feeds(env, &feeds, 0));
        }
    }
}

/// The content of a `Register` message.
pub(super) struct Registration {
    controllers: Vec<Box<str>>,
    /// The controller, the kind, and the rule of topics without a configured one.
    topics: Vec<(Box<str>, Box<str>, Rule)>,
    pub(super) feeds: Vec<Box<str>>,
    /// Whether the back end is asked to grant each first subscription of a client.
    pub(super) authorises: bool,
    /// Whether the back end's pictures are removed when it closes.
    pub(super) drops: bool,
}

impl Registration {
    pub(super) fn read(data: &Value) -> Option<Registration> {
        let flag = |key: &str| match data.get(key) {
            None => Some(false),
            Some(value) => value.as_bool(),
        };
        let texts = |key: &str| match data.get(key) {
            None => Some(Vec::new()),
            Some(value) => {
                value.elements()?.iter().map(|it| it.as_text().map(Into::into)).collect()
            }
        };
        let topics = match data.get("Topics") {
            None => Vec::new(),
            Some(value) => {
                value.elements()?.iter().map(Registration::topic).collect::<Option<_>>()?
            }
        };
        let drops = match data.get("Pictures") {
            None => false,
            Some(value) => match value.as_text()? {
                "Keep" => false,
                "Drop" => true,
                _ => return None,
            },
        };
        data.members()?;
        Some(Registration {
            controllers: texts("Controllers")?,
            topics,
            feeds: texts("Feeds")?,
            authorises: flag("Authorises")?,
            drops,
        })
    }

    fn topic(value: &Value) -> Option<(Box<str>, Box<str>, Rule)> {
        let text = |key: &str| match value.get(key) {
            None => Some(""),
            Some(value) => value.as_text(),
        };
        let retain = match text("Retain")? {
            "" => crate::config::RetainConfig::default(),
            word => retain_of(word)?,
        };
        let rule = Rule { retain, scope: text("Scope")?.into(), ..Rule::default() };
        let (controller, kind) = (text("Controller")?, text("Kind")?);
        let named = !controller.is_empty() && !kind.is_empty();
        named.then(|| (controller.into(), kind.into(), rule))
    }

    pub(super) fn served(&self, conn: ConnId) -> Vec<(Box<str>, Served)> {
        let served = |kind: Option<&str>, rule: Rule| Served {
            kind: kind.map(Into::into),
            conn: Some(conn.into()),
            authorises: self.authorises,
            rule: Arc::new(rule),
        };
        let whole = self.controllers.iter();
        let whole = whole.map(|name| (name.clone(), served(None, Rule::default())));
        let mask = self.topics.iter().map(|(controller, kind, rule)| {
            let rule = Rule { retain: rule.retain, scope: rule.scope.clone(), ..Rule::default() };
            (controller.clone(), served(Some(kind), rule))
        });
        whole.chain(mask).collect()
    }
}
