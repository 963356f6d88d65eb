//! Adapters on every linear layer, with small random weights: their speed does not depend on what they say.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::Result;
use half::f16;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::{Dtype, tensor::TensorView};
use serde_json::json;
use slm_convert::architecture::{Architecture, Name, Place};

/// One adapter, before it has a file's form.
pub(crate) struct RandomAdapter {
    pub(crate) rank: usize,
    /// `alpha / rank` scales what it adds.
    pub(crate) alpha: f32,
    pub(crate) pairs: Vec<RandomPair>,
}

/// What it adds to one linear layer.
pub(crate) struct RandomPair {
    pub(crate) place: Place,
    /// Name in the model, such as `model.layers.0.self_attn.q_proj`.
    pub(crate) name: Name,
    /// `[rank, inputs]`, row-major.
    pub(crate) a: Vec<f16>,
    /// `[outputs, rank]`, row-major.
    pub(crate) b: Vec<f16>,
}

/// Writes adapter number `seed` to `dir` as PEFT does.
pub(crate) fn write(dir: &Path, base: &Architecture, rank: usize, seed: u64) -> Result<()> {
    RandomAdapter::new(base, rank, seed).write_peft(dir)
}

impl RandomAdapter {
    /// Adapter number `seed` for a model of that shape, its answers hardly different from the base's.
    pub(crate) fn new(base: &Architecture, rank: usize, seed: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut values = |count: usize| (0..count).map(|_| f16::from_f32(random.random_range(-0.01..0.01))).collect();
        let mut pairs = Vec::new();
        for (place, linear) in base.linears() {
            let (a, b) = (values(rank * linear.inputs), values(linear.outputs * rank));
            pairs.push(RandomPair { place, name: linear.name.within(&base.prefix(place.0)), a, b });
        }
        Self { rank, alpha: rank as f32, pairs }
    }

    /// Writes it to `dir` as PEFT does.
    pub(crate) fn write_peft(&self, dir: &Path) -> Result<()> {
        fs::create_dir_all(dir)?;
        let names: BTreeSet<&str> = self.pairs.iter().filter_map(|pair| pair.name.hf.rsplit('.').next()).collect();
        let description = json!({
            "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": self.rank, "lora_alpha": self.alpha,
            "target_modules": names, "bias": "none", "lora_dropout": 0.0,
            "base_model_name_or_path": "HuggingFaceTB/SmolLM2-135M-Instruct",
        });
        fs::write(dir.join("adapter_config.json"), serde_json::to_vec_pretty(&description)?)?;
        let mut views = BTreeMap::new();
        for pair in &self.pairs {
            for (part, shape, values) in pair.parts(self.rank) {
                let name = format!("base_model.model.{}.lora_{part}.weight", pair.name.hf);
                views.insert(name, TensorView::new(Dtype::F16, shape.to_vec(), bytemuck::cast_slice(values))?);
            }
        }
        fs::write(dir.join("adapter_model.safetensors"), safetensors::serialize(views, None)?)?;
        Ok(())
    }
}

impl RandomPair {
    /// Name, shape (row-major) and values of both matrices.
    fn parts(&self, rank: usize) -> [(char, [usize; 2], &[f16]); 2] {
        [('A', [rank, self.a.len() / rank], &self.a), ('B', [self.b.len() / rank, rank], &self.b)]
    }
}
