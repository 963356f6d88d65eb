//! GGUF metadata: translated to the fields of config.json, which the family's reader takes.
//!
//! Keys and their defaults are those of llama.cpp (`src/llama-arch.cpp`, `src/models`), layouts those of its conversion
//! from Hugging Face (`conversion`). Biases, a head of its own and divisors of rotary frequencies are in no metadata: they
//! follow from the file's tensors.

mod metadata;
mod refusals;
mod rope;

use serde_json::{Map, Value, json};

use super::FamilyReader;
use crate::architecture::{Architecture, LAYERS_MAX, Layer, Linear, Mixer};
use crate::config_error::ConfigError;
use crate::fields::Fields;
use crate::rope::RopeScaling;

pub(super) use metadata::Metadata;
pub(crate) use metadata::Tensors;
pub(super) use rope::original_context;

/// Fields of config.json.
pub(super) type Config = Map<String, Value>;

/// Tensors that are read with the metadata, and are none of the graph.
pub(crate) const OF_METADATA: [&str; 3] = [rope::DIVISORS, rope::FACTORS[0], rope::FACTORS[1]];
const EMBEDDING: &str = "token_embd.weight";
const HEAD: &str = "output.weight";
/// Queries, keys and values in one tensor, whether or not the family has them so: the first files of Phi 2 do, and those
/// that `--fuse-qkv` makes.
pub(crate) const FUSED: &str = "attn_qkv";

/// A family's name and layout in GGUF.
pub(super) struct GgufReader {
    /// `general.architecture`.
    pub(super) architecture: &'static str,
    /// `model_type` of the family's reader.
    pub(super) model_type: &'static str,
    /// Whether rows of queries and keys have the halves of a rotation side by side.
    pub(super) pairs: bool,
    /// Whether the norms over the residual stream are layer norms.
    pub(super) layer_norm: bool,
    /// Layers with a sliding window.
    pub(super) windows: Windows,
    /// Whether lists of key and value heads have zeros, for layers that are no attention.
    pub(super) some_attend: bool,
    /// Keys that `translate` takes and other architectures lack.
    pub(super) keys: &'static [&'static str],
    /// Adds, or changes, fields of config.json.
    pub(super) translate: fn(&Metadata<'_>, &mut Config) -> Result<(), ConfigError>,
}

/// Which layers have a sliding window, if the metadata say how wide it is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Windows {
    /// No layer.
    None,
    /// All layers.
    All,
    /// All but every so many, unless `attention.sliding_window_pattern` says other ones.
    AllBut(usize),
}

impl GgufReader {
    /// An architecture with the keys and layout that most have.
    pub(super) const fn new(architecture: &'static str, model_type: &'static str) -> Self {
        Self {
            architecture,
            model_type,
            pairs: false,
            layer_norm: false,
            windows: Windows::None,
            some_attend: false,
            keys: &[],
            translate: |_, _| Ok(()),
        }
    }
}

/// Reads `ARCHITECTURE.*` with one of `readers`.
pub(super) fn read(
    fields: &Fields<'_>,
    tensors: &dyn Tensors,
    gguf: &GgufReader,
    readers: &[FamilyReader],
) -> Result<Architecture, ConfigError> {
    let metadata = Metadata::new(fields, gguf.architecture, tensors);
    refusals::refuse_unknown(&metadata, gguf)?;
    let mut config = common(&metadata, gguf)?;
    rope::translate(&metadata, &mut config)?;
    add_windows(&metadata, gguf.windows, &mut config)?;
    (gguf.translate)(&metadata, &mut config)?;
    let read = Fields::new(metadata.file(), &config);
    let model_type = read.opt_text("model_type")?.unwrap_or_default();
    let reader = readers.iter().find(|reader| reader.model_types.contains(&model_type));
    let reader = reader.ok_or_else(|| fields.unsupported("general.architecture", "architectures with a reader"))?;
    let mut architecture = (reader.from_hugging_face)(&read)?;
    from_tensors(&metadata, gguf, &mut architecture)?;
    Ok(architecture)
}

fn common(metadata: &Metadata<'_>, gguf: &GgufReader) -> Result<Config, ConfigError> {
    let layers = metadata.size("block_count")?;
    if layers > LAYERS_MAX {
        return Err(metadata.wrong("block_count", &format!("at most {LAYERS_MAX} layers")));
    }
    let heads = metadata.size_of_layers("attention.head_count")?;
    let head_dim = metadata.head_dim()?;
    for name in ["attention.value_length", "attention.key_length_swa", "attention.value_length_swa"] {
        if metadata.opt_size(name)?.is_some_and(|width| width != head_dim && head_dim != 0) {
            return Err(metadata.unsupported(name, &format!("{head_dim}, the width of a head")));
        }
    }
    let vocab_size = match metadata.opt_size("vocab_size")? {
        Some(size) => size,
        None => metadata.tensors.shape(EMBEDDING).and_then(|shape| shape.first().copied()).unwrap_or(0),
    };
    let kind = if gguf.layer_norm { "attention.layer_norm_epsilon" } else { "attention.layer_norm_rms_epsilon" };
    let epsilon = metadata.number(kind)?;
    let kv_heads = match gguf.some_attend {
        true => metadata.opt_size_of_layers_but_zeros("attention.head_count_kv")?,
        false => metadata.opt_size_of_layers("attention.head_count_kv")?,
    };
    let config = json!({
        "model_type": gguf.model_type,
        "hidden_size": metadata.size("embedding_length")?,
        "intermediate_size": metadata.size_of_layers("feed_forward_length")?,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads.unwrap_or(heads),
        "head_dim": head_dim,
        "vocab_size": vocab_size,
        "max_position_embeddings": metadata.size("context_length")?,
        "tie_word_embeddings": !metadata.has_tensor(HEAD),
        // One number under the names of all families.
        "rms_norm_eps": epsilon,
        "layer_norm_eps": epsilon,
        "norm_eps": epsilon,
        "norm_epsilon": epsilon,
    });
    match config {
        Value::Object(config) => Ok(config),
        _ => Ok(Config::new()),
    }
}

/// Adds `sliding_window` and `layer_types`.
fn add_windows(metadata: &Metadata<'_>, windows: Windows, config: &mut Config) -> Result<(), ConfigError> {
    let every = match windows {
        Windows::None => return Ok(()),
        Windows::All => 0,
        Windows::AllBut(every) => every,
    };
    let window = metadata.opt_size("attention.sliding_window")?.filter(|window| *window > 0);
    let layers = metadata.size("block_count")?;
    let pattern = "attention.sliding_window_pattern";
    let slides: Vec<bool> = match (window, metadata.get(pattern)) {
        (None, _) => vec![false; layers],
        (Some(_), Some(Value::Array(flags))) => {
            let flag = |flag: &Value| flag.as_bool().or_else(|| Some(flag.as_u64()? != 0));
            let flags: Option<Vec<bool>> = flags.iter().map(flag).collect();
            let flags = flags.filter(|flags| flags.len() >= layers);
            flags.ok_or_else(|| metadata.wrong(pattern, "a number, or a flag for each layer"))?
        }
        (Some(_), _) => {
            let every = metadata.opt_size(pattern)?.unwrap_or(every);
            (0..layers).map(|index| every == 0 || (index + 1) % every != 0).collect()
        }
    };
    let kind = |slides: &bool| if *slides { "sliding_attention" } else { "full_attention" };
    config.insert("layer_types".to_owned(), slides.iter().map(kind).collect());
    config.insert("sliding_window".to_owned(), window.into());
    Ok(())
}

/// Sets what follows from the tensors, and the layout of the file.
fn from_tensors(
    metadata: &Metadata<'_>,
    gguf: &GgufReader,
    architecture: &mut Architecture,
) -> Result<(), ConfigError> {
    let head_dim = metadata.head_dim()?;
    let dim = metadata.opt_size("rope.dimension_count")?.unwrap_or(head_dim);
    if metadata.opt_size("rope.dimension_count_swa")?.is_some_and(|other| other != dim) {
        return Err(metadata.unsupported("rope.dimension_count_swa", &format!("{dim}, as in other layers")));
    }
    // Rows are reordered over whole heads.
    if gguf.pairs && dim != head_dim && head_dim != 0 {
        return Err(metadata.unsupported("rope.dimension_count", &format!("{head_dim}, the width of a head")));
    }
    architecture.ropes.iter_mut().for_each(|rope| rope.dim = dim);
    if let (Some(divisors), Some(rope)) = (metadata.tensors.values(rope::DIVISORS), architecture.ropes.first_mut()) {
        rope.scaling = RopeScaling::Divisors(divisors);
    }
    let prefix = architecture.layer_prefix(0).gguf;
    let has_bias = |name: &str| metadata.has_tensor(&format!("{prefix}{name}.bias"));
    architecture.each(|_, layer| {
        linears_mut(layer).for_each(|linear| linear.bias = has_bias(&linear.name.gguf));
        let Mixer::Attention(attention) = &mut layer.mixer else { return };
        attention.qkv.iter_mut().for_each(|linear| linear.bias |= has_bias(FUSED));
        if let (true, [q, k, ..]) = (gguf.pairs, attention.qkv.as_mut_slice()) {
            (q.gguf_pairs, k.gguf_pairs) = (Some(attention.heads), Some(attention.kv_heads));
        }
    });
    Ok(())
}

fn linears_mut(layer: &mut Layer) -> impl Iterator<Item = &mut Linear> {
    let ((inputs, output), feed_forward) = (layer.mixer.linears_mut(), &mut layer.feed_forward);
    let first = inputs.iter_mut().chain([output]);
    first.chain(feed_forward.up.iter_mut()).chain([&mut feed_forward.down])
}

#[cfg(test)]
mod tests;
