//! `tokens.yaml` of a guarded endpoint.
#![no_main]

use libfuzzer_sys::fuzz_target;
use slm_fuzz::contain_panics;

fuzz_target!(init: contain_panics(), |bytes: &[u8]| {
    if let Err(error) = slm_router::fuzzing::tokens(bytes) {
        assert!(error.line >= 1, "{error}");
    }
});
