//! What a route needs of the objects that it refers to, beyond that they are there. Manifests and clusters report the same faults.

use thiserror::Error;

use crate::{
    SwarmRouteSpec,
    model::Task,
    route::{Place, Target, TargetKind},
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

/// References of a route that do not serve their purpose, each with the path of its field. Those that `referred` does not know are
/// another fault's matter.
pub fn unfit(spec: &SwarmRouteSpec, referred: impl Fn(&Target) -> Option<Referred>) -> Vec<(String, Unfit)> {
    let Some(similarity) = &spec.similarity else { return Vec::new() };
    let Target { kind, name } = &similarity.encoder;
    let task = referred(&similarity.encoder).and_then(|object| object.task).filter(|task| *task != Task::Embed);
    let encoder =
        task.map(|task| (Place::Encoder.to_string(), Unfit::Encoder { kind: *kind, name: name.clone(), task }));
    let targets = similarity.targets.iter().enumerate().filter_map(|(index, target)| {
        let Target { kind, name } = target.clone();
        let path = Place::Similar(index).to_string();
        if similarity.targets[..index].contains(target) {
            return Some((path, Unfit::Twice { kind, name }));
        }
        let found = match referred(target)?.examples {
            0 => "nothing".to_owned(),
            1 => "one text".to_owned(),
            _ => return None,
        };
        Some((path, Unfit::Examples { kind, name, found }))
    });
    let found = similarity.targets.iter().filter_map(&referred).map(|object| object.examples).sum();
    let too_many = (found > EXAMPLES_MAX).then(|| ("spec.similarity.targets".to_owned(), Unfit::TooMany { found }));
    encoder.into_iter().chain(targets).chain(too_many).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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
}
