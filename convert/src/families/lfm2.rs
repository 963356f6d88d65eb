//! LFM 2: gated short convolutions in most layers, attention with norms of queries and keys in the others.

use serde_json::Value;

use super::FamilyReader;
use super::changes::flag;
use super::gguf::{Config, GgufReader, Metadata};
use super::hugging_face::{Conventions, LLAMA, decoder, linear};
use crate::architecture::{Architecture, Mixer, Name, QkSpan, ShortConvolution};
use crate::config_error::ConfigError;
use crate::fields::Fields;

/// Type of layers without attention.
const CONVOLUTION: &str = "conv";
/// The width of the feed-forward block, by the name of the first files and of transformers.
const SIZE: &[&str] = &["block_ff_dim", "intermediate_size"];
const LFM2: Conventions = Conventions {
    epsilon: ("norm_eps", 1e-5),
    rope_theta: 1_000_000.0,
    size: SIZE,
    ties: &["tie_embedding", "tie_word_embeddings"],
    tied: true,
    other_layers: Some(CONVOLUTION),
    ..LLAMA
};
/// Default of transformers.
const KERNEL: usize = 3;
/// Key and value heads of each layer; none where it convolves.
const KV_HEADS: &str = "attention.head_count_kv";
const KERNEL_KEY: &str = "shortconv.l_cache";

pub(super) const READER: FamilyReader = FamilyReader { model_types: &["lfm2"], from_hugging_face };
pub(super) const GGUF: GgufReader =
    GgufReader { keys: &[KERNEL_KEY], some_attend: true, translate, ..GgufReader::new("lfm2", "lfm2") };

fn from_hugging_face(fields: &Fields<'_>) -> Result<Architecture, ConfigError> {
    let mut architecture = decoder(fields, &LFM2)?;
    let hidden = architecture.hidden_size;
    let size = feed_forward_size(fields, architecture.layers.first().map_or(0, |layer| layer.feed_forward.size))?;
    let attends = attends(fields, architecture.layers.len())?;
    let convolution = short_convolution(fields, hidden)?;
    architecture
        .norms([Some(Name::new("operator_norm", "attn_norm")), None], [Some(Name::new("ffn_norm", "ffn_norm")), None]);
    architecture.each_attention(|_, attention| attention.output.name = Name::new("self_attn.out_proj", "attn_output"));
    architecture.qk_norms(["self_attn.q_layernorm", "self_attn.k_layernorm"], QkSpan::Head, false);
    architecture.each(|index, layer| {
        if !attends[index] {
            layer.mixer = Mixer::ShortConvolution(convolution.clone());
        }
        layer.feed_forward.size = size;
        layer.feed_forward.up = vec![
            linear("feed_forward.w1", "ffn_gate", hidden, size),
            linear("feed_forward.w3", "ffn_up", hidden, size),
        ];
        layer.feed_forward.down = linear("feed_forward.w2", "ffn_down", size, hidden);
    });
    if let Some(norm) = &mut architecture.final_norm {
        norm.name = Name::new("model.embedding_norm", "token_embd_norm");
    }
    Ok(architecture)
}

fn feed_forward_size(fields: &Fields<'_>, size: usize) -> Result<usize, ConfigError> {
    if !flag(fields, "block_auto_adjust_ff_dim", true)? {
        return Ok(size);
    }
    let multiplier = fields.opt_number("block_ffn_dim_multiplier")?.unwrap_or(1.0);
    let multiple = fields.opt_size("block_multiple_of")?.unwrap_or(256).max(1);
    let size = (size.saturating_mul(2) / 3) as f64 * multiplier;
    Ok((size as usize).checked_next_multiple_of(multiple).unwrap_or(usize::MAX))
}

/// Whether each layer attends: by `layer_types`, or by `full_attn_idxs` of the first files.
fn attends(fields: &Fields<'_>, layers: usize) -> Result<Vec<bool>, ConfigError> {
    if let Some(types) = fields.opt_texts("layer_types")? {
        return Ok(types.iter().take(layers).map(|kind| *kind != CONVOLUTION).collect());
    }
    let full = fields.opt_numbers("full_attn_idxs")?;
    Ok((0..layers).map(|index| full.as_ref().is_none_or(|full| full.contains(&(index as f64)))).collect())
}

fn short_convolution(fields: &Fields<'_>, hidden: usize) -> Result<ShortConvolution, ConfigError> {
    let bias = flag(fields, "conv_bias", false)?;
    let biased = |hf: &str, gguf: &str, outputs: usize| {
        let mut linear = linear(hf, gguf, hidden, outputs);
        linear.bias = bias;
        linear
    };
    Ok(ShortConvolution {
        width: hidden,
        kernel: fields.opt_size("conv_L_cache")?.unwrap_or(KERNEL),
        convolution: Name::new("conv.conv", "shortconv.conv"),
        bias,
        input: biased("conv.in_proj", "shortconv.in_proj", hidden.saturating_mul(3)),
        output: biased("conv.out_proj", "shortconv.out_proj", hidden),
    })
}

/// The width of the feed-forward block is the final one. A layer without heads of keys convolves.
fn translate(metadata: &Metadata<'_>, config: &mut Config) -> Result<(), ConfigError> {
    config.insert("block_auto_adjust_ff_dim".to_owned(), false.into());
    let Some(Value::Array(heads)) = metadata.get(KV_HEADS) else { return Ok(()) };
    let layers = metadata.size("block_count")?;
    if heads.len() < layers {
        return Err(metadata.wrong(KV_HEADS, &format!("a number for each of {layers} layers")));
    }
    let kind = |heads: &Value| if heads.as_u64() == Some(0) { CONVOLUTION } else { "full_attention" };
    config.insert("layer_types".to_owned(), heads.iter().map(kind).collect());
    if heads.iter().any(|heads| heads.as_u64() == Some(0)) {
        config.insert("conv_L_cache".to_owned(), metadata.size(KERNEL_KEY)?.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::architecture::{Architecture, Mixer};
    use crate::families::from_hugging_face;

    fn read(over: &Value) -> Architecture {
        let mut config = json!({
            "model_type": "lfm2", "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
            "vocab_size": 128, "max_position_embeddings": 256, "block_auto_adjust_ff_dim": false
        });
        config.as_object_mut().unwrap().extend(over.as_object().unwrap().clone());
        from_hugging_face("config.json", config.as_object().unwrap()).unwrap()
    }

    #[test]
    fn files_of_both_kinds_say_which_layers_convolve() {
        let first = json!({"full_attn_idxs": [1], "block_ff_dim": 96, "tie_embedding": true, "conv_L_cache": 4});
        let later =
            json!({"layer_types": ["conv", "full_attention", "conv"], "intermediate_size": 96, "conv_L_cache": 4});
        let (first, later) = (read(&first), read(&later));
        assert_eq!(first, later);
        let attends: Vec<_> = first.layers.iter().map(|layer| layer.attention().is_some()).collect();
        assert_eq!(attends, [false, true, false]);
        assert_eq!((first.state_floats(), first.layers[0].feed_forward.size), (2 * 3 * 64, 96));
        let names: Vec<String> = first.tensors().into_iter().map(|tensor| tensor.name).collect();
        for name in ["conv.conv.weight", "conv.in_proj.weight", "conv.out_proj.weight"] {
            assert!(names.contains(&format!("model.layers.2.{name}")), "{name}");
        }
    }

    #[test]
    fn a_bias_is_one_of_the_convolution_and_of_both_linear_layers() {
        let model = read(&json!({"full_attn_idxs": [], "intermediate_size": 96, "conv_bias": true}));
        let Mixer::ShortConvolution(of) = &model.layers[0].mixer else { panic!("{:?}", model.layers[0].mixer) };
        assert!(of.bias && of.input.bias && of.output.bias);
        let biases = model.tensors().into_iter().filter(|tensor| tensor.name.ends_with(".bias")).count();
        assert_eq!(biases, 3 * 3);
    }
}
