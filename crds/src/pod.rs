//! Settings for a model's worker pods.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Affinity, ResourceRequirements, Toleration, TopologySpreadConstraint};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// PodSettings are added to every worker pod of the model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSettings {
    /// Labels of the pods, in addition to the operator's own.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations of the pods.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Resources are the requests and limits of the worker container, in addition to the accelerator's resource.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "resources")]
    pub resources: Option<ResourceRequirements>,
    /// NodeSelector selects nodes by label, in addition to the accelerator's.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Tolerations of the pods, in addition to the accelerator's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "tolerations")]
    pub tolerations: Vec<Toleration>,
    /// Affinity of the pods. Defaults to a preferred anti-affinity between workers of one model.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub affinity: Option<Affinity>,
    /// TopologySpreadConstraints of the pods.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "any_objects")]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
    /// PriorityClassName of the pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,
}

/// Quantities are strings or numbers.
fn resources(_: &mut SchemaGenerator) -> Schema {
    let quantities = |what: &str| {
        json_schema!({
            "type": "object",
            "description": what,
            "additionalProperties": { "x-kubernetes-int-or-string": true },
        })
    };
    json_schema!({
        "type": "object",
        "description": "Resources are the requests and limits of the worker container, in addition to the accelerator's resource.",
        "properties": {
            "limits": quantities("Limits are the maximum of each resource that the container may use."),
            "requests": quantities("Requests are the resources that a node reserves for the container."),
        },
    })
}

/// Tolerations of the pods.
pub(crate) fn tolerations(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "description": "Tolerations of the pods.",
        "items": {
            "type": "object",
            "properties": {
                "key": { "type": "string" },
                "operator": { "type": "string", "enum": ["Exists", "Equal"] },
                "value": { "type": "string" },
                "effect": { "type": "string", "enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"] },
                "tolerationSeconds": { "type": "integer", "format": "int64" },
            },
        },
    })
}

/// Kubernetes checks it where it is used: its schema alone would be ten times ours.
fn any_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "description": "The field of the same name in a PodSpec.", "x-kubernetes-preserve-unknown-fields": true })
}

fn any_objects(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "description": "The field of the same name in a PodSpec.", "items": any_object(generator) })
}
