//! StarCoder 2: layer norms, biases, a feed-forward block without gates.

use super::FamilyReader;
use super::changes::flag;
use super::gguf::GgufReader;
use super::hugging_face::{Conventions, LLAMA, decoder};
use crate::architecture::{Architecture, Name, NormKind};
use crate::config_error::ConfigError;
use crate::fields::Fields;

const STARCODER: Conventions = Conventions {
    epsilon: ("norm_epsilon", 1e-5),
    activation: ("hidden_act", "gelu_pytorch_tanh"),
    norm: NormKind::Layer { bias: true },
    tied: true,
    ..LLAMA
};

pub(super) const READER: FamilyReader = FamilyReader { model_types: &["starcoder2"], from_hugging_face };
pub(super) const GGUF: GgufReader = GgufReader { layer_norm: true, ..GgufReader::new("starcoder2", "starcoder2") };

fn from_hugging_face(fields: &Fields<'_>) -> Result<Architecture, ConfigError> {
    let window = fields.opt_size("sliding_window")?;
    let mut architecture = decoder(fields, &STARCODER)?;
    let bias = flag(fields, "use_bias", true)?;
    architecture.biases(bias, bias, bias);
    architecture.each_attention(|_, attention| attention.window = window);
    architecture.each(|_, layer| {
        layer.without_gate(Name::new("mlp.c_fc", "ffn_up"), Name::new("mlp.c_proj", "ffn_down"));
    });
    Ok(architecture)
}
