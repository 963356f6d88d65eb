//! Granite 3: Llama's layers with factors of embeddings, scores, residuals and logits.

use super::FamilyReader;
use super::changes::number;
use super::gguf::{Config, GgufReader, Metadata};
use super::{hugging_face, llama};
use crate::architecture::Architecture;
use crate::config_error::ConfigError;
use crate::fields::Fields;

pub(super) const READER: FamilyReader = FamilyReader { model_types: &["granite"], from_hugging_face };
pub(super) const GGUF: GgufReader = GgufReader {
    pairs: true,
    keys: &["attention.scale", "embedding_scale", "logit_scale", "residual_scale"],
    translate,
    ..GgufReader::new("granite", "granite")
};

fn from_hugging_face(fields: &Fields<'_>) -> Result<Architecture, ConfigError> {
    let mut architecture = llama::from_hugging_face(fields)?;
    architecture.embedding_scale = number(fields, "embedding_multiplier", 1.0)?;
    architecture.head.scale = 1.0 / hugging_face::positive(fields, "logits_scaling", 1.0)?;
    let (scale, residual) = (number(fields, "attention_multiplier", 1.0)?, number(fields, "residual_multiplier", 1.0)?);
    architecture.each_attention(|_, attention| attention.scale = scale);
    architecture.each(|_, layer| layer.residual_scale = residual);
    Ok(architecture)
}

fn translate(metadata: &Metadata<'_>, config: &mut Config) -> Result<(), ConfigError> {
    // Here it is the switch of the rotation.
    if metadata.get("rope.scaling.finetuned").is_some_and(|value| *value == false) {
        return Err(metadata.unsupported("rope.scaling.finetuned", "true: layers with rotation"));
    }
    let scale = match metadata.nonzero("attention.scale")? {
        Some(scale) => scale,
        None => (metadata.head_dim()? as f64).sqrt().recip(),
    };
    config.insert("attention_multiplier".to_owned(), scale.into());
    for (key, field) in [("embedding_scale", "embedding_multiplier"), ("residual_scale", "residual_multiplier")] {
        config.insert(field.to_owned(), metadata.nonzero(key)?.unwrap_or(1.0).into());
    }
    config.insert("logits_scaling".to_owned(), metadata.number("logit_scale")?.into());
    Ok(())
}
