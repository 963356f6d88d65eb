//! The results: Markdown to read, JSON with every figure.

use std::{fmt::Write, fs};

use serde_json::{Value, json};

/// Figures of two sides, taken in turns.
pub(crate) struct Table {
    pub(crate) title: String,
    /// What the sides are called: the one that is measured against, then the measured one.
    pub(crate) sides: [&'static str; 2],
    pub(crate) comparison: Comparison,
    pub(crate) rows: Vec<Row>,
}

/// How the measured side's speed is told.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparison {
    /// In percent of the other's.
    Share,
    /// As a multiple of the other's.
    Ratio,
}

/// One figure, taken several times on both sides.
pub(crate) struct Row {
    name: String,
    unit: Unit,
    reference: Vec<f64>,
    measured: Vec<f64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    TokensPerSecond,
    Seconds,
}

impl Row {
    /// More is better.
    pub(crate) fn rate(name: &str) -> Self {
        Self { name: name.into(), unit: Unit::TokensPerSecond, reference: Vec::new(), measured: Vec::new() }
    }

    /// Less is better.
    pub(crate) fn time(name: &str) -> Self {
        Self { unit: Unit::Seconds, ..Self::rate(name) }
    }

    /// One turn's figures.
    pub(crate) fn add(&mut self, reference: f64, measured: f64) {
        self.reference.push(reference);
        self.measured.push(measured);
    }

    /// Speed of the measured side as a part of the other's, turn by turn.
    fn shares(&self) -> Vec<f64> {
        let share = |(reference, measured): (&f64, &f64)| match self.unit {
            Unit::TokensPerSecond => measured / reference,
            Unit::Seconds => reference / measured,
        };
        self.reference.iter().zip(&self.measured).map(share).collect()
    }

    fn cell(&self, values: &[f64]) -> String {
        let (low, middle, high) = spread(values);
        match self.unit {
            Unit::TokensPerSecond => format!("{middle:.0} tok/s ({low:.0}-{high:.0})"),
            Unit::Seconds => format!("{:.0} ms ({:.0}-{:.0})", middle * 1e3, low * 1e3, high * 1e3),
        }
    }

    fn json(&self) -> Value {
        let unit = match self.unit {
            Unit::TokensPerSecond => "tok/s",
            Unit::Seconds => "s",
        };
        json!({"name": self.name, "unit": unit, "reference": self.reference, "measured": self.measured})
    }
}

impl Table {
    pub(crate) fn markdown(&self) -> String {
        let (last, [reference, measured]) = match self.comparison {
            Comparison::Share => ("share", self.sides),
            Comparison::Ratio => ("ratio", self.sides),
        };
        let mut out = format!("{}:\n\n| | {reference} | {measured} | {last} |\n|---|---|---|---|\n", self.title);
        for row in &self.rows {
            let (low, middle, high) = spread(&row.shares());
            let compared = match self.comparison {
                Comparison::Share => format!("{:.0} % ({:.0}-{:.0})", middle * 1e2, low * 1e2, high * 1e2),
                Comparison::Ratio => format!("{middle:.2} ({low:.2}-{high:.2})"),
            };
            let (reference, measured) = (row.cell(&row.reference), row.cell(&row.measured));
            let _ = writeln!(out, "| {} | {reference} | {measured} | {compared} |", row.name);
        }
        out
    }

    pub(crate) fn json(&self) -> Value {
        let rows: Vec<_> = self.rows.iter().map(Row::json).collect();
        json!({"title": self.title, "reference": self.sides[0], "measured": self.sides[1], "rows": rows})
    }
}

/// Smallest, median and largest.
pub(crate) fn spread(values: &[f64]) -> (f64, f64, f64) {
    (quantile(values, 0.0), quantile(values, 0.5), quantile(values, 1.0))
}

/// The value below which that part of all lies.
pub(crate) fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (sorted.len() as f64 * part) as usize;
    sorted.get(at.min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

/// The machine that the figures come from.
pub(crate) fn machine() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown CPU", |rest| rest.trim_start_matches([' ', '\t', ':']));
    let level = slm_kernels::Level::best();
    format!("{model}, {} cores, {level:?}; medians, ranges in brackets", slm_worker::model::available_threads())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let values = [3.0, 1.0, 2.0, 5.0, 4.0];
        assert_eq!(spread(&values), (1.0, 3.0, 5.0));
        assert_eq!(quantile(&values, 0.99), 5.0);
        assert!(quantile(&[], 0.5).is_nan());
    }

    #[test]
    fn a_shorter_time_is_a_larger_share() {
        let mut row = Row::time("wait");
        row.add(2.0, 1.0);
        assert_eq!(row.shares(), [2.0]);
    }
}
