//! Labelled texts, as JSON lines or as CSV: the first byte says which.
#![no_main]

use libfuzzer_sys::fuzz_target;
use slm_fuzz::{contain_panics, write};
use slm_head::Data;

fuzz_target!(init: contain_panics(), |bytes: &[u8]| {
    let Some((which, bytes)) = bytes.split_first() else { return };
    let name = if which % 2 == 0 { "texts.jsonl" } else { "texts.csv" };
    let folder = write(&[(name, bytes)]);
    let _ = Data::read(&folder.join(name));
});
