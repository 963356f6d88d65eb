//! Quantised Hugging Face folders: every method's weights bit for bit, and what each kind of damage is called.
//!
//! The parts, and what a reader must give for them, are made by `tests/fixtures/make_quantized.py`.
#![allow(clippy::unwrap_used)] // helpers of tests say what they expect, as tests do

mod support;

use std::path::Path;

use serde_json::{Value, json};
use slm_convert::Checkpoint;
use support::{
    Tensors, assert_says, bytes, copy, edit, edit_tensors, fixture, parity, read_tensors, values, write_tensors,
};
use tempfile::TempDir;

/// Modules of the tiny Llama that become quantised: all with the shape of the fixtures.
const MODULES: [&str; 4] = [
    "model.layers.0.self_attn.k_proj",
    "model.layers.0.self_attn.v_proj",
    "model.layers.1.self_attn.k_proj",
    "model.layers.1.self_attn.v_proj",
];
const WEIGHT: &str = "model.layers.1.self_attn.k_proj.weight";

fn settings(case: &str) -> Value {
    let all: Value = serde_json::from_slice(&std::fs::read(fixture("quantized.json")).unwrap()).unwrap();
    all[case].clone()
}

/// The parts of a case, and the weights for them.
fn parts(case: &str) -> (Tensors, Vec<f32>) {
    let prefix = format!("{case}/");
    let all = read_tensors(&fixture("quantized.safetensors"));
    let of = all.into_iter().filter_map(|(name, tensor)| Some((name.strip_prefix(&prefix)?.to_owned(), tensor)));
    let mut parts: Tensors = of.collect();
    let expected = values(&parts.remove("expected").unwrap().2);
    (parts, expected)
}

/// A tiny Llama whose keys and values are quantised as in a case.
fn folder(case: &str) -> TempDir {
    let dir = copy(&parity().join("llama"));
    edit(&dir.path().join("config.json"), &json!({"quantization_config": settings(case)}));
    let (parts, _) = parts(case);
    edit_tensors(&dir.path().join("model.safetensors"), |tensors| {
        for module in MODULES {
            tensors.remove(&format!("{module}.weight")).unwrap();
            tensors.extend(parts.iter().map(|(name, part)| (format!("{module}.{name}"), part.clone())));
        }
    });
    dir
}

/// The error for a case whose parts of one weight, or whose settings, were changed.
fn refusal(case: &str, settings: &Value, change: impl FnOnce(&mut Tensors)) -> String {
    let dir = folder(case);
    let mut config = self::settings(case);
    config.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    edit(&dir.path().join("config.json"), &json!({"quantization_config": config}));
    edit_tensors(&dir.path().join("model.safetensors"), change);
    Checkpoint::open(dir.path()).map(|_| case.to_owned()).unwrap_err().to_string()
}

fn refused(folder: &Path) -> String {
    Checkpoint::open(folder).unwrap_err().to_string()
}

fn part<'t>(tensors: &'t mut Tensors, name: &str) -> &'t mut (String, Vec<usize>, Vec<u8>) {
    tensors.get_mut(&format!("model.layers.1.self_attn.k_proj.{name}")).unwrap()
}

fn assert_gives(folder: &Path, case: &str) {
    let model = Checkpoint::open(folder).map_err(|error| format!("{case}: {error}")).unwrap();
    let expected = parts(case).1;
    for module in MODULES {
        let tensor = model.tensor(&format!("{module}.weight")).unwrap();
        assert_eq!(tensor.shape, [32, 64], "{case}");
        for (index, (value, expected)) in tensor.data.iter().zip(&expected).enumerate() {
            assert_eq!(value.to_bits(), expected.to_bits(), "{case}: weight {index} is {value}, not {expected}");
        }
    }
    let plain = read_tensors(&parity().join("llama/model.safetensors"));
    let name = "model.layers.0.self_attn.q_proj.weight";
    assert_eq!((model.tensor(name).unwrap().data, model.native_bits(name)), (values(&plain[name].2), None), "{case}");
}

#[test]
fn every_format_gives_the_very_weights_of_its_package() {
    let all: Value = serde_json::from_slice(&std::fs::read(fixture("quantized.json")).unwrap()).unwrap();
    let cases: Vec<&String> = all.as_object().unwrap().keys().collect();
    assert_eq!(cases.len(), 31);
    for case in cases {
        assert_gives(folder(case).path(), case);
    }
}

#[test]
fn weights_say_their_bits() {
    let bits = |case: &str| Checkpoint::open(folder(case).path()).unwrap().native_bits(WEIGHT);
    for (case, expected) in [
        ("fp8_block", 8),
        ("bnb_nf4", 4),
        ("bnb_int8", 8),
        ("gptq_2", 2),
        ("gptq_3", 3),
        ("gptq_8", 8),
        ("awq", 4),
        ("ct_pack_4", 4),
        ("ct_int_8", 8),
        ("ct_nvfp4", 4),
    ] {
        assert_eq!(bits(case), Some(expected), "{case}");
    }
}

#[test]
fn parts_may_lie_in_several_shards() {
    for case in ["gptq_4_order", "bnb_nf4_nested", "ct_pack_4_asym"] {
        let dir = folder(case);
        let path = dir.path().join("model.safetensors");
        let mut shards = [Tensors::new(), Tensors::new(), Tensors::new()];
        let mut map = serde_json::Map::new();
        for (index, (name, tensor)) in read_tensors(&path).into_iter().enumerate() {
            map.insert(name.clone(), json!(format!("{}.safetensors", index % 3)));
            shards[index % 3].insert(name, tensor);
        }
        std::fs::remove_file(&path).unwrap();
        for (index, shard) in shards.iter().enumerate() {
            write_tensors(&dir.path().join(format!("{index}.safetensors")), shard);
        }
        std::fs::write(dir.path().join("model.safetensors.index.json"), json!({"weight_map": map}).to_string())
            .unwrap();
        assert_gives(dir.path(), case);
    }
}

#[test]
fn settings_in_a_file_of_their_own_are_read() {
    for (case, name, own) in [
        ("gptq_4_order", "quantize_config.json", json!({"bits": 4, "group_size": 32, "desc_act": true, "sym": false})),
        ("awq", "quant_config.json", json!({"w_bit": 4, "q_group_size": 32, "zero_point": true, "version": "GEMM"})),
    ] {
        let dir = folder(case);
        edit(&dir.path().join("config.json"), &json!({"quantization_config": null}));
        let before = refused(dir.path());
        assert_says(&before, &["k_proj.weight`", "missing"]);
        std::fs::write(dir.path().join(name), own.to_string()).unwrap();
        assert_gives(dir.path(), case);
        edit(&dir.path().join(name), &json!({"w_bit": 3, "bits": 7}));
        assert_says(&refused(dir.path()), &[name, "bits"]);
    }
}

#[test]
fn nested_maxima_have_blocks_and_weights_another_storage() {
    let dir = folder("bnb_nf4_nested");
    let (_, expected) = parts("bnb_nf4_nested");
    let state = "weight.quant_state.bitsandbytes__nf4";
    edit_tensors(&dir.path().join("model.safetensors"), |tensors| {
        let json = String::from_utf8(part(tensors, state).2.clone()).unwrap();
        let json = json.replace("\"nested_blocksize\": 256", "\"nested_blocksize\": 8").into_bytes();
        *part(tensors, state) = ("U8".to_owned(), vec![json.len()], json);
        let one = values(&part(tensors, "weight.nested_absmax").2)[0];
        let four = ("F32".to_owned(), vec![4], bytes(&[one, 0.0, one, one]));
        *part(tensors, "weight.nested_absmax") = four;
        let weight = part(tensors, "weight");
        (weight.0, weight.1) = ("BF16".to_owned(), vec![512, 1]);
    });
    let weights = Checkpoint::open(dir.path()).unwrap().tensor(WEIGHT).unwrap().data;
    // The second eight of 32 maxima are the offset alone now.
    assert_eq!((&weights[..512], &weights[1024..]), (&expected[..512], &expected[1024..]));
    assert!(weights[512..1024] != expected[512..1024]);
}

#[test]
fn methods_and_settings_that_are_not_read_are_refused_by_name() {
    let nothing = |_: &mut Tensors| {};
    for method in ["aqlm", "quip", "hqq", "eetq", "torchao", "mxfp4", "modelopt"] {
        let message = refusal("gptq_4", &json!({ "quant_method": method }), nothing);
        assert_says(
            &message,
            &["quantization_config.quant_method", method, "fp8", "bitsandbytes", "gptq", "awq", "compressed"],
        );
    }
    for (case, settings, field, words) in [
        ("gptq_4", json!({"bits": 5}), "bits", "2, 3, 4, 8"),
        ("gptq_4", json!({"checkpoint_format": "marlin"}), "checkpoint_format", "gptq_v2"),
        ("gptq_4", json!({"dynamic": {"-:.*k_proj": {}}}), "dynamic", "one setting"),
        ("gptq_4", json!({"group_size": 0}), "group_size", "-1 for all"),
        ("awq", json!({"version": "gemv"}), "version", "gemm"),
        ("awq", json!({"bits": 8}), "bits", "4"),
        ("fp8_block", json!({"weight_block_size": [128]}), "weight_block_size", "rows and columns"),
        ("fp8_block", json!({"weight_block_size": [0, 128]}), "weight_block_size", "rows and columns"),
        ("ct_pack_4", json!({"format": "marlin-24"}), "format", "pack-quantized"),
        ("ct_pack_4", json!({"transform_config": {"R1": {}}}), "transform_config", "rotations"),
        ("ct_pack_4", json!({"sparsity_config": {"format": "sparse-24-bitmask"}}), "sparsity_config.format", "dense"),
        ("ct_pack_4", json!({"config_groups": null}), "config_groups", "missing"),
        ("ct_pack_4", json!({"ignore": ["re:("]}), "ignore", "regular expression"),
        ("fp8_block", json!({"quant_method": null}), "quant_method", "missing"),
    ] {
        let message = refusal(case, &settings, nothing);
        assert_says(&message, &["config.json", &format!("quantization_config.{field}"), words]);
    }
}

#[test]
fn a_part_that_is_missing_is_named() {
    for (case, name) in [
        ("fp8_block", "weight_scale_inv"),
        ("bnb_nf4_nested", "weight.quant_map"),
        ("bnb_nf4_nested", "weight.nested_absmax"),
        ("bnb_nf4_nested", "weight.quant_state.bitsandbytes__nf4"),
        ("bnb_nf4", "weight.absmax"),
        ("bnb_int8", "SCB"),
        ("gptq_4", "qweight"),
        ("gptq_4", "scales"),
        ("awq", "qzeros"),
        ("ct_pack_4_asym", "weight_zero_point"),
        ("ct_pack_4", "weight_packed"),
        ("ct_pack_4", "weight_shape"),
        ("ct_int_8", "weight_scale"),
        ("ct_nvfp4", "weight_global_scale"),
    ] {
        let message = refusal(case, &json!({}), |tensors| {
            tensors.remove(&format!("model.layers.1.self_attn.k_proj.{name}")).unwrap();
        });
        assert_says(&message, &[&format!("`model.layers.1.self_attn.k_proj.{name}`"), "missing"]);
    }
}

#[test]
fn parts_that_do_not_fit_each_other_are_named() {
    let shape = |shape: &[usize]| {
        let shape = shape.to_vec();
        move |tensors: &mut Tensors, name: &str| part(tensors, name).1 = shape
    };
    for (case, name, changed, words) in [
        ("fp8_block", "weight_scale_inv", shape(&[4, 1]), "expected [2, 2] for blocks of 16 x 32"),
        ("fp8_channel", "weight_scale", shape(&[2, 16]), "[32, 1] for one scale or one a row"),
        ("fp8_block", "weight", shape(&[64, 32]), "expected [32, 64]"),
        ("bnb_nf4", "weight.absmax", shape(&[16, 2]), "expected [32] for blocks of 64 weights"),
        ("bnb_int8", "SCB", shape(&[32, 1]), "expected [32]"),
        ("gptq_4", "qweight", shape(&[4, 64]), "expected [8, 32] for 4 bits"),
        ("gptq_4", "qzeros", shape(&[8]), "expected [2, 4] for groups of 32 inputs"),
        ("gptq_4", "g_idx", shape(&[8, 8]), "expected [64]"),
        ("awq", "scales", shape(&[4, 16]), "expected [2, 32]"),
        ("ct_pack_4", "weight_packed", shape(&[16, 16]), "expected [32, 8] for 64 inputs of 4 bits"),
        ("ct_pack_4_asym", "weight_zero_point", shape(&[2, 4]), "expected [4, 2]"),
        ("ct_mxfp4", "weight_scale", shape(&[64]), "expected [32, 2]"),
    ] {
        let message = refusal(case, &json!({}), |tensors| changed(tensors, name));
        assert_says(&message, &["model.safetensors", &format!("k_proj.{name}` has shape"), words]);
    }
    for (case, name, dtype, words) in [
        ("fp8_block", "weight_scale_inv", "I32", "F32, F16, BF16, F8_E8M0, U8"),
        ("bnb_nf4", "weight.quant_map", "I32", "F32"),
        ("gptq_4", "qweight", "F32", "I32"),
        ("gptq_4", "scales", "I16", "F32, F16, BF16"),
        ("ct_pack_4", "weight_packed", "F32", "I32"),
        ("ct_float_tensor", "weight", "I8", "F8_E4M3, F8_E5M2"),
        ("ct_int_8", "weight", "U8", "I8"),
    ] {
        let message = refusal(case, &json!({}), |tensors| part(tensors, name).0 = dtype.to_owned());
        assert_says(&message, &[&format!("k_proj.{name}` is of type {dtype}; expected {words}")]);
    }
}

#[test]
fn groups_and_settings_within_tensors_are_checked() {
    let message = refusal("gptq_4", &json!({"group_size": 48}), |_| {});
    assert_says(&message, &["qweight", "64 inputs, which do not divide into groups of 48"]);
    for (at, group, shown) in [(63, 2i32, "input 63 into group 2 of 2"), (0, -1, "input 0 into group -1 of 2")] {
        let message = refusal("gptq_4_order", &json!({}), |tensors| {
            part(tensors, "g_idx").2[4 * at..4 * at + 4].copy_from_slice(&group.to_le_bytes());
        });
        assert_says(&message, &["k_proj.g_idx`", shown]);
    }
    let state = "weight.quant_state.bitsandbytes__nf4";
    let with = |json: &str| {
        let json = json.to_owned();
        refusal("bnb_nf4_nested", &json!({}), move |tensors| {
            *part(tensors, state) = ("U8".to_owned(), vec![json.len()], json.into_bytes());
        })
    };
    assert_says(&with("{"), &[state, "not a JSON object"]);
    assert_says(&with(r#"{"shape":[32,64]}"#), &[state, "`blocksize`"]);
    assert_says(&with(r#"{"shape":[32,64],"blocksize":0}"#), &[state, "`blocksize`: 0"]);
    assert_says(&with(r#"{"shape":[64,32],"blocksize":64}"#), &[state, "[64,32]", "[32, 64]"]);
    assert_says(&with(r#"{"shape":[32,64],"blocksize":64}"#), &[state, "`nested_blocksize`"]);
    assert_says(&with(r#"{"shape":[32,64],"blocksize":64,"nested_blocksize":8}"#), &[state, "`nested_offset`"]);
    assert_says(&with(&format!("\"{}\"", "x".repeat(1 << 16))), &[state, "65536 at most"]);
    let message = refusal("bnb_nf4", &json!({}), |tensors| {
        *part(tensors, "weight") = ("U8".to_owned(), vec![1023, 1], vec![0; 1023]);
    });
    assert_says(&message, &["k_proj.weight` has 1023 bytes", "1024"]);
    let message = refusal("bnb_int8", &json!({}), |tensors| part(tensors, "weight_format").2 = vec![1]);
    assert_says(&message, &["weight_format", "newer bitsandbytes"]);
    let message = refusal("ct_pack_4", &json!({}), |tensors| part(tensors, "weight_shape").2[0] = 33);
    assert_says(&message, &["weight_shape", "[33, 64]", "[32, 64]"]);
    let message = refusal("ct_int_8", &json!({}), |tensors| {
        tensors.insert(WEIGHT.to_owned() + "_zero_point", ("I8".to_owned(), vec![32, 1], vec![1; 32]));
    });
    assert_says(&message, &["weight_zero_point", "symmetric"]);
}

#[test]
fn nothing_is_left_over_and_lists_of_plain_modules_hold() {
    let message = refusal("gptq_4", &json!({}), |tensors| {
        let more = part(tensors, "scales").clone();
        tensors.insert("model.layers.1.self_attn.k_proj.scales_2".to_owned(), more);
    });
    assert_says(&message, &["k_proj.scales_2", "no place"]);
    for (case, key) in
        [("fp8_block", "modules_to_not_convert"), ("bnb_nf4", "llm_int8_skip_modules"), ("fp8_block", "ignored_layers")]
    {
        let message = refusal(case, &json!({ key: ["lm_head", "self_attn.k_proj"] }), |_| {});
        assert_says(&message, &["k_proj.weight", key]);
    }
    let message = refusal("ct_pack_4", &json!({"ignore": ["re:.*k_proj"]}), |_| {});
    assert_says(&message, &["k_proj.weight`", "missing"]);
    // Layers without a bias have one of zeros in older files.
    let bias = |value: f32| {
        let dir = folder("gptq_4");
        edit_tensors(&dir.path().join("model.safetensors"), |tensors| {
            tensors.insert(format!("{}.bias", MODULES[0]), ("F32".to_owned(), vec![32], bytes(&[value; 32])));
        });
        Checkpoint::open(dir.path()).map(|_| ()).map_err(|error| error.to_string())
    };
    assert_eq!(bias(0.0), Ok(()));
    assert_says(&bias(1.0).unwrap_err(), &["k_proj.bias", "no place"]);
}

#[test]
fn groups_of_modules_have_their_own_schemes() {
    let dir = folder("ct_pack_4");
    let (four, eight) = (settings("ct_pack_4"), settings("ct_float_channel"));
    let mut groups = json!({"all": eight["config_groups"]["group_0"], "keys": four["config_groups"]["group_0"]});
    groups["all"]["format"] = json!("float-quantized");
    groups["keys"]["targets"] = json!([r"re:.*layers\.\d+\.self_attn\.k"]);
    groups["keys"]["format"] = json!("pack-quantized");
    let config = json!({"quant_method": "compressed-tensors", "format": "mixed-precision", "config_groups": groups,
        "ignore": ["lm_head", "re:.*[qo]_proj"]});
    edit(&dir.path().join("config.json"), &json!({"quantization_config": null, "compression_config": config}));
    let (parts, expected) = parts("ct_float_channel");
    edit_tensors(&dir.path().join("model.safetensors"), |tensors| {
        tensors.retain(|name, _| !name.contains("v_proj"));
        for module in [MODULES[1], MODULES[3]] {
            tensors.extend(parts.iter().map(|(name, part)| (format!("{module}.{name}"), part.clone())));
        }
    });
    let model = Checkpoint::open(dir.path()).unwrap();
    assert_eq!(model.tensor("model.layers.0.self_attn.v_proj.weight").unwrap().data, expected);
    assert_eq!(model.tensor(WEIGHT).unwrap().data, self::parts("ct_pack_4").1);
}

#[test]
fn groups_in_activation_order_and_unpacked_zero_points_of_older_files_are_read() {
    let order: Vec<u32> = (0..64).map(|input| (input * 7 % 64) / 32).collect();
    let ordered = |order: Vec<u32>| {
        let dir = folder("ct_pack_4");
        edit_tensors(&dir.path().join("model.safetensors"), |tensors| {
            let bytes = order.iter().flat_map(|group| group.to_le_bytes()).collect();
            tensors.insert(WEIGHT.to_owned() + "_g_idx", ("I32".to_owned(), vec![64], bytes));
        });
        Checkpoint::open(dir.path()).map(|model| model.tensor(WEIGHT).unwrap().data).map_err(|error| error.to_string())
    };
    let (parts, expected) = parts("ct_pack_4");
    assert_eq!(ordered(vec![u32::MAX; 64]).unwrap(), expected, "a list that was never filled");
    let scale = |group: u32| {
        f32::from_bits(
            u32::from(u16::from_le_bytes([
                parts["weight_scale"].2[2 * group as usize],
                parts["weight_scale"].2[2 * group as usize + 1],
            ])) << 16,
        )
    };
    let row: Vec<f32> = (0..64).map(|input| expected[input] / scale(input as u32 / 32) * scale(order[input])).collect();
    let got = ordered(order).unwrap();
    for (got, want) in got[..64].iter().zip(row) {
        assert!((got - want).abs() <= 1e-6 * want.abs(), "{got} {want}");
    }
    assert_says(&ordered(vec![2; 64]).unwrap_err(), &["weight_g_idx", "group 2 of 2"]);

    let dir = folder("ct_pack_4_asym");
    edit_tensors(&dir.path().join("model.safetensors"), |tensors| {
        let (kind, shape, words) = part(tensors, "weight_zero_point");
        let word = |at: usize| u32::from_le_bytes(words[4 * at..4 * at + 4].try_into().unwrap());
        let zero = |output: usize, group: usize| (word(output / 8 * 2 + group) >> (4 * (output % 8)) & 15) as u8;
        let bytes = (0..64).map(|at| zero(at / 2, at % 2).wrapping_sub(8)).collect();
        (*kind, *shape, *words) = ("I8".to_owned(), vec![32, 2], bytes);
    });
    let model = Checkpoint::open(dir.path()).unwrap();
    assert_eq!(model.tensor(WEIGHT).unwrap().data, self::parts("ct_pack_4_asym").1);
}

#[test]
fn what_only_concerns_activations_is_noted() {
    let dir = folder("ct_int_8");
    let mut config = settings("ct_int_8");
    config["config_groups"]["group_0"]["input_activations"] = json!({"num_bits": 8});
    config["kv_cache_scheme"] = json!({"num_bits": 8});
    edit(&dir.path().join("config.json"), &json!({ "quantization_config": config }));
    edit_tensors(&dir.path().join("model.safetensors"), |tensors| {
        for name in ["self_attn.k_proj.input_scale", "self_attn.k_scale", "self_attn.v_scale"] {
            tensors.insert(format!("model.layers.0.{name}"), ("F32".to_owned(), vec![1], bytes(&[1.0])));
        }
    });
    let notes = Checkpoint::open(dir.path()).unwrap().notes().join("\n");
    assert_says(
        &notes,
        &["group_0.input_activations is not used", "kv_cache_scheme is not used", "scales of quantised activations"],
    );
    let notes = Checkpoint::open(folder("fp8_block").path()).unwrap().notes().join("\n");
    assert_says(&notes, &["activation_scheme is not used"]);
    let notes = Checkpoint::open(folder("ct_int_8").path()).unwrap().notes().join("\n");
    assert!(!notes.contains("not used"), "{notes}");
}
