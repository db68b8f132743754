//! Pictures in a cluster: every node puts a picture together from the changes in the log, and one
//! node states the whole picture there from time to time, for nodes that start after the changes
//! have expired.
//!
//! A stated picture names its last change. Changes that follow it may be stored before it, so a
//! node that reads the log from its beginning keeps the changes that it reads, and makes those that
//! follow again.

use super::event::{Event, Mode, PictureChange, Retention};
use super::home::Home;
use super::log_view::LogPlace;
use super::logged_picture::{
    Collected, LoggedPicture, LoggedPictures, OutgoingPicture, ReadingPhase,
};
use super::own_states::{PicturePiece, StateProposal, Statement};
use super::picture::Picture;
use super::{Encodings, Hub, HubMessage};
use crate::codec::Envelope;
use std::sync::Arc;

mod reading;

/// The maximum number of pieces of one core that are on their way into the log.
const UNDER_WAY: usize = 64;
/// No further picture is written while those that are being sent have this many bytes.
const SENT_BYTES: usize = 1 << 20;
/// How much later than the leading node another node states a picture, in multiples of the time
/// that the leading node waits.
const OTHERS: u64 = 2;

impl<M: HubMessage> Hub<M> {
    /// Whether the end of a picture must be noted, though the channel has none here: a picture that
    /// is stated later in the log may be older.
    pub(super) fn notes_end_of_picture(&self, event: &Event<M>) -> bool {
        let reads = |pictures: &LoggedPictures| pictures.phase != ReadingPhase::Done;
        matches!(event.retain, Retention::Picture(PictureChange::Clear))
            && self.pictures.as_ref().is_some_and(|pictures| reads(pictures))
    }

    /// Notes a change of a channel's picture at a place of the log.
    pub(super) fn note_change_of_picture(
        &mut self,
        at: u32,
        change: PictureChange,
        encodings: Option<&Arc<Encodings>>,
        place: Option<LogPlace>,
        now_ms: u64,
    ) {
        let Hub { channels, pictures, kept, .. } = self;
        let (Some(pictures), Some(place)) = (pictures, place) else { return };
        let Some(channel) = &mut channels[at as usize] else { return };
        let logged = channel.home.get_or_insert_default().logged.get_or_insert_default();
        logged.changed = logged.changed.max(place.serial);
        let is_whole = match change {
            PictureChange::Clear | PictureChange::Install { .. } => true,
            PictureChange::Update(mode) => mode == Mode::Replace,
        };
        logged.is_dropped &= !is_whole;
        if pictures.phase != ReadingPhase::Done || logged.is_partial {
            pictures.held_bytes += logged.held.push(place.serial, change, encodings);
            if pictures.held_bytes > kept.max_bytes {
                pictures.forget_held(logged);
                logged.is_partial = true;
                kept.losses.kept += 1;
            }
        }
        pictures.plan(logged, &channel.name, now_ms.saturating_add(pictures.every_ms));
    }

    /// Lists the pictures that are to be stated: `leads` says whether this node is the one that
    /// does so, which others do for it when it is late.
    pub fn list_due_pictures(&mut self, leads: bool, now_ms: u64) {
        let Hub { channels, index, pictures, .. } = self;
        let Some(pictures) = pictures.as_mut().filter(|it| it.phase == ReadingPhase::Done) else {
            return;
        };
        let late_ms = if leads { 0 } else { OTHERS * pictures.every_ms };
        while let Some(first) = pictures.due.first_entry()
            && first.key().0.saturating_add(late_ms) <= now_ms
        {
            let name = first.remove();
            let is_it = |at: &u32| {
                channels[*at as usize]
                    .as_ref()
                    .is_some_and(|it| it.name.is(name.app(), name.text()))
            };
            let at = index.find(name.hash(), |at| is_it(at)).copied();
            let channel = at.and_then(|at| channels[at as usize].as_mut());
            let home = channel.and_then(|channel| channel.home.as_mut());
            let Some(logged) = home.and_then(|home| home.logged.as_mut()) else { continue };
            logged.due = None;
            let is_known = !logged.is_dropped && !logged.is_partial;
            if is_known && logged.changed > logged.stated && logged.outgoing.is_none() {
                pictures.listed.push_back(name);
            }
        }
    }

    /// The next piece of a picture to be taken into the log.
    pub fn next_picture(&mut self) -> Option<StateProposal<M>> {
        let is_current = self.log.is_some_and(|log| log.is_current()) && !self.is_visiting();
        loop {
            let pictures = self.pictures.as_mut().filter(|_| is_current)?;
            let is_full = pictures.under_way >= UNDER_WAY || pictures.sent_bytes >= SENT_BYTES;
            if is_full && pictures.under_way > 0 {
                return None;
            }
            let name = pictures.listed.pop_front()?;
            let at = self.find(name.app(), name.text(), name.hash());
            let Hub { channels, pictures, .. } = self;
            let channel = at.and_then(|at| channels[at as usize].as_mut());
            let (Some(home), Some(pictures)) = (channel.and_then(|it| it.home.as_mut()), pictures)
            else {
                continue;
            };
            let Home { logged: Some(logged), picture, .. } = &mut **home else { continue };
            if logged.outgoing.is_none() {
                let (serial, piece_bytes) = (logged.changed, pictures.piece_bytes);
                let outgoing =
                    OutgoingPicture::new(serial, picture.as_ref(), logged.count, piece_bytes);
                pictures.sent_bytes += outgoing.bytes.len();
                logged.outgoing = Some(outgoing);
            }
            let Some(outgoing) = &mut logged.outgoing else { continue };
            if outgoing.under_way.is_none()
                && let Some(piece) = outgoing.next_piece()
            {
                pictures.under_way += 1;
                let (app, name) = (name.app(), name.shared());
                return Some(StateProposal { app, name, state: Statement::Picture(piece) });
            }
        }
    }

    /// Notes that a piece was not taken into the log. The picture is stated again later.
    pub fn picture_failed(&mut self, app: u32, name: &str, now_ms: u64) {
        let found = self.find(app, name, self.hasher.hash(app, name));
        let Hub { channels, pictures, .. } = self;
        let channel = found.and_then(|at| channels[at as usize].as_mut());
        let (Some(channel), Some(pictures)) = (channel, pictures) else { return };
        let Some(logged) = channel.home.as_mut().and_then(|home| home.logged.as_mut()) else {
            return;
        };
        pictures.give_up(logged);
        pictures.plan(logged, &channel.name, now_ms.saturating_add(pictures.every_ms));
    }

    /// Notes a piece of the log. Returns the bytes of the picture for [`Hub::adopt_picture`], if it
    /// is whole and this node needs it. This core is the channel's home.
    pub fn note_picture_piece(
        &mut self,
        (app, name): (u32, &str),
        piece: &PicturePiece,
        is_ours: bool,
    ) -> Option<Vec<u8>> {
        let found = self.find(app, name, self.hasher.hash(app, name));
        let at = match found {
            Some(at) => at,
            None if piece.index < piece.count => self.insert(self.hasher.name(app, name)),
            None => return None,
        };
        let Hub { channels, pictures, kept, .. } = self;
        let (Some(channel), Some(pictures)) = (&mut channels[at as usize], pictures) else {
            return None;
        };
        let home = channel.home.get_or_insert_default();
        let logged = home.logged.get_or_insert_default();
        if is_ours {
            pictures.sent(logged, &channel.name, piece);
        }
        if piece.serial < logged.stated {
            // A node that was late has replaced a piece of a newer picture.
            logged.stated = piece.serial;
            logged.count = logged.count.max(piece.index + 1);
            pictures.plan(logged, &channel.name, kept.now_ms.saturating_add(pictures.every_ms));
        }
        if piece.index == 0 {
            (logged.stated, logged.count) = (logged.stated.max(piece.serial), piece.count);
            if logged.changed <= logged.stated {
                pictures.unplan(logged);
            }
        }
        let mut whole = None;
        // A picture with a change that this node has not read is one of a log before this one.
        let is_needed = pictures.phase != ReadingPhase::Done
            || logged.is_partial
            || piece.serial > logged.changed;
        if is_needed {
            match logged.held.collect(piece, &mut pictures.held_bytes, kept.max_bytes) {
                Collected::Whole(bytes) => whole = Some(bytes),
                Collected::Partial => logged.is_partial = true,
                Collected::Nothing => {}
            }
        }
        if whole.is_none() {
            self.forget_logged(at);
        }
        whole
    }

    /// Takes a picture of the log, after [`Hub::note_picture_piece`] has returned its bytes, with
    /// the changes that follow it. An empty one is none. Returns false if it cannot be read.
    pub fn adopt_picture(
        &mut self,
        (app, name): (u32, &str),
        (serial, bytes): (u64, &[u8]),
        (envelope, compresses): (Envelope, bool),
        now_ms: u64,
    ) -> bool {
        let Some(at) = self.find(app, name, self.hasher.hash(app, name)) else { return true };
        let mut read = None;
        if !bytes.is_empty() {
            read = Picture::read(bytes, Arc::new(envelope), compresses);
            if read.is_none() {
                return false;
            }
        }
        let logged = |hub: &mut Hub<M>| {
            let home = hub.channels[at as usize].as_mut()?.home.as_mut()?;
            home.logged.take()
        };
        let Some(mut logged) = logged(self) else { return true };
        logged.changed = logged.changed.max(serial);
        (logged.is_partial, logged.is_dropped) = (false, false);
        let mut following = Vec::new();
        if let Some(pictures) = &mut self.pictures {
            pictures.held_bytes -= logged.held.forget_up_to(serial);
            following = logged.held.changes();
            if pictures.phase == ReadingPhase::Done {
                pictures.forget_held(&mut logged);
            }
            if let Some(channel) = &self.channels[at as usize]
                && logged.changed > logged.stated
            {
                pictures.plan(&mut logged, &channel.name, now_ms + pictures.every_ms);
            }
        }
        if let Some(channel) = &mut self.channels[at as usize] {
            channel.home.get_or_insert_default().logged = Some(logged);
        }
        self.change_picture(at, |picture| {
            let since = picture.as_ref().map_or(0, |picture| picture.since);
            if let Some(read) = &mut read {
                read.since = since;
            }
            *picture = read;
            0
        });
        for (change, encodings) in following {
            self.picture(at, change, encodings.as_ref());
        }
        self.forget_logged(at);
        true
    }

    /// Releases what is known of a picture that is none, in the log neither.
    fn forget_logged(&mut self, at: u32) {
        let Hub { channels, pictures, .. } = self;
        let Some(Some(channel)) = channels.get_mut(at as usize) else { return };
        let Some(home) = &mut channel.home else { return };
        let Home { logged: found @ Some(_), picture: None, .. } = &mut **home else { return };
        let is_over = |logged: &mut Box<LoggedPicture>| {
            let is_partial = logged.is_partial || logged.is_dropped;
            let waits = logged.outgoing.is_some() || !logged.held.is_empty();
            logged.changed <= logged.stated && !waits && !is_partial
        };
        let reads = pictures.as_ref().is_some_and(|it| it.phase != ReadingPhase::Done);
        if !reads && found.take_if(is_over).is_some() {
            self.release_if_empty(at);
        }
    }
}

#[cfg(feature = "zenith")]
#[cfg(test)]
mod tests;
