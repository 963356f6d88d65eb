//! Bodies of the Open Inference Protocol's `/infer`: JSON alone, or with binary tensors behind it. The first two bytes of
//! an input are the length of its JSON; 65,535 stands for JSON alone.
#![no_main]

use libfuzzer_sys::fuzz_target;
use slm_fuzz::contain_panics;

fuzz_target!(init: contain_panics(), |bytes: &[u8]| {
    let Some((length, body)) = bytes.split_first_chunk() else { return };
    let length = u16::from_le_bytes(*length);
    let _ = slm_router::fuzzing::tensors(body, (length != u16::MAX).then_some(usize::from(length)));
});
