//! `LoraAdapter`: an expert on top of a base model.

// Printer columns repeat their keys, which clippy takes for repeated attributes.
#![allow(clippy::duplicated_attributes)]

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    expert::Expert,
    source::Source,
    status::{self, Condition},
    validation,
};

/// An expert on top of a base model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "slmswarm.io",
    version = "v1alpha1",
    kind = "LoraAdapter",
    plural = "loraadapters",
    shortname = "lora",
    category = "slmswarm",
    namespaced,
    status = "LoraAdapterStatus",
    derive = "PartialEq",
    doc = "An expert on top of a base model: a PEFT adapter that loads, unloads and is replaced while others generate.",
    printcolumn(name = "Model", type_ = "string", json_path = ".spec.modelRef.name"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason"),
    printcolumn(name = "Loaded", type_ = "string", json_path = ".status.loaded"),
    printcolumn(name = "Rank", type_ = "integer", json_path = ".status.rank"),
    printcolumn(name = "Digest", type_ = "string", json_path = ".status.digest", priority = 1),
    printcolumn(name = "Source", type_ = "string", json_path = ".spec.source.uri", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
pub struct LoraAdapterSpec {
    /// The base model that it was trained on.
    pub model_ref: ModelRef,
    /// A folder as PEFT writes it: adapter_config.json and adapter_model.safetensors.
    pub source: Source,
    /// Multiplies the scaling that the adapter's own config gives. Unset: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = validation::scale()))]
    pub scale: Option<f64>,
    /// What callers may know of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expert: Option<Expert>,
}

impl LoraAdapterSpec {
    /// What its own scaling is multiplied by.
    #[must_use]
    pub fn factor(&self) -> f32 {
        #[allow(clippy::cast_possible_truncation)] // The schema's bounds fit; the worker multiplies in f32.
        let factor = self.scale.unwrap_or(1.0) as f32;
        factor
    }
}

/// An `SlmModel` in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelRef {
    /// Its name.
    #[schemars(length(min = 1, max = 63), extend("x-kubernetes-validations" = validation::name()))]
    pub name: String,
}

/// What is, as the workers say.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LoraAdapterStatus {
    /// `metadata.generation` that the rest of this status speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Digest of the version that new requests use: what spec.source turned out to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// What spec.source turned out to be. A tag that moves later changes nothing until the manifest does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolved: Option<Resolved>,
    /// Largest rank over its layers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rank: Option<u32>,
    /// Projections that it changes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub target_modules: Vec<String>,
    /// Memory that one instance takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Workers that serve the wanted version, of those there are: `2/2`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loaded: Option<String>,
    /// One a worker.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub instances: Vec<Instance>,
    /// Ready, with its reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "status::conditions")]
    pub conditions: Vec<Condition>,
}

/// A source, and what was found there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Resolved {
    /// As the manifest says.
    pub uri: String,
    /// Digest of the contents that were found there first.
    pub digest: String,
}

/// The adapter on one worker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Instance {
    /// Pod, or the worker's address where there are no pods.
    pub pod: String,
    /// Serving, Retiring or Failed.
    pub state: String,
    /// Digest of this instance's version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// When it was loaded, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loaded_at: Option<String>,
    /// How long reading, checking and packing took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_millis: Option<u32>,
    /// Why the last attempt failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}
