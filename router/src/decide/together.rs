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
            let passes = missing.iter().any(|why| !matches!(why, Absence::NotLoadable(_) | Absence::Policy { .. }));
            return Step::Done(To::Refusal(Refusal::Undecided { route: route.name.clone(), why, passes }));
        }
        Step::Fallback(format!("{why}, and {few}"))
    }

    /// Shows the candidate that gets copies of requests.
    pub(super) fn shadowed(&mut self) {
        let Some(shadow) = self.route.shadow() else { return };
        let to = target(self.view, &shadow.to);
        let copies = format!("it gets copies of {} % of the requests, and its answers are never given", shadow.percent);
        match unavailable(self.view, &to, self.policy) {
            None => self.note(&to, "shadow", CandidateOutcome::NotAsked, || copies),
            Some(why) => self.note(&to, "shadow", CandidateOutcome::NotResident, || format!("{why}; {copies}")),
        }
    }
}
