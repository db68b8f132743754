//! Who uses a channel: its subscribers by the view through which they have subscribed, and its
//! history.

use super::home::ChannelUsage;
use super::view_counts::{ViewCounts, sum_of_views};
use super::{Hub, HubMessage};
use std::sync::Arc;

impl<M: HubMessage> Hub<M> {
    /// The use of a channel on this core. Visits all of its subscribers here.
    pub(super) fn usage(&self, app: u32, name: &str) -> ChannelUsage {
        let at = self.find(app, name, self.hasher.hash(app, name));
        let Some(channel) = at.and_then(|at| self.channels[at as usize].as_ref()) else {
            return ChannelUsage::default();
        };
        let mut views: Vec<(u16, u64)> = Vec::new();
        for subscriber in channel.subscribers.iter().filter(|it| it.is_active()) {
            let view = subscriber.form.view;
            match views.iter_mut().find(|(other, _)| *other == view) {
                Some((_, count)) => *count += 1,
                None => views.push((view, 1)),
            }
        }
        let history = channel.home.as_ref().and_then(|home| home.history.as_ref());
        let history = history.filter(|history| history.outlives());
        ChannelUsage { views, history: history.map(|history| history.usage()) }
    }

    /// Sets the keys of views, by their numbers. Number 0 is none.
    pub fn name_views(&mut self, keys: Arc<[u64]>) {
        self.view_keys = keys;
    }

    /// Notes that a connection of this core has joined or left a channel through a view; 0 is the
    /// source.
    pub(super) fn note_view(&mut self, at: u32, view: u16, joins: bool) {
        if view == 0 || self.own_states.is_none() {
            return;
        }
        let Some(channel) = &mut self.channels[at as usize] else { return };
        let tally = channel.views.get_or_insert_default();
        match joins {
            true => tally.add(view),
            false => tally.remove(view),
        }
    }

    /// This core's subscribers of a channel through views.
    pub(super) fn views_here(&self, at: u32) -> ViewCounts {
        let channel = self.channels.get(at as usize).and_then(Option::as_ref);
        let tally = channel.and_then(|channel| channel.views.as_ref());
        let Some(tally) = tally else { return ViewCounts::new() };
        let key = |view: u16| self.view_keys.get(usize::from(view)).copied().unwrap_or_default();
        sum_of_views(tally.counts.iter().map(|(view, count)| (key(*view), *count)))
    }

    /// This node's subscribers of a channel through views, if they are asked for. This core is the
    /// channel's home.
    pub(super) fn asked_views(&self, at: u32) -> Option<ViewCounts> {
        let channel = self.channels.get(at as usize)?.as_ref()?;
        if !self.counting.is_asked_by_view(channel.name.app()) {
            return None;
        }
        let remote = channel.home.as_ref().map(|home| home.remote_views());
        Some(sum_of_views(self.views_here(at).into_iter().chain(remote.into_iter().flatten())))
    }

    /// The subscribers of all nodes through views, as far as the log has them. This core is the
    /// channel's home.
    pub(super) fn logged_views(&self, at: u32) -> Vec<(u64, u64)> {
        let channel = self.channels.get(at as usize).and_then(Option::as_ref);
        let home = channel.and_then(|channel| channel.home.as_ref());
        let nodes = home.and_then(|home| home.nodes.as_ref());
        nodes.map(|nodes| sum_of_views(nodes.views())).unwrap_or_default()
    }
}
