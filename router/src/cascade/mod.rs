//! Cascades: a larger target is asked for what a smaller one does not answer with confidence.
//!
//! The smaller one's answer is read to its end before anything of it goes to the caller, so that an answer is always that of one
//! expert. The largest target's answer is not judged: it streams as any other.

mod budget;
mod confidence;

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use slm_crds::route::{BudgetSpent, Cascade, Target};
use slm_proto::v1::{Candidate, CandidateOutcome, Decision, GenerateRequest};
use tokio::time::Instant;
use tonic::Status;

use self::budget::Spent;
pub(crate) use self::confidence::Confidence;
use crate::{
    boundary::Boundary,
    dispatch::{Call, Dispatcher, Reply, Wanted},
    metrics::Escalation,
    refusal::Refusal,
    route::Route,
    started::StartedAnswer,
};

/// Routes whose budgets are kept. A swarm has as many as it has such routes.
const ROUTES_MAX: usize = 1024;

/// What the cascades of a router have spent.
#[derive(Debug, Default)]
pub(crate) struct Cascades(Mutex<HashMap<String, Spent>>);

impl Cascades {
    fn of<T>(&self, route: &str, change: impl FnOnce(&mut Spent) -> T) -> T {
        let mut spent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if spent.len() >= ROUTES_MAX && !spent.contains_key(route) {
            // What routes that are gone have spent goes with it; the others begin anew.
            spent.clear();
        }
        change(spent.entry(route.to_owned()).or_default())
    }
}

/// What is known of an answer that was read.
enum Judged {
    Confident(f64),
    Not(f64),
    /// Too long to be judged: it is given as it is.
    Long,
    /// It broke before its end.
    Broken(Status),
}

/// A request, in both forms in which it is sent.
#[derive(Clone, Copy)]
pub(crate) struct Requests<'r> {
    /// To those whose answers may be judged.
    pub(crate) judged: &'r GenerateRequest,
    /// To the last one, as the caller sent it: a model outside may know no probabilities.
    pub(crate) last: &'r GenerateRequest,
}

/// The request as it goes to workers whose answers may be judged: with the probabilities of tokens.
pub(crate) fn with_probabilities(request: &GenerateRequest) -> GenerateRequest {
    GenerateRequest { logprobs: request.logprobs.or(Some(0)), ..request.clone() }
}

impl Dispatcher {
    /// The answer of the first target that is confident enough, or of the last one; `answer` is that of the selected target.
    pub(crate) async fn escalated<B: Boundary>(
        &self,
        (route, cascade): (&Route, &Cascade),
        mut answer: StartedAnswer,
        requests: Requests<'_>,
        call: &Call,
        deadline: Instant,
        boundary: B,
    ) -> Result<StartedAnswer, Refusal> {
        while let Some(next) = larger(cascade, answer.expert()) {
            let judged = judge(cascade, &mut answer, self.limits.worker_idle).await;
            let (confidence, broken) = match judged {
                Judged::Long => return Ok(answer),
                Judged::Confident(confidence) => {
                    self.cascades.of(&route.name, Spent::kept);
                    self.metrics.judged(&route.name, Escalation::kept);
                    answer.explain(|decision| {
                        decision.reason +=
                            &format!("; confidence {confidence:.2}, accepted from {:.2}", cascade.confidence.accept);
                        not_asked(decision, cascade, next);
                    });
                    return Ok(answer);
                }
                Judged::Not(confidence) => (confidence, None),
                Judged::Broken(status) => (0.0, Some(status)),
            };
            let budget = &cascade.budget;
            if !self.cascades.of(&route.name, |spent| spent.escalates(budget, Instant::now())) {
                self.metrics.judged(&route.name, Escalation::spent);
                if let Some(status) = broken {
                    return Err(Refusal::Worker(status));
                }
                if budget.spent == BudgetSpent::Reject {
                    return Err(Refusal::BudgetSpent { route: route.name.clone() });
                }
                answer.explain(|decision| {
                    decision.reason += &format!("; confidence {confidence:.2}, and the budget of escalations is spent");
                    not_asked(decision, cascade, next);
                });
                return Ok(answer);
            }
            let request = if larger(cascade, &next.name).is_some() { requests.judged } else { requests.last };
            match self.tried(request, call, Wanted::target(next), deadline, boundary).await {
                Ok(Reply::Of(mut escalated)) => {
                    self.metrics.judged(&route.name, Escalation::escalated);
                    escalated.follows(answer, &said(cascade, confidence, broken.as_ref()), confidence);
                    answer = escalated;
                }
                outcome => {
                    self.metrics.judged(&route.name, Escalation::failed);
                    let (why, code) = match outcome {
                        Err(refusal) => (refusal.to_string(), Some(refusal.code())),
                        Ok(_) => ("it gave no answer".to_owned(), None),
                    };
                    tracing::info!(route = route.name, target = next.name, ?code, "a larger target did not answer");
                    if let Some(status) = broken {
                        return Err(Refusal::Worker(status));
                    }
                    answer.explain(|decision| {
                        decision.reason +=
                            &format!("; confidence {confidence:.2}, but {} did not answer: {why}", next.name);
                    });
                    return Ok(answer);
                }
            }
        }
        Ok(answer)
    }
}

async fn judge(cascade: &Cascade, answer: &mut StartedAnswer, idle: std::time::Duration) -> Judged {
    match answer.read(idle).await {
        Err(status) => Judged::Broken(status),
        Ok(None) => Judged::Long,
        Ok(Some(confidence)) => match confidence.of(cascade.confidence.measure) {
            confidence if confidence >= cascade.confidence.accept => Judged::Confident(confidence),
            confidence => Judged::Not(confidence),
        },
    }
}

/// The target after `expert`: the first one, if it is not listed.
fn larger<'c>(cascade: &'c Cascade, expert: &str) -> Option<&'c Target> {
    let place = cascade.targets.iter().position(|target| target.name == expert);
    cascade.targets.get(place.map_or(0, |place| place + 1))
}

/// Why a larger target was asked.
fn said(cascade: &Cascade, confidence: f64, broken: Option<&Status>) -> String {
    match broken {
        Some(status) => format!("its answer broke: {}", status.message()),
        None => format!("confidence {confidence:.2}, accepted from {:.2}", cascade.confidence.accept),
    }
}

/// Notes the targets from `next` on.
fn not_asked(decision: &mut Decision, cascade: &Cascade, next: &Target) {
    let rest = cascade.targets.iter().skip_while(|target| target.name != next.name);
    decision.candidates.extend(rest.map(|target| Candidate {
        expert: Some(slm_proto::v1::Expert { name: target.name.clone(), ..Default::default() }),
        rule: "cascade".to_owned(),
        outcome: CandidateOutcome::NotAsked.into(),
        why_not: "not needed".to_owned(),
        score: None,
    }));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_next_target_is_the_one_after_the_expert() {
        let targets = ["small", "middle", "large"].map(|name| json!({ "kind": "SlmModel", "name": name }));
        let cascade: Cascade = serde_json::from_value(json!({
            "targets": targets,
            "confidence": { "accept": 0.8 },
        }))
        .expect("a cascade");
        let next = |expert| larger(&cascade, expert).map(|target| target.name.as_str());
        assert_eq!([next("small"), next("middle"), next("large")], [Some("middle"), Some("large"), None]);
        assert_eq!(next("banking"), Some("small"));
    }
}
