//! LFM 2: norms of queries and keys. Its layers with short convolutions are not served yet.

use super::FamilyReader;
use super::gguf::{Config, GgufReader, Metadata};
use super::hugging_face::{Conventions, LLAMA, decoder, linear};
use crate::architecture::{Architecture, Name, QkSpan};
use crate::config_error::ConfigError;
use crate::fields::Fields;

const LFM2: Conventions = Conventions { epsilon: ("norm_eps", 1e-5), rope_theta: 1_000_000.0, tied: true, ..LLAMA };

pub(super) const READER: FamilyReader = FamilyReader { model_types: &["lfm2"], from_hugging_face };
pub(super) const GGUF: GgufReader =
    GgufReader { keys: &["shortconv.l_cache"], translate, ..GgufReader::new("lfm2", "lfm2") };

fn from_hugging_face(fields: &Fields<'_>) -> Result<Architecture, ConfigError> {
    let mut architecture = decoder(fields, &LFM2)?;
    let (hidden, mut size) = (architecture.hidden_size, fields.size("intermediate_size")?);
    if fields.opt_flag("block_auto_adjust_ff_dim")?.unwrap_or(true) {
        size = (2 * size / 3) as f64 as usize;
        let multiplier = fields.opt_number("block_ffn_dim_multiplier")?.unwrap_or(1.0);
        let multiple = fields.opt_size("block_multiple_of")?.unwrap_or(256).max(1);
        size = ((size as f64 * multiplier) as usize).next_multiple_of(multiple);
    }
    architecture
        .norms([Some(Name::new("operator_norm", "attn_norm")), None], [Some(Name::new("ffn_norm", "ffn_norm")), None]);
    architecture.each(|_, layer| {
        layer.attention.output.name = Name::new("self_attn.out_proj", "attn_output");
        layer.feed_forward.size = size;
        layer.feed_forward.up = vec![
            linear("feed_forward.w1", "ffn_gate", hidden, size),
            linear("feed_forward.w3", "ffn_up", hidden, size),
        ];
        layer.feed_forward.down = linear("feed_forward.w2", "ffn_down", size, hidden);
    });
    architecture.qk_norms(["self_attn.q_layernorm", "self_attn.k_layernorm"], QkSpan::Head, false);
    architecture.final_norm.name = Name::new("model.embedding_norm", "token_embd_norm");
    Ok(architecture)
}

/// The width of the feed-forward block is the final one.
fn translate(_: &Metadata<'_>, config: &mut Config) -> Result<(), ConfigError> {
    config.insert("block_auto_adjust_ff_dim".to_owned(), false.into());
    Ok(())
}
