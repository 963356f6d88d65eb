//! Packed adapters in files: what comes back is what was kept, or nothing.
#![allow(clippy::unwrap_used)] // helpers of tests say what they expect, as tests do

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
};

use slm_convert::{
    ModelConfig,
    graph::Precision,
    pack::{Key, PackedAdapter, pack},
    peft::Adapter,
};
use support::{base, parity};

fn packed(name: &str, config: &ModelConfig, precision: Precision, scale: f32) -> PackedAdapter {
    let adapter = Adapter::open(&parity().join("llama/adapters").join(name), config).unwrap();
    pack(&adapter, config, precision, scale).unwrap()
}

/// The only file of a folder.
fn file(dir: &Path) -> PathBuf {
    let files: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files[0].clone()
}

#[test]
fn what_is_kept_comes_back() {
    let config = base("llama");
    for precision in [Precision::F32, Precision::Int4] {
        for name in ["r4-all", "r8-attn", "patterns"] {
            let (dir, again) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            // The folder is made.
            let derived = dir.path().join("derived");
            let key = Key::new(&config, precision, 0.5);
            assert!(PackedAdapter::kept(&derived, &key, &config, precision).is_none());
            let packed = packed(name, &config, precision, 0.5);
            packed.keep(&derived, &key).unwrap();

            let kept = PackedAdapter::kept(&derived, &key, &config, precision).unwrap();
            assert!(kept.is_mapped() && !packed.is_mapped());
            assert_eq!((&kept.digest, kept.rank_max, kept.bytes()), (&packed.digest, packed.rank_max, packed.bytes()));
            assert_eq!(kept.target_modules, packed.target_modules);
            for group in 0..=8 {
                let rank = |adapter: &PackedAdapter| adapter.group(group).map(|adapter| adapter.rank());
                assert_eq!(rank(&kept), rank(&packed), "{name}, group {group}");
            }
            kept.keep(again.path(), &key).unwrap();
            assert_eq!(fs::read(file(&derived)).unwrap(), fs::read(file(again.path())).unwrap());
        }
    }
}

#[test]
fn what_was_kept_for_another_use_is_not_taken() {
    let (config, other, dir) = (base("llama"), base("smollm2"), tempfile::tempdir().unwrap());
    let key = Key::new(&config, Precision::Int4, 1.0);
    packed("r4-all", &config, Precision::Int4, 1.0).keep(dir.path(), &key).unwrap();
    let others = [(&config, Precision::Int4, 2.0), (&config, Precision::F32, 1.0), (&other, Precision::Int4, 1.0)];
    for (config, precision, scale) in others {
        let key = Key::new(config, precision, scale);
        assert!(PackedAdapter::kept(dir.path(), &key, config, precision).is_none());
        // Nor under its name.
        let own = file(dir.path());
        packed("r4-all", &base("llama"), precision, scale).keep(dir.path(), &key).unwrap();
        let new =
            fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).find(|path| *path != own).unwrap();
        fs::copy(&own, &new).unwrap();
        assert!(PackedAdapter::kept(dir.path(), &key, config, precision).is_none());
        fs::remove_file(new).unwrap();
    }
}

#[test]
fn what_is_damaged_is_nothing_and_can_be_kept_anew() {
    let (config, dir) = (base("llama"), tempfile::tempdir().unwrap());
    let (precision, key) = (Precision::Int4, Key::new(&config, Precision::Int4, 1.0));
    let packed = packed("r4-all", &config, precision, 1.0);
    packed.keep(dir.path(), &key).unwrap();
    let path = file(dir.path());
    let whole = fs::read(&path).unwrap();
    let kept = || PackedAdapter::kept(dir.path(), &key, &config, precision).is_some();
    for length in [0, 7, 8, 16, 40, 4096, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        assert!(!kept(), "cut to {length}");
    }
    fs::write(&path, [whole.as_slice(), &[0]].concat()).unwrap();
    assert!(!kept(), "a byte more");
    for position in [0, 7, 8, 15, 16, 60, 4095, 4096, whole.len() - 1] {
        let mut bytes = whole.clone();
        bytes[position] ^= 0x40;
        fs::write(&path, bytes).unwrap();
        assert!(!kept(), "another byte {position}");
    }
    packed.keep(dir.path(), &key).unwrap();
    assert!(kept() && fs::read(file(dir.path())).unwrap() == whole);
}

#[test]
fn where_nothing_can_be_kept_nothing_is_left() {
    let (config, dir) = (base("llama"), tempfile::tempdir().unwrap());
    let key = Key::new(&config, Precision::Int4, 1.0);
    let packed = packed("r4-all", &config, Precision::Int4, 1.0);
    // A file where the folder should be, and a folder where the file should be.
    let taken = dir.path().join("taken");
    fs::write(&taken, "").unwrap();
    assert!(packed.keep(&taken, &key).is_err());
    let derived = dir.path().join("derived");
    packed.keep(&derived, &key).unwrap();
    let path = file(&derived);
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(packed.keep(&derived, &key).is_err());
    assert_eq!(file(&derived), path, "what was written beside is gone");
    assert!(PackedAdapter::kept(&derived, &key, &config, Precision::Int4).is_none());
}
