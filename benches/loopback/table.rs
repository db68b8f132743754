//! Formats the result of a row as text.

use super::Plan;
use std::io;

/// A row of the table.
pub struct Row {
    pub name: &'static str,
    pub what: &'static str,
    pub unit: &'static str,
    pub target: Target,
    pub run: fn(&Plan) -> io::Result<Outcome>,
}

/// The target of a row.
#[derive(Clone, Copy)]
pub enum Target {
    /// The ratio to the baseline must be at most this.
    RatioAtMost(f64),
    /// The ratio to the baseline must be at least this.
    RatioAtLeast(f64),
    /// The value itself must be at most this.
    AtMost(f64),
    /// No target: the row explains another one.
    None,
}

/// The measured values of each round.
#[derive(Default)]
pub struct Outcome {
    pub ours: Vec<f64>,
    pub base: Vec<f64>,
    pub notes: Vec<String>,
}

/// The head of the table; `ours` and `base` are the titles of its two columns of values.
pub fn head(ours: &str, base: &str) -> String {
    format!(
        "{:<8} {:<52} {ours:>9} {base:>9} {:<6} {:>18} {:>9}  verdict",
        "row", "", "", "ratio", "target"
    )
}

impl Outcome {
    pub fn line(&self, row: &Row) -> String {
        let mut ratios: Vec<f64> = self.ours.iter().zip(&self.base).map(|(a, b)| a / b).collect();
        ratios.sort_by(f64::total_cmp);
        let (ours, base, ratio) = (median(&self.ours), median(&self.base), median(&ratios));
        let (target, met) = match row.target {
            Target::RatioAtMost(max) => (format!("<= {max}x"), ratio.map(|it| it <= max)),
            Target::RatioAtLeast(min) => (format!(">= {min}x"), ratio.map(|it| it >= min)),
            Target::AtMost(max) => (format!("<= {max}"), ours.map(|it| it <= max)),
            Target::None => (String::new(), None),
        };
        let spread = match (ratio, ratios.first(), ratios.last()) {
            (Some(ratio), Some(low), Some(high)) => format!("{ratio:.3} ({low:.2}-{high:.2})"),
            _ => String::new(),
        };
        let number = |it: Option<f64>| it.map_or(String::new(), |it| format!("{it:.3}"));
        format!(
            "{:<8} {:<52} {:>9} {:>9} {:<6} {:>18} {:>9}  {}",
            row.name,
            row.what,
            number(ours),
            number(base),
            row.unit,
            spread,
            target,
            met.map_or("", |met| if met { "met" } else { "MISSED" }),
        )
        .trim_end()
        .to_owned()
    }
}

pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    match sorted.len() % 2 {
        0 => Some((upper + sorted[sorted.len() / 2 - 1]) / 2.0),
        _ => Some(upper),
    }
}
