//! What GGUF metadata of Llama and its kin has in common.

use crate::config::{ConfigError, Family, ModelConfig};
use crate::fields::Fields;
use crate::rope::{Rope, RopeScaling};

const ROPE_THETA_DEFAULT: f64 = 10_000.0;

/// Reads `ARCHITECTURE.*`. `vocab_size` is 0 where the metadata does not say, `tie_word_embeddings` false: both stand
/// in the tensors.
pub(super) fn decoder(fields: &Fields<'_>, architecture: &str, family: Family) -> Result<ModelConfig, ConfigError> {
    let key = |name: &str| format!("{architecture}.{name}");
    for name in ["expert_count", "expert_used_count"] {
        if fields.opt_size(&key(name))?.is_some_and(|experts| experts > 0) {
            return Err(fields.unsupported(&key(name), "0: dense models only"));
        }
    }
    let hidden_size = fields.size(&key("embedding_length"))?;
    let heads = fields.size(&key("attention.head_count"))?;
    let derived = hidden_size.checked_div(heads).unwrap_or(0);
    let head_dim = fields.opt_size(&key("attention.key_length"))?.unwrap_or(derived);
    for name in ["attention.value_length", "rope.dimension_count"] {
        if fields.opt_size(&key(name))?.is_some_and(|width| width != head_dim && head_dim != 0) {
            return Err(fields.unsupported(&key(name), &format!("{head_dim}, the width of a head")));
        }
    }
    Ok(ModelConfig {
        family,
        hidden_size,
        intermediate_size: fields.size(&key("feed_forward_length"))?,
        layers: fields.size(&key("block_count"))?,
        heads,
        kv_heads: fields.opt_size(&key("attention.head_count_kv"))?.unwrap_or(heads),
        head_dim,
        vocab_size: fields.opt_size(&key("vocab_size"))?.unwrap_or(0),
        rms_norm_eps: fields.number(&key("attention.layer_norm_rms_epsilon"))? as f32,
        rope: rope(fields, &key)?,
        sliding_window: fields.opt_size(&key("attention.sliding_window"))?.filter(|window| *window > 0),
        tie_word_embeddings: false,
        context_length: fields.size(&key("context_length"))?,
    })
}

fn rope(fields: &Fields<'_>, key: &impl Fn(&str) -> String) -> Result<Rope, ConfigError> {
    let scaling = key("rope.scaling.type");
    if fields.opt_text(&scaling)?.is_some_and(|kind| kind != "none") {
        return Err(fields.unsupported(&scaling, "none, or the tensor rope_freqs.weight"));
    }
    // Older files say the same by a factor alone.
    for name in ["rope.scale_linear", "rope.scaling.factor"] {
        if fields.opt_number(&key(name))?.is_some_and(|factor| factor != 1.0 && factor != 0.0) {
            return Err(fields.unsupported(&key(name), "1.0"));
        }
    }
    let theta = fields.opt_number(&key("rope.freq_base"))?.unwrap_or(ROPE_THETA_DEFAULT) as f32;
    Ok(Rope { theta, scaling: RopeScaling::None })
}
