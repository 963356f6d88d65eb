//! Diagnosis of a folder or file without a model: a description of what it is, and the remedy.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::listing::{self, names};

/// Bound on folders to search, and on the depth.
const FOLDERS_MAX: usize = 256;
const DEPTH_MAX: usize = 3;
/// Bound on names to list when nothing is recognised.
const LISTED: usize = 5;
const CONFIG_BYTES_MAX: u64 = 4 << 20;

/// Tokenizer files in unsupported formats.
const OTHER_TOKENIZERS: [&str; 5] = ["tokenizer.model", "spiece.model", "vocab.json", "vocab.txt", "tekken.json"];

/// Another tokenizer file in a folder without `tokenizer.json`.
pub(super) fn other_tokenizer(path: &Path) -> Option<&'static str> {
    OTHER_TOKENIZERS.into_iter().find(|name| path.join(name).is_file())
}

/// Diagnosis of a file that is not GGUF, by its name.
pub(super) fn file(path: &Path) -> Option<&'static str> {
    Some(match path.extension().and_then(OsStr::to_str)? {
        "safetensors" | "json" => "this is one file of a Hugging Face folder: name the folder",
        "onnx" => "this is an ONNX graph, and graphs of other tools are not read",
        "bin" | "pt" | "pth" | "ckpt" => "these are pickled weights, which are not read",
        "zip" | "gz" | "tgz" | "tar" | "xz" | "zst" => "this is an archive: unpack it and name the folder",
        _ => return None,
    })
}

/// Diagnosis of a folder.
pub(super) fn folder(path: &Path) -> String {
    let names = names(path);
    let has = |name: &str| names.iter().any(|found| found == name);
    let with = |ending: &str| names.iter().find(|name| name.ends_with(ending)).cloned();
    if names.is_empty() {
        return "the folder is empty".to_owned();
    }
    // Links whose targets are gone, and folders under the names of files.
    let is_part = |name: &&String| *name == "config.json" || name.ends_with(".safetensors") || name.ends_with(".gguf");
    if let Some((name, problem)) =
        names.iter().filter(is_part).find_map(|name| Some((name, listing::obstacle(&path.join(name))?)))
    {
        return format!("{name}: {problem}");
    }
    if has("adapter_config.json") {
        return format!("this is a PEFT adapter: name it as the source of a LoraAdapter{}", trained_on(path));
    }
    if has("bundle.json") {
        return "this is a model that was converted already: name the checkpoint that it was made from".to_owned();
    }
    let ggufs: Vec<&String> = names.iter().filter(|name| name.ends_with(".gguf")).collect();
    if let [first, second, ..] = ggufs.as_slice() {
        if first.contains("-of-") {
            return format!("parts of several models are there ({first}, {second}, …): name one part of the model");
        }
        return format!("{} .gguf files are there ({first}, {second}, …): name one of them", ggufs.len());
    }
    if let Some(other) = other_weights(&names, has("config.json")) {
        return other;
    }
    match deeper(path).as_slice() {
        [] => {}
        [only] => return format!("the model is a folder deeper: name {}", only.display()),
        [first, second, ..] => {
            return format!("models are in {} and {}: name one", first.display(), second.display());
        }
    }
    if has("config.json") {
        return "config.json is there, its weights are not: fetch them too".to_owned();
    }
    if let Some(weights) = with(".safetensors") {
        return format!("{weights} is there, config.json is not: fetch it too");
    }
    let more = if names.len() > LISTED { ", …" } else { "" };
    format!(
        "neither config.json nor a .gguf file is there; there is {}{more}",
        names[..names.len().min(LISTED)].join(", ")
    )
}

/// Weights in an unsupported format or under another name.
fn other_weights(names: &[String], config: bool) -> Option<String> {
    let find = |test: &dyn Fn(&str) -> bool| names.iter().find(|name| test(name.as_str()));
    if names.iter().any(|name| name == "params.json") && find(&|name| name.starts_with("consolidated")).is_some() {
        return Some("this is the format of the model's makers (params.json, consolidated weights), which is not read: fetch the model in the format of Hugging Face".to_owned());
    }
    if config {
        if let Some(shard) = find(&|name| name.ends_with(".safetensors") && name.contains("-of-")) {
            return Some(format!("{shard} is there, model.safetensors.index.json is not: fetch it too"));
        }
        if let Some(other) = find(&|name| name.ends_with(".safetensors") && !name.starts_with("adapter_model")) {
            return Some(format!("the weights are called {other}: name the file model.safetensors"));
        }
    }
    if let Some(partial) = find(&|name| name.ends_with(".incomplete") || name.ends_with(".part")) {
        return Some(format!("{partial} was not fetched to its end: fetch it again"));
    }
    let pickled = |name: &str| {
        name.ends_with(".pt") || name.ends_with(".pth") || (name.ends_with(".bin") && name.contains("model"))
    };
    if let Some(pickled) = find(&pickled) {
        return Some(format!(
            "the weights are pickled ({pickled}), which is not read: save the model with transformers' \
             save_pretrained(DIR, safe_serialization=True), or fetch it as safetensors or GGUF"
        ));
    }
    if let Some(other) = find(&|name| name == "tf_model.h5" || name == "flax_model.msgpack") {
        return Some(format!(
            "the weights are of TensorFlow or Flax ({other}): fetch the model as safetensors or GGUF"
        ));
    }
    let onnx = find(&|name| name.ends_with(".onnx") || name == "onnx" || name == "openvino_model.xml")?;
    Some(format!("the model is a graph of another tool ({onnx}), which is not read: fetch it as safetensors or GGUF"))
}

/// Subfolders that contain a model.
fn deeper(path: &Path) -> Vec<PathBuf> {
    let is_model = |path: &Path| {
        let names = names(path);
        let has = |ending: &str| names.iter().any(|name| name.ends_with(ending));
        has(".gguf") || (has("config.json") && has(".safetensors") && !has("adapter_config.json"))
    };
    let mut found = Vec::new();
    let (mut level, mut seen) = (vec![path.to_owned()], 0);
    for _ in 0..DEPTH_MAX {
        let mut next = Vec::new();
        for folder in &level {
            let below = names(folder).into_iter().map(|name| folder.join(name)).filter(|path| path.is_dir());
            next.extend(below.take(FOLDERS_MAX - seen.min(FOLDERS_MAX)));
            seen += next.len();
        }
        found.extend(next.iter().filter(|path| is_model(path)).cloned());
        if !found.is_empty() {
            break;
        }
        level = next;
    }
    found
}

fn trained_on(path: &Path) -> String {
    let config = crate::mapped::read(&path.join("adapter_config.json"), CONFIG_BYTES_MAX).ok();
    let config: Option<Value> = config.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let base = config.as_ref().and_then(|config| config["base_model_name_or_path"].as_str());
    base.map_or_else(String::new, |base| format!(", on the model that it was trained on ({base})"))
}
