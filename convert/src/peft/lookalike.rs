//! Diagnosis of a folder or file without an adapter: a description of what it is, and the remedy.

use std::path::Path;

use crate::listing::names;

/// Bound on folders to search.
const FOLDERS_MAX: usize = 256;

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
    let below: Vec<&String> =
        names.iter().take(FOLDERS_MAX).filter(|name| path.join(name).join("adapter_config.json").is_file()).collect();
    match below.as_slice() {
        [] => "this is no PEFT adapter folder".to_owned(),
        [only] => format!("the adapter is one folder deeper: name {}", path.join(only).display()),
        [first, second, ..] => {
            format!("adapters are in {} and {}: name one", path.join(first).display(), path.join(second).display())
        }
    }
}
