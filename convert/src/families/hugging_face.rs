//! `config.json` fields shared by most decoder-only families.

use crate::config::{ConfigError, Family, ModelConfig};
use crate::fields::Fields;
use crate::rope::{Rope, RopeScaling};

const ROPE_THETA_DEFAULT: f64 = 10_000.0;
const RMS_NORM_EPS_DEFAULT: f64 = 1e-6;

/// Reads the fields of Llama-like models; absent ones take the defaults of transformers.
pub(super) fn decoder(fields: &Fields<'_>, family: Family) -> Result<ModelConfig, ConfigError> {
    if fields.get("hidden_act").is_some_and(|act| act != "silu") {
        return Err(fields.unsupported("hidden_act", "silu"));
    }
    if fields.get("quantization_config").is_some() {
        return Err(fields.unsupported("quantization_config", "none: F32, F16 or BF16 weights, or a GGUF file"));
    }
    let hidden_size = fields.size("hidden_size")?;
    let heads = fields.size("num_attention_heads")?;
    let derived = hidden_size.checked_div(heads).unwrap_or(0);
    Ok(ModelConfig {
        family,
        hidden_size,
        intermediate_size: fields.size("intermediate_size")?,
        layers: fields.size("num_hidden_layers")?,
        heads,
        kv_heads: fields.opt_size("num_key_value_heads")?.unwrap_or(heads),
        head_dim: fields.opt_size("head_dim")?.unwrap_or(derived),
        vocab_size: fields.size("vocab_size")?,
        rms_norm_eps: fields.opt_number("rms_norm_eps")?.unwrap_or(RMS_NORM_EPS_DEFAULT) as f32,
        rope: rope(fields)?,
        sliding_window: None,
        tie_word_embeddings: fields.opt_flag("tie_word_embeddings")?.unwrap_or(false),
        context_length: fields.size("max_position_embeddings")?,
    })
}

/// Reads `rope_parameters` of transformers 5, or `rope_theta` with `rope_scaling` of earlier versions.
fn rope(fields: &Fields<'_>) -> Result<Rope, ConfigError> {
    let outer_theta = fields.opt_number("rope_theta")?;
    let parameters = match fields.opt_object("rope_parameters")? {
        Some(parameters) => Some(parameters),
        None => fields.opt_object("rope_scaling")?,
    };
    let Some(parameters) = parameters else {
        return Ok(Rope { theta: outer_theta.unwrap_or(ROPE_THETA_DEFAULT) as f32, scaling: RopeScaling::None });
    };
    let theta = parameters.opt_number("rope_theta")?.or(outer_theta).unwrap_or(ROPE_THETA_DEFAULT) as f32;
    for part in [fields, &parameters] {
        if part.opt_number("partial_rotary_factor")?.is_some_and(|factor| factor != 1.0) {
            return Err(part.unsupported("partial_rotary_factor", "1.0"));
        }
    }
    let key = if parameters.has("rope_type") { "rope_type" } else { "type" };
    let scaling = match parameters.opt_text(key)? {
        None | Some("default") => RopeScaling::None,
        Some("llama3") => RopeScaling::Llama3 {
            factor: parameters.number("factor")? as f32,
            low_freq_factor: parameters.number("low_freq_factor")? as f32,
            high_freq_factor: parameters.number("high_freq_factor")? as f32,
            original_context: parameters.size("original_max_position_embeddings")?,
        },
        Some(_) => return Err(parameters.unsupported(key, "default, llama3")),
    };
    Ok(Rope { theta, scaling })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(over: &Value) -> Result<ModelConfig, ConfigError> {
        let mut config = json!({
            "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
            "num_attention_heads": 4, "vocab_size": 128, "max_position_embeddings": 256
        });
        let map = config.as_object_mut().unwrap();
        map.extend(over.as_object().unwrap().clone());
        crate::families::from_hugging_face("config.json", map)
    }

    #[test]
    fn what_is_not_said_takes_the_defaults_of_transformers() {
        let config = read(&json!({})).unwrap();
        assert_eq!((config.kv_heads, config.head_dim), (4, 16));
        assert_eq!(config.rope, Rope { theta: 10_000.0, scaling: RopeScaling::None });
        assert!(!config.tie_word_embeddings && config.sliding_window.is_none());
        let mistral = read(&json!({"model_type": "mistral"})).unwrap();
        assert_eq!(mistral.sliding_window, Some(4096));
        let open = read(&json!({"model_type": "mistral", "sliding_window": null})).unwrap();
        assert_eq!(open.sliding_window, None);
    }

    #[test]
    fn both_spellings_of_llama3_rope_read_alike() {
        let numbers = json!({"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64, "rope_type": "llama3"});
        let mut new = numbers.clone();
        new["rope_theta"] = json!(500_000.0);
        let new = read(&json!({"rope_parameters": new})).unwrap();
        let old = read(&json!({"rope_theta": 500_000.0, "rope_scaling": numbers})).unwrap();
        assert_eq!(new.rope, old.rope);
        assert!(matches!(new.rope.scaling, RopeScaling::Llama3 { original_context: 64, .. }));
    }

    #[test]
    fn what_cannot_be_served_is_refused_by_name() {
        let cases = [
            (json!({"rope_scaling": {"type": "linear", "factor": 2.0}}), "rope_scaling.type", "linear"),
            (json!({"rope_parameters": {"rope_type": "yarn"}}), "rope_parameters.rope_type", "yarn"),
            (json!({"partial_rotary_factor": 0.5, "rope_scaling": {}}), "partial_rotary_factor", "0.5"),
            (json!({"hidden_act": "gelu"}), "hidden_act", "gelu"),
            (json!({"attention_bias": true}), "attention_bias", "true"),
            (json!({"mlp_bias": true}), "mlp_bias", "true"),
            (json!({"quantization_config": {"quant_method": "gptq"}}), "quantization_config", "gptq"),
            (json!({"model_type": "mamba"}), "model_type", "llama, mistral"),
            (json!({"model_type": null}), "model_type", "missing"),
            (json!({"hidden_size": null}), "hidden_size", "missing"),
            (json!({"hidden_size": "64"}), "hidden_size", "whole number"),
            (json!({"num_attention_heads": 0}), "head", "0"),
            (json!({"num_key_value_heads": 3}), "key/value heads", "divisor of 4"),
            (json!({"head_dim": 15}), "head dimension", "even"),
            (json!({"num_hidden_layers": 1_000_000}), "layers", "1000000"),
            (json!({"vocab_size": u64::MAX}), "vocab", "18446744073709551615"),
            (json!({"rms_norm_eps": -1.0}), "rms_norm_eps", "-1"),
        ];
        for (over, field, word) in cases {
            let message = read(&over).unwrap_err().to_string();
            assert!(message.contains("config.json") && message.contains(field) && message.contains(word), "{message}");
        }
    }
}
