//! Whether the experts of a route's ensemble are asked: when nothing selects a target, and enough of them are loaded.

use slm_proto::v1::CandidateOutcome;

use super::{Following, Step, To, target, unavailable};
use crate::{absence::Absence, refusal::Refusal};

impl Following<'_> {
    /// What the ensemble decides when nothing else has, for the reason `why`.
    pub(super) fn together(&mut self, why: &str) -> Step {
        let (view, route) = (self.view, self.route);
        let Some(ensemble) = route.ensemble() else { return Step::Next };
        let mut missing = Vec::new();
        for expert in ensemble.experts.iter().map(|expert| target(view, expert)) {
            match unavailable(view, &expert, self.policy) {
                None => self.note(&expert, "ensemble", CandidateOutcome::Asked, String::new),
                Some(why) => {
                    self.note(&expert, "ensemble", CandidateOutcome::NotResident, || why.to_string());
                    missing.push(why);
                }
            }
        }
        if let Some(judge) = ensemble.judge.as_ref().map(|judge| target(view, judge)) {
            match unavailable(view, &judge, self.policy) {
                None => self.note(&judge, "judge", CandidateOutcome::Asked, String::new),
                Some(why) => self.note(&judge, "judge", CandidateOutcome::NotResident, || why.to_string()),
            }
        }
        let (loaded, wanted) = (ensemble.experts.len() - missing.len(), ensemble.minimum_answers as usize);
        if loaded >= wanted {
            return Step::Done(To::Several(format!("{why}: ensemble of {}", ensemble.experts.len())));
        }
        let few = format!("{loaded} experts of its ensemble are loaded, and {wanted} have to answer");
        if route.rejects_on_error() {
            let why = missing.iter().fold(few, |few, why| format!("{few}; {}", why.for_callers()));
            let is_lost = |why: &&Absence| matches!(why, Absence::NotLoadable(_) | Absence::Policy { .. });
            let passes = ensemble.experts.len() - missing.iter().filter(is_lost).count() >= wanted;
            return Step::Done(To::Refusal(Refusal::Undecided { route: route.name.clone(), why, passes }));
        }
        Step::Fallback(format!("{why}, and {few}"))
    }

    /// Shows the candidate that gets copies of requests.
    pub(super) fn shadowed(&mut self) {
        let Some(shadow) = self.route.shadow().filter(|_| self.explain) else { return };
        let to = target(self.view, &shadow.to);
        let copies = format!("it gets copies of {} % of the requests, and its answers are never given", shadow.percent);
        match unavailable(self.view, &to, self.policy) {
            None => self.note(&to, "shadow", CandidateOutcome::NotAsked, || copies),
            Some(why) => self.note(&to, "shadow", CandidateOutcome::NotResident, || format!("{why}; {copies}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};
    use slm_crds::route::DataPolicy;
    use slm_proto::v1::GenerateRequest;

    use crate::{
        access::table::Caller,
        decide::Verdict,
        resolve::resolve,
        view::{Index, View, fixtures},
    };

    /// What a route with an ensemble of banking, travel and a model outside decides: who is asked, and why; or the refusal.
    fn decide(loaded: &[&str], minimum: u32, more: &Value) -> String {
        let expert = |name: &str| json!({ "kind": "LoraAdapter", "name": name });
        let experts = json!([expert("banking"), expert("travel"), { "kind": "ExternalModel", "name": "large" }]);
        let mut spec = json!({
            "ensemble": { "experts": experts, "combine": "Vote", "minimumAnswers": minimum },
            "fallback": { "kind": "SlmModel", "name": "smol" },
        });
        spec.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        let mut swarm = fixtures::swarm();
        swarm.routes[0].spec = serde_json::from_value(spec).expect("a spec");
        swarm.externals = serde_json::from_value(json!([{ "name": "large" }])).expect("models");
        let index = Arc::new(Index::new(Arc::new(swarm), &Index::default()));
        let workers = vec![fixtures::worker("http://a", Some(fixtures::state(loaded)))];
        let view = View { index, workers, ..View::default() };
        let request = GenerateRequest { explain: true, ..GenerateRequest::default() };
        let resolved = resolve(&view, "assistant", &Caller::anybody()).expect("a route");
        match resolved.decide(&request, None, DataPolicy::LocalOnly) {
            Verdict::Ask(decided) => {
                let candidates =
                    decided.candidates.iter().map(|it| it.outcome().as_str_name().replace("CANDIDATE_OUTCOME_", ""));
                format!("{} {}: {}", decided.several, decided.reason, candidates.collect::<Vec<_>>().join(" "))
            }
            Verdict::Say { message, .. } => message,
            Verdict::Refuse(refusal) => format!("{:?} {refusal}", refusal.code()),
        }
    }

    #[test]
    fn enough_experts_have_to_be_loaded() {
        let all: &[&str] = &["banking", "travel"];
        assert_eq!(
            decide(all, 2, &json!({})),
            "true no rule matched: ensemble of 3: ASKED ASKED NOT_RESIDENT NOT_REACHED"
        );
        assert_eq!(
            decide(&["travel"], 2, &json!({})),
            "false no rule matched, and 1 experts of its ensemble are loaded, and 2 have to answer: fallback: NOT_RESIDENT \
             ASKED NOT_RESIDENT CHOSEN"
        );
        let rejects = json!({ "onError": "Reject" });
        assert_eq!(decide(all, 1, &rejects), decide(all, 1, &json!({})));
        let refused = decide(&["travel"], 2, &rejects);
        assert!(
            refused.starts_with("Unavailable the route `assistant` could not choose an expert: 1 experts"),
            "{refused}"
        );
        // What the policy keeps inside will not be asked later either.
        let refused = decide(all, 3, &rejects);
        assert!(refused.starts_with("FailedPrecondition "), "{refused}");
    }

    #[test]
    fn a_shadow_is_shown_beside_who_is_asked() {
        let shadow = json!({ "shadow": { "to": { "kind": "LoraAdapter", "name": "banking" }, "percent": 0.5 } });
        assert!(decide(&["banking", "travel"], 1, &shadow).ends_with("NOT_REACHED NOT_ASKED"));
        assert!(decide(&["travel"], 1, &shadow).ends_with("NOT_REACHED NOT_RESIDENT"));
    }
}
