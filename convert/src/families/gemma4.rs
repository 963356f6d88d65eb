//! Gemma 4: Gemma 3's blocks, with larger heads where attention is full, keys and values that the last layers share, norms of
//! values, and an input of its own for each layer.

use std::collections::BTreeMap;

use super::FamilyReader;
use super::changes::flag;
use super::gemma::{GEMMA, gemma};
use super::hugging_face::{Conventions, Ropes, linear, ropes};
use crate::architecture::{
    Architecture, Attention, KeyValues, LAYERS_MAX, LayerInput, LayerInputs, Mixer, Name, Norm, QkSpan,
};
use crate::config_error::ConfigError;
use crate::fields::Fields;
use crate::rope::{Rope, RopeScaling};

const GEMMA4: Conventions = Conventions { minus_one: false, ..GEMMA };

/// Defaults of transformers.
const HEAD_DIM: usize = 256;
const FULL_HEAD_DIM: usize = 512;
const KV_HEADS: usize = 4;
const WINDOW: usize = 512;
const INPUT_SIZE: usize = 256;
/// Every so many layers one attends to everything.
const PATTERN: usize = 6;
/// Base of rotary frequencies, and part of the pairs that are turned, where attention is full.
const FULL_THETA: f32 = 1_000_000.0;
const FULL_PART: f64 = 0.25;

pub(super) const READER: FamilyReader = FamilyReader { model_types: &["gemma4_text"], from_hugging_face };

fn from_hugging_face(fields: &Fields<'_>) -> Result<Architecture, ConfigError> {
    fields.only_flag("enable_moe_block", false)?;
    if !matches!(fields.opt_text("use_bidirectional_attention")?, None | Some("vision")) {
        return Err(fields.unsupported("use_bidirectional_attention", "null, vision"));
    }
    let mut architecture = gemma(fields, &GEMMA4)?;
    let bias = flag(fields, "attention_bias", false)?;
    if architecture.layers.is_empty() {
        return Err(fields.wrong("num_hidden_layers", "at least 1"));
    }
    let heads = heads(fields, architecture.layers.len())?;
    let sources = sources(fields, &heads)?;
    let hidden = architecture.hidden_size;
    let wide = flag(fields, "use_double_wide_mlp", false)?;
    let epsilon = architecture.final_norm.as_ref().map_or(0.0, |norm| norm.epsilon);
    architecture.qk_norms(["self_attn.q_norm", "self_attn.k_norm"], QkSpan::Head, false);
    architecture.ropes.clear();
    for ((layer, of), kv) in architecture.layers.iter_mut().zip(&heads).zip(sources) {
        let Mixer::Attention(attention) = &mut layer.mixer else { continue };
        attention.rope = Some(rope_of(fields, &mut architecture.ropes, of)?);
        attention.scale = 1.0;
        attention.value_norm = Some(epsilon);
        change_heads(attention, of, kv, hidden);
        if wide && matches!(kv, KeyValues::OfLayer(_)) {
            let block = &mut layer.feed_forward;
            block.size = block.size.saturating_mul(2);
            block.up.iter_mut().for_each(|linear| linear.outputs = block.size);
            block.down.inputs = block.size;
        }
        layer.output_scale = Some(Name::new("layer_scalar", "layer_output_scale.weight"));
    }
    architecture.biases(bias, bias, false);
    layer_inputs(fields, &mut architecture)?;
    Ok(architecture)
}

fn change_heads(attention: &mut Attention, of: &Heads, kv: KeyValues, hidden: usize) {
    (attention.kv_heads, attention.head_dim, attention.window, attention.kv) =
        (of.kv_heads, of.head_dim, of.window, kv);
    let size = |heads: usize| heads.saturating_mul(of.head_dim);
    let (q, kv_size) = (size(attention.heads), size(of.kv_heads));
    attention.qkv = vec![linear("self_attn.q_proj", "attn_q", hidden, q)];
    if !matches!(kv, KeyValues::OfLayer(_)) {
        attention.qkv.push(linear("self_attn.k_proj", "attn_k", hidden, kv_size));
    }
    if kv == KeyValues::Own {
        attention.qkv.push(linear("self_attn.v_proj", "attn_v", hidden, kv_size));
    }
    attention.output = linear("self_attn.o_proj", "attn_output", q, hidden);
}

/// Keys and values of each layer: the last `num_kv_shared_layers` take those of the last layer before of their own type;
/// with `attention_k_eq_v`, values are keys where attention is full.
fn sources(fields: &Fields<'_>, heads: &[Heads]) -> Result<Vec<KeyValues>, ConfigError> {
    let key = "num_kv_shared_layers";
    let first = heads.len().checked_sub(fields.opt_size(key)?.unwrap_or(0)).filter(|first| *first > 0);
    let few = || fields.wrong(key, &format!("below {}: at least one layer has keys and values", heads.len()));
    let own = &heads[..first.ok_or_else(few)?];
    let keys_as_values = flag(fields, "attention_k_eq_v", false)?;
    let source = |(index, of): (usize, &Heads)| match own.iter().rposition(|other| other.is_full() == of.is_full()) {
        Some(source) if index >= own.len() => Ok(KeyValues::OfLayer(source)),
        Some(_) if keys_as_values && of.is_full() => Ok(KeyValues::KeysAsValues),
        Some(_) => Ok(KeyValues::Own),
        None => Err(fields.wrong(key, "a layer of each type before those that share")),
    };
    heads.iter().enumerate().map(source).collect()
}

/// Heads of a layer.
struct Heads {
    kv_heads: usize,
    head_dim: usize,
    window: Option<usize>,
}

impl Heads {
    fn is_full(&self) -> bool {
        self.window.is_none()
    }
}

/// Heads by `layer_types`, and by `per_layer_config` or the fields that go before it.
fn heads(fields: &Fields<'_>, layers: usize) -> Result<Vec<Heads>, ConfigError> {
    let head_dim = fields.opt_size("head_dim")?.unwrap_or(HEAD_DIM);
    let kv_heads = fields.opt_size("num_key_value_heads")?.unwrap_or(KV_HEADS);
    let window = fields.opt_size("sliding_window")?.unwrap_or(WINDOW);
    let types = fields.opt_texts("layer_types")?;
    let full_dim = fields.opt_size("global_head_dim")?.unwrap_or(FULL_HEAD_DIM);
    let full_kv_heads = match flag(fields, "attention_k_eq_v", false)? {
        true => fields.opt_size("num_global_key_value_heads")?,
        false => None,
    };
    let own = own_heads(fields, layers)?;
    let heads = |index: usize| {
        let slides = match &types {
            Some(types) => types.get(index).is_some_and(|kind| *kind == "sliding_attention"),
            None => !(index + 1).is_multiple_of(PATTERN),
        };
        // The last layer attends to everything, whatever is said of it.
        let full = !slides || index + 1 == layers;
        let window = (!full).then_some(window);
        match &own {
            Some(own) => {
                let (own_dim, own_kv_heads) = own.get(&index).copied().unwrap_or((None, None));
                Heads { kv_heads: own_kv_heads.unwrap_or(kv_heads), head_dim: own_dim.unwrap_or(head_dim), window }
            }
            None if full => Heads { kv_heads: full_kv_heads.unwrap_or(kv_heads), head_dim: full_dim, window },
            None => Heads { kv_heads, head_dim, window },
        }
    };
    Ok((0..layers).map(heads).collect())
}

/// Size and number of the heads of some layers, as far as they differ from those of the others.
type OwnHeads = BTreeMap<usize, (Option<usize>, Option<usize>)>;

/// `per_layer_config`, which transformers 5 writes.
fn own_heads(fields: &Fields<'_>, layers: usize) -> Result<Option<OwnHeads>, ConfigError> {
    let Some(all) = fields.opt_object("per_layer_config")? else { return Ok(None) };
    let mut heads = OwnHeads::new();
    for key in all.keys() {
        let index = key.parse().ok().filter(|index: &usize| *index < layers.min(LAYERS_MAX));
        let index =
            index.ok_or_else(|| all.wrong(key, &format!("the number of one of {layers} layers as its name")))?;
        let Some(layer) = all.opt_object(key)? else { continue };
        for name in layer.keys() {
            if !matches!(name, "head_dim" | "num_key_value_heads") {
                return Err(layer.unsupported(name, "head_dim and num_key_value_heads by layer"));
            }
        }
        heads.insert(index, (layer.opt_size("head_dim")?, layer.opt_size("num_key_value_heads")?));
    }
    Ok(Some(heads))
}

/// Index of the rotary embedding for these heads, which is added if it is new.
fn rope_of(fields: &Fields<'_>, all: &mut Vec<Rope>, of: &Heads) -> Result<usize, ConfigError> {
    let full = of.is_full();
    let rope = if fields.has("rope_parameters") {
        let Ropes { ropes, by_type } = ropes(fields, &GEMMA4, of.head_dim)?;
        let index = usize::from(by_type && !full);
        ropes.into_iter().nth(index).ok_or_else(|| fields.missing("rope_parameters"))?
    } else if full {
        let turned = (FULL_PART * of.head_dim as f64 / 2.0) as usize;
        Rope { scaling: RopeScaling::Proportional(turned), ..Rope::new(FULL_THETA, of.head_dim) }
    } else {
        Rope::new(GEMMA4.rope_theta as f32, of.head_dim)
    };
    Ok(all.iter().position(|other| *other == rope).unwrap_or_else(|| {
        all.push(rope);
        all.len() - 1
    }))
}

/// The own inputs of layers, unless their size is zero.
fn layer_inputs(fields: &Fields<'_>, architecture: &mut Architecture) -> Result<(), ConfigError> {
    let size = fields.opt_size("hidden_size_per_layer_input")?;
    let size = if fields.has("hidden_size_per_layer_input") { size.unwrap_or(0) } else { INPUT_SIZE };
    if size == 0 {
        return Ok(());
    }
    let vocab_size = architecture.vocab_size;
    if fields.opt_size("vocab_size_per_layer_input")?.is_some_and(|size| size != vocab_size) {
        return Err(fields.unsupported("vocab_size_per_layer_input", &format!("{vocab_size}, as vocab_size")));
    }
    let hidden = architecture.hidden_size;
    let width = size.saturating_mul(architecture.layers.len());
    let Some(like) = architecture.final_norm.clone() else { return Ok(()) };
    let norm = |name: Name| Norm { name, ..like.clone() };
    let inputs = LayerInputs {
        size,
        embedding: Name::new("model.embed_tokens_per_layer", "per_layer_token_embd"),
        embedding_scale: (size as f32).sqrt(),
        projection: linear("model.per_layer_model_projection", "per_layer_model_proj", hidden, width),
        projection_scale: 1.0 / (hidden as f32).sqrt(),
        norm: norm(Name::new("model.per_layer_projection_norm", "per_layer_proj_norm")),
        scale: std::f32::consts::FRAC_1_SQRT_2,
    };
    let input = LayerInput {
        gate: linear("per_layer_input_gate", "inp_gate", hidden, size),
        activation: architecture.layers[0].feed_forward.activation,
        projection: linear("per_layer_projection", "proj", size, hidden),
        norm: norm(Name::new("post_per_layer_input_norm", "post_norm")),
    };
    architecture.each(|_, layer| layer.input = Some(input.clone()));
    architecture.layer_inputs = Some(inputs);
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::families::from_hugging_face;

    fn read(over: &Value) -> Architecture {
        let mut config = json!({
            "model_type": "gemma4_text", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 6,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "vocab_size": 128,
            "max_position_embeddings": 256, "sliding_window": 16
        });
        config.as_object_mut().unwrap().extend(over.as_object().unwrap().clone());
        from_hugging_face("config.json", config.as_object().unwrap()).unwrap()
    }

    fn of_attention(layer: &crate::architecture::Layer) -> &Attention {
        layer.attention().unwrap()
    }

    fn each<T>(architecture: &Architecture, of: impl Fn(&crate::architecture::Layer) -> T) -> Vec<T> {
        architecture.layers.iter().map(of).collect()
    }

    #[test]
    fn the_heads_of_full_attention_are_larger_with_a_rotation_of_their_own() {
        let types = json!([
            "sliding_attention",
            "full_attention",
            "sliding_attention",
            "sliding_attention",
            "sliding_attention",
            "sliding_attention"
        ]);
        let architecture = read(&json!({"layer_types": types, "global_head_dim": 64}));
        assert_eq!(
            each(&architecture, |layer| of_attention(layer).head_dim),
            [32, 64, 32, 32, 32, 64],
            "the last one, too"
        );
        assert_eq!(each(&architecture, |layer| of_attention(layer).rope), [0, 1, 0, 0, 0, 1].map(Some));
        assert_eq!(architecture.ropes[0], Rope::new(10_000.0, 32));
        let turned = RopeScaling::Proportional(8);
        assert_eq!(architecture.ropes[1], Rope { scaling: turned, ..Rope::new(1_000_000.0, 64) });
        let configured = json!({"layer_types": types, "per_layer_config": {"1": {"head_dim": 48}}});
        let own = read(&configured);
        assert_eq!(each(&own, |layer| of_attention(layer).head_dim), [32, 48, 32, 32, 32, 32]);
        assert_eq!(own.ropes.len(), 3, "one for each size of full attention, and that of windows");
    }

    #[test]
    fn the_last_layers_take_keys_and_values_of_the_last_one_of_their_type() {
        let types = json!([
            "sliding_attention",
            "full_attention",
            "sliding_attention",
            "sliding_attention",
            "full_attention",
            "full_attention"
        ]);
        let over = json!({"layer_types": types, "num_kv_shared_layers": 3, "use_double_wide_mlp": true,
            "attention_k_eq_v": true, "num_global_key_value_heads": 1});
        let architecture = read(&over);
        let (full, sliding) = (KeyValues::OfLayer(1), KeyValues::OfLayer(2));
        let expected = [KeyValues::Own, KeyValues::KeysAsValues, KeyValues::Own, sliding, full, full];
        assert_eq!(each(&architecture, |layer| of_attention(layer).kv), expected);
        assert_eq!(each(&architecture, |layer| of_attention(layer).qkv.len()), [3, 2, 3, 1, 1, 1]);
        assert_eq!(each(&architecture, |layer| of_attention(layer).kv_heads), [2, 1, 2, 2, 1, 1]);
        assert_eq!(each(&architecture, |layer| layer.feed_forward.size), [128, 128, 128, 256, 256, 256]);
        let names: Vec<String> = architecture.tensors().into_iter().map(|tensor| tensor.name).collect();
        let unused = "model.layers.4.self_attn.k_norm.weight";
        assert!(!names.iter().any(|name| name == unused) && architecture.is_redundant(unused));
        assert!(!architecture.is_redundant("model.layers.1.self_attn.v_proj.weight"), "not read, and not unused");
        assert!(names.iter().any(|name| name == "model.layers.5.layer_scalar"));
    }

    #[test]
    fn layers_have_inputs_of_their_own_unless_their_size_is_zero() {
        let architecture = read(&json!({"hidden_size_per_layer_input": 16}));
        let path = |place| architecture.path(place).unwrap();
        assert_eq!(path((6, 0)), "model.per_layer_model_projection");
        assert_eq!(path((5, 7)), "model.layers.5.per_layer_input_gate");
        assert_eq!(architecture.linears().next().map(|(place, linear)| (place, linear.outputs)), Some(((6, 0), 96)));
        for size in [json!(0), json!(null)] {
            let without = read(&json!({"hidden_size_per_layer_input": size}));
            assert!(without.layer_inputs.is_none() && without.layers.iter().all(|layer| layer.input.is_none()));
        }
    }
}
