//! Models with experts: how checkpoints hold them, what is refused, and what of them adapters can change.
#![allow(clippy::unwrap_used)] // helpers of tests say what they expect, as tests do

mod support;

use serde_json::json;
use slm_convert::Checkpoint;
use slm_convert::estimate::Estimate;
use slm_convert::graph::{self, Flavour, Precision};
use slm_convert::peft::Adapter;
use support::{Tensors, assert_says, copy, edit, edit_tensors, parity, read_tensors};
use tempfile::TempDir;

const COUNT: usize = 3;
const SIZE: usize = 16;
const HIDDEN: usize = 64;
const HEAD_DIM: usize = 16;

/// The parity model of Llama, made one of Qwen 3 with experts in every layer but the first.
fn model() -> TempDir {
    let dir = copy(&parity().join("llama"));
    let config = json!({"model_type": "qwen3_moe", "num_experts": COUNT, "num_experts_per_tok": 2,
        "moe_intermediate_size": SIZE, "mlp_only_layers": [0], "norm_topk_prob": true});
    edit(&dir.path().join("config.json"), &config);
    edit_tensors(&dir.path().join("model.safetensors"), |tensors| {
        let blocks = |suffix: &str| -> Vec<String> {
            tensors.keys().filter_map(|name| Some(name.strip_suffix(suffix)?.to_owned())).collect()
        };
        let (attention, blocks) = (blocks("q_proj.weight"), blocks("gate_proj.weight"));
        for (block, norm) in attention.iter().flat_map(|block| [(block, "q_norm"), (block, "k_norm")]) {
            tensors.insert(format!("{block}{norm}.weight"), floats(&[HEAD_DIM], 0));
        }
        for block in blocks.iter().filter(|block| !block.contains("layers.0.")) {
            tensors.retain(|name, _| !name.starts_with(block.as_str()));
            tensors.insert(format!("{block}gate.weight"), floats(&[COUNT, HIDDEN], 1));
            for expert in 0..COUNT {
                let mut add = |name: &str, shape: [usize; 2], seed: usize| {
                    tensors
                        .insert(format!("{block}experts.{expert}.{name}.weight"), floats(&shape, 10 * expert + seed));
                };
                add("gate_proj", [SIZE, HIDDEN], 2);
                add("up_proj", [SIZE, HIDDEN], 3);
                add("down_proj", [HIDDEN, SIZE], 4);
            }
        }
    });
    dir
}

fn floats(shape: &[usize], seed: usize) -> (String, Vec<usize>, Vec<u8>) {
    let values = (0..shape.iter().product()).map(|i: usize| ((i + seed) * 7919 % 997) as f32 / 997.0 - 0.5);
    ("F32".to_owned(), shape.to_vec(), values.flat_map(f32::to_le_bytes).collect())
}

/// The matrices of all experts in two tensors of each layer, as transformers 5 has them in memory.
fn stacked(tensors: &mut Tensors) {
    let blocks: Vec<String> =
        tensors.keys().filter_map(|name| Some(name.strip_suffix("0.gate_proj.weight")?.to_owned())).collect();
    for block in blocks {
        let (mut up, mut down) = (Vec::new(), Vec::new());
        for expert in 0..COUNT {
            let mut take = |name: &str| tensors.remove(&format!("{block}{expert}.{name}.weight")).unwrap().2;
            up.extend([take("gate_proj"), take("up_proj")].concat());
            down.extend(take("down_proj"));
        }
        tensors.insert(format!("{block}gate_up_proj"), ("F32".to_owned(), vec![COUNT, 2 * SIZE, HIDDEN], up));
        tensors.insert(format!("{block}down_proj"), ("F32".to_owned(), vec![COUNT, HIDDEN, SIZE], down));
    }
}

fn refusal(change: impl FnOnce(&mut Tensors)) -> String {
    let dir = model();
    edit_tensors(&dir.path().join("model.safetensors"), change);
    Checkpoint::open(dir.path()).unwrap_err().to_string()
}

#[test]
fn experts_of_their_own_and_all_in_one_tensor_are_the_same_model() {
    let (own, together) = (model(), model());
    edit_tensors(&together.path().join("model.safetensors"), stacked);
    let [own, together] = [&own, &together].map(|dir| Checkpoint::open(dir.path()).unwrap());
    assert_eq!(own.architecture(), together.architecture());
    assert!(own.architecture().layers[0].feed_forward.experts.is_none());
    assert!(own.architecture().layers[1].feed_forward.experts.as_ref().is_some_and(|experts| experts.normalized));
    for expert in 0..COUNT {
        for name in ["gate_proj", "up_proj", "down_proj"] {
            let name = format!("model.layers.1.mlp.experts.{expert}.{name}.weight");
            assert_eq!(own.tensor(&name).unwrap(), together.tensor(&name).unwrap(), "{name}");
        }
    }
    for precision in [Precision::F32, Precision::Int4, Precision::Int8] {
        let built = [&own, &together].map(|checkpoint| {
            let dir = tempfile::tempdir().unwrap();
            graph::build(checkpoint, Flavour::paged(precision), dir.path(), &mut |_, _| ()).unwrap();
            ["model.onnx", "model.onnx.data"].map(|file| std::fs::read(dir.path().join(file)).unwrap())
        });
        assert!(built[0] == built[1], "{precision}");
    }
}

/// Gates and values of all experts become whole numbers with one scale a row, but for those of `plain`.
fn quantised(plain: Option<usize>) -> TempDir {
    let dir = model();
    let weights = json!({"num_bits": 4, "type": "int", "symmetric": true, "strategy": "channel"});
    let group = json!({"targets": ["Linear"], "weights": weights});
    let settings = json!({"quant_method": "compressed-tensors", "format": "int-quantized",
        "config_groups": {"group_0": group}, "ignore": ["lm_head"]});
    edit(&dir.path().join("config.json"), &json!({"quantization_config": settings}));
    edit_tensors(&dir.path().join("model.safetensors"), |tensors| {
        for expert in (0..COUNT).filter(|expert| Some(*expert) != plain) {
            for name in ["gate_proj", "up_proj"] {
                let module = format!("model.layers.1.mlp.experts.{expert}.{name}");
                let quants = (0..SIZE * HIDDEN).map(|i| ((i * 5 + expert) % 16) as u8).map(|q| q.wrapping_sub(8));
                let scales = (0..SIZE).flat_map(|_| 0.25f32.to_le_bytes()).collect();
                tensors.insert(format!("{module}.weight"), ("I8".to_owned(), vec![SIZE, HIDDEN], quants.collect()));
                tensors.insert(format!("{module}.weight_scale"), ("F32".to_owned(), vec![SIZE, 1], scales));
            }
        }
    });
    dir
}

#[test]
fn quantised_experts_are_carried_over_in_one_format_or_rounded_anew_together() {
    let (whole, mixed) = (quantised(None), quantised(Some(1)));
    let [whole, mixed] = [&whole, &mixed].map(|dir| Checkpoint::open(dir.path()).unwrap());
    let tensor = whole.tensor("model.layers.1.mlp.experts.2.up_proj.weight").unwrap();
    assert_eq!(tensor.data[..4], [-1.5, -0.25, 1.0, -1.75]);
    let formats = |checkpoint: &Checkpoint, precision| {
        let dir = tempfile::tempdir().unwrap();
        graph::build(checkpoint, Flavour::paged(precision), dir.path(), &mut |_, _| ()).unwrap();
        let graph = std::fs::read(dir.path().join("model.onnx")).unwrap();
        let holds = |format: &str| graph.windows(format.len()).any(|window| window == format.as_bytes());
        ["q4_scale32", "q4_min32", "q8_scale32"].map(holds)
    };
    // Other matrices are rounded, and tables have 8 bits.
    assert_eq!(formats(&whole, Precision::Int4), [true, true, true], "the experts' own 4 bits");
    assert_eq!(formats(&whole, Precision::Int8), [true, false, true], "the same");
    assert_eq!(formats(&mixed, Precision::Int4), [false, true, true], "one expert has floats");
    assert_eq!(formats(&mixed, Precision::Int8), [false, false, true]);
}

#[test]
fn a_step_reads_the_experts_of_one_token() {
    let dir = model();
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let estimate = Estimate::of(&checkpoint, Precision::F32);
    let architecture = checkpoint.architecture();
    let (expert, table) = (3 * SIZE * HIDDEN * 4, architecture.vocab_size * HIDDEN * 4);
    assert_eq!(estimate.unread_bytes, (expert + table) as u64, "one of three experts, and the embedding");
}

#[test]
fn damage_is_named() {
    let expert = "model.layers.1.mlp.experts.2.up_proj.weight";
    assert_says(&refusal(|tensors| drop(tensors.remove(expert))), &[expert, "missing"]);
    assert_says(
        &refusal(|tensors| drop(tensors.insert(expert.to_owned(), floats(&[SIZE, SIZE], 0)))),
        &[expert, "[16, 16]", "[16, 64]"],
    );
    let stack = "model.layers.1.mlp.experts.gate_up_proj";
    assert_says(
        &refusal(|tensors| {
            stacked(tensors);
            tensors.insert(stack.to_owned(), floats(&[COUNT, SIZE, HIDDEN], 0));
        }),
        &[stack, "[3, 16, 64]", "[3, 32, 64]"],
    );
    assert_says(&refusal(|tensors| drop(tensors.insert(stack.to_owned(), floats(&[1], 0)))), &[stack, "qwen3_moe"]);
    let fourth = "model.layers.1.mlp.experts.3.up_proj.weight";
    assert_says(&refusal(|tensors| drop(tensors.insert(fourth.to_owned(), floats(&[1], 0)))), &[fourth]);
    assert_says(&refusal(|tensors| drop(tensors.remove("model.layers.1.mlp.gate.weight"))), &["mlp.gate", "missing"]);
}

#[test]
fn adapters_change_attention_and_dense_layers_and_are_refused_for_experts() {
    let dir = model();
    let base = Checkpoint::open(dir.path()).unwrap();
    let adapters = parity().join("llama/adapters");
    let names: Vec<_> = read_tensors(&adapters.join("r8-attn/adapter_model.safetensors")).into_keys().collect();
    assert!(names.iter().all(|name| name.contains("self_attn")), "{names:?}");
    assert!(Adapter::open(&adapters.join("r8-attn"), base.architecture()).is_ok());
    let message = Adapter::open(&adapters.join("r4-all"), base.architecture()).unwrap_err().to_string();
    assert_says(&message, &["layers.1.mlp", "no projection that can be adapted"]);

    let attention = copy(&adapters.join("r8-attn"));
    let targets = json!({"target_modules": ["q_proj", "v_proj", "gate"]});
    edit(&attention.path().join("adapter_config.json"), &targets);
    let message = Adapter::open(attention.path(), base.architecture()).unwrap_err().to_string();
    assert_says(&message, &["model.layers.1.mlp.gate", "cannot be adapted", "q_proj"]);
}
