//! The channels of each application of which this core is the home: which they are, how many are
//! occupied, and whether there may be one more.

use super::name::ChannelName;
use super::{Channel, Hub};
use std::sync::Arc;

/// A connection with fewer subscriptions counts as one of many ordinary ones.
const FEW: usize = 16;

/// Who asks for a channel that nobody is in. Strangers can make up names of public channels, and
/// must not use up the channels of those who come with a signature, or of the many who want few.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Claim {
    /// The application has signed the subscription, or the server itself makes it.
    #[default]
    Signed,
    /// It is public, and the connection has few subscriptions.
    Few,
    /// It is public, and the connection has many.
    Many,
}

impl Claim {
    /// The claim of a connection with so many subscriptions.
    pub(super) fn new(is_public: bool, subscriptions: usize) -> Claim {
        match is_public {
            false => Claim::Signed,
            true if subscriptions < FEW => Claim::Few,
            true => Claim::Many,
        }
    }

    /// How many of `channels` there may be before such a claim is turned down.
    fn part_of(self, channels: usize) -> usize {
        match self {
            Claim::Signed => channels,
            Claim::Few => channels - channels / 10,
            Claim::Many => channels - channels / 4,
        }
    }
}

/// The channels of one application.
#[derive(Debug, Default)]
pub(super) struct Rooms {
    list: Vec<u32>,
    occupied: usize,
}

/// A channel that is in no list.
pub(super) const UNLISTED: u32 = u32::MAX;

impl Hub {
    /// From now on each application, by its number, may have so many occupied channels in the
    /// whole process. This core counts those of which it is the home: an even part, and where
    /// there are several cores an eighth and eight more, because hashing is not that even. An
    /// application with a higher number may have any number.
    pub fn bound_channels(&mut self, bounds: Arc<[usize]>) {
        let cores = usize::from(self.cores);
        let share = |bound: &usize| match cores {
            1 => *bound,
            _ => {
                let even = bound.div_ceil(cores);
                even.saturating_add(even / 8 + 8)
            }
        };
        self.bounds = bounds.iter().map(share).collect();
    }

    /// Whether a channel of ours that `claim` is made to may become occupied, or is already.
    pub(super) fn has_room(&self, app: u32, at: Option<u32>, claim: Claim) -> bool {
        let Some(bound) = self.bounds.get(app as usize) else { return true };
        let channel = at.and_then(|at| self.channels[at as usize].as_ref());
        let is_occupied = channel.is_some_and(|channel| channel.occupied);
        is_occupied || self.occupied_channels(app) < claim.part_of(*bound)
    }

    /// Occupied channels of an application of which this core is the home.
    pub fn occupied_channels(&self, app: u32) -> usize {
        self.rooms.get(&app).map_or(0, |rooms| rooms.occupied)
    }

    /// The channels of an application of which this core is the home, without those that are for
    /// one user and no channel to anybody outside.
    pub(super) fn rooms_of(&self, app: u32) -> impl Iterator<Item = (u32, &Channel)> {
        let list = self.rooms.get(&app).map_or(&[][..], |rooms| &rooms.list);
        list.iter().filter_map(|at| Some((*at, self.channels[*at as usize].as_ref()?)))
    }

    /// Puts a new channel into the list of its application, if it belongs there.
    pub(super) fn enlist(&mut self, at: u32) {
        let Some(channel) = &mut self.channels[at as usize] else { return };
        let is_ours = super::home_among(channel.name.hash(), self.cores) == self.core;
        if is_ours && !channel.name.text().starts_with('#') {
            let rooms = self.rooms.entry(channel.name.app()).or_default();
            channel.listed = rooms.list.len() as u32;
            rooms.list.push(at);
        }
    }

    /// Takes a channel that is gone, which was at `listed`, out of the list.
    pub(super) fn unlist(&mut self, name: &ChannelName, listed: u32, occupied: bool) {
        let Some(rooms) = self.rooms.get_mut(&name.app()) else { return };
        if listed == UNLISTED {
            return;
        }
        rooms.occupied -= usize::from(occupied);
        rooms.list.swap_remove(listed as usize);
        if let Some(moved) = rooms.list.get(listed as usize)
            && let Some(channel) = &mut self.channels[*moved as usize]
        {
            channel.listed = listed;
        }
        if rooms.list.is_empty() {
            self.rooms.remove(&name.app());
        } else if rooms.list.capacity() > 1024 && rooms.list.len() < rooms.list.capacity() / 4 {
            rooms.list.shrink_to(rooms.list.len() * 2);
        }
    }

    /// Notes whether a channel, whose subscribers may have changed, is occupied.
    pub(super) fn tally(&mut self, at: u32) {
        let Some(channel) = &mut self.channels[at as usize] else { return };
        let occupied = !channel.subscribers.is_empty() || !channel.interest.is_empty();
        if channel.listed == UNLISTED || occupied == channel.occupied {
            return;
        }
        channel.occupied = occupied;
        let rooms = self.rooms.entry(channel.name.app()).or_default();
        match occupied {
            true => rooms.occupied += 1,
            false => rooms.occupied -= 1,
        }
    }

    /// Makes the tables smaller when most of them is free; does a bounded part of that work.
    pub(super) fn pack(&mut self) {
        let Hub { channels, index, members, recount, keepers, rooms, .. } = self;
        channels.pack(PACK_WORK, |channel, from, to| {
            if let Some(at) = index.find_mut(channel.name.hash(), |at| *at == from) {
                *at = to;
            }
            members.moved(&channel.subscribers, to);
            if channel.recounting {
                recount.push(to);
            }
            if let Some(home) = &channel.home {
                keepers.moved(home, to);
            }
            if channel.listed != UNLISTED
                && let Some(rooms) = rooms.get_mut(&channel.name.app())
            {
                rooms.list[channel.listed as usize] = to;
            }
            channel.subscribers.len()
        });
        let (len, bytes) = (self.index.len(), self.index.allocation_size());
        // An entry takes 5 bytes, and the index has twice as many as it needs for these afterwards.
        if len <= INDEX_WORK && bytes > 16 * 1024 && len * 40 < bytes {
            let hash =
                |at: &u32| self.channels[*at as usize].as_ref().map_or(0, |it| it.name.hash());
            self.index.shrink_to(len * 2, hash);
        }
    }
}

/// Places looked at, and subscribers corrected, in one sweep.
const PACK_WORK: usize = 16_384;
/// The index is made smaller in one go, once it has no more entries than this.
const INDEX_WORK: usize = 65_536;
