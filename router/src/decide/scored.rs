//! The parts of a decision that scores make: the classifier's, and that of similarity.

use slm_crds::route::Target;
use slm_proto::v1::{self, Candidate, CandidateOutcome};

use super::{Absence, Following, Step, To, candidate, target, unavailable};
use crate::{
    refusal::Refusal,
    scores::{Labelled, Scope, ScoreError, Similar},
};

/// Scores of a route's targets.
struct Scored<'a> {
    /// What is in the place of a rule for candidates.
    rule: &'static str,
    targets: &'a [Target],
    scores: &'a [f32],
    best: usize,
    scope: Scope,
    /// Why the best target is selected, or why nothing is.
    reason: String,
    /// Whether only a text in scope is decided here.
    strict: bool,
    /// What the others are.
    less: (CandidateOutcome, &'static str),
    /// What stands against the best target of a text that is out of scope.
    not_enough: &'static str,
}

impl Following<'_> {
    pub(super) fn labelled(&mut self, outcome: Option<&Result<Labelled, ScoreError>>) -> Step {
        let route = self.route;
        let (Some(classifier), Some(outcome)) = (route.classifier(), outcome) else { return Step::Next };
        let strict = route.similarity().is_some();
        let labelled = match outcome {
            Ok(labelled) => labelled,
            Err(error) => return self.failed(error, strict),
        };
        if self.explain {
            self.shown.classified = Some(Box::new(shown_label(labelled)));
        }
        let best = classifier.targets.get(labelled.best).map_or("", |best| best.name.as_str());
        let scored = Scored {
            rule: "classifier",
            targets: &classifier.targets,
            scores: &labelled.scores,
            best: labelled.best,
            scope: labelled.scope,
            reason: reason_of_label(labelled, best),
            strict,
            less: (CandidateOutcome::LessProbable, "another is more probable"),
            not_enough: if labelled.stray.is_some() { "the label is of no target" } else { "not typical enough" },
        };
        self.scored(scored)
    }

    pub(super) fn similar(&mut self, outcome: Option<&Result<Similar, ScoreError>>) -> Step {
        let route = self.route;
        let (Some(similarity), Some(outcome)) = (route.similarity(), outcome) else { return Step::Next };
        let similar = match outcome {
            Ok(similar) => similar,
            Err(error) => return self.failed(error, false),
        };
        if self.explain {
            self.shown.similarity = Some(Box::new(shown_similarity(similar)));
        }
        let best = similarity.targets.get(similar.best).map_or("", |best| best.name.as_str());
        let scored = Scored {
            rule: "similarity",
            targets: &similarity.targets,
            scores: &similar.scores,
            best: similar.best,
            scope: similar.scope,
            reason: reason_of_similarity(similar, best),
            strict: false,
            less: (CandidateOutcome::LessSimilar, "another is more similar"),
            not_enough: "not similar enough",
        };
        self.scored(scored)
    }

    /// A request that has no scores. `next` is whether another part may decide.
    fn failed(&self, error: &ScoreError, next: bool) -> Step {
        if self.route.rejects_on_error() {
            let (why, passes) = (error.to_string(), error.passes());
            return Step::Done(To::Refusal(Refusal::Undecided { route: self.route.name.clone(), why, passes }));
        }
        if next { Step::Next } else { Step::Fallback(error.to_string()) }
    }

    fn scored(&mut self, scored: Scored<'_>) -> Step {
        let Some(best) = scored.targets.get(scored.best).map(|best| target(self.view, best)) else { return Step::Next };
        let absent = unavailable(self.view, &best, self.policy);
        self.note_scored(&scored, absent.as_ref());
        let reason = scored.reason;
        match (scored.scope, absent) {
            (Scope::Unsure | Scope::Out, _) if scored.strict => Step::Next,
            (Scope::Out, _) => self.out_of_scope(reason),
            (_, Some(why)) => Step::Fallback(format!("{reason}, but {why}")),
            (_, None) => Step::Done(To::Expert(best, reason)),
        }
    }

    /// Notes every target that has a score, the best first.
    fn note_scored(&mut self, scored: &Scored<'_>, absent: Option<&Absence>) {
        if !self.explain {
            return;
        }
        let mut ranked: Vec<_> = scored.targets.iter().zip(scored.scores).enumerate().collect();
        ranked.sort_by(|(_, (_, a)), (_, (_, b))| b.total_cmp(a));
        for (place, (to, score)) in ranked {
            let (outcome, why_not) = match (scored.scope, absent) {
                _ if place != scored.best => (scored.less.0, scored.less.1.to_owned()),
                (Scope::Out, _) => (CandidateOutcome::OutOfScope, scored.not_enough.to_owned()),
                (Scope::Unsure, _) if scored.strict => (CandidateOutcome::Unsure, scored.not_enough.to_owned()),
                (_, Some(why)) => (CandidateOutcome::NotResident, why.to_string()),
                (_, None) => (CandidateOutcome::Chosen, String::new()),
            };
            let noted = candidate(self.view, &target(self.view, to), scored.rule, outcome, why_not);
            self.candidates.push(Candidate { score: Some((*score).into()), ..noted });
        }
    }
}

fn reason_of_label(labelled: &Labelled, best: &str) -> String {
    let Labelled { label, stray, typicality, scope, thresholds, .. } = labelled;
    if let Some(expert) = stray {
        return format!("out of scope: its label, {label}, is of {expert}, which is no target of the route");
    }
    let probability = labelled.score();
    let (measure, accept, out) = match typicality {
        Some(typicality) => {
            let (accept, out) = (thresholds.accept, thresholds.out_of_scope);
            let measure = format!("typicality {typicality:.3}");
            (measure, format!("accepted above {accept:.3}"), format!("up to {out:.3}"))
        }
        None => {
            let measure = format!("probability {probability:.2}");
            let (accept, out) = (thresholds.accept, thresholds.out_of_scope);
            (measure, format!("accepted from {accept:.2}"), format!("below {out:.2}"))
        }
    };
    match scope {
        Scope::In => format!("label {label}, probability of {best} {probability:.2}, {measure}"),
        Scope::Unsure => format!("label {label}, probability of {best} {probability:.2}; unsure: {measure}, {accept}"),
        Scope::Out => format!("out of scope: {measure}, {out}; the most probable label is {label}, of {best}"),
    }
}

fn reason_of_similarity(similar: &Similar, best: &str) -> String {
    let score = similar.scores.get(similar.best).copied().unwrap_or(-1.0);
    let thresholds = &similar.thresholds;
    match similar.scope {
        Scope::In => format!("most similar: {score:.2}, accepted from {:.2}", thresholds.accept),
        Scope::Unsure => format!("most similar: {score:.2}, unsure below {:.2}", thresholds.accept),
        Scope::Out => {
            format!("out of scope: the most similar, {best}, has {score:.2}, below {:.2}", thresholds.out_of_scope)
        }
    }
}

fn shown_label(labelled: &Labelled) -> v1::Classified {
    v1::Classified {
        scope: shown_scope(labelled.scope).into(),
        label: labelled.label.clone(),
        probability: labelled.score().into(),
        typicality: labelled.typicality.map(f64::from),
        accept: labelled.thresholds.accept,
        out_of_scope: labelled.thresholds.out_of_scope,
    }
}

fn shown_similarity(similar: &Similar) -> v1::Similarity {
    v1::Similarity {
        scope: shown_scope(similar.scope).into(),
        best: similar.scores.get(similar.best).copied().unwrap_or(-1.0).into(),
        accept: similar.thresholds.accept,
        out_of_scope: similar.thresholds.out_of_scope,
    }
}

fn shown_scope(scope: Scope) -> v1::Scope {
    match scope {
        Scope::In => v1::Scope::In,
        Scope::Unsure => v1::Scope::Unsure,
        Scope::Out => v1::Scope::Out,
    }
}
