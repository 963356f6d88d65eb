//! Model families: recognition, and conversion of `config.json` or GGUF metadata to a [`ModelConfig`].
//!
//! A family is one small file with a [`FamilyReader`] and one line in [`ALL`].

mod gguf;
mod hugging_face;
mod llama;
mod mistral;

use serde_json::{Map, Value};

use crate::config::{ConfigError, Family, ModelConfig};
use crate::fields::Fields;

/// Recognition and readers of a family.
struct FamilyReader {
    family: Family,
    /// `model_type` in config.json.
    model_type: &'static str,
    from_hugging_face: Read,
    /// `general.architecture` in GGUF and its reader, for families with one of their own.
    gguf: Option<(&'static str, Read)>,
}

type Read = fn(&Fields<'_>) -> Result<ModelConfig, ConfigError>;

const ALL: [FamilyReader; 2] = [llama::READER, mistral::READER];

/// Reads the `config.json` of a Hugging Face folder.
pub(crate) fn from_hugging_face(file: &str, map: &Map<String, Value>) -> Result<ModelConfig, ConfigError> {
    let fields = Fields::new(file, map);
    let model_type = fields.opt_text("model_type")?.ok_or_else(|| fields.missing("model_type"))?;
    let reader = ALL.iter().find(|reader| reader.model_type == model_type).ok_or_else(|| {
        let known: Vec<_> = ALL.iter().map(|reader| reader.model_type).collect();
        fields.unsupported("model_type", &known.join(", "))
    })?;
    let config = (reader.from_hugging_face)(&fields)?;
    debug_assert_eq!(config.family, reader.family);
    config.check(file)?;
    Ok(config)
}

/// Reads the metadata of a GGUF file.
///
/// The vocabulary size and the divisors of rotary frequencies are in tensors; the caller fills them in and checks the
/// whole.
pub(crate) fn from_gguf(file: &str, map: &Map<String, Value>) -> Result<ModelConfig, ConfigError> {
    let fields = Fields::new(file, map);
    let key = "general.architecture";
    let architecture = fields.opt_text(key)?.ok_or_else(|| fields.missing(key))?;
    let mut known = ALL.iter().filter_map(|reader| reader.gguf);
    let (_, read) = known.find(|(name, _)| *name == architecture).ok_or_else(|| {
        let known: Vec<_> = ALL.iter().filter_map(|reader| Some(reader.gguf?.0)).collect();
        fields.unsupported(key, &known.join(", "))
    })?;
    read(&fields)
}
