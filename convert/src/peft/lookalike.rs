//! Diagnosis of a folder or file without an adapter: a description of what it is, and the remedy.

use std::path::{Path, PathBuf};

use crate::listing::names;

/// Bounds on folders to search, and on the depth.
const FOLDERS_MAX: usize = 256;
const DEPTH_MAX: usize = 3;

pub(super) fn adapter(path: &Path) -> String {
    if !path.exists() {
        return "there is no such file or folder".to_owned();
    }
    if path.is_file() {
        return match path.extension().and_then(|extension| extension.to_str()) {
            Some("gguf") => "adapters in GGUF are not read: name the PEFT folder that it was made from",
            _ => "this is a file: name the folder with adapter_config.json and adapter_model.safetensors",
        }
        .to_owned();
    }
    let names = names(path);
    let has = |name: &str| names.iter().any(|found| found == name);
    if names.is_empty() {
        return "the folder is empty".to_owned();
    }
    if has("adapter_model.bin") {
        return "adapter_model.bin is pickled, which is not read: save the adapter with safe_serialization=True"
            .to_owned();
    }
    if has("config.json") || names.iter().any(|name| name.ends_with(".gguf")) {
        return "this is a model, not an adapter: name it as the source of an SlmModel".to_owned();
    }
    match deeper(path).as_slice() {
        [] => "this is not a PEFT adapter folder".to_owned(),
        [only] => format!("the adapter is a folder deeper: name {}", only.display()),
        [first, second, ..] => format!("adapters are in {} and {}: name one", first.display(), second.display()),
    }
}

/// Subfolders that contain an adapter, the nearest ones.
fn deeper(path: &Path) -> Vec<PathBuf> {
    let mut level = vec![path.to_owned()];
    for _ in 0..DEPTH_MAX {
        let below = level.iter().flat_map(|folder| names(folder).into_iter().map(|name| folder.join(name)));
        level = below.filter(|path| path.is_dir()).take(FOLDERS_MAX).collect();
        let found: Vec<PathBuf> =
            level.iter().filter(|path| path.join("adapter_config.json").is_file()).cloned().collect();
        if !found.is_empty() {
            return found;
        }
    }
    Vec::new()
}
