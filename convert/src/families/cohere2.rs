//! Command R7B (Cohere 2): layer norms without bias, attention beside the feed-forward block, neighbours rotated in layers
//! with a window only, scaled logits.

use super::FamilyReader;
use super::changes::{flag, number};
use super::gguf::{Config, GgufReader, Metadata, Windows};
use super::hugging_face::{Conventions, LLAMA, decoder};
use crate::architecture::{Architecture, NormKind};
use crate::config_error::ConfigError;
use crate::fields::Fields;

const COHERE: Conventions =
    Conventions { epsilon: ("layer_norm_eps", 1e-5), tied: true, norm: NormKind::Layer { bias: false }, ..LLAMA };

pub(super) const READER: FamilyReader = FamilyReader { model_types: &["cohere2"], from_hugging_face };
pub(super) const GGUF: GgufReader = GgufReader {
    layer_norm: true,
    windows: Windows::AllBut(4),
    keys: &["logit_scale"],
    translate,
    ..GgufReader::new("cohere2", "cohere2")
};

fn from_hugging_face(fields: &Fields<'_>) -> Result<Architecture, ConfigError> {
    let mut architecture = decoder(fields, &COHERE)?;
    let bias = flag(fields, "attention_bias", false)?;
    architecture.biases(bias, bias, false);
    architecture.parallel();
    if let (false, Some(window)) = (fields.has("layer_types"), fields.opt_size("sliding_window")?) {
        let pattern = fields.opt_size("sliding_window_pattern")?.unwrap_or(4);
        let slides = move |index: usize| !(index + 1).is_multiple_of(pattern);
        architecture.each_attention(|index, attention| attention.window = Some(window).filter(|_| slides(index)));
    }
    architecture.rope_in_windows_only();
    architecture.interleaved();
    architecture.head.scale = number(fields, "logit_scale", 0.0625)?;
    Ok(architecture)
}

fn translate(metadata: &Metadata<'_>, config: &mut Config) -> Result<(), ConfigError> {
    metadata.size("attention.sliding_window")?;
    config.insert("logit_scale".to_owned(), metadata.number("logit_scale")?.into());
    Ok(())
}
