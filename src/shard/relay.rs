//! The two ends of a shard that lead to the other process of an upgrade.

use super::Shard;
use crate::dialect::{Event, Proposal, RelayDeparture, history_of, linked_publish};
use crate::hub::{
    Answer, ChannelName, KeptChannel, RelayRole, RelayedEvent, StreamPosition, Unpublished,
};
use crate::time::Now;
use std::collections::VecDeque;
use std::sync::Arc;

/// What a core is sent of the other process of an upgrade, or of the thread that talks to it.
#[derive(Debug)]
pub enum RelayArrival {
    /// The replaced process proposes an event of a channel of which this core is the home.
    Proposed {
        /// The number of the proposal.
        number: u64,
        /// The application's number.
        app: u32,
        /// The channel.
        channel: Arc<str>,
        /// The event.
        event: Box<Event>,
    },
    /// The replacement has ordered an event of a channel of which this core is the home.
    Ordered {
        /// The application's number.
        app: u32,
        /// The channel.
        channel: Arc<str>,
        /// The event.
        event: Box<Event>,
        /// Its position in the channel's history.
        position: Option<StreamPosition>,
    },
    /// The replacement has ordered an event that this process has proposed, of a channel of which
    /// this core is the home.
    Own(Box<Proposal>, Option<StreamPosition>),
    /// What the replaced process keeps of a channel of which this core is the home.
    Kept(Box<KeptChannel>),
    /// Everything that the replaced process keeps was sent.
    KeptEnd,
    /// Nothing more is to be sent.
    Stop,
    /// An event that this core has proposed is to be ordered in this process.
    Return(Box<Proposal>),
    /// An event that this core has proposed is not published, or it is not known whether it is.
    Failed(Box<Proposal>, Unpublished),
    /// The other process is not there any more.
    End(RelayEnd),
}

/// How a core goes on without the other process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelayEnd {
    /// It orders its events itself.
    Alone,
    /// It publishes nothing any more, and closes its subscribers: they may have missed events.
    Closed,
}

impl Shard {
    /// Begins to propose events to the replacement of this process, or to send what is ordered here
    /// to the process that is replaced.
    pub fn begin_relay(&mut self, role: RelayRole) {
        self.hub.begin_relay(role);
    }

    /// The oldest departure that was not handed over.
    pub fn next_departure(&mut self) -> Option<RelayDeparture> {
        self.hub.next_departure()
    }

    /// Takes back a departure for which there was no room.
    pub fn return_departure(&mut self, departure: RelayDeparture) {
        self.hub.return_departure(departure);
    }

    /// Whether departures wait.
    pub fn has_departures(&self) -> bool {
        self.hub.departure_count() > 0
    }

    /// The bytes of all events that were ordered for the process that is replaced.
    pub fn ordered_bytes(&self) -> u64 {
        self.hub.ordered_bytes()
    }

    /// The channels of applications of which this core keeps something for later subscribers.
    pub fn kept_channels(&self) -> VecDeque<ChannelName> {
        self.hub.kept_channels()
    }

    /// What this core keeps of such a channel.
    pub fn kept_of(&self, name: &ChannelName, now: Now) -> Option<KeptChannel> {
        self.hub.kept_of(name, now.ms)
    }

    /// Handles what has come from the other process.
    pub fn relayed(&mut self, arrival: RelayArrival, now: Now) {
        match arrival {
            RelayArrival::Proposed { number, app, channel, mut event } => {
                self.counters.upgrade_received.add(1);
                // An event of a linked channel gets room for its further forms.
                linked_publish(&self.env, app, &channel, &mut event);
                let relayed = RelayedEvent { position: None, number: Some(number) };
                self.apply_relayed((app, &channel), &mut event, relayed, now);
            }
            RelayArrival::Ordered { app, channel, mut event, position } => {
                self.counters.upgrade_received.add(1);
                linked_publish(&self.env, app, &channel, &mut event);
                let relayed = RelayedEvent { position, number: None };
                self.apply_relayed((app, &channel), &mut event, relayed, now);
            }
            RelayArrival::Own(proposal, position) => self.apply_own(*proposal, position, now),
            RelayArrival::Kept(kept) => {
                self.counters.upgrade_adopted.add(1);
                let limit = history_of(&self.env, kept.app, &kept.name).map(|it| it.limit);
                self.hub.adopt(*kept, limit, self.env.compresses, now.ms);
            }
            RelayArrival::Return(proposal) => {
                let suspended = self.hub.suspend_relay();
                self.publish_again(*proposal, now);
                self.hub.resume_relay(suspended);
            }
            RelayArrival::Failed(proposal, why) => self.fail_proposal(*proposal, why, now),
            RelayArrival::End(end) => self.end_relay(end, now),
            // The reactor has handled these.
            RelayArrival::KeptEnd | RelayArrival::Stop => {}
        }
    }

    fn apply_relayed(
        &mut self,
        (app, channel): (u32, &str),
        event: &mut Event,
        relayed: RelayedEvent,
        now: Now,
    ) {
        let (ms, mail) = (now.ms, &mut self.mail);
        if let Some(at) = self.hub.apply_relayed((app, channel), event, relayed, ms, mail) {
            self.deliver_at(at, event, now);
        }
    }

    fn apply_own(&mut self, proposal: Proposal, position: Option<StreamPosition>, now: Now) {
        let Proposal { app, name, mut event, origin, .. } = proposal;
        let relayed = RelayedEvent { position, number: None };
        self.apply_relayed((app, &name), &mut event, relayed, now);
        let Some((core, ack)) = origin else { return };
        let info = self.hub.channel_info(&self.hub.name(app, &name), now.ms);
        match core == self.core {
            true => self.answered(ack, Answer::Channel(info), now),
            false => self.mail.answer(core, ack, Answer::Channel(info)),
        }
    }

    /// Publishes an event of this core in this process.
    fn publish_again(&mut self, proposal: Proposal, now: Now) {
        let Proposal { app, name, mut event, origin, .. } = proposal;
        let ack = origin.map(|(_, ack)| ack);
        match self.hub.publish(app, &name, &mut event, ack, now.ms, &mut self.mail) {
            crate::hub::Published::Ordered(at) => self.deliver_at(at, &event, now),
            crate::hub::Published::NotSubscribed => {}
            crate::hub::Published::Sent => return,
        }
        if let Some(ack) = ack {
            let info = self.hub.channel_info(&self.hub.name(app, &name), now.ms);
            self.answered(ack, Answer::Channel(info), now);
        }
    }

    fn fail_proposal(&mut self, proposal: Proposal, why: Unpublished, now: Now) {
        self.counters.upgrade_refused.add(1);
        if let Some((_, ack)) = proposal.origin {
            self.settle(ack, Some((proposal.name, why)), now);
        }
    }

    /// Goes on without the other process.
    fn end_relay(&mut self, end: RelayEnd, now: Now) {
        match end {
            RelayEnd::Alone => {
                for departure in self.hub.end_relay() {
                    if let RelayDeparture::Proposed(proposal) = departure {
                        self.publish_again(*proposal, now);
                    }
                }
            }
            RelayEnd::Closed => {
                self.refuse_departures(now);
                self.close_subscribers();
            }
        }
    }

    /// Refuses the events that cannot be sent to the replacement of this process any more.
    pub fn refuse_departures(&mut self, now: Now) {
        while let Some(departure) = self.hub.next_departure() {
            if let RelayDeparture::Proposed(proposal) = departure {
                self.fail_proposal(*proposal, Unpublished::Refused, now);
            }
        }
    }

    /// Sends nothing more to the process that is replaced, because it is too slow.
    pub fn give_up_relay(&mut self) {
        self.counters.upgrade_overflows.add(1);
        self.hub.end_relay();
    }
}
