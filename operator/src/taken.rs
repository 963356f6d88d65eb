//! Models, adapters and routes share one space of names: callers put any of them into `model`. Of two objects with one
//! name the older one has it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{
    Resource, ResourceExt,
    runtime::reflector::{ObjectRef, Store},
};
use slm_crds::names::NameTaken;

use crate::{conditions::Verdict, objects::Objects};

/// The reason in conditions of an object without its name.
pub(crate) const NAME_TAKEN: &str = "NameTaken";

/// Why `object` cannot have its name, if another one has it.
#[must_use]
pub(crate) fn name_taken<K: Resource<DynamicType = ()>>(object: &K, objects: &Objects) -> Option<Verdict> {
    let (name, namespace) = (object.name_any(), ResourceExt::namespace(object).unwrap_or_default());
    let kind = K::kind(&()).into_owned();
    let rank = |created: Option<&Time>, kind: &str| (created.map(|time| time.0), kind.to_owned());
    let own = rank(object.meta().creation_timestamp.as_ref(), &kind);
    let others = [
        older(&objects.models, &name, &namespace),
        older(&objects.adapters, &name, &namespace),
        older(&objects.routes, &name, &namespace),
    ];
    let other =
        others.into_iter().flatten().find(|(other, created)| *other != kind && rank(created.as_ref(), other) < own);
    other.map(|(other, _)| Verdict::wrong(NAME_TAKEN, format!("{}: rename one", NameTaken { name, other })))
}

fn older<K>(store: &Store<K>, name: &str, namespace: &str) -> Option<(String, Option<Time>)>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let found = store.get(&ObjectRef::new(name).within(namespace))?;
    Some((K::kind(&()).into_owned(), found.meta().creation_timestamp.clone()))
}
