//! Applications that a reload of the configuration adds.
//!
//! A node skips the entries of applications that it does not have. When a reload adds one, other
//! nodes may have had it for some time, and the log has what is true of it. So the node reads the
//! log from its beginning once more. The entries of the added applications take full effect then,
//! in their order; of all others it does nothing with what it has applied before. No client of the
//! application is served until all cores have taken what was read.
//!
//! Each core takes a configuration at a time of its own, and would not keep what comes of an
//! application that it does not know. So until all cores have it, entries of the application are
//! skipped as before.

use super::keys::LoggedKeys;
use super::places::{MARGIN_MS, YOUNG_MS};
use super::repeats::AppliedNumbers;
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{Hash, Hasher};

/// The maximum number of application ids that are remembered because entries of them were skipped.
/// If there are more, the log is read for every application that is added.
const IDS: usize = 4096;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct AddedApps {
    /// How long the log keeps every entry, in milliseconds.
    keep_ms: u64,
    /// The version of the configuration whose applications are known here.
    version: u32,
    /// The applications whose entries are skipped still, by their numbers, with the version of the
    /// configuration that has added them.
    pending: BTreeMap<u32, u32>,
    reading: Option<AddedReading>,
    skipped: SkippedIds,
}

/// The log is read from its beginning for the sake of added applications.
#[derive(Debug)]
pub(super) struct AddedReading {
    apps: BTreeSet<u32>,
    position: u64,
    target: u64,
    /// The first entry of which is known that nothing after it has expired, and when it was read,
    /// in milliseconds.
    young: Option<(u64, u64)>,
    /// What of the applications was applied in this reading.
    pub(super) applied: AppliedNumbers,
    pub(super) keys: LoggedKeys,
}

/// What the cores must know of the reading.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct AddedNews {
    /// The numbers of the applications.
    pub(super) apps: Vec<u32>,
    /// The sequence number up to which entries of them may have expired unread.
    pub(super) known_after: u64,
}

/// The ids of applications of which entries were skipped, as digests.
#[derive(Debug, Default)]
struct SkippedIds {
    digests: HashSet<u64>,
    /// Whether there are more than are remembered.
    are_many: bool,
}

impl AddedApps {
    /// Nothing was added or skipped, and the log keeps every entry for `keep_ms` milliseconds.
    pub(super) fn new(keep_ms: u64) -> AddedApps {
        AddedApps {
            keep_ms,
            version: 0,
            pending: BTreeMap::new(),
            reading: None,
            skipped: SkippedIds::default(),
        }
    }

    /// Notes the applications, by their numbers, that a configuration of this version has and that
    /// were not read.
    pub(super) fn note_config(&mut self, version: u32, unread: impl Iterator<Item = u32>) {
        if std::mem::replace(&mut self.version, version) == version {
            return;
        }
        for app in unread {
            if !self.is_reading(app) {
                self.pending.entry(app).or_insert(version);
            }
        }
    }

    /// Whether entries of an application are skipped, although the node has it.
    pub(super) fn is_pending(&self, app: u32) -> bool {
        self.pending.contains_key(&app)
    }

    /// Whether an application waits until it may be read.
    pub(super) fn is_waiting(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Whether the log is read for the sake of an application.
    pub(super) fn is_reading(&self, app: u32) -> bool {
        self.reading.as_ref().is_some_and(|reading| reading.apps.contains(&app))
    }

    /// The reading, if it is for the sake of this application.
    pub(super) fn reading_of(&mut self, app: u32) -> Option<&mut AddedReading> {
        self.reading.as_mut().filter(|reading| reading.apps.contains(&app))
    }

    /// Notes that an entry of an application with this id was skipped.
    pub(super) fn note_skipped(&mut self, id: &str) {
        self.skipped.note(id);
    }

    /// The applications that may be served now because nothing of them was skipped.
    /// `have_version` says whether all cores have the configuration of a version.
    pub(super) fn take_unskipped<'i>(
        &mut self,
        have_version: impl Fn(u32) -> bool,
        id_of: impl Fn(u32) -> Option<&'i str>,
    ) -> Vec<u32> {
        let is_ready = |app: &u32, version: &u32| {
            have_version(*version) && id_of(*app).is_none_or(|id| !self.skipped.has(id))
        };
        let ready = self.pending.iter().filter(|(app, version)| is_ready(app, version));
        let ready: Vec<u32> = ready.map(|(app, _)| *app).collect();
        self.pending.retain(|app, _| !ready.contains(app));
        ready
    }

    /// Begins to read the log from its beginning up to the sequence number `target` for the sake of
    /// the applications that all cores have, unless it is read already.
    pub(super) fn begin(
        &mut self,
        have_version: impl Fn(u32) -> bool,
        target: u64,
    ) -> Option<AddedNews> {
        if self.reading.is_some() {
            return None;
        }
        let ready = self.pending.iter().filter(|(_, version)| have_version(**version));
        let apps: BTreeSet<u32> = ready.map(|(app, _)| *app).collect();
        if apps.is_empty() {
            return None;
        }
        self.pending.retain(|app, _| !apps.contains(app));
        let reading = self.reading.insert(AddedReading {
            apps,
            position: 0,
            target,
            young: None,
            applied: AppliedNumbers::default(),
            keys: LoggedKeys::default(),
        });
        Some(reading.news(target))
    }

    /// The position after which the log is to be delivered, if it is read.
    pub(super) fn position(&self) -> Option<u64> {
        self.reading.as_ref().map(|reading| reading.position)
    }

    /// Notes that the log is another one, or has lost its end, and that its last entry has this
    /// sequence number: the reading begins again.
    pub(super) fn begin_log(&mut self, last: u64) -> Option<AddedNews> {
        let reading = self.reading.as_mut()?;
        (reading.position, reading.target, reading.young) = (0, last, None);
        reading.applied.begin_log();
        reading.keys.begin_log();
        Some(reading.news(last))
    }

    /// Notes an entry that was stored at `stored_ms` of the engine's time, `age_ms` ago. Returns
    /// whether it is new in this reading, and what has changed before it takes effect.
    pub(super) fn takes(
        &mut self,
        sequence: u64,
        (stored_ms, age_ms): (u64, u64),
        now_ms: u64,
    ) -> (bool, Option<AddedNews>) {
        let is_young = age_ms.saturating_add(YOUNG_MS) <= self.keep_ms;
        let reading = self.reading.as_mut().filter(|reading| sequence > reading.position);
        let Some(reading) = reading else { return (false, None) };
        reading.position = sequence;
        reading.keys.note_time(stored_ms, now_ms);
        let is_first = is_young && reading.young.is_none();
        if is_first {
            reading.young = Some((sequence, now_ms));
        }
        (true, is_first.then(|| reading.news(sequence.saturating_sub(1))))
    }

    /// Notes that everything that is stored has been delivered.
    pub(super) fn current(&mut self) {
        if let Some(reading) = &mut self.reading {
            reading.position = reading.position.max(reading.target);
        }
    }

    /// The reading and what the cores must know, if it has come to its end.
    pub(super) fn take_done(&mut self, now_ms: u64) -> Option<(AddedReading, AddedNews)> {
        let reading = self.reading.take_if(|reading| reading.position >= reading.target)?;
        // What was read later than this may have been preceded by entries that had expired.
        let in_time = |read_ms: u64| now_ms.saturating_sub(read_ms) + MARGIN_MS < YOUNG_MS;
        let young = reading.young.filter(|(_, read_ms)| in_time(*read_ms));
        let known_after = match young {
            Some((sequence, _)) => sequence.saturating_sub(1),
            None => reading.position,
        };
        let news = reading.news(known_after);
        Some((reading, news))
    }
}

impl AddedReading {
    fn news(&self, known_after: u64) -> AddedNews {
        AddedNews { apps: self.apps.iter().copied().collect(), known_after }
    }
}

impl SkippedIds {
    fn note(&mut self, id: &str) {
        let digest = digest(id);
        if self.are_many || self.digests.contains(&digest) {
            return;
        }
        if self.digests.len() >= IDS {
            (self.are_many, self.digests) = (true, HashSet::new());
            return;
        }
        self.digests.insert(digest);
    }

    fn has(&self, id: &str) -> bool {
        self.are_many || self.digests.contains(&digest(id))
    }
}

/// Two ids may have the same, which only costs a reading.
fn digest(id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests;
