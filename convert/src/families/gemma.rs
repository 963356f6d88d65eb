//! Gemma 2 and 3, and the embedding model of the latter: norms before and after each block, embeddings scaled by the root of their width, GELU gates, windows in
//! most layers. Gemma 2 caps scores and logits; Gemma 3 norms queries and keys.

use super::FamilyReader;
use super::changes::flag;
use super::gguf::{Config, GgufReader, Metadata, Windows};
use super::hugging_face::{Conventions, LLAMA, decoder};
use crate::architecture::{Architecture, Encoder, Layer, Name, QkSpan};
use crate::config_error::ConfigError;
use crate::fields::Fields;
use crate::rope::Rope;

pub(super) const GEMMA: Conventions =
    Conventions { activation: ("hidden_activation", "gelu_pytorch_tanh"), tied: true, minus_one: true, ..LLAMA };
/// Every so many layers of Gemma 3 one attends to everything.
const PATTERN_DEFAULT: usize = 6;
/// Layers of Gemma 2 27B and Gemma 3 27B.
const LAYERS_OF_27B: [usize; 2] = [46, 62];

pub(super) const GEMMA2: FamilyReader = FamilyReader { model_types: &["gemma2"], from_hugging_face: gemma2 };
pub(super) const GEMMA3: FamilyReader = FamilyReader { model_types: &["gemma3_text"], from_hugging_face: gemma3 };

pub(super) const GGUF2: GgufReader = GgufReader {
    windows: Windows::AllBut(2),
    keys: &["attn_logit_softcapping", "final_logit_softcapping"],
    translate: gguf2,
    ..GgufReader::new("gemma2", "gemma2")
};
pub(super) const GGUF3: GgufReader = GgufReader {
    windows: Windows::AllBut(PATTERN_DEFAULT),
    keys: &["final_logit_softcapping", "rope.freq_base_swa"],
    translate: gguf3,
    ..GgufReader::new("gemma3", "gemma3_text")
};

fn gemma2(fields: &Fields<'_>) -> Result<Architecture, ConfigError> {
    let mut architecture = gemma(fields, &GEMMA)?;
    if !fields.has("layer_types") {
        let window = fields.opt_size("sliding_window")?.or(Some(4096));
        architecture.each_attention(|index, attention| attention.window = window.filter(|_| index % 2 == 0));
    }
    Ok(architecture)
}

fn gemma3(fields: &Fields<'_>) -> Result<Architecture, ConfigError> {
    let mut architecture = gemma(fields, &Conventions { rope_theta: 1_000_000.0, ..GEMMA })?;
    if !fields.has("layer_types") {
        let window = fields.opt_size("sliding_window")?.or(Some(4096));
        let pattern = match fields.opt_size("_sliding_window_pattern")? {
            Some(pattern) => pattern,
            None => fields.opt_size("sliding_window_pattern")?.unwrap_or(PATTERN_DEFAULT),
        };
        let slides = move |index: usize| !(index + 1).is_multiple_of(pattern);
        architecture.each_attention(|index, attention| attention.window = window.filter(|_| slides(index)));
    }
    if architecture.ropes.len() == 1 {
        // Files of transformers 4: the scaling is that of full attention.
        let theta = fields.opt_number("rope_local_base_freq")?.unwrap_or(10_000.0) as f32;
        let head_dim = architecture.layers.first().and_then(Layer::attention).map_or(0, |attention| attention.head_dim);
        architecture.ropes.push(Rope::new(theta, head_dim));
    }
    architecture.each_attention(|_, attention| attention.rope = Some(usize::from(attention.window.is_some())));
    architecture.qk_norms(["self_attn.q_norm", "self_attn.k_norm"], QkSpan::Head, false);
    if flag(fields, "use_bidirectional_attention", false)? {
        bidirectional(&mut architecture);
    }
    Ok(architecture)
}

/// Embedding Gemma, whose tokens see each other. Its window is that of both sides together.
fn bidirectional(architecture: &mut Architecture) {
    architecture.each_attention(|_, attention| attention.window = attention.window.map(|window| window / 2 + 1));
    architecture.encoder = Some(Encoder {
        positions: None,
        token_types: None,
        relative_bias: None,
        embedding_norm: None,
        unused: Vec::new(),
    });
}

pub(super) fn gemma(fields: &Fields<'_>, conventions: &Conventions) -> Result<Architecture, ConfigError> {
    let mut architecture = decoder(fields, conventions)?;
    let bias = flag(fields, "attention_bias", false)?;
    architecture.biases(bias, bias, false);
    architecture.embedding_scale = (architecture.hidden_size as f32).sqrt();
    architecture.head.soft_cap = fields.opt_number("final_logit_softcapping")?.map(|cap| cap as f32);
    architecture.norms(
        [
            Some(Name::new("input_layernorm", "attn_norm")),
            Some(Name::new("post_attention_layernorm", "post_attention_norm")),
        ],
        [
            Some(Name::new("pre_feedforward_layernorm", "ffn_norm")),
            Some(Name::new("post_feedforward_layernorm", "post_ffw_norm")),
        ],
    );
    let scalar = fields.opt_number("query_pre_attn_scalar")?.unwrap_or(256.0);
    let soft_cap = fields.opt_number("attn_logit_softcapping")?.map(|cap| cap as f32);
    architecture.each_attention(|_, attention| {
        attention.scale = scalar.powf(-0.5) as f32;
        attention.soft_cap = soft_cap;
    });
    Ok(architecture)
}

/// The first files of Gemma 2 say nothing of windows and caps, but have them.
fn gguf2(metadata: &Metadata<'_>, config: &mut Config) -> Result<(), ConfigError> {
    if metadata.get("attention.sliding_window").is_none() {
        config.remove("sliding_window");
        config.remove("layer_types");
    }
    let cap = |key: &str, default: f64| Ok::<_, ConfigError>(metadata.opt_number(key)?.unwrap_or(default));
    config.insert("attn_logit_softcapping".to_owned(), cap("attn_logit_softcapping", 50.0)?.into());
    config.insert("final_logit_softcapping".to_owned(), cap("final_logit_softcapping", 30.0)?.into());
    let scalar = query_scalar(metadata, LAYERS_OF_27B[0])?;
    config.insert("query_pre_attn_scalar".to_owned(), scalar.into());
    Ok(())
}

fn gguf3(metadata: &Metadata<'_>, config: &mut Config) -> Result<(), ConfigError> {
    let cap = metadata.nonzero("final_logit_softcapping")?;
    config.insert("final_logit_softcapping".to_owned(), cap.into());
    let theta = metadata.nonzero("rope.freq_base_swa")?.unwrap_or(10_000.0);
    config.insert("rope_local_base_freq".to_owned(), theta.into());
    let scalar = query_scalar(metadata, LAYERS_OF_27B[1])?;
    config.insert("query_pre_attn_scalar".to_owned(), scalar.into());
    Ok(())
}

/// The width of a head; in the models of 27B, which are known by their layers, that of the residual stream for each head.
fn query_scalar(metadata: &Metadata<'_>, layers_of_27b: usize) -> Result<usize, ConfigError> {
    if metadata.size("block_count")? != layers_of_27b {
        return metadata.head_dim();
    }
    let (hidden, heads) = (metadata.size("embedding_length")?, metadata.size("attention.head_count")?);
    Ok(hidden.checked_div(heads).unwrap_or(0))
}
