//! Pictures in a cluster: every node puts a picture together from the changes in the log, and one
//! node states the whole picture there from time to time, for nodes that start after the changes
//! have expired.
//!
//! A stated picture names its last change. Changes that follow it may be stored before it, so a
//! node that reads the log from its beginning keeps the changes that it reads, and makes those that
//! follow again.
//!
//! A piece replaces the one of the same number, whoever has written it and however late. So each
//! home knows to which picture each piece in the log belongs, and the picture is stated again
//! unless all pieces are of the picture that the home has.

use super::event::{Event, Mode, PictureChange, Retention};
use super::home::Home;
use super::log_view::{LogPlace, LogView, is_base};
use super::logged_picture::{LoggedPicture, LoggedPictures, OutgoingPicture, PIECES, ReadingPhase};
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
        if is_whole {
            pictures.forget_held(logged);
            logged.learn(place.serial);
        } else if pictures.phase == ReadingPhase::Done && !logged.is_partial {
            // A picture that does not have this change is not needed any more.
            pictures.forget_held(logged);
        } else {
            pictures.held_bytes += logged.held.push(place.serial, change, encodings);
            if pictures.held_bytes > kept.max_bytes {
                pictures.forget_held(logged);
                logged.lose(place.serial);
                kept.losses.kept += 1;
            }
        }
        let has_picture = !matches!(change, PictureChange::Clear);
        pictures.review(logged, (&channel.name, has_picture), now_ms);
    }

    /// Changes the maximum size of the pieces of pictures, in bytes, at least 1. A picture that is
    /// being stated keeps its own.
    pub fn set_piece_bytes(&mut self, bytes: usize) {
        if let Some(pictures) = &mut self.pictures {
            pictures.piece_bytes = bytes;
        }
    }

    /// Lists the pictures that are to be stated: `leads` says whether this node is the one that
    /// does so, which others do for it when it is late. Releases what is known of those that are
    /// none any more.
    pub fn list_due_pictures(&mut self, leads: bool, now_ms: u64) {
        let Hub { channels, index, pictures, .. } = self;
        let Some(pictures) = pictures.as_mut().filter(|it| it.phase == ReadingPhase::Done) else {
            return;
        };
        let late_ms = if leads { 0 } else { OTHERS * pictures.every_ms };
        let mut released = Vec::new();
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
            let Some(home) = channel.and_then(|channel| channel.home.as_mut()) else { continue };
            let Some(logged) = &mut home.logged else { continue };
            logged.due = None;
            if logged.is_dropped || logged.is_partial || logged.outgoing.is_some() {
                continue;
            }
            if !logged.is_stated(home.picture.is_some()) {
                // Another node is stating a picture that this one does not have.
                if !logged.is_behind() {
                    pictures.listed.push_back(name);
                }
            } else if home.picture.is_none() {
                pictures.forget_held(logged);
                home.logged = None;
                released.extend(at);
            }
        }
        released.into_iter().for_each(|at| self.release_if_empty(at));
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
                let outgoing = OutgoingPicture::new(
                    serial,
                    picture.as_ref(),
                    logged.piece_count(),
                    piece_bytes,
                );
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
        let PicturePiece { serial, index, count, .. } = *piece;
        let phase = self.pictures.as_ref().filter(|_| index < PIECES)?.phase;
        // The end of a picture matters only if an older one may be read later.
        let is_noted = index < count || index == 0 && phase != ReadingPhase::Done;
        let found = self.find(app, name, self.hasher.hash(app, name));
        let at = match found {
            Some(at) => at,
            None if is_noted => self.insert(self.hasher.name(app, name)),
            None => return None,
        };
        let Hub { channels, pictures: Some(pictures), kept, log: Some(log), .. } = self else {
            return None;
        };
        let channel = channels[at as usize].as_mut()?;
        let home = channel.home.get_or_insert_default();
        if home.logged.is_none() && !is_noted {
            return None;
        }
        let logged = home.logged.get_or_insert_with(|| pictures.unnoticed(piece, log));
        logged.note(piece);
        pictures.hold(logged, piece, kept.max_bytes);
        if is_ours {
            pictures.sent(logged, &channel.name, piece);
        }
        let is_needed = serial >= logged.needed_from(phase);
        if is_needed && index == 0 && count == 0 {
            return Some(Vec::new());
        }
        if is_needed
            && let Some((_, count)) = logged.whole().filter(|(whole, _)| *whole == serial)
            && let Some(bytes) = logged.held.whole(count)
        {
            pictures.held_bytes -= logged.held.forget_pieces();
            return Some(bytes);
        }
        logged.note_partial(phase);
        pictures.review(logged, (&channel.name, home.picture.is_some()), kept.now_ms);
        None
    }

    /// Takes a picture of the log, after [`Hub::note_picture_piece`] has returned its bytes, with
    /// the changes that follow it. An empty one is none. Returns false if it cannot be read; it is
    /// not known then.
    pub fn adopt_picture(
        &mut self,
        (app, name): (u32, &str),
        (serial, bytes): (u64, &[u8]),
        (envelope, compresses): (Envelope, bool),
        now_ms: u64,
    ) -> bool {
        let Some(at) = self.find(app, name, self.hasher.hash(app, name)) else { return true };
        let Hub { channels, pictures: Some(pictures), .. } = self else { return true };
        let home = channels[at as usize].as_mut().and_then(|channel| channel.home.as_mut());
        let Some(logged) = home.and_then(|home| home.logged.as_mut()) else { return true };
        let mut read = None;
        if !bytes.is_empty() {
            read = Picture::read(bytes, Arc::new(envelope), compresses);
            if read.is_none() {
                logged.lose(serial.saturating_add(1));
                return false;
            }
        }
        logged.learn(serial);
        pictures.held_bytes -= logged.held.forget_changes(serial);
        let following = logged.held.changes();
        if pictures.phase == ReadingPhase::Done {
            pictures.forget_held(logged);
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
        let Hub { channels, pictures: Some(pictures), .. } = self else { return true };
        if let Some(channel) = &mut channels[at as usize]
            && let Some(Home { logged: Some(logged), picture, .. }) = channel.home.as_deref_mut()
        {
            pictures.review(logged, (&channel.name, picture.is_some()), now_ms);
        }
        true
    }
}

impl LoggedPictures {
    /// What is known of a picture of which a piece is in the log, though the channel has none here.
    /// If its last change was read here, a later one has ended the picture, and the piece was late:
    /// that there is none must be stated again.
    fn unnoticed(&self, piece: &PicturePiece, log: &LogView) -> Box<LoggedPicture> {
        let was_read = piece.serial > self.known_after.max(log.floor) && !is_base(piece.serial);
        let is_late = was_read && self.phase == ReadingPhase::Done;
        let mut logged = Box::<LoggedPicture>::default();
        logged.changed = if is_late { log.reached } else { 0 };
        logged
    }
}

#[cfg(feature = "zenith")]
#[cfg(test)]
mod tests;
