//! Names and shapes of the weights that a configuration requires.

use crate::config::ModelConfig;
use crate::peft::Module;

pub(super) const EMBEDDING: &str = "model.embed_tokens.weight";
pub(super) const HEAD: &str = "lm_head.weight";
const FINAL_NORM: &str = "model.norm.weight";

/// A required weight.
#[derive(Debug)]
pub(super) struct Expected {
    /// Hugging Face name.
    pub(super) name: String,
    /// Name in a GGUF file.
    pub(super) gguf: String,
    pub(super) shape: Vec<usize>,
    /// Heads of a query or key projection, whose rows GGUF stores in another order.
    pub(super) rotary_heads: Option<usize>,
}

/// All weights of a model of that shape.
pub(super) fn expected(config: &ModelConfig) -> Vec<Expected> {
    let plain = |name: &str, gguf: &str, shape: Vec<usize>| Expected {
        name: name.to_owned(),
        gguf: gguf.to_owned(),
        shape,
        rotary_heads: None,
    };
    let mut all = vec![
        plain(EMBEDDING, "token_embd.weight", vec![config.vocab_size, config.hidden_size]),
        plain(FINAL_NORM, "output_norm.weight", vec![config.hidden_size]),
    ];
    if !config.tie_word_embeddings {
        all.push(plain(HEAD, "output.weight", vec![config.vocab_size, config.hidden_size]));
    }
    for layer in 0..config.layers {
        for (name, gguf) in [("input_layernorm", "attn_norm"), ("post_attention_layernorm", "ffn_norm")] {
            all.push(plain(
                &format!("model.layers.{layer}.{name}.weight"),
                &format!("blk.{layer}.{gguf}.weight"),
                vec![config.hidden_size],
            ));
        }
        for module in Module::ALL {
            let (inputs, outputs) = module.dimensions(config);
            let (gguf, rotary_heads) = match module {
                Module::Q => ("attn_q", Some(config.heads)),
                Module::K => ("attn_k", Some(config.kv_heads)),
                Module::V => ("attn_v", None),
                Module::O => ("attn_output", None),
                Module::Gate => ("ffn_gate", None),
                Module::Up => ("ffn_up", None),
                Module::Down => ("ffn_down", None),
            };
            all.push(Expected {
                name: format!("{}.weight", module.path(layer)),
                gguf: format!("blk.{layer}.{gguf}.weight"),
                shape: vec![outputs, inputs],
                rotary_heads,
            });
        }
    }
    all
}

/// Redundant tensors of some files: rotary frequencies follow from the configuration, and a tied head is the embedding.
pub(super) fn is_redundant(name: &str, config: &ModelConfig) -> bool {
    name.ends_with(".rotary_emb.inv_freq") || (name == HEAD && config.tie_word_embeddings)
}
