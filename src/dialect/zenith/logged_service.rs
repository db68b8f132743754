//! The registrations of a back end of a cluster, which takes effect on all nodes when the log has
//! them.

use super::nodes::{HIDDEN, RegisteredInfo, owned_picture, state_feeds, state_registration};
use super::registration::{Registering, Registration};
use super::rule::retain_word;
use super::service::Service;
use super::wire::{self, MessageEnvelope, codes};
use crate::config::OWN_CONTROLLERS;
use crate::dialect::{DialectContext, JoinOutcome};

/// The maximum number of registrations of one back end.
const REGISTRATIONS: usize = 64;

impl Service {
    /// States a registration in the log of the cluster. It is confirmed when it is stored.
    ///
    /// # Errors
    /// The error code that refuses it.
    pub(super) fn state(
        &mut self,
        context: &mut DialectContext<'_>,
        wanted: Registration,
        it: &MessageEnvelope,
    ) -> Result<Registering, &'static str> {
        let directory = &context.env.zenith;
        let mut info =
            RegisteredInfo { authorises: wanted.authorises, ..RegisteredInfo::default() };
        for (controller, served) in wanted.served(context.conn) {
            let is_own = OWN_CONTROLLERS.contains(&&*controller);
            if is_own || controller.contains('\0') || controller.starts_with(HIDDEN) {
                return Err(codes::UNKNOWN);
            }
            if !self.entry.may_serve(&controller) {
                return Err(codes::AUTHORITY);
            }
            let (kind, retain) = (served.kind, retain_word(served.rule.retain).into());
            info.served.push((controller, kind, retain, served.rule.scope.clone()));
        }
        let has_room = directory.state.has_room(info.served.len());
        let is_large = it.data.as_ref().is_some_and(|data| wire::is_too_large(context.env, data));
        if self.registered.count >= REGISTRATIONS || !has_room || is_large {
            return Err(codes::LIMITED);
        }
        if wanted.feeds.iter().any(|feed| !directory.has_feed(feed)) {
            return Err(codes::UNKNOWN);
        }
        if !wanted.feeds.is_empty() {
            let feeds: Vec<_> = wanted.feeds.iter().map(|feed| (feed.clone(), None)).collect();
            context.effects.push(state_feeds(context.env, &feeds, 0));
        }
        if wanted.drops {
            self.pictures.get_or_insert_default();
        }
        self.registered.count += 1;
        self.registered.feeds.extend(wanted.feeds.iter().cloned());
        info.feeds = wanted.feeds;
        let channel = state_registration(context, self.registered.count, &info);
        let head = MessageEnvelope {
            controller: it.controller.clone(),
            topic: it.topic.clone(),
            transaction: it.transaction.clone(),
            ..MessageEnvelope::default()
        };
        self.registered.stated.insert(channel, head);
        Ok(Registering::Stated)
    }

    /// Confirms a registration that the log of the cluster has. If it has not taken that a picture
    /// ends with this back end, that is stated with the next change of the picture.
    pub(super) fn joined(
        &mut self,
        context: &mut DialectContext<'_>,
        channel: &str,
        outcome: &JoinOutcome,
    ) {
        let done = match outcome {
            JoinOutcome::Joined(_) | JoinOutcome::Already => Ok(()),
            JoinOutcome::NotStored => Err(codes::RETRY),
            _ => Err(codes::LIMITED),
        };
        if let (Some(picture), Some(pictures)) = (owned_picture(channel), &mut self.pictures)
            && let Some(is_stated) = pictures.get_mut(picture)
        {
            *is_stated = done.is_ok();
        }
        let Some(head) = self.registered.stated.remove(channel) else { return };
        self.confirm(context, &head, done);
    }
}
