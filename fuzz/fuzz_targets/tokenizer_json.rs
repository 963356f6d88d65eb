//! `tokenizer.json` of a model that is otherwise good: reading, encoding and decoding.
#![no_main]

use libfuzzer_sys::fuzz_target;
use slm_convert::Checkpoint;
use slm_fuzz::{contain_panics, read_all, write};

const CONFIG: &[u8] = include_bytes!("../seeds/model/config.json");
const MODEL: &[u8] = include_bytes!("../seeds/safetensors/model");

fuzz_target!(init: contain_panics(), |bytes: &[u8]| {
    let folder = write(&[("config.json", CONFIG), ("model.safetensors", MODEL), ("tokenizer.json", bytes)]);
    if let Ok(checkpoint) = Checkpoint::open(&folder) {
        read_all(&checkpoint);
    }
});
