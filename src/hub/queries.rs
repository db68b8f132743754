//! Queries about channels, and what their homes answer.

use super::history::History;
use super::home::ChannelInfo;
use super::mail::{Ack, Answer, OutgoingMail, Query, Up};
use super::name::ChannelName;
use super::replay::HistoryPage;
use super::{Hub, HubMessage};

impl<M: HubMessage> Hub<M> {
    /// Sends a query to the cores that can answer it. Returns this core's own answer, if it has
    /// one, and the number of cores that will answer by [`super::Down::Answer`]. This core is one
    /// of those if its answer has to wait, and gives it by [`Hub::next_counted`].
    pub fn put(
        &mut self,
        query: &Query,
        ack: Ack,
        now_ms: u64,
        mail: &mut OutgoingMail<M>,
    ) -> (Option<Answer>, u32) {
        let asked: Vec<u16> = match query {
            Query::Channels { .. } | Query::Usage { .. } => (0..self.cores).collect(),
            Query::Channel { app, name, .. }
            | Query::Users { app, name }
            | Query::History { app, name, .. } => {
                vec![self.home_of(self.hasher.hash(*app, name))]
            }
        };
        let others = asked.iter().filter(|core| **core != self.core);
        let mut count = 0;
        for core in others {
            mail.up(*core, Up::Query { query: query.clone(), ack });
            count += 1;
        }
        if !asked.contains(&self.core) {
            return (None, count);
        }
        match self.awaits_counts((self.core, ack), query, now_ms) {
            true => (None, count + 1),
            false => (Some(self.answer_query(query, now_ms)), count),
        }
    }

    /// Answers a query for the channels of which this core is the home.
    pub fn answer_query(&self, query: &Query, now_ms: u64) -> Answer {
        match query {
            Query::Channels { app, prefix, max, .. } => {
                let mut found = Vec::new();
                for (at, channel) in self.rooms_of(*app) {
                    let name = &channel.name;
                    let is_alone = self.own_states.is_none();
                    if is_alone && !channel.occupied || !name.text().starts_with(&**prefix) {
                        continue;
                    }
                    let channel_info = self.channel_info_at(Some(at), now_ms);
                    if channel_info.subscriptions > 0 {
                        found.push((name.clone(), channel_info));
                    }
                    if found.len() > *max {
                        break;
                    }
                }
                Answer::Channels(found)
            }
            Query::Channel { app, name, by_view, .. } => {
                let at = self.find(*app, name, self.hasher.hash(*app, name));
                let info = self.channel_info_at(at, now_ms);
                let views = at.filter(|_| *by_view).map(|at| self.logged_views(at));
                Answer::Channel(ChannelInfo { views: views.unwrap_or_default(), ..info })
            }
            Query::History { app, name, after, max, view } => {
                let at = self.find(*app, name, self.hasher.hash(*app, name));
                let view = (*view != 0).then(|| (*view, name.clone()));
                let page = self.history_page((*app, at), *after, *max, now_ms);
                Answer::History(page.map(|page| Box::new(HistoryPage { view, ..*page })))
            }
            Query::Usage { app, name } => Answer::Usage(self.usage(*app, name)),
            Query::Users { app, name } => {
                let at = self.find(*app, name, self.hasher.hash(*app, name));
                let channel = at.and_then(|at| self.channels[at as usize].as_ref());
                let home = channel.and_then(|channel| channel.home.as_ref());
                Answer::Users(home.map(|home| home.users()).unwrap_or_default())
            }
        }
    }

    /// The state of a channel of which this core is the home.
    pub fn channel_info(&self, name: &ChannelName, now_ms: u64) -> ChannelInfo {
        self.channel_info_at(self.find(name.app(), name.text(), name.hash()), now_ms)
    }

    fn channel_info_at(&self, at: Option<u32>, now_ms: u64) -> ChannelInfo {
        let Some(channel) = at.and_then(|at| self.channels[at as usize].as_ref()) else {
            return ChannelInfo::default();
        };
        let home = channel.home.as_ref();
        let subscriptions = match &self.own_states {
            None => channel.subscribers.len() as u64 + home.map_or(0, |it| it.remote_count()),
            Some(_) => {
                let nodes = home.and_then(|home| home.nodes.as_ref());
                nodes.map_or(0, |nodes| nodes.subscriptions())
            }
        };
        ChannelInfo {
            subscriptions,
            is_count_unknown: false,
            views: Vec::new(),
            users: home.map_or(0, |home| home.user_count() as u64),
            kept: home.and_then(|home| home.cache_info(now_ms)),
            position: home
                .and_then(|home| home.history.as_ref())
                .filter(|history| history.outlives())
                .map(History::position),
        }
    }
}
