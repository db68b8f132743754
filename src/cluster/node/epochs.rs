//! The epochs of a node: those that it sends, and those of the log.

use super::super::entry::EpochPart;
use super::super::epochs::NotAPiece;
use super::super::queue::{ChannelKey, QueuedEvent};
use super::super::states::Origin;
use super::ClusterNode;
use crate::dialect::zilliqa::{self, LoggedEpoch};
use crate::dialect::{Env, Event};
use crate::hub::{Ack, Unpublished};

impl ClusterNode {
    /// Takes an epoch that a core proposes.
    pub(super) fn propose_epoch(
        &mut self,
        channel: ChannelKey,
        event: Event,
        origin: Option<(u16, Ack)>,
    ) {
        let pushed = match self.is_full {
            true => Err(origin),
            false => self.epochs.outbox.push(event, origin),
        };
        if let Err(origin) = pushed {
            self.fail_epoch(origin, &channel, Unpublished::Refused);
        }
        self.epochs.channel = Some(channel);
    }

    /// Adds the next piece of an epoch to the queue, if that has room.
    pub(super) fn queue_epoch(&mut self, now_ms: u64) {
        let Some(channel) = &self.epochs.channel else { return };
        let Some(part) = self.epochs.outbox.next() else { return };
        let origin = Origin { is_epoch: true, ..Origin::default() };
        let ttl_s = Some(self.epochs.ttl_s);
        let piece = QueuedEvent { part, key: None, ttl_s, ack: Some(origin) };
        if self.queue.push(&channel.clone().into(), piece, now_ms).is_ok() {
            self.epochs.outbox.sent();
        }
    }

    /// Notes that the piece under way is given up.
    pub(super) fn fail_epochs(&mut self, channel: &ChannelKey, why: Unpublished) {
        for (origin, why) in self.epochs.outbox.failed(why) {
            self.fail_epoch(origin, channel, why);
        }
    }

    fn fail_epoch(&mut self, request: Option<(u16, Ack)>, channel: &ChannelKey, why: Unpublished) {
        let origin = Origin { request, ..Origin::default() };
        self.fail((Some(origin), channel.clone().into(), why));
    }

    /// Takes a piece of an epoch of the log. Returns the event if the epoch is whole, and is not
    /// below the last one.
    pub(super) fn take_epoch(&mut self, part: &EpochPart<'_>, env: &Env) -> Option<Event> {
        let counters = &self.setup.counters;
        let document = match self.epochs.assembly.take(part, max_document(env)) {
            Ok(document) => document?,
            Err(NotAPiece) => {
                counters.cluster_skipped.add(1);
                return None;
            }
        };
        match zilliqa::epoch_from_log(&env.zilliqa, part.number, document) {
            LoggedEpoch::Published(event) => {
                counters.cluster_events.add(1);
                counters.epochs.add(1);
                counters.last_epoch.set(part.number);
                return Some(event);
            }
            LoggedEpoch::Begun => counters.last_epoch.set(part.number),
            LoggedEpoch::Late => counters.epochs_passed_over.add(1),
            LoggedEpoch::Invalid => counters.cluster_skipped.add(1),
        }
        None
    }
}

/// The maximum size of the document of an epoch, in bytes: more than what may be posted, and than
/// all responses of which one is made.
fn max_document(env: &Env) -> u64 {
    let posted = env.config.limits.http_body_bytes as u64;
    let fetched = env.config.zilliqa.node.answer_bytes as u64;
    posted.max(fetched).saturating_mul(2)
}
