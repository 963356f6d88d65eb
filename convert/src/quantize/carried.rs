//! What becomes of the weights of quantised safetensors, whose fixtures `tests/fixtures/make_quantized.py` makes.

use std::path::Path;

use serde_json::{Map, Value, json};
use slm_kernels::Format;

use super::{Bits, quantize};
use crate::checkpoint::Checkpoint;
use crate::safetensors_file::SafetensorsFile;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");
const PARITY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/parity/data/llama");
const NAMES: [&str; 2] = ["model.layers.0.self_attn.k_proj", "model.layers.0.self_attn.v_proj"];

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The tiny Llama with keys and values as in a case.
fn model(case: &str, dir: &Path) -> Checkpoint {
    let mut config = json_of(&Path::new(PARITY).join("config.json"));
    config["quantization_config"] = json_of(&Path::new(FIXTURES).join("quantized.json"))[case].clone();
    std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
    let plain = SafetensorsFile::open(&Path::new(PARITY).join("model.safetensors")).unwrap();
    let parts = SafetensorsFile::open(&Path::new(FIXTURES).join("quantized.safetensors")).unwrap();
    let (mut header, mut data) = (Map::new(), Vec::new());
    let mut add = |name: String, file: &SafetensorsFile, from: &str| {
        let begin = data.len();
        data.extend_from_slice(file.data(from).unwrap());
        let (dtype, shape) = (file.dtype(from).unwrap(), &file.entry(from).unwrap().shape);
        header.insert(name, json!({"dtype": dtype, "shape": shape, "data_offsets": [begin, data.len()]}));
    };
    for name in plain.names().filter(|name| !NAMES.contains(&name.trim_end_matches(".weight"))) {
        add(name.to_owned(), &plain, name);
    }
    for name in parts.names() {
        let Some(part) = name.strip_prefix(case).and_then(|name| name.strip_prefix('/')) else { continue };
        for module in NAMES.iter().filter(|_| part != "expected") {
            add(format!("{module}.{part}"), &parts, name);
        }
    }
    let header = Value::Object(header).to_string();
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
    std::fs::write(dir.join("model.safetensors"), bytes).unwrap();
    Checkpoint::open(dir).unwrap()
}

/// Format of keys and values as one matrix, and the largest error of a weight relative to the largest of its row.
fn carried(case: &str, bits: Bits) -> (Format, f32) {
    let dir = tempfile::tempdir().unwrap();
    let model = model(case, dir.path());
    let names = NAMES.map(|name| format!("{name}.weight"));
    let [packed] = quantize(&model, &names, bits).unwrap().try_into().unwrap();
    let weights = packed.weights();
    assert_eq!((weights.inputs(), weights.outputs()), (64, 64), "{case}");
    let mut worst: f32 = 0.0;
    let mut column = [0.0; 64];
    let expected: Vec<f32> = names.iter().flat_map(|name| model.tensor(name).unwrap().data).collect();
    for (index, row) in expected.chunks(64).enumerate() {
        weights.column(index, &mut column);
        let largest = row.iter().fold(0f32, |largest, weight| largest.max(weight.abs()));
        let off = row.iter().zip(column).map(|(weight, got)| (weight - got).abs());
        worst = off.fold(worst, |worst, off| worst.max(off / largest));
    }
    (weights.format(), worst)
}

#[test]
fn whole_numbers_are_carried_over_where_a_format_holds_them() {
    use Format::{Q4Min32, Q4Scale32, Q6Scale32, Q8Scale32};
    for (case, four, eight) in [
        ("gptq_4", Q4Scale32, Q4Scale32),
        ("gptq_3", Q4Scale32, Q4Scale32),
        ("gptq_2", Q4Scale32, Q4Scale32),
        ("ct_pack_4", Q4Scale32, Q4Scale32),
        ("ct_pack_3", Q4Scale32, Q4Scale32),
        // Its zero points differ, its levels are from -8 to 7 nevertheless.
        ("ct_pack_4_asym", Q4Scale32, Q4Scale32),
        ("gptq_4_asym", Q6Scale32, Q6Scale32),
        ("gptq_4_v2", Q6Scale32, Q6Scale32),
        ("awq", Q6Scale32, Q6Scale32),
        ("gptq_8", Q4Min32, Q8Scale32),
        ("ct_pack_8", Q4Min32, Q8Scale32),
    ] {
        assert_eq!(carried(case, Bits::Eight), (eight, 0.0), "{case} in 8 bits");
        let (format, error) = carried(case, Bits::Four);
        assert_eq!(format, four, "{case} in 4 bits");
        match four {
            Q4Scale32 | Q6Scale32 => assert_eq!(error, 0.0, "{case}"),
            _ => assert!(error > 1e-2, "{case}: {error}"),
        }
    }
}

#[test]
fn scales_that_f16_lacks_cost_half_an_ulp() {
    for case in ["ct_int_8", "bnb_int8"] {
        let (format, error) = carried(case, Bits::Eight);
        assert_eq!(format, Format::Q8Scale32, "{case}");
        assert!(error > 0.0 && error <= 1.0 / 2048.0, "{case}: {error}");
    }
}

#[test]
fn other_weights_are_rounded_anew() {
    for case in [
        "gptq_4_order",
        "gptq_8_asym",
        "ct_int_8_asym",
        "bnb_nf4",
        "bnb_fp4_nested",
        "fp8_block",
        "ct_float_channel",
        "ct_nvfp4",
    ] {
        for (bits, format, most) in [(Bits::Four, Format::Q4Min32, 0.2), (Bits::Eight, Format::Q8Scale32, 0.006)] {
            let (got, error) = carried(case, bits);
            assert_eq!(got, format, "{case}");
            assert!(error > 0.0 && error < most, "{case}: {error}");
        }
    }
}
