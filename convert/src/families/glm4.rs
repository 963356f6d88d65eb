//! GLM 4: norms before and after each block, gates and values from one linear layer, neighbours of half a head rotated.

use super::FamilyReader;
use super::changes::flag;
use super::hugging_face::{Conventions, LLAMA, decoder};
use crate::architecture::{Architecture, Name};
use crate::config_error::ConfigError;
use crate::fields::Fields;

const GLM4: Conventions = Conventions { epsilon: ("rms_norm_eps", 1.562_5e-7), partial_rotary_factor: 0.5, ..LLAMA };

pub(super) const READER: FamilyReader = FamilyReader { model_types: &["glm4"], from_hugging_face };

fn from_hugging_face(fields: &Fields<'_>) -> Result<Architecture, ConfigError> {
    let mut architecture = decoder(fields, &GLM4)?;
    architecture.biases(flag(fields, "attention_bias", false)?, false, false);
    architecture.norms(
        [
            Some(Name::new("input_layernorm", "attn_norm")),
            Some(Name::new("post_self_attn_layernorm", "post_attention_norm")),
        ],
        [
            Some(Name::new("post_attention_layernorm", "ffn_norm")),
            Some(Name::new("post_mlp_layernorm", "post_ffw_norm")),
        ],
    );
    architecture.each(|_, layer| layer.fuse_gate_up(Name::new("mlp.gate_up_proj", "ffn_up")));
    architecture.interleaved();
    Ok(architecture)
}
