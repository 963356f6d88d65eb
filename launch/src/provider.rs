//! Execution providers that workers of this release have.

use std::fmt;

use slm_crds::{AcceleratorProfileSpec, accelerator};

/// An execution provider of ONNX Runtime that workers of this release have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum ExecutionProvider {
    /// The kernels of this project.
    #[default]
    Cpu,
    /// NVIDIA GPUs, by ONNX Runtime's CUDA provider.
    Cuda,
    /// OpenVINO on the host's processor, with ONNX Runtime's library of the wheel onnxruntime-openvino.
    OpenVino,
}

impl fmt::Display for ExecutionProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cpu => "Cpu",
            Self::Cuda => "Cuda",
            Self::OpenVino => "OpenVino",
        })
    }
}

/// Names of the AcceleratorProfiles that the chart makes and workers of this release run on.
const PROFILES: [(&str, ExecutionProvider); 3] = [
    (accelerator::CPU, ExecutionProvider::Cpu),
    ("nvidia-cuda", ExecutionProvider::Cuda),
    ("intel-openvino-cpu", ExecutionProvider::OpenVino),
];

impl ExecutionProvider {
    /// The provider of the chart's AcceleratorProfile of that name, for a machine without a cluster.
    ///
    /// # Errors
    /// No worker of this release runs on a profile of that name; says which there are.
    pub fn of_profile(name: &str) -> Result<Self, String> {
        let found = PROFILES.iter().find(|(profile, _)| *profile == name).map(|(_, provider)| *provider);
        found.ok_or_else(|| {
            let names: Vec<&str> = PROFILES.iter().map(|(profile, _)| *profile).collect();
            format!("accelerator `{name}` is not for one machine; there are {}", names.join(", "))
        })
    }
}

/// A profile on which no worker of this release runs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsupported {
    /// It has no such provider.
    #[error("workers of this release compute on Cpu and Cuda in pods; executionProvider {0} is not there yet")]
    Provider(accelerator::ExecutionProvider),
    /// The provider takes no options.
    #[error("executionProvider {provider} takes no providerOptions; take {options} away")]
    Options {
        /// The provider.
        provider: ExecutionProvider,
        /// Names of the options.
        options: String,
    },
}

/// The provider that a worker on this profile is started with.
///
/// # Errors
/// No worker of this release runs on it.
pub fn provider(profile: &AcceleratorProfileSpec) -> Result<ExecutionProvider, Unsupported> {
    let provider = match profile.execution_provider {
        accelerator::ExecutionProvider::Cpu => ExecutionProvider::Cpu,
        accelerator::ExecutionProvider::Cuda => ExecutionProvider::Cuda,
        // Images have no ONNX Runtime with OpenVINO.
        other @ (accelerator::ExecutionProvider::TensorRt | accelerator::ExecutionProvider::OpenVino) => {
            return Err(Unsupported::Provider(other));
        }
    };
    if profile.provider_options.is_empty() {
        return Ok(provider);
    }
    let options: Vec<&str> = profile.provider_options.keys().map(String::as_str).collect();
    Err(Unsupported::Options { provider, options: options.join(", ") })
}
