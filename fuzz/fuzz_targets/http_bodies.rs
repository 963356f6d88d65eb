//! Bodies of chat completions and completions, to what a worker is asked or a refusal in OpenAI's shape.
#![no_main]

use libfuzzer_sys::fuzz_target;
use slm_fuzz::contain_panics;

fuzz_target!(init: contain_panics(), |bytes: &[u8]| {
    let _ = slm_router::fuzzing::chat_completion(bytes);
    let _ = slm_router::fuzzing::completion(bytes);
});
