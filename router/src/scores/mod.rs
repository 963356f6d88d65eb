//! Scores of a request's text for the targets of its route: by the label that a classifier gives it, and by its similarity to
//! examples.
//!
//! Workers read texts (`readers`): the router has no model. What they say of a text is kept for a while (`kept`) and becomes scores by
//! pure functions: `labels` of probabilities, `similarity` of vectors. `classifiers` and `examples` ask, within [`LIMIT`].

mod classifiers;
mod examples;
mod kept;
mod labels;
mod readers;
mod similarity;

use std::{future::Future, time::Duration};

use slm_crds::{route::Thresholds, selection::EXAMPLES_MAX};
use thiserror::Error;
use tokio::time::timeout;

pub(crate) use self::{
    classifiers::Classifiers,
    examples::Comparer,
    kept::Kept,
    labels::Labelled,
    readers::{ReadError, Readers},
    similarity::Similar,
};

/// Longest time that a request waits for its scores.
const LIMIT: Duration = Duration::from_secs(2);
/// Bytes of a text that are read: encoders read less.
const TEXT_BYTES_MAX: usize = 4096;

/// Whether a text is one for the target with the highest score.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    In,
    Unsure,
    Out,
}

/// The reason why a request has no scores.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum ScoreError {
    /// There is nothing to read.
    #[error("the request has no text of a user; send one, or name an expert")]
    NoText,
    /// Nobody read it.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Nobody read it in time.
    #[error("the {role} `{name}` did not answer within {} s", LIMIT.as_secs())]
    Slow { role: &'static str, name: String },
    /// No target has an example, or they have too many.
    #[error("the targets of the route have {0} examples; 1 to {EXAMPLES_MAX} can be compared with")]
    NoExamples(usize),
    /// A task has failed.
    #[error("internal error of the router; its log says more")]
    Internal,
}

impl ScoreError {
    /// Whether the same request may get scores a little later.
    pub(crate) fn passes(&self) -> bool {
        !matches!(self, Self::NoText | Self::NoExamples(_))
    }
}

impl Scope {
    /// That of a score of which more is better.
    fn of(score: f64, thresholds: &Thresholds) -> Self {
        match score {
            score if score >= thresholds.accept => Self::In,
            score if score >= thresholds.out_of_scope => Self::Unsure,
            _ => Self::Out,
        }
    }

    /// Its value as the label of a metric.
    fn of_outcome<E>(outcome: Result<Self, E>) -> &'static str {
        match outcome {
            Ok(Self::In) => "in",
            Ok(Self::Unsure) => "unsure",
            Ok(Self::Out) => "out",
            Err(_) => "error",
        }
    }
}

/// What comes of `scored`, within the time that a request waits for it.
async fn in_time<T>(
    (role, name): (&'static str, &str),
    scored: impl Future<Output = Result<T, ScoreError>>,
) -> Result<T, ScoreError> {
    timeout(LIMIT, scored).await.unwrap_or_else(|_| Err(ScoreError::Slow { role, name: name.to_owned() }))
}

/// The part of a text that is read.
fn readable(text: &str) -> Result<&str, ScoreError> {
    match text.trim().is_empty() {
        true => Err(ScoreError::NoText),
        false => Ok(&text[..text.floor_char_boundary(TEXT_BYTES_MAX)]),
    }
}

/// The place of the largest; the first of equals.
fn best(scores: &[f32]) -> usize {
    (0..scores.len()).fold(0, |best, place| if scores[place] > scores[best] { place } else { best })
}
