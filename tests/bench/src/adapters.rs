//! Rank-16 adapters on every linear layer, with small random weights: their speed does not depend on what they say.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::Result;
use half::f16;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::{Dtype, tensor::TensorView};
use serde_json::json;
use slm_convert::{config::ModelConfig, peft::Module};

/// Writes adapter number `seed` to `dir` as PEFT does.
pub(crate) fn write(dir: &Path, config: &ModelConfig, rank: usize, seed: u64) -> Result<()> {
    fs::create_dir_all(dir)?;
    let names: Vec<_> = Module::ALL.iter().map(|module| module.name()).collect();
    let description = json!({
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": rank, "target_modules": names,
        "bias": "none", "lora_dropout": 0.0, "base_model_name_or_path": "HuggingFaceTB/SmolLM2-135M-Instruct",
    });
    fs::write(dir.join("adapter_config.json"), serde_json::to_vec_pretty(&description)?)?;
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut tensors: BTreeMap<String, (Vec<usize>, Vec<f16>)> = BTreeMap::new();
    for layer in 0..config.layers {
        for module in Module::ALL {
            let (inputs, outputs) = module.dimensions(config);
            for (part, shape) in [("A", [rank, inputs]), ("B", [outputs, rank])] {
                let values = (0..shape[0] * shape[1]).map(|_| f16::from_f32(random.random_range(-0.01..0.01)));
                let name = format!("base_model.model.{}.lora_{part}.weight", module.path(layer));
                tensors.insert(name, (shape.to_vec(), values.collect()));
            }
        }
    }
    let views = tensors
        .iter()
        .map(|(name, (shape, values))| {
            Ok((name.as_str(), TensorView::new(Dtype::F16, shape.clone(), bytemuck::cast_slice(values))?))
        })
        .collect::<Result<Vec<_>>>()?;
    fs::write(dir.join("adapter_model.safetensors"), safetensors::serialize(views, None)?)?;
    Ok(())
}
