//! An archive, packed with gzip or not: nothing is written outside of its folder.
#![no_main]

use std::fs;

use libfuzzer_sys::fuzz_target;
use slm_fuzz::{FOLDER, contain_panics, write};

/// Bytes that an archive may unpack to.
const BYTES_MAX: u64 = 1 << 20;

fuzz_target!(init: contain_panics(), |bytes: &[u8]| {
    let is_gzip = bytes.starts_with(&[0x1f, 0x8b]);
    let archive = write(&[("archive", bytes)]).join("archive");
    let into = FOLDER.path().join("into");
    fs::create_dir(&into).expect("a folder");
    let _ = slm_artifacts::fuzzing::unpack(&archive, is_gzip, &into, BYTES_MAX);
    let mut beside: Vec<_> = fs::read_dir(FOLDER.path()).expect("a folder").flatten().map(|file| file.file_name()).collect();
    beside.sort();
    assert_eq!(beside, ["archive", "into"], "something was written outside of the archive's folder");
    assert_eq!(fs::read(&archive).expect("the archive"), bytes, "the archive itself was written to");
    fs::remove_dir_all(&into).expect("a folder that is ours is removed");
});
