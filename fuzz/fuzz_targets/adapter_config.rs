//! `adapter_config.json` beside weights that are good.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use slm_convert::{Adapter, Architecture, Checkpoint};
use slm_fuzz::{contain_panics, write};

const CONFIG: &[u8] = include_bytes!("../seeds/model/config.json");
const MODEL: &[u8] = include_bytes!("../seeds/safetensors/model");
const WEIGHTS: &[u8] = include_bytes!("../seeds/model/adapter_model.safetensors");

static BASE: LazyLock<Architecture> = LazyLock::new(|| {
    let folder =
        write(&[("config.json", CONFIG), ("model.safetensors", MODEL), ("adapter_model.safetensors", WEIGHTS)]);
    Checkpoint::open(&folder).expect("the model of the seeds is good").architecture().clone()
});

fuzz_target!(init: contain_panics(), |bytes: &[u8]| {
    let base = &*BASE;
    let folder = write(&[("adapter_config.json", bytes)]);
    let _ = Adapter::open(&folder, base);
});
