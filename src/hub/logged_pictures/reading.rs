//! What becomes of pictures when the log is read from its beginning, or is another one. All
//! channels change then, so that is done in the slices of a visit.

use crate::hub::event::{Event, Retention};
use crate::hub::log_view::LogPlace;
use crate::hub::logged_picture::ReadingPhase;
use crate::hub::{Hub, HubMessage, StateVisit};

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

    /// Notes that the log is another one. All pictures are stated again, which a visit of all
    /// channels begins.
    pub(in crate::hub) fn begin_log_of_pictures(&mut self) {
        // Before the first log there is no picture.
        if let Some(pictures) = self.pictures.as_mut().filter(|pictures| pictures.has_begun) {
            pictures.is_new = true;
            self.begin_visit(StateVisit::NewLog);
        }
    }

    /// Forgets which pictures are to be sent, because a visit of all channels plans that again.
    pub(in crate::hub) fn clear_listed_pictures(&mut self) {
        if let Some(pictures) = &mut self.pictures {
            pictures.listed.clear();
        }
    }

    /// Begins to read the log again. If it is the same log, changes may have been missed.
    pub(in crate::hub) fn begin_reading_pictures(&mut self) {
        if let Some(pictures) = &mut self.pictures {
            let hides = !std::mem::take(&mut pictures.is_new);
            pictures.phase = ReadingPhase::Again { hides };
        }
    }

    /// Ends the reading of the log.
    pub(in crate::hub) fn end_reading_pictures(&mut self) {
        let (Some(pictures), Some(log)) = (&mut self.pictures, &self.log) else { return };
        (pictures.phase, pictures.is_new) = (ReadingPhase::Done, false);
        pictures.known_after = log.reached.max(log.base());
    }

    /// Ends the first reading of the log, if that is over.
    pub(in crate::hub) fn sweep_pictures(&mut self) {
        let Some(pictures) = &self.pictures else { return };
        let is_current = self.log.is_some_and(|log| log.is_current()) && !self.is_visiting();
        if pictures.phase == ReadingPhase::Joining && pictures.has_begun && is_current {
            self.begin_visit(StateVisit::FirstReadEnd);
        }
    }

    /// Does what a visit of all channels does to the picture of one. Returns the number of changes.
    pub(in crate::hub) fn visit_picture(&mut self, visit: StateVisit, at: u32) -> usize {
        let Hub { channels, pictures: Some(pictures), log: Some(log), kept, .. } = self else {
            return 0;
        };
        let Some(Some(channel)) = channels.get_mut(at as usize) else { return 0 };
        let Some(home) = &mut channel.home else { return 0 };
        let Some(logged) = &mut home.logged else { return 0 };
        let (changes, has_picture) = (1 + logged.held.len(), home.picture.is_some());
        match visit {
            StateVisit::NodeGone(_) => return 0,
            StateVisit::NewLog => {
                pictures.give_up(logged);
                pictures.forget_held(logged);
                logged.begin_log(log.base().max(1));
                pictures.unplan(logged);
                if has_picture || logged.is_partial {
                    pictures.plan(logged, &channel.name, kept.now_ms);
                } else {
                    home.logged = None;
                    self.release_if_empty(at);
                }
            }
            StateVisit::Restate => {
                pictures.give_up(logged);
                if !logged.is_stated(has_picture) {
                    pictures.unplan(logged);
                    pictures.plan(logged, &channel.name, kept.now_ms);
                }
            }
            StateVisit::RefreshBegin => {
                if pictures.phase == (ReadingPhase::Again { hides: true }) {
                    pictures.give_up(logged);
                    pictures.forget_held(logged);
                    pictures.unplan(logged);
                    home.logged = None;
                    self.change_picture(at, |picture| {
                        *picture = None;
                        0
                    });
                }
            }
            StateVisit::FirstReadEnd | StateVisit::RefreshEnd { .. } => {
                // The rest of a picture of which pieces are missing is being written.
                match (logged.is_partial, logged.is_behind()) {
                    (true, _) => {}
                    (false, true) => {
                        pictures.held_bytes -= logged.held.forget_changes(u64::MAX);
                    }
                    (false, false) => pictures.forget_held(logged),
                }
            }
        }
        changes
    }
}
