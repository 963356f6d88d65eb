//! `ExternalModel`: a model outside of the swarm, behind an OpenAI-compatible endpoint.

// Printer columns repeat their keys, which clippy takes for repeated attributes.
#![allow(clippy::duplicated_attributes)]

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    expert::Expert,
    source::SecretRef,
    status::{self, Condition},
    validation,
};

/// ExternalModelSpec describes a model that routes may ask when their data policy allows it. Callers cannot name it themselves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "slmswarm.io",
    version = "v1alpha1",
    kind = "ExternalModel",
    plural = "externalmodels",
    shortname = "ext",
    category = "slmswarm",
    namespaced,
    status = "ExternalModelStatus",
    derive = "PartialEq",
    doc = "A model outside of the swarm, behind an OpenAI-compatible endpoint: routes may ask it when their data policy allows it.",
    printcolumn(name = "URL", type_ = "string", json_path = ".spec.url"),
    printcolumn(name = "Model", type_ = "string", json_path = ".spec.model"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
pub struct ExternalModelSpec {
    /// Url of the API, to which `/chat/completions` is added: `https://api.example.com/v1`. Text and credentials go there in plain text
    /// over http.
    #[schemars(length(min = 8, max = 2048), extend("x-kubernetes-validations" = validation::endpoint()))]
    pub url: String,
    /// Model is the name of the model there.
    #[schemars(length(min = 1, max = 256), extend("x-kubernetes-validations" = validation::not_blank()))]
    pub model: String,
    /// SecretRef names a Secret with `token`, which is sent as a bearer token. The Secret needs the annotation `slmswarm.io/hosts`, which names
    /// the hosts that its token may be sent to: HOST or HOST:PORT, separated by commas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
    /// Price of its tokens. Without it costs are not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<Price>,
    /// TimeoutSeconds is the longest silence of the endpoint: until the headers of an answer, and between two pieces of it.
    #[serde(default = "timeout_seconds")]
    #[schemars(range(min = 1, max = 3600))]
    pub timeout_seconds: u32,
    /// Concurrency is the largest number of requests at once, for each replica of the egress. Others wait.
    #[serde(default = "concurrency")]
    #[schemars(range(min = 1, max = 1024))]
    pub concurrency: u32,
    /// Proxy is the URL of a proxy that the endpoint is reached through. Unset: HTTPS_PROXY, HTTP_PROXY and NO_PROXY of the egress's
    /// environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 8, max = 2048), extend("x-kubernetes-validations" = validation::endpoint()))]
    pub proxy: Option<String>,
    /// CaBundle is PEM-encoded certificates of authorities that may sign the endpoint's certificate, besides those of the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65536))]
    pub ca_bundle: Option<String>,
    /// Expert describes the model. Its examples are compared with requests by routes with `similarity`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expert: Option<Expert>,
}

/// Price of a million tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Price {
    /// Input is the price of a million tokens of prompts.
    #[schemars(range(min = 0.0, max = 1_000_000.0))]
    pub input: f64,
    /// Output is the price of a million tokens of answers.
    #[schemars(range(min = 0.0, max = 1_000_000.0))]
    pub output: f64,
    /// Currency of both, by its ISO 4217 code. Defaults to USD.
    #[serde(default = "currency")]
    #[schemars(length(min = 3, max = 3), extend("x-kubernetes-validations" = validation::currency()))]
    pub currency: String,
}

fn timeout_seconds() -> u32 {
    60
}

fn concurrency() -> u32 {
    16
}

fn currency() -> String {
    "USD".to_owned()
}

impl Price {
    /// The cost of an answer, in `currency`.
    #[must_use]
    pub fn of(&self, prompt_tokens: u32, completion_tokens: u32) -> f64 {
        (f64::from(prompt_tokens) * self.input + f64::from(completion_tokens) * self.output) / 1e6
    }
}

/// ExternalModelStatus is the observed state of an ExternalModel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ExternalModelStatus {
    /// ObservedGeneration is the generation that this status describes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions of the ExternalModel: Ready.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "status::conditions")]
    pub conditions: Vec<Condition>,
}
