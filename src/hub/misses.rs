//! Misses of cached events over the nodes of a cluster, each of which exactly one node reports.
//!
//! A node whose subscriber has found no cached event states that it reports the miss. Of several
//! such statements the first one in the log counts, until an event is cached after it or no node
//! has a subscriber, as on one node; or until the node has ended. A statement that does not count,
//! or does not any more, is taken back, so that a node that starts reads what is true.

use super::channel_events::{ChannelEventKind, EventMask};
use super::log_view::LogPlace;
use super::node_states::StateAuthor;
use super::own_states::{StateProposal, Statement};
use super::{Hub, HubMessage};

impl<M: HubMessage> Hub<M> {
    /// Notes that a subscriber of this node has found no cached event in a channel of this home.
    pub(super) fn note_logged_miss(&mut self, at: u32) {
        let after = self.log.map_or(0, |log| log.reached);
        let Some(Some(channel)) = self.channels.get_mut(at as usize) else { return };
        if !self.channel_events.wanted(&channel.name).has(EventMask::MISSES) {
            return;
        }
        let miss = &mut channel.home.get_or_insert_default().nodes.get_or_insert_default().miss;
        if miss.reporter.is_none() && !miss.is_wanted {
            (miss.is_wanted, miss.after) = (true, after);
            self.list_miss(at);
        }
    }

    /// Lets take effect that a node reports a miss in a channel of this home, or that it does not
    /// any more. It had received the log up to the serial number `after`.
    pub fn apply_miss(
        &mut self,
        (app, name): (u32, &str),
        author: StateAuthor,
        (is_missed, after): (bool, u64),
    ) {
        let found = self.find(app, name, self.hasher.hash(app, name));
        let at = match found {
            Some(at) => at,
            None if is_missed => self.insert(self.hasher.name(app, name)),
            None => return,
        };
        let Some(channel) = &mut self.channels[at as usize] else { return };
        let home = channel.home.get_or_insert_default();
        let is_stale = home.kept_serial().is_some_and(|serial| serial > after);
        let miss = &mut home.nodes.get_or_insert_default().miss;
        let mut is_first = false;
        if miss.has_node(author.node) {
            let reporter = is_missed.then_some((author.node, author.is_ours));
            (miss.reporter, miss.is_unconfirmed) = (reporter, false);
        } else if is_missed && !is_stale && miss.reporter.is_none() {
            is_first = true;
            miss.reporter = Some((author.node, author.is_ours));
        }
        if author.is_ours {
            (miss.is_logged, miss.is_unsure) = (is_missed, false);
            miss.is_wanted &= miss.reporter.is_none();
            if let Some(own_states) = &mut self.own_states {
                own_states.note_settled(&mut miss.is_proposed);
            }
        }
        if is_first {
            self.note_change(at, EventMask::MISSES, author.is_ours, ChannelEventKind::CacheMiss);
        }
        self.list_miss(at);
        self.release_if_empty(at);
    }

    /// Notes that a statement about a miss was not taken into the log.
    pub fn miss_failed(&mut self, (app, name): (u32, &str), is_unsure: bool) {
        let Some(at) = self.find(app, name, self.hasher.hash(app, name)) else { return };
        let (Some(own_states), Some(channel)) =
            (&mut self.own_states, &mut self.channels[at as usize])
        else {
            return;
        };
        let Some(nodes) = channel.home.as_mut().and_then(|home| home.nodes.as_mut()) else {
            return;
        };
        own_states.note_settled(&mut nodes.miss.is_proposed);
        nodes.miss.is_unsure |= is_unsure;
        if !std::mem::replace(&mut nodes.miss.is_listed, true) {
            own_states.misses.failed.push(channel.name.clone());
        }
    }

    /// Notes that the event at a place of the log is cached in a channel of this home.
    pub(super) fn note_logged_filling(&mut self, at: u32, place: Option<LogPlace>) {
        let channel = self.channels.get_mut(at as usize).and_then(Option::as_mut);
        let Some(home) = channel.and_then(|channel| channel.home.as_mut()) else { return };
        home.set_kept_serial(place.map_or(0, |place| place.serial));
        if let Some(nodes) = &mut home.nodes {
            nodes.miss.note_filled();
            self.list_miss(at);
        }
    }

    /// Lists the statement about a miss in a channel of this home, if something else is true.
    pub(super) fn list_miss(&mut self, at: u32) {
        let channel = self.channels.get_mut(at as usize).and_then(Option::as_mut);
        let (Some(own_states), Some(channel)) = (&mut self.own_states, channel) else { return };
        let has_local = !channel.subscribers.is_empty() || !channel.interest.is_empty();
        let Some(nodes) = channel.home.as_mut().and_then(|home| home.nodes.as_mut()) else {
            return;
        };
        let is_occupied = has_local || nodes.subscriptions() > 0;
        let miss = &mut nodes.miss;
        let is_due = miss.is_wanted || miss.differs(miss.is_to_be_stated(is_occupied));
        if is_due && !miss.is_listed && !miss.is_proposed {
            miss.is_listed = true;
            own_states.misses.listed.push_back(channel.name.clone());
        }
    }

    /// The next statement about a miss.
    pub(super) fn next_miss(&mut self) -> Option<StateProposal<M>> {
        loop {
            let own_states = self.own_states.as_mut()?;
            let name = own_states.misses.listed.pop_front()?;
            let is_leaving = own_states.is_leaving;
            let Some(at) = self.find(name.app(), name.text(), name.hash()) else { continue };
            match self.miss_state(at, is_leaving) {
                Some(state) => {
                    self.own_states.as_mut()?.under_way += 1;
                    return Some(StateProposal { app: name.app(), name: name.shared(), state });
                }
                None => self.release_if_empty(at),
            }
        }
    }

    fn miss_state(&mut self, at: u32, is_leaving: bool) -> Option<Statement<M>> {
        let channel = self.channels[at as usize].as_mut()?;
        let has_local = !channel.subscribers.is_empty() || !channel.interest.is_empty();
        let nodes = channel.home.as_mut()?.nodes.as_mut()?;
        let is_occupied = has_local || nodes.subscriptions() > 0;
        let miss = &mut nodes.miss;
        miss.is_listed = false;
        let is_stated = miss.is_to_be_stated(is_occupied);
        miss.is_wanted &= is_stated && !miss.is_ours();
        let is_due = miss.is_wanted || miss.differs(is_stated);
        if miss.is_proposed || !is_due || is_leaving && !is_stated {
            return None;
        }
        miss.is_proposed = true;
        Some(Statement::Miss { is_missed: is_stated, after: miss.after })
    }
}
