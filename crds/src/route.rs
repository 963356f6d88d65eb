//! `SwarmRoute`: a name that callers use, and how a request finds its expert behind it.

// Printer columns repeat their keys, which clippy takes for repeated attributes.
#![allow(clippy::duplicated_attributes)]

use std::fmt;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    status::{self, Condition},
    validation,
};

/// How a request finds its expert.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "slmswarm.io",
    version = "v1alpha1",
    kind = "SwarmRoute",
    plural = "swarmroutes",
    shortname = "sroute",
    category = "slmswarm",
    namespaced,
    status = "SwarmRouteStatus",
    derive = "PartialEq",
    doc = "A name that callers use: rules that choose an expert for each request, and a fallback.",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason"),
    printcolumn(name = "Fallback", type_ = "string", json_path = ".spec.fallback.name"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
pub struct SwarmRouteSpec {
    /// One sentence for people who choose a model; listed by the endpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,
    /// Tried in order; the first that holds and whose expert is loaded decides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub rules: Vec<RouteRule>,
    /// Who answers when no rule decides.
    pub fallback: Target,
}

/// When, and then to whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouteRule {
    /// A CEL expression over `text`, `messages`, `metadata` and `model` that yields true or false, such as
    /// `text.matches("(?i)\\b(flight|hotel)\\b")`.
    #[schemars(length(min = 1, max = 4096), extend("x-kubernetes-validations" = validation::not_blank()))]
    pub when: String,
    /// Who answers then.
    pub to: Target,
}

/// A model or an adapter in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// `SlmModel` or `LoraAdapter`.
    pub kind: TargetKind,
    /// Its name.
    #[schemars(length(min = 1, max = 63), extend("x-kubernetes-validations" = validation::name()))]
    pub name: String,
}

/// What a route may lead to. A route cannot lead to a route, so routes have no loops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs)]
pub enum TargetKind {
    SlmModel,
    LoraAdapter,
}

impl fmt::Display for TargetKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SlmModel => "SlmModel",
            Self::LoraAdapter => "LoraAdapter",
        })
    }
}

/// What is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SwarmRouteStatus {
    /// `metadata.generation` that the rest of this status speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, with its reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "status::conditions")]
    pub conditions: Vec<Condition>,
}
