//! Small files to break, and where the data lie.
#![allow(clippy::unwrap_used)] // helpers of tests say what they expect, as tests do
#![allow(dead_code, unreachable_pub)] // each test binary uses its own part of this module

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use slm_convert::Architecture;
use tempfile::TempDir;

/// The parity data of the repository.
pub fn parity() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/parity/data")
}

/// A file of `tests/fixtures`.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// The configuration of a family of the parity data.
pub fn base(family: &str) -> Architecture {
    slm_convert::Checkpoint::open(&parity().join(family)).unwrap().architecture().clone()
}

/// A copy of a folder's files that a test may break.
pub fn copy(folder: &Path) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::write(dir.path().join(path.file_name().unwrap()), std::fs::read(&path).unwrap()).unwrap();
        }
    }
    dir
}

/// Sets fields of a JSON file; null removes one.
pub fn edit(path: &Path, changes: &Value) {
    let mut map: serde_json::Map<String, Value> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    for (key, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(map.remove(key)),
            value => drop(map.insert(key.clone(), value.clone())),
        }
    }
    std::fs::write(path, serde_json::to_vec(&map).unwrap()).unwrap();
}

/// Cuts a file to its first `length` bytes.
pub fn cut(path: &Path, length: usize) {
    let bytes = std::fs::read(path).unwrap();
    std::fs::write(path, &bytes[..length]).unwrap();
}

/// Tensors of a safetensors file: type, shape, bytes.
pub type Tensors = BTreeMap<String, (String, Vec<usize>, Vec<u8>)>;

/// Reads a safetensors file, trusting it.
pub fn read_tensors(path: &Path) -> Tensors {
    let bytes = std::fs::read(path).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let (json, data) = bytes[8..].split_at(header);
    let entries: BTreeMap<String, Value> = serde_json::from_slice(json).unwrap();
    let read = |entry: &Value| {
        let at = |index: usize| entry["data_offsets"][index].as_u64().unwrap() as usize;
        let shape = entry["shape"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect();
        (entry["dtype"].as_str().unwrap().to_owned(), shape, data[at(0)..at(1)].to_vec())
    };
    entries
        .iter()
        .filter(|(name, _)| *name != "__metadata__")
        .map(|(name, entry)| (name.clone(), read(entry)))
        .collect()
}

/// Writes a safetensors file.
pub fn write_tensors(path: &Path, tensors: &Tensors) {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, (dtype, shape, bytes)) in tensors {
        let end = data.len() + bytes.len();
        header.insert(name.clone(), json!({"dtype": dtype, "shape": shape, "data_offsets": [data.len(), end]}));
        data.extend_from_slice(bytes);
    }
    write_raw(path, &Value::Object(header), &data);
}

/// Writes a header, right or wrong, and data after it.
pub fn write_raw(path: &Path, header: &Value, data: &[u8]) {
    let header = header.to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(data);
    std::fs::write(path, bytes).unwrap();
}

/// Reads, changes and writes a safetensors file.
pub fn edit_tensors(path: &Path, change: impl FnOnce(&mut Tensors)) {
    let mut tensors = read_tensors(path);
    change(&mut tensors);
    write_tensors(path, &tensors);
}

/// f32 values as bytes.
pub fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Bytes as f32 values.
pub fn values(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

/// Every word must be in the message.
pub fn assert_says(message: &str, words: &[&str]) {
    for word in words {
        assert!(message.contains(word), "{word:?} is not in: {message}");
    }
}
