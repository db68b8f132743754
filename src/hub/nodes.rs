//! What the entries of the log of a cluster change in the channels of this home: who is present,
//! and how many subscribers there are.
//!
//! Every node applies the same entries in the same order, so that they make the same changes. Only
//! the node whose entry has made a change reports it to webhooks; the others note it, because a
//! leave and a return that follow each other cancel each other out.

use super::mail::OutgoingMail;
use super::node_states::{RosterChange, StateAuthor};
use super::roster::Member;
use super::view_counts::SubscriberCount;
use super::{ChannelEventKind, EventMask, Hub, HubMessage};
use std::sync::Arc;

impl<M: HubMessage> Hub<M> {
    /// Lets take effect that a user is on a node or, without `member`, that it is no longer there.
    /// This core is the channel's home. Further events may be in [`Hub::next_local`], and answers
    /// in [`Hub::next_reply`].
    pub fn apply_member(
        &mut self,
        (app, name): (u32, &str),
        author: StateAuthor,
        (user, member): (&Arc<str>, Option<&Member<M>>),
        now_ms: u64,
        mail: &mut OutgoingMail<M>,
    ) {
        let found = self.find(app, name, self.hasher.hash(app, name));
        let at = match found {
            Some(at) => at,
            None if member.is_some() => self.insert(self.hasher.name(app, name)),
            None => return,
        };
        let Some(channel) = &mut self.channels[at as usize] else { return };
        let nodes = channel.home.get_or_insert_default().nodes.get_or_insert_default();
        let change = match member {
            Some(member) => nodes.add(author.node, member),
            None => nodes.remove(author.node, user),
        };
        let is_full = matches!(change, RosterChange::Full);
        match change {
            RosterChange::Added(change) => {
                let what = ChannelEventKind::MemberAdded(user.clone());
                self.note_change(at, EventMask::MEMBERS, author.is_ours, what);
                self.announce(at, change.into(), mail);
            }
            RosterChange::Removed(change) => {
                let what = ChannelEventKind::MemberRemoved(user.clone());
                self.note_change(at, EventMask::MEMBERS, author.is_ours, what);
                self.announce(at, change.into(), mail);
            }
            RosterChange::Nothing | RosterChange::Full => {}
        }
        if author.is_ours {
            self.note_member_logged(at, user, (member.is_some(), is_full), now_ms, mail);
        }
        self.release_if_empty(at);
    }

    /// Lets take effect how many subscribers a node has. This core is the channel's home.
    pub fn apply_count(
        &mut self,
        (app, name): (u32, &str),
        author: StateAuthor,
        count: impl Into<SubscriberCount>,
    ) {
        let count: SubscriberCount = count.into();
        let found = self.find(app, name, self.hasher.hash(app, name));
        let at = match found {
            Some(at) => at,
            None if count.all > 0 => self.insert(self.hasher.name(app, name)),
            None => return,
        };
        let Hub { channels, own_states, .. } = self;
        let Some(channel) = &mut channels[at as usize] else { return };
        let nodes = channel.home.get_or_insert_default().nodes.get_or_insert_default();
        let before = nodes.subscriptions();
        nodes.set_count(author.node, count.all);
        nodes.set_views(author.node, count.views.clone());
        let own = &mut nodes.own_count;
        if let Some(own_states) = own_states
            && author.is_ours
        {
            own_states.note_settled(&mut own.is_proposed);
            (own.logged, own.is_unsure) = (count.all, false);
            own.logged_views = count.views;
        }
        self.report_total(at, before, author.is_ours);
        if author.is_ours {
            self.list_count(at);
            self.settle_counting();
        }
        self.release_if_empty(at);
    }

    /// Reports that the number of subscribers of all nodes has changed, which was `before`.
    pub(super) fn report_total(&mut self, at: u32, before: u64, is_ours: bool) {
        let channel = self.channels[at as usize].as_mut();
        let home = channel.and_then(|channel| channel.home.as_mut());
        let Some(nodes) = home.and_then(|home| home.nodes.as_mut()) else { return };
        let total = nodes.subscriptions();
        if total == before {
            return;
        }
        if total == 0 {
            nodes.miss.note_vacated();
            self.list_miss(at);
        }
        let change = match (before, total) {
            (0, _) => Some(ChannelEventKind::Occupied),
            (_, 0) => Some(ChannelEventKind::Vacated),
            _ => None,
        };
        if let Some(change) = change {
            self.note_change(at, EventMask::OCCUPANCY, is_ours, change);
        }
        if is_ours {
            self.note_change(at, EventMask::COUNTS, true, ChannelEventKind::Count(total));
        }
    }
}
