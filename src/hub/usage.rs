//! Who uses a channel: its subscribers on one core by the view through which they have subscribed,
//! and its history.

use super::home::ChannelUsage;
use super::{Hub, HubMessage};

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
}
