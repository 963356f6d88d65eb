use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::architecture::Transform;

/// Shapes and values of tensors by name.
#[derive(Default)]
struct Table(BTreeMap<String, (Vec<usize>, Vec<f32>)>);

impl Tensors for Table {
    fn shape(&self, name: &str) -> Option<&[usize]> {
        Some(&self.0.get(name)?.0)
    }

    fn values(&self, name: &str) -> Option<Vec<f32>> {
        Some(self.0.get(name)?.1.clone())
    }
}

fn read(over: &Value) -> Result<Architecture, ConfigError> {
    read_with("llama", over, &[])
}

/// Reads metadata of an architecture, and tensors of one dimension by their values.
fn read_with(architecture: &str, over: &Value, tensors: &[(&str, &[f32])]) -> Result<Architecture, ConfigError> {
    let common = json!({
        "embedding_length": 64, "attention.head_count": 4, "feed_forward_length": 128, "block_count": 2,
        "context_length": 256, "attention.layer_norm_rms_epsilon": 1e-6, "attention.layer_norm_epsilon": 1e-6,
        "vocab_size": 32
    });
    let prefixed =
        common.as_object().unwrap().iter().map(|(key, value)| (format!("{architecture}.{key}"), value.clone()));
    let mut map: Config = prefixed.collect();
    map.insert("general.architecture".to_owned(), architecture.into());
    map.extend(over.as_object().unwrap().clone());
    let table = tensors.iter().map(|(name, values)| ((*name).to_owned(), (vec![values.len()], values.to_vec())));
    crate::families::from_gguf("m.gguf", &map, &Table(table.collect()))
}

#[test]
fn what_would_change_answers_is_refused_by_name() {
    let cases = [
        (json!({"llama.rope.scaling.attn_factor": 1.3}), "llama.rope.scaling.attn_factor", "1.3"),
        (json!({"llama.rope.scaling.yarn_beta_fast": 32.0}), "llama.rope.scaling.yarn_beta_fast", "32"),
        (json!({"llama.rope.freq_base_swa": 10000.0}), "llama.rope.freq_base_swa", "10000"),
        (json!({"llama.rope.scaling.type": "longrope"}), "llama.rope.scaling.type", "rope_factors_long"),
        (json!({"llama.rope.scaling.type": "ntk"}), "llama.rope.scaling.type", "ntk"),
        (
            json!({"llama.rope.scaling.type": "yarn", "llama.rope.scaling.yarn_ext_factor": 0.5}),
            "llama.rope.scaling.yarn_ext_factor",
            "0.5",
        ),
        (json!({"llama.rope.dimension_sections": [2, 2, 4, 0]}), "llama.rope.dimension_sections", "2"),
        (json!({"llama.rope.dimension_count": 8}), "llama.rope.dimension_count", "8"),
        (json!({"llama.attention.scale": 0.5}), "llama.attention.scale", "0.5"),
        (json!({"llama.attention.causal": false}), "llama.attention.causal", "false"),
        (json!({"llama.attention.value_length": 8}), "llama.attention.value_length", "8"),
        (json!({"llama.attention.head_count_kv": [2, 4]}), "llama.attention.head_count_kv", "same number"),
        (json!({"llama.logit_scale": 8.0}), "llama.logit_scale", "8"),
        (json!({"llama.expert_count": 8}), "llama.expert_count", "files without it"),
        (json!({"llama.nextn_predict_layers": 1}), "llama.nextn_predict_layers", "1"),
        (json!({"llama.block_count": 1_u64 << 40}), "llama.block_count", "1024"),
        (
            json!({"llama.attention.sliding_window": 8, "llama.attention.sliding_window_pattern": [true]}),
            "llama.attention.sliding_window_pattern",
            "each layer",
        ),
    ];
    for (over, field, word) in cases {
        let message = read(&over).unwrap_err().to_string();
        assert!(message.contains(field) && message.contains(word), "{message}");
    }
}

#[test]
fn what_says_nothing_is_taken() {
    let said = json!({
        "llama.rope.scaling.attn_factor": 1.0, "llama.rope.scaling.type": "none", "llama.rope.scaling.finetuned": false,
        "llama.rope.scaling.original_context_length": 4096, "llama.rope.freq_base": 500000.0,
        "llama.rope.dimension_count": 16, "llama.rope.scaling.yarn_ext_factor": 0.0, "llama.logit_scale": 1.0,
        "llama.attention.head_count_kv": [2, 2], "llama.rope.dimension_sections": [0, 0], "llama.attention.causal": true,
        "llama.attention.sliding_window": 0
    });
    let architecture = read(&said).unwrap();
    assert_eq!(architecture.ropes[0].theta, 500_000.0);
    assert_eq!(architecture.layers[0].attention().unwrap().kv_heads, 2);
    assert_eq!(architecture.layers[0].attention().unwrap().window, None);
}

#[test]
fn factors_of_contexts_scale_the_rotation() {
    let scaling = |over: Value| {
        let rope = read(&over).unwrap().ropes[0].clone();
        (rope.scaling, rope.attention_factor)
    };
    assert_eq!(scaling(json!({"llama.rope.scaling.factor": 4.0})), (RopeScaling::Linear(4.0), 1.0));
    assert_eq!(scaling(json!({"llama.rope.scale_linear": 2.0})), (RopeScaling::Linear(2.0), 1.0));
    let none = json!({"llama.rope.scaling.factor": 4.0, "llama.rope.scaling.type": "none"});
    assert_eq!(scaling(none), (RopeScaling::None, 1.0));
    let yarn = |over: Value| {
        let mut yarn = json!({
            "llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": 4.0,
            "llama.rope.scaling.original_context_length": 64
        });
        yarn.as_object_mut().unwrap().extend(over.as_object().unwrap().clone());
        scaling(yarn)
    };
    let expected =
        RopeScaling::Yarn { factor: 4.0, beta_fast: 32.0, beta_slow: 1.0, truncate: true, original_context: 64 };
    assert_eq!(yarn(json!({})), (expected.clone(), 1.0 + 0.1 * 4f32.ln()));
    assert_eq!(yarn(json!({"llama.rope.scaling.yarn_log_multiplier": 1.0})), (expected.clone(), 1.0));
    assert_eq!(yarn(json!({"llama.rope.scaling.yarn_attn_factor": 1.5})), (expected, 1.5));
}

#[test]
fn divisors_of_pairs_are_tensors() {
    let [short, long]: [&[f32]; 2] = [&[1.0; 8], &[2.0; 8]];
    let both = [("rope_factors_short.weight", short), ("rope_factors_long.weight", long)];
    let said = json!({"llama.rope.scaling.attn_factor": 1.5, "llama.rope.scaling.original_context_length": 64});
    let rope = read_with("llama", &said, &both).unwrap().ropes[0].clone();
    let expected = RopeScaling::LongRope { short: short.to_vec(), long: long.to_vec(), original_context: 64 };
    assert_eq!((rope.scaling, rope.attention_factor), (expected, 1.5));
    let divisors = [("rope_freqs.weight", long)];
    let rope = read_with("llama", &json!({}), &divisors).unwrap().ropes[0].clone();
    assert_eq!(rope.scaling, RopeScaling::Divisors(long.to_vec()));
    let factor = json!({"llama.rope.scaling.factor": 4.0});
    let few: &[f32] = &[1.0; 3];
    /// Metadata, tensors, and words of the error.
    type Case<'a> = (&'a Value, &'a [(&'a str, &'a [f32])], &'a [&'a str]);
    let cases: [Case<'_>; 4] = [
        (&said, &both[..1], &["rope_factors_long.weight"]),
        (&factor, &both, &["llama.rope.scaling.factor", "1.0"]),
        (&factor, &divisors, &["rope_freqs.weight"]),
        (&json!({}), &[("rope_freqs.weight", few)], &["rope_freqs.weight", "8 values"]),
    ];
    for (over, tensors, words) in cases {
        let message = read_with("llama", over, tensors).unwrap_err().to_string();
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
    }
}

#[test]
fn what_llama_cpp_takes_for_granted_is_taken() {
    let windows = |architecture: &Architecture| -> Vec<Option<usize>> {
        architecture.layers.iter().take(4).map(|layer| layer.attention().unwrap().window).collect()
    };
    let gemma2 = |layers: usize| {
        let said = json!({"gemma2.block_count": layers, "gemma2.attention.key_length": 64});
        read_with("gemma2", &said, &[]).unwrap()
    };
    let (small, large) = (gemma2(4), gemma2(46));
    assert_eq!(windows(&small), [Some(4096), None, Some(4096), None], "the first files do not say it");
    assert_eq!((small.layers[0].attention().unwrap().soft_cap, small.head.soft_cap), (Some(50.0), Some(30.0)));
    assert_eq!((small.layers[0].attention().unwrap().scale, large.layers[0].attention().unwrap().scale), (0.125, 0.25));
    assert_eq!(small.embedding_scale, 8.0);

    let gemma3 = json!({"gemma3.block_count": 7, "gemma3.attention.sliding_window": 8, "gemma3.rope.freq_base": 1e6});
    let gemma3 = read_with("gemma3", &gemma3, &[]).unwrap();
    assert_eq!((gemma3.ropes[0].theta, gemma3.ropes[1].theta), (1e6, 10_000.0));
    assert_eq!(
        (gemma3.layers[4].attention().unwrap().window, gemma3.layers[5].attention().unwrap().window),
        (Some(8), None)
    );
    assert_eq!(
        (gemma3.layers[4].attention().unwrap().rope, gemma3.layers[5].attention().unwrap().rope),
        (Some(1), Some(0))
    );

    let exaone = |layers: usize| read_with("exaone4", &json!({"exaone4.block_count": layers}), &[]).unwrap();
    assert_eq!(windows(&exaone(64)), [Some(4096), Some(4096), Some(4096), None]);
    assert_eq!((windows(&exaone(30)), exaone(30).layers[3].attention().unwrap().rope), (vec![None; 4], Some(0)));

    let granite = |over: Value| read_with("granite", &over, &[]);
    let plain = granite(json!({"granite.logit_scale": 8.0})).unwrap();
    assert_eq!(
        (plain.layers[0].attention().unwrap().scale, plain.head.scale, plain.embedding_scale),
        (0.25, 0.125, 1.0)
    );
    let unturned = json!({"granite.logit_scale": 8.0, "granite.rope.scaling.finetuned": false});
    assert!(granite(unturned).unwrap_err().to_string().contains("granite.rope.scaling.finetuned"));

    let cohere2 = read_with("cohere2", &json!({"cohere2.logit_scale": 0.5}), &[]).unwrap_err().to_string();
    assert!(cohere2.contains("cohere2.attention.sliding_window") && cohere2.contains("missing"), "{cohere2}");
    let warmer = json!({
        "mistral3.attention.temperature_scale": 0.1, "mistral3.rope.scaling.original_context_length": 128
    });
    assert_eq!(read_with("mistral3", &warmer, &[]).unwrap().context_length, 128);
    let smollm3 = read_with("smollm3", &json!({"smollm3.block_count": 8}), &[]).unwrap();
    let turned: Vec<_> = smollm3.layers.iter().map(|layer| layer.attention().unwrap().rope.is_some()).collect();
    assert_eq!(turned, [true, true, true, false, true, true, true, false]);
}

#[test]
fn experts_are_those_of_the_metadata() {
    let read = |over: Value| read_with("qwen3moe", &over, &[]);
    let experts = json!({"qwen3moe.expert_count": 8, "qwen3moe.expert_used_count": 2});
    let block = read(experts.clone()).unwrap().layers[1].feed_forward.clone();
    let of = block.experts.unwrap();
    assert_eq!((of.count, of.used, of.normalized, block.size), (8, 2, true, 64), "the width of a block, over all used");
    let with = |key: &str, value: Value| {
        let mut all = experts.clone();
        all[key] = value;
        read(all)
    };
    assert_eq!(with("qwen3moe.expert_feed_forward_length", json!(48)).unwrap().layers[0].feed_forward.size, 48);
    for (key, value) in [
        ("qwen3moe.expert_count", json!(0)),
        ("qwen3moe.expert_used_count", json!(0)),
        ("qwen3moe.expert_shared_count", json!(1)),
        ("qwen3moe.expert_feed_forward_length", json!([48, 64])),
    ] {
        let message = with(key, value).unwrap_err().to_string();
        assert!(message.contains(key), "{message}");
    }
    let other = read_with("gemma4", &json!({}), &[]).unwrap_err().to_string();
    assert!(other.contains("gemma4") && other.contains("qwen3moe"), "{other}");
}

#[test]
fn biases_are_those_that_the_first_layer_has() {
    let one: &[f32] = &[0.0];
    let model = read_with("qwen2", &json!({}), &[("blk.0.attn_v.bias", one)]).unwrap();
    for layer in &model.layers {
        let biases: Vec<_> = layer.linears().map(|linear| linear.bias).collect();
        assert_eq!(biases, [false, false, true, false, false, false, false]);
    }
    let fused = read_with("llama", &json!({}), &[("blk.0.attn_qkv.bias", one)]).unwrap();
    assert!(
        fused.layers[1].attention().unwrap().qkv.iter().all(|linear| linear.bias)
            && !fused.layers[1].attention().unwrap().output.bias
    );
}

/// Models of each family as llama.cpp's conversion describes them; made by `tests/fixtures/make_gguf_families.py`.
const FAMILIES: &[u8] = include_bytes!("../../../tests/fixtures/gguf_families.json");

/// Places where two descriptions differ.
fn differences(path: &str, found: &Value, expected: &Value) -> Vec<String> {
    match (found, expected) {
        (Value::Object(a), Value::Object(b)) if a.len() == b.len() => {
            a.iter().flat_map(|(key, a)| differences(&format!("{path}.{key}"), a, &b[key])).collect()
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            let pairs = a.iter().zip(b).enumerate();
            pairs.flat_map(|(index, (a, b))| differences(&format!("{path}.{index}"), a, b)).collect()
        }
        (a, b) if a == b => Vec::new(),
        (a, b) => vec![format!("{path}: {a}, expected {b}")],
    }
}

#[test]
fn metadata_of_every_family_describe_the_model_of_its_config() {
    let models: Vec<Value> = serde_json::from_slice(FAMILIES).unwrap();
    let mut seen = Vec::new();
    for model in &models {
        let name = model["name"].as_str().unwrap();
        let mut table = Table::default();
        for (tensor, shape) in model["tensors"].as_object().unwrap() {
            let shape: Vec<usize> = serde_json::from_value(shape.clone()).unwrap();
            let values = model["factors"].get(tensor).cloned().unwrap_or(json!([]));
            table.0.insert(tensor.clone(), (shape, serde_json::from_value(values).unwrap()));
        }
        let mut expected =
            crate::families::from_hugging_face("config.json", model["config"].as_object().unwrap()).unwrap();
        let mut found = crate::families::from_gguf("m.gguf", model["metadata"].as_object().unwrap(), &table)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        for spec in
            found.tensors().iter().filter(|spec| !spec.gguf.starts_with("blk.") || spec.gguf.starts_with("blk.0."))
        {
            // The experts of a layer are one tensor.
            let experts = spec.stack.as_ref().map(|stack| stack.shape[0]);
            if spec.stack.as_ref().is_some_and(|stack| stack.expert > 0) {
                continue;
            }
            let (shape, _) = table.0.remove(&spec.gguf).unwrap_or_else(|| panic!("{name}: no {}", spec.gguf));
            let mut expected: Vec<_> = experts.into_iter().chain(spec.shape.iter().copied()).collect();
            if spec.transform == Transform::Convolution {
                expected.remove(1);
            }
            assert_eq!(shape, expected, "{name}: {}", spec.gguf);
        }
        table.0.retain(|tensor, _| !OF_METADATA.contains(&tensor.as_str()));
        assert!(table.0.is_empty(), "{name}: {:?} are left out", table.0.keys());
        let pairs = found.layers[0].mixer.inputs()[0].gguf_pairs.is_some();
        assert_eq!(model["pairs"], pairs, "{name}: order of rows");
        if expected.family == "mistral" {
            expected.family = "llama".to_owned();
        }
        seen.push(expected.family.clone());
        assert_same(name, &mut found, &mut expected);
    }
    for reader in crate::families::GGUF {
        assert!(seen.iter().any(|family| family == reader.model_type), "{} is not in the table", reader.architecture);
    }
    assert!(seen.contains(&"olmo3".to_owned()), "files of OLMo 2 with windows");
}

/// Compares descriptions, except for the layout of files. Scalings may be written in other words, for the same frequencies.
fn assert_same(name: &str, found: &mut Architecture, expected: &mut Architecture) {
    assert_eq!(found.ropes.len(), expected.ropes.len(), "{name}");
    for (found, expected) in found.ropes.iter_mut().zip(&mut expected.ropes) {
        for context in [16, 1 << 16] {
            for (a, b) in found.inv_freq(context).iter().zip(expected.inv_freq(context)) {
                assert!((a / b - 1.0).abs() < 1e-6, "{name}: {found:?}, expected {expected:?}");
            }
        }
        found.scaling = expected.scaling.clone();
        assert!((found.theta / expected.theta - 1.0).abs() < 1e-6, "{name}: {}", found.theta);
        found.theta = expected.theta;
    }
    found.each(|_, layer| linears_mut(layer).for_each(|linear| linear.gguf_pairs = None));
    let json = |architecture: &Architecture| serde_json::to_value(architecture).unwrap();
    let differences = differences(name, &json(found), &json(expected));
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
