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

/// SlmModelSpec describes a base model and the pool of workers that serves it.
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
    printcolumn(name = "Task", type_ = "string", json_path = ".spec.task", priority = 1),
    printcolumn(name = "Accelerator", type_ = "string", json_path = ".spec.runtime.accelerator", priority = 1),
    printcolumn(name = "Precision", type_ = "string", json_path = ".spec.runtime.precision"),
    printcolumn(name = "Slots", type_ = "integer", json_path = ".spec.adapters.slots"),
    printcolumn(name = "Source", type_ = "string", json_path = ".spec.source.uri", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
pub struct SlmModelSpec {
    /// Source is the location of the weights: a GGUF file, or a Hugging Face folder with config.json and safetensors.
    pub source: Source,
    /// Task is what the workers do: Generate continues text, Embed turns texts into vectors, Rerank scores documents for a query, and
    /// Classify gives texts labels. Encoders such as BERT do not generate; Rerank and Classify need a checkpoint with a head for
    /// sequence classification.
    #[serde(default)]
    pub task: Task,
    /// Replicas is the number of workers in a cluster. `slm up` runs one.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: u32,
    /// Runtime configures how each worker runs the model.
    #[serde(default)]
    pub runtime: Runtime,
    /// Adapters limits the LoRA adapters that each worker can hold.
    #[serde(default)]
    pub adapters: AdapterRoom,
    /// Rollout configures how workers are replaced when the spec changes. Ignored by `slm up`.
    #[serde(default)]
    pub rollout: Rollout,
    /// Pod adds metadata, resources and scheduling constraints to the worker pods. Ignored by `slm up`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodSettings>,
    /// Expert describes the model to callers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expert: Option<Expert>,
}

fn one() -> u32 {
    1
}

/// Task is what workers do with a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Task {
    // Plain comments: documented variants would become a `oneOf`, which no API server accepts here.
    #[default]
    #[allow(missing_docs)]
    Generate,
    #[allow(missing_docs)]
    Embed,
    #[allow(missing_docs)]
    Rerank,
    #[allow(missing_docs)]
    Classify,
}

impl Task {
    /// Name in manifests and on command lines.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Generate => "Generate",
            Self::Embed => "Embed",
            Self::Rerank => "Rerank",
            Self::Classify => "Classify",
        }
    }
}

/// Runtime configures how a worker runs a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Runtime {
    /// Accelerator is the name of the AcceleratorProfile that the workers run on. `slm up` accepts cpu only.
    #[schemars(length(min = 1, max = 63), extend("x-kubernetes-validations" = validation::name()))]
    pub accelerator: String,
    /// Precision of the weights in memory. Auto selects Int4 when the artifact's weights have 4 bits, Int8 when they have 5 to
    /// 8, and F32 otherwise.
    pub precision: Precision,
    /// ContextLength is the maximum length of a sequence in tokens, prompt and completion together. Defaults to the length the
    /// model was trained for, at most 4096.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 16, max = 1_048_576))]
    pub context_length: Option<u32>,
    /// MaxSequences is the maximum number of sequences in a batch of one worker. Further requests are queued.
    #[schemars(range(min = 1, max = 256))]
    pub max_sequences: u32,
    /// KVCache configures the memory for keys and values.
    pub kv_cache: KvCache,
    /// PrefixCache keeps the keys and values of prompts for later requests with the same prefix while there is room. Prefixes
    /// are shared within a tenant only.
    pub prefix_cache: bool,
    /// Speculative configures speculative decoding.
    pub speculative: Speculative,
    /// Threads is the number of compute threads. Defaults to all cores the worker may use.
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

/// KvCache configures the memory for keys and values in a worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct KvCache {
    /// Bytes is the maximum size of the cache. It must hold at least one sequence of contextLength. Defaults to the size of
    /// maxSequences such sequences, but no more than half of the memory the worker may use. A request is queued until there
    /// is room for its prompt and its longest completion.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1_048_576))]
    pub bytes: Option<i64>,
}

/// Speculative configures speculative decoding. It does not change what is generated, only how fast.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Speculative {
    /// Method is how draft tokens are found. PromptLookup drafts the tokens that followed the same n-gram earlier in the
    /// prompt or the completion; drafts get shorter, down to none, when few are accepted. Off disables drafting.
    pub method: SpeculativeMethod,
}

/// SpeculativeMethod is a source of draft tokens.
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
    /// Name in manifests.
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
    F16,
    #[allow(missing_docs)]
    Int4,
    #[allow(missing_docs)]
    Int8,
}

impl Precision {
    /// Name in manifests and on command lines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "Auto",
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Int4 => "Int4",
            Self::Int8 => "Int8",
        }
    }
}

/// Rollout configures how workers are replaced by those of a new revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Rollout {
    /// MaxSurge is the maximum number of workers above spec.replicas during a rollout.
    #[schemars(range(min = 0, max = 1000))]
    pub max_surge: u32,
    /// MaxUnavailable is the maximum number of workers that may be unavailable during a rollout.
    #[schemars(range(min = 0, max = 1000))]
    pub max_unavailable: u32,
    /// DrainTimeoutSeconds is the time a terminating worker has to finish its running requests.
    #[schemars(range(min = 1, max = 3600))]
    pub drain_timeout_seconds: u32,
}

impl Default for Rollout {
    fn default() -> Self {
        Self { max_surge: 1, max_unavailable: 0, drain_timeout_seconds: 60 }
    }
}

/// AdapterRoom limits the LoRA adapters of a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AdapterRoom {
    /// Slots is the number of adapters that running requests of a worker may use at a time. More adapters may be loaded: a request
    /// to one that is in no slot brings it into one, for which the least recently used adapter that no request uses leaves.
    #[schemars(range(min = 0, max = 1024))]
    pub slots: u32,
    /// MaxRank is the maximum rank of an adapter.
    #[schemars(range(min = 1, max = 1024))]
    pub max_rank: u32,
    /// HostCacheBytes is the memory of a worker for adapters that are in no slot. Those that are not in it either are read from the
    /// cache of artifacts again. Counts towards the memory limit of the container.
    #[schemars(range(min = 0, max = 1_099_511_627_776_i64))]
    pub host_cache_bytes: i64,
}

impl Default for AdapterRoom {
    fn default() -> Self {
        Self { slots: 16, max_rank: 64, host_cache_bytes: 256 << 20 }
    }
}

/// SlmModelStatus is the observed state of a SlmModel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SlmModelStatus {
    /// ObservedGeneration is the generation that this status describes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Replicas is the number of worker pods.
    pub replicas: u32,
    /// ReadyReplicas is the number of workers that have loaded the model and every adapter.
    pub ready_replicas: u32,
    /// Selector is the label selector of the worker pods, for the scale subresource.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Digest of the artifact that the workers serve.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// ExecutionProvider of ONNX Runtime on which the workers compute: Cpu, Cuda or OpenVino.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution_provider: Option<String>,
    /// Flavour of the converted model: the form of its graph, its precision and its activations; on the CPU, the precision alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flavour: Option<String>,
    /// Conditions of the SlmModel: Ready.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "status::conditions")]
    pub conditions: Vec<Condition>,
}
