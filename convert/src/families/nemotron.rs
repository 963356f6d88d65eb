//! Nemotron and Minitron: layer norms whose gains are stored minus one, squared ReLU without gates, half of a head
//! rotated.

use super::FamilyReader;
use super::changes::flag;
use super::gguf::GgufReader;
use super::hugging_face::{Conventions, LLAMA, decoder};
use crate::architecture::{Architecture, Name, NormKind};
use crate::config_error::ConfigError;
use crate::fields::Fields;

const NEMOTRON: Conventions = Conventions {
    epsilon: ("norm_eps", 1e-5),
    activation: ("hidden_act", "relu2"),
    partial_rotary_factor: 0.5,
    norm: NormKind::Layer { bias: true },
    minus_one: true,
    ..LLAMA
};

pub(super) const READER: FamilyReader = FamilyReader { model_types: &["nemotron"], from_hugging_face };
pub(super) const GGUF: GgufReader = GgufReader { layer_norm: true, ..GgufReader::new("nemotron", "nemotron") };

fn from_hugging_face(fields: &Fields<'_>) -> Result<Architecture, ConfigError> {
    let mut architecture = decoder(fields, &NEMOTRON)?;
    let attention = flag(fields, "attention_bias", false)?;
    architecture.biases(attention, attention, flag(fields, "mlp_bias", false)?);
    let (up, down) = (Name::new("mlp.up_proj", "ffn_up"), Name::new("mlp.down_proj", "ffn_down"));
    architecture.each(|_, layer| layer.without_gate(up.clone(), down.clone()));
    Ok(architecture)
}
