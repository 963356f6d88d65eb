//! Nomic BERT: BERT with rotations in place of learned positions, gates, and hardly a bias.
//!
//! Its config.json has the names of GPT-2 where its authors wrote it, and those of BERT where transformers did. Tensors have the names
//! of its authors in both.

use super::FamilyReader;
use super::changes::{flag, number};
use super::hugging_face::linear;
use crate::architecture::{
    Activation, Architecture, Attention, Encoder, FeedForward, Head, KeyValues, LAYERS_MAX, Layer, Linear, Mixer, Name,
    Norm, NormKind, Residual, Rows,
};
use crate::config_error::ConfigError;
use crate::fields::Fields;
use crate::rope::Rope;

pub(super) const READER: FamilyReader = FamilyReader { model_types: &["nomic_bert"], from_hugging_face };

/// Heads of other tasks.
const UNUSED: [&str; 4] = ["pooler.", "cls.", "classifier.", "lm_head."];
/// Flags of the authors' code that change what is computed, and the value that is read here.
const FLAGS: [(&str, bool); 5] = [
    ("prenorm", false),
    ("parallel_block", false),
    ("rotary_emb_interleaved", false),
    ("use_rms_norm", false),
    ("causal", false),
];

fn from_hugging_face(fields: &Fields<'_>) -> Result<Architecture, ConfigError> {
    refuse_unsupported(fields)?;
    let either = |key: &str, older: &str| match fields.opt_size(key)? {
        Some(value) => Ok(value),
        None => fields.opt_size(older)?.ok_or_else(|| fields.missing(key)),
    };
    let hidden_size = either("hidden_size", "n_embd")?;
    let (heads, size) = (either("num_attention_heads", "n_head")?, either("intermediate_size", "n_inner")?);
    let layers = either("num_hidden_layers", "n_layer")?;
    if layers > LAYERS_MAX {
        return Err(fields.wrong("num_hidden_layers", &format!("at most {LAYERS_MAX} layers")));
    }
    let head_dim = fields.opt_size("head_dim")?.unwrap_or_else(|| hidden_size.checked_div(heads).unwrap_or(0));
    let older = number(fields, "layer_norm_epsilon", 1e-12)?;
    let epsilon = number(fields, "layer_norm_eps", older.into())?;
    let norm = |hf: &str, gguf: &str| Norm {
        name: Name::new(hf, gguf),
        kind: NormKind::Layer { bias: true },
        epsilon,
        minus_one: false,
    };
    let layer = Layer {
        mixer: Mixer::Attention(attention(fields, hidden_size, heads, head_dim)?),
        feed_forward: feed_forward(fields, hidden_size, size)?,
        residual: Residual::Normed {
            attention: norm("norm1", "attn_output_norm"),
            feed_forward: norm("norm2", "layer_output_norm"),
        },
        residual_scale: 1.0,
        input: None,
        output_scale: None,
    };
    let types = fields.opt_size("type_vocab_size")?.unwrap_or(2);
    let types = Rows { name: Name::new("embeddings.token_type_embeddings", "token_types"), count: types, first: 0 };
    Ok(Architecture {
        family: fields.opt_text("model_type")?.unwrap_or_default().to_owned(),
        hidden_size,
        vocab_size: fields.size("vocab_size")?,
        context_length: context_length(fields)?,
        layers_begin: "encoder.layers.".to_owned(),
        embedding: Name::new("embeddings.word_embeddings", "token_embd"),
        embedding_scale: 1.0,
        layer_inputs: None,
        ropes: vec![Rope::new(theta(fields)?, head_dim)],
        layers: vec![layer; layers],
        final_norm: None,
        head: Head { name: Name::new("lm_head", "output"), tied: true, bias: false, scale: 1.0, soft_cap: None },
        encoder: Some(Encoder {
            positions: None,
            token_types: (types.count > 0).then_some(types),
            relative_bias: None,
            embedding_norm: Some(norm("emb_ln", "token_embd_norm")),
            unused: UNUSED.map(str::to_owned).into(),
        }),
    })
}

fn refuse_unsupported(fields: &Fields<'_>) -> Result<(), ConfigError> {
    for (key, supported) in FLAGS {
        fields.only_flag(key, supported)?;
    }
    if fields.opt_number("rotary_emb_fraction")?.is_some_and(|part| part != 1.0) {
        return Err(fields.unsupported("rotary_emb_fraction", "1.0"));
    }
    if fields.opt_number("rotary_emb_scale_base")?.is_some() {
        return Err(fields.unsupported("rotary_emb_scale_base", "null"));
    }
    for key in ["moe_every_n_layers", "num_experts"] {
        if fields.opt_size(key)?.unwrap_or(0) > 0 {
            return Err(fields.unsupported(key, "0: experts of this family are not there"));
        }
    }
    Ok(())
}

/// Without the scaling of rotations beyond the trained positions, which depends on the length of each text.
fn context_length(fields: &Fields<'_>) -> Result<usize, ConfigError> {
    if let Some(positions) = fields.opt_size("max_position_embeddings")? {
        return Ok(positions);
    }
    let positions = fields.size("n_positions")?;
    let trained = fields.opt_size("max_trained_positions")?;
    Ok(match fields.opt_number("rotary_scaling_factor")? {
        Some(_) => trained.unwrap_or(2048).min(positions),
        None => positions,
    })
}

fn theta(fields: &Fields<'_>) -> Result<f32, ConfigError> {
    let parameters = fields.opt_object("rope_parameters")?;
    if let Some(parameters) = &parameters {
        if parameters.opt_text("rope_type")?.is_some_and(|kind| kind != "default") {
            return Err(parameters.unsupported("rope_type", "default"));
        }
        if let Some(theta) = parameters.opt_number("rope_theta")? {
            return Ok(theta as f32);
        }
    }
    number(fields, "rotary_emb_base", 1000.0)
}

fn attention(fields: &Fields<'_>, hidden_size: usize, heads: usize, head_dim: usize) -> Result<Attention, ConfigError> {
    let (width, bias) = (heads.saturating_mul(head_dim), flag(fields, "qkv_proj_bias", false)?);
    let biased = |hf: &str, gguf: &str, inputs, outputs| Linear { bias, ..linear(hf, gguf, inputs, outputs) };
    Ok(Attention {
        heads,
        kv_heads: heads,
        head_dim,
        scale: 1.0 / (head_dim as f32).sqrt(),
        soft_cap: None,
        window: None,
        rope: Some(0),
        qk_norm: None,
        kv: KeyValues::Own,
        value_norm: None,
        gated: false,
        qkv: vec![biased("attn.Wqkv", "attn_qkv", hidden_size, width.saturating_mul(3))],
        output: biased("attn.out_proj", "attn_output", width, hidden_size),
    })
}

fn feed_forward(fields: &Fields<'_>, hidden_size: usize, size: usize) -> Result<FeedForward, ConfigError> {
    // The authors' name of the block with a gate, or that of the gate's activation.
    let key = if fields.has("activation_function") { "activation_function" } else { "hidden_act" };
    if !matches!(fields.opt_text(key)?, None | Some("swiglu" | "silu")) {
        return Err(fields.unsupported(key, "swiglu, silu"));
    }
    let layer = |key: &str, hf: &str, gguf: &str, inputs, outputs| {
        Ok::<_, ConfigError>(Linear { bias: flag(fields, key, false)?, ..linear(hf, gguf, inputs, outputs) })
    };
    Ok(FeedForward {
        size,
        activation: Activation::Silu,
        gated: true,
        up: vec![
            layer("mlp_fc1_bias", "mlp.fc12", "ffn_gate", hidden_size, size)?,
            layer("mlp_fc1_bias", "mlp.fc11", "ffn_up", hidden_size, size)?,
        ],
        down: layer("mlp_fc2_bias", "mlp.fc2", "ffn_down", size, hidden_size)?,
        experts: None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::families::from_hugging_face;

    /// As `nomic-embed-text-v1.5` has it.
    fn read(config: &Value) -> Result<Architecture, String> {
        let mut map = json!({
            "model_type": "nomic_bert", "n_embd": 768, "n_head": 12, "n_inner": 3072, "n_layer": 12, "n_positions": 8192,
            "max_trained_positions": 2048, "vocab_size": 30528, "type_vocab_size": 2, "activation_function": "swiglu",
            "layer_norm_epsilon": 1e-12, "rotary_emb_base": 1000, "rotary_emb_fraction": 1.0, "rotary_emb_interleaved": false,
            "rotary_emb_scale_base": null, "rotary_scaling_factor": null, "prenorm": false, "parallel_block": false,
            "qkv_proj_bias": false, "mlp_fc1_bias": false, "mlp_fc2_bias": false, "causal": false, "use_rms_norm": false
        });
        let map = map.as_object_mut().unwrap();
        map.extend(config.as_object().unwrap().clone());
        from_hugging_face("config.json", map).map_err(|error| error.to_string())
    }

    #[test]
    fn the_authors_names_are_read_as_those_of_transformers() {
        let model = read(&json!({})).unwrap();
        assert_eq!((model.hidden_size, model.layers.len(), model.context_length), (768, 12, 8192));
        assert_eq!(model.ropes, [Rope::new(1000.0, 64)]);
        let scaled = read(&json!({ "rotary_scaling_factor": 2 })).unwrap();
        assert_eq!(scaled.context_length, 2048, "no scaling of rotations");
        let theirs = json!({
            "model_type": "nomic_bert", "hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072,
            "num_hidden_layers": 12, "max_position_embeddings": 8192, "vocab_size": 30528, "hidden_act": "silu",
            "rope_parameters": { "rope_type": "default", "rope_theta": 1000.0 }
        });
        assert_eq!(from_hugging_face("config.json", theirs.as_object().unwrap()).unwrap(), model);
    }

    #[test]
    fn what_is_computed_otherwise_is_refused_by_name() {
        for (config, words) in [
            (json!({ "prenorm": true }), "prenorm"),
            (json!({ "use_rms_norm": true }), "use_rms_norm"),
            (json!({ "rotary_emb_fraction": 0.5 }), "rotary_emb_fraction"),
            (json!({ "rotary_emb_interleaved": true }), "rotary_emb_interleaved"),
            (json!({ "activation_function": "gelu" }), "activation_function"),
            (json!({ "moe_every_n_layers": 2, "num_experts": 8 }), "moe_every_n_layers"),
            (json!({ "rope_parameters": { "rope_type": "dynamic" } }), "rope_type"),
            (json!({ "n_layer": null }), "num_hidden_layers"),
        ] {
            let refusal = read(&config).unwrap_err();
            assert!(refusal.contains(words), "{refusal}");
        }
    }
}
