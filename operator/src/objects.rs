//! Stores of the watched objects: one watch for each kind, shared by all controllers.

use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    runtime::{
        reflector::{ObjectRef, Store, store::WriterDropped},
        watcher,
    },
};
use slm_crds::{
    AcceleratorProfile, ExternalModel, LoraAdapter, SlmModel, SwarmRoute,
    names::{Birth, Claim, Known, holders},
    schema::Kind,
};
use slm_watch::{Tell, Undecodable, Watches};
use tokio::sync::mpsc;

use crate::names;

/// Bound on pending changes; watches wait beyond that.
const CHANGES_MAX: usize = 1024;

/// The stores of all kinds.
#[derive(Clone, Debug)]
pub(crate) struct Objects {
    /// Base models.
    pub(crate) models: Store<SlmModel>,
    /// Adapters.
    pub(crate) adapters: Store<LoraAdapter>,
    /// Models outside of the swarm.
    pub(crate) externals: Store<ExternalModel>,
    /// Routes.
    pub(crate) routes: Store<SwarmRoute>,
    /// Accelerator profiles.
    pub(crate) profiles: Store<AcceleratorProfile>,
    /// Worker pods.
    pub(crate) pods: Store<Pod>,
    /// Objects of any kind that do not decode.
    pub(crate) undecodable: Undecodable,
    namespace: String,
}

/// Receivers of change notifications.
#[derive(Debug)]
pub(crate) struct Touched {
    /// Changed objects of our own kinds, by kind and name.
    pub(crate) objects: mpsc::Receiver<(Kind, String)>,
    /// Some worker pod changed.
    pub(crate) pods: mpsc::Receiver<()>,
}

impl Objects {
    /// Starts the watches.
    pub(crate) fn watch(client: &Client, namespace: &str, watches: &mut Watches) -> (Self, Touched) {
        let (changes, objects_touched) = mpsc::channel(CHANGES_MAX);
        let (pods, pods_touched) = mpsc::channel(1);
        let ours = watcher::Config::default().labels(&format!(
            "app.kubernetes.io/managed-by={},{}",
            names::MANAGER,
            names::MODEL
        ));
        let any = watcher::Config::default;
        let tell = |of: Kind| Tell::Names { of, to: changes.clone() };
        let client = || client.clone();
        let objects = Self {
            models: watches.watch(Api::namespaced(client(), namespace), any(), tell(Kind::SlmModel)),
            adapters: watches.watch(Api::namespaced(client(), namespace), any(), tell(Kind::LoraAdapter)),
            externals: watches.watch(Api::namespaced(client(), namespace), any(), tell(Kind::ExternalModel)),
            routes: watches.watch(Api::namespaced(client(), namespace), any(), tell(Kind::SwarmRoute)),
            profiles: watches.watch(Api::all(client()), any(), tell(Kind::AcceleratorProfile)),
            pods: watches.watch(Api::namespaced(client(), namespace), ours, Tell::<()>::Something(pods)),
            undecodable: watches.undecodable(),
            namespace: namespace.to_owned(),
        };
        (objects, Touched { objects: objects_touched, pods: pods_touched })
    }

    /// The model of that name, if it owns the name.
    #[must_use]
    pub(crate) fn model(&self, name: &str) -> Option<std::sync::Arc<SlmModel>> {
        let found = self.models.get(&ObjectRef::new(name).within(&self.namespace))?;
        self.admits(Kind::SlmModel, found.meta()).then_some(found)
    }

    /// The adapter of that name, if it owns the name.
    #[must_use]
    pub(crate) fn adapter(&self, name: &str) -> Option<std::sync::Arc<LoraAdapter>> {
        let found = self.adapters.get(&ObjectRef::new(name).within(&self.namespace))?;
        self.admits(Kind::LoraAdapter, found.meta()).then_some(found)
    }

    /// The external model of that name, if it owns the name.
    #[must_use]
    pub(crate) fn external(&self, name: &str) -> Option<std::sync::Arc<ExternalModel>> {
        let found = self.externals.get(&ObjectRef::new(name).within(&self.namespace))?;
        self.admits(Kind::ExternalModel, found.meta()).then_some(found)
    }

    /// The owner of a name among the objects that claim it.
    #[must_use]
    pub(crate) fn holder(&self, name: &str) -> Option<Claim<Birth>> {
        let read = [
            self.claim(Kind::SlmModel, &self.models, name),
            self.claim(Kind::LoraAdapter, &self.adapters, name),
            self.claim(Kind::ExternalModel, &self.externals, name),
            self.claim(Kind::SwarmRoute, &self.routes, name),
        ];
        let unread = Kind::LOCAL.into_iter().filter_map(|kind| {
            let invalid = self.undecodable.get(kind.name(), name)?;
            Claim::of(kind, &invalid.metadata)
        });
        let claims = read.into_iter().flatten().chain(unread);
        holders(claims.map(|claim| (name.to_owned(), claim))).remove(name)
    }

    fn claim<K>(&self, kind: Kind, store: &Store<K>, name: &str) -> Option<Claim<Birth>>
    where
        K: Resource<DynamicType = ()> + Clone + 'static,
    {
        Claim::of(kind, store.get(&ObjectRef::new(name).within(&self.namespace))?.meta())
    }

    /// Whether the object of `kind` with this metadata owns its name.
    #[must_use]
    pub(crate) fn admits(&self, kind: Kind, metadata: &ObjectMeta) -> bool {
        let name = metadata.name.as_deref().unwrap_or_default();
        self.holder(name).is_some_and(|holder| Some(holder) == Claim::of(kind, metadata))
    }

    /// Why an object that exists counts as missing: this operator cannot read it.
    #[must_use]
    pub(crate) fn unreadable(&self, kind: Kind, name: &str) -> Option<String> {
        let invalid = self.undecodable.get(kind.name(), name).filter(|invalid| !invalid.former_in_use)?;
        Some(format!("this operator cannot read the {} `{name}`: {}", kind.name(), invalid.error))
    }

    /// All names that references may point to: a copy, for messages about a dangling reference.
    #[must_use]
    pub(crate) fn known(&self) -> Known {
        let models = self.models.state().iter().map(|model| model.name_any()).collect();
        let adapters = self.adapters.state().iter().map(|adapter| adapter.name_any()).collect();
        let externals = self.externals.state().iter().map(|external| external.name_any()).collect();
        Known { models, adapters, externals }
    }

    /// Waits until every kind has been listed once.
    ///
    /// # Errors
    /// A watch ended, which happens only when the operator ends.
    pub(crate) async fn listed(&self) -> Result<(), WriterDropped> {
        self.models.wait_until_ready().await?;
        self.adapters.wait_until_ready().await?;
        self.externals.wait_until_ready().await?;
        self.routes.wait_until_ready().await?;
        self.profiles.wait_until_ready().await?;
        self.pods.wait_until_ready().await
    }
}

#[cfg(test)]
pub(crate) mod fixtures {
    //! Objects without an API server.

    use kube::runtime::{reflector::store::Writer, watcher::Event};
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};
    use slm_watch::Invalid;

    use super::*;

    /// The stores and their writers.
    pub(crate) struct World {
        pub(crate) objects: Objects,
        pub(crate) models: Writer<SlmModel>,
        pub(crate) adapters: Writer<LoraAdapter>,
        pub(crate) externals: Writer<ExternalModel>,
        pub(crate) routes: Writer<SwarmRoute>,
        pub(crate) profiles: Writer<AcceleratorProfile>,
        pub(crate) pods: Writer<Pod>,
    }

    pub(crate) fn world() -> World {
        let (models, adapters, routes) = (Writer::default(), Writer::default(), Writer::default());
        let (externals, profiles, pods) = (Writer::default(), Writer::default(), Writer::default());
        let objects = Objects {
            models: models.as_reader(),
            adapters: adapters.as_reader(),
            externals: externals.as_reader(),
            routes: routes.as_reader(),
            profiles: profiles.as_reader(),
            pods: pods.as_reader(),
            undecodable: Undecodable::default(),
            namespace: "n".to_owned(),
        };
        World { objects, models, adapters, externals, routes, profiles, pods }
    }

    pub(crate) fn object<K: DeserializeOwned>(kind: &str, name: &str, created: u32, spec: Value) -> K {
        serde_json::from_value(json!({
            "apiVersion": "slmswarm.io/v1alpha1", "kind": kind, "spec": spec,
            "metadata": {
                "name": name, "namespace": "n", "uid": format!("{kind}/{name}/{created}"),
                "creationTimestamp": format!("2026-01-01T00:00:{created:02}Z"),
            },
        }))
        .expect(kind)
    }

    impl World {
        pub(crate) fn model(&mut self, name: &str, created: u32) -> SlmModel {
            let spec = json!({ "source": { "uri": "oci://r/smol:1" } });
            let model: SlmModel = object("SlmModel", name, created, spec);
            self.models.apply_watcher_event(&Event::Apply(model.clone()));
            model
        }

        pub(crate) fn adapter(&mut self, name: &str, model: &str, created: u32) -> LoraAdapter {
            let spec = json!({ "modelRef": { "name": model }, "source": { "uri": "oci://r/a:1" } });
            let adapter: LoraAdapter = object("LoraAdapter", name, created, spec);
            self.adapters.apply_watcher_event(&Event::Apply(adapter.clone()));
            adapter
        }

        /// One on `replicas` workers.
        pub(crate) fn placed_adapter(&mut self, name: &str, model: &str, replicas: u32) {
            let source = json!({ "uri": "oci://r/a:1" });
            let spec =
                json!({ "modelRef": { "name": model }, "source": source, "placement": { "replicas": replicas } });
            self.adapters.apply_watcher_event(&Event::Apply(object("LoraAdapter", name, 1, spec)));
        }

        pub(crate) fn external(&mut self, name: &str, created: u32) -> ExternalModel {
            let spec = json!({ "url": "https://api.example.com/v1", "model": "large" });
            let external: ExternalModel = object("ExternalModel", name, created, spec);
            self.externals.apply_watcher_event(&Event::Apply(external.clone()));
            external
        }

        pub(crate) fn route(&mut self, name: &str, target: &str, created: u32) -> SwarmRoute {
            let spec = json!({ "fallback": { "kind": "SlmModel", "name": target } });
            let route: SwarmRoute = object("SwarmRoute", name, created, spec);
            self.routes.apply_watcher_event(&Event::Apply(route.clone()));
            route
        }

        /// One that a newer release wrote.
        pub(crate) fn unreadable(&self, kind: Kind, name: &str, error: &str) {
            let metadata = ObjectMeta { name: Some(name.to_owned()), ..Default::default() };
            let invalid =
                Invalid { kind: kind.name().to_owned(), metadata, error: error.to_owned(), former_in_use: false };
            self.objects.undecodable.insert(name, invalid);
        }
    }
}
