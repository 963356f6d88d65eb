//! The files of sentence-transformers beside a model: an input has them one after the other, with a zero byte between.
#![no_main]

use std::{fs, iter};

use libfuzzer_sys::fuzz_target;
use slm_convert::Checkpoint;
use slm_fuzz::{FOLDER, contain_panics, write};

const CONFIG: &[u8] = include_bytes!("../seeds/model/config.json");
const WEIGHTS: &[u8] = include_bytes!("../seeds/safetensors/model");
const FILES: [&str; 4] =
    ["modules.json", "sentence_bert_config.json", "config_sentence_transformers.json", "1_Pooling/config.json"];

fuzz_target!(init: contain_panics(), |bytes: &[u8]| {
    fs::create_dir_all(FOLDER.path().join("1_Pooling")).expect("a folder in the temporary folder");
    // All of them each time: what the input before left must not matter.
    let parts = bytes.splitn(FILES.len(), |&byte| byte == 0).chain(iter::repeat(&[][..]));
    let files: Vec<_> = FILES.into_iter().zip(parts).collect();
    let folder = write(&[&[("config.json", CONFIG), ("model.safetensors", WEIGHTS)], files.as_slice()].concat());
    // `modules.json` is read as the checkpoint is opened: it tells what the model is for.
    if let Ok(checkpoint) = Checkpoint::open(&folder) {
        let _ = checkpoint.embedding();
    }
});
