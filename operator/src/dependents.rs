//! Dependents of a changed object, and the task that requests their reconciliation.
//!
//! All watches report changes here. A change of a name's owner concerns every object that claims the name, so that the
//! loser is reconciled as soon as the name is free.

use std::collections::BTreeSet;

use kube::{
    ResourceExt as _,
    runtime::reflector::{ObjectRef, Store},
};
use slm_crds::{ExternalModel, LoraAdapter, SlmModel, SwarmRoute, schema::Kind};
use tokio::sync::mpsc;

use crate::{fleet::PendingNames, objects::Objects};

/// Queues of the controllers.
#[derive(Debug)]
pub(crate) struct Outlets {
    pub(crate) models: mpsc::Sender<ObjectRef<SlmModel>>,
    pub(crate) adapters: mpsc::Sender<ObjectRef<LoraAdapter>>,
    pub(crate) externals: mpsc::Sender<ObjectRef<ExternalModel>>,
    pub(crate) routes: mpsc::Sender<ObjectRef<SwarmRoute>>,
    /// Pending names of the fleet controller; any of them may be an adapter's.
    pub(crate) fleet: PendingNames,
}

/// Names of the objects to reconcile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Dependents {
    models: BTreeSet<String>,
    adapters: BTreeSet<String>,
    externals: BTreeSet<String>,
    routes: BTreeSet<String>,
}

/// Runs until a controller or the watches are gone.
pub(crate) async fn run(
    objects: Objects,
    namespace: String,
    mut changes: mpsc::Receiver<(Kind, String)>,
    outlets: Outlets,
) {
    while let Some((kind, name)) = changes.recv().await {
        let dependents = dependents(&objects, kind, &name);
        if kind != Kind::AcceleratorProfile {
            outlets.fleet.add(name);
        }
        if tell(&namespace, dependents, &outlets).await.is_none() {
            return;
        }
    }
}

async fn tell(namespace: &str, dependents: Dependents, outlets: &Outlets) -> Option<()> {
    for name in dependents.models {
        outlets.models.send(ObjectRef::new(&name).within(namespace)).await.ok()?;
    }
    for name in dependents.adapters {
        outlets.adapters.send(ObjectRef::new(&name).within(namespace)).await.ok()?;
    }
    for name in dependents.externals {
        outlets.externals.send(ObjectRef::new(&name).within(namespace)).await.ok()?;
    }
    for name in dependents.routes {
        outlets.routes.send(ObjectRef::new(&name).within(namespace)).await.ok()?;
    }
    Some(())
}

/// Dependents of object `name` of `kind`, the object itself included.
fn dependents(objects: &Objects, kind: Kind, name: &str) -> Dependents {
    let mut dependents = Dependents::default();
    if kind == Kind::AcceleratorProfile {
        let models = objects.models.state();
        dependents
            .models
            .extend(models.iter().filter(|model| model.spec.runtime.accelerator == name).map(|m| m.name_any()));
        return dependents;
    }
    // Objects of other kinds only if they exist.
    let is = |of: Kind, there: bool| kind == of || there;
    if is(Kind::SlmModel, has(&objects.models, name)) {
        dependents.models.insert(name.to_owned());
        // The model came, went, or its name changed hands.
        let adapters = objects.adapters.state();
        let on = adapters.iter().filter(|adapter| adapter.spec.model_ref.name == name);
        dependents.adapters.extend(on.map(|adapter| adapter.name_any()));
    }
    if is(Kind::LoraAdapter, has(&objects.adapters, name)) {
        dependents.adapters.insert(name.to_owned());
    }
    if is(Kind::ExternalModel, has(&objects.externals, name)) {
        dependents.externals.insert(name.to_owned());
    }
    if is(Kind::SwarmRoute, has(&objects.routes, name)) {
        dependents.routes.insert(name.to_owned());
    }
    // An adapter's task is its model's.
    let on_it = dependents.adapters.clone();
    let concerned = |target: &str| target == name || on_it.contains(target);
    let routes = objects.routes.state();
    let leading = routes.iter().filter(|route| route.spec.references().any(|(_, target)| concerned(&target.name)));
    dependents.routes.extend(leading.map(|route| route.name_any()));
    dependents
}

fn has<K: kube::Resource<DynamicType = ()> + Clone + 'static>(store: &Store<K>, name: &str) -> bool {
    store.find(|object| object.name_any() == name).is_some()
}

#[cfg(test)]
mod tests {
    use kube::runtime::watcher::Event;

    use super::*;
    use crate::objects::fixtures::{object, world};

    /// Names of models, adapters, external models and routes.
    type Names = (&'static [&'static str], &'static [&'static str], &'static [&'static str], &'static [&'static str]);

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn the_dependents_of_each_kind() {
        let mut world = world();
        world.model("smol", 1);
        world.adapter("banking", "smol", 1);
        world.route("assistant", "smol", 1);
        world.external("large", 1);
        world.route("writer", "large", 1);
        // A younger object of each name.
        world.route("banking", "smol", 2);
        world.adapter("smol", "other", 2);
        world.external("banking", 3);
        let profile = object("AcceleratorProfile", "cpu", 1, serde_json::json!({ "executionProvider": "Cpu" }));
        world.profiles.apply_watcher_event(&Event::Apply(profile));
        let of_smol: Names = (&["smol"], &["banking", "smol"], &[], &["assistant", "banking"]);
        let of_banking: Names = (&[], &["banking"], &["banking"], &["banking"]);
        let cases: [(Kind, &str, Names); 8] = [
            (Kind::SlmModel, "smol", of_smol),
            (Kind::LoraAdapter, "banking", of_banking),
            (Kind::LoraAdapter, "smol", of_smol),
            (Kind::SwarmRoute, "banking", of_banking),
            (Kind::SwarmRoute, "assistant", (&[], &[], &[], &["assistant"])),
            (Kind::ExternalModel, "large", (&[], &[], &["large"], &["writer"])),
            (Kind::ExternalModel, "banking", of_banking),
            (Kind::AcceleratorProfile, "cpu", (&["smol"], &[], &[], &[])),
        ];
        for (kind, name, (models, adapters, externals, routes)) in cases {
            let [models, adapters, externals, routes] = [models, adapters, externals, routes].map(set);
            let expected = Dependents { models, adapters, externals, routes };
            assert_eq!(dependents(&world.objects, kind, name), expected, "{kind:?} {name}");
        }
    }

    /// The adapter that lost its name to a model is reconciled when the model goes, even if the model was not its base.
    #[test]
    fn the_loser_of_a_name_hears_when_it_is_free() {
        let mut world = world();
        let model = world.model("x", 1);
        world.adapter("x", "base", 2);
        world.models.apply_watcher_event(&Event::Delete(model));
        assert_eq!(dependents(&world.objects, Kind::SlmModel, "x").adapters, set(&["x"]));
    }
    /// An external model whose name a model has: it hears when the model goes.
    #[test]
    fn an_external_model_hears_when_its_name_is_free() {
        let mut world = world();
        let model = world.model("x", 1);
        world.external("x", 2);
        world.models.apply_watcher_event(&Event::Delete(model));
        assert_eq!(dependents(&world.objects, Kind::SlmModel, "x").externals, set(&["x"]));
    }
}
