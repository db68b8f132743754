//! What a client must have to subscribe to a topic, and where the topic's data comes from.

use super::client::Client;
use super::peer::ZenithPeer;
use super::rule::Backend;
use super::wire::{self, codes};
use crate::codec::value::Value;
use crate::dialect::DialectContext;

/// How a subscription to a topic is made.
pub(super) enum TopicSource {
    /// The server sends this data itself.
    Own(Value),
    /// Join the channel.
    Join,
    /// Ask this back end to grant the subscription, and then join the channel.
    Ask(ZenithPeer),
}

/// What a topic that may be subscribed to requires.
pub(super) struct Gate {
    pub(super) source: TopicSource,
    pub(super) scope: Box<str>,
    pub(super) strict: bool,
}

impl Client {
    /// Whether the connection may have one more subscription. Each reference counts as one, because
    /// it causes a message of its own when the topic ends.
    pub(super) fn has_room(&self, context: &DialectContext<'_>) -> bool {
        self.references < context.env.zenith.config.subscriptions_per_connection
    }

    /// Decides how a topic may be subscribed to, and checks the limits on subscriptions and on the
    /// length of the topic.
    ///
    /// # Errors
    /// The error code that refuses the subscription.
    pub(super) fn gate(
        &self,
        context: &DialectContext<'_>,
        controller: &str,
        topic: &str,
    ) -> Result<Gate, String> {
        let config = &context.env.zenith.config;
        if !self.has_room(context) || controller.len() + topic.len() > config.topic_length {
            return Err(codes::LIMITED.to_owned());
        }
        self.source(context, controller, topic)
    }

    /// Decides how a topic may be subscribed to, without checking the limits.
    ///
    /// # Errors
    /// The error code that refuses the subscription.
    pub(super) fn source(
        &self,
        context: &DialectContext<'_>,
        controller: &str,
        topic: &str,
    ) -> Result<Gate, String> {
        let directory = &context.env.zenith;
        if !directory.knows(controller) {
            return Err(format!("Controller {controller}"));
        }
        let own = |source| Gate { source, scope: "".into(), strict: false };
        match (controller, topic) {
            ("Zenith", "ServerInfo") => {
                return Ok(own(TopicSource::Own(self.server_info(context))));
            }
            ("Zenith", "Feeds") => return Ok(own(TopicSource::Join)),
            ("Auth", "Identify") => return Ok(own(TopicSource::Own(self.identify(context.now)))),
            ("Zenith" | "Auth", _) => return Err(codes::UNKNOWN.to_owned()),
            _ => {}
        }
        let lookup = directory.look(controller, topic);
        let Some(rule) = lookup.rule else { return Err(codes::UNKNOWN.to_owned()) };
        if !self.may(&rule.scope) {
            return Err(codes::AUTHORITY.to_owned());
        }
        let source = match (&rule.data, lookup.backend) {
            (Some(data), _) => TopicSource::Own(Value::clone(data)),
            (None, Backend::At(backend, true)) => TopicSource::Ask(backend),
            (None, Backend::None | Backend::Away) if rule.served => {
                return Err(wire::unavailable(controller));
            }
            _ if rule.reply.is_some() => return Err(codes::UNKNOWN.to_owned()),
            _ => TopicSource::Join,
        };
        Ok(Gate { source, scope: rule.scope.clone(), strict: rule.strict })
    }
}
