//! Objects to a snapshot: a pure function.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Resource, ResourceExt as _};
use slm_crds::{
    ExternalModel, LoraAdapter, SlmModel, SwarmRoute,
    adapter::Instance,
    names::{Birth, Claim, holders},
    schema::Kind,
};
use slm_watch::Invalid;

use super::{MODEL, Scheme};
use crate::{
    Swarm,
    swarm::{Adapter, External, Model, Route},
};

/// Name of the port in the workers' Service.
const PORT: &str = "grpc";

/// Holder of each name.
type Holders = HashMap<String, Claim<Birth>>;

/// Objects of a namespace.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Objects<'o> {
    pub(super) models: &'o [Arc<SlmModel>],
    pub(super) adapters: &'o [Arc<LoraAdapter>],
    pub(super) externals: &'o [Arc<ExternalModel>],
    pub(super) routes: &'o [Arc<SwarmRoute>],
    /// Addresses of workers.
    pub(super) slices: &'o [Arc<EndpointSlice>],
    /// Addresses of the egress.
    pub(super) egress: &'o [Arc<EndpointSlice>],
    pub(super) undecodable: &'o [Invalid],
}

/// The swarm as the cluster has it, without a generation. What is being deleted is not part of it any more, and neither
/// is an object whose name an older one has. An object that does not decode still holds its name: routers of two
/// releases must not answer to one name with different things.
pub(super) fn snapshot(scheme: Scheme, objects: &Objects<'_>) -> Swarm {
    let Objects { models, adapters, externals, routes, slices, egress, undecodable } = *objects;
    let holders = holders(
        claims(Kind::SlmModel, models)
            .chain(claims(Kind::LoraAdapter, adapters))
            .chain(claims(Kind::ExternalModel, externals))
            .chain(claims(Kind::SwarmRoute, routes))
            .chain(undecodable.iter().filter_map(unread)),
    );
    let model = |model: &Arc<SlmModel>| Model {
        name: model.name_any(),
        expert: model.spec.expert.clone().unwrap_or_default(),
        // Which revision answers is the rollout's affair: any worker that serves will do.
        digest: String::new(),
        workers: workers(scheme, &model.name_any(), slices).into_iter().collect(),
        refused: String::new(),
    };
    let adapter = |adapter: &Arc<LoraAdapter>| Adapter {
        name: adapter.name_any(),
        model: adapter.spec.model_ref.name.clone(),
        expert: adapter.spec.expert.clone().unwrap_or_default(),
        digest: String::new(),
        refused: refused(adapter),
    };
    let external = |external: &Arc<ExternalModel>| External {
        name: external.name_any(),
        expert: external.spec.expert.clone().unwrap_or_default(),
    };
    let route = |route: &Arc<SwarmRoute>| Route { name: route.name_any(), spec: route.spec.clone() };
    Swarm {
        generation: 0,
        models: admitted(Kind::SlmModel, models, &holders).into_iter().map(model).collect(),
        adapters: admitted(Kind::LoraAdapter, adapters, &holders).into_iter().map(adapter).collect(),
        externals: admitted(Kind::ExternalModel, externals, &holders).into_iter().map(external).collect(),
        egress: addresses(scheme, egress.iter()).into_iter().collect(),
        routes: admitted(Kind::SwarmRoute, routes, &holders).into_iter().map(route).collect(),
        undecodable_objects: undecodable.len(),
    }
}

/// The reason why no worker can load it before it changes: its status says so of every worker, and is that of this spec.
fn refused(adapter: &LoraAdapter) -> String {
    let status = adapter.status.as_ref().filter(|status| status.observed_generation == adapter.metadata.generation);
    let instances = status.map_or(&[][..], |status| &status.instances);
    if instances.iter().any(|instance| instance.state != Instance::REFUSED) {
        return String::new();
    }
    instances.iter().find_map(|instance| instance.last_error.clone()).unwrap_or_default()
}

fn claims<K: Resource>(kind: Kind, objects: &[Arc<K>]) -> impl Iterator<Item = (String, Claim<Birth>)> {
    objects.iter().filter_map(move |object| Some((object.name_any(), Claim::of(kind, object.meta())?)))
}

fn unread(invalid: &Invalid) -> Option<(String, Claim<Birth>)> {
    Some((invalid.metadata.name.clone()?, Claim::of(Kind::named(&invalid.kind)?, &invalid.metadata)?))
}

/// Those that have their names, sorted: stores have no order, listings should.
fn admitted<'o, K: Resource>(kind: Kind, objects: &'o [Arc<K>], holders: &Holders) -> Vec<&'o Arc<K>> {
    let holds = |object: &&Arc<K>| {
        let claim = Claim::of(kind, object.meta());
        claim.is_some_and(|claim| holders.get(&object.name_any()) == Some(&claim))
    };
    let mut kept: Vec<_> = objects.iter().filter(holds).collect();
    kept.sort_by_key(|object| object.name_any());
    kept
}

fn workers(scheme: Scheme, model: &str, slices: &[Arc<EndpointSlice>]) -> BTreeSet<String> {
    addresses(scheme, slices.iter().filter(|slice| slice.labels().get(MODEL).is_some_and(|name| name == model)))
}

fn addresses<'s>(scheme: Scheme, slices: impl Iterator<Item = &'s Arc<EndpointSlice>>) -> BTreeSet<String> {
    let scheme = match scheme {
        Scheme::Http => "http",
        Scheme::Https => "https",
    };
    let mut urls = BTreeSet::new();
    for slice in slices {
        let ports = slice.ports.iter().flatten();
        let Some(port) = ports.filter(|port| port.name.as_deref() == Some(PORT)).find_map(|port| port.port) else {
            continue;
        };
        for address in slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses) {
            match address.parse::<IpAddr>() {
                Ok(IpAddr::V6(v6)) => urls.insert(format!("{scheme}://[{v6}]:{port}")),
                Ok(IpAddr::V4(v4)) => urls.insert(format!("{scheme}://{v4}:{port}")),
                Err(_) => false,
            };
        }
    }
    urls
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn object<K: serde::de::DeserializeOwned>(kind: &str, name: &str, rest: Value) -> Arc<K> {
        let mut object = json!({ "apiVersion": "slmswarm.io/v1alpha1", "kind": kind, "metadata": { "name": name } });
        for (field, value) in rest.as_object().expect("an object") {
            object[field] = value.clone();
        }
        Arc::new(serde_json::from_value(object).expect(kind))
    }

    fn slice(name: &str, model: &str, addresses: &[&str], port: &str) -> Arc<EndpointSlice> {
        let rest = json!({
            "apiVersion": "discovery.k8s.io/v1",
            "metadata": { "name": name, "labels": { "slmswarm.io/model": model } },
            "addressType": "IPv4",
            "endpoints": addresses.iter().map(|ip| json!({ "addresses": [ip] })).collect::<Vec<_>>(),
            "ports": [{ "name": "probes", "port": 9091 }, { "name": port, "port": 9090 }],
        });
        object("EndpointSlice", name, rest)
    }

    #[test]
    fn a_swarm_is_what_the_cluster_says() {
        let source = json!({ "uri": "oci://r/smol:1" });
        let smol =
            object("SlmModel", "smol", json!({ "spec": { "source": source, "expert": { "description": "small" } } }));
        let banking =
            object("LoraAdapter", "banking", json!({ "spec": { "modelRef": { "name": "smol" }, "source": source } }));
        let gone = object(
            "LoraAdapter",
            "gone",
            json!({
                "metadata": { "name": "gone", "deletionTimestamp": "2026-01-01T00:00:00Z" },
                "spec": { "modelRef": { "name": "smol" }, "source": source },
            }),
        );
        let slices = [
            slice("a", "smol", &["10.0.0.2", "10.0.0.1"], "grpc"),
            slice("b", "other", &["10.0.0.9"], "grpc"),
            slice("c", "smol", &["10.0.0.8"], "http"),
        ];
        let large = object(
            "ExternalModel",
            "large",
            json!({ "spec": {
                "url": "https://api.example.com/v1", "model": "gpt", "expert": { "examples": ["a", "b"] },
            } }),
        );
        let of_egress = [slice("e", "none", &["10.0.0.5"], "grpc")];
        let objects = Objects {
            models: &[smol],
            adapters: &[banking, gone],
            externals: &[large],
            slices: &slices,
            egress: &of_egress,
            ..Objects::default()
        };
        let secure = snapshot(Scheme::Https, &objects);
        assert_eq!(secure.models[0].workers[0], "https://10.0.0.1:9090");
        let swarm = snapshot(Scheme::Http, &objects);
        assert_eq!(swarm.egress, ["http://10.0.0.5:9090"]);
        assert_eq!((swarm.externals[0].name.as_str(), swarm.externals[0].expert.examples.len()), ("large", 2));
        assert_eq!(swarm.models[0].workers, ["http://10.0.0.1:9090", "http://10.0.0.2:9090"]);
        assert_eq!(swarm.models[0].expert.description.as_deref(), Some("small"));
        assert_eq!(swarm.adapters.iter().map(|adapter| adapter.name.as_str()).collect::<Vec<_>>(), ["banking"]);
    }

    #[test]
    fn an_adapter_that_every_worker_refuses_is_refused() {
        let refused = |generation: u64, instances: Value| {
            let adapter = json!({
                "metadata": { "name": "banking", "generation": 2 },
                "spec": { "modelRef": { "name": "smol" }, "source": { "uri": "oci://r/smol:1" } },
                "status": { "observedGeneration": generation, "instances": instances },
            });
            let adapter = object("LoraAdapter", "banking", adapter);
            let objects = Objects { adapters: &[adapter], ..Objects::default() };
            snapshot(Scheme::Http, &objects).adapters.remove(0).refused
        };
        let on = |pod: &str, state: &str| json!({ "pod": pod, "state": state, "lastError": "it uses DoRA" });
        assert_eq!(refused(2, json!([on("a", "Refused"), on("b", "Refused")])), "it uses DoRA");
        for other in ["Failed", "Loading", "Serving", "Unknown"] {
            assert_eq!(refused(2, json!([on("a", "Refused"), on("b", other)])), "", "{other}");
        }
        assert_eq!(refused(1, json!([on("a", "Refused")])), "", "of the spec before");
        assert_eq!(refused(2, json!([])), "");
    }

    /// Three objects of one name, created in each of the six orders: the oldest is in the snapshot, the others are not.
    #[test]
    fn a_name_is_that_of_its_oldest_object() {
        let source = json!({ "uri": "oci://r/smol:1" });
        for order in [[1, 2, 3], [1, 3, 2], [2, 1, 3], [2, 3, 1], [3, 1, 2], [3, 2, 1]] {
            let metadata = |place: usize| {
                let created = format!("2026-01-01T00:00:0{}Z", order[place]);
                json!({ "name": "x", "uid": format!("u{place}"), "creationTimestamp": created })
            };
            let model = json!({ "metadata": metadata(0), "spec": { "source": source } });
            let adapter =
                json!({ "metadata": metadata(1), "spec": { "modelRef": { "name": "base" }, "source": source } });
            let route = json!({
                "metadata": metadata(2), "spec": { "fallback": { "kind": "SlmModel", "name": "base" } },
            });
            let swarm = snapshot(
                Scheme::Http,
                &Objects {
                    models: &[object("SlmModel", "x", model)],
                    adapters: &[object("LoraAdapter", "x", adapter)],
                    routes: &[object("SwarmRoute", "x", route)],
                    ..Objects::default()
                },
            );
            let there = [swarm.models.len(), swarm.adapters.len(), swarm.routes.len()];
            assert_eq!(there, order.map(|age| usize::from(age == 1)), "{order:?}");
        }
    }

    #[test]
    fn an_object_that_does_not_decode_keeps_its_name() {
        let at = |second: u32| json!({ "name": "x", "uid": "u", "creationTimestamp": format!("2026-01-01T00:00:0{second}Z") });
        let route: Arc<SwarmRoute> = object(
            "SwarmRoute",
            "x",
            json!({ "metadata": at(2), "spec": { "fallback": { "kind": "SlmModel", "name": "base" } } }),
        );
        let invalid = |second: u32| Invalid {
            kind: "SlmModel".to_owned(),
            metadata: serde_json::from_value(at(second)).expect("metadata"),
            error: "unknown variant `Int2`".to_owned(),
            former_in_use: false,
        };
        let routes = |invalid: Invalid| {
            let (routes, undecodable) = ([Arc::clone(&route)], [invalid]);
            let objects = Objects { routes: &routes, undecodable: &undecodable, ..Objects::default() };
            snapshot(Scheme::Http, &objects).routes.len()
        };
        assert_eq!((routes(invalid(1)), routes(invalid(3))), (0, 1));
    }
}
