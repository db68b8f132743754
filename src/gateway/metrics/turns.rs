//! Metrics of event loop turns: how long they took, and how much work they did.

use super::exposition::{Exposition, Kind};
use crate::stats::{Counters, Histogram};
use std::sync::Arc;

pub(super) fn write(out: &mut Exposition, cores: &[Arc<Counters>], control: &Counters) {
    let all: Vec<&Counters> = cores.iter().map(|core| &**core).collect();
    let help = "Durations of reactor turns over all cores, without the time in which a core was \
                idle.";
    family(out, "turn_seconds", help, &all, |it| &it.turn_ns);
    let help = "Work of reactor turns over all cores, by the estimate that bounds a turn.";
    family(out, "turn_work_seconds", help, &all, |it| &it.turn_work);
    let help = "How long the engine of the cluster took to store an entry.";
    family(out, "cluster_append_seconds", help, &[control], |it| &it.cluster_append_ns);
    let help = "The longest reactor turn that ended in the last minute, by core.";
    let name = out.family("turn_longest_seconds", Kind::Gauge, help);
    for (core, counters) in cores.iter().enumerate() {
        let longest = seconds(counters.turn_longest_ns.get());
        out.sample(&name, &[("core", &core.to_string())], longest);
    }
}

fn family(
    out: &mut Exposition,
    name: &str,
    help: &str,
    cores: &[&Counters],
    of: fn(&Counters) -> &Histogram,
) {
    let name = out.family(name, Kind::Histogram, help);
    let mut counts = [0; Histogram::BOUNDS_NS.len() + 1];
    for core in cores {
        counts.iter_mut().zip(of(core).buckets()).for_each(|(sum, count)| *sum += count);
    }
    let mut all: u64 = 0;
    for (at, count) in counts.into_iter().enumerate() {
        all += count;
        let bound = Histogram::BOUNDS_NS.get(at).map(|ns| seconds(*ns).to_string());
        let labels = [("le", bound.as_deref().unwrap_or("+Inf"))];
        out.sample(&format!("{name}_bucket"), &labels, all);
    }
    let sum = cores.iter().map(|core| of(core).sum_ns()).fold(0, u64::wrapping_add);
    out.sample(&format!("{name}_sum"), &[], seconds(sum));
    // From the same reading as the buckets, because a scraper compares the two.
    out.sample(&format!("{name}_count"), &[], all);
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}
