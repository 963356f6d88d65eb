//! Description of an expert for callers and routes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::validation;

/// Expert describes what a model or adapter is good at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Expert {
    /// Description is one sentence for people who choose a model. Listed by ListModels and /v1/models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,
    /// Examples are texts that this expert is for, as its callers write them. Routes with `similarity` compare requests with
    /// them: 8 to 64 that cover what the expert knows do well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("items" = validation::example()))]
    pub examples: Vec<String>,
}
