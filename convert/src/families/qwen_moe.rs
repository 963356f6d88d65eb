//! Qwen 3 with experts: Qwen 3's attention, and in most layers a router that chooses some of many small feed-forward blocks.

use serde_json::json;

use super::FamilyReader;
use super::changes::flag;
use super::gguf::{Config, GgufReader, Metadata};
use super::hugging_face::linear;
use super::qwen::qwen3;
use crate::architecture::{Architecture, Experts, Name};
use crate::config_error::ConfigError;
use crate::fields::Fields;

/// Defaults of transformers.
const EXPERTS_DEFAULT: usize = 128;
const USED_DEFAULT: usize = 8;
const SIZE_DEFAULT: usize = 768;

pub(super) const READER: FamilyReader = FamilyReader { model_types: &["qwen3_moe"], from_hugging_face };

/// All layers have experts, whose weights are divided by their sum, as llama.cpp takes for granted.
pub(super) const GGUF: GgufReader = GgufReader {
    keys: &["expert_count", "expert_used_count", "expert_feed_forward_length"],
    translate: from_gguf,
    ..GgufReader::new("qwen3moe", "qwen3_moe")
};

fn from_gguf(metadata: &Metadata<'_>, config: &mut Config) -> Result<(), ConfigError> {
    let size = |name: &str| match metadata.size(name)? {
        0 => Err(metadata.unsupported(name, "at least 1")),
        size => Ok(size),
    };
    let (count, used) = (size("expert_count")?, size("expert_used_count")?);
    let size = match metadata.opt_size_of_layers("expert_feed_forward_length")?.filter(|size| *size > 0) {
        Some(size) => size,
        None => metadata.size_of_layers("feed_forward_length")? / used,
    };
    let fields = json!({"num_experts": count, "num_experts_per_tok": used, "moe_intermediate_size": size,
        "norm_topk_prob": true});
    config.extend(fields.as_object().cloned().unwrap_or_default());
    Ok(())
}

fn from_hugging_face(fields: &Fields<'_>) -> Result<Architecture, ConfigError> {
    let mut architecture = qwen3(fields)?;
    // The second name is that of transformers 5.
    let count = match fields.opt_size("num_experts")? {
        Some(count) => count,
        None => fields.opt_size("num_local_experts")?.unwrap_or(EXPERTS_DEFAULT),
    };
    let experts = Experts {
        count,
        used: fields.opt_size("num_experts_per_tok")?.unwrap_or(USED_DEFAULT),
        normalized: flag(fields, "norm_topk_prob", false)?,
        router: Name::new("mlp.gate", "ffn_gate_inp"),
        prefix: "mlp.experts".to_owned(),
    };
    let size = fields.opt_size("moe_intermediate_size")?.unwrap_or(SIZE_DEFAULT);
    let step = fields.opt_size("decoder_sparse_step")?.unwrap_or(1);
    if step == 0 {
        return Err(fields.wrong("decoder_sparse_step", "at least 1"));
    }
    let dense = fields.opt_numbers("mlp_only_layers")?.unwrap_or_default();
    let hidden = architecture.hidden_size;
    architecture.each(|index, layer| {
        if count == 0 || (index + 1) % step != 0 || dense.contains(&(index as f64)) {
            return;
        }
        let block = &mut layer.feed_forward;
        block.size = size;
        block.up =
            vec![linear("gate_proj", "ffn_gate_exps", hidden, size), linear("up_proj", "ffn_up_exps", hidden, size)];
        block.down = linear("down_proj", "ffn_down_exps", size, hidden);
        block.experts = Some(experts.clone());
    });
    Ok(architecture)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::families::from_hugging_face;

    #[test]
    fn layers_are_dense_where_the_configuration_says_so() {
        let config = json!({
            "model_type": "qwen3_moe", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 6,
            "num_attention_heads": 4, "vocab_size": 128, "max_position_embeddings": 256,
            "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
            "decoder_sparse_step": 2, "mlp_only_layers": [3]
        });
        let architecture = from_hugging_face("config.json", config.as_object().unwrap()).unwrap();
        let blocks: Vec<_> = architecture.layers.iter().map(|layer| &layer.feed_forward).collect();
        let sizes: Vec<_> = blocks.iter().map(|block| (block.size, block.experts.is_some())).collect();
        let (dense, experts) = ((128, false), (32, true));
        assert_eq!(sizes, [dense, experts, dense, dense, dense, experts]);
        assert_eq!(architecture.linears().count(), 6 * 7 - 2 * 3, "no adapter can change an expert");
    }
}
