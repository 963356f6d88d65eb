//! SmolLM 3: Llama's layers, some of them without rotation.

use super::FamilyReader;
use super::changes::flag;
use super::gguf::GgufReader;
use super::hugging_face::{Conventions, LLAMA, decoder};
use crate::architecture::Architecture;
use crate::config_error::ConfigError;
use crate::fields::Fields;

const SMOLLM3: Conventions = Conventions { rope_theta: 2_000_000.0, tied: true, ..LLAMA };
/// Every so many layers one has no rotation.
const INTERVAL_DEFAULT: usize = 4;

pub(super) const READER: FamilyReader = FamilyReader { model_types: &["smollm3"], from_hugging_face };
pub(super) const GGUF: GgufReader = GgufReader { pairs: true, ..GgufReader::new("smollm3", "smollm3") };

fn from_hugging_face(fields: &Fields<'_>) -> Result<Architecture, ConfigError> {
    let mut architecture = decoder(fields, &SMOLLM3)?;
    let attention = flag(fields, "attention_bias", false)?;
    architecture.biases(attention, attention, flag(fields, "mlp_bias", false)?);
    if !flag(fields, "use_sliding_window", false)? {
        architecture.each_attention(|_, attention| attention.window = None);
    }
    // 1 for a rotation, though the field is called `no_rope_layers`.
    let rotated = fields.opt_numbers("no_rope_layers")?;
    let interval = fields.opt_size("no_rope_layer_interval")?.unwrap_or(INTERVAL_DEFAULT);
    if rotated.as_ref().is_some_and(|rotated| rotated.len() < architecture.layers.len()) {
        return Err(fields.wrong("no_rope_layers", "a number for each layer"));
    }
    architecture.each_attention(|index, attention| {
        let turns = match &rotated {
            Some(rotated) => rotated[index] != 0.0,
            None => interval == 0 || (index + 1) % interval != 0,
        };
        attention.rope = attention.rope.filter(|_| turns);
    });
    Ok(architecture)
}
