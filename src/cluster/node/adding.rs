//! What the node does about applications that a reload has added.

use super::ClusterNode;
use crate::cluster::added::AddedNews;
use crate::cluster::arrival::{AddedStart, Arrival};
use crate::cluster::engine::Engine;
use crate::cluster::entry::Entry;
use crate::cluster::follower::Taken;
use crate::cluster::repeats::Repeat;
use crate::dialect::Env;

/// The time between two looks at whether all cores have a configuration, in milliseconds.
const LOOK_MS: u64 = 50;

impl ClusterNode {
    /// Begins to read the log for the sake of applications that a reload has added, if entries of
    /// them were skipped and all cores have the configuration.
    pub(super) fn begin_added(&mut self, engine: &mut dyn Engine, env: &Env) {
        let unread = env.apps.iter().filter(|(_, app)| app.awaits_reading());
        self.added.note_config(env.runtime.version, unread.map(|(number, _)| number));
        if !self.added.is_waiting() {
            return;
        }
        let cores = self.setup.cores;
        let have_version = |version| env.runtime.cluster.have_version(cores, version);
        let id_of = |app| env.apps.find(app).map(|app| &*app.config.id);
        let apps = self.added.take_unskipped(have_version, id_of);
        self.end_added_apps(&AddedNews { apps, known_after: 0 }, env);
        let Some(news) = self.added.begin(have_version, self.follower.end()) else { return };
        let apps: Vec<_> = news.apps.iter().filter_map(|app| id_of(*app)).collect();
        tracing::info!(?apps, "cluster: the log is read for applications that were added");
        self.setup.counters.cluster_added_readings.add(1);
        self.note_added(&news, false);
        if self.is_up {
            engine.follow(0);
        }
    }

    /// When the node looks again for cores that have taken a configuration, in milliseconds.
    pub(super) fn added_deadline_ms(&self) -> u64 {
        if self.added.is_waiting() { self.turn_ms + LOOK_MS } else { u64::MAX }
    }

    /// Tells the cores what is known of the log about added applications.
    pub(super) fn note_added(&mut self, news: &AddedNews, is_read: bool) {
        let start = AddedStart { known_after: news.known_after, is_read };
        for &app in &news.apps {
            self.send_to_all(&Arrival::AddedApp { app, start });
        }
    }

    /// Ends the reading for added applications, if it has come to its end: they are served when
    /// all cores have taken what was read.
    pub(super) fn end_added(&mut self, env: &Env, now_ms: u64) {
        let Some((mut reading, news)) = self.added.take_done(now_ms) else { return };
        for &app in &news.apps {
            self.keys.adopt(app, &mut reading.keys);
        }
        self.end_added_apps(&news, env);
    }

    fn end_added_apps(&mut self, news: &AddedNews, env: &Env) {
        let apps = news.apps.iter().filter_map(|app| env.apps.find(*app));
        apps.for_each(|app| app.await_cores(self.setup.cores));
        self.note_added(news, true);
    }

    /// The number of the application that the log names so, unless its entries are skipped.
    pub(super) fn logged_app(&mut self, id: &str, env: &Env) -> Option<u32> {
        let app = env.app_of_log_id(id).filter(|app| !self.added.is_pending(*app));
        if app.is_none() {
            self.added.note_skipped(id);
        }
        app
    }

    /// Whether an entry takes full effect because the log is read for the sake of its application.
    pub(super) fn is_of_added(&self, id: &str, env: &Env) -> bool {
        env.app_of_log_id(id).is_some_and(|app| self.added.is_reading(app))
    }

    /// Notes the number of an entry with events or states, which is `taken` so as one of this log.
    /// Returns whether it was applied before.
    pub(super) fn note_number(
        &mut self,
        entry: &Entry<'_>,
        app: Option<u32>,
        taken: Taken,
    ) -> Repeat {
        let (node, number) = (entry.node, entry.number);
        let mut repeat = Repeat::New;
        match taken {
            Taken::Apply => repeat = self.applied.takes(node, number),
            Taken::Fold => self.applied.note(node, number),
            Taken::Repeated => {}
        }
        // Its number was noted when the entry was skipped.
        if let Some(reading) = app.and_then(|app| self.added.reading_of(app)) {
            repeat = reading.applied.takes(node, number);
        }
        repeat
    }
}
