//! Llama: RMS norms, rotary embedding on the whole head, grouped queries, SiLU gates. SmolLM2 and many more share it.

use super::FamilyReader;
use super::changes::flag;
use super::gguf::{GgufReader, Windows};
use super::hugging_face::{LLAMA, decoder};
use crate::architecture::Architecture;
use crate::config_error::ConfigError;
use crate::fields::Fields;

pub(super) const READER: FamilyReader = FamilyReader { model_types: &["llama"], from_hugging_face };
/// Its files include those of Mistral and of other families that llama.cpp takes for Llama.
pub(super) const GGUF: GgufReader =
    GgufReader { pairs: true, windows: Windows::All, ..GgufReader::new("llama", "llama") };

pub(super) fn from_hugging_face(fields: &Fields<'_>) -> Result<Architecture, ConfigError> {
    let mut architecture = decoder(fields, &LLAMA)?;
    let attention = flag(fields, "attention_bias", false)?;
    architecture.biases(attention, attention, flag(fields, "mlp_bias", false)?);
    Ok(architecture)
}
