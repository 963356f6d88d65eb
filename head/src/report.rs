//! How often a route is right: from its decisions on labelled texts. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// Bins of the calibration.
pub(crate) const BINS: usize = 10;

/// What a route said of a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The expert for the text; `None` for one that is out of scope.
    pub expected: Option<String>,
    /// The expert that the route chose; `None` if it said that none is for the text.
    pub given: Option<String>,
    /// The probability of the chosen expert, if the route has one.
    pub confidence: Option<f64>,
    /// Whether the route had scores to choose by.
    pub scored: bool,
    /// Why it chose as it did.
    pub reason: String,
}

/// Counts of answers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Texts that are for an expert.
    pub in_scope: usize,
    /// Of these, those that went to it.
    pub right: usize,
    /// Of these, those that the route called out of scope.
    pub false_rejections: usize,
    /// Texts that are out of scope.
    pub out_of_scope: usize,
    /// Of these, those that the route called so.
    pub found: usize,
    /// Texts that the route could not score, though it could score others: no part of any other count.
    pub undecided: usize,
    /// Why the first of them was not scored.
    pub undecided_reason: Option<String>,
    /// Which experts were taken for which.
    pub confusion: Confusion,
    /// Probabilities of chosen experts, in bins of equal width.
    pub(crate) calibration: [Bin; BINS],
}

/// Texts whose chosen expert had a probability within the bin.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Bin {
    pub(crate) texts: usize,
    pub(crate) right: usize,
    pub(crate) confidence: f64,
}

/// Counts by expected and given expert; `None` is out of scope.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Confusion(BTreeMap<(Option<String>, Option<String>), usize>);

impl Report {
    /// Counts `answers`.
    pub fn of(answers: &[Answer]) -> Self {
        let mut report = Self::default();
        // A route without scores at all says by its fallback that nobody is for a text; one with scores has failed then.
        let scores = answers.iter().any(|answer| answer.scored);
        for Answer { expected, given, confidence, scored, reason } in answers.iter().cloned() {
            if scores && !scored && given.is_none() {
                report.undecided += 1;
                report.undecided_reason.get_or_insert(reason);
                continue;
            }
            let right = expected == given;
            match expected {
                Some(_) => {
                    report.in_scope += 1;
                    report.right += usize::from(right);
                    report.false_rejections += usize::from(given.is_none());
                }
                None => {
                    report.out_of_scope += 1;
                    report.found += usize::from(right);
                }
            }
            if let (Some(_), Some(confidence)) = (&given, confidence) {
                // A share of one is in the last bin.
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
                let bin = &mut report.calibration[((confidence.max(0.0) * BINS as f64) as usize).min(BINS - 1)];
                bin.texts += 1;
                bin.right += usize::from(right);
                bin.confidence += confidence;
            }
            *report.confusion.0.entry((expected, given)).or_default() += 1;
        }
        report
    }

    /// Share of the texts for an expert that went to it.
    #[must_use]
    pub fn accuracy(&self) -> f64 {
        share(self.right, self.in_scope)
    }

    /// Share of the texts for an expert that were called out of scope.
    #[must_use]
    pub fn false_rejection_rate(&self) -> f64 {
        share(self.false_rejections, self.in_scope)
    }

    /// Share of the texts out of scope that were called so.
    #[must_use]
    pub fn recall(&self) -> f64 {
        share(self.found, self.out_of_scope)
    }

    /// Share of those that were called out of scope that are, where `mix` of all texts is; without one, as in the data.
    #[must_use]
    pub fn precision(&self, mix: Option<f64>) -> f64 {
        let mix = mix.unwrap_or_else(|| share(self.out_of_scope, self.out_of_scope + self.in_scope));
        let (found, falsely) = (self.recall() * mix, self.false_rejection_rate() * (1.0 - mix));
        if found + falsely > 0.0 { found / (found + falsely) } else { 0.0 }
    }

    /// Mean difference between the probability of chosen experts and how often they were right, over bins by their texts. `None`
    /// without probabilities.
    #[must_use]
    pub fn calibration_error(&self) -> Option<f64> {
        let texts: usize = self.calibration.iter().map(|bin| bin.texts).sum();
        let differences = self.calibration.iter().map(|bin| (bin.confidence - bin.right as f64).abs()).sum::<f64>();
        (texts > 0).then(|| differences / texts as f64)
    }
}

fn share(part: usize, all: usize) -> f64 {
    part as f64 / all.max(1) as f64
}

impl Confusion {
    /// Counts by expected and given expert, without the right ones; the most frequent first.
    pub fn mistakes(&self) -> Vec<(Option<&str>, Option<&str>, usize)> {
        let wrong = self.0.iter().filter(|((expected, given), _)| expected != given);
        let mut mistakes: Vec<_> =
            wrong.map(|((expected, given), count)| (expected.as_deref(), given.as_deref(), *count)).collect();
        mistakes.sort_by_key(|(_, _, count)| std::cmp::Reverse(*count));
        mistakes
    }

    fn experts(&self) -> Vec<Option<&str>> {
        let all: BTreeSet<_> =
            self.0.keys().flat_map(|(expected, given)| [expected.as_deref(), given.as_deref()]).collect();
        let (none, some): (Vec<_>, Vec<_>) = all.into_iter().partition(Option::is_none);
        some.into_iter().chain(none).collect()
    }
}

/// Names of experts in the lines, their numbers in the columns.
impl fmt::Display for Confusion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let experts = self.experts();
        let name = |expert: &Option<&str>| expert.unwrap_or("(out of scope)").to_owned();
        let width = experts.iter().map(|expert| name(expert).chars().count()).max().unwrap_or(0);
        write!(f, "{:>3}  {:width$}", "", "")?;
        for number in 1..=experts.len() {
            write!(f, " {number:>5}")?;
        }
        writeln!(f)?;
        for (number, expected) in (1..).zip(&experts) {
            write!(f, "{number:>3}  {:width$}", name(expected))?;
            for given in &experts {
                let key = (expected.map(str::to_owned), given.map(str::to_owned));
                match self.0.get(&key) {
                    Some(count) => write!(f, " {count:>5}")?,
                    None => write!(f, " {:>5}", ".")?,
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(expected: &str, given: &str, confidence: f64) -> Answer {
        let named = |name: &str| (!name.is_empty()).then(|| name.to_owned());
        let (expected, given, confidence) = (named(expected), named(given), Some(confidence));
        Answer { expected, given, confidence, scored: true, reason: String::new() }
    }

    fn report() -> Report {
        let answers = [
            ("banking", "banking", 0.95),
            ("banking", "banking", 0.85),
            ("banking", "travel", 0.95),
            ("travel", "", 0.1),
            ("", "", 0.2),
            ("", "travel", 1.0),
        ];
        Report::of(&answers.map(|(expected, given, confidence)| answer(expected, given, confidence)))
    }

    #[test]
    fn what_was_not_scored_is_counted_apart() {
        let fallback = |scored| Answer { scored, reason: "late: fallback".to_owned(), ..answer("banking", "", 0.0) };
        let report = Report::of(&[answer("banking", "banking", 0.9), fallback(false), fallback(true)]);
        assert_eq!((report.undecided, report.undecided_reason.as_deref()), (1, Some("late: fallback")));
        assert_eq!((report.in_scope, report.right, report.false_rejections), (2, 1, 1));
        // Rules alone: the fallback is what they say.
        let report = Report::of(&[fallback(false)]);
        assert_eq!((report.undecided, report.false_rejections), (0, 1));
    }

    #[test]
    fn shares_are_of_what_they_say() {
        let report = report();
        assert_eq!((report.accuracy(), report.false_rejection_rate(), report.recall()), (0.5, 0.25, 0.5));
        assert!((report.precision(None) - 0.5).abs() < 1e-9);
        // A tenth out of scope: 0.05 found, 0.225 falsely.
        assert!((report.precision(Some(0.1)) - 0.05 / 0.275).abs() < 1e-9);
        // In the bin from 0.9: 2.9 expected, 1 right; in that from 0.8: 0.85 and 1.
        assert!((report.calibration_error().expect("probabilities") - (1.9 + 0.15) / 4.0).abs() < 1e-9);
        assert_eq!(Report::default().calibration_error(), None);
        assert_eq!((Report::default().accuracy(), Report::default().precision(None)), (0.0, 0.0));
    }

    #[test]
    fn the_table_and_the_mistakes_say_who_was_taken_for_whom() {
        let confusion = report().confusion;
        assert_eq!(
            confusion.to_string(),
            "                        1     2     3\n  1  banking            2     1     .\n  2  travel             .     .     1\n  \
             3  (out of scope)     .     1     1\n"
        );
        assert_eq!(
            confusion.mistakes(),
            [(None, Some("travel"), 1), (Some("banking"), Some("travel"), 1), (Some("travel"), None, 1)]
        );
    }
}
