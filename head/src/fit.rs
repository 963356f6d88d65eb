//! From labelled vectors to a head.
//!
//! Texts are parted into folds; each is classified by a head that was fitted without it. These held-out outputs give the
//! temperature, the measures of both parts, the quantiles of nonconformity, and the accuracy that is reported. The head itself is
//! fitted on all texts.

use std::{collections::BTreeMap, num::NonZero, thread};

use thiserror::Error;

use crate::{
    head::{
        Calibration, Encoder, Head, Label, Linear, Measure, Outputs, Spread, Training, largest, log_sum_exp, outputs,
        row, unit,
    },
    logistic, spread,
};

/// Folds, unless a label has fewer texts.
const FOLDS_MAX: usize = 5;
/// Quantiles of nonconformity that are kept.
const QUANTILES_MAX: usize = 1001;
/// Labels of a head at most.
pub(crate) const LABELS_MAX: usize = 4096;
/// Temperatures that are tried: 0.2 to 5, in steps of about 4 %.
const TEMPERATURES: i32 = 40;

/// Vectors of texts with their labels.
#[derive(Clone, Debug)]
pub struct TrainingSet {
    /// The encoder that made them.
    pub encoder: Encoder,
    /// All labels, each with its expert.
    pub labels: Vec<Label>,
    /// A vector of the encoder's width for each text.
    pub vectors: Vec<Vec<f32>>,
    /// The place of each text's label in `labels`.
    pub of_texts: Vec<usize>,
    /// `sha256:…` of the file with the texts.
    pub data: String,
}

/// A head and what it says of texts that were held out.
#[derive(Clone, Debug)]
pub struct Fitted {
    /// The head.
    pub head: Head,
    /// For each text the place of its label as a head says that was fitted without it.
    pub held_out: Vec<usize>,
}

/// The reason why there is no head.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FitError {
    /// Nothing to choose.
    #[error("the data have {0} label; a head needs at least two")]
    OneLabel(usize),
    /// A label that cannot be held out.
    #[error("the label `{0}` has one text; each needs at least two, and 20 or more do well")]
    OneText(String),
    /// No real use.
    #[error("the data have {0} labels; at most {LABELS_MAX} are trained: merge some, such as all of an expert")]
    TooMany(usize),
    /// Vectors that say nothing.
    #[error("the vectors of the texts do not differ; is `{0}` the encoder that was meant?")]
    Alike(String),
    /// A thread has failed.
    #[error("internal error: a thread of the training failed")]
    Internal,
}

/// Fits a head, with as many threads as there are processors.
///
/// # Errors
/// Too few labels or texts, or vectors that do not differ.
pub fn fit(set: TrainingSet) -> Result<Fitted, FitError> {
    let folds = folds(&set)?;
    let width = set.encoder.width;
    let vectors: Vec<f32> = set.vectors.iter().flat_map(|vector| unit(vector)).collect();
    let texts = Texts { vectors: &vectors, width, labels: &set.of_texts, count: set.labels.len() };
    let places = places(&set.of_texts, folds);
    // One fit without each fold, and one of all.
    let parts: Vec<Option<usize>> = (0..folds).map(Some).chain([None]).collect();
    let mut fitted = parallel(&parts, |without| texts.without(&places, *without).fit())?.into_iter();
    let mut of_folds = Vec::with_capacity(folds);
    for _ in 0..folds {
        of_folds.push(fitted.next().flatten().ok_or_else(|| FitError::Alike(set.encoder.name.clone()))?);
    }
    let (linear, spread) = fitted.next().flatten().ok_or_else(|| FitError::Alike(set.encoder.name.clone()))?;
    let held_out: Vec<Outputs> = (0..set.of_texts.len())
        .map(|text| {
            let (linear, spread) = &of_folds[places[text]];
            outputs(linear, spread, &vectors[row(text, width)])
        })
        .collect();
    let said: Vec<usize> = held_out.iter().map(|outputs| largest(&outputs.logits)).collect();
    let share = |right: &dyn Fn(usize, usize) -> bool| {
        let count = said.iter().zip(&set.of_texts).filter(|(said, label)| right(**said, **label)).count();
        count as f64 / said.len().max(1) as f64
    };
    let training = Training {
        data: set.data,
        texts: set.of_texts.len(),
        folds,
        label_accuracy: share(&|said, label| said == label),
        expert_accuracy: share(&|said, label| set.labels[said].expert == set.labels[label].expert),
    };
    let calibration = calibrated(&held_out, &set.of_texts);
    let head = Head { encoder: set.encoder, labels: set.labels, linear, spread, calibration, training };
    Ok(Fitted { head, held_out: said })
}

/// Number of folds.
fn folds(set: &TrainingSet) -> Result<usize, FitError> {
    match set.labels.len() {
        count @ (0 | 1) => return Err(FitError::OneLabel(count)),
        count if count > LABELS_MAX => return Err(FitError::TooMany(count)),
        _ => {}
    }
    let mut members: BTreeMap<usize, usize> = (0..set.labels.len()).map(|label| (label, 0)).collect();
    set.of_texts.iter().for_each(|label| *members.entry(*label).or_default() += 1);
    let fewest = members.iter().min_by_key(|(_, count)| **count);
    match fewest {
        Some((label, count)) if *count < 2 => Err(FitError::OneText(set.labels[*label].name.clone())),
        Some((_, count)) => Ok((*count).min(FOLDS_MAX)),
        None => Err(FitError::OneLabel(0)),
    }
}

/// The fold of each text: those of a label take turns.
fn places(labels: &[usize], folds: usize) -> Vec<usize> {
    let mut seen: BTreeMap<usize, usize> = BTreeMap::new();
    let mut place = |label: &usize| {
        let seen = seen.entry(*label).or_default();
        *seen += 1;
        (*seen - 1) % folds
    };
    labels.iter().map(&mut place).collect()
}

struct Texts<'a> {
    vectors: &'a [f32],
    width: usize,
    labels: &'a [usize],
    count: usize,
}

struct Chosen {
    vectors: Vec<f32>,
    width: usize,
    labels: Vec<usize>,
    count: usize,
}

impl Texts<'_> {
    fn without(&self, places: &[usize], fold: Option<usize>) -> Chosen {
        let chosen = || (0..self.labels.len()).filter(|text| Some(places[*text]) != fold);
        Chosen {
            vectors: chosen().flat_map(|text| self.vectors[row(text, self.width)].iter().copied()).collect(),
            width: self.width,
            labels: chosen().map(|text| self.labels[text]).collect(),
            count: self.count,
        }
    }
}

impl Chosen {
    fn fit(&self) -> Option<(Linear, Spread)> {
        let spread = spread::fit(&self.vectors, self.width, &self.labels, self.count)?;
        Some((logistic::fit(&self.vectors, self.width, &self.labels, self.count), spread))
    }
}

/// Results of `work` on each item, in their order.
fn parallel<I: Sync, O: Send>(items: &[I], work: impl Fn(&I) -> O + Sync) -> Result<Vec<O>, FitError> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let mut results = Vec::with_capacity(items.len());
    for some in items.chunks(threads) {
        let done: Result<Vec<O>, _> = thread::scope(|scope| {
            let begun: Vec<_> = some.iter().map(|item| scope.spawn(|| work(item))).collect();
            begun.into_iter().map(thread::ScopedJoinHandle::join).collect()
        });
        results.extend(done.map_err(|_| FitError::Internal)?);
    }
    Ok(results)
}

fn calibrated(held_out: &[Outputs], labels: &[usize]) -> Calibration {
    let mut calibration = Calibration {
        temperature: temperature(held_out, labels),
        distance: Measure::of(held_out.iter().map(|outputs| outputs.distance)),
        energy: Measure::of(held_out.iter().map(|outputs| outputs.energy)),
        nonconformity: Vec::new(),
        texts: held_out.len(),
    };
    let mut values: Vec<f32> = held_out.iter().map(|outputs| calibration.nonconformity_of(outputs)).collect();
    values.sort_by(f32::total_cmp);
    calibration.nonconformity = quantiles(&values);
    calibration
}

/// At equal shares, both ends among them; all of few.
fn quantiles(sorted: &[f32]) -> Vec<f32> {
    if sorted.len() <= QUANTILES_MAX {
        return sorted.to_vec();
    }
    (0..QUANTILES_MAX).map(|place| sorted[place * (sorted.len() - 1) / (QUANTILES_MAX - 1)]).collect()
}

/// The temperature with the least loss on held-out texts.
fn temperature(held_out: &[Outputs], labels: &[usize]) -> f32 {
    let loss = |temperature: f32| -> f64 {
        let one = |(outputs, label): (&Outputs, &usize)| {
            let scaled: Vec<f32> = outputs.logits.iter().map(|logit| logit / temperature).collect();
            f64::from(log_sum_exp(&scaled) - scaled[*label])
        };
        held_out.iter().zip(labels).map(one).sum()
    };
    let tried = (0..=TEMPERATURES).map(|step| {
        let temperature = 0.2 * 25f32.powf(step as f32 / TEMPERATURES as f32);
        (temperature, loss(temperature))
    });
    tried.min_by(|(_, a), (_, b)| a.total_cmp(b)).map_or(1.0, |(temperature, _)| temperature)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Three labels of two experts in eight dimensions, `texts` of each around its own direction.
    pub(crate) fn set(texts: usize) -> TrainingSet {
        let label = |(name, expert): (&str, &str)| Label { name: name.to_owned(), expert: expert.to_owned() };
        let vector = |text: usize| -> Vec<f32> {
            let noise = |index: usize| ((text * 31 + index * 17) as f32 * 1.7).sin() * 0.25;
            (0..8).map(|index| f32::from(u8::from(index == text % 3)) + noise(index)).collect()
        };
        TrainingSet {
            encoder: Encoder { name: "minilm".to_owned(), width: 8, ..Encoder::default() },
            labels: [("balance", "banking"), ("transfer", "banking"), ("flight", "travel")].map(label).into(),
            vectors: (0..3 * texts).map(vector).collect(),
            of_texts: (0..3 * texts).map(|text| text % 3).collect(),
            data: "sha256:0".to_owned(),
        }
    }

    #[test]
    fn a_head_knows_its_labels_and_what_is_none_of_them() {
        let Fitted { head, held_out } = fit(set(40)).expect("a head");
        assert_eq!(held_out, set(40).of_texts);
        let Training { texts, folds, label_accuracy, expert_accuracy, .. } = head.training();
        assert_eq!((*texts, *folds, *label_accuracy, *expert_accuracy), (120, 5, 1.0, 1.0));
        let mut seen = Vec::new();
        for (vector, label) in set(40).vectors.iter().zip(set(40).of_texts) {
            let classified = head.classify(vector);
            assert_eq!(largest(&classified.probabilities), label);
            assert!((classified.probabilities.iter().sum::<f32>() - 1.0).abs() < 1e-5);
            seen.push(classified.typicality);
        }
        // Of the texts themselves about a tenth is in the least typical tenth.
        let rare = seen.iter().filter(|typicality| **typicality <= 0.1).count();
        assert!(rare <= 14, "{rare}");
        let mut other = vec![0.0; 8];
        other[6] = 1.0;
        assert!(head.classify(&other).typicality < 0.02, "{:?}", head.classify(&other));
    }

    #[test]
    fn too_little_is_refused() {
        let mut one = set(1);
        assert_eq!(fit(one.clone()).expect_err("refused"), FitError::OneText("balance".to_owned()));
        one.labels.truncate(1);
        assert_eq!(fit(one).expect_err("refused"), FitError::OneLabel(1));
        let mut alike = set(5);
        alike.vectors.fill(vec![1.0; 8]);
        let error = fit(alike).expect_err("refused").to_string();
        assert_eq!(error, "the vectors of the texts do not differ; is `minilm` the encoder that was meant?");
    }

    #[test]
    fn few_texts_are_enough_for_some_folds() {
        let fitted = fit(set(2)).expect("a head");
        assert_eq!(fitted.head.training().folds, 2);
        assert_eq!(quantiles(&(0..5000).map(|x| x as f32).collect::<Vec<_>>()).len(), QUANTILES_MAX);
    }
}
