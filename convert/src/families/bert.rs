//! BERT and its relatives: encoders with learned positions, biases everywhere, and norms after each block.
//!
//! RoBERTa counts positions from after the padding token on. DistilBERT has other names, and no token types; neither has MPNet, which
//! adds a bias to scores by distance.

use super::FamilyReader;
use super::changes::number;
use super::hugging_face::{activation, linear};
use crate::architecture::{
    Architecture, Attention, Encoder, FeedForward, Head, KeyValues, LAYERS_MAX, Layer, Linear, Mixer, Name, Norm,
    NormKind, RelativeBias, Residual, Rows,
};
use crate::config_error::ConfigError;
use crate::fields::Fields;

pub(super) const BERT: FamilyReader =
    FamilyReader { model_types: &["bert"], from_hugging_face: |fields| encoder(fields, &NAMES, 0) };
pub(super) const ROBERTA: FamilyReader =
    FamilyReader { model_types: &["roberta", "xlm-roberta", "camembert"], from_hugging_face: roberta };
pub(super) const MPNET: FamilyReader = FamilyReader { model_types: &["mpnet"], from_hugging_face: mpnet };
pub(super) const DISTILBERT: FamilyReader =
    FamilyReader { model_types: &["distilbert"], from_hugging_face: |fields| encoder(fields, &DISTIL, 0) };

/// Names that differ between the families: keys of config.json, and tensors within a layer.
struct Names {
    hidden_size: &'static str,
    size: &'static str,
    heads: &'static str,
    layers: &'static str,
    activation: &'static str,
    token_types: bool,
    /// Begin of the names of layers.
    prefix: &'static str,
    /// Queries, keys, values, output.
    attention: [&'static str; 4],
    attention_norm: &'static str,
    /// The two projections of the feed-forward block.
    feed_forward: [&'static str; 2],
    feed_forward_norm: &'static str,
}

const NAMES: Names = Names {
    hidden_size: "hidden_size",
    size: "intermediate_size",
    heads: "num_attention_heads",
    layers: "num_hidden_layers",
    activation: "hidden_act",
    token_types: true,
    prefix: "encoder.layer.",
    attention: ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"],
    attention_norm: "attention.output.LayerNorm",
    feed_forward: ["intermediate.dense", "output.dense"],
    feed_forward_norm: "output.LayerNorm",
};

const DISTIL: Names = Names {
    hidden_size: "dim",
    size: "hidden_dim",
    heads: "n_heads",
    layers: "n_layers",
    activation: "activation",
    token_types: false,
    prefix: "transformer.layer.",
    attention: ["attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin"],
    attention_norm: "sa_layer_norm",
    feed_forward: ["ffn.lin1", "ffn.lin2"],
    feed_forward_norm: "output_layer_norm",
};

const MPNET_NAMES: Names = Names {
    token_types: false,
    attention: ["attention.attn.q", "attention.attn.k", "attention.attn.v", "attention.attn.o"],
    attention_norm: "attention.LayerNorm",
    ..NAMES
};

/// Buckets that transformers computes, whatever config.json says.
const BUCKETS: usize = 32;

/// Heads of other tasks, and a buffer of numbers that count from zero.
const UNUSED: [&str; 8] = [
    "pooler.",
    "embeddings.position_ids",
    "cls.",
    "lm_head.",
    "classifier.",
    "pre_classifier.",
    "vocab_transform.",
    "vocab_projector.",
];

fn roberta(fields: &Fields<'_>) -> Result<Architecture, ConfigError> {
    let padding = fields.opt_size("pad_token_id")?.unwrap_or(1);
    encoder(fields, &NAMES, padding.saturating_add(1))
}

fn mpnet(fields: &Fields<'_>) -> Result<Architecture, ConfigError> {
    let key = "relative_attention_num_buckets";
    if fields.opt_size(key)?.is_some_and(|buckets| buckets != BUCKETS) {
        return Err(fields.unsupported(key, &BUCKETS.to_string()));
    }
    // The padding token is that of the family, not of config.json.
    let mut architecture = encoder(fields, &MPNET_NAMES, 2)?;
    if let Some(encoder) = &mut architecture.encoder {
        let name = Name::new("encoder.relative_attention_bias", "enc_rel_b");
        encoder.relative_bias = Some(RelativeBias { name, buckets: BUCKETS });
    }
    Ok(architecture)
}

/// Reads an encoder whose first position has the embedding of row `first`.
fn encoder(fields: &Fields<'_>, names: &Names, first: usize) -> Result<Architecture, ConfigError> {
    if fields.opt_flag("is_decoder")?.unwrap_or(false) {
        return Err(fields.unsupported("is_decoder", "false"));
    }
    if fields.opt_text("position_embedding_type")?.is_some_and(|kind| kind != "absolute") {
        return Err(fields.unsupported("position_embedding_type", "absolute"));
    }
    let sized = |key: &str, default: usize| Ok::<_, ConfigError>(fields.opt_size(key)?.unwrap_or(default));
    let hidden_size = sized(names.hidden_size, 768)?;
    let layers = sized(names.layers, 12)?;
    if layers > LAYERS_MAX {
        return Err(fields.wrong(names.layers, &format!("at most {LAYERS_MAX} layers")));
    }
    let positions = fields.size("max_position_embeddings")?;
    if positions <= first {
        return Err(fields.wrong("max_position_embeddings", &format!("more than {first}")));
    }
    let epsilon = number(fields, "layer_norm_eps", 1e-12)?;
    let norm = |hf: &str, gguf: &str| Norm {
        name: Name::new(hf, gguf),
        kind: NormKind::Layer { bias: true },
        epsilon,
        minus_one: false,
    };
    let layer = layer(fields, names, hidden_size, &norm)?;
    let rows = |hf: &str, gguf: &str, count, first| Rows { name: Name::new(hf, gguf), count, first };
    let types = rows("embeddings.token_type_embeddings", "token_types", sized("type_vocab_size", 2)?, 0);
    Ok(Architecture {
        family: fields.opt_text("model_type")?.unwrap_or_default().to_owned(),
        hidden_size,
        vocab_size: fields.size("vocab_size")?,
        context_length: positions - first,
        layers_begin: names.prefix.to_owned(),
        embedding: Name::new("embeddings.word_embeddings", "token_embd"),
        embedding_scale: 1.0,
        layer_inputs: None,
        ropes: Vec::new(),
        layers: vec![layer; layers],
        final_norm: None,
        head: Head { name: Name::new("lm_head", "output"), tied: true, bias: false, scale: 1.0, soft_cap: None },
        encoder: Some(Encoder {
            positions: Some(rows("embeddings.position_embeddings", "position_embd", positions, first)),
            token_types: names.token_types.then_some(types),
            relative_bias: None,
            embedding_norm: Some(norm("embeddings.LayerNorm", "token_embd_norm")),
            unused: UNUSED.map(str::to_owned).into(),
        }),
    })
}

fn layer(
    fields: &Fields<'_>,
    names: &Names,
    hidden_size: usize,
    norm: &dyn Fn(&str, &str) -> Norm,
) -> Result<Layer, ConfigError> {
    let (heads, size) = (fields.opt_size(names.heads)?.unwrap_or(12), fields.opt_size(names.size)?.unwrap_or(3072));
    let head_dim = hidden_size.checked_div(heads).unwrap_or(0);
    if head_dim.saturating_mul(heads) != hidden_size {
        return Err(fields.wrong(names.heads, &format!("a divisor of the hidden size, {hidden_size}")));
    }
    let biased = |hf: &str, gguf: &str, inputs, outputs| Linear { bias: true, ..linear(hf, gguf, inputs, outputs) };
    let square = |hf: &str, gguf: &str| biased(hf, gguf, hidden_size, hidden_size);
    let [q, k, v, output] = names.attention;
    let [up, down] = names.feed_forward;
    Ok(Layer {
        mixer: Mixer::Attention(Attention {
            heads,
            kv_heads: heads,
            head_dim,
            scale: 1.0 / (head_dim as f32).sqrt(),
            soft_cap: None,
            window: None,
            rope: None,
            qk_norm: None,
            kv: KeyValues::Own,
            value_norm: None,
            gated: false,
            qkv: vec![square(q, "attn_q"), square(k, "attn_k"), square(v, "attn_v")],
            output: square(output, "attn_output"),
        }),
        feed_forward: FeedForward {
            size,
            activation: activation(fields, (names.activation, "gelu"))?,
            gated: false,
            up: vec![biased(up, "ffn_up", hidden_size, size)],
            down: biased(down, "ffn_down", size, hidden_size),
            experts: None,
        },
        residual: Residual::Normed {
            attention: norm(names.attention_norm, "attn_output_norm"),
            feed_forward: norm(names.feed_forward_norm, "layer_output_norm"),
        },
        residual_scale: 1.0,
        input: None,
        output_scale: None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::families::from_hugging_face;

    fn read(config: &Value) -> Result<Architecture, String> {
        let mut map = json!({ "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
            "vocab_size": 128, "max_position_embeddings": 66 });
        let map = map.as_object_mut().unwrap();
        map.extend(config.as_object().unwrap().clone());
        from_hugging_face("config.json", map).map_err(|error| error.to_string())
    }

    #[test]
    fn positions_of_roberta_begin_after_the_padding() {
        let bert = read(&json!({ "model_type": "bert" })).unwrap();
        assert_eq!(bert.context_length, 66);
        let roberta = read(&json!({ "model_type": "xlm-roberta", "pad_token_id": 1, "type_vocab_size": 1 })).unwrap();
        let first = roberta.encoder.and_then(|encoder| encoder.positions).map(|rows| rows.first);
        assert_eq!((roberta.context_length, first), (64, Some(2)));
    }

    /// Of `relative_position_bucket` of transformers, for keys at these distances behind the query.
    #[test]
    fn buckets_are_those_of_the_reference() {
        let mpnet = read(&json!({ "model_type": "mpnet" })).unwrap();
        let bias = mpnet.encoder.and_then(|encoder| encoder.relative_bias).unwrap();
        let distances = [0, 1, -1, 7, -7, 8, -8, 11, 12, 16, 31, 32, 63, 64, 65, -90, 91, 127, 128, -128, 500, -500];
        let expected = [0, 17, 1, 23, 7, 24, 8, 24, 25, 26, 27, 28, 29, 30, 30, 14, 31, 31, 31, 15, 31, 15];
        assert_eq!(distances.map(|distance| bias.bucket(distance)), expected);
    }

    #[test]
    fn what_is_computed_otherwise_is_refused_by_name() {
        for (config, words) in [
            (json!({ "model_type": "bert", "is_decoder": true }), "is_decoder"),
            (json!({ "model_type": "bert", "position_embedding_type": "relative_key" }), "position_embedding_type"),
            (json!({ "model_type": "bert", "hidden_act": "tanh" }), "hidden_act"),
            (json!({ "model_type": "bert", "num_attention_heads": 5 }), "a divisor of the hidden size"),
            (json!({ "model_type": "roberta", "max_position_embeddings": 2 }), "more than 2"),
            (json!({ "model_type": "mpnet", "relative_attention_num_buckets": 64 }), "relative_attention_num_buckets"),
        ] {
            let refusal = read(&config).unwrap_err();
            assert!(refusal.contains(words), "{refusal}");
        }
    }
}
