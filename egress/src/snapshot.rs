//! Desired state: the models outside that there are.

use serde::{Deserialize, Serialize};
use slm_crds::ExternalModelSpec;

/// All models outside. Generation 0 is the empty snapshot before the first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Externals {
    /// Counts up with every change.
    pub generation: u64,
    /// The models.
    #[serde(default)]
    pub externals: Vec<External>,
}

/// An `ExternalModel`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct External {
    /// Its name.
    pub name: String,
    /// Its spec, as in the manifest.
    pub spec: ExternalModelSpec,
}
