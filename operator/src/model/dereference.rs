//! What a model refers to.

use kube::runtime::reflector::ObjectRef;
use slm_crds::{AcceleratorProfileSpec, SlmModel, accelerator::CPU};

use crate::objects::Objects;

/// What was found.
#[derive(Debug)]
pub(super) struct Found {
    /// The accelerator's profile, if there is one.
    pub(super) profile: Option<AcceleratorProfileSpec>,
}

pub(super) fn dereference(model: &SlmModel, objects: &Objects) -> Found {
    let name = &model.spec.runtime.accelerator;
    let profile = objects.profiles.get(&ObjectRef::new(name)).map(|profile| profile.spec.clone());
    // Every cluster has CPUs; a profile of that name only adds to it.
    let profile = profile.or_else(|| (name == CPU).then(cpu));
    Found { profile }
}

fn cpu() -> AcceleratorProfileSpec {
    AcceleratorProfileSpec {
        execution_provider: slm_crds::accelerator::ExecutionProvider::Cpu,
        provider_options: Default::default(),
        image: None,
        resource: None,
        env: Default::default(),
        node_selector: Default::default(),
        tolerations: Vec::new(),
    }
}
