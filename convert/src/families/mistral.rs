//! Mistral: Llama's layers with a sliding window.
//!
//! GGUF files of Mistral models are of architecture `llama`: those models have no window.

use super::FamilyReader;
use crate::config::{ConfigError, Family, ModelConfig};
use crate::fields::Fields;

/// Default of transformers when config.json has no window; null means full attention.
const SLIDING_WINDOW_DEFAULT: usize = 4096;

pub(super) const READER: FamilyReader =
    FamilyReader { family: Family::Mistral, model_type: "mistral", from_hugging_face, gguf: None };

fn from_hugging_face(fields: &Fields<'_>) -> Result<ModelConfig, ConfigError> {
    let said = fields.opt_size("sliding_window")?;
    let sliding_window = if fields.has("sliding_window") { said } else { Some(SLIDING_WINDOW_DEFAULT) };
    Ok(ModelConfig { sliding_window, ..super::hugging_face::decoder(fields, Family::Mistral)? })
}
