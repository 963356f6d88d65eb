//! What a route needs of the objects that it refers to, beyond that they are there. Manifests and clusters report the same faults.

use thiserror::Error;

use crate::{
    SwarmRouteSpec,
    model::Task,
    route::{Classifier, DataPolicy, Place, Similarity, Target, TargetKind, false_rejections},
};

/// Examples of a target with fewer say nothing of how much they differ.
pub const EXAMPLES_MIN: usize = 2;

/// Examples of all targets of a route. Each is compared with each, and with every request.
pub const EXAMPLES_MAX: usize = 4096;

/// What a route's checks read of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Referred {
    /// Task of the model, or of an adapter's base. Unknown for an adapter whose base is not there.
    pub task: Option<Task>,
    /// Number of its examples.
    pub examples: usize,
}

/// A reference to an object that does not serve its purpose.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unfit {
    /// The encoder makes no vectors.
    #[error("the {kind} `{name}` has the task {}; an encoder needs Embed: name a SlmModel with `task: Embed`, or a LoraAdapter on one", .task.name())]
    Encoder {
        /// Kind of the object.
        kind: TargetKind,
        /// Its name.
        name: String,
        /// Its task.
        task: Task,
    },
    /// The classifier gives no labels.
    #[error("the {kind} `{name}` has the task {}; a classifier is a LoraAdapter with a head (`slm route train`) on a SlmModel with `task: Embed`, or has the task Classify", .task.name())]
    Classifier {
        /// Kind of the object.
        kind: TargetKind,
        /// Its name.
        name: String,
        /// Its task.
        task: Task,
    },
    /// A measure of scope that the classifier does not have.
    #[error("a head has no thresholds: its typicality is compared with `falseRejections`; remove `thresholds`")]
    Thresholds,
    /// A measure of scope that only heads have.
    #[error(
        "a model with `task: Classify` has no typicality that it could be compared with; set `thresholds` of its probabilities instead"
    )]
    FalseRejections,
    /// A label whose target is not one of the classifier's.
    #[error("`{0}` is not in spec.classifier.targets; list it there, or name one that is")]
    Label(String),
    /// A target that requests cannot be compared with.
    #[error(
        "the {kind} `{name}` has {found} in spec.expert.examples; similarity needs at least {EXAMPLES_MIN} of each target, and 8 to 64 do well"
    )]
    Examples {
        /// Kind of the object.
        kind: TargetKind,
        /// Its name.
        name: String,
        /// Its number of examples, in words.
        found: String,
    },
    /// A target outside of the swarm, of a route whose data stays inside.
    #[error(
        "the ExternalModel `{0}` is never asked under `dataPolicy: LocalOnly`; set Redacted or AllowExternal, or name another target"
    )]
    LocalOnly(String),
    /// A target of a cascade that does not generate.
    #[error("the {kind} `{name}` has the task {}; only answers of models that generate are judged", .task.name())]
    Cascade {
        /// Kind of the object.
        kind: TargetKind,
        /// Its name.
        name: String,
        /// Its task.
        task: Task,
    },
    /// A target that is asked, and does not generate.
    #[error("the {kind} `{name}` has the task {}; name one that generates", .task.name())]
    Generates {
        /// Kind of the object.
        kind: TargetKind,
        /// Its name.
        name: String,
        /// Its task.
        task: Task,
    },
    /// A target outside of the swarm whose answers have no confidence.
    #[error(
        "the answers of the ExternalModel `{0}` have no confidence, for it gives no probabilities; combine by Vote or Judge, or name \
         another expert"
    )]
    Unmeasured(String),
    /// A judge outside of the swarm.
    #[error("the ExternalModel `{0}` cannot be held to the number of an answer; name a judge of the swarm")]
    JudgeOutside(String),
    /// A target that is the route.
    #[error("`{0}` is the route itself; a target is a SlmModel, a LoraAdapter or an ExternalModel")]
    Itself(String),
    /// More examples than a route compares with.
    #[error(
        "its targets have {found} examples together; at most {EXAMPLES_MAX} are compared with: list fewer targets, or examples"
    )]
    TooMany {
        /// Number of examples.
        found: usize,
    },
    /// A target that is listed twice.
    #[error("the {kind} `{name}` is listed before; list each target once")]
    Twice {
        /// Kind of the object.
        kind: TargetKind,
        /// Its name.
        name: String,
    },
}

/// The fault of a reference of the route of this name to itself.
#[must_use]
pub fn itself(route: &str, target: &Target) -> Option<Unfit> {
    (target.name == route).then(|| Unfit::Itself(route.to_owned()))
}

/// References of a route that do not serve their purpose, each with the path of its field. Those that `referred` does not know are
/// another fault's matter.
pub fn unfit(spec: &SwarmRouteSpec, referred: impl Fn(&Target) -> Option<Referred>) -> Vec<(String, Unfit)> {
    let mut faults = Vec::new();
    if let Some(classifier) = &spec.classifier {
        of_classifier(classifier, &referred, &mut faults);
    }
    if let Some(similarity) = &spec.similarity {
        of_similarity(similarity, &referred, &mut faults);
    }
    let task = |target: &Target| referred(target).and_then(|object| object.task);
    faults.extend(spec.ensemble.iter().flat_map(|ensemble| ensemble.unfit(task)));
    faults.extend(spec.shadow.iter().filter_map(|shadow| shadow.unfit(task)));
    if let Some(retrieve) = &spec.retrieve {
        faults.extend(of_encoder(&retrieve.encoder, Place::Retriever, &referred));
    }
    if let Some(cascade) = &spec.cascade {
        faults.extend(cascade.targets.iter().enumerate().filter_map(|(index, target)| {
            let task = task(target).filter(|task| *task != Task::Generate)?;
            let Target { kind, name } = target.clone();
            Some((Place::Cascade(index).to_string(), Unfit::Cascade { kind, name, task }))
        }));
        faults.extend(twice(&cascade.targets, Place::Cascade));
    }
    if spec.data_policy == DataPolicy::LocalOnly {
        let external = spec.references().filter(|(place, to)| place.is_asked() && to.kind == TargetKind::ExternalModel);
        faults.extend(external.map(|(place, to)| (place.to_string(), Unfit::LocalOnly(to.name.clone()))));
    }
    faults
}

#[allow(clippy::float_cmp)] // Whether it was set.
fn of_classifier(
    classifier: &Classifier,
    referred: impl Fn(&Target) -> Option<Referred>,
    faults: &mut Vec<(String, Unfit)>,
) {
    let Target { kind, name } = classifier.model.clone();
    match referred(&classifier.model).and_then(|object| object.task) {
        Some(Task::Classify) if classifier.false_rejections != false_rejections() => {
            faults.push(("spec.classifier.falseRejections".to_owned(), Unfit::FalseRejections));
        }
        Some(Task::Embed) if kind == TargetKind::LoraAdapter && classifier.thresholds.is_some() => {
            faults.push(("spec.classifier.thresholds".to_owned(), Unfit::Thresholds));
        }
        None | Some(Task::Classify) => {}
        Some(Task::Embed) if kind == TargetKind::LoraAdapter => {}
        Some(task) => faults.push((Place::Classifier.to_string(), Unfit::Classifier { kind, name, task })),
    }
    faults.extend(twice(&classifier.targets, Place::Labelled));
    let is_target = |name: &String| classifier.targets.iter().any(|target| target.name == *name);
    for (label, target) in classifier.labels.iter().filter(|(_, target)| !is_target(target)) {
        faults.push((format!("spec.classifier.labels[{label:?}]"), Unfit::Label(target.clone())));
    }
}

fn of_similarity(
    similarity: &Similarity,
    referred: impl Fn(&Target) -> Option<Referred>,
    faults: &mut Vec<(String, Unfit)>,
) {
    faults.extend(of_encoder(&similarity.encoder, Place::Encoder, &referred));
    let targets = &similarity.targets;
    let first = |index: &usize| !targets[..*index].contains(&targets[*index]);
    for index in (0..targets.len()).filter(first) {
        let found = match referred(&targets[index]).map(|object| object.examples) {
            Some(0) => "nothing".to_owned(),
            Some(1) => "one text".to_owned(),
            _ => continue,
        };
        let Target { kind, name } = targets[index].clone();
        faults.push((Place::Similar(index).to_string(), Unfit::Examples { kind, name, found }));
    }
    faults.extend(twice(targets, Place::Similar));
    let found = targets.iter().filter_map(&referred).map(|object| object.examples).sum();
    if found > EXAMPLES_MAX {
        faults.push(("spec.similarity.targets".to_owned(), Unfit::TooMany { found }));
    }
}

/// The fault of an encoder that makes no vectors.
fn of_encoder(
    encoder: &Target,
    place: Place,
    referred: impl Fn(&Target) -> Option<Referred>,
) -> Option<(String, Unfit)> {
    let task = referred(encoder).and_then(|object| object.task).filter(|task| *task != Task::Embed)?;
    let Target { kind, name } = encoder.clone();
    Some((place.to_string(), Unfit::Encoder { kind, name, task }))
}

/// Targets that are listed before.
pub(crate) fn twice(targets: &[Target], place: fn(usize) -> Place) -> impl Iterator<Item = (String, Unfit)> {
    let again = targets.iter().enumerate().filter(|(index, target)| targets[..*index].contains(target));
    again.map(move |(index, Target { kind, name })| {
        (place(index).to_string(), Unfit::Twice { kind: *kind, name: name.clone() })
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::route::Thresholds;

    #[test]
    fn encoders_embed_and_targets_have_examples() {
        let targets = ["none", "one", "two", "two", "gone"].map(|name| json!({ "kind": "LoraAdapter", "name": name }));
        let spec: SwarmRouteSpec = serde_json::from_value(json!({
            "similarity": {
                "encoder": { "kind": "SlmModel", "name": "smol" },
                "targets": targets,
            },
            "fallback": { "kind": "SlmModel", "name": "smol" },
        }))
        .expect("a spec");
        let referred = |target: &Target| {
            let examples = match target.name.as_str() {
                "one" => 1,
                "two" => 2,
                "gone" => return None,
                _ => 0,
            };
            Some(Referred { task: Some(Task::Generate), examples })
        };
        let found: Vec<_> =
            unfit(&spec, referred).into_iter().map(|(path, unfit)| format!("{path}: {unfit}")).collect();
        assert_eq!(
            found,
            [
                "spec.similarity.encoder: the SlmModel `smol` has the task Generate; an encoder needs Embed: name a SlmModel \
                 with `task: Embed`, or a LoraAdapter on one",
                "spec.similarity.targets[0]: the LoraAdapter `none` has nothing in spec.expert.examples; similarity needs at \
                 least 2 of each target, and 8 to 64 do well",
                "spec.similarity.targets[1]: the LoraAdapter `one` has one text in spec.expert.examples; similarity needs at \
                 least 2 of each target, and 8 to 64 do well",
                "spec.similarity.targets[3]: the LoraAdapter `two` is listed before; list each target once",
            ]
        );
    }

    #[test]
    fn classifiers_label_and_labels_belong_to_targets() {
        let spec = |model: &str, kind: &str| -> SwarmRouteSpec {
            serde_json::from_value(json!({
                "classifier": {
                    "model": { "kind": kind, "name": model },
                    "targets": [{ "kind": "LoraAdapter", "name": "a" }, { "kind": "LoraAdapter", "name": "a" }],
                    "labels": { "x": "a", "y": "b" },
                },
                "fallback": { "kind": "SlmModel", "name": "smol" },
            }))
            .expect("a spec")
        };
        let referred = |target: &Target| {
            let task = match target.name.as_str() {
                "encoder" | "head" => Task::Embed,
                "labeller" => Task::Classify,
                _ => Task::Generate,
            };
            Some(Referred { task: Some(task), examples: 0 })
        };
        let found = |model: &str, kind: &str| -> Vec<String> {
            unfit(&spec(model, kind), referred).into_iter().map(|(path, unfit)| format!("{path}: {unfit}")).collect()
        };
        let others = [
            "spec.classifier.targets[1]: the LoraAdapter `a` is listed before; list each target once",
            "spec.classifier.labels[\"y\"]: `b` is not in spec.classifier.targets; list it there, or name one that is",
        ];
        assert_eq!(found("head", "LoraAdapter"), others);
        let mut measured = spec("head", "LoraAdapter");
        let classifier = measured.classifier.as_mut().expect("a classifier");
        classifier.thresholds = Some(Thresholds { accept: 0.9, out_of_scope: 0.5 });
        assert_eq!(unfit(&measured, referred)[0], ("spec.classifier.thresholds".to_owned(), Unfit::Thresholds));
        let mut measured = spec("labeller", "SlmModel");
        measured.classifier.as_mut().expect("a classifier").false_rejections = 0.1;
        assert_eq!(unfit(&measured, referred)[0].1, Unfit::FalseRejections);
        assert_eq!(found("labeller", "SlmModel"), others);
        for (model, task) in [("encoder", "Embed"), ("smol", "Generate")] {
            let told = found(model, "SlmModel");
            assert!(
                told[0].starts_with(&format!("spec.classifier.model: the SlmModel `{model}` has the task {task}; "))
            );
            assert_eq!(told[1..], others);
        }
    }

    #[test]
    fn cascades_generate() {
        let targets = ["small", "minilm", "small"].map(|name| json!({ "kind": "SlmModel", "name": name }));
        let spec: SwarmRouteSpec = serde_json::from_value(json!({
            "cascade": {
                "targets": targets,
                "confidence": { "accept": 0.8 },
            },
            "fallback": { "kind": "SlmModel", "name": "small" },
        }))
        .expect("a spec");
        let referred = |target: &Target| {
            let task = if target.name == "minilm" { Task::Embed } else { Task::Generate };
            Some(Referred { task: Some(task), examples: 0 })
        };
        let found: Vec<_> =
            unfit(&spec, referred).into_iter().map(|(path, unfit)| format!("{path}: {unfit}")).collect();
        assert_eq!(
            found,
            [
                "spec.cascade.targets[1]: the SlmModel `minilm` has the task Embed; only answers of models that generate are \
                 judged",
                "spec.cascade.targets[2]: the SlmModel `small` is listed before; list each target once",
            ]
        );
    }
}
