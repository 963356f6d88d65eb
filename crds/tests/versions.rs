//! An older release reads what a newer one wrote: fields that it does not know are passed over, whatever their depth.
//! The manifest reader, whose users misspell fields, still refuses them (`manifests.rs`).

use serde_json::{Map, Value, json};
use slm_crds::{AcceleratorProfile, ExternalModel, LoraAdapter, SlmModel, SwarmRoute, schema::Kind};

const FUTURE: &str = "fieldOfANewerRelease";

/// The same value with an unknown field in every object that has named fields.
fn newer(schema: &Value, value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut grown = Map::new();
            for (name, field) in fields {
                let inner = match &schema["properties"][name] {
                    Value::Null => &schema["additionalProperties"],
                    inner => inner,
                };
                grown.insert(name.clone(), newer(inner, field));
            }
            if schema["properties"].is_object() {
                grown.insert(FUTURE.to_owned(), json!({ "nested": [1, "two"] }));
            }
            Value::Object(grown)
        }
        Value::Array(items) => items.iter().map(|item| newer(&schema["items"], item)).collect(),
        plain => plain.clone(),
    }
}

fn object(kind: Kind, spec: Value, status: Value) -> Value {
    json!({
        "apiVersion": "slmswarm.io/v1alpha1", "kind": kind.name(), "metadata": { "name": "x" },
        "spec": spec, "status": status,
    })
}

fn objects() -> [(Kind, Value); 5] {
    let condition = json!({
        "type": "Ready", "status": "True", "reason": "Ready", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    let source =
        json!({ "uri": "oci://r/smol:1", "digest": format!("sha256:{:064}", 1), "secretRef": { "name": "pull" } });
    let target = json!({ "kind": "SlmModel", "name": "smol" });
    let toleration = json!({ "key": "k", "operator": "Exists" });
    let model = json!({
        "source": source, "replicas": 2,
        "runtime": {
            "accelerator": "cpu", "precision": "Int4", "contextLength": 512, "maxSequences": 4,
            "kvCache": { "bytes": 2_000_000 }, "prefixCache": true, "speculative": { "method": "Off" }, "threads": 2,
        },
        "adapters": { "slots": 3, "maxRank": 8 },
        "rollout": { "maxSurge": 1, "maxUnavailable": 0, "drainTimeoutSeconds": 5 },
        "pod": { "labels": { "a": "b" }, "resources": { "limits": { "memory": "1Gi" } }, "tolerations": [toleration] },
        "expert": { "description": "small" },
    });
    let adapter =
        json!({ "modelRef": { "name": "smol" }, "source": source, "scale": 0.5, "expert": { "description": "d" } });
    let external = json!({
        "url": "https://api.example.com/v1", "model": "m", "secretRef": { "name": "key" }, "timeoutSeconds": 5,
        "price": { "input": 1.0, "output": 2.0, "currency": "EUR" }, "concurrency": 2, "proxy": "http://proxy:3128",
        "caBundle": "PEM", "expert": { "description": "large" },
    });
    let rule = json!({ "when": "true", "to": target });
    let route = json!({ "description": "d", "rules": [rule], "dataPolicy": "Redacted", "fallback": target });
    let profile = json!({
        "executionProvider": "Cpu", "resource": { "name": "nvidia.com/gpu", "count": 1 }, "tolerations": [toleration],
    });
    let instance = json!({ "pod": "p", "state": "Serving" });
    [
        (Kind::SlmModel, object(Kind::SlmModel, model, json!({ "replicas": 1, "conditions": [condition] }))),
        (
            Kind::LoraAdapter,
            object(
                Kind::LoraAdapter,
                adapter,
                json!({ "resolved": { "uri": "u", "digest": "d" }, "instances": [instance], "conditions": [condition] }),
            ),
        ),
        (Kind::ExternalModel, object(Kind::ExternalModel, external, json!({ "conditions": [condition] }))),
        (Kind::SwarmRoute, object(Kind::SwarmRoute, route, json!({ "conditions": [condition] }))),
        (Kind::AcceleratorProfile, object(Kind::AcceleratorProfile, profile, Value::Null)),
    ]
}

/// The part of `value` that an older release understands.
fn read(kind: Kind, value: Value) -> Result<Value, serde_json::Error> {
    match kind {
        Kind::SlmModel => serde_json::from_value::<SlmModel>(value).and_then(serde_json::to_value),
        Kind::LoraAdapter => serde_json::from_value::<LoraAdapter>(value).and_then(serde_json::to_value),
        Kind::ExternalModel => serde_json::from_value::<ExternalModel>(value).and_then(serde_json::to_value),
        Kind::SwarmRoute => serde_json::from_value::<SwarmRoute>(value).and_then(serde_json::to_value),
        Kind::AcceleratorProfile => serde_json::from_value::<AcceleratorProfile>(value).and_then(serde_json::to_value),
    }
}

#[test]
fn an_older_release_reads_newer_objects() {
    for (kind, object) in objects() {
        let grown = newer(&kind.schema(), &object);
        let fields = grown.to_string().matches(FUTURE).count();
        assert!(fields >= 3, "{}: {fields} unknown fields", kind.name());
        let before = read(kind, object).unwrap_or_else(|error| panic!("{}: {error}", kind.name()));
        let after = read(kind, grown).unwrap_or_else(|error| panic!("{}: {error}", kind.name()));
        assert_eq!(before, after, "{}", kind.name());
    }
}
