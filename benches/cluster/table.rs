//! What was measured, as text.

use std::time::Duration;

/// Latencies in microseconds.
#[derive(Clone, Debug, Default)]
pub struct Latencies(Vec<u32>);

impl Latencies {
    pub fn push(&mut self, latency: Duration) {
        self.0.push(u32::try_from(latency.as_micros()).unwrap_or(u32::MAX));
    }

    /// The latency that this share of the events does not exceed, in milliseconds.
    fn at(&mut self, share: f64) -> f64 {
        self.0.sort_unstable();
        let place = (self.0.len() as f64 * share) as usize;
        f64::from(self.0.get(place).or(self.0.last()).copied().unwrap_or_default()) / 1000.0
    }
}

/// What one round has measured.
#[derive(Clone, Debug)]
pub struct Row {
    pub name: &'static str,
    /// From the moment at which an event was due until it has arrived.
    pub delivered: Latencies,
    /// Until its publisher was answered.
    pub acknowledged: Latencies,
    /// The CPU time of the engine for each publish, in microseconds.
    pub engine_us: f64,
    /// That of the publisher's node and of the subscriber's node.
    pub nodes_us: Option<[f64; 2]>,
}

impl Row {
    /// The round whose 99th percentile is in the middle.
    pub fn middle(name: &'static str, mut rounds: Vec<Row>) -> Row {
        rounds
            .sort_by(|a, b| a.delivered.clone().at(0.99).total_cmp(&b.delivered.clone().at(0.99)));
        let middle = rounds.len() / 2;
        Row { name, ..rounds.swap_remove(middle) }
    }
}

pub fn head() {
    println!(
        "{:>9}  {:<12} {:>22}  {:>15}  {:>24}",
        "", "", "delivered ms", "answered ms", "CPU us a publish"
    );
    println!(
        "{:>9}  {:<12} {:>6} {:>7} {:>7}  {:>7} {:>7}  {:>8} {:>7} {:>7}",
        "per s", "", "p50", "p99", "p99.9", "p50", "p99", "engine", "node 1", "node 2"
    );
}

pub fn print(rate: u32, row: &Row) {
    let mut row = row.clone();
    let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|share| row.delivered.at(share));
    let [a50, a99] = [0.5, 0.99].map(|share| row.acknowledged.at(share));
    let nodes = match row.nodes_us {
        Some([first, second]) => format!("{first:>7.1} {second:>7.1}"),
        None => String::new(),
    };
    let delivered = format!("{p50:>6.2} {p99:>7.2} {p999:>7.2}");
    let (name, engine) = (row.name, row.engine_us);
    println!("{rate:>9}  {name:<12} {delivered}  {a50:>7.2} {a99:>7.2}  {engine:>8.1} {nodes}");
}
