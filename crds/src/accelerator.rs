//! `AcceleratorProfile`: the hardware and execution provider of workers.

// Printer columns repeat their keys, which clippy takes for repeated attributes.
#![allow(clippy::duplicated_attributes)]

use std::{collections::BTreeMap, fmt};

use k8s_openapi::api::core::v1::Toleration;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::pod;

/// The profile of a SlmModel that names none.
pub const CPU: &str = "cpu";

/// AcceleratorProfileSpec describes the execution provider, image and nodes of workers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "slmswarm.io",
    version = "v1alpha1",
    kind = "AcceleratorProfile",
    plural = "acceleratorprofiles",
    shortname = "accel",
    category = "slmswarm",
    derive = "PartialEq",
    doc = "AcceleratorProfile describes the hardware of worker pods: the execution provider, its options, the worker image and the nodes.",
    printcolumn(name = "Provider", type_ = "string", json_path = ".spec.executionProvider"),
    printcolumn(name = "Resource", type_ = "string", json_path = ".spec.resource.name"),
    printcolumn(name = "Image", type_ = "string", json_path = ".spec.image", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
pub struct AcceleratorProfileSpec {
    /// Provider is the execution provider of ONNX Runtime.
    pub execution_provider: ExecutionProvider,
    /// ProviderOptions are options of the execution provider, by their names in ONNX Runtime.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub provider_options: BTreeMap<String, String>,
    /// Image of the worker container. Defaults to the operator's worker image for CPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub image: Option<String>,
    /// Resource is the extended resource that each worker requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<DeviceResource>,
    /// Env adds environment variables to the worker container.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// NodeSelector selects the nodes of the worker pods by label.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Tolerations of the worker pods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "pod::tolerations")]
    pub tolerations: Vec<Toleration>,
}

/// DeviceResource is an extended resource that nodes advertise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeviceResource {
    /// Name of the resource, such as `nvidia.com/gpu`.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Count is the quantity that each worker requests.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 64))]
    pub count: u32,
}

fn one() -> u32 {
    1
}

/// An execution provider of ONNX Runtime.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs)] // Documented variants would become a `oneOf`, which no API server accepts here.
pub enum ExecutionProvider {
    #[default]
    Cpu,
    Cuda,
    TensorRt,
    OpenVino,
}

impl fmt::Display for ExecutionProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cpu => "Cpu",
            Self::Cuda => "Cuda",
            Self::TensorRt => "TensorRt",
            Self::OpenVino => "OpenVino",
        })
    }
}
