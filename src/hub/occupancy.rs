//! The channels that this core is the home of, listed by application, with the number of occupied
//! channels and its limit; and the memory of their tables.

use super::channel::ChannelState;
use super::name::{ChannelName, home_among};
use super::rooms::{Claim, UNLISTED};
use super::{Hub, HubMessage};
use std::sync::Arc;

impl<M: HubMessage> Hub<M> {
    /// Sets the maximum number of occupied channels of each application in the whole process, by
    /// the application's number. This core counts the channels that it is the home of. Its own
    /// limit is an even share and, if there are several cores, an eighth of that share and eight
    /// more, because hashing does not distribute channels evenly. Applications with higher numbers
    /// have no limit.
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

    /// Whether a channel of this home is occupied, or may become occupied by a subscriber with this
    /// claim.
    pub(super) fn has_room(&self, app: u32, at: Option<u32>, claim: Claim) -> bool {
        let Some(bound) = self.bounds.get(app as usize) else { return true };
        let channel = at.and_then(|at| self.channels[at as usize].as_ref());
        let is_occupied = channel.is_some_and(|channel| channel.occupied);
        is_occupied || self.occupied_channels(app) < claim.part_of(*bound)
    }

    /// The number of occupied channels of an application that this core is the home of.
    pub fn occupied_channels(&self, app: u32) -> usize {
        self.rooms.get(&app).map_or(0, |rooms| rooms.occupied)
    }

    /// The channels of an application that this core is the home of, without internal channels,
    /// such as those for one user.
    pub(super) fn rooms_of(&self, app: u32) -> impl Iterator<Item = (u32, &ChannelState<M>)> {
        let list = self.rooms.get(&app).map_or(&[][..], |rooms| &rooms.list);
        list.iter().filter_map(|at| Some((*at, self.channels[*at as usize].as_ref()?)))
    }

    /// Adds a new channel to the list of its application, if this core is its home and the channel
    /// is not internal.
    pub(super) fn enlist(&mut self, at: u32) {
        let Some(channel) = &mut self.channels[at as usize] else { return };
        let is_ours = home_among(channel.name.hash(), self.cores) == self.core;
        if is_ours && !channel.name.text().starts_with('#') {
            let rooms = self.rooms.entry(channel.name.app()).or_default();
            channel.listed = rooms.list.len() as u32;
            rooms.list.push(at);
        }
    }

    /// Removes a released channel, which was at `listed`, from the list of its application.
    pub(super) fn unlist(&mut self, name: &ChannelName, listed: u32, occupied: bool) {
        let many_lists = self.rooms.len() > KEPT_LISTS;
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
        if rooms.list.is_empty() && many_lists {
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

    /// Makes the tables smaller when most of their entries are free. One call does a bounded part
    /// of that work. A visit of all channels would miss those that are moved.
    pub(super) fn pack(&mut self) {
        if self.is_visiting() {
            return;
        }
        let Hub { channels, index, members, recount, kept, rooms, .. } = self;
        channels.pack(PACK_WORK, |channel, from, to| {
            if let Some(at) = index.find_mut(channel.name.hash(), |at| *at == from) {
                *at = to;
            }
            members.moved(&channel.subscribers, to);
            if channel.recounting {
                recount.push(to);
            }
            if let Some(place) = channel.home.as_ref().and_then(|home| home.place) {
                kept.keepers.moved(place, to);
            }
            if channel.listed != UNLISTED
                && let Some(rooms) = rooms.get_mut(&channel.name.app())
            {
                rooms.list[channel.listed as usize] = to;
            }
            channel.subscribers.len()
        });
        let (len, bytes) = (self.index.len(), self.index.allocation_size());
        // An entry takes 5 bytes. Afterwards the index has room for twice its entries.
        if len <= INDEX_WORK && bytes > 16 * 1024 && len * 40 < bytes {
            let hash =
                |at: &u32| self.channels[*at as usize].as_ref().map_or(0, |it| it.name.hash());
            self.index.shrink_to(len * 2, hash);
        }
    }
}

/// The number of applications whose lists are kept while they have no channel: an application whose
/// only channel comes and goes needs no allocation for it.
const KEPT_LISTS: usize = 64;
/// The approximate number of places examined and subscribers updated in one sweep.
const PACK_WORK: usize = 16_384;
/// The maximum number of entries of an index that is made smaller, which is done in one step.
const INDEX_WORK: usize = 65_536;
