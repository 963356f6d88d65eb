//! Objects to a snapshot: a pure function.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Resource, ResourceExt as _};
use slm_crds::{LoraAdapter, SlmModel, SwarmRoute, expert::description};

use super::{MODEL, Scheme};
use crate::{
    Swarm,
    swarm::{Adapter, Model, Route},
};

/// Name of the port in the workers' Service.
const PORT: &str = "grpc";

/// The swarm as the cluster has it, without a generation. What is being deleted is not part of it any more.
pub(super) fn snapshot(
    scheme: Scheme,
    models: &[Arc<SlmModel>],
    adapters: &[Arc<LoraAdapter>],
    routes: &[Arc<SwarmRoute>],
    slices: &[Arc<EndpointSlice>],
) -> Swarm {
    let model = |model: &Arc<SlmModel>| Model {
        name: model.name_any(),
        description: description(model.spec.expert.as_ref()),
        // Which revision answers is the rollout's affair: any worker that serves will do.
        digest: String::new(),
        workers: workers(scheme, &model.name_any(), slices),
    };
    let adapter = |adapter: &Arc<LoraAdapter>| Adapter {
        name: adapter.name_any(),
        model: adapter.spec.model_ref.name.clone(),
        description: description(adapter.spec.expert.as_ref()),
        digest: String::new(),
    };
    let route = |route: &Arc<SwarmRoute>| Route { name: route.name_any(), spec: route.spec.clone() };
    Swarm {
        generation: 0,
        models: sorted(models).into_iter().map(model).collect(),
        adapters: sorted(adapters).into_iter().map(adapter).collect(),
        routes: sorted(routes).into_iter().map(route).collect(),
    }
}

/// Stores have no order; listings should.
fn sorted<K: Resource>(objects: &[Arc<K>]) -> Vec<&Arc<K>> {
    let mut kept: Vec<_> = objects.iter().filter(|object| object.meta().deletion_timestamp.is_none()).collect();
    kept.sort_by_key(|object| object.name_any());
    kept
}

fn workers(scheme: Scheme, model: &str, slices: &[Arc<EndpointSlice>]) -> Vec<String> {
    let scheme = match scheme {
        Scheme::Http => "http",
        Scheme::Https => "https",
    };
    let ours = slices.iter().filter(|slice| slice.labels().get(MODEL).is_some_and(|name| name == model));
    let mut urls = BTreeSet::new();
    for slice in ours {
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
    urls.into_iter().collect()
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
        let secure = snapshot(Scheme::Https, &[Arc::clone(&smol)], &[], &[], &slices);
        assert_eq!(secure.models[0].workers[0], "https://10.0.0.1:9090");
        let swarm = snapshot(Scheme::Http, &[smol], &[banking, gone], &[], &slices);
        assert_eq!(swarm.models[0].workers, ["http://10.0.0.1:9090", "http://10.0.0.2:9090"]);
        assert_eq!(swarm.models[0].description, "small");
        assert_eq!(swarm.adapters.iter().map(|adapter| adapter.name.as_str()).collect::<Vec<_>>(), ["banking"]);
    }
}
