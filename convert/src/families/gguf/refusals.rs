//! Settings that llama.cpp applies and an architecture's reader does not take: refused by name.

use super::{GgufReader, Metadata, Windows};
use crate::config_error::ConfigError;

/// Keys under `attention.` and `rope.` that every reader takes, and ones without influence on the graph: the original
/// context and the training that extended it.
const KNOWN: [&str; 17] = [
    "attention.causal",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.key_length_swa",
    "attention.layer_norm_epsilon",
    "attention.layer_norm_rms_epsilon",
    "attention.value_length",
    "attention.value_length_swa",
    "rope.dimension_count",
    "rope.dimension_count_swa",
    "rope.freq_base",
    "rope.scale_linear",
    "rope.scaling.attn_factor",
    "rope.scaling.factor",
    "rope.scaling.finetuned",
    "rope.scaling.original_context_length",
];
const SCALING: [&str; 6] = [
    "rope.scaling.type",
    "rope.scaling.yarn_attn_factor",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
    "rope.scaling.yarn_ext_factor",
    "rope.scaling.yarn_log_multiplier",
];
/// Keys of architectures with windows.
const WINDOWS: [&str; 2] = ["attention.sliding_window", "attention.sliding_window_pattern"];
/// Other keys that would change the computation, each with its neutral value.
const NEUTRAL: [(&str, f64); 7] = [
    ("attn_logit_softcapping", 0.0),
    ("embedding_scale", 1.0),
    ("final_logit_softcapping", 0.0),
    ("logit_scale", 1.0),
    ("nextn_predict_layers", 0.0),
    ("residual_scale", 1.0),
    ("shortconv.l_cache", 0.0),
];
/// Flags that would, too.
const FLAGS: [(&str, bool); 2] = [("attention.causal", true), ("use_parallel_residual", false)];

/// Refuses what is neither known nor one of the keys of `gguf`.
pub(super) fn refuse_unknown(metadata: &Metadata<'_>, gguf: &GgufReader) -> Result<(), ConfigError> {
    let own = |name: &str| gguf.keys.contains(&name);
    for name in metadata.names().filter(|name| name.starts_with("expert_")) {
        if !own(name) && !metadata.is_unused(name) {
            return Err(metadata.unsupported(name, "0, or files without it"));
        }
    }
    for (name, neutral) in NEUTRAL {
        if !own(name) && !metadata.is_unused(name) && metadata.opt_number(name)? != Some(neutral) {
            return Err(metadata.unsupported(name, &format!("{neutral:?}")));
        }
    }
    for (name, neutral) in FLAGS {
        if !own(name) && metadata.opt_flag(name)?.is_some_and(|flag| flag != neutral) {
            return Err(metadata.unsupported(name, &neutral.to_string()));
        }
    }
    let has_windows = !matches!(gguf.windows, Windows::None);
    for name in metadata.names().filter(|name| name.starts_with("attention.") || name.starts_with("rope.")) {
        let known = KNOWN.contains(&name) || SCALING.contains(&name) || (has_windows && WINDOWS.contains(&name));
        if !known && !own(name) && !metadata.is_unused(name) && !is_same_in_windows(metadata, name)? {
            return Err(metadata.unsupported(name, "files without it"));
        }
    }
    Ok(())
}

/// Whether a rotary base of layers with windows is that of the other layers.
fn is_same_in_windows(metadata: &Metadata<'_>, name: &str) -> Result<bool, ConfigError> {
    let same = metadata.get("rope.freq_base").is_some()
        && metadata.opt_number("rope.freq_base")? == metadata.opt_number("rope.freq_base_swa")?;
    Ok(name == "rope.freq_base_swa" && same)
}
