//! Folders and files that are not what they seem: each says what it is and what to do, when it is read.
#![allow(clippy::unwrap_used)] // helpers of tests say what they expect, as tests do

mod support;

use std::fs;
use std::path::Path;

use serde_json::json;
use slm_convert::Checkpoint;
use support::{assert_says, copy, parity};
use tempfile::TempDir;

const POINTER: &str = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 60776\n";

fn refusal(path: &Path) -> String {
    Checkpoint::open(path).unwrap_err().to_string()
}

/// A folder with these files, each a few bytes of nothing.
fn folder(names: &[&str]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in names {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match *name {
            // That of a model which is served: only the weights are another's.
            "config.json" => {
                fs::copy(parity().join("llama/config.json"), path).unwrap();
            }
            _ => fs::write(path, "{}").unwrap(),
        }
    }
    dir
}

#[test]
fn folders_without_a_model_say_what_they_are() {
    let cases: [(&[&str], &[&str]); 19] = [
        (&[], &["the folder is empty"]),
        (&["adapter_config.json", "adapter_model.safetensors"], &["PEFT adapter", "LoraAdapter"]),
        (&["bundle.json", "graph.onnx"], &["converted already", "checkpoint"]),
        (&["a.gguf", "b.gguf"], &["2 .gguf files", "a.gguf", "name one"]),
        (&["config.json", "a.gguf", "b.gguf"], &["2 .gguf files", "name one"]),
        (&["m-00001-of-00002.gguf", "n-00001-of-00002.gguf"], &["parts of several models", "name one part"]),
        (&["config.json", "pytorch_model.bin"], &["pickled (pytorch_model.bin)", "safe_serialization=True"]),
        (&["config.json", "pytorch_model-00001-of-00002.bin"], &["pickled"]),
        (&["consolidated.00.pth", "params.json"], &["format of the model's makers"]),
        (&["config.json", "model-00001-of-00002.safetensors"], &["model.safetensors.index.json is not"]),
        (&["config.json", "weights.safetensors"], &["called weights.safetensors", "model.safetensors"]),
        (&["config.json", "onnx/model.onnx"], &["another tool (onnx)", "safetensors or GGUF"]),
        (&["model.onnx"], &["another tool (model.onnx)"]),
        (&["config.json", "tf_model.h5"], &["TensorFlow"]),
        (&["config.json", "tokenizer.json"], &["config.json is there", "weights are not"]),
        (&["model.safetensors"], &["model.safetensors is there", "config.json is not"]),
        (&["snapshots/abc/config.json", "snapshots/abc/model.safetensors"], &["folder deeper", "snapshots/abc"]),
        (&["a/m.gguf", "b/m.gguf"], &["models are in", "name one"]),
        (&["notes.txt", "README.md"], &["neither config.json nor a .gguf", "README.md, notes.txt"]),
    ];
    for (files, words) in cases {
        let dir = folder(files);
        let message = refusal(dir.path());
        assert_says(&message, &[&["no model here", dir.path().to_str().unwrap()], words].concat());
    }
}

#[test]
fn one_gguf_beside_config_json_is_the_model_and_beside_safetensors_is_said() {
    let only = folder(&["config.json", "mmproj-model.gguf"]);
    fs::copy(support::fixture("tiny.gguf"), only.path().join("m.gguf")).unwrap();
    assert!(Checkpoint::open(only.path()).is_ok());
    let both = copy(&parity().join("llama"));
    fs::write(both.path().join("m.gguf"), "GGUF").unwrap();
    let notes = Checkpoint::open(both.path()).unwrap().notes().join("\n");
    assert_says(&notes, &["safetensors are served", "m.gguf"]);
}

#[test]
fn files_that_are_no_model_say_what_they_are() {
    let dir = folder(&["model.safetensors", "model.onnx", "pytorch_model.bin", "m.tar.gz"]);
    let cases = [
        ("model.safetensors", "name the folder"),
        ("model.onnx", "ONNX graph"),
        ("pytorch_model.bin", "pickled"),
        ("m.tar.gz", "archive"),
    ];
    for (name, word) in cases {
        assert_says(&refusal(&dir.path().join(name)), &[name, word]);
    }
}

#[test]
fn pointers_and_web_pages_are_told_for_every_file() {
    for name in ["model.safetensors", "config.json", "tokenizer.json", "generation_config.json", "chat_template.jinja"]
    {
        let dir = copy(&parity().join("llama"));
        fs::write(dir.path().join(name), POINTER).unwrap();
        assert_says(&refusal(dir.path()), &[name, "Git LFS pointer", "git lfs pull"]);
        fs::write(dir.path().join(name), "<!DOCTYPE html><html>").unwrap();
        assert_says(&refusal(dir.path()), &[name, "web page"]);
    }
    let dir = tempfile::tempdir().unwrap();
    for name in ["model.gguf", "model.bin", "blob"] {
        let file = dir.path().join(name);
        fs::write(&file, POINTER).unwrap();
        assert_says(&refusal(&file), &[name, "Git LFS pointer"]);
    }
}

#[test]
fn a_tokenizer_in_another_form_is_refused_and_none_at_all_is_said() {
    let dir = copy(&parity().join("llama"));
    assert_says(&Checkpoint::open(dir.path()).unwrap().notes().join("\n"), &["tokenizer.json", "token ids"]);
    for name in ["tokenizer.model", "vocab.json"] {
        let dir = copy(&parity().join("llama"));
        fs::write(dir.path().join(name), "x").unwrap();
        assert_says(&refusal(dir.path()), &["tokenizer.json is missing", name, "save_pretrained"]);
        fs::write(dir.path().join(name), POINTER).unwrap();
        assert_says(&refusal(dir.path()), &[name, "Git LFS pointer", "git lfs pull"]);
    }
}

#[test]
fn every_file_that_names_an_end_is_believed() {
    let dir = copy(&parity().join("llama"));
    let added = |id: u32, text: &str, special: bool| json!({"id": id, "content": text, "special": special});
    let tokenizer = json!({
        "added_tokens": [added(2, "</s>", true), added(9, "<|im_end|>", true), added(10, "<|end|>", false),
            added(12, "<tool>", false)],
        "model": {"vocab": {"stop": 11}},
    });
    fs::write(dir.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let ends = |config: &serde_json::Value| {
        fs::write(dir.path().join("tokenizer_config.json"), config.to_string()).unwrap();
        let model = Checkpoint::open(dir.path()).unwrap();
        let ends = model.generation().ends.iter().map(|end| format!("{} {}", end.id, end.token)).collect::<Vec<_>>();
        (ends, model.notes().join("\n"))
    };
    let known = vec!["2 </s>".to_owned(), "9 <|im_end|>".to_owned(), "10 <|end|>".to_owned()];
    assert_eq!(ends(&json!({})).0, known, "config.json, and the well-known ones, marked as control tokens or not");
    assert_eq!(ends(&json!({"eos_token": {"content": "<|im_end|>"}})).0, known);
    assert_eq!(ends(&json!({"eos_token": "stop"})).0, ["2 </s>", "11 stop", "9 <|im_end|>", "10 <|end|>"]);
    let (all, notes) = ends(&json!({"eos_token": "<nothing>"}));
    assert_eq!(all, known);
    assert_says(&notes, &["<nothing>", "tokenizer_config.json", "ignored"]);
}

#[test]
fn tokens_that_only_the_configuration_declares_are_tokens() {
    let dir = copy(&parity().join("llama"));
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "pre_tokenizer": null,
        "post_processor": null, "decoder": null, "added_tokens": [],
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": {"a": 0, "<s>": 1, "</s>": 2, "<|im_end|>": 3}, "merges": []},
    });
    fs::write(dir.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let read = || {
        let model = Checkpoint::open(dir.path()).unwrap();
        let ids = model.tokenizer().unwrap().unwrap().encode("a<|im_end|>", false).unwrap().get_ids().to_vec();
        (ids, model.generation().eos_token_ids.clone(), model.notes().join("\n"))
    };
    assert_eq!((read().0, read().1), (vec![0], vec![2]));
    let decoder = json!({"3": {"content": "<|im_end|>", "special": true}, "4": {"content": "<far>", "special": true},
        "900": {"content": "<beyond>", "special": true}});
    fs::write(dir.path().join("tokenizer_config.json"), json!({"added_tokens_decoder": decoder}).to_string()).unwrap();
    let (ids, ends, notes) = read();
    assert_eq!((ids, ends), (vec![0, 3], vec![2, 3]));
    assert_says(&notes, &["<beyond>", "900", "ignored"]);
    fs::write(dir.path().join("tokenizer_config.json"), "{}").unwrap();
    fs::write(dir.path().join("added_tokens.json"), json!({"<|im_end|>": 3}).to_string()).unwrap();
    assert_eq!((read().0, read().1), (vec![0, 3], vec![2, 3]));
    fs::remove_file(dir.path().join("added_tokens.json")).unwrap();
    fs::write(dir.path().join("chat_template.jinja"), "{{ messages[0].content }}<|im_end|>").unwrap();
    assert_eq!((read().0, read().1), (vec![0, 3], vec![2, 3]), "the template writes it, and the vocabulary has it");
}

#[test]
fn a_template_that_serves_nobody_and_numbers_of_python_are_said_when_the_model_is_opened() {
    let dir = copy(&parity().join("llama"));
    fs::write(dir.path().join("chat_template.jinja"), "{{ messages | nosuch }}").unwrap();
    fs::write(dir.path().join("generation_config.json"), r#"{"temperature": NaN, "top_p": Infinity, "top_k": 5}"#)
        .unwrap();
    let model = Checkpoint::open(dir.path()).unwrap();
    assert_eq!((model.generation().temperature, model.generation().top_k), (None, Some(5)));
    let notes = model.notes().join("\n");
    assert_says(&notes, &["nosuch", "temperature", "NaN", "top_p", "Infinity", "out of range"]);
}

#[cfg(unix)]
#[test]
fn links_to_nothing_and_folders_are_no_files() {
    for name in ["config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"] {
        let dir = copy(&parity().join("llama"));
        let path = dir.path().join(name);
        let _ = fs::remove_file(&path);
        std::os::unix::fs::symlink("../../blobs/4d7a", &path).unwrap();
        assert_says(&refusal(dir.path()), &[name, "../../blobs/4d7a", "not there"]);
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert_says(&refusal(dir.path()), &[name, "a folder, not a file"]);
    }
    let dir = copy(&parity().join("llama"));
    fs::write(dir.path().join("config.json"), r#"{"error": "Invalid username or password."}"#).unwrap();
    assert_says(&refusal(dir.path()), &["config.json", "answer of a server", "Invalid username"]);
}
