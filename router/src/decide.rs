//! A resolved name to one expert, with the reasons.
//!
//! A model or an adapter is its own decision. A route tries its rules in order: the first that holds and whose expert is
//! loaded somewhere decides; when none does, the fallback answers. A rule that fails on a request, because its metadata
//! lacks a key for example, does not hold for it.

use std::collections::HashMap;

use slm_crds::{
    route::{Target, TargetKind},
    rule::{Facts, Rule, RuleError, Turn},
};
use slm_proto::v1::{Candidate, CandidateOutcome, ExpertKind, GenerateRequest, generate_request::Input};

use crate::{
    resolve::Resolved,
    view::{Entry, Expert, View},
};

/// Bytes of a text that rules see; bounds what a rule can cost on a long prompt.
const RULE_TEXT_BYTES_MAX: usize = 64 << 10;

/// A route with its rules compiled.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) name: String,
    pub(crate) description: String,
    rules: Vec<(Result<Rule, RuleError>, String, Target)>,
    fallback: Target,
}

/// A request that knows its expert.
#[derive(Debug)]
pub(crate) struct Decided<'v> {
    pub(crate) view: &'v View,
    pub(crate) requested: &'v str,
    pub(crate) route: &'v str,
    pub(crate) expert: Expert,
    pub(crate) reason: String,
    pub(crate) candidates: Vec<Candidate>,
}

impl Route {
    pub(crate) fn new(
        name: &str,
        description: Option<&str>,
        rules: Vec<(Result<Rule, RuleError>, &Target)>,
        fallback: &Target,
    ) -> Self {
        let rules = rules.into_iter().map(|(rule, to)| {
            let expression = rule.as_ref().map_or_else(ToString::to_string, |rule| rule.expression().to_owned());
            (rule, expression, to.clone())
        });
        Self {
            name: name.to_owned(),
            description: description.unwrap_or_default().to_owned(),
            rules: rules.collect(),
            fallback: fallback.clone(),
        }
    }

    /// Everyone who may answer.
    pub(crate) fn targets(&self) -> impl Iterator<Item = &Target> {
        self.rules.iter().map(|(_, _, to)| to).chain([&self.fallback])
    }
}

impl<'v> Resolved<'v> {
    /// Candidates are listed only when the request asks for an explanation.
    pub(crate) fn decide(self, request: &GenerateRequest) -> Decided<'v> {
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
                let (expert, reason, candidates) = follow(view, route, request);
                let candidates = if request.explain { candidates } else { Vec::new() };
                Decided { view, requested, route: &route.name, expert, reason, candidates }
            }
        }
    }
}

fn follow(view: &View, route: &Route, request: &GenerateRequest) -> (Expert, String, Vec<Candidate>) {
    let facts = facts(request);
    let mut candidates = Vec::with_capacity(if request.explain { route.rules.len() + 1 } else { 0 });
    let mut note = |expert: &Expert, rule: &str, outcome, why_not| {
        if request.explain {
            candidates.push(candidate(view, expert, rule, outcome, why_not));
        }
    };
    let mut chosen: Option<(Expert, String)> = None;
    let mut passed_over = None;
    for (number, (rule, expression, to)) in (1..).zip(&route.rules) {
        let expert = target(view, to);
        if chosen.is_some() {
            note(&expert, expression, CandidateOutcome::NotReached, "an earlier rule decided".to_owned());
            if !request.explain {
                break;
            }
            continue;
        }
        match rule.as_ref().map_err(Clone::clone).and_then(|rule| rule.holds(&facts)) {
            Err(error) => note(&expert, expression, CandidateOutcome::RuleError, error.to_string()),
            Ok(false) => note(&expert, expression, CandidateOutcome::NoMatch, "the rule does not hold".to_owned()),
            Ok(true) => match absent(view, &expert) {
                Some(why) => {
                    passed_over.get_or_insert_with(|| format!("rule {number} matched, but {why}"));
                    note(&expert, expression, CandidateOutcome::NotResident, why);
                }
                None => {
                    note(&expert, expression, CandidateOutcome::Chosen, String::new());
                    chosen = Some((expert, format!("rule {number} matched: {expression}")));
                }
            },
        }
    }
    let fallback = target(view, &route.fallback);
    let (expert, reason) = match chosen {
        Some(chosen) => {
            note(&fallback, "fallback", CandidateOutcome::NotReached, "a rule decided".to_owned());
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
    })
}

/// Why an expert is loaded nowhere, or `None` when it is somewhere.
pub(crate) fn absent(view: &View, expert: &Expert) -> Option<String> {
    let mut why = None;
    for worker in view.workers_of(&expert.model) {
        match worker.resident(expert) {
            Ok(_) => return None,
            Err(reason) => why = why.or(Some(reason)),
        }
    }
    Some(why.unwrap_or_else(|| match expert.model.as_str() {
        "" => format!("{} is not part of the swarm", expert.name),
        model => format!("model {model} has no worker"),
    }))
}

fn candidate(view: &View, expert: &Expert, rule: &str, outcome: CandidateOutcome, why_not: String) -> Candidate {
    let digest = view.workers_of(&expert.model).find_map(|worker| worker.resident(expert).ok());
    let expert = Some(expert.to_proto(digest.unwrap_or_default()));
    Candidate { expert, rule: rule.to_owned(), outcome: outcome.into(), why_not }
}

fn facts(request: &GenerateRequest) -> Facts {
    let none: HashMap<String, String> = HashMap::new();
    let metadata = if request.metadata.is_empty() { &none } else { &request.metadata };
    match &request.input {
        Some(Input::Messages(messages)) => {
            let turns =
                messages.messages.iter().map(|message| Turn { role: &message.role, content: cut(&message.content) });
            let last = messages.messages.iter().rev().find(|message| message.role == "user");
            let text = last.map_or("", |message| cut(&message.content));
            Facts::new(&request.model, text, turns, metadata)
        }
        Some(Input::Prompt(prompt)) => Facts::new(&request.model, cut(prompt), [], metadata),
        Some(Input::TokenIds(_)) | None => Facts::new(&request.model, "", [], metadata),
    }
}

fn cut(text: &str) -> &str {
    let end = text.len().min(RULE_TEXT_BYTES_MAX);
    let end = (0..=end).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{access::table::Caller, resolve::resolve, view::fixtures};

    fn decide(resident: &[&str], text: &str, topic: Option<&str>) -> (String, String, Vec<CandidateOutcome>) {
        let view = fixtures::view(vec![fixtures::worker("http://a", Some(fixtures::state(resident)))]);
        let request = GenerateRequest {
            input: Some(Input::Prompt(text.to_owned())),
            metadata: topic.map(|topic| ("topic".to_owned(), topic.to_owned())).into_iter().collect(),
            explain: true,
            ..Default::default()
        };
        let decided = resolve(&view, "assistant", &Caller::anybody()).expect("a route").decide(&request);
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
        let decided = resolve(&view, "travel", &Caller::anybody()).expect("known").decide(&GenerateRequest::default());
        assert_eq!((decided.expert.name.as_str(), decided.reason.as_str()), ("travel", "named by the caller"));
        assert!(decided.candidates.is_empty() && decided.route.is_empty());
    }

    #[test]
    fn text_is_the_last_user_message() {
        let messages = ["system", "user", "assistant"].map(|role| slm_proto::v1::Message {
            role: role.to_owned(),
            content: format!("{role} account"),
            ..Default::default()
        });
        let request = GenerateRequest {
            input: Some(Input::Messages(slm_proto::v1::Messages { messages: messages.into() })),
            ..Default::default()
        };
        let rule = Rule::compile("text == 'user account' && size(messages) == 3").expect("compiles");
        assert_eq!(rule.holds(&facts(&request)), Ok(true));
    }
}
