//! `LoraAdapter`: a LoRA adapter of a base model, served as an expert.

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

/// LoraAdapterSpec describes an expert on top of a base model.
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
    /// ModelRef names the SlmModel that the adapter was trained on.
    pub model_ref: ModelRef,
    /// Source is the location of the adapter as PEFT saves it: adapter_config.json and adapter_model.safetensors; or of the head of a
    /// route as `slm route train` writes it, alone or beside these files.
    pub source: Source,
    /// Scale multiplies the scaling of the adapter's own configuration. Defaults to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = validation::scale()))]
    pub scale: Option<f64>,
    /// Placement says which workers of the base have the adapter, and whether it may leave its slot there.
    #[serde(default)]
    pub placement: Placement,
    /// Expert describes the adapter to callers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expert: Option<Expert>,
}

impl LoraAdapterSpec {
    /// The factor of the adapter's own scaling.
    #[must_use]
    pub fn factor(&self) -> f32 {
        #[allow(clippy::cast_possible_truncation)] // The schema's bounds fit; the worker multiplies in f32.
        let factor = self.scale.unwrap_or(1.0) as f32;
        factor
    }
}

/// Placement says which workers of the base have an adapter, and whether it may leave its slot there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Placement {
    /// Replicas is the number of workers that load the adapter: the same ones as long as they are there. Unset: all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub replicas: Option<u32>,
    /// Pin keeps the adapter in its slot: it never leaves for another one. Where pinned adapters have all slots, requests to
    /// others are refused.
    pub pin: bool,
}

/// ModelRef refers to a SlmModel in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelRef {
    /// Name of the SlmModel.
    #[schemars(length(min = 1, max = 63), extend("x-kubernetes-validations" = validation::name()))]
    pub name: String,
}

/// LoraAdapterStatus is the observed state of a LoraAdapter, as reported by the workers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LoraAdapterStatus {
    /// ObservedGeneration is the generation that this status describes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Digest of the version that new requests use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Resolved is the digest that spec.source resolved to. A tag that moves later has no effect until the spec changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolved: Option<Resolved>,
    /// Rank is the largest rank of any layer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rank: Option<u32>,
    /// TargetModules are the projections that the adapter changes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub target_modules: Vec<String>,
    /// Bytes is the memory that one loaded instance takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Loaded is the number of workers that serve the resolved version, of those that should: `2/2`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loaded: Option<String>,
    /// Instances is the state of the adapter on each worker.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub instances: Vec<Instance>,
    /// Conditions of the LoraAdapter: Ready.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "status::conditions")]
    pub conditions: Vec<Condition>,
}

/// Resolved is a source and the digest that it resolved to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Resolved {
    /// Uri as in spec.source.
    pub uri: String,
    /// Digest of the contents at first resolution.
    pub digest: String,
}

/// Instance is the state of the adapter on one worker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Instance {
    /// Pod is the name of the worker pod.
    pub pod: String,
    /// State is Serving, Retiring (an old version with running requests), Loading, Failed (tried again soon), Refused (other
    /// files or another spec are needed) or Unknown.
    pub state: String,
    /// Digest of the loaded version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// LoadedAt is the time the adapter was loaded, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loaded_at: Option<String>,
    /// LoadMillis is the time to read, check and pack the adapter, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_millis: Option<u32>,
    /// LastError is the error of the last failed attempt to load.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

impl Instance {
    /// State of an adapter that the worker cannot load until its files or its spec change.
    pub const REFUSED: &str = "Refused";
}
