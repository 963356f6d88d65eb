//! ModernBERT: an encoder with rotations, gates and norms before blocks, of which every third layer sees the whole text.

use serde_json::{Map, Value};

use super::FamilyReader;
use super::changes::{flag, number};
use super::hugging_face::{Conventions, LLAMA, decoder};
use crate::architecture::{Architecture, BlockNorms, Encoder, Linear, Mixer, Name, Norm, NormKind, Residual};
use crate::config_error::ConfigError;
use crate::fields::Fields;
use crate::rope::Rope;

const CONVENTIONS: Conventions =
    Conventions { epsilon: ("norm_eps", 1e-5), activation: ("hidden_activation", "gelu"), tied: true, ..LLAMA };

pub(super) const READER: FamilyReader = FamilyReader { model_types: &["modernbert"], from_hugging_face };

/// Heads of other tasks.
const UNUSED: [&str; 3] = ["head.", "decoder.", "classifier."];

fn from_hugging_face(fields: &Fields<'_>) -> Result<Architecture, ConfigError> {
    // What is written otherwise than in decoders.
    let own = ["layer_types", "rope_parameters", "num_key_value_heads", "head_dim"];
    let common = fields.keys().filter(|key| !own.contains(key));
    let common: Map<String, Value> =
        common.filter_map(|key| Some((key.to_owned(), fields.get(key)?.clone()))).collect();
    let mut architecture = decoder(&Fields::new(fields.file(), &common), &CONVENTIONS)?;
    let bias = flag(fields, "norm_bias", false)?;
    let epsilon = number(fields, "norm_eps", 1e-5)?;
    let norm = |hf: &str, gguf: &str| Norm {
        name: Name::new(hf, gguf),
        kind: NormKind::Layer { bias },
        epsilon,
        minus_one: false,
    };
    architecture.ropes = ropes(fields, architecture.hidden_size)?;
    architecture.layers_begin = "layers.".to_owned();
    architecture.embedding = Name::new("embeddings.tok_embeddings", "token_embd");
    architecture.final_norm = Some(norm("final_norm", "output_norm"));
    architecture.encoder = Some(Encoder {
        positions: None,
        token_types: None,
        relative_bias: None,
        embedding_norm: Some(norm("embeddings.norm", "token_embd_norm")),
        unused: UNUSED.map(str::to_owned).into(),
    });
    let [qkv_bias, block_bias] = [flag(fields, "attention_bias", false)?, flag(fields, "mlp_bias", false)?];
    architecture.biases(qkv_bias, qkv_bias, block_bias);
    let sliding = sliding(fields, architecture.layers.len())?;
    let window = fields.opt_size("local_attention")?.unwrap_or(128) / 2 + 1;
    architecture.each(|index, layer| {
        layer.fuse_qkv(Name::new("attn.Wqkv", "attn_qkv"));
        layer.fuse_gate_up(Name::new("mlp.Wi", "ffn_up"));
        layer.feed_forward.down = Linear { name: Name::new("mlp.Wo", "ffn_down"), ..layer.feed_forward.down.clone() };
        let block = |pre| BlockNorms { pre, post: None };
        layer.residual = Residual::Sequential {
            // The embedding is normed already.
            attention: block((index > 0).then(|| norm("attn_norm", "attn_norm"))),
            feed_forward: block(Some(norm("mlp_norm", "ffn_norm"))),
        };
        let Mixer::Attention(attention) = &mut layer.mixer else { return };
        attention.output.name = Name::new("attn.Wo", "attn_output");
        let local = sliding.get(index).copied().unwrap_or(false);
        attention.window = local.then_some(window);
        attention.rope = Some(usize::from(local));
    });
    Ok(architecture)
}

/// Whether each layer sees a window only.
fn sliding(fields: &Fields<'_>, layers: usize) -> Result<Vec<bool>, ConfigError> {
    if let Some(types) = fields.opt_texts("layer_types")? {
        let known = |kind: &&str| ["sliding_attention", "full_attention"].contains(kind);
        if types.len() < layers || !types.iter().all(known) {
            return Err(fields.unsupported("layer_types", "sliding_attention or full_attention for each layer"));
        }
        return Ok(types.iter().map(|kind| *kind == "sliding_attention").collect());
    }
    let every = fields.opt_size("global_attn_every_n_layers")?.unwrap_or(3);
    if every == 0 {
        return Err(fields.wrong("global_attn_every_n_layers", "at least 1"));
    }
    Ok((0..layers).map(|index| !index.is_multiple_of(every)).collect())
}

/// The embedding of layers that see everything, then that of the others.
fn ropes(fields: &Fields<'_>, hidden_size: usize) -> Result<Vec<Rope>, ConfigError> {
    let heads = fields.size("num_attention_heads")?;
    let head_dim = hidden_size.checked_div(heads).unwrap_or(0);
    let parameters = fields.opt_object("rope_parameters")?;
    let kinds =
        [("full_attention", "global_rope_theta", 160_000.0), ("sliding_attention", "local_rope_theta", 10_000.0)];
    kinds
        .into_iter()
        .map(|(kind, older, default)| {
            let own = match &parameters {
                Some(parameters) => parameters.opt_object(kind)?,
                None => None,
            };
            let theta = match &own {
                Some(own) if own.opt_text("rope_type")?.is_some_and(|kind| kind != "default") => {
                    return Err(own.unsupported("rope_type", "default"));
                }
                Some(own) => own.opt_number("rope_theta")?,
                None => fields.opt_number(older)?,
            };
            Ok(Rope::new(theta.unwrap_or(default) as f32, head_dim))
        })
        .collect()
}
