use super::*;
use crate::cluster::repeats::Repeat;

const KEEP_MS: u64 = 60_000;
/// The largest age at which an entry is young.
const YOUNG: u64 = KEEP_MS - YOUNG_MS;

/// Applications 1 and 2, of which entries were skipped under the ids "one" and "two".
fn skipped() -> AddedApps {
    let mut added = AddedApps::new(KEEP_MS);
    added.note_skipped("one");
    added.note_skipped("two");
    added
}

fn id_of(app: u32) -> Option<&'static str> {
    ["none", "one", "two", "three"].get(app as usize).copied()
}

/// The reading of application 1 up to entry 9, which has begun.
fn reading() -> AddedApps {
    let mut added = skipped();
    added.note_config(1, [1].into_iter());
    assert_eq!(added.begin(|_| true, 9), Some(news(&[1], 9)));
    added
}

fn news(apps: &[u32], known_after: u64) -> AddedNews {
    AddedNews { apps: apps.to_vec(), known_after }
}

/// Up to which entry nothing is known at the end, if it has come.
fn known_after(added: &mut AddedApps, now_ms: u64) -> Option<u64> {
    added.take_done(now_ms).map(|(_, news)| news.known_after)
}

#[test]
fn cluster_added_apps_are_pending_until_all_cores_have_them() {
    let mut added = skipped();
    added.note_config(0, [1].into_iter());
    assert!(!added.is_waiting(), "the first configuration adds nothing");
    added.note_config(2, [1, 3].into_iter());
    added.note_config(2, [2].into_iter());
    assert!(added.is_pending(1) && !added.is_pending(2), "that was known of this version");
    let have = |last: u32| move |version: u32| version <= last;
    assert_eq!((added.take_unskipped(have(1), id_of), added.begin(have(1), 9)), (vec![], None));
    // Nothing of application 3 was skipped.
    assert_eq!(added.take_unskipped(have(2), id_of), [3]);
    assert!(added.is_pending(1) && !added.is_pending(3) && added.position().is_none());
    assert_eq!(added.begin(have(2), 9), Some(news(&[1], 9)));
    assert!(added.is_reading(1) && !added.is_waiting());
}

#[test]
fn cluster_added_apps_take_each_entry_once_up_to_the_target() {
    let mut added = reading();
    assert_eq!(added.position(), Some(0));
    let mut takes = |sequence| added.takes(sequence, (0, KEEP_MS), 0);
    assert_eq!([3, 3, 2, 8].map(|it| takes(it).0), [true, false, false, true]);
    assert_eq!((added.position(), known_after(&mut added, 0)), (Some(8), None));
    assert!(added.takes(9, (0, KEEP_MS), 0).0);
    assert_eq!(known_after(&mut added, 0), Some(9));
    assert_eq!((known_after(&mut added, 0), added.position()), (None, None), "once");
    assert!(!added.takes(10, (0, 0), 0).0, "all entries take effect again");
    // The last entries that the log had have expired.
    let mut added = reading();
    added.takes(3, (0, KEEP_MS), 0);
    added.current();
    assert_eq!(known_after(&mut added, 0), Some(9));
    // And a later one was stored since.
    let mut added = reading();
    added.takes(11, (0, KEEP_MS), 0);
    assert_eq!(known_after(&mut added, 0), Some(11));
}

#[test]
fn cluster_added_apps_are_known_from_the_first_young_entry_on() {
    let mut added = reading();
    assert_eq!(added.takes(4, (0, YOUNG + 1), 1000), (true, None));
    assert_eq!(added.takes(6, (0, YOUNG), 1000), (true, Some(news(&[1], 5))));
    assert_eq!(added.takes(7, (0, 0), 1000), (true, None), "once");
    added.current();
    assert_eq!(known_after(&mut added, 1000), Some(5));
    // What follows it is read in time, or may have expired.
    for (later_ms, known) in [(YOUNG_MS - MARGIN_MS - 1, 5), (YOUNG_MS - MARGIN_MS, 9)] {
        let mut added = reading();
        added.takes(6, (0, YOUNG), 1000);
        added.current();
        assert_eq!(known_after(&mut added, 1000 + later_ms), Some(known), "{later_ms}");
    }
}

#[test]
fn cluster_added_apps_of_a_second_reload_are_read_afterwards() {
    let mut added = reading();
    added.note_config(2, [1, 2].into_iter());
    assert!(added.is_pending(2) && !added.is_pending(1));
    assert_eq!((added.take_unskipped(|_| true, id_of), added.begin(|_| true, 20)), (vec![], None));
    added.current();
    assert!(added.take_done(0).is_some() && added.is_waiting());
    assert_eq!(added.begin(|_| true, 20), Some(news(&[2], 20)));
    assert!(added.reading_of(2).is_some() && added.reading_of(1).is_none());
}

#[test]
fn cluster_added_apps_are_read_from_the_beginning_of_another_log() {
    let mut added = reading();
    added.takes(6, (0, 0), 0);
    assert_eq!(added.reading_of(1).map(|it| it.applied.takes(7, 1)), Some(Repeat::New));
    assert_eq!(added.begin_log(4), Some(news(&[1], 4)));
    assert_eq!(added.position(), Some(0));
    let repeat = added.reading_of(1).map(|it| it.applied.takes(7, 1));
    assert_eq!(repeat, Some(Repeat::OfEarlierLog));
    assert!(added.takes(3, (0, KEEP_MS), 0).0 && known_after(&mut added, 0).is_none());
    assert!(added.takes(4, (0, KEEP_MS), 0).0);
    assert_eq!(known_after(&mut added, 0), Some(4));
    assert_eq!(added.begin_log(9), None, "nothing is read");
}

#[test]
fn cluster_added_apps_are_all_read_if_too_many_ids_were_skipped() {
    let mut ids = SkippedIds::default();
    (0..IDS).for_each(|id| ids.note(&id.to_string()));
    ids.note("0");
    assert!(ids.has("0") && !ids.has("another"));
    ids.note("one more");
    assert!(ids.has("another") && ids.has("0"));
    ids.note("still more");
    assert!(ids.digests.is_empty());
}
