//! CRDs of the Rust types.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use kube::CustomResourceExt as _;
use serde_json::Value;

use crate::{API_VERSION, AcceleratorProfile, ExternalModel, LoraAdapter, SlmModel, SwarmRoute, validation};

/// Removes schemars' numeric formats: `minimum` and `maximum` bound the values, and API servers warn about unknown
/// formats.
fn keep_known_formats(schema: &mut JSONSchemaProps) {
    if schema.format.as_deref().is_some_and(|format| format.starts_with("uint")) {
        schema.format = None;
    }
    for inner in schema.properties.iter_mut().flat_map(|properties| properties.values_mut()) {
        keep_known_formats(inner);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        keep_known_formats(items);
    }
}

/// A kind of the API group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A base model.
    SlmModel,
    /// A LoRA adapter of a base model.
    LoraAdapter,
    /// A route: a name with rules.
    SwarmRoute,
    /// A model outside of the swarm.
    ExternalModel,
    /// An accelerator profile.
    AcceleratorProfile,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 5] =
        [Self::SlmModel, Self::LoraAdapter, Self::SwarmRoute, Self::ExternalModel, Self::AcceleratorProfile];
    /// Kinds of a swarm on one machine, in order of their dependencies.
    pub const LOCAL: [Self; 4] = [Self::SlmModel, Self::LoraAdapter, Self::ExternalModel, Self::SwarmRoute];

    /// Name of the kind.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::SlmModel => "SlmModel",
            Self::LoraAdapter => "LoraAdapter",
            Self::SwarmRoute => "SwarmRoute",
            Self::ExternalModel => "ExternalModel",
            Self::AcceleratorProfile => "AcceleratorProfile",
        }
    }

    /// The kind of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// CRD of the kind, with rules about `metadata`, which the derive does not support.
    #[must_use]
    pub fn crd(self) -> CustomResourceDefinition {
        let mut crd = match self {
            Self::SlmModel => SlmModel::crd(),
            Self::LoraAdapter => LoraAdapter::crd(),
            Self::SwarmRoute => SwarmRoute::crd(),
            Self::ExternalModel => ExternalModel::crd(),
            Self::AcceleratorProfile => AcceleratorProfile::crd(),
        };
        for version in &mut crd.spec.versions {
            if let Some(root) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) {
                root.x_kubernetes_validations = serde_json::from_value(validation::object_name()).ok();
                keep_known_formats(root);
            }
        }
        crd
    }

    /// OpenAPI schema of the whole object, as JSON.
    #[must_use]
    pub fn schema(self) -> Value {
        let schema = self.crd().spec.versions.into_iter().next().and_then(|version| version.schema);
        schema.and_then(|schema| serde_json::to_value(schema.open_api_v3_schema).ok()).unwrap_or_default()
    }

    /// File name in `crds/yaml`.
    #[must_use]
    pub fn file_name(self) -> String {
        format!("{}.yaml", self.name().to_lowercase())
    }

    /// Content of that file.
    ///
    /// # Errors
    /// The CRD cannot be written as YAML, which does not happen with ours.
    pub fn yaml(self) -> Result<String, serde_yaml_ng::Error> {
        let body = serde_yaml_ng::to_string(&self.crd())?;
        Ok(format!(
            "# {API_VERSION} {}. Generated from crds/src: change it there, then make generate\n{body}",
            self.name()
        ))
    }
}
