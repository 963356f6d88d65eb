//! GGUF metadata: translated to the fields of config.json, which the family's reader takes.

use serde_json::{Value, json};

use super::{FamilyReader, Read};
use crate::architecture::Architecture;
use crate::config_error::ConfigError;
use crate::fields::Fields;

const ROPE_THETA_DEFAULT: f64 = 10_000.0;

/// A family's name and layout in GGUF.
pub(super) struct GgufReader {
    /// `general.architecture`.
    pub(super) architecture: &'static str,
    pub(super) reader: &'static FamilyReader,
    /// Whether rows of queries and keys have the halves of a rotation side by side.
    pub(super) pairs: bool,
}

/// Reads `ARCHITECTURE.*`. `vocab_size` is 0 if the metadata lack it, and the head is not tied: both follow from the
/// tensors.
pub(super) fn read(fields: &Fields<'_>, gguf: &GgufReader) -> Result<Architecture, ConfigError> {
    let key = |name: &str| format!("{}.{name}", gguf.architecture);
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
    let window = fields.opt_size(&key("attention.sliding_window"))?.filter(|window| *window > 0);
    let config = json!({
        "model_type": gguf.reader.model_types.first(),
        "hidden_size": hidden_size,
        "intermediate_size": fields.size(&key("feed_forward_length"))?,
        "num_hidden_layers": fields.size(&key("block_count"))?,
        "num_attention_heads": heads,
        "num_key_value_heads": fields.opt_size(&key("attention.head_count_kv"))?.unwrap_or(heads),
        "head_dim": head_dim,
        "vocab_size": fields.opt_size(&key("vocab_size"))?.unwrap_or(0),
        "rms_norm_eps": fields.number(&key("attention.layer_norm_rms_epsilon"))?,
        "rope_theta": rope_theta(fields, &key)?,
        "max_position_embeddings": fields.size(&key("context_length"))?,
    });
    let Value::Object(config) = config else { return Err(fields.missing("general.architecture")) };
    let read: Read = gguf.reader.from_hugging_face;
    let mut architecture = read(&Fields::new(fields.file(), &config))?;
    architecture.each(|_, layer| {
        let attention = &mut layer.attention;
        attention.window = attention.window.or(window);
        if let (true, [q, k, ..]) = (gguf.pairs, attention.qkv.as_mut_slice()) {
            (q.gguf_pairs, k.gguf_pairs) = (Some(attention.heads), Some(attention.kv_heads));
        }
    });
    Ok(architecture)
}

/// Supported rotary keys, and informative ones without influence on the graph: the original context and the training
/// that extended it.
const ROPE_KEYS: [&str; 7] = [
    "dimension_count",
    "freq_base",
    "scale_linear",
    "scaling.factor",
    "scaling.finetuned",
    "scaling.original_context_length",
    "scaling.type",
];
/// Other keys that would change the computation, each with its neutral value.
const NEUTRAL: [(&str, f64); 9] = [
    ("attention.clamp_kqv", 0.0),
    ("attention.max_alibi_bias", 0.0),
    ("attention.scale", 0.0),
    ("attn_logit_softcapping", 0.0),
    ("embedding_scale", 1.0),
    ("final_logit_softcapping", 0.0),
    ("logit_scale", 1.0),
    ("residual_scale", 1.0),
    ("rope.scaling.attn_factor", 1.0),
];

/// Refuses, by name, settings that llama.cpp applies and this graph does not.
fn refuse_unknown(fields: &Fields<'_>, key: &impl Fn(&str) -> String) -> Result<(), ConfigError> {
    for (name, neutral) in NEUTRAL {
        if fields.opt_number(&key(name))?.is_some_and(|value| value != neutral) {
            return Err(fields.unsupported(&key(name), &format!("{neutral:?}")));
        }
    }
    let prefix = key("rope.");
    for full in fields.keys() {
        let Some(name) = full.strip_prefix(prefix.as_str()) else { continue };
        // A setting of zero or false is often one that is not used.
        let unused = fields.get(full).is_none_or(|value| *value == false || value.as_f64() == Some(0.0));
        let known = ROPE_KEYS.contains(&name) || name == "scaling.attn_factor";
        if !known && !unused {
            return Err(fields.unsupported(full, "files without it"));
        }
    }
    Ok(())
}

fn rope_theta(fields: &Fields<'_>, key: &impl Fn(&str) -> String) -> Result<f64, ConfigError> {
    refuse_unknown(fields, key)?;
    let scaling = key("rope.scaling.type");
    if fields.opt_text(&scaling)?.is_some_and(|kind| kind != "none") {
        return Err(fields.unsupported(&scaling, "none, or the tensor rope_freqs.weight"));
    }
    // Older files give only a factor.
    for name in ["rope.scale_linear", "rope.scaling.factor"] {
        if fields.opt_number(&key(name))?.is_some_and(|factor| factor != 1.0 && factor != 0.0) {
            return Err(fields.unsupported(&key(name), "1.0"));
        }
    }
    Ok(fields.opt_number(&key("rope.freq_base"))?.unwrap_or(ROPE_THETA_DEFAULT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(over: &Value) -> Result<Architecture, ConfigError> {
        let mut metadata = json!({
            "general.architecture": "llama", "llama.embedding_length": 64, "llama.attention.head_count": 4,
            "llama.feed_forward_length": 128, "llama.block_count": 2, "llama.context_length": 256,
            "llama.attention.layer_norm_rms_epsilon": 1e-6
        });
        let map = metadata.as_object_mut().unwrap();
        map.extend(over.as_object().unwrap().clone());
        crate::families::from_gguf("m.gguf", map)
    }

    #[test]
    fn what_would_change_answers_is_refused_by_name() {
        let cases = [
            (json!({"llama.rope.scaling.attn_factor": 1.3}), "llama.rope.scaling.attn_factor", "1.3"),
            (json!({"llama.rope.scaling.yarn_beta_fast": 32.0}), "llama.rope.scaling.yarn_beta_fast", "32"),
            (json!({"llama.rope.freq_base_swa": 10000.0}), "llama.rope.freq_base_swa", "10000"),
            (json!({"llama.rope.scaling.type": "yarn"}), "llama.rope.scaling.type", "yarn"),
            (json!({"llama.rope.scaling.factor": 4.0}), "llama.rope.scaling.factor", "4"),
            (json!({"llama.attention.scale": 0.5}), "llama.attention.scale", "0.5"),
            (json!({"llama.logit_scale": 8.0}), "llama.logit_scale", "8"),
        ];
        for (over, field, word) in cases {
            let message = read(&over).unwrap_err().to_string();
            assert!(message.contains(field) && message.contains(word), "{message}");
        }
    }

    #[test]
    fn what_says_nothing_is_taken() {
        let said = json!({
            "llama.rope.scaling.attn_factor": 1.0, "llama.rope.scaling.type": "none", "llama.rope.scaling.finetuned": false,
            "llama.rope.scaling.original_context_length": 4096, "llama.rope.freq_base": 500000.0,
            "llama.rope.dimension_count": 16, "llama.rope.scaling.yarn_ext_factor": 0.0, "llama.logit_scale": 1.0
        });
        assert_eq!(read(&said).unwrap().ropes[0].theta, 500_000.0);
    }
}
