//! Fields of `config.json` that most decoder-only families share, read to an architecture with Llama's layers. A family
//! changes what is its own.

mod layers;
mod rope;

use crate::architecture::{
    Activation, Architecture, Attention, BlockNorms, DECODER_LAYERS, FeedForward, Head, KeyValues, LAYERS_MAX, Layer,
    Linear, Mixer, Name, Norm, NormKind, Residual,
};
use crate::config_error::ConfigError;
use crate::fields::Fields;

pub(super) use layers::layer_types;
pub(super) use rope::{Ropes, ropes};

/// Names and defaults of fields that differ between families.
pub(super) struct Conventions {
    /// Epsilon of norms, and its default.
    pub(super) epsilon: (&'static str, f64),
    /// Activation, and its default.
    pub(super) activation: (&'static str, &'static str),
    /// Base of rotary frequencies.
    pub(super) rope_theta: f64,
    /// Part of a head that is turned.
    pub(super) partial_rotary_factor: f64,
    /// Width of a head where none is given; `None` for equal parts of the residual stream.
    pub(super) head_dim: Option<usize>,
    /// Names of the width of the feed-forward block; the first one that is there counts.
    pub(super) size: &'static [&'static str],
    /// Names of the flag for a tied head; the first one that is there counts.
    pub(super) ties: &'static [&'static str],
    /// Its default.
    pub(super) tied: bool,
    /// Type of layers that are no attention, in `layer_types`.
    pub(super) other_layers: Option<&'static str>,
    /// Kind of all norms over the residual stream.
    pub(super) norm: NormKind,
    /// Whether the checkpoint stores gains minus one.
    pub(super) minus_one: bool,
}

/// Llama's.
pub(super) const LLAMA: Conventions = Conventions {
    epsilon: ("rms_norm_eps", 1e-6),
    activation: ("hidden_act", "silu"),
    rope_theta: 10_000.0,
    partial_rotary_factor: 1.0,
    head_dim: None,
    size: &["intermediate_size"],
    ties: &["tie_word_embeddings"],
    tied: false,
    other_layers: None,
    norm: NormKind::Rms,
    minus_one: false,
};

/// Reads the fields of Llama-like models; absent ones take the defaults of transformers.
pub(super) fn decoder(fields: &Fields<'_>, conventions: &Conventions) -> Result<Architecture, ConfigError> {
    let hidden_size = fields.size("hidden_size")?;
    let heads = fields.size("num_attention_heads")?;
    let derived = hidden_size.checked_div(heads).unwrap_or(0);
    let head_dim = fields.opt_size("head_dim")?.or(conventions.head_dim).unwrap_or(derived);
    let kv_heads = fields.opt_size("num_key_value_heads")?.unwrap_or(heads);
    let layers = fields.size("num_hidden_layers")?;
    if layers > LAYERS_MAX {
        return Err(fields.wrong("num_hidden_layers", &format!("at most {LAYERS_MAX} layers")));
    }
    let (key, default) = conventions.epsilon;
    let epsilon = fields.opt_number(key)?.unwrap_or(default) as f32;
    let norm = |hf: &str, gguf: &str| Norm {
        name: Name::new(hf, gguf),
        kind: conventions.norm,
        epsilon,
        minus_one: conventions.minus_one,
    };
    let size = fields.size(first(fields, conventions.size))?;
    let Ropes { ropes, by_type } = ropes(fields, conventions, head_dim)?;
    let types = layer_types(fields, layers, conventions.other_layers)?;
    let (q, kv) = (heads.saturating_mul(head_dim), kv_heads.saturating_mul(head_dim));
    let layer = |index: usize| Layer {
        mixer: Mixer::Attention(Attention {
            heads,
            kv_heads,
            head_dim,
            scale: 1.0 / (head_dim as f32).sqrt(),
            soft_cap: None,
            window: types.window(index),
            rope: Some(if by_type && types.is_sliding(index) { 1 } else { 0 }),
            qk_norm: None,
            kv: KeyValues::Own,
            value_norm: None,
            gated: false,
            qkv: vec![
                linear("self_attn.q_proj", "attn_q", hidden_size, q),
                linear("self_attn.k_proj", "attn_k", hidden_size, kv),
                linear("self_attn.v_proj", "attn_v", hidden_size, kv),
            ],
            output: linear("self_attn.o_proj", "attn_output", q, hidden_size),
        }),
        feed_forward: feed_forward(hidden_size, size),
        residual: Residual::Sequential {
            attention: BlockNorms { pre: Some(norm("input_layernorm", "attn_norm")), post: None },
            feed_forward: BlockNorms { pre: Some(norm("post_attention_layernorm", "ffn_norm")), post: None },
        },
        residual_scale: 1.0,
        input: None,
        output_scale: None,
    };
    let mut architecture = Architecture {
        family: fields.opt_text("model_type")?.unwrap_or_default().to_owned(),
        hidden_size,
        vocab_size: fields.size("vocab_size")?,
        context_length: fields.size("max_position_embeddings")?,
        layers_begin: DECODER_LAYERS.to_owned(),
        embedding: Name::new("model.embed_tokens", "token_embd"),
        embedding_scale: 1.0,
        layer_inputs: None,
        ropes,
        layers: (0..layers).map(layer).collect(),
        final_norm: Some(norm("model.norm", "output_norm")),
        head: Head {
            name: Name::new("lm_head", "output"),
            tied: fields.opt_flag(first(fields, conventions.ties))?.unwrap_or(conventions.tied),
            bias: false,
            scale: 1.0,
            soft_cap: None,
        },
        encoder: None,
    };
    let activation = activation(fields, conventions.activation)?;
    architecture.layers.iter_mut().for_each(|layer| layer.feed_forward.activation = activation);
    Ok(architecture)
}

/// The first of these names that is there, or the last one.
pub(super) fn first(fields: &Fields<'_>, names: &[&'static str]) -> &'static str {
    let there = names.iter().find(|name| fields.get(name).is_some());
    there.or(names.last()).copied().unwrap_or_default()
}

fn feed_forward(hidden: usize, size: usize) -> FeedForward {
    FeedForward {
        size,
        activation: Activation::Silu,
        gated: true,
        up: vec![linear("mlp.gate_proj", "ffn_gate", hidden, size), linear("mlp.up_proj", "ffn_up", hidden, size)],
        down: linear("mlp.down_proj", "ffn_down", size, hidden),
        experts: None,
    }
}

/// A linear layer without a bias.
pub(super) fn linear(hf: &str, gguf: &str, inputs: usize, outputs: usize) -> Linear {
    Linear { name: Name::new(hf, gguf), inputs, outputs, bias: false, gguf_pairs: None }
}

/// A positive number of config.json; absent ones are `default`.
pub(super) fn positive(fields: &Fields<'_>, key: &str, default: f64) -> Result<f32, ConfigError> {
    let value = fields.opt_number(key)?.unwrap_or(default);
    if value > 0.0 { Ok(value as f32) } else { Err(fields.wrong(key, "a positive number")) }
}

/// The activation of the field, by the names of transformers.
pub(super) fn activation(fields: &Fields<'_>, (key, default): (&str, &str)) -> Result<Activation, ConfigError> {
    match fields.opt_text(key)?.unwrap_or(default) {
        "silu" | "swish" => Ok(Activation::Silu),
        "gelu_pytorch_tanh" | "gelu_new" | "gelu_fast" => Ok(Activation::GeluTanh),
        "gelu" => Ok(Activation::Gelu),
        "relu2" => Ok(Activation::ReluSquared),
        _ => Err(fields.unsupported(key, "silu, gelu_pytorch_tanh, gelu_new, gelu, relu2")),
    }
}

#[cfg(test)]
mod tests;
