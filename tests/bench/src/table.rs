//! The result, in Markdown.

use std::{fmt::Write, fs};

/// One figure, taken several times on both sides.
pub(crate) struct Row {
    name: String,
    unit: Unit,
    bare: Vec<f64>,
    served: Vec<f64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    TokensPerSecond,
    Seconds,
}

impl Row {
    /// More is better.
    pub(crate) fn rate(name: &str) -> Self {
        Self { name: name.into(), unit: Unit::TokensPerSecond, bare: Vec::new(), served: Vec::new() }
    }

    /// Less is better.
    pub(crate) fn time(name: &str) -> Self {
        Self { unit: Unit::Seconds, ..Self::rate(name) }
    }

    /// One turn's figures.
    pub(crate) fn add(&mut self, bare: f64, served: f64) {
        self.bare.push(bare);
        self.served.push(served);
    }

    /// Speed of the swarm as a share of the bare step's, turn by turn.
    fn shares(&self) -> Vec<f64> {
        let share = |(bare, served): (&f64, &f64)| match self.unit {
            Unit::TokensPerSecond => served / bare,
            Unit::Seconds => bare / served,
        };
        self.bare.iter().zip(&self.served).map(share).collect()
    }

    fn cell(&self, values: &[f64]) -> String {
        let (low, middle, high) = spread(values);
        match self.unit {
            Unit::TokensPerSecond => format!("{middle:.0} tok/s ({low:.0}-{high:.0})"),
            Unit::Seconds => format!("{:.0} ms ({:.0}-{:.0})", middle * 1e3, low * 1e3, high * 1e3),
        }
    }
}

/// All rows and the machine they come from.
pub(crate) fn render(rows: &[Row]) -> String {
    let mut out = format!("{}\n\n| | bare step | through HTTP | share |\n|---|---|---|---|\n", machine());
    for row in rows {
        let (low, middle, high) = spread(&row.shares());
        let _ = writeln!(
            out,
            "| {} | {} | {} | {:.0} % ({:.0}-{:.0}) |",
            row.name,
            row.cell(&row.bare),
            row.cell(&row.served),
            middle * 100.0,
            low * 100.0,
            high * 100.0
        );
    }
    out
}

/// Smallest, median and largest.
fn spread(values: &[f64]) -> (f64, f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |i: usize| sorted.get(i).copied().unwrap_or(f64::NAN);
    (at(0), at(sorted.len() / 2), at(sorted.len().saturating_sub(1)))
}

fn machine() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown CPU", |rest| rest.trim_start_matches([' ', '\t', ':']));
    let level = slm_kernels::Level::best();
    format!("{model}, {} cores, {level:?}; medians, ranges in brackets", slm_worker::model::available_threads())
}
