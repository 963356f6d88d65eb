//! Phi 3, 3.5 and 4 mini: Llama's layers with queries, keys and values from one linear layer, gates and values from
//! another, and LongRoPE.

use super::FamilyReader;
use super::gguf::{GgufReader, Windows};
use super::hugging_face::{Conventions, LLAMA, decoder};
use crate::architecture::{Architecture, Name};
use crate::config_error::ConfigError;
use crate::fields::Fields;

const PHI3: Conventions = Conventions { epsilon: ("rms_norm_eps", 1e-5), ..LLAMA };

pub(super) const READER: FamilyReader = FamilyReader { model_types: &["phi3"], from_hugging_face };
pub(super) const GGUF: GgufReader = GgufReader { windows: Windows::All, ..GgufReader::new("phi3", "phi3") };

fn from_hugging_face(fields: &Fields<'_>) -> Result<Architecture, ConfigError> {
    let window = fields.opt_size("sliding_window")?;
    let mut architecture = decoder(fields, &PHI3)?;
    architecture.each_attention(|_, attention| attention.window = window);
    architecture.each(|_, layer| {
        layer.fuse_qkv(Name::new("self_attn.qkv_proj", "attn_qkv"));
        layer.fuse_gate_up(Name::new("mlp.gate_up_proj", "ffn_up"));
    });
    Ok(architecture)
}
