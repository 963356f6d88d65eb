//! `SlmModel`: a base model and the workers that serve it.

// Printer columns repeat their keys, which clippy takes for repeated attributes.
#![allow(clippy::duplicated_attributes)]

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    accelerator::CPU,
    expert::Expert,
    pod::PodSettings,
    source::Source,
    status::{self, Condition},
    validation,
};

/// A base model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "slmswarm.io",
    version = "v1alpha1",
    kind = "SlmModel",
    plural = "slmmodels",
    shortname = "slm",
    category = "slmswarm",
    namespaced,
    status = "SlmModelStatus",
    derive = "PartialEq",
    doc = "A base model and the workers that serve it.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason"),
    printcolumn(name = "Workers", type_ = "integer", json_path = ".status.readyReplicas"),
    printcolumn(name = "Accelerator", type_ = "string", json_path = ".spec.runtime.accelerator", priority = 1),
    printcolumn(name = "Precision", type_ = "string", json_path = ".spec.runtime.precision"),
    printcolumn(name = "Slots", type_ = "integer", json_path = ".spec.adapters.slots"),
    printcolumn(name = "Source", type_ = "string", json_path = ".spec.source.uri", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
pub struct SlmModelSpec {
    /// The weights: a GGUF file, or a Hugging Face folder with config.json and safetensors.
    pub source: Source,
    /// Workers in a cluster. On one machine there is one.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: u32,
    /// How a worker runs it.
    #[serde(default)]
    pub runtime: Runtime,
    /// Room for experts.
    #[serde(default)]
    pub adapters: AdapterRoom,
    /// How the workers of a cluster are replaced.
    #[serde(default)]
    pub rollout: Rollout,
    /// What the workers' pods have besides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodSettings>,
    /// What callers may know of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expert: Option<Expert>,
}

fn one() -> u32 {
    1
}

/// How a worker runs a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Runtime {
    /// Name of the AcceleratorProfile that the workers run on. On one machine: cpu.
    #[schemars(length(min = 1, max = 63), extend("x-kubernetes-validations" = validation::name()))]
    pub accelerator: String,
    /// Of the weights in memory. Auto: Int4 when the artifact's own weights have 4 bits, Int8 when they have 5 to 8, else F32.
    pub precision: Precision,
    /// Longest sequence in tokens, prompt and answer together. Unset: what the model was trained for, at most 4096.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 16, max = 1_048_576))]
    pub context_length: Option<u32>,
    /// Sequences that one worker generates at once; more wait.
    #[schemars(range(min = 1, max = 256))]
    pub max_sequences: u32,
    /// Keys and values of what is read and generated.
    pub kv_cache: KvCache,
    /// Keep the keys and values of prompts for later requests that begin alike, as long as there is room.
    pub prefix_cache: bool,
    /// Whether several tokens of an answer are tried at once.
    pub speculative: Speculative,
    /// Threads that compute. Unset: all that the worker may use.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub threads: Option<u32>,
}

impl Default for Runtime {
    fn default() -> Self {
        Self {
            accelerator: CPU.to_owned(),
            precision: Precision::Auto,
            context_length: None,
            max_sequences: 8,
            kv_cache: KvCache::default(),
            prefix_cache: true,
            speculative: Speculative::default(),
            threads: None,
        }
    }
}

/// The memory of keys and values in a worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct KvCache {
    /// Bytes at most; room for one sequence of contextLength at least. Unset: room for maxSequences of them, but no more than
    /// half of the memory that the worker may use. Requests wait while there is no room for the longest that they may become.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1_048_576))]
    pub bytes: Option<i64>,
}

/// How tokens are tried before their turn. Answers are the same, and sooner there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Speculative {
    /// PromptLookup: what followed the last words where they stood before, in prompt or answer, is tried as long as that
    /// pays. Off: one token a step.
    pub method: SpeculativeMethod,
}

/// Where tokens to try come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SpeculativeMethod {
    // Plain comments: documented variants would become a `oneOf`, which no API server accepts here.
    #[default]
    #[allow(missing_docs)]
    PromptLookup,
    #[allow(missing_docs)]
    Off,
}

impl SpeculativeMethod {
    /// As manifests spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::PromptLookup => "PromptLookup",
            Self::Off => "Off",
        }
    }
}

/// Precision of the weights in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Precision {
    // Plain comments: documented variants would become a `oneOf`, which no API server accepts here.
    #[default]
    #[allow(missing_docs)]
    Auto,
    #[allow(missing_docs)]
    F32,
    #[allow(missing_docs)]
    Int4,
    #[allow(missing_docs)]
    Int8,
}

impl Precision {
    /// As manifests and command lines write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "Auto",
            Self::F32 => "F32",
            Self::Int4 => "Int4",
            Self::Int8 => "Int8",
        }
    }
}

/// How workers are replaced by those of a new revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Rollout {
    /// Workers that may be there beyond spec.replicas meanwhile.
    #[schemars(range(min = 0, max = 1000))]
    pub max_surge: u32,
    /// Workers that may be missing meanwhile.
    #[schemars(range(min = 0, max = 1000))]
    pub max_unavailable: u32,
    /// How long a worker that is on its way out may go on with the answers that it has begun.
    #[schemars(range(min = 1, max = 3600))]
    pub drain_timeout_seconds: u32,
}

impl Default for Rollout {
    fn default() -> Self {
        Self { max_surge: 1, max_unavailable: 0, drain_timeout_seconds: 60 }
    }
}

/// Room that a worker keeps for experts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AdapterRoom {
    /// Adapters that are loaded at once at most, versions that are being replaced included.
    #[schemars(range(min = 0, max = 1024))]
    pub slots: u32,
    /// Largest rank that is accepted.
    #[schemars(range(min = 1, max = 1024))]
    pub max_rank: u32,
}

impl Default for AdapterRoom {
    fn default() -> Self {
        Self { slots: 16, max_rank: 64 }
    }
}

/// What is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SlmModelStatus {
    /// `metadata.generation` that the rest of this status speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Workers there are.
    pub replicas: u32,
    /// Workers that have loaded the model and every adapter.
    pub ready_replicas: u32,
    /// Selects the workers' pods, for autoscalers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Digest of the artifact that serves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Ready, with its reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "status::conditions")]
    pub conditions: Vec<Condition>,
}
