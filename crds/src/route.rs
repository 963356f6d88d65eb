//! `SwarmRoute`: a name for callers, with rules that choose an expert for each request.

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

/// SwarmRouteSpec describes how a request is routed to an expert.
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
    /// Description is one sentence for people who choose a model. Listed by ListModels and /v1/models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,
    /// Rules are evaluated in order. The first rule that is true and whose target is loaded on a worker selects the target.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub rules: Vec<RouteRule>,
    /// Fallback is the target when no rule selects one.
    pub fallback: Target,
}

/// RouteRule selects a target when an expression is true.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouteRule {
    /// When is a CEL expression over `text`, `messages`, `metadata` and `model` that yields a boolean, such as
    /// `text.matches("(?i)\\b(flight|hotel)\\b")`.
    #[schemars(length(min = 1, max = 4096), extend("x-kubernetes-validations" = validation::not_blank()))]
    pub when: String,
    /// To is the target when the expression is true.
    pub to: Target,
}

/// Target refers to a SlmModel or a LoraAdapter in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// Kind is SlmModel or LoraAdapter.
    pub kind: TargetKind,
    /// Name of the target.
    #[schemars(length(min = 1, max = 63), extend("x-kubernetes-validations" = validation::name()))]
    pub name: String,
}

/// TargetKind is the kind of a target. A route cannot target a route, so routes have no loops.
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

/// SwarmRouteStatus is the observed state of a SwarmRoute.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SwarmRouteStatus {
    /// ObservedGeneration is the generation that this status describes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions of the SwarmRoute: Ready.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "status::conditions")]
    pub conditions: Vec<Condition>,
}
