//! The decision: a resolved name to one expert, or to an answer of the route's own, with reasons.
//!
//! A model or an adapter is its own decision. Of a route, the first rule that is true and whose expert is loaded somewhere
//! decides; when no rule is true, the scores of its targets (`scored`); when nothing decides, its ensemble (`together`), or the fallback. A rule that
//! fails on a request, because its metadata lacks a key for example, is not true for it, unless the route says `onError: Reject`.
//! Rules and scores are computed before (`classify`); here their outcomes are combined with the loaded experts, which
//! may change while the request waits.

mod scored;
mod together;

use slm_crds::route::{DataPolicy, OutOfScope, Target, TargetKind};
use slm_proto::v1::{self, Candidate, CandidateOutcome, Decision, ExpertKind, GenerateRequest};

use crate::{
    absence::Absence,
    classify::Outcomes,
    refusal::Refusal,
    resolve::Resolved,
    route::Route,
    view::{Entry, Expert, View},
};

/// What a request gets.
#[derive(Debug)]
pub(crate) enum Verdict<'v> {
    /// The answer of an expert.
    Ask(Decided<'v>),
    /// These words of its route.
    Say { message: String, decision: Box<Decision> },
    /// An error.
    Refuse(Refusal),
}

/// A request with its expert.
#[derive(Debug)]
pub(crate) struct Decided<'v> {
    pub(crate) view: &'v View,
    pub(crate) requested: &'v str,
    pub(crate) route: &'v str,
    pub(crate) expert: Expert,
    pub(crate) reason: String,
    pub(crate) candidates: Vec<Candidate>,
    pub(crate) shown: Shown,
    /// What may leave the swarm for this request.
    pub(crate) policy: DataPolicy,
    /// The experts of the route's ensemble are asked; `expert` is for requests that are not for generation.
    pub(crate) several: bool,
}

/// What a decision shows of scores to those who asked for an explanation.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    pub(crate) classified: Option<Box<v1::Classified>>,
    pub(crate) similarity: Option<Box<v1::Similarity>>,
}

impl<'v> Decided<'v> {
    /// An expert that was named.
    pub(crate) fn named(view: &'v View, requested: &'v str, expert: &Expert) -> Self {
        Self {
            view,
            requested,
            route: "",
            expert: expert.clone(),
            reason: "named by the caller".to_owned(),
            candidates: Vec::new(),
            shown: Shown::default(),
            policy: DataPolicy::LocalOnly,
            several: false,
        }
    }

    /// This target of the route that was requested, whatever the route would select.
    pub(crate) fn asked(view: &'v View, requested: &'v str, to: &Target, policy: DataPolicy) -> Self {
        let expert = target(view, to);
        let reason = format!("{} is asked", expert.name);
        Self { route: requested, reason, policy, ..Self::named(view, requested, &expert) }
    }
}

impl<'v> Resolved<'v> {
    /// `outcomes` are those of the route, if the name is that of one: without them nothing selects a target. Candidates are
    /// listed only when the request asks for an explanation. `policy` says whether models outside may be asked.
    pub(crate) fn decide(
        self,
        request: &GenerateRequest,
        outcomes: Option<&Outcomes>,
        policy: DataPolicy,
    ) -> Verdict<'v> {
        let Self { view, requested, entry } = self;
        match entry {
            Entry::Expert(expert) => {
                let mut decided = Decided::named(view, requested, expert);
                if request.explain {
                    decided.candidates.push(candidate(view, expert, "named", CandidateOutcome::Chosen, String::new()));
                }
                Verdict::Ask(decided)
            }
            Entry::Route(route) => {
                let mut following = Following {
                    view,
                    route,
                    explain: request.explain,
                    candidates: Vec::new(),
                    shown: Shown::default(),
                    policy,
                };
                let to = following.follow(outcomes);
                following.shadowed();
                following.verdict(requested, to)
            }
        }
    }
}

/// Where a route leads.
enum To {
    Expert(Expert, String),
    /// The experts of its ensemble.
    Several(String),
    Message(String, String),
    Refusal(Refusal),
}

/// What one part of a route has decided.
enum Step {
    Done(To),
    /// Nothing; the fallback answers for this reason.
    Fallback(String),
    /// Nothing; the next part decides.
    Next,
}

/// A request on its way along a route.
struct Following<'v> {
    view: &'v View,
    route: &'v Route,
    explain: bool,
    candidates: Vec<Candidate>,
    shown: Shown,
    policy: DataPolicy,
}

impl<'v> Following<'v> {
    fn verdict(self, requested: &'v str, to: To) -> Verdict<'v> {
        let Self { view, route, candidates, shown, policy, .. } = self;
        let several = matches!(to, To::Several(_));
        let ask = |expert, reason, candidates, shown| {
            let route = &route.name;
            Verdict::Ask(Decided { view, requested, route, expert, reason, candidates, shown, policy, several })
        };
        match to {
            To::Expert(expert, reason) => ask(expert, reason, candidates, shown),
            To::Several(reason) => ask(target(view, route.fallback()), reason, candidates, shown),
            To::Message(message, reason) => {
                let decision = Decision {
                    requested: requested.to_owned(),
                    route: route.name.clone(),
                    reason,
                    candidates,
                    classified: shown.classified.map(|classified| *classified),
                    similarity: shown.similarity.map(|similarity| *similarity),
                    ..Decision::default()
                };
                Verdict::Say { message, decision: Box::new(decision) }
            }
            To::Refusal(refusal) => Verdict::Refuse(refusal),
        }
    }

    fn follow(&mut self, outcomes: Option<&Outcomes>) -> To {
        let mut step = self.rules(outcomes);
        if matches!(step, Step::Next) {
            step = self.labelled(outcomes.and_then(|outcomes| outcomes.labelled.as_ref()));
        }
        if matches!(step, Step::Next) {
            step = self.similar(outcomes.and_then(|outcomes| outcomes.similar.as_ref()));
        }
        let why = match &step {
            Step::Done(_) => String::new(),
            Step::Fallback(why) => why.clone(),
            Step::Next => "no rule matched".to_owned(),
        };
        if !matches!(step, Step::Done(_)) {
            step = self.together(&why);
        }
        let fallback = target(self.view, self.route.fallback());
        let why = match step {
            Step::Done(to) => {
                self.note(&fallback, "fallback", CandidateOutcome::NotReached, || "not needed".to_owned());
                return to;
            }
            Step::Fallback(why) => why,
            Step::Next => why,
        };
        self.note(&fallback, "fallback", CandidateOutcome::Chosen, String::new);
        To::Expert(fallback, format!("{why}: fallback"))
    }

    fn rules(&mut self, outcomes: Option<&Outcomes>) -> Step {
        let (view, route) = (self.view, self.route);
        let mut step = Step::Next;
        let outcomes = outcomes.map_or(&[][..], |outcomes| &outcomes.rules);
        for (number, (compiled, outcome)) in (1..).zip(route.rules.iter().zip(outcomes)) {
            let (expert, expression) = (target(view, &compiled.to), &compiled.when);
            if matches!(step, Step::Done(_)) {
                if !self.explain {
                    break;
                }
                let why = || "not evaluated: an earlier rule matched".to_owned();
                self.note(&expert, expression, CandidateOutcome::NotReached, why);
                continue;
            }
            match outcome {
                Err(error) if route.rejects_on_error() => {
                    let why = format!("rule {number} failed: {error}");
                    return Step::Done(To::Refusal(Refusal::Undecided {
                        route: route.name.clone(),
                        why,
                        passes: false,
                    }));
                }
                Err(error) => self.note(&expert, expression, CandidateOutcome::RuleError, || error.to_string()),
                Ok(false) => {
                    self.note(&expert, expression, CandidateOutcome::NoMatch, || "the rule did not match".to_owned());
                }
                Ok(true) => match unavailable(view, &expert, self.policy) {
                    Some(why) => {
                        self.note(&expert, expression, CandidateOutcome::NotResident, || why.to_string());
                        if matches!(step, Step::Next) {
                            step = Step::Fallback(format!("rule {number} matched, but {why}"));
                        }
                    }
                    None => {
                        self.note(&expert, expression, CandidateOutcome::Chosen, String::new);
                        step = Step::Done(To::Expert(expert, format!("rule {number} matched: {expression}")));
                    }
                },
            }
        }
        step
    }

    fn out_of_scope(&mut self, reason: String) -> Step {
        let Some(OutOfScope { to, message, reject }) = self.route.out_of_scope() else { return Step::Fallback(reason) };
        if let Some(message) = message {
            return Step::Done(To::Message(message.clone(), reason));
        }
        if let Some(message) = reject {
            return Step::Done(To::Refusal(Refusal::OutOfScope { message: message.clone() }));
        }
        let Some(to) = to.as_ref().map(|to| target(self.view, to)) else { return Step::Fallback(reason) };
        match unavailable(self.view, &to, self.policy) {
            Some(why) => {
                self.note(&to, "out of scope", CandidateOutcome::NotResident, || why.to_string());
                Step::Fallback(format!("{reason}, but {why}"))
            }
            None => {
                self.note(&to, "out of scope", CandidateOutcome::Chosen, String::new);
                Step::Done(To::Expert(to, reason))
            }
        }
    }

    fn note(&mut self, expert: &Expert, rule: &str, outcome: CandidateOutcome, why_not: impl FnOnce() -> String) {
        if self.explain {
            self.candidates.push(candidate(self.view, expert, rule, outcome, why_not()));
        }
    }
}

/// The expert that a target names. One that the swarm does not have is nowhere loaded, and so never chosen by a rule.
pub(crate) fn target(view: &View, target: &Target) -> Expert {
    view.index.expert(&target.name).cloned().unwrap_or_else(|| Expert {
        kind: match target.kind {
            TargetKind::SlmModel => ExpertKind::SlmModel,
            TargetKind::LoraAdapter => ExpertKind::LoraAdapter,
            TargetKind::ExternalModel => ExpertKind::ExternalModel,
        },
        name: target.name.clone(),
        model: String::new(),
        digest: String::new(),
        description: String::new(),
        refused: String::new(),
    })
}

/// The reason why a request cannot have an expert now; `None` when it can.
pub(crate) fn unavailable(view: &View, expert: &Expert, policy: DataPolicy) -> Option<Absence> {
    if expert.is_external() && policy == DataPolicy::LocalOnly {
        return Some(Absence::Policy { name: expert.name.clone(), policy });
    }
    absent(view, expert)
}

/// The reason why an expert is loaded nowhere; `None` when it is loaded somewhere.
pub(crate) fn absent(view: &View, expert: &Expert) -> Option<Absence> {
    let mut why = None;
    for worker in view.holders(expert) {
        match worker.resident(expert) {
            Ok(_) => return None,
            Err(reason) => why = why.or(Some(reason)),
        }
    }
    let base = || view.index.expert(&expert.model).and_then(Expert::refusal);
    Some(expert.refusal().or(why).or_else(base).unwrap_or_else(|| match expert.model.as_str() {
        "" if expert.is_external() && view.index.expert(&expert.name).is_some() => {
            Absence::NoEgress(expert.name.clone())
        }
        "" => Absence::NotPart(expert.name.clone()),
        model => Absence::NoWorker(model.to_owned()),
    }))
}

fn candidate(view: &View, expert: &Expert, rule: &str, outcome: CandidateOutcome, why_not: String) -> Candidate {
    let digest = view.holders(expert).find_map(|worker| worker.resident(expert).ok());
    let expert = Some(expert.to_proto(digest.unwrap_or_default()));
    Candidate { expert, rule: rule.to_owned(), outcome: outcome.into(), why_not, score: None }
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
        let Verdict::Ask(decided) = resolved.decide(&request, Some(&outcomes), DataPolicy::LocalOnly) else {
            panic!("an expert")
        };
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
        let resolved = resolve(&view, "travel", &Caller::anybody()).expect("known");
        let Verdict::Ask(decided) = resolved.decide(&GenerateRequest::default(), None, DataPolicy::LocalOnly) else {
            panic!("an expert")
        };
        assert_eq!((decided.expert.name.as_str(), decided.reason.as_str()), ("travel", "named by the caller"));
        assert!(decided.candidates.is_empty() && decided.route.is_empty());
    }
}
