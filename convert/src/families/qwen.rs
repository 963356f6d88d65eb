//! Qwen 2 and 2.5: Llama's layers with biases of queries, keys and values. Qwen 3: norms of queries and keys instead.

use super::FamilyReader;
use super::changes::flag;
use super::hugging_face::{LLAMA, decoder};
use crate::architecture::{Architecture, QkSpan};
use crate::config_error::ConfigError;
use crate::fields::Fields;

/// Default of transformers for `max_window_layers`.
const FULL_LAYERS_DEFAULT: usize = 28;

pub(super) const QWEN2: FamilyReader = FamilyReader { model_types: &["qwen2"], from_hugging_face: qwen2 };
pub(super) const QWEN3: FamilyReader = FamilyReader { model_types: &["qwen3"], from_hugging_face: qwen3 };

fn qwen2(fields: &Fields<'_>) -> Result<Architecture, ConfigError> {
    let mut architecture = windowed(fields)?;
    architecture.biases(true, false, false);
    Ok(architecture)
}

pub(super) fn qwen3(fields: &Fields<'_>) -> Result<Architecture, ConfigError> {
    let mut architecture = windowed(fields)?;
    let bias = flag(fields, "attention_bias", false)?;
    architecture.biases(bias, bias, false);
    architecture.qk_norms(["self_attn.q_norm", "self_attn.k_norm"], QkSpan::Head, false);
    Ok(architecture)
}

/// With `use_sliding_window`, and without `layer_types`, the layers from `max_window_layers` on have a window.
fn windowed(fields: &Fields<'_>) -> Result<Architecture, ConfigError> {
    let mut architecture = decoder(fields, &LLAMA)?;
    if !flag(fields, "use_sliding_window", false)? {
        architecture.each_attention(|_, attention| attention.window = None);
    } else if !fields.has("layer_types") {
        let window = fields.opt_size("sliding_window")?;
        let full = fields.opt_size("max_window_layers")?.unwrap_or(FULL_LAYERS_DEFAULT);
        architecture.each_attention(|index, attention| attention.window = window.filter(|_| index >= full));
    }
    Ok(architecture)
}
