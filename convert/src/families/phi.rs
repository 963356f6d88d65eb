//! Phi 1, 1.5 and 2: layer norms, attention beside the feed-forward block, biases everywhere, half of a head rotated.

use super::FamilyReader;
use super::gguf::GgufReader;
use super::hugging_face::{Conventions, LLAMA, decoder};
use crate::architecture::{Architecture, Name, NormKind};
use crate::config_error::ConfigError;
use crate::fields::Fields;

const PHI: Conventions = Conventions {
    epsilon: ("layer_norm_eps", 1e-5),
    activation: ("hidden_act", "gelu_new"),
    partial_rotary_factor: 0.5,
    norm: NormKind::Layer { bias: true },
    ..LLAMA
};

pub(super) const READER: FamilyReader = FamilyReader { model_types: &["phi"], from_hugging_face };
pub(super) const GGUF: GgufReader = GgufReader { layer_norm: true, ..GgufReader::new("phi2", "phi") };

fn from_hugging_face(fields: &Fields<'_>) -> Result<Architecture, ConfigError> {
    fields.only_flag("qk_layernorm", false)?;
    let mut architecture = decoder(fields, &PHI)?;
    architecture.parallel();
    architecture.biases(true, true, true);
    architecture.each_attention(|_, attention| attention.output.name = Name::new("self_attn.dense", "attn_output"));
    architecture.each(|_, layer| {
        layer.without_gate(Name::new("mlp.fc1", "ffn_up"), Name::new("mlp.fc2", "ffn_down"));
    });
    if let Some(norm) = &mut architecture.final_norm {
        norm.name.hf = "model.final_layernorm".to_owned();
    }
    architecture.head.bias = true;
    Ok(architecture)
}
