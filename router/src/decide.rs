//! The decision: a resolved name to one expert, with reasons.
//!
//! A model or an adapter is its own decision. Of a route, the first rule that matches and whose expert is loaded somewhere
//! decides; when none does, the fallback answers. A rule that fails on a request, because its metadata lacks a key for example,
//! does not match it. Rules are evaluated before (`classify`); here their outcomes are combined with the loaded experts, which
//! may change while the request waits.

use slm_crds::route::{Target, TargetKind};
use slm_proto::v1::{Candidate, CandidateOutcome, ExpertKind, GenerateRequest};

use crate::{
    absence::Absence,
    classify::Outcomes,
    resolve::Resolved,
    route::Route,
    view::{Entry, Expert, View},
};

/// A request with its expert.
#[derive(Debug)]
pub(crate) struct Decided<'v> {
    pub(crate) view: &'v View,
    pub(crate) requested: &'v str,
    pub(crate) route: &'v str,
    pub(crate) expert: Expert,
    pub(crate) reason: String,
    pub(crate) candidates: Vec<Candidate>,
}

impl<'v> Resolved<'v> {
    /// `outcomes` are those of the route, if the name is that of one: without them none of its rules holds. Candidates are
    /// listed only when the request asks for an explanation.
    pub(crate) fn decide(self, request: &GenerateRequest, outcomes: Option<&Outcomes>) -> Decided<'v> {
        let Self { view, requested, entry } = self;
        match entry {
            Entry::Expert(expert) => {
                let reason = "named by the caller".to_owned();
                let mut candidates = Vec::new();
                if request.explain {
                    candidates.push(candidate(view, expert, "named", CandidateOutcome::Chosen, String::new()));
                }
                Decided { view, requested, route: "", expert: expert.clone(), reason, candidates }
            }
            Entry::Route(route) => {
                let (expert, reason, candidates) = follow(view, route, outcomes, request.explain);
                Decided { view, requested, route: &route.name, expert, reason, candidates }
            }
        }
    }
}

fn follow(view: &View, route: &Route, outcomes: Option<&Outcomes>, explain: bool) -> (Expert, String, Vec<Candidate>) {
    let mut candidates = Vec::with_capacity(if explain { route.rules.len() + 1 } else { 0 });
    let mut note = |expert: &Expert, rule: &str, outcome, why_not| {
        if explain {
            candidates.push(candidate(view, expert, rule, outcome, why_not));
        }
    };
    let mut chosen: Option<(Expert, String)> = None;
    let mut passed_over = None;
    let outcomes = outcomes.map_or(&[][..], |outcomes| &outcomes.rules);
    for (number, (compiled, outcome)) in (1..).zip(route.rules.iter().zip(outcomes)) {
        let (expert, expression) = (target(view, &compiled.to), &compiled.when);
        if chosen.is_some() {
            note(
                &expert,
                expression,
                CandidateOutcome::NotReached,
                "not evaluated: an earlier rule matched".to_owned(),
            );
            if !explain {
                break;
            }
            continue;
        }
        match outcome {
            Err(error) => note(&expert, expression, CandidateOutcome::RuleError, error.to_string()),
            Ok(false) => note(&expert, expression, CandidateOutcome::NoMatch, "the rule did not match".to_owned()),
            Ok(true) => match absent(view, &expert) {
                Some(why) => {
                    passed_over.get_or_insert_with(|| format!("rule {number} matched, but {why}"));
                    note(&expert, expression, CandidateOutcome::NotResident, why.to_string());
                }
                None => {
                    note(&expert, expression, CandidateOutcome::Chosen, String::new());
                    chosen = Some((expert, format!("rule {number} matched: {expression}")));
                }
            },
        }
    }
    let fallback = target(view, route.fallback());
    let (expert, reason) = match chosen {
        Some(chosen) => {
            note(&fallback, "fallback", CandidateOutcome::NotReached, "not needed: a rule matched".to_owned());
            chosen
        }
        None => {
            note(&fallback, "fallback", CandidateOutcome::Chosen, String::new());
            let why = passed_over.unwrap_or_else(|| "no rule matched".to_owned());
            (fallback, format!("{why}: fallback"))
        }
    };
    (expert, reason, candidates)
}

/// The expert that a target names. One that the swarm does not have is nowhere loaded, and so never chosen by a rule.
fn target(view: &View, target: &Target) -> Expert {
    view.index.expert(&target.name).cloned().unwrap_or_else(|| Expert {
        kind: match target.kind {
            TargetKind::SlmModel => ExpertKind::SlmModel,
            TargetKind::LoraAdapter => ExpertKind::LoraAdapter,
        },
        name: target.name.clone(),
        model: String::new(),
        digest: String::new(),
        description: String::new(),
        refused: String::new(),
    })
}

/// The reason why an expert is loaded nowhere; `None` when it is loaded somewhere.
pub(crate) fn absent(view: &View, expert: &Expert) -> Option<Absence> {
    let mut why = None;
    for worker in view.workers_of(&expert.model) {
        match worker.resident(expert) {
            Ok(_) => return None,
            Err(reason) => why = why.or(Some(reason)),
        }
    }
    let base = || view.index.expert(&expert.model).and_then(Expert::refusal);
    Some(expert.refusal().or(why).or_else(base).unwrap_or_else(|| match expert.model.as_str() {
        "" => Absence::NotPart(expert.name.clone()),
        model => Absence::NoWorker(model.to_owned()),
    }))
}

fn candidate(view: &View, expert: &Expert, rule: &str, outcome: CandidateOutcome, why_not: String) -> Candidate {
    let digest = view.workers_of(&expert.model).find_map(|worker| worker.resident(expert).ok());
    let expert = Some(expert.to_proto(digest.unwrap_or_default()));
    Candidate { expert, rule: rule.to_owned(), outcome: outcome.into(), why_not }
}

#[cfg(test)]
mod tests {
    use slm_proto::v1::generate_request::Input;

    use super::*;
    use crate::{
        access::table::Caller,
        classify::{evaluate, facts},
        resolve::resolve,
        view::fixtures,
    };

    fn decide(resident: &[&str], text: &str, topic: Option<&str>) -> (String, String, Vec<CandidateOutcome>) {
        let view = fixtures::view(vec![fixtures::worker("http://a", Some(fixtures::state(resident)))]);
        let request = GenerateRequest {
            input: Some(Input::Prompt(text.to_owned())),
            metadata: topic.map(|topic| ("topic".to_owned(), topic.to_owned())).into_iter().collect(),
            explain: true,
            ..Default::default()
        };
        let Some(Entry::Route(route)) = view.index.names.get("assistant") else { panic!("a route") };
        let outcomes = evaluate(route, &facts(&request), slm_crds::rule::Budget::default());
        let resolved = resolve(&view, "assistant", &Caller::anybody()).expect("a route");
        let decided = resolved.decide(&request, Some(&outcomes));
        let outcomes = decided.candidates.iter().map(Candidate::outcome).collect();
        (decided.expert.name, decided.reason, outcomes)
    }

    #[test]
    #[allow(clippy::type_complexity)] // A table.
    fn rules_then_fallback() {
        use CandidateOutcome::{Chosen, NoMatch, NotReached, NotResident, RuleError};
        let all = ["banking", "travel"];
        let cases: [(&[&str], &str, Option<&str>, &str, &str, [CandidateOutcome; 3]); 5] = [
            (
                &all,
                "my CARD",
                None,
                "banking",
                "rule 1 matched: text.matches('(?i)account|card')",
                [Chosen, NotReached, NotReached],
            ),
            (
                &all,
                "hi",
                Some("travel"),
                "travel",
                "rule 2 matched: metadata.topic == 'travel'",
                [NoMatch, Chosen, NotReached],
            ),
            (&all, "hi", None, "smol", "no rule matched: fallback", [NoMatch, RuleError, Chosen]),
            (
                &["travel"],
                "my card",
                Some("travel"),
                "travel",
                "rule 2 matched: metadata.topic == 'travel'",
                [NotResident, Chosen, NotReached],
            ),
            (
                &[],
                "my card",
                Some("x"),
                "smol",
                "rule 1 matched, but worker http://a has not loaded banking: fallback",
                [NotResident, NoMatch, Chosen],
            ),
        ];
        for (resident, text, topic, expert, reason, outcomes) in cases {
            let decided = decide(resident, text, topic);
            assert_eq!(decided, (expert.to_owned(), reason.to_owned(), outcomes.to_vec()), "{text} {topic:?}");
        }
    }

    #[test]
    fn a_named_expert_is_its_own_decision() {
        let view = fixtures::view(vec![]);
        let decided =
            resolve(&view, "travel", &Caller::anybody()).expect("known").decide(&GenerateRequest::default(), None);
        assert_eq!((decided.expert.name.as_str(), decided.reason.as_str()), ("travel", "named by the caller"));
        assert!(decided.candidates.is_empty() && decided.route.is_empty());
    }
}
