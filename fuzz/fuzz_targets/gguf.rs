//! A GGUF file: header, metadata, tokenizer, template and tensors.
#![no_main]

use libfuzzer_sys::fuzz_target;
use slm_convert::Checkpoint;
use slm_fuzz::{contain_panics, read_all, write};

fuzz_target!(init: contain_panics(), |bytes: &[u8]| {
    let folder = write(&[("model.gguf", bytes)]);
    if let Ok(checkpoint) = Checkpoint::open(&folder.join("model.gguf")) {
        read_all(&checkpoint);
    }
});
