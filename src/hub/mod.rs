//! Channels and who hears them, on one core.
//!
//! A channel has a *home* core, chosen by a hash of its application and name. Subscriber lists
//! live on the core that holds the connections; the home orders the publishes and knows which
//! cores have subscribers. A publish goes from its origin to the home and from there to the
//! interested cores, so every subscriber sees one order, whoever published.
//!
//! A core's first subscriber of a channel waits until the home has noted the core's interest
//! ([`Joined::Later`]): whoever was told that he is subscribed hears every publish that the home
//! orders from then on.

mod mail;
mod members;
mod name;

pub use mail::{Ack, Down, Event, Post, Squeezed, Up};
pub use members::Subscriber;
pub use name::{ChannelName, ConnId, CoreSet, Hasher};

use crate::mem::Slot;
use hashbrown::HashTable;
use members::Members;

/// What a join came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joined {
    /// Subscribed.
    Now,
    /// Subscribed as soon as the home has answered; the answer names the channel.
    Later,
    /// The connection already has this subscription, which is left as it is.
    Already,
    /// The connection holds as many subscriptions as it may.
    Full,
}

/// One core's share of all channels.
pub struct Hub {
    core: u16,
    cores: u16,
    hasher: Hasher,
    index: HashTable<u32>,
    channels: Vec<Option<Channel>>,
    free: Vec<u32>,
    members: Members,
    asked: u32,
}

struct Channel {
    name: ChannelName,
    subscribers: Vec<Subscriber>,
    standing: Standing,
    /// Cores with subscribers, this one left out. Kept by the home core only.
    interest: CoreSet,
}

/// How this core stands with the home of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// The home does not know that we want the channel.
    Unknown,
    /// Asked under this number, not answered: subscribers wait.
    Asked(u32),
    /// The home sends us every publish. Always so when we are the home.
    Known,
}

impl Hub {
    /// The share of core `core` out of `cores`. All cores of a process share one `hasher`.
    pub fn new(core: u16, cores: u16, hasher: Hasher) -> Hub {
        debug_assert!(core < cores);
        Hub {
            core,
            cores,
            hasher,
            index: HashTable::new(),
            channels: Vec::new(),
            free: Vec::new(),
            members: Members::default(),
            asked: 0,
        }
    }

    /// The channel `name` of application `app`, hashed once for all cores.
    pub fn name(&self, app: u32, name: &str) -> ChannelName {
        self.hasher.name(app, name)
    }

    fn home_of(&self, hash: u64) -> u16 {
        // The high half: the table's index uses the low bits.
        ((hash >> 32) % u64::from(self.cores)) as u16
    }

    /// Subscribes the connection at `slot`, which may hold `most` subscriptions.
    pub fn join(
        &mut self,
        slot: Slot,
        app: u32,
        name: &str,
        most: usize,
        post: &mut Post,
    ) -> Joined {
        let hash = self.hasher.hash(app, name);
        let found = self.find(app, name, hash);
        if let Some(at) = found
            && self.members.has(slot.index, at)
        {
            return Joined::Already;
        }
        if self.members.count(slot.index) >= most {
            return Joined::Full;
        }
        let at = found.unwrap_or_else(|| self.insert(self.hasher.name(app, name)));
        let home = self.home_of(hash);
        let Some(channel) = &mut self.channels[at as usize] else {
            return Joined::Full;
        };
        self.members.add(slot.index, at, &mut channel.subscribers);
        if home == self.core {
            channel.standing = Standing::Known;
        } else if channel.standing == Standing::Unknown {
            self.asked = self.asked.wrapping_add(1);
            channel.standing = Standing::Asked(self.asked);
            post.up(home, Up::Interest { asked: self.asked, name: channel.name.clone() });
        }
        match channel.standing {
            Standing::Known => Joined::Now,
            _ => Joined::Later,
        }
    }

    /// Ends one subscription; false when there was none.
    pub fn leave(&mut self, slot: Slot, app: u32, name: &str, post: &mut Post) -> bool {
        let hash = self.hasher.hash(app, name);
        let Some(at) = self.find(app, name, hash) else {
            return false;
        };
        let Some(position) = self.members.position(slot.index, at) else {
            return false;
        };
        self.remove_member(slot.index, position, post);
        true
    }

    /// Ends all subscriptions of a connection that is gone; says how many.
    pub fn leave_all(&mut self, slot: Slot, post: &mut Post) -> usize {
        let mut left = 0;
        while self.members.count(slot.index) > 0 {
            self.remove_member(slot.index, self.members.count(slot.index) - 1, post);
            left += 1;
        }
        self.members.forget(slot.index);
        left
    }

    fn remove_member(&mut self, slot: u32, position: usize, post: &mut Post) {
        let at = self
            .members
            .remove(slot, position, &mut self.channels, |channel| &mut channel.subscribers);
        let Some(channel) = at.and_then(|at| self.channels[at as usize].as_mut()) else {
            return;
        };
        if !channel.subscribers.is_empty() {
            return;
        }
        let hash = channel.name.hash();
        if channel.standing != Standing::Unknown {
            channel.standing = Standing::Unknown;
            let name = channel.name.clone();
            let home = self.home_of(hash);
            if home != self.core {
                post.up(home, Up::Forget { name });
            }
        }
        if let Some(at) = at {
            self.release_if_empty(at);
        }
    }

    /// Sends `event` on its way to every subscriber of the channel. The home, if it is another
    /// core, answers with [`Down::Published`] when `ack` is there. A core that is the home of a
    /// channel that nobody hears allocates nothing.
    pub fn publish(
        &mut self,
        app: u32,
        name: &str,
        event: &Event,
        ack: Option<Ack>,
        post: &mut Post,
    ) -> Published {
        let hash = self.hasher.hash(app, name);
        if self.home_of(hash) != self.core {
            let name = self.hasher.name(app, name);
            post.up(self.home_of(hash), Up::Publish { name, event: event.clone(), ack });
            return Published::Sent;
        }
        match self.find(app, name, hash) {
            Some(at) => {
                self.fan_out(at, event, post);
                Published::Ordered(at)
            }
            None => Published::Unheard,
        }
    }

    /// Gives `event` its place in the channel's order and passes it to the interested cores.
    fn fan_out(&self, at: u32, event: &Event, post: &mut Post) {
        let Some(channel) = &self.channels[at as usize] else {
            return;
        };
        for core in channel.interest.iter() {
            post.down(core, Down::Deliver { name: channel.name.clone(), event: event.clone() });
        }
    }

    /// Takes a request from core `from`: we are the home. A publish is returned, for delivery to
    /// our own subscribers.
    pub fn request(
        &mut self,
        from: u16,
        request: Up,
        post: &mut Post,
    ) -> Option<(ChannelName, Event)> {
        match request {
            Up::Interest { asked, name } => {
                let found = self.find(name.app(), name.text(), name.hash());
                let at = found.unwrap_or_else(|| self.insert(name.clone()));
                if let Some(channel) = &mut self.channels[at as usize] {
                    channel.interest.insert(from);
                }
                post.down(from, Down::Interested { asked, name });
                None
            }
            Up::Forget { name } => {
                let at = self.find(name.app(), name.text(), name.hash())?;
                if let Some(channel) = &mut self.channels[at as usize] {
                    channel.interest.remove(from);
                }
                self.release_if_empty(at);
                None
            }
            Up::Publish { name, event, ack } => {
                if let Some(at) = self.find(name.app(), name.text(), name.hash()) {
                    self.fan_out(at, &event, post);
                }
                if let Some(ack) = ack {
                    post.down(from, Down::Published { ack });
                }
                Some((name, event))
            }
        }
    }

    /// Takes the home's answer to our question about `name`: from now on its subscribers here,
    /// who are returned, are subscribed. An answer to an older question finds nobody.
    pub fn interested(&mut self, asked: u32, name: &ChannelName) -> &[Subscriber] {
        let Some(at) = self.find(name.app(), name.text(), name.hash()) else {
            return &[];
        };
        match &mut self.channels[at as usize] {
            Some(channel) if channel.standing == Standing::Asked(asked) => {
                channel.standing = Standing::Known;
                &channel.subscribers
            }
            _ => &[],
        }
    }

    /// Who on this core receives what is delivered on `name` now.
    pub fn subscribers(&self, name: &ChannelName) -> &[Subscriber] {
        match self.find(name.app(), name.text(), name.hash()) {
            Some(at) => self.subscribers_at(at),
            None => &[],
        }
    }

    /// Who on this core receives what is delivered on the channel at `at` now.
    pub fn subscribers_at(&self, at: u32) -> &[Subscriber] {
        match &self.channels[at as usize] {
            Some(channel) if channel.standing == Standing::Known => &channel.subscribers,
            _ => &[],
        }
    }

    /// Channels that this core knows, as a subscriber's or as a home.
    pub fn channel_count(&self) -> usize {
        self.channels.len() - self.free.len()
    }

    /// Subscriptions of one connection.
    pub fn subscription_count(&self, slot: Slot) -> usize {
        self.members.count(slot.index)
    }

    fn find(&self, app: u32, name: &str, hash: u64) -> Option<u32> {
        let same = |&at: &u32| match &self.channels[at as usize] {
            Some(channel) => channel.name.is(app, name),
            None => false,
        };
        self.index.find(hash, same).copied()
    }

    fn insert(&mut self, name: ChannelName) -> u32 {
        let hash = name.hash();
        let channel = Channel {
            name,
            subscribers: Vec::new(),
            standing: Standing::Unknown,
            interest: CoreSet::default(),
        };
        let at = match self.free.pop() {
            Some(at) => {
                self.channels[at as usize] = Some(channel);
                at
            }
            None => {
                self.channels.push(Some(channel));
                (self.channels.len() - 1) as u32
            }
        };
        let channels = &self.channels;
        let rehash =
            |&at: &u32| channels[at as usize].as_ref().map_or(0, |channel| channel.name.hash());
        self.index.insert_unique(hash, at, rehash);
        at
    }

    fn release_if_empty(&mut self, at: u32) {
        let Some(channel) = &self.channels[at as usize] else {
            return;
        };
        if !channel.subscribers.is_empty() || !channel.interest.is_empty() {
            return;
        }
        if let Ok(entry) = self.index.find_entry(channel.name.hash(), |&other| other == at) {
            entry.remove();
        }
        self.channels[at as usize] = None;
        self.free.push(at);
        if self.index.is_empty() {
            self.index = HashTable::new();
            self.channels = Vec::new();
            self.free = Vec::new();
        }
    }
}

/// What became of a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// Ordered by this core; its receivers here are the subscribers at this place.
    Ordered(u32),
    /// Ordered by this core, and nobody hears it.
    Unheard,
    /// On its way to the home core.
    Sent,
}

#[cfg(test)]
mod tests;
