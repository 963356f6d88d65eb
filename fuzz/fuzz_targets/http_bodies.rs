//! Bodies of every API that takes JSON, to what a worker is asked or a refusal.
#![no_main]

use libfuzzer_sys::fuzz_target;
use slm_fuzz::contain_panics;

fuzz_target!(init: contain_panics(), |bytes: &[u8]| {
    let _ = slm_router::fuzzing::json_bodies(bytes);
});
