//! Quantised safetensors checkpoints: `quantization_config` of `config.json`, and weights in several parts.
//!
//! A method is one file with a [`Method`] and one line in [`method`]. All weights are computed in f32 by the formulas of
//! the packages that wrote them; the 16 bits that such a package may round its result to are not part of a checkpoint.

mod awq;
mod bitsandbytes;
mod compressed_tensors;
mod fp8;
mod gptq;
mod levels;
mod modules;
mod parts;
mod scaled;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::path::Path;

use serde_json::{Map, Value};

use super::CheckpointError;
use super::shards::Shards;
use crate::architecture::{Architecture, TensorSpec};
use crate::config_error::ConfigError;
use crate::fields::Fields;
pub(crate) use levels::Levels;
use modules::Modules;
use parts::Parts;

/// A small file of the folder.
type Json = Map<String, Value>;

const CONFIG: &str = "quantization_config";
/// Older name of the settings of compressed-tensors.
const CONFIG_BEFORE: &str = "compression_config";
/// Files that AutoGPTQ and AutoAWQ wrote before there were settings in `config.json`, and their methods.
pub(super) const FILES: [(&str, &str); 2] = [("quantize_config.json", "gptq"), ("quant_config.json", "awq")];
const METHODS: &str = "fp8, fbgemm_fp8, bitsandbytes, gptq, awq, compressed-tensors";

/// Keys of modules that are not quantised, one for each package.
const PLAIN: [&str; 4] = ["modules_to_not_convert", "ignored_layers", "llm_int8_skip_modules", "ignore"];

/// Tensors for quantised activations, keys and values; they do not change weights.
const ASIDE: [&str; 11] = [
    "activation_scale",
    "input_global_scale",
    "input_scale",
    "input_zero_point",
    "k_scale",
    "k_zero_point",
    "output_scale",
    "output_zero_point",
    "q_scale",
    "v_scale",
    "v_zero_point",
];

/// A format of quantised weights with its settings.
trait Method: Debug + Send + Sync {
    /// The weight of a module, checked; `None` if it is not quantised.
    fn weight(
        &self,
        parts: &mut Parts<'_>,
        shape: [usize; 2],
    ) -> Result<Option<Box<dyn PackedWeight>>, CheckpointError>;

    /// What of the settings has no effect.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }
}

/// A weight whose parts fit each other.
pub(super) trait PackedWeight: Debug + Send + Sync {
    /// Bits of a weight, without scales.
    fn bits(&self) -> u8;

    /// `[outputs, inputs]`, dequantised.
    fn values(&self) -> Vec<f32>;

    /// The weight as whole numbers with scales, if it is that.
    fn levels(&self) -> Option<Levels> {
        None
    }
}

/// The quantised weights of a folder by name.
#[derive(Debug, Default)]
pub(super) struct Quantized {
    pub(super) weights: BTreeMap<String, Box<dyn PackedWeight>>,
    /// Names of all tensors that belong to them.
    pub(super) parts: BTreeSet<String>,
    pub(super) notes: Vec<String>,
}

impl Quantized {
    /// Finds and checks every quantised weight; none if the settings of the folder do not speak of any. `json` gives
    /// its small files.
    pub(super) fn read(
        folder: &Path,
        json: impl Fn(&str) -> Result<Option<Json>, CheckpointError>,
        architecture: &Architecture,
        tensors: &BTreeMap<String, TensorSpec>,
        shards: &Shards,
    ) -> Result<Self, CheckpointError> {
        let config = json("config.json")?.unwrap_or_default();
        let file = folder.join("config.json").display().to_string();
        let root = Fields::new(&file, &config);
        if let Some(fields) = settings(&root)? {
            return Self::with(&fields, folder, architecture, tensors, shards);
        }
        let Some((name, settings)) = beside(json, shards)? else { return Ok(Self::default()) };
        let file = folder.join(name).display().to_string();
        Self::with(&Fields::new(&file, &settings), folder, architecture, tensors, shards)
    }

    fn with(
        fields: &Fields<'_>,
        folder: &Path,
        architecture: &Architecture,
        tensors: &BTreeMap<String, TensorSpec>,
        shards: &Shards,
    ) -> Result<Self, CheckpointError> {
        let method = method(fields, architecture)?;
        let plain = PLAIN.map(|key| Modules::read(fields, key)).into_iter().collect::<Result<Vec<_>, _>>()?;
        let mut quantized = Self::default();
        for (name, spec) in tensors {
            let (Some(module), &[outputs, inputs]) = (name.strip_suffix(".weight"), spec.shape.as_slice()) else {
                continue;
            };
            let mut parts = Parts { folder, shards, module, taken: Vec::new() };
            let Some(weight) = method.weight(&mut parts, [outputs, inputs])? else { continue };
            for list in &plain {
                if list.include(module)? {
                    return Err(contradiction(folder, &parts, list));
                }
            }
            quantized.parts.append(&mut parts.taken.into_iter().collect());
            quantized.weights.insert(name.clone(), weight);
        }
        let aside = aside(quantized.weights.keys(), architecture, shards);
        let mut notes = method.notes();
        if !aside.is_empty() {
            notes.push("scales of quantised activations, keys and values are not used".to_owned());
        }
        quantized.parts.extend(aside);
        quantized.notes = notes.into_iter().map(|note| format!("{}: {note}", fields.file())).collect();
        Ok(quantized)
    }
}

/// A quantised weight whose module is on a list of plain ones.
fn contradiction(folder: &Path, parts: &Parts<'_>, list: &Modules) -> CheckpointError {
    CheckpointError::Part {
        path: folder.to_owned(),
        tensor: parts.taken.first().cloned().unwrap_or_default(),
        problem: format!("is part of a quantised weight; {} says that it is not", list.field()),
    }
}

/// `quantization_config`, under any of its names.
fn settings<'a>(root: &Fields<'a>) -> Result<Option<Fields<'a>>, ConfigError> {
    for key in [CONFIG, CONFIG_BEFORE] {
        if let Some(fields) = root.opt_object(key)? {
            return Ok(Some(fields));
        }
    }
    match root.opt_object("text_config")? {
        Some(text) => text.opt_object(CONFIG),
        None => Ok(None),
    }
}

/// Settings in a file of their own, with the method that such a file is of.
fn beside(
    json: impl Fn(&str) -> Result<Option<Json>, CheckpointError>,
    shards: &Shards,
) -> Result<Option<(&'static str, Json)>, CheckpointError> {
    if !shards.iter().any(|shard| shard.names().any(|name| name.ends_with(".qweight"))) {
        return Ok(None);
    }
    for (name, method) in FILES {
        if let Some(mut settings) = json(name)? {
            settings.entry("quant_method").or_insert_with(|| method.into());
            return Ok(Some((name, settings)));
        }
    }
    Ok(None)
}

/// Tensors of [`ASIDE`] in quantised layers and in attention blocks.
fn aside<'n>(weights: impl Iterator<Item = &'n String>, architecture: &Architecture, shards: &Shards) -> Vec<String> {
    let linears = weights.filter_map(|name| name.strip_suffix(".weight")).map(str::to_owned);
    let attention =
        (0..architecture.layers.len()).map(|layer| format!("{}self_attn", architecture.layer_prefix(layer).hf));
    let names = linears.chain(attention).flat_map(|module| ASIDE.map(|suffix| format!("{module}.{suffix}")));
    names.filter(|name| shards.holder(name).is_some()).collect()
}

/// Reads the settings of the method that they name.
fn method(fields: &Fields<'_>, architecture: &Architecture) -> Result<Box<dyn Method>, ConfigError> {
    let key = "quant_method";
    match fields.opt_text(key)?.ok_or_else(|| fields.missing(key))? {
        "fp8" | "fbgemm_fp8" => Ok(Box::new(fp8::Fp8::read(fields)?)),
        "bitsandbytes" => Ok(Box::new(bitsandbytes::BitsAndBytes)),
        "gptq" => Ok(Box::new(gptq::Gptq::read(fields)?)),
        "awq" => Ok(Box::new(awq::Awq::read(fields)?)),
        "compressed-tensors" => Ok(Box::new(compressed_tensors::CompressedTensors::read(fields, architecture)?)),
        _ => Err(fields.unsupported(key, METHODS)),
    }
}
