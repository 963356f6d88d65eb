//! Whether a model can be served at all.

use kube::runtime::reflector::Store;
use slm_crds::{
    AcceleratorProfile, AcceleratorProfileSpec, SlmModel,
    nearest::{did_you_mean, nearest},
};

use super::dereference::Found;
use crate::{conditions::Verdict, objects::Objects, source, taken::name_taken};

/// A model that can be built.
#[derive(Debug)]
pub(super) struct Valid {
    pub(super) profile: AcceleratorProfileSpec,
}

pub(super) fn validate(model: &SlmModel, found: &Found, objects: &Objects) -> Result<Valid, Verdict> {
    if let Some(taken) = name_taken(model, objects) {
        return Err(taken);
    }
    if let Some(why) = source::unreachable(&model.spec.source.uri) {
        return Err(Verdict::wrong("SourceUnreachable", why));
    }
    match &found.profile {
        Some(profile) => Ok(Valid { profile: profile.clone() }),
        None => Err(no_profile(&model.spec.runtime.accelerator, &objects.profiles)),
    }
}

fn no_profile(name: &str, profiles: &Store<AcceleratorProfile>) -> Verdict {
    let known: Vec<String> = profiles.state().iter().filter_map(|profile| profile.metadata.name.clone()).collect();
    let near = nearest(name, known.iter().map(String::as_str));
    Verdict::wrong(
        "AcceleratorProfileNotFound",
        format!(
            "no AcceleratorProfile is named `{name}`{}; `kubectl get acceleratorprofiles` lists them",
            did_you_mean(&near)
        ),
    )
}
