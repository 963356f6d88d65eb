//! OpenVINO, which is part of some builds of ONNX Runtime.
#![allow(unsafe_code)] // One call of ONNX Runtime's C interface; the block says why it is sound.

use std::ffi::CString;

use ort::{AsPointer, session::builder::SessionBuilder};

/// A kind of device that OpenVINO computes on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OpenVinoDevice {
    /// The host's processor.
    #[default]
    Cpu,
}

impl OpenVinoDevice {
    /// OpenVINO's name for it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Cpu => "CPU",
        }
    }
}

/// Options of the provider, names and values. It ignores some names that it does not know, so there are no others.
fn options(device: OpenVinoDevice, threads: usize) -> [(&'static str, String); 2] {
    let name = device.name();
    // Left to itself, it would compute with activations of 16 bits, or of 8 bits where weights have few.
    let properties = serde_json::json!({ name: {
        "INFERENCE_PRECISION_HINT": "f32",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
        "INFERENCE_NUM_THREADS": threads.max(1).to_string(),
    }});
    [("device_type", name.to_owned()), ("load_config", properties.to_string())]
}

/// Adds the provider to a session's options; an error is ONNX Runtime's message.
pub(super) fn append(builder: &mut SessionBuilder, device: OpenVinoDevice, threads: usize) -> ort::Result<()> {
    let string = |text: &str| CString::new(text).map_err(|error| ort::Error::new(error.to_string()));
    let (mut names, mut values) = (Vec::new(), Vec::new());
    for (name, value) in options(device, threads) {
        names.push(string(name)?);
        values.push(string(&value)?);
    }
    let pointers = |strings: &[CString]| strings.iter().map(|string| string.as_ptr()).collect::<Vec<_>>();
    let (name_pointers, value_pointers) = (pointers(&names), pointers(&values));
    // SAFETY: the options are alive and borrowed exclusively; the strings live until the end of this function, and ONNX Runtime
    // copies them.
    unsafe {
        let status = (ort::api().SessionOptionsAppendExecutionProvider_OpenVINO_V2)(
            builder.ptr_mut(),
            name_pointers.as_ptr(),
            value_pointers.as_ptr(),
            names.len(),
        );
        ort::Error::result_from_status(status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_name_the_device_and_ask_for_32_bits() {
        let [(device, name), (config, json)] = options(OpenVinoDevice::Cpu, 0);
        assert_eq!((device, name.as_str(), config), ("device_type", "CPU", "load_config"));
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["CPU"]["INFERENCE_PRECISION_HINT"], "f32");
        assert_eq!(json["CPU"]["INFERENCE_NUM_THREADS"], "1", "no thread is one too few");
    }
}
