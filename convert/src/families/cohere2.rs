//! Command R7B (Cohere 2): layer norms without bias, attention beside the feed-forward block, neighbours rotated in layers
//! with a window only, scaled logits.

use super::FamilyReader;
use super::changes::{flag, number};
use super::hugging_face::{Conventions, LLAMA, decoder};
use crate::architecture::{Architecture, NormKind};
use crate::config_error::ConfigError;
use crate::fields::Fields;

const COHERE: Conventions =
    Conventions { epsilon: ("layer_norm_eps", 1e-5), tied: true, norm: NormKind::Layer { bias: false }, ..LLAMA };

pub(super) const READER: FamilyReader = FamilyReader { model_types: &["cohere2"], from_hugging_face };

fn from_hugging_face(fields: &Fields<'_>) -> Result<Architecture, ConfigError> {
    let mut architecture = decoder(fields, &COHERE)?;
    let bias = flag(fields, "attention_bias", false)?;
    architecture.biases(bias, bias, false);
    architecture.parallel();
    if let (false, Some(window)) = (fields.has("layer_types"), fields.opt_size("sliding_window")?) {
        let pattern = fields.opt_size("sliding_window_pattern")?.unwrap_or(4);
        let slides = move |index: usize| pattern == 0 || (index + 1) % pattern != 0;
        architecture.each(|index, layer| layer.attention.window = Some(window).filter(|_| slides(index)));
    }
    architecture.rope_in_windows_only();
    architecture.interleaved();
    architecture.head.scale = number(fields, "logit_scale", 0.0625)?;
    Ok(architecture)
}
