//! Which layers attend to a sliding window.

use crate::config_error::ConfigError;
use crate::fields::Fields;

/// Types of layers: `layer_types` with `sliding_window`.
pub(in crate::families) struct LayerTypes {
    sliding: Vec<bool>,
    window: Option<usize>,
}

impl LayerTypes {
    /// Whether layer `index` attends to a sliding window.
    pub(in crate::families) fn is_sliding(&self, index: usize) -> bool {
        self.sliding.get(index).copied().unwrap_or(false)
    }

    /// The sliding window of layer `index`.
    pub(in crate::families) fn window(&self, index: usize) -> Option<usize> {
        self.window.filter(|_| self.is_sliding(index))
    }
}

/// Reads `layer_types`; without it, no layer has a window. `other` is a type of layers that are no attention.
pub(in crate::families) fn layer_types(
    fields: &Fields<'_>,
    layers: usize,
    other: Option<&str>,
) -> Result<LayerTypes, ConfigError> {
    let window = fields.opt_size("sliding_window")?;
    let Some(types) = fields.opt_texts("layer_types")? else { return Ok(LayerTypes { sliding: Vec::new(), window }) };
    if types.len() < layers {
        return Err(fields.wrong("layer_types", &format!("one type for each of {layers} layers")));
    }
    let sliding = types.iter().take(layers).map(|kind| match *kind {
        "sliding_attention" => Ok(true),
        "full_attention" => Ok(false),
        kind if Some(kind) == other => Ok(false),
        _ => {
            let known = ["full_attention", "sliding_attention"].into_iter().chain(other).collect::<Vec<_>>();
            Err(fields.unsupported("layer_types", &known.join(", ")))
        }
    });
    let types = LayerTypes { sliding: sliding.collect::<Result<_, _>>()?, window };
    if window.is_none() && types.sliding.contains(&true) {
        return Err(fields.missing("sliding_window"));
    }
    Ok(types)
}
