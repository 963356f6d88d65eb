//! PEFT adapters: what loads is exactly what PEFT applies, and everything else is refused by name.
#![allow(clippy::unwrap_used)] // helpers of tests say what they expect, as tests do

mod support;

use std::path::Path;

use serde_json::{Value, json};
use slm_convert::peft::Adapter;
use support::{assert_says, base, bytes, copy, cut, edit, edit_tensors, parity, read_tensors, values};
use tempfile::TempDir;

/// Indices of Llama's linear layers within their layer.
const Q: usize = 0;
const O: usize = 3;
const UP: usize = 5;
const DOWN: usize = 6;

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";

fn open(dir: &Path) -> Result<Adapter, String> {
    Adapter::open(dir, &base("llama")).map_err(|error| error.to_string())
}

fn named(name: &str) -> TempDir {
    copy(&parity().join("llama/adapters").join(name))
}

/// An adapter of the parity data with fields of its configuration changed.
fn changed(name: &str, changes: &Value) -> Result<Adapter, String> {
    let dir = named(name);
    edit(&dir.path().join(CONFIG), changes);
    open(dir.path())
}

fn refused(changes: &Value) -> String {
    changed("r4-all", changes).unwrap_err()
}

#[test]
fn every_adapter_of_the_parity_data_loads_or_is_refused_as_marked() {
    let mut seen = 0;
    for family in ["llama", "llama3-rope", "smollm2", "mistral"] {
        for entry in std::fs::read_dir(parity().join(family).join("adapters")).unwrap() {
            let path = entry.unwrap().path();
            let result = Adapter::open(&path, &base(family));
            if path.join("MUST_BE_REJECTED").exists() {
                assert_says(&result.unwrap_err().to_string(), &["use_dora", CONFIG]);
            } else {
                assert!(result.is_ok(), "{}: {result:?}", path.display());
            }
            seen += 1;
        }
    }
    assert_eq!(seen, 20);
}

#[test]
fn ranks_scales_and_values_are_those_of_peft() {
    let plain = open(&parity().join("llama/adapters/r4-all")).unwrap();
    assert_eq!((plain.pairs.len(), plain.rank_max), (14, 4));
    assert_eq!(plain.target_modules, ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]);
    let raw = read_tensors(&parity().join("llama/adapters/r4-all").join(WEIGHTS));
    let pair = &plain.pairs[&(1, DOWN)];
    let tensor =
        |side: &str| values(&raw[&format!("base_model.model.model.layers.1.mlp.down_proj.lora_{side}.weight")].2);
    assert_eq!((pair.rank, pair.scaling, pair.a.values(), pair.b.values()), (4, 2.0, tensor("A"), tensor("B")));

    let stable = open(&parity().join("llama/adapters/rslora")).unwrap();
    assert_eq!(stable.pairs[&(0, Q)].scaling, (6.0 / 6f64.sqrt()) as f32);
    let attention = open(&parity().join("llama/adapters/r8-attn")).unwrap();
    assert_eq!(
        (attention.target_modules.as_slice(), attention.pairs.len()),
        (["q_proj", "v_proj"].map(String::from).as_slice(), 4)
    );

    let patterns = open(&parity().join("llama/adapters/patterns")).unwrap();
    let of = |layer, module| (patterns.pairs[&(layer, module)].rank, patterns.pairs[&(layer, module)].scaling);
    assert_eq!(of(0, DOWN), (4, 2.0));
    assert_eq!(of(1, DOWN), (2, 4.0), "layers.1.*down_proj");
    assert_eq!(of(0, Q), (3, 8.0 / 3.0), "q_proj");
    assert_eq!(of(1, O), (4, 8.0), "alpha 32 for o_proj");
    assert_eq!(patterns.rank_max, 4);
}

#[test]
fn targets_may_be_a_list_an_expression_or_all_linear() {
    let list = open(&parity().join("llama/adapters/r4-all")).unwrap();
    let same = [
        json!({"target_modules": "all-linear"}),
        json!({"target_modules": "ALL-LINEAR"}),
        json!({"target_modules": r".*\.(q|k|v|o|gate|up|down)_proj"}),
        json!({"target_modules": r"model\.layers\.\d+\.(self_attn|mlp)\.\w+_proj"}),
        json!({"target_modules": ["self_attn.q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "mlp.down_proj"]}),
        json!({"exclude_modules": ["lm_head"]}),
        json!({"layers_to_transform": [0, 1], "layers_pattern": "layers"}),
        json!({"fan_in_fan_out": true}),
        // Names of nothing change nothing beside others, and biases that the base does not have are none in the file.
        json!({"target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "c_attn"]}),
        json!({"bias": "all"}),
        json!({"bias": "lora_only"}),
        json!({"lora_bias": true}),
    ];
    for changes in same {
        assert_eq!(changed("r4-all", &changes).unwrap().pairs, list.pairs, "{changes}");
    }
    let attention = open(&parity().join("llama/adapters/r8-attn")).unwrap();
    let default = changed("r8-attn", &json!({"target_modules": null})).unwrap();
    assert_eq!(default.pairs, attention.pairs, "PEFT's default for such models");
    let whole_name = json!({"target_modules": r"\.q_proj"});
    assert_says(&refused(&whole_name), &["target_modules", "selects no module"]);
}

#[test]
fn exclusions_and_layers_take_modules_out() {
    let without = |changes: Value, keep: fn(&str) -> bool| {
        let dir = named("r4-all");
        edit(&dir.path().join(CONFIG), &changes);
        let strays = open(dir.path()).unwrap_err();
        assert_says(&strays, &[WEIGHTS, "does not target"]);
        edit_tensors(&dir.path().join(WEIGHTS), |tensors| tensors.retain(|name, _| keep(name)));
        open(dir.path()).unwrap().pairs.into_keys().collect::<Vec<_>>()
    };
    let first = (0..7).map(|linear| (0, linear)).collect::<Vec<_>>();
    assert_eq!(without(json!({"layers_to_transform": 0}), |name| name.contains("layers.0.")), first);
    assert_eq!(
        without(json!({"layers_to_transform": [0], "layers_pattern": ["h", "layers"]}), |name| name
            .contains("layers.0.")),
        first
    );
    assert_eq!(without(json!({"exclude_modules": r"model\.layers\.1\..*"}), |name| name.contains("layers.0.")), first);
    let rest = without(json!({"exclude_modules": ["down_proj"]}), |name| !name.contains("down_proj"));
    assert!(rest.len() == 12 && rest.iter().all(|(_, module)| *module != DOWN));
    assert_says(&refused(&json!({"layers_to_transform": [0], "layers_pattern": "h"})), &["selects no module"]);
}

#[test]
fn the_first_pattern_of_the_file_counts() {
    let alpha = |pattern: Value| changed("r4-all", &json!({"alpha_pattern": pattern})).unwrap().pairs;
    assert_eq!(alpha(json!({"proj": 40}))[&(0, Q)].scaling, 2.0, "a part of a name is no match");
    let both = alpha(json!({"layers.0.*": 4, "q_proj": 40, "^model.layers.1.mlp.up_proj": 12}));
    let of = |layer, module| both[&(layer, module)].scaling;
    assert_eq!((of(0, Q), of(1, Q)), (1.0, 10.0));
    // PEFT puts `(.*\.)?(` before a key, so that `^` can still match at the start.
    assert_eq!(of(1, UP), 3.0);
    assert_eq!(of(1, DOWN), 2.0);
}

/// Expressions are anybody's: what would backtrack for hours ends at once, by the name of its field.
#[test]
fn expressions_that_explode_are_refused() {
    let bomb = r"(?=m)([a-z_.0-9]+)+!";
    let cases = [
        json!({"target_modules": bomb}),
        json!({"exclude_modules": bomb}),
        json!({"rank_pattern": {bomb: 4}}),
        json!({"alpha_pattern": {bomb: 4}}),
        json!({"layers_to_transform": [0], "layers_pattern": bomb}),
    ];
    for changes in cases {
        let field = changes.as_object().unwrap().keys().next_back().unwrap().clone();
        assert_says(&refused(&changes), &[CONFIG, &field, "needs more than 10000 steps"]);
    }
    // What only looks like one is matched in linear time.
    assert_says(&refused(&json!({"target_modules": r"(([a-z_.0-9]+)+)+!"})), &["selects no module"]);
    assert_says(&refused(&json!({"target_modules": r"(?:\w{1000}){1000}"})), &["target_modules", "size limit"]);
}

#[test]
fn what_cannot_be_applied_is_refused_by_the_name_of_its_field() {
    let cases = [
        json!({"use_dora": true}),
        json!({"modules_to_save": ["lm_head"]}),
        json!({"bias": "some"}),
        json!({"trainable_token_indices": [1]}),
        json!({"target_parameters": ["mlp.experts"]}),
        json!({"peft_type": "LOHA"}),
        json!({"alora_invocation_tokens": [1, 2]}),
        json!({"use_qalora": true}),
        json!({"use_bdlora": {"nblocks": 2}}),
        json!({"velora_config": {"scale": 1.0}}),
        json!({"monteclora_config": {"n": 1}}),
        json!({"arrow_config": {"top_k": 3}}),
        json!({"kasa_config": {"beta": 0.1}}),
        json!({"megatron_config": {"a": 1}}),
        json!({"layer_replication": [[0, 2]]}),
        json!({"ensure_weight_tying": true}),
        json!({"init_lora_weights": "pissa_niter_16"}),
        json!({"init_lora_weights": "olora"}),
        json!({"a_feature_of_tomorrow": 1}),
    ];
    for changes in cases {
        let (field, value) = changes.as_object().unwrap().iter().next().unwrap();
        assert_says(&refused(&changes), &[CONFIG, field, &value.to_string(), "is not supported"]);
    }
}

#[test]
fn settings_that_change_nothing_are_accepted() {
    let list = open(&parity().join("llama/adapters/r4-all")).unwrap();
    let harmless = json!({
        "task_type": "CAUSAL_LM", "lora_dropout": 0.1, "revision": "main", "init_lora_weights": "gaussian",
        "peft_version": "9", "auto_mapping": {"a": 1}, "modules_to_save": [], "a_feature_of_tomorrow": false,
    });
    let adapter = changed("r4-all", &harmless).unwrap();
    assert_eq!(adapter.pairs, list.pairs);
    assert_ne!(adapter.digest, list.digest, "the digest covers the configuration");
}

#[test]
fn fields_that_are_not_of_their_type_are_named() {
    let cases = [
        (json!({"r": 0}), "`r`", "at least 1"),
        (json!({"r": -4}), "`r`", "-4"),
        (json!({"r": "4"}), "`r`", "whole number"),
        (json!({"lora_alpha": "x"}), "`lora_alpha`", "a number"),
        (json!({"rank_pattern": {"q_proj": 0}}), "`rank_pattern`", "at least 1"),
        (json!({"rank_pattern": [1]}), "`rank_pattern`", "object"),
        (json!({"alpha_pattern": {"q_proj": null}}), "`alpha_pattern`", "numbers"),
        (json!({"alpha_pattern": {"q_(proj": 1}}), "`alpha_pattern`", "q_(proj"),
        (json!({"target_modules": 5}), "`target_modules`", "list"),
        (json!({"target_modules": "(q_proj"}), "`target_modules`", "(q_proj"),
        (json!({"exclude_modules": [1]}), "`exclude_modules`", "list"),
        (json!({"layers_to_transform": "all"}), "`layers_to_transform`", "index"),
        (json!({"layers_to_transform": [0], "target_modules": "all-linear"}), "`layers_to_transform`", "not a list"),
        (json!({"layers_pattern": "layers"}), "`layers_pattern`", "layers_to_transform is not set"),
        (json!({"use_rslora": "yes"}), "`use_rslora`", "true or false"),
        (json!({"peft_type": null}), "`peft_type`", "missing"),
    ];
    for (changes, field, word) in cases {
        assert_says(&refused(&changes), &[CONFIG, field, word]);
    }
}

#[test]
fn targets_that_are_no_projection_are_refused_by_name() {
    let cases = [
        (json!(["q_proj", "lm_head"]), "lm_head"),
        (json!(["embed_tokens"]), "model.embed_tokens"),
        (json!(["query_key_value"]), "query_key_value"),
        (json!(["c_attn", "model.layers.7.mlp.up_proj"]), "model.layers.7.mlp.up_proj"),
        (json!(["mlp"]), "model.layers.0.mlp"),
        (json!(r".*lm_head|.*q_proj"), "lm_head"),
    ];
    for (targets, name) in cases {
        assert_says(&refused(&json!({ "target_modules": targets })), &[CONFIG, "target_modules", name, "q_proj"]);
    }
}

/// The base's own embedding and head in an adapter, as PEFT saves them when the vocabulary was touched.
#[test]
fn copies_of_embedding_and_head_are_only_copies_or_refused() {
    let base = slm_convert::Checkpoint::open(&parity().join("llama")).unwrap();
    let names = ["model.embed_tokens.weight", "lm_head.weight"];
    let with = |dtype: &str, bytes: fn(&[f32]) -> Vec<u8>, change: f32| {
        let dir = named("r4-all");
        edit_tensors(&dir.path().join(WEIGHTS), |tensors| {
            for name in names {
                let mut tensor = base.tensor(name).unwrap();
                tensor.data[3] += change;
                let copy = (dtype.to_owned(), tensor.shape.clone(), bytes(&tensor.data));
                tensors.insert(format!("base_model.model.{name}"), copy);
            }
        });
        dir
    };
    let on_base = |dir: &Path| {
        Adapter::open_on(dir, base.architecture(), &|name| base.tensor(name).ok()).map_err(|error| error.to_string())
    };
    let half = |values: &[f32]| values.iter().flat_map(|x| half::f16::from_f32(*x).to_le_bytes()).collect::<Vec<u8>>();
    let brain =
        |values: &[f32]| values.iter().flat_map(|x| half::bf16::from_f32(*x).to_le_bytes()).collect::<Vec<u8>>();
    let plain = open(&parity().join("llama/adapters/r4-all")).unwrap();
    for dir in [with("F32", bytes, 0.0), with("F16", half, 0.0), with("BF16", brain, 0.0)] {
        assert_eq!(on_base(dir.path()).unwrap().pairs, plain.pairs);
        assert_says(&open(dir.path()).unwrap_err(), &["cannot be applied", "save_embedding_layers=False"]);
    }
    let trained = with("F32", bytes, 0.5);
    assert_says(&on_base(trained.path()).unwrap_err(), &["not the base's own", "save_embedding_layers=False"]);
    let resized = with("F32", bytes, 0.0);
    edit_tensors(&resized.path().join(WEIGHTS), |tensors| {
        let tensor = tensors.get_mut("base_model.model.lm_head.weight").unwrap();
        tensor.1[0] += 1;
        tensor.2.extend([0; 256]);
    });
    assert_says(&on_base(resized.path()).unwrap_err(), &["lm_head", "129", "save_embedding_layers=False"]);
}

/// Files that training tools save beside the weights.
#[test]
fn the_template_of_an_adapter_is_used_and_what_is_not_used_is_said() {
    use slm_convert::chat::{ChatMessage, ChatTemplate};
    use slm_convert::peft::{AdapterChat, digest};
    use tokenizers::{AddedToken, Tokenizer, models::bpe::BPE};

    let base = ChatTemplate::new("tokenizer_config.json", "base".into(), None, Some("</s>".into())).unwrap();
    let mut vocabulary = Tokenizer::new(BPE::default());
    vocabulary.add_special_tokens(&["</s>", "<|im_end|>"].map(|text| AddedToken::from(text, true)));
    let read = |dir: &Path| AdapterChat::read(dir, Some(&base), Some(&vocabulary));
    let dir = named("r4-all");
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();

    let bare = read(dir.path());
    assert!(bare.template.is_none() && bare.notes.is_empty() && bare.eos_token_ids.is_empty(), "{bare:?}");
    let before = digest(dir.path()).unwrap();
    write("tokenizer_config.json", r#"{"eos_token": "</s>", "chat_template": "base"}"#);
    assert!(read(dir.path()).template.is_none(), "the same as the base's");

    write("chat_template.jinja", "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}");
    let own = read(dir.path());
    let rendered = own.template.unwrap().render(&[ChatMessage::new("user", "hi")], true).unwrap();
    assert_eq!((rendered.as_str(), own.eos_token_ids), ("hi<|im_end|>", vec![0, 1]));
    let after = digest(dir.path()).unwrap();
    assert_ne!(before, after, "another template is another version");
    assert_eq!(open(dir.path()).unwrap().digest, after);

    write("generation_config.json", r#"{"eos_token_id": [1, 999]}"#);
    write("chat_template.jinja", "{{ messages[0].content }}");
    let generation = read(dir.path());
    assert_eq!(generation.eos_token_ids, [1, 0]);
    assert_says(&generation.notes.join("\n"), &["generation_config.json", "999", "ignored"]);

    write("chat_template.jinja", "{% for %}");
    write("tokenizer_config.json", r#"{"eos_token": "<|other|>"}"#);
    let added = |id: u32, text: &str| json!({"id": id, "content": text, "special": true});
    write("tokenizer.json", &json!({"added_tokens": [added(0, "</s>"), added(1, "<|new|>")]}).to_string());
    let notes = read(dir.path()).notes.join("\n");
    assert_says(&notes, &["chat_template.jinja", "base's template", "<|other|>", "tokenizer.json", "\"<|new|>\""]);
    assert!(!notes.contains("</s>"), "{notes}");
}

#[test]
fn folders_that_are_no_adapter_say_what_they_are() {
    let says = |dir: &Path, words: &[&str]| assert_says(&open(dir).unwrap_err(), words);
    says(&parity().join("llama"), &["this is a model", "SlmModel"]);
    says(&parity().join("llama/adapters"), &["adapters are in", "name one"]);
    let outer = tempfile::tempdir().unwrap();
    says(outer.path(), &["the folder is empty"]);
    std::fs::rename(named("r4-all").keep(), outer.path().join("mine")).unwrap();
    says(outer.path(), &["a folder deeper", "mine"]);
    let far = tempfile::tempdir().unwrap();
    std::fs::create_dir(far.path().join("run")).unwrap();
    std::fs::rename(named("r4-all").keep(), far.path().join("run/checkpoint-9")).unwrap();
    says(far.path(), &["a folder deeper", "run/checkpoint-9"]);
    let weights = outer.path().join("mine").join(WEIGHTS);
    says(&weights, &["this is a file", "name the folder"]);
    std::fs::write(&weights, "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n").unwrap();
    says(&outer.path().join("mine"), &[WEIGHTS, "Git LFS pointer", "git lfs pull"]);
    let digest = slm_convert::peft::digest(&outer.path().join("mine")).unwrap_err().to_string();
    assert_says(&digest, &["Git LFS pointer"]);
}

/// An adapter with its weights changed.
fn with_weights(change: impl FnOnce(&mut support::Tensors)) -> String {
    let dir = named("r4-all");
    edit_tensors(&dir.path().join(WEIGHTS), change);
    open(dir.path()).unwrap_err()
}

const Q_A: &str = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";
const Q_B: &str = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight";

#[test]
fn weights_that_are_no_numbers_are_refused_by_tensor() {
    for (value, shown) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf")] {
        let message = with_weights(|tensors| {
            tensors.get_mut(Q_B).unwrap().2[20..24].copy_from_slice(&value.to_le_bytes());
        });
        assert_says(&message, &[WEIGHTS, Q_B, shown, "index 5"]);
    }
}

#[test]
fn weights_must_be_those_of_the_configuration() {
    let missing = with_weights(|tensors| drop(tensors.remove(Q_A)));
    assert_says(&missing, &[Q_A, "missing"]);
    let rank =
        with_weights(|tensors| drop(tensors.insert(Q_A.into(), ("F32".into(), vec![2, 64], bytes(&[0.0; 128])))));
    assert_says(&rank, &[Q_A, "[2, 64]", "[4, 64]", "rank 4"]);
    let dtype = with_weights(|tensors| tensors.get_mut(Q_A).unwrap().0 = "I32".into());
    assert_says(&dtype, &[Q_A, "I32", "F32, F16, BF16"]);
    let strays = [
        ("base_model.model.lm_head.lora_A.weight", "lm_head"),
        ("base_model.model.model.layers.5.self_attn.q_proj.lora_A.weight", "2 layers"),
        ("base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector", "use_dora"),
        ("base_model.model.model.layers.0.self_attn.q_proj.lora_B.bias", "bias"),
        ("base_model.model.model.layers.0.self_attn.q_proj.lora_A.other.weight", "same matrix"),
        ("something", "neither"),
    ];
    for (name, word) in strays {
        let message = with_weights(|tensors| drop(tensors.insert(name.into(), ("F32".into(), vec![1], bytes(&[0.5])))));
        assert_says(&message, &[WEIGHTS, "cannot be applied", word]);
    }
}

#[test]
fn modules_without_weights_stay_as_in_the_base_and_that_is_said() {
    let dir = named("r4-all");
    let whole = open(dir.path()).unwrap();
    assert!(whole.notes.is_empty(), "{:?}", whole.notes);
    edit_tensors(&dir.path().join(WEIGHTS), |tensors| {
        tensors.retain(|name, _| !name.contains("layers.0.self_attn.q_proj"));
        let bias = "base_model.model.model.layers.1.self_attn.q_proj.lora_B.bias";
        tensors.insert(bias.into(), ("F32".into(), vec![64], bytes(&[0.0; 64])));
    });
    let adapter = open(dir.path()).unwrap();
    assert_eq!(adapter.pairs.len(), whole.pairs.len() - 1);
    assert_says(&adapter.notes.join("\n"), &[WEIGHTS, "1 of 14", "layers.0.self_attn.q_proj"]);
    let nothing = with_weights(|tensors| tensors.clear());
    assert_says(&nothing, &[WEIGHTS, "missing"]);
}

#[test]
fn settings_that_are_off_are_no_settings() {
    let dir = named("r4-all");
    let off = json!({"enable_lora": [], "merge_weights": false, "lorap_emb_lr": 1e-6, "lora_dtype": "", "own": 0,
        "own_text": "", "own_map": {}, "own_float": 0.0, "rank_pattern": [], "alpha_pattern": ""});
    edit(&dir.path().join(CONFIG), &off);
    assert!(open(dir.path()).is_ok(), "{:?}", open(dir.path()).err());
    for on in [json!({"own": 1}), json!({"own": "x"}), json!({"own": true}), json!({"enable_lora": [true]})] {
        let dir = named("r4-all");
        edit(&dir.path().join(CONFIG), &on);
        assert_says(&open(dir.path()).unwrap_err(), &[CONFIG, "not supported"]);
    }
}

#[test]
fn an_adapters_template_that_cannot_be_used_is_said() {
    use slm_convert::chat::ChatTemplate;
    use slm_convert::peft::AdapterChat;

    let base = ChatTemplate::new("t", "base".into(), Some("<s>".into()), Some("</s>".into())).unwrap();
    let read = |name: &str, text: &str| {
        let dir = named("r4-all");
        std::fs::write(dir.path().join(name), text).unwrap();
        AdapterChat::read(dir.path(), Some(&base), None)
    };
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 60776\n";
    let chat = read("chat_template.jinja", pointer);
    assert!(chat.template.is_none());
    assert_says(&chat.notes.join("\n"), &["chat_template.jinja", "Git LFS pointer", "not used"]);
    let wrong = read("tokenizer_config.json", r#"{"chat_template": 5}"#);
    assert_says(&wrong.notes.join("\n"), &["tokenizer_config.json", "chat_template is neither"]);
    let broken = read("chat_template.jinja", "{{ messages | nosuch }}");
    assert_says(&broken.notes.join("\n"), &["nosuch", "will be refused"]);
    // The base's tokens are the adapter's, too.
    let own = read("chat_template.jinja", "{{ bos_token }}x{{ eos_token }}").template.unwrap();
    assert_eq!(own.render(&[], true).unwrap(), "<s>x</s>");
}

#[test]
fn an_adapter_of_another_base_is_refused_with_both_shapes() {
    let error = Adapter::open(&parity().join("smollm2/adapters/r4-all"), &base("llama")).unwrap_err().to_string();
    assert_says(&error, &["lora_A", "[4, 48]", "[4, 64]", "another base"]);
}

#[test]
fn names_with_the_adapters_own_name_load_alike() {
    let plain = open(&parity().join("llama/adapters/r4-all")).unwrap();
    let dir = named("r4-all");
    edit_tensors(&dir.path().join(WEIGHTS), |tensors| {
        let renamed = std::mem::take(tensors).into_iter();
        *tensors = renamed.map(|(name, tensor)| (name.replace(".weight", ".default.weight"), tensor)).collect();
    });
    assert_eq!(open(dir.path()).unwrap().pairs, plain.pairs);
}

#[test]
fn files_that_are_damaged_or_not_there_are_named() {
    let dir = named("r4-all");
    let weights = dir.path().join(WEIGHTS);
    let length = std::fs::metadata(&weights).unwrap().len() as usize;
    cut(&weights, length - 3);
    assert_says(&open(dir.path()).unwrap_err(), &[WEIGHTS, "truncated"]);
    cut(&weights, 4);
    assert_says(&open(dir.path()).unwrap_err(), &[WEIGHTS, "header"]);
    std::fs::rename(&weights, dir.path().join("adapter_model.bin")).unwrap();
    assert_says(&open(dir.path()).unwrap_err(), &[WEIGHTS, "is missing", "safe_serialization"]);
    let dir = named("r4-all");
    cut(&dir.path().join(CONFIG), 30);
    assert_says(&open(dir.path()).unwrap_err(), &[CONFIG, "JSON", "line"]);
    std::fs::remove_file(dir.path().join(CONFIG)).unwrap();
    assert_says(&open(dir.path()).unwrap_err(), &[CONFIG, "is missing", "not a PEFT adapter"]);
}
