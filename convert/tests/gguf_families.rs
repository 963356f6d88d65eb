//! GGUF files of every family, as llama.cpp's conversion makes them, beside the Hugging Face folders they are made from.
//!
//! By hand, with the folders `folders` and `files` that `tests/fixtures/make_gguf_families.py` makes:
//! `SLM_GGUF_FAMILIES=FOLDER cargo test -p slm-convert --test gguf_families -- --ignored`. What the metadata say is tested
//! without them, in `families/gguf/tests.rs`.
#![allow(clippy::unwrap_used)] // helpers of tests say what they expect, as tests do

mod support;

use std::path::{Path, PathBuf};

use slm_convert::Checkpoint;
use support::read_tensors;

#[test]
#[ignore = "needs converted models, see above"]
fn converted_models_have_the_tensors_of_the_models_that_they_are_made_from() {
    let made = PathBuf::from(std::env::var_os("SLM_GGUF_FAMILIES").expect("SLM_GGUF_FAMILIES names a folder"));
    let mut compared = 0;
    for entry in std::fs::read_dir(made.join("files")).unwrap() {
        let file = entry.unwrap().path();
        let folder = made.join("folders").join(file.file_stem().unwrap());
        compare(&Checkpoint::open(&file).unwrap(), &Checkpoint::open(&folder).unwrap(), &folder);
        compared += 1;
    }
    assert!(compared > 0, "no files to compare");
}

fn compare(gguf: &Checkpoint, folder: &Checkpoint, shown: &Path) {
    for name in read_tensors(&shown.join("model.safetensors")).into_keys() {
        let (found, expected) = (gguf.tensor(&name).unwrap(), folder.tensor(&name).unwrap());
        if name.ends_with("A_log") {
            // Stored as minus the exponentials.
            let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-6 * b.abs().max(1.0);
            assert!(found.data.iter().zip(&expected.data).all(close), "{}: {name}", shown.display());
            continue;
        }
        assert_eq!(found, expected, "{}: {name}", shown.display());
    }
}
