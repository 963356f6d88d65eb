//! Seed-OSS: Llama's layers with biases of queries, keys and values.

use super::FamilyReader;
use super::changes::flag;
use super::hugging_face::{LLAMA, decoder};
use crate::architecture::{Architecture, Name};
use crate::config_error::ConfigError;
use crate::fields::Fields;

pub(super) const READER: FamilyReader = FamilyReader { model_types: &["seed_oss"], from_hugging_face };

fn from_hugging_face(fields: &Fields<'_>) -> Result<Architecture, ConfigError> {
    let mut architecture = decoder(fields, &LLAMA)?;
    architecture.biases(
        flag(fields, "attention_bias", true)?,
        flag(fields, "attention_out_bias", false)?,
        flag(fields, "mlp_bias", false)?,
    );
    // The second norm is that of the feed-forward block, whatever it is called.
    architecture.norms(
        [Some(Name::new("input_layernorm", "attn_norm")), None],
        [Some(Name::new("post_attention_layernorm", "post_attention_norm")), None],
    );
    Ok(architecture)
}
