//! Granite 3: Llama's layers with factors of embeddings, scores, residuals and logits.

use super::FamilyReader;
use super::changes::number;
use super::{hugging_face, llama};
use crate::architecture::Architecture;
use crate::config_error::ConfigError;
use crate::fields::Fields;

pub(super) const READER: FamilyReader = FamilyReader { model_types: &["granite"], from_hugging_face };

fn from_hugging_face(fields: &Fields<'_>) -> Result<Architecture, ConfigError> {
    let mut architecture = llama::from_hugging_face(fields)?;
    architecture.embedding_scale = number(fields, "embedding_multiplier", 1.0)?;
    architecture.head.scale = 1.0 / hugging_face::positive(fields, "logits_scaling", 1.0)?;
    let (scale, residual) = (number(fields, "attention_multiplier", 1.0)?, number(fields, "residual_multiplier", 1.0)?);
    architecture.each(|_, layer| {
        layer.attention.scale = scale;
        layer.residual_scale = residual;
    });
    Ok(architecture)
}
