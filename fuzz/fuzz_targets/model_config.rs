//! The `config.json` of a model whose safetensors file is good.
#![no_main]

use libfuzzer_sys::fuzz_target;
use slm_convert::Checkpoint;
use slm_fuzz::{contain_panics, read_all, write};

const WEIGHTS: &[u8] = include_bytes!("../seeds/safetensors/model");

fuzz_target!(init: contain_panics(), |bytes: &[u8]| {
    let folder = write(&[("config.json", bytes), ("model.safetensors", WEIGHTS)]);
    if let Ok(checkpoint) = Checkpoint::open(&folder) {
        read_all(&checkpoint);
    }
});
