//! Checks of accelerators: devices, drivers and libraries of each execution provider.

use slm_launch::size;
use slm_worker::runtime::{OpenVinoDevice, Provider, ProviderError, Runtime};

use super::Check;

const CUDA: &str = "nvidia-cuda";
const OPENVINO: &str = "intel-openvino-cpu";

/// NVIDIA GPUs. A machine without one is as good as any; one with a GPU that cannot be used is worth a warning.
pub(super) fn cuda() -> Check {
    of(CUDA, Provider::Cuda(0))
}

/// OpenVINO on the processor, which is part of some builds of ONNX Runtime.
pub(super) fn openvino() -> Check {
    of(OPENVINO, Provider::OpenVino { device: OpenVinoDevice::Cpu })
}

fn of(name: &'static str, provider: Provider) -> Check {
    match Runtime::load() {
        Ok(runtime) => told(name, provider.devices(&runtime)),
        // The check of ONNX Runtime says why.
        Err(_) => Check::absent(name, "unknown without ONNX Runtime", ""),
    }
}

fn told(name: &'static str, devices: Result<Vec<(String, Option<u64>)>, ProviderError>) -> Check {
    let error = match devices {
        Ok(devices) => {
            let devices: Vec<String> = devices.iter().map(|(device, bytes)| device_text(device, *bytes)).collect();
            return Check::ok(name, devices.join(", "));
        }
        Err(error) => error,
    };
    let message = error.to_string();
    let (found, remedy) = message.split_once("; ").unwrap_or((&message, "see docs/accelerators.md"));
    match error {
        ProviderError::NoDriver | ProviderError::NoOpenVino { .. } => Check::absent(name, found, remedy),
        _ => Check::warn(name, found, remedy),
    }
}

fn device_text(device: &str, bytes: Option<u64>) -> String {
    bytes.map_or_else(|| device.to_owned(), |bytes| format!("{device}, {}", size(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn a_device_is_named_with_its_memory() {
        let check = told(CUDA, Ok(vec![("NVIDIA H100".to_owned(), Some(80 << 30)), ("CPU".to_owned(), None)]));
        assert_eq!((check.verdict, check.found.as_str()), (Verdict::Ok, "NVIDIA H100, 80.0 GiB, CPU"));
    }

    #[test]
    fn no_gpu_is_well_and_one_that_cannot_be_used_is_not() {
        let none = told(CUDA, Err(ProviderError::NoDriver));
        assert_eq!(none.verdict, Verdict::Ok);
        assert!(none.found.starts_with("no NVIDIA driver") && none.remedy.contains("install the driver"), "{none:?}");
        let old = told(CUDA, Err(ProviderError::OldDriver { found: "12.4".to_owned() }));
        assert_eq!(old.verdict, Verdict::Warn);
        assert!(old.found.contains("CUDA 12.4") && old.remedy.contains("580"), "{old:?}");
    }
}
