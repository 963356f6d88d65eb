//! Llama: RMS norms, rotary embedding on the whole head, grouped queries, SiLU gates. SmolLM2 and many more share it.

use super::FamilyReader;
use crate::config::{ConfigError, Family, ModelConfig};
use crate::fields::Fields;

pub(super) const READER: FamilyReader =
    FamilyReader { family: Family::Llama, model_type: "llama", from_hugging_face, gguf: Some(("llama", from_gguf)) };

fn from_hugging_face(fields: &Fields<'_>) -> Result<ModelConfig, ConfigError> {
    fields.only_flag("attention_bias", false)?;
    fields.only_flag("mlp_bias", false)?;
    super::hugging_face::decoder(fields, Family::Llama)
}

fn from_gguf(fields: &Fields<'_>) -> Result<ModelConfig, ConfigError> {
    super::gguf::decoder(fields, "llama", Family::Llama)
}
