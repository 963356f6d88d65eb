//! GGUF files: the model in them, and what each kind of damage is called.
#![allow(clippy::unwrap_used)] // helpers of tests say what they expect, as tests do

mod support;

use std::path::Path;

use slm_convert::Checkpoint;
use slm_convert::architecture::Mixer;
use slm_convert::chat::ChatMessage;
use slm_convert::graph::{self, Flavour, Precision};
use support::{assert_says, fixture, read_tensors, values};

fn refusal(path: &Path) -> String {
    Checkpoint::open(path).unwrap_err().to_string()
}

/// Writes a changed copy of the small model and opens it.
fn changed(change: impl FnOnce(&mut Vec<u8>)) -> String {
    let (_dir, path) = edited(change);
    refusal(&path)
}

/// Writes a changed copy of the small model.
fn edited(change: impl FnOnce(&mut Vec<u8>)) -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = std::fs::read(fixture("tiny.gguf")).unwrap();
    change(&mut bytes);
    let path = dir.path().join("m.gguf");
    std::fs::write(&path, bytes).unwrap();
    (dir, path)
}

/// Offset of a metadata key or tensor name, at its length.
fn at(bytes: &[u8], name: &str) -> usize {
    let mut needle = (name.len() as u64).to_le_bytes().to_vec();
    needle.extend_from_slice(name.as_bytes());
    bytes.windows(needle.len()).position(|window| window == needle).unwrap()
}

/// Overwrites what follows a name, `skip` bytes after it.
fn put(bytes: &mut [u8], name: &str, skip: usize, value: &[u8]) {
    let from = at(bytes, name) + 8 + name.len() + skip;
    bytes[from..from + value.len()].copy_from_slice(value);
}

#[test]
fn weights_come_under_hugging_face_names_and_in_its_row_order() {
    let model = Checkpoint::open(&fixture("tiny.gguf")).unwrap();
    let architecture = model.architecture();
    let attention = architecture.layers[0].attention().unwrap();
    let heads = (attention.heads, attention.kv_heads, attention.head_dim);
    assert_eq!((architecture.hidden_size, heads), (32, (4, 2, 8)));
    assert!(architecture.head.tied && architecture.vocab_size == 264);
    for (name, (_, shape, bytes)) in read_tensors(&fixture("tiny.safetensors")) {
        let tensor = model.tensor(&name).unwrap();
        assert_eq!((tensor.shape, tensor.data), (shape, values(&bytes)), "{name}");
    }
    let bits = |name: &str| model.native_bits(&format!("model.layers.0.{name}.weight"));
    assert_eq!((bits("self_attn.q_proj"), bits("mlp.up_proj"), bits("mlp.gate_proj")), (Some(4), Some(5), None));
    assert_eq!(model.native_bits("lm_head.weight"), Some(8), "tied to the embedding");
    assert_says(&model.tensor("model.layers.1.mlp.up_proj.weight").unwrap_err().to_string(), &["layers.1", "missing"]);
}

#[test]
fn queries_keys_and_values_may_be_rows_of_one_tensor() {
    let model = Checkpoint::open(&fixture("fused.gguf")).unwrap();
    let whole = Checkpoint::open(&fixture("tiny.gguf")).unwrap();
    let mut expected = whole.architecture().clone();
    let Mixer::Attention(attention) = &mut expected.layers[0].mixer else { panic!("its layers attend") };
    attention.qkv.iter_mut().for_each(|linear| linear.bias = true);
    assert_eq!(*model.architecture(), expected);
    for (name, (_, shape, bytes)) in read_tensors(&fixture("tiny.safetensors")) {
        let tensor = model.tensor(&name).unwrap();
        assert_eq!((tensor.shape, tensor.data), (shape, values(&bytes)), "{name}");
    }
    let bias = |name: &str| model.tensor(&format!("model.layers.0.self_attn.{name}_proj.bias")).unwrap().data;
    // Rows of queries and keys are stored with the halves of a rotation side by side.
    assert_eq!(bias("q")[..8], [0., 2., 4., 6., 1., 3., 5., 7.]);
    assert_eq!(bias("k")[..8], [32., 34., 36., 38., 33., 35., 37., 39.]);
    assert_eq!(bias("v"), (48..64).map(|row| row as f32).collect::<Vec<_>>());
}

#[test]
fn experts_are_matrices_of_one_tensor() {
    let model = Checkpoint::open(&fixture("experts.gguf")).unwrap();
    let experts = model.architecture().layers[0].feed_forward.experts.as_ref().unwrap();
    assert_eq!((experts.count, experts.used, experts.normalized), (3, 2, true));
    let expected = read_tensors(&fixture("experts.safetensors"));
    assert_eq!(expected.len(), 11 + 3 * 3);
    for (name, (_, shape, bytes)) in expected {
        let tensor = model.tensor(&name).unwrap();
        assert_eq!((tensor.shape, tensor.data), (shape, values(&bytes)), "{name}");
    }
    let dir = tempfile::tempdir().unwrap();
    graph::build(&model, Flavour::paged(Precision::Int4), dir.path(), &mut |_, _| ()).unwrap();
    let graph = std::fs::read(dir.path().join("model.onnx")).unwrap();
    let holds = |text: &[u8]| graph.windows(text.len()).any(|window| window == text);
    assert!(holds(b"q4_scale32") && holds(b"q8_scale32") && !holds(b"q4_min32"), "as the file has them");

    let mut file = std::fs::read(fixture("experts.gguf")).unwrap();
    let name = b"blk.0.ffn_up_exps.weight";
    let at = file.windows(name.len()).position(|window| window == name).unwrap();
    // Behind the name and the number of dimensions: inputs, outputs, experts.
    file[at + name.len() + 4 + 16] = 2;
    let path = dir.path().join("fewer.gguf");
    std::fs::write(&path, file).unwrap();
    assert_says(&refusal(&path), &["blk.0.ffn_up_exps.weight", "[2, 64, 32]", "[3, 64, 32]"]);
}

#[test]
fn a_folder_with_one_file_is_that_file() {
    let dir = tempfile::tempdir().unwrap();
    assert_says(&refusal(dir.path()), &["no model here", "exactly one .gguf", "the folder is empty"]);
    std::fs::copy(fixture("tiny.gguf"), dir.path().join("a.gguf")).unwrap();
    let model = Checkpoint::open(dir.path()).unwrap();
    assert_eq!(model.digest(), Checkpoint::open(&fixture("tiny.gguf")).unwrap().digest());
    std::fs::copy(fixture("tiny.gguf"), dir.path().join("b.gguf")).unwrap();
    assert_says(&refusal(dir.path()), &["2 .gguf files", "a.gguf", "name one"]);
}

#[test]
fn byte_level_tokenizers_know_their_special_tokens() {
    let model = Checkpoint::open(&fixture("tiny.gguf")).unwrap();
    assert_eq!(model.generation().eos_token_ids, [0, 263], "end of text and end of turn");
    let tokenizer = model.tokenizer().unwrap().unwrap();
    let ids = |text: &str, special| tokenizer.encode(text, special).unwrap().get_ids().to_vec();
    let hello = tokenizer.token_to_id("hello").unwrap();
    let w = tokenizer.token_to_id("Ġw").unwrap();
    assert_eq!(ids("hello w", true), [1, hello, w], "begin of text is added");
    assert_eq!(ids("<|begin|>hello<|end|><tool>", false), [1, hello, 0, 263]);
    assert_eq!(tokenizer.decode(&[1, hello, w, 263, 0], true).unwrap(), "hello w<tool>");
    assert_eq!(tokenizer.decode(&ids("naïve 漢\n", false), true).unwrap(), "naïve 漢\n");

    let template = model.chat_template().unwrap().unwrap();
    let turn = ChatMessage::new("user", "hi");
    assert_eq!(template.render(&[turn], false).unwrap(), "<|begin|>user: hi\n");
}

#[test]
fn sentence_piece_tokenizers_join_by_score_and_fall_back_to_bytes() {
    let model = Checkpoint::open(&fixture("sentence_piece.gguf")).unwrap();
    let tokenizer = model.tokenizer().unwrap().unwrap();
    let cases: Vec<serde_json::Value> =
        serde_json::from_slice(&std::fs::read(fixture("sentence_piece.json")).unwrap()).unwrap();
    for case in &cases {
        let text = case["text"].as_str().unwrap();
        let expected: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
        assert_eq!(tokenizer.encode(text, false).unwrap().get_ids(), expected, "{text:?}");
        let with_begin = tokenizer.encode(text, true).unwrap();
        assert_eq!(with_begin.get_ids(), [&[1], expected.as_slice()].concat());
        assert_eq!(tokenizer.decode(with_begin.get_ids(), true).unwrap(), text);
    }
    assert_eq!(cases.len(), 6);
}

#[test]
fn damage_is_named() {
    assert_says(&changed(|bytes| bytes[0] = b'X'), &["m.gguf", "no GGUF file"]);
    assert_says(&changed(|bytes| bytes[4] = 1), &["version 1", "2 and 3"]);
    assert_says(&changed(|bytes| bytes[4..8].copy_from_slice(&[0, 0, 0, 3])), &["big-endian"]);
    assert_says(&changed(|bytes| bytes[8..16].fill(0xff)), &["tensor count", "18446744073709551615", "damaged"]);
    assert_says(&changed(|bytes| bytes[16..24].fill(0xff)), &["metadata count", "damaged"]);
    assert_says(&changed(|bytes| bytes[24..32].fill(0x7f)), &["metadata key", "truncated"]);
    let tokens = "tokenizer.ggml.tokens";
    assert_says(&changed(|bytes| put(bytes, tokens, 8, &[0xff; 8])), &[tokens, "more than the remaining"]);
    assert_says(&changed(|bytes| put(bytes, tokens, 4, &[9])), &[tokens, "type 9"]);
    assert_says(&changed(|bytes| put(bytes, tokens, 0, &[99])), &[tokens, "type 99"]);
    let length = std::fs::metadata(fixture("tiny.gguf")).unwrap().len() as usize;
    assert_says(&changed(|bytes| bytes.truncate(length / 2)), &["tensor `", "truncated"]);
    assert_says(&changed(|bytes| bytes.truncate(3)), &["magic", "3 bytes", "truncated"]);
}

#[test]
fn no_cut_and_no_flipped_byte_makes_the_reader_panic() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    let whole = std::fs::read(fixture("tiny.gguf")).unwrap();
    let data = at(&whole, "blk.0.ffn_down.weight") + 64;
    for length in (0..data).step_by(7) {
        std::fs::write(&path, &whole[..length]).unwrap();
        assert_says(&refusal(&path), &["m.gguf"]);
    }
    for index in (0..data).step_by(5) {
        let mut bytes = whole.clone();
        bytes[index] ^= 0xff;
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, bytes).unwrap();
        if let Ok(model) = Checkpoint::open(&path) {
            let _ = model.tokenizer();
            let _ = model.chat_template();
            let _ = model.tensor("model.layers.0.self_attn.q_proj.weight");
        }
    }
}

#[test]
fn tensors_must_be_those_of_the_metadata() {
    let q = "blk.0.attn_q.weight";
    assert_says(&changed(|bytes| put(bytes, q, 4 + 16, &[9])), &[q, "9 (Q8_1)", "Q2_K to Q6_K"]);
    assert_says(&changed(|bytes| put(bytes, q, 4 + 16, &[200])), &[q, "200", "not known"]);
    assert_says(&changed(|bytes| put(bytes, q, 0, &[9])), &[q, "9 dimensions"]);
    assert_says(&changed(|bytes| put(bytes, q, 4, &[33])), &[q, "rows of 33"]);
    assert_says(&changed(|bytes| put(bytes, q, 4, &[0xff; 8])), &[q, "blocks"]);
    assert_says(&changed(|bytes| put(bytes, q, 12, &[0xff; 8])), &[q, "larger than any file"]);
    assert_says(&changed(|bytes| put(bytes, q, 12, &[16])), &[q, "[16, 32]", "[32, 32]"]);
    assert_says(&changed(|bytes| put(bytes, q, 24, &[1])), &[q, "alignment 32"]);
    assert_says(&changed(|bytes| put(bytes, q, 24, &[0xe0; 8])), &[q, "truncated"]);
    assert_says(&changed(|bytes| put(bytes, q, 24, &[0; 8])), &["overlaps"]);
    assert_says(
        &changed(|bytes| {
            let from = at(bytes, q) + 8;
            bytes[from..from + q.len()].copy_from_slice(b"blk.0.attn_x.weight");
        }),
        &[q, "missing"],
    );
}

#[test]
fn a_turns_end_of_any_type_is_a_control_token() {
    let types = "tokenizer.ggml.token_type";
    let typed = |kind: u8| {
        edited(|bytes| {
            // Key, type of the value, type of the elements, their count; `<|end|>` is the first token.
            let first = at(bytes, types) + 8 + types.len() + 4 + 4 + 8;
            bytes[first..first + 4].copy_from_slice(&[kind, 0, 0, 0]);
            let eos = "tokenizer.ggml.eos_token_id";
            put(bytes, eos, 4, &[0xff; 4]);
        })
    };
    for kind in [1, 3, 4] {
        let (_dir, path) = typed(kind);
        let model = Checkpoint::open(&path).unwrap();
        assert!(model.generation().eos_token_ids.contains(&0), "type {kind}");
        let tokenizer = model.tokenizer().unwrap().unwrap();
        assert_eq!(tokenizer.encode("<|end|>", false).unwrap().get_ids(), [0], "type {kind}");
    }
}

#[test]
fn metadata_that_cannot_be_served_are_refused_by_key() {
    let text = |from: &'static str, to: &'static str| {
        changed(move |bytes| {
            let at = at(bytes, from) + 8;
            bytes[at..at + from.len()].copy_from_slice(to.as_bytes());
        })
    };
    assert_says(&text("llama", "mamba"), &["general.architecture", "mamba", "supported: llama"]);
    assert_says(&text("llama.block_count", "llama.block_cover"), &["llama.block_count", "missing"]);
    let heads = "llama.attention.head_count";
    assert_says(&changed(|bytes| put(bytes, heads, 4, &[0])), &["m.gguf", "heads", "between 1"]);
    let layers = "llama.block_count";
    assert_says(&changed(|bytes| put(bytes, layers, 4, &[2])), &["blk.1.", "missing"]);
    assert_says(&changed(|bytes| put(bytes, layers, 4, &[0xff; 4])), &["layers", "4294967295"]);
    let eos = "tokenizer.ggml.eos_token_id";
    let (_dir, path) = edited(|bytes| put(bytes, eos, 4, &[0xff; 4]));
    let model = Checkpoint::open(&path).unwrap();
    assert_says(&model.notes().join("\n"), &[eos, "4294967295", "vocabulary", "ignored"]);
    assert!(model.tokenizer().unwrap().is_some() && model.chat_template().unwrap().is_some());

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    let tokenizer = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = std::fs::read(fixture("tiny.gguf")).unwrap();
        change(&mut bytes);
        std::fs::write(&path, bytes).unwrap();
        Checkpoint::open(&path).unwrap().tokenizer().unwrap_err().to_string()
    };
    assert_says(&tokenizer(&|bytes| put(bytes, "tokenizer.ggml.model", 12, b"bert")), &["bert", "gpt2, llama"]);
    assert_says(
        &tokenizer(&|bytes| put(bytes, "tokenizer.ggml.pre", 12, b"xyz-2")),
        &["tokenizer.ggml.pre", "xyz-2", "smollm"],
    );
    assert_says(&tokenizer(&|bytes| put(bytes, "tokenizer.ggml.merges", 24, b"xyz")), &["tokenizer.ggml.merges"]);
    assert_says(&tokenizer(&|bytes| put(bytes, "tokenizer.ggml.token_type", 16, &[9])), &["token_type", "1 to 6"]);
}
