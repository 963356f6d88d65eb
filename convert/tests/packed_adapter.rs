//! Packed adapters in files: what comes back is what was kept, or nothing.
#![allow(clippy::unwrap_used)] // helpers of tests say what they expect, as tests do

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
};

use slm_convert::{
    Architecture,
    graph::Precision,
    pack::{Key, PackedAdapter, pack},
    peft::Adapter,
};
use support::{base, parity};

const ARTIFACT: &str = "sha256:00";

fn packed(name: &str, base: &Architecture, precision: Precision, scale: f32) -> PackedAdapter {
    let adapter = Adapter::open(&parity().join("llama/adapters").join(name), base).unwrap();
    pack(&adapter, base, precision, scale).unwrap()
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
            let key = Key::new(ARTIFACT, &config, precision, 0.5);
            assert!(PackedAdapter::kept(&derived, &key, &config, precision).is_none());
            let packed = packed(name, &config, precision, 0.5);
            packed.keep(&derived, &key).unwrap();

            let kept = PackedAdapter::kept(&derived, &key, &config, precision).unwrap();
            assert!(kept.is_mapped() && !packed.is_mapped());
            assert_eq!((&kept.digest, kept.rank_max, kept.bytes()), (&packed.digest, packed.rank_max, packed.bytes()));
            assert_eq!(kept.target_modules, packed.target_modules);
            for group in 0..=8 {
                let rank = |adapter: &PackedAdapter| adapter.projection(group).map(|adapter| adapter.rank());
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
    let key = Key::new(ARTIFACT, &config, Precision::Int4, 1.0);
    packed("r4-all", &config, Precision::Int4, 1.0).keep(dir.path(), &key).unwrap();
    let others = [(&config, Precision::Int4, 2.0), (&config, Precision::F32, 1.0), (&other, Precision::Int4, 1.0)];
    for (config, precision, scale) in others {
        let key = Key::new(ARTIFACT, config, precision, scale);
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
    let (precision, key) = (Precision::Int4, Key::new(ARTIFACT, &config, Precision::Int4, 1.0));
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
    let key = Key::new(ARTIFACT, &config, Precision::Int4, 1.0);
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

#[test]
fn what_was_made_of_another_artifact_is_not_taken() {
    let (config, dir) = (base("llama"), tempfile::tempdir().unwrap());
    let (ours, theirs) = (Key::new("a", &config, Precision::Int4, 1.0), Key::new("b", &config, Precision::Int4, 1.0));
    packed("r4-all", &config, Precision::Int4, 1.0).keep(dir.path(), &theirs).unwrap();
    assert!(PackedAdapter::kept(dir.path(), &ours, &config, Precision::Int4).is_none());
    let own = file(dir.path());
    packed("r4-all", &config, Precision::Int4, 1.0).keep(dir.path(), &ours).unwrap();
    let other = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).find(|path| *path != own).unwrap();
    fs::copy(&own, other).unwrap();
    assert!(PackedAdapter::kept(dir.path(), &ours, &config, Precision::Int4).is_none(), "nor under its name");
}

#[test]
fn what_everybody_may_write_is_not_taken() {
    use std::os::unix::fs::PermissionsExt as _;
    let (config, dir) = (base("llama"), tempfile::tempdir().unwrap());
    let key = Key::new(ARTIFACT, &config, Precision::Int4, 1.0);
    packed("r4-all", &config, Precision::Int4, 1.0).keep(dir.path(), &key).unwrap();
    for (mode, taken) in [(0o644, true), (0o664, true), (0o646, false), (0o600, true)] {
        fs::set_permissions(file(dir.path()), fs::Permissions::from_mode(mode)).unwrap();
        let kept = PackedAdapter::kept(dir.path(), &key, &config, Precision::Int4);
        assert_eq!(kept.is_some(), taken, "{mode:o}");
    }
}

/// A file as somebody would write it who knows the format: with the right sum.
fn forged(whole: &[u8], change: impl FnOnce(&mut serde_json::Value), matrices: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let length = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let mut header: serde_json::Value = serde_json::from_slice(&whole[16..16 + length]).unwrap();
    change(&mut header);
    let header = serde_json::to_vec(&header).unwrap();
    let mut tail = whole[(16 + length).next_multiple_of(4096)..].to_vec();
    matrices(&mut tail);
    let mut forged = [&(header.len() as u64).to_le_bytes()[..], &[0; 8], &header].concat();
    forged.resize(forged.len().next_multiple_of(4096), 0);
    forged.extend(tail);
    let sum = u64::from(crc32fast::hash(&forged[16..]));
    forged[8..16].copy_from_slice(&sum.to_le_bytes());
    forged
}

#[test]
fn a_file_that_contradicts_itself_is_nothing_whatever_its_sum() {
    let (config, dir) = (base("llama"), tempfile::tempdir().unwrap());
    for precision in [Precision::Int4, Precision::F32] {
        let key = Key::new(ARTIFACT, &config, precision, 1.0);
        packed("r4-all", &config, precision, 1.0).keep(dir.path(), &key).unwrap();
        let path = file(dir.path());
        let whole = fs::read(&path).unwrap();
        let kept = |bytes: Vec<u8>| {
            fs::write(&path, bytes).unwrap();
            PackedAdapter::kept(dir.path(), &key, &config, precision).is_some()
        };
        assert!(kept(forged(&whole, |_| (), |_| ())), "the same again");
        let rank = |rank: u64| move |header: &mut serde_json::Value| header["ranks"][0][2] = rank.into();
        let max = |max: u64| move |header: &mut serde_json::Value| header["rank_max"] = max.into();
        for huge in [0, 5, 1 << 20, 1 << 40, 1 << 61, u64::MAX / 64, u64::MAX] {
            assert!(!kept(forged(&whole, rank(huge), |_| ())), "rank {huge}");
            assert!(!kept(forged(&whole, max(huge), |_| ())), "rank_max {huge}");
            let both = |header: &mut serde_json::Value| {
                rank(huge)(header);
                max(huge)(header);
            };
            assert!(!kept(forged(&whole, both, |_| ())), "both {huge}");
        }
        for (field, value) in
            [("layer", (0, 99_u64)), ("layer", (0, u64::MAX)), ("module", (1, 7)), ("module", (1, 99))]
        {
            let change = |header: &mut serde_json::Value| header["ranks"][0][value.0] = value.1.into();
            assert!(!kept(forged(&whole, change, |_| ())), "{field} {}", value.1);
        }
        let twice = |header: &mut serde_json::Value| header["ranks"][1] = header["ranks"][0].clone();
        assert!(!kept(forged(&whole, twice, |_| ())));
        let fewer = |header: &mut serde_json::Value| drop(header["ranks"].as_array_mut().unwrap().pop());
        assert!(!kept(forged(&whole, fewer, |_| ())));
        let modules = |header: &mut serde_json::Value| header["target_modules"] = serde_json::json!(["q_proj"]);
        assert!(!kept(forged(&whole, modules, |_| ())));
        // The first bytes are a scale, in 32 bits a weight; NaN in both.
        assert!(!kept(forged(&whole, |_| (), |matrices| matrices[..4].fill(0xff))));
        // Scales of B are the last that is written.
        let infinite = |matrices: &mut [u8]| {
            let words = matrices.as_chunks_mut::<4>().0;
            let last = words.iter_mut().rfind(|word| **word != [0; 4]).unwrap();
            *last = f32::INFINITY.to_le_bytes();
        };
        assert!(!kept(forged(&whole, |_| (), infinite)));
        fs::remove_file(&path).unwrap();
    }
}
