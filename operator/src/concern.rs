//! Which objects a change of another one concerns, and the task that tells their controllers.
//!
//! Every watch tells its changes here and nowhere else. A name that changes hands concerns all that claim it: so the
//! object that lost it hears when it is free.

use std::collections::BTreeSet;

use kube::{
    ResourceExt as _,
    runtime::reflector::{ObjectRef, Store},
};
use slm_crds::{LoraAdapter, SlmModel, SwarmRoute, route::Target, schema::Kind};
use tokio::sync::mpsc;

use crate::{fleet::Marks, objects::Objects};

/// Those who are told.
#[derive(Debug)]
pub(crate) struct Outlets {
    pub(crate) models: mpsc::Sender<ObjectRef<SlmModel>>,
    pub(crate) adapters: mpsc::Sender<ObjectRef<LoraAdapter>>,
    pub(crate) routes: mpsc::Sender<ObjectRef<SwarmRoute>>,
    /// The fleet, which loads adapters: names that may be an adapter's.
    pub(crate) fleet: Marks,
}

/// The names of concerned objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Concerned {
    models: BTreeSet<String>,
    adapters: BTreeSet<String>,
    routes: BTreeSet<String>,
}

/// Tells until nobody listens, or nothing changes any more.
pub(crate) async fn run(
    objects: Objects,
    namespace: String,
    mut changes: mpsc::Receiver<(Kind, String)>,
    outlets: Outlets,
) {
    while let Some((kind, name)) = changes.recv().await {
        let concerned = concerned(&objects, kind, &name);
        if kind != Kind::AcceleratorProfile {
            outlets.fleet.add(name);
        }
        if tell(&namespace, concerned, &outlets).await.is_none() {
            return;
        }
    }
}

async fn tell(namespace: &str, concerned: Concerned, outlets: &Outlets) -> Option<()> {
    for name in concerned.models {
        outlets.models.send(ObjectRef::new(&name).within(namespace)).await.ok()?;
    }
    for name in concerned.adapters {
        outlets.adapters.send(ObjectRef::new(&name).within(namespace)).await.ok()?;
    }
    for name in concerned.routes {
        outlets.routes.send(ObjectRef::new(&name).within(namespace)).await.ok()?;
    }
    Some(())
}

/// Whom a change of `kind` `name` concerns: the object itself too.
fn concerned(objects: &Objects, kind: Kind, name: &str) -> Concerned {
    let mut concerned = Concerned::default();
    if kind == Kind::AcceleratorProfile {
        let models = objects.models.state();
        concerned
            .models
            .extend(models.iter().filter(|model| model.spec.runtime.accelerator == name).map(|m| m.name_any()));
        return concerned;
    }
    // Of the other kinds only what is there: there is nothing to say to what is not.
    let is = |of: Kind, there: bool| kind == of || there;
    if is(Kind::SlmModel, has(&objects.models, name)) {
        concerned.models.insert(name.to_owned());
        // The model came, went, or got or lost its name.
        let adapters = objects.adapters.state();
        let on = adapters.iter().filter(|adapter| adapter.spec.model_ref.name == name);
        concerned.adapters.extend(on.map(|adapter| adapter.name_any()));
    }
    if is(Kind::LoraAdapter, has(&objects.adapters, name)) {
        concerned.adapters.insert(name.to_owned());
    }
    if is(Kind::SwarmRoute, has(&objects.routes, name)) {
        concerned.routes.insert(name.to_owned());
    }
    let routes = objects.routes.state();
    let leading = routes.iter().filter(|route| targets(route).any(|target| target.name == name));
    concerned.routes.extend(leading.map(|route| route.name_any()));
    concerned
}

/// Where a route may lead.
pub(crate) fn targets(route: &SwarmRoute) -> impl Iterator<Item = &Target> {
    route.spec.rules.iter().map(|rule| &rule.to).chain([&route.spec.fallback])
}

fn has<K: kube::Resource<DynamicType = ()> + Clone + 'static>(store: &Store<K>, name: &str) -> bool {
    store.find(|object| object.name_any() == name).is_some()
}

#[cfg(test)]
mod tests {
    use kube::runtime::watcher::Event;

    use super::*;
    use crate::objects::fixtures::{object, world};

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn whom_a_change_concerns() {
        let mut world = world();
        world.model("smol", 1);
        world.adapter("banking", "smol", 1);
        world.route("assistant", "smol", 1);
        // A younger object of each name.
        world.route("banking", "smol", 2);
        world.adapter("smol", "other", 2);
        let profile = object("AcceleratorProfile", "cpu", 1, serde_json::json!({ "executionProvider": "Cpu" }));
        world.profiles.apply_watcher_event(&Event::Apply(profile));
        let cases = [
            (Kind::SlmModel, "smol", (&["smol"][..], &["banking", "smol"][..], &["assistant", "banking"][..])),
            (Kind::LoraAdapter, "banking", (&[], &["banking"], &["banking"])),
            (Kind::LoraAdapter, "smol", (&["smol"], &["banking", "smol"], &["assistant", "banking"])),
            (Kind::SwarmRoute, "banking", (&[], &["banking"], &["banking"])),
            (Kind::SwarmRoute, "assistant", (&[], &[], &["assistant"])),
            (Kind::AcceleratorProfile, "cpu", (&["smol"], &[], &[])),
        ];
        for (kind, name, (models, adapters, routes)) in cases {
            let expected = Concerned { models: set(models), adapters: set(adapters), routes: set(routes) };
            assert_eq!(concerned(&world.objects, kind, name), expected, "{kind:?} {name}");
        }
    }

    /// The model goes: the adapter of its name has to hear, though the model was not its base.
    #[test]
    fn the_loser_of_a_name_hears_when_it_is_free() {
        let mut world = world();
        let model = world.model("x", 1);
        world.adapter("x", "base", 2);
        world.models.apply_watcher_event(&Event::Delete(model));
        assert_eq!(concerned(&world.objects, Kind::SlmModel, "x").adapters, set(&["x"]));
    }
}
