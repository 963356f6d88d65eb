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
    #[error("workers of this release compute on Cpu, Cuda and OpenVino; executionProvider {0} is not there yet")]
    Provider(accelerator::ExecutionProvider),
    /// OpenVINO's device is another than the processor.
    #[error(
        "OpenVINO computes on device_type CPU in this release; providerOptions has device_type {0}, which is not there yet"
    )]
    OpenVinoDevice(String),
    /// The provider does not take these options.
    #[error("executionProvider {provider} takes {}; take {options} out of providerOptions", taken(.provider))]
    Options {
        /// The provider.
        provider: ExecutionProvider,
        /// Names of the options.
        options: String,
    },
}

/// Options that a profile may have.
fn known(provider: ExecutionProvider) -> &'static [&'static str] {
    match provider {
        ExecutionProvider::OpenVino => &[DEVICE_TYPE],
        ExecutionProvider::Cpu | ExecutionProvider::Cuda => &[],
    }
}

fn taken(provider: &ExecutionProvider) -> String {
    match known(*provider) {
        [] => "no options".to_owned(),
        names => format!("no other option than {}", names.join(", ")),
    }
}

/// OpenVINO's option with the device, and the value that workers of this release run on.
const DEVICE_TYPE: &str = "device_type";
const CPU_DEVICE: &str = "CPU";

/// The provider that a worker on this profile is started with.
///
/// # Errors
/// No worker of this release runs on it.
pub fn provider(profile: &AcceleratorProfileSpec) -> Result<ExecutionProvider, Unsupported> {
    let provider = match profile.execution_provider {
        accelerator::ExecutionProvider::Cpu => ExecutionProvider::Cpu,
        accelerator::ExecutionProvider::Cuda => ExecutionProvider::Cuda,
        accelerator::ExecutionProvider::OpenVino => ExecutionProvider::OpenVino,
        other @ accelerator::ExecutionProvider::TensorRt => return Err(Unsupported::Provider(other)),
    };
    let options = profile.provider_options.keys().map(String::as_str);
    let unknown: Vec<&str> = options.filter(|name| !known(provider).contains(name)).collect();
    if !unknown.is_empty() {
        return Err(Unsupported::Options { provider, options: unknown.join(", ") });
    }
    match profile.provider_options.get(DEVICE_TYPE) {
        Some(device) if device != CPU_DEVICE => Err(Unsupported::OpenVinoDevice(device.clone())),
        _ => Ok(provider),
    }
}
