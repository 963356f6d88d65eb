//! Several experts for one request, and the copies of requests that a candidate gets: parts of a `SwarmRoute`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    model::Task,
    route::{Place, Target, TargetKind},
    selection::{Unfit, twice},
    validation,
};

/// Ensemble asks several experts at once and gives one answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = validation::ensemble()))]
pub struct Ensemble {
    /// Experts that are asked, in the order that decides between equals.
    #[schemars(length(min = 2, max = 8))]
    pub experts: Vec<Target>,
    /// Combine says which of the answers is given. Vote: the one that most experts give, compared without case, punctuation and spacing;
    /// of equally many votes the one with more confidence. Best: the most confident one, by the geometric mean of its tokens'
    /// probabilities. Judge: the one that `judge` chooses; the most confident one if the judge fails.
    pub combine: Combine,
    /// Judge is shown the question and the answers, and answers the number of the best one. A judge of the swarm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judge: Option<Target>,
    /// MinimumAnswers is how many experts have to answer. With fewer the fallback answers, or the request is refused if `onError` is Reject,
    /// or if the time has passed.
    #[serde(default = "minimum_answers", skip_serializing_if = "is_minimum_answers")]
    #[schemars(range(min = 1, max = 8))]
    pub minimum_answers: u32,
    /// TimeoutMilliseconds is the time for the experts' answers. What has come by then is combined. The judge has as much again.
    #[serde(default = "timeout_milliseconds", skip_serializing_if = "is_timeout_milliseconds")]
    #[schemars(range(min = 1, max = 600_000))]
    pub timeout_milliseconds: u32,
}

/// Combine says which of several answers is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs)]
pub enum Combine {
    Vote,
    Best,
    Judge,
}

/// Shadow sends copies of requests to a candidate, and counts how often it agrees. Its answers are never given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Shadow {
    /// To is the candidate.
    pub to: Target,
    /// Percent of the requests that are copied.
    #[schemars(range(min = 0.0, max = 100.0))]
    pub percent: f64,
}

fn minimum_answers() -> u32 {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref)] // As serde calls it.
fn is_minimum_answers(answers: &u32) -> bool {
    *answers == minimum_answers()
}

fn timeout_milliseconds() -> u32 {
    30_000
}

#[allow(clippy::trivially_copy_pass_by_ref)] // As serde calls it.
fn is_timeout_milliseconds(milliseconds: &u32) -> bool {
    *milliseconds == timeout_milliseconds()
}

impl Ensemble {
    /// Every object that it refers to, and where.
    pub(crate) fn references(&self) -> impl Iterator<Item = (Place, &Target)> {
        let experts = self.experts.iter().enumerate().map(|(index, expert)| (Place::Expert(index), expert));
        experts.chain(self.judge.iter().map(|judge| (Place::Judge, judge)))
    }

    /// References that do not serve their purpose. `task` is that of a target, if it is known.
    pub(crate) fn unfit(&self, task: impl Fn(&Target) -> Option<Task>) -> Vec<(String, Unfit)> {
        let outside = |target: &Target| target.kind == TargetKind::ExternalModel;
        let mut faults = Vec::new();
        for (place, target) in self.references() {
            faults.extend(generates(place, target, &task));
        }
        if self.combine == Combine::Best {
            let experts = self.experts.iter().enumerate().filter(|(_, expert)| outside(expert));
            faults.extend(
                experts.map(|(index, to)| (Place::Expert(index).to_string(), Unfit::Unmeasured(to.name.clone()))),
            );
        }
        let judge = self.judge.iter().filter(|judge| outside(judge));
        faults.extend(judge.map(|judge| (Place::Judge.to_string(), Unfit::JudgeOutside(judge.name.clone()))));
        faults.extend(twice(&self.experts, Place::Expert));
        faults
    }
}

impl Shadow {
    /// The fault of the candidate, if it generates nothing.
    pub(crate) fn unfit(&self, task: impl Fn(&Target) -> Option<Task>) -> Option<(String, Unfit)> {
        generates(Place::Shadow, &self.to, task)
    }
}

fn generates(place: Place, target: &Target, task: impl Fn(&Target) -> Option<Task>) -> Option<(String, Unfit)> {
    let task = task(target).filter(|task| *task != Task::Generate)?;
    let Target { kind, name } = target.clone();
    Some((place.to_string(), Unfit::Generates { kind, name, task }))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::{
        SwarmRouteSpec,
        model::Task,
        route::Target,
        selection::{Referred, unfit},
    };

    fn model(name: &str) -> Value {
        json!({ "kind": "SlmModel", "name": name })
    }

    fn found(part: Value) -> Vec<String> {
        let mut spec = json!({ "fallback": model("small"), "dataPolicy": "AllowExternal" });
        spec.as_object_mut().expect("an object").extend(part.as_object().expect("a part").clone());
        let spec: SwarmRouteSpec = serde_json::from_value(spec).expect("a spec");
        let referred = |target: &Target| {
            let task = if target.name == "minilm" { Task::Embed } else { Task::Generate };
            Some(Referred { task: Some(task), examples: 0 })
        };
        unfit(&spec, referred).into_iter().map(|(path, unfit)| format!("{path}: {unfit}")).collect()
    }

    #[test]
    fn experts_and_judges_generate_and_can_be_compared() {
        let outside = json!({ "kind": "ExternalModel", "name": "large" });
        let experts = [model("small"), model("minilm"), model("small"), outside.clone()];
        assert_eq!(
            found(json!({ "ensemble": { "experts": experts, "combine": "Best" } })),
            [
                "spec.ensemble.experts[1]: the SlmModel `minilm` has the task Embed; name one that generates",
                "spec.ensemble.experts[3]: the answers of the ExternalModel `large` have no confidence, for it gives no \
                 probabilities; combine by Vote or Judge, or name another expert",
                "spec.ensemble.experts[2]: the SlmModel `small` is listed before; list each target once",
            ]
        );
        let experts = [model("small"), outside.clone()];
        assert_eq!(
            found(json!({ "ensemble": { "experts": experts, "combine": "Judge", "judge": outside } })),
            [
                "spec.ensemble.judge: the ExternalModel `large` cannot be held to the number of an answer; name a judge of the \
              swarm"
            ]
        );
        assert!(found(json!({ "ensemble": { "experts": experts, "combine": "Vote" } })).is_empty());
    }

    #[test]
    fn what_stands_in_the_shadow_generates_and_may_be_asked() {
        assert_eq!(
            found(json!({ "shadow": { "to": model("minilm"), "percent": 5.0 } })),
            ["spec.shadow.to: the SlmModel `minilm` has the task Embed; name one that generates"]
        );
        let outside = json!({ "kind": "ExternalModel", "name": "large" });
        let shadow = json!({ "to": outside, "percent": 5.0 });
        assert!(found(json!({ "shadow": shadow })).is_empty());
        let faults = found(json!({ "shadow": shadow, "dataPolicy": "LocalOnly" }));
        assert!(faults[0].starts_with("spec.shadow.to: the ExternalModel `large` is never asked"), "{faults:?}");
    }
}
