//! Hugging Face folders: what opens, and what each kind of damage is called.
#![allow(clippy::unwrap_used)] // helpers of tests say what they expect, as tests do

mod support;

use serde_json::json;
use slm_convert::Checkpoint;
use slm_convert::rope::RopeScaling;
use support::{
    assert_says, bytes, copy, cut, edit, edit_tensors, parity, read_tensors, values, write_raw, write_tensors,
};

fn refusal(path: &std::path::Path) -> String {
    Checkpoint::open(path).unwrap_err().to_string()
}

#[test]
fn every_family_of_the_parity_data_opens() {
    let open = |family: &str| Checkpoint::open(&parity().join(family)).unwrap();
    let llama = open("llama");
    let architecture = llama.architecture();
    let kv_heads = architecture.layers[0].attention().unwrap().kv_heads;
    assert_eq!((architecture.family.as_str(), architecture.layers.len(), kv_heads), ("llama", 2, 2));
    assert_eq!(llama.generation().eos_token_ids, [2]);
    assert_eq!(llama.generation().bos_token_id, Some(1));
    assert!(llama.tokenizer().unwrap().is_none() && llama.chat_template().unwrap().is_none());
    assert!(matches!(open("llama3-rope").architecture().ropes[0].scaling, RopeScaling::Llama3 { .. }));
    assert_eq!(open("mistral").architecture().layers[0].attention().unwrap().window, Some(16));
    assert_eq!(open("smollm2").architecture().layers[0].attention().unwrap().heads, 3);
}

#[test]
fn tensors_come_by_name_and_a_tied_head_is_the_embedding() {
    let model = Checkpoint::open(&parity().join("smollm2")).unwrap();
    let raw = read_tensors(&parity().join("smollm2/model.safetensors"));
    let name = "model.layers.1.self_attn.k_proj.weight";
    let tensor = model.tensor(name).unwrap();
    assert_eq!((tensor.shape, tensor.data), (raw[name].1.clone(), values(&raw[name].2)));
    assert_eq!(model.tensor("lm_head.weight").unwrap(), model.tensor("model.embed_tokens.weight").unwrap());
    assert_eq!(model.native_bits(name), None);
    assert_says(&model.tensor("model.layers.9.mlp.up_proj.weight").unwrap_err().to_string(), &["layers.9", "missing"]);
}

#[test]
fn sixteen_bit_types_widen_exactly() {
    let dir = copy(&parity().join("llama"));
    edit_tensors(&dir.path().join("model.safetensors"), |tensors| {
        let half = tensors.get_mut("model.norm.weight").unwrap();
        *half = ("F16".into(), vec![64], [0x00, 0x3c].repeat(64));
        let brain = tensors.get_mut("model.layers.0.input_layernorm.weight").unwrap();
        *brain = ("BF16".into(), vec![64], [0x40, 0xbf].repeat(64));
    });
    let model = Checkpoint::open(dir.path()).unwrap();
    assert_eq!(model.tensor("model.norm.weight").unwrap().data, [1.0; 64]);
    assert_eq!(model.tensor("model.layers.0.input_layernorm.weight").unwrap().data, [-0.75; 64]);
}

#[test]
fn shards_read_like_one_file() {
    let whole = Checkpoint::open(&parity().join("llama")).unwrap();
    let dir = copy(&parity().join("llama"));
    let path = dir.path().join("model.safetensors");
    let mut first = read_tensors(&path);
    let second = first.split_off("model.layers.1");
    let names = |shard: &support::Tensors, file: &str| -> Vec<_> {
        shard.keys().map(|name| (name.clone(), json!(file))).collect()
    };
    let map: serde_json::Map<_, _> =
        names(&first, "a.safetensors").into_iter().chain(names(&second, "b.safetensors")).collect();
    std::fs::remove_file(&path).unwrap();
    write_tensors(&dir.path().join("a.safetensors"), &first);
    write_tensors(&dir.path().join("b.safetensors"), &second);
    let index = dir.path().join("model.safetensors.index.json");
    std::fs::write(&index, json!({"weight_map": map}).to_string()).unwrap();
    let sharded = Checkpoint::open(dir.path()).unwrap();
    for name in ["model.norm.weight", "model.layers.1.mlp.down_proj.weight", "lm_head.weight"] {
        assert_eq!(sharded.tensor(name).unwrap(), whole.tensor(name).unwrap());
    }

    edit(&index, &json!({"weight_map": {"x": "../llama/model.safetensors"}}));
    assert_says(&refusal(dir.path()), &["index.json", "`x`", "not a file name"]);
    edit(&index, &json!({"weight_map": {"x": "c.safetensors"}}));
    assert_says(&refusal(dir.path()), &["c.safetensors", "not in the folder"]);
    edit(&index, &json!({"weight_map": null}));
    assert_says(&refusal(dir.path()), &["weight_map", "missing"]);
}

#[test]
fn damage_is_named() {
    let dir = copy(&parity().join("llama"));
    let path = dir.path().join("model.safetensors");
    let whole = std::fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;

    cut(&path, whole.len() - 1);
    assert_says(&refusal(dir.path()), &["model.safetensors", "model.", "truncated"]);
    cut(&path, header - 1);
    assert_says(&refusal(dir.path()), &["header", "truncated"]);
    cut(&path, 5);
    assert_says(&refusal(dir.path()), &["header", "5 bytes"]);
    cut(&path, 0);
    assert_says(&refusal(dir.path()), &["header", "0 bytes"]);

    let mut huge = whole.clone();
    huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    std::fs::write(&path, &huge).unwrap();
    assert_says(&refusal(dir.path()), &["header of 18446744073709551615 bytes", "truncated"]);

    let mut no_json = whole.clone();
    no_json[8] = b'?';
    std::fs::write(&path, &no_json).unwrap();
    assert_says(&refusal(dir.path()), &["header cannot be read", "column"]);

    let mut longer = whole;
    longer.push(0);
    std::fs::write(&path, &longer).unwrap();
    assert_says(&refusal(dir.path()), &["last", "damaged"]);
}

#[test]
fn a_header_that_contradicts_itself_is_refused() {
    let dir = copy(&parity().join("llama"));
    let path = dir.path().join("model.safetensors");
    let entry = |shape: &[u64], from: u64, to: u64| json!({"dtype": "F32", "shape": shape, "data_offsets": [from, to]});
    let cases = [
        (json!({"a": entry(&[2], 0, 8), "b": entry(&[2], 4, 12)}), "`b`", "overlaps"),
        (json!({"a": entry(&[2], 0, 8), "b": entry(&[1], 12, 16)}), "`b`", "gap"),
        (json!({"a": entry(&[3], 0, 8)}), "`a`", "cannot hold shape [3]"),
        (json!({"a": entry(&[2], 8, 0)}), "`a`", "before it begins"),
        (json!({"a": entry(&[u64::MAX, u64::MAX], 0, 8)}), "`a`", "cannot hold"),
        (json!({"a": entry(&[1 << 40], 0, 1 << 42)}), "`a`", "truncated"),
        (json!({"a": {"dtype": "F4", "shape": [1], "data_offsets": [0, 1]}}), "`a`", "F4"),
        (json!({"a": {"dtype": "F32"}}), "`a`", "missing field"),
        (json!({"a": 7}), "`a`", "header"),
    ];
    for (header, tensor, word) in cases {
        write_raw(&path, &header, &[0; 16]);
        assert_says(&refusal(dir.path()), &["model.safetensors", tensor, word]);
    }
}

#[test]
fn tensors_must_be_those_of_the_configuration() {
    let name = "model.layers.1.mlp.up_proj.weight";
    let changed = |change: fn(&mut support::Tensors)| {
        let dir = copy(&parity().join("llama"));
        edit_tensors(&dir.path().join("model.safetensors"), change);
        refusal(dir.path())
    };
    let missing = changed(|tensors| drop(tensors.remove("model.layers.1.mlp.up_proj.weight")));
    assert_says(&missing, &[name, "missing"]);
    let shape = changed(|tensors| tensors.get_mut("model.layers.1.mlp.up_proj.weight").unwrap().1 = vec![64, 96]);
    assert_says(&shape, &[name, "[64, 96]", "[96, 64]"]);
    let bias = changed(|tensors| {
        drop(tensors.insert("model.layers.0.self_attn.q_proj.bias".into(), ("F32".into(), vec![1], bytes(&[0.0]))));
    });
    assert_says(&bias, &["q_proj.bias", "not supported"]);
    let integers = changed(|tensors| tensors.get_mut("model.norm.weight").unwrap().0 = "I32".into());
    assert_says(&integers, &["model.norm.weight", "I32", "BF16"]);
}

#[test]
fn configurations_and_folders_that_are_no_model_say_so() {
    let dir = copy(&parity().join("llama"));
    let config = dir.path().join("config.json");
    edit(&config, &json!({"model_type": "mamba"}));
    assert_says(&refusal(dir.path()), &["config.json", "model_type", "mamba", "llama, mistral"]);
    cut(&config, 40);
    assert_says(&refusal(dir.path()), &["config.json", "JSON", "line"]);
    std::fs::remove_file(&config).unwrap();
    assert_says(&refusal(dir.path()), &["no model here", "config.json"]);

    let dir = copy(&parity().join("llama"));
    edit(&dir.path().join("generation_config.json"), &json!({"eos_token_id": [2, 999]}));
    let model = Checkpoint::open(dir.path()).unwrap();
    assert_eq!(model.generation().eos_token_ids, [2]);
    assert_says(&model.notes().join("\n"), &["generation_config.json", "eos_token_id", "999", "128", "ignored"]);
    std::fs::remove_file(dir.path().join("model.safetensors")).unwrap();
    edit(&dir.path().join("generation_config.json"), &json!({"eos_token_id": [2, 5]}));
    assert_says(&refusal(dir.path()), &["called vectors.safetensors", "name the file model.safetensors"]);
    assert_says(&refusal(&dir.path().join("nowhere")), &["nowhere", "No such file"]);
}

#[test]
fn the_digest_covers_names_and_contents() {
    let digest = |dir: &std::path::Path| Checkpoint::open(dir).unwrap().digest().to_owned();
    let dir = copy(&parity().join("llama"));
    let before = digest(&parity().join("llama"));
    assert!(before.starts_with("sha256:") && before.len() == 71, "{before}");
    assert_eq!(digest(dir.path()), before, "the place does not matter");
    edit(&dir.path().join("generation_config.json"), &json!({"temperature": 0.5}));
    assert_ne!(digest(dir.path()), before);
}

#[test]
fn the_chat_template_of_a_folder_is_found_where_transformers_keeps_it() {
    use slm_convert::chat::ChatMessage;
    let dir = copy(&parity().join("llama"));
    let hello = [ChatMessage::new("user", "hi")];
    let render =
        || Checkpoint::open(dir.path()).unwrap().chat_template().unwrap().unwrap().render(&hello, true).unwrap();
    let settings = json!({"bos_token": {"content": "<s>"}, "chat_template": [
        {"name": "tool_use", "template": "no"},
        {"name": "default", "template": "{{ bos_token }}{{ messages[0].content }}"},
    ]});
    std::fs::write(dir.path().join("tokenizer_config.json"), settings.to_string()).unwrap();
    assert_eq!(render(), "<s>hi");
    std::fs::write(dir.path().join("chat_template.jinja"), "file: {{ messages[0]['content'] }}").unwrap();
    assert_eq!(render(), "file: hi");
    std::fs::write(dir.path().join("tokenizer.json"), "{\"model\":").unwrap();
    assert_says(&refusal(dir.path()), &["tokenizer.json", "not a readable tokenizer"]);
}
