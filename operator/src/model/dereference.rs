//! Dereference step: the objects that a model refers to.

use kube::runtime::reflector::ObjectRef;
use slm_crds::{AcceleratorProfileSpec, SlmModel, accelerator::CPU};

use crate::objects::Objects;

/// Referenced objects.
#[derive(Debug)]
pub(super) struct References {
    /// The accelerator profile, if it exists.
    pub(super) profile: Option<AcceleratorProfileSpec>,
}

pub(super) fn dereference(model: &SlmModel, objects: &Objects) -> References {
    let name = &model.spec.runtime.accelerator;
    let profile = objects.profiles.get(&ObjectRef::new(name)).map(|profile| profile.spec.clone());
    // The CPU needs no profile; one of that name only adds to it.
    let profile = profile.or_else(|| (name == CPU).then(cpu));
    References { profile }
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
