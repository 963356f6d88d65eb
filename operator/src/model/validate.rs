//! Validate step: whether a model can be served.

use slm_crds::{
    AcceleratorProfileSpec, SlmModel,
    nearest::{did_you_mean, nearest},
    schema::Kind,
};

use slm_launch::ExecutionProvider;

use super::dereference::References;
use crate::{conditions::Verdict, name_conflicts::name_taken, objects::Objects, source};

/// A valid model's references.
#[derive(Debug)]
pub(super) struct Valid {
    pub(super) profile: AcceleratorProfileSpec,
    pub(super) provider: ExecutionProvider,
}

pub(super) fn validate(model: &SlmModel, found: &References, objects: &Objects) -> Result<Valid, Verdict> {
    if let Some(taken) = name_taken(model, objects) {
        return Err(taken);
    }
    if let Some(why) = source::unreachable(&model.spec.source.uri) {
        return Err(Verdict::wrong("SourceUnreachable", why));
    }
    let name = &model.spec.runtime.accelerator;
    let Some(profile) = &found.profile else { return Err(no_profile(name, objects)) };
    // A worker with an unsupported provider would crash-loop.
    match slm_launch::provider(profile) {
        Ok(provider) => Ok(Valid { profile: profile.clone(), provider }),
        Err(unsupported) => {
            let what = format!("AcceleratorProfile {name}: {unsupported}. Existing workers keep serving");
            Err(Verdict::wrong("ExecutionProviderUnsupported", what))
        }
    }
}

fn no_profile(name: &str, objects: &Objects) -> Verdict {
    if let Some(why) = objects.unreadable(Kind::AcceleratorProfile, name) {
        let message = format!("{why}; fix it, or upgrade the operator. Existing workers keep serving");
        return Verdict::wrong("AcceleratorProfileUndecodable", message);
    }
    let known: Vec<String> =
        objects.profiles.state().iter().filter_map(|profile| profile.metadata.name.clone()).collect();
    let near = nearest(name, known.iter().map(String::as_str));
    Verdict::wrong(
        "AcceleratorProfileNotFound",
        format!(
            "no AcceleratorProfile is named `{name}`{}; `kubectl get acceleratorprofiles` lists them",
            did_you_mean(&near)
        ),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::objects::fixtures::world;

    #[test]
    fn what_no_worker_can_run_is_refused() {
        let mut world = world();
        let model = world.model("smol", 1);
        let validated = |profile: Value| {
            let profile = serde_json::from_value(profile).expect("a profile");
            validate(&model, &References { profile: Some(profile) }, &world.objects).map(|valid| valid.provider)
        };
        assert_eq!(validated(json!({ "executionProvider": "Cpu" })), Ok(ExecutionProvider::Cpu));
        assert_eq!(validated(json!({ "executionProvider": "Cuda" })), Ok(ExecutionProvider::Cuda));
        let refused = validated(json!({ "executionProvider": "TensorRt" })).expect_err("TensorRt");
        assert_eq!(refused.reason, "ExecutionProviderUnsupported");
        assert!(refused.message.contains("TensorRt is not there yet"), "{}", refused.message);
        let openvino =
            |options: Value| validated(json!({ "executionProvider": "OpenVino", "providerOptions": options }));
        for options in [json!({}), json!({ "device_type": "CPU" })] {
            assert_eq!(openvino(options), Ok(ExecutionProvider::OpenVino));
        }
        for (options, word) in [
            (json!({ "device_type": "NPU" }), "device_type NPU, which is not there yet"),
            (json!({ "device_typ": "CPU" }), "no other option than device_type; take device_typ out of"),
        ] {
            let refused = openvino(options).expect_err(word);
            assert_eq!(refused.reason, "ExecutionProviderUnsupported");
            assert!(refused.message.contains(word), "{}", refused.message);
        }
        let options = json!({ "executionProvider": "Cpu", "providerOptions": { "arena_extend_strategy": "x" } });
        let refused = validated(options).expect_err("options");
        assert!(refused.message.contains("arena_extend_strategy"), "{}", refused.message);
    }

    #[test]
    fn a_profile_that_cannot_be_read_is_not_called_missing() {
        let mut world = world();
        let mut model = world.model("smol", 1);
        model.spec.runtime.accelerator = "rocm".to_owned();
        let refused = validate(&model, &References { profile: None }, &world.objects).expect_err("no profile");
        assert_eq!(refused.reason, "AcceleratorProfileNotFound");
        world.unreadable(Kind::AcceleratorProfile, "rocm", "unknown variant `Rocm`");
        let refused = validate(&model, &References { profile: None }, &world.objects).expect_err("no profile");
        assert_eq!(refused.reason, "AcceleratorProfileUndecodable");
        assert!(refused.message.contains("unknown variant `Rocm`"), "{}", refused.message);
    }
}
