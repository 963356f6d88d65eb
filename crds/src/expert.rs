//! Description of an expert for callers and routes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Expert describes what a model or adapter is good at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Expert {
    /// Description is one sentence for people who choose a model. Listed by ListModels and /v1/models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,
}

/// The description; empty if there is none.
#[must_use]
pub fn description(expert: Option<&Expert>) -> String {
    expert.and_then(|expert| expert.description.clone()).unwrap_or_default()
}
