//! Rotary embeddings: `rope_parameters` of transformers 5, or `rope_theta` with `rope_scaling` of earlier versions.

use super::Conventions;
use crate::config_error::ConfigError;
use crate::fields::Fields;
use crate::rope::{Rope, RopeScaling, longrope_attention_factor, yarn_attention_factor};

/// Rotary embeddings of a model.
pub(in crate::families) struct Ropes {
    /// The embedding of all layers; or that of full attention, then that of sliding attention.
    pub(in crate::families) ropes: Vec<Rope>,
    /// Whether there is one for each type of layer.
    pub(in crate::families) by_type: bool,
}

/// Types of layers that `rope_parameters` may have an object each for.
const TYPES: [&str; 2] = ["full_attention", "sliding_attention"];

/// Reads the rotary embeddings of a model with heads of `head_dim`.
pub(in crate::families) fn ropes(
    fields: &Fields<'_>,
    conventions: &Conventions,
    head_dim: usize,
) -> Result<Ropes, ConfigError> {
    let parameters = match fields.opt_object("rope_parameters")? {
        Some(parameters) => Some(parameters),
        None => fields.opt_object("rope_scaling")?,
    };
    let read = |parameters: &Fields<'_>| rope(fields, parameters, conventions, head_dim);
    match &parameters {
        Some(parameters) if TYPES.iter().any(|kind| parameters.has(kind)) => {
            let mut ropes = Vec::new();
            for kind in TYPES {
                let parameters = parameters.opt_object(kind)?.ok_or_else(|| parameters.missing(kind))?;
                ropes.push(read(&parameters)?);
            }
            Ok(Ropes { ropes, by_type: true })
        }
        Some(parameters) => Ok(Ropes { ropes: vec![read(parameters)?], by_type: false }),
        None => Ok(Ropes { ropes: vec![read(fields)?], by_type: false }),
    }
}

fn rope(
    fields: &Fields<'_>,
    parameters: &Fields<'_>,
    conventions: &Conventions,
    head_dim: usize,
) -> Result<Rope, ConfigError> {
    // Fields of the object, or, in older files, of the root.
    let number = |key: &str| Ok::<_, ConfigError>(parameters.opt_number(key)?.or(fields.opt_number(key)?));
    let theta = number("rope_theta")?.unwrap_or(conventions.rope_theta) as f32;
    let partial = number("partial_rotary_factor")?.unwrap_or(conventions.partial_rotary_factor);
    if !(partial > 0.0 && partial <= 1.0) {
        let at = if parameters.has("partial_rotary_factor") { parameters } else { fields };
        return Err(at.wrong("partial_rotary_factor", "a number above 0, and 1 at most"));
    }
    let mut rope = Rope::new(theta, head_dim);
    let key = if parameters.has("rope_type") { "rope_type" } else { "type" };
    let kind = parameters.opt_text(key)?.unwrap_or("default");
    if kind == "proportional" {
        rope.scaling = RopeScaling::Proportional((partial * head_dim as f64 / 2.0) as usize);
        return Ok(rope);
    }
    rope.dim = (head_dim as f64 * partial) as usize;
    let original = || -> Result<Option<usize>, ConfigError> {
        let key = "original_max_position_embeddings";
        Ok(parameters.opt_size(key)?.or(fields.opt_size(key)?))
    };
    // Longer contexts than the trained one, where no factor is given.
    let factor = |original: usize| -> Result<f64, ConfigError> {
        Ok(match parameters.opt_number("factor")? {
            Some(factor) => factor,
            None => fields.size("max_position_embeddings")? as f64 / original.max(1) as f64,
        })
    };
    let mut attention_factor = parameters.opt_number("attention_factor")?;
    match kind {
        // Dynamic NTK changes nothing within the trained context, and no longer one is served.
        "default" | "dynamic" => attention_factor = None,
        "linear" => {
            attention_factor = None;
            rope.scaling = RopeScaling::Linear(parameters.number("factor")? as f32);
        }
        "llama3" => {
            attention_factor = None;
            rope.scaling = RopeScaling::Llama3 {
                factor: parameters.number("factor")? as f32,
                low_freq_factor: parameters.number("low_freq_factor")? as f32,
                high_freq_factor: parameters.number("high_freq_factor")? as f32,
                original_context: parameters.size("original_max_position_embeddings")?,
            };
        }
        "yarn" => {
            let original_context = match original()? {
                Some(context) => context,
                None => fields.size("max_position_embeddings")?,
            };
            let factor = factor(original_context)?;
            (rope.scaling, attention_factor) = yarn(parameters, factor, original_context, attention_factor)?;
        }
        // The second name is that of the first Phi-3 files.
        "longrope" | "su" => {
            let original_context = original()?.ok_or_else(|| parameters.missing("original_max_position_embeddings"))?;
            let longer = longrope_attention_factor(factor(original_context)?, original_context);
            attention_factor = attention_factor.or(Some(longer));
            let factors = |key: &str| -> Result<Vec<f32>, ConfigError> {
                Ok(parameters.numbers(key)?.into_iter().map(|factor| factor as f32).collect())
            };
            rope.scaling = RopeScaling::LongRope {
                short: factors("short_factor")?,
                long: factors("long_factor")?,
                original_context,
            };
        }
        _ => {
            let known = "default, linear, dynamic, llama3, yarn, longrope, proportional";
            return Err(parameters.unsupported(key, known));
        }
    }
    rope.attention_factor = attention_factor.unwrap_or(1.0) as f32;
    Ok(rope)
}

/// YaRN's scaling, and the attention factor where none is given.
fn yarn(
    parameters: &Fields<'_>,
    factor: f64,
    original_context: usize,
    attention_factor: Option<f64>,
) -> Result<(RopeScaling, Option<f64>), ConfigError> {
    let (scale, scale_all) = (parameters.opt_number("mscale")?, parameters.opt_number("mscale_all_dim")?);
    let derived = match (scale, scale_all) {
        (Some(scale), Some(all)) if scale != 0.0 && all != 0.0 => {
            yarn_attention_factor(factor, scale) / yarn_attention_factor(factor, all)
        }
        _ => yarn_attention_factor(factor, 1.0),
    };
    let scaling = RopeScaling::Yarn {
        factor: factor as f32,
        beta_fast: parameters.opt_number("beta_fast")?.unwrap_or(32.0) as f32,
        beta_slow: parameters.opt_number("beta_slow")?.unwrap_or(1.0) as f32,
        truncate: parameters.opt_flag("truncate")?.unwrap_or(true),
        original_context,
    };
    Ok((scaling, Some(attention_factor.unwrap_or(derived))))
}
