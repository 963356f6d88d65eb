//! Mistral: Llama's layers with a window beyond which keys are not seen.
//!
//! GGUF files of it go by the name of Llama: their models have no window.

use super::Reader;
use crate::config::{ConfigError, Family, ModelConfig};
use crate::fields::Fields;

/// What transformers takes where config.json says nothing; null there means no window.
const SLIDING_WINDOW_DEFAULT: usize = 4096;

pub(super) const READER: Reader =
    Reader { family: Family::Mistral, model_type: "mistral", from_hugging_face, gguf: None };

fn from_hugging_face(fields: &Fields<'_>) -> Result<ModelConfig, ConfigError> {
    let said = fields.opt_size("sliding_window")?;
    let sliding_window = if fields.has("sliding_window") { said } else { Some(SLIDING_WINDOW_DEFAULT) };
    Ok(ModelConfig { sliding_window, ..super::hugging_face::decoder(fields, Family::Mistral)? })
}
