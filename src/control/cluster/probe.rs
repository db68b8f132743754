//! How long the engine takes to store an entry, as `polycast doctor` measures it.

use crate::cluster::{Append, entry, subject};
use crate::config::Cluster;
use std::time::Duration;

/// The number of entries that are stored one after the other.
pub(super) const TRIES: u64 = 100;

/// The entry with this number of the measurement `run`, a random number. It has no events and no
/// states, and replaces the one before.
pub(super) fn append(cluster: &Cluster, run: u64, number: u64) -> Append {
    Append {
        number,
        subject: subject::of_probes(&cluster.name),
        id: format!("probe-{run:016x}-{number}"),
        ttl_s: Some(cluster.keep_s),
        replaces: true,
        expected: None,
        body: entry::write((run, number), "", "", [].into_iter()),
    }
}

/// What is reported of the times that the entries took.
pub(super) fn summary(mut times: Vec<Duration>) -> String {
    times.sort();
    let ms = |percent: usize| {
        let at = (times.len() * percent).div_ceil(100).saturating_sub(1);
        times.get(at).map_or(0.0, |time| time.as_micros() as f64 / 1000.0)
    };
    let count = times.len();
    format!("engine: stored {count} entries: p50 {} ms, p99 {} ms each", ms(50), ms(99))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_doctor_reports_percentiles() {
        let times = |count: u64| (1..=count).rev().map(Duration::from_millis).collect();
        assert_eq!(summary(times(100)), "engine: stored 100 entries: p50 50 ms, p99 99 ms each");
        assert_eq!(summary(times(1)), "engine: stored 1 entries: p50 1 ms, p99 1 ms each");
        assert_eq!(summary(Vec::new()), "engine: stored 0 entries: p50 0 ms, p99 0 ms each");
    }

    #[test]
    fn cluster_doctor_entries_replace_each_other_and_are_empty() {
        let cluster = Cluster::default();
        let [one, two] = [1, 2].map(|number| append(&cluster, 7, number));
        assert_eq!((&*one.subject, &one.subject), ("polycast.i.+d", &two.subject));
        assert!(one.replaces && one.ttl_s == Some(60) && one.id != two.id);
        assert!(entry::read(&one.body).expect("an entry").is_empty());
    }
}
