//! Mistral and Ministral 3: Llama's layers with a sliding window.

use serde_json::json;

use super::FamilyReader;
use super::gguf::{Config, GgufReader, Metadata, original_context};
use super::hugging_face::{LLAMA, decoder};
use crate::architecture::Architecture;
use crate::config_error::ConfigError;
use crate::fields::Fields;

/// Default of transformers when config.json has no window; null means full attention.
const SLIDING_WINDOW_DEFAULT: usize = 4096;

pub(super) const MISTRAL: FamilyReader = FamilyReader { model_types: &["mistral"], from_hugging_face: mistral };
pub(super) const MINISTRAL: FamilyReader = FamilyReader { model_types: &["ministral3"], from_hugging_face: ministral };
/// Ministral 3; Mistral's files are of the architecture `llama`.
pub(super) const GGUF: GgufReader = GgufReader {
    pairs: true,
    keys: &["attention.temperature_scale"],
    translate: temperature,
    ..GgufReader::new("mistral3", "ministral3")
};

fn mistral(fields: &Fields<'_>) -> Result<Architecture, ConfigError> {
    let default = if fields.has("sliding_window") { None } else { Some(SLIDING_WINDOW_DEFAULT) };
    windowed(fields, default)
}

fn ministral(fields: &Fields<'_>) -> Result<Architecture, ConfigError> {
    let mut architecture = windowed(fields, None)?;
    // From the original context on, queries grow with the logarithm of their position.
    if let Some(parameters) = fields.opt_object("rope_parameters")?
        && parameters.opt_number("llama_4_scaling_beta")?.is_some_and(|beta| beta != 0.0)
        && let Some(original) = parameters.opt_size("original_max_position_embeddings")?
    {
        architecture.context_length = architecture.context_length.min(original);
    }
    Ok(architecture)
}

fn windowed(fields: &Fields<'_>, default: Option<usize>) -> Result<Architecture, ConfigError> {
    let window = fields.opt_size("sliding_window")?.or(default);
    let mut architecture = decoder(fields, &LLAMA)?;
    architecture.each_attention(|_, attention| attention.window = window);
    Ok(architecture)
}

/// Growth of queries from the original context on.
fn temperature(metadata: &Metadata<'_>, config: &mut Config) -> Result<(), ConfigError> {
    let Some(beta) = metadata.nonzero("attention.temperature_scale")? else { return Ok(()) };
    let parameters = config.entry("rope_parameters").or_insert_with(|| json!({}));
    parameters["llama_4_scaling_beta"] = beta.into();
    parameters["original_max_position_embeddings"] = original_context(metadata)?.into();
    Ok(())
}
