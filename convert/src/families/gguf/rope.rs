//! Rotary embeddings of GGUF metadata, as `rope_theta` and `rope_parameters` of config.json.

use serde_json::{Map, Value, json};

use super::Metadata;
use crate::config_error::ConfigError;
use crate::rope::yarn_attention_factor;

const THETA_DEFAULT: f64 = 10_000.0;
/// Divisors of LongRoPE.
pub(super) const FACTORS: [&str; 2] = ["rope_factors_short.weight", "rope_factors_long.weight"];
/// Divisors of the rotary frequencies, for any context.
pub(super) const DIVISORS: &str = "rope_freqs.weight";

/// Adds the rotary fields to `config`.
pub(super) fn translate(metadata: &Metadata<'_>, config: &mut Map<String, Value>) -> Result<(), ConfigError> {
    let theta = metadata.opt_number("rope.freq_base")?.unwrap_or(THETA_DEFAULT);
    config.insert("rope_theta".to_owned(), theta.into());
    // Without a type, a factor is a linear one.
    let kind = metadata.opt_text("rope.scaling.type")?.unwrap_or("linear");
    let parameters = match kind {
        _ if FACTORS.iter().any(|name| metadata.has_tensor(name)) => Some(longrope(metadata)?),
        "none" => None,
        "linear" => match factor(metadata)? {
            1.0 => None,
            factor => Some(json!({"rope_type": "linear", "factor": factor})),
        },
        "yarn" => Some(yarn(metadata)?),
        "longrope" => return Err(metadata.unsupported("rope.scaling.type", &format!("files with {}", FACTORS[1]))),
        _ => return Err(metadata.unsupported("rope.scaling.type", "none, linear, yarn, longrope")),
    };
    let is_yarn = kind == "yarn";
    for name in metadata.names().filter(|name| name.starts_with("rope.scaling.yarn_")) {
        if !is_yarn && !metadata.is_unused(name) {
            return Err(metadata.unsupported(name, "files without it, or with rope.scaling.type = yarn"));
        }
    }
    let takes_factor = parameters.as_ref().is_some_and(|parameters| parameters.get("attention_factor").is_some());
    if !takes_factor && attention_factor(metadata)? != 1.0 {
        return Err(metadata.unsupported("rope.scaling.attn_factor", "1.0"));
    }
    if parameters.is_some() && metadata.has_tensor(DIVISORS) {
        return Err(metadata.unsupported("rope.scaling.type", &format!("none in a file with {DIVISORS}")));
    }
    if let Some(parameters) = parameters {
        config.insert("rope_parameters".to_owned(), parameters);
    }
    Ok(())
}

/// Factor of contexts; older files have it under another key.
fn factor(metadata: &Metadata<'_>) -> Result<f64, ConfigError> {
    let factor = match metadata.opt_number("rope.scaling.factor")? {
        Some(factor) => factor,
        None => metadata.opt_number("rope.scale_linear")?.unwrap_or(0.0),
    };
    Ok(if factor == 0.0 { 1.0 } else { factor })
}

fn attention_factor(metadata: &Metadata<'_>) -> Result<f64, ConfigError> {
    Ok(metadata.nonzero("rope.scaling.attn_factor")?.unwrap_or(1.0))
}

/// The context before it was extended.
pub(in crate::families) fn original_context(metadata: &Metadata<'_>) -> Result<usize, ConfigError> {
    match metadata.opt_size("rope.scaling.original_context_length")?.filter(|context| *context > 0) {
        Some(context) => Ok(context),
        None => metadata.size("context_length"),
    }
}

fn longrope(metadata: &Metadata<'_>) -> Result<Value, ConfigError> {
    if factor(metadata)? != 1.0 {
        return Err(metadata.unsupported("rope.scaling.factor", "1.0 beside factors for each pair"));
    }
    let [short, long] = FACTORS.map(|name| metadata.tensors.values(name));
    let (Some(short), Some(long)) = (short, long) else {
        return Err(
            metadata.unsupported("rope.scaling.type", &format!("files with both {} and {}", FACTORS[0], FACTORS[1]))
        );
    };
    Ok(json!({
        "rope_type": "longrope",
        "short_factor": short,
        "long_factor": long,
        "original_max_position_embeddings": original_context(metadata)?,
        "attention_factor": attention_factor(metadata)?,
    }))
}

fn yarn(metadata: &Metadata<'_>) -> Result<Value, ConfigError> {
    let number = |name: &str| metadata.opt_number(&format!("rope.scaling.yarn_{name}"));
    // The part of the frequencies above the bounds that is kept; negative if it is not said.
    if number("ext_factor")?.is_some_and(|part| part >= 0.0 && part != 1.0) {
        return Err(metadata.unsupported("rope.scaling.yarn_ext_factor", "1.0"));
    }
    let factor = factor(metadata)?;
    let of_context = match (number("log_multiplier")?.filter(|all| *all != 0.0), number("attn_factor")?) {
        (Some(all), _) => yarn_attention_factor(factor, 1.0) / yarn_attention_factor(factor, all),
        (None, Some(said)) => said,
        (None, None) => yarn_attention_factor(factor, 1.0),
    };
    Ok(json!({
        "rope_type": "yarn",
        "factor": factor,
        "original_max_position_embeddings": original_context(metadata)?,
        "attention_factor": of_context * attention_factor(metadata)?,
        "beta_fast": number("beta_fast")?.unwrap_or(32.0),
        "beta_slow": number("beta_slow")?.unwrap_or(1.0),
    }))
}
