//! A safetensors file of a quantised model: a line with `quantization_config`, then the file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use slm_convert::Checkpoint;
use slm_fuzz::{contain_panics, read_all, write};

const CONFIG: &str = include_str!("../seeds/model/config.json");

fuzz_target!(init: contain_panics(), |bytes: &[u8]| {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else { return };
    let (settings, file) = (&bytes[..end], &bytes[end + 1..]);
    let Some(rest) = CONFIG.strip_prefix('{') else { return };
    let config = [b"{\"quantization_config\":", settings, b",", rest.as_bytes()].concat();
    let folder = write(&[("config.json", &config), ("model.safetensors", file)]);
    if let Ok(checkpoint) = Checkpoint::open(&folder) {
        read_all(&checkpoint);
    }
});
