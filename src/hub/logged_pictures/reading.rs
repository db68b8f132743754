//! What becomes of pictures when the log is read from its beginning, or is another one.

use crate::hub::event::{Event, Retention};
use crate::hub::home::Home;
use crate::hub::log_view::LogPlace;
use crate::hub::logged_picture::{LoggedPicture, LoggedPictures, ReadingPhase};
use crate::hub::name::ChannelName;
use crate::hub::{Hub, HubMessage};

impl<M: HubMessage> Hub<M> {
    /// Makes a change of a picture again, because the log is read from its beginning. It is not
    /// delivered. This core is the channel's home.
    pub fn fold_picture(
        &mut self,
        (app, name): (u32, &str),
        event: &Event<M>,
        place: LogPlace,
        now_ms: u64,
    ) {
        let hides = ReadingPhase::Again { hides: true };
        let Retention::Picture(change) = event.retain else { return };
        if self.pictures.as_ref().is_some_and(|pictures| pictures.phase == hides) {
            let at = self.find_or_insert(&self.hasher.name(app, name));
            self.note_change_of_picture(at, change, event.encodings(), Some(place), now_ms);
            self.picture(at, change, event.encodings());
        }
    }

    fn with_logged(
        &mut self,
        mut call: impl FnMut(&mut LoggedPictures, &ChannelName, &mut Home<M>),
    ) -> Vec<u32> {
        let Hub { channels, pictures, .. } = self;
        let Some(pictures) = pictures else { return Vec::new() };
        let mut found = Vec::new();
        for (at, channel) in (0..).zip(channels.iter_mut()) {
            let Some(channel) = channel else { continue };
            if let Some(home) = channel.home.as_mut().filter(|home| home.logged.is_some()) {
                call(pictures, &channel.name, home);
                found.push(at);
            }
        }
        found
    }

    /// States all pictures again, because the log is another one.
    pub(in crate::hub) fn restate_pictures(&mut self) {
        let base = self.log.map_or(0, |log| log.base()).max(1);
        let now_ms = self.kept.now_ms;
        let all = self.with_logged(|pictures, name, home| {
            let has_picture = home.picture.is_some();
            let Some(logged) = &mut home.logged else { return };
            pictures.give_up(logged);
            pictures.forget_held(logged);
            (logged.changed, logged.stated, logged.count) = (base, 0, 0);
            match has_picture {
                true => pictures.plan(logged, name, now_ms),
                false => {
                    pictures.unplan(logged);
                    home.logged = None;
                }
            }
        });
        if let Some(pictures) = &mut self.pictures {
            pictures.is_new = pictures.has_begun;
            pictures.listed.clear();
        }
        all.into_iter().for_each(|at| self.release_if_empty(at));
    }

    /// States again what was on its way.
    pub(in crate::hub) fn retry_pictures(&mut self) {
        let now_ms = self.kept.now_ms;
        self.with_logged(|pictures, name, home| {
            if let Some(logged) = home.logged.as_mut().filter(|logged| logged.outgoing.is_some()) {
                pictures.give_up(logged);
                pictures.plan(logged, name, now_ms);
            }
        });
        if let Some(pictures) = &mut self.pictures {
            pictures.listed.clear();
        }
    }

    /// Begins to read the log again. If it is the same log, changes may have been missed.
    pub(in crate::hub) fn begin_reading_pictures(&mut self) {
        let Some(pictures) = &mut self.pictures else { return };
        let hides = !std::mem::take(&mut pictures.is_new);
        pictures.phase = ReadingPhase::Again { hides };
        if !hides {
            return;
        }
        let all = self.with_logged(|pictures, _, home| {
            let Some(logged) = &mut home.logged else { return };
            pictures.give_up(logged);
            pictures.forget_held(logged);
            pictures.unplan(logged);
            **logged = LoggedPicture::default();
        });
        for at in all {
            self.change_picture(at, |picture| {
                *picture = None;
                0
            });
        }
    }

    /// Ends the reading of the log.
    pub(in crate::hub) fn end_reading_pictures(&mut self) {
        let Some(pictures) = &mut self.pictures else { return };
        (pictures.phase, pictures.is_new) = (ReadingPhase::Done, false);
        let all = self.with_logged(|pictures, _, home| {
            if let Some(logged) = home.logged.as_mut().filter(|logged| !logged.is_partial) {
                pictures.forget_held(logged);
            }
        });
        all.into_iter().for_each(|at| self.forget_logged(at));
    }

    /// Ends the first reading of the log, if that is over.
    pub(in crate::hub) fn sweep_pictures(&mut self) {
        let Some(pictures) = &self.pictures else { return };
        let is_current = self.log.is_some_and(|log| log.is_current());
        if pictures.phase == ReadingPhase::Joining && pictures.has_begun && is_current {
            self.end_reading_pictures();
        }
    }
}
