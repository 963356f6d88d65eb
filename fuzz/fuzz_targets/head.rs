//! `head.json` beside matrices that are good, and matrices beside a good `head.json`: the first byte says which.
#![no_main]

use libfuzzer_sys::fuzz_target;
use slm_fuzz::{contain_panics, write};
use slm_head::Head;

const CONFIG: &[u8] = include_bytes!("../seeds/head/head.json");
const WEIGHTS: &[u8] = include_bytes!("../seeds/head/head.safetensors");

fuzz_target!(init: contain_panics(), |bytes: &[u8]| {
    let Some((which, bytes)) = bytes.split_first() else { return };
    let (config, weights) = if which % 2 == 0 { (bytes, WEIGHTS) } else { (CONFIG, bytes) };
    let folder = write(&[("head.json", config), ("head.safetensors", weights)]);
    if let Ok(head) = Head::open(&folder) {
        let _ = head.classify(&vec![0.5; head.encoder().width]);
    }
});
