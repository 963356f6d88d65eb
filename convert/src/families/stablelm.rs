//! StableLM: layer norms, a quarter of a head rotated, attention beside the feed-forward block in some models.

use super::FamilyReader;
use super::changes::flag;
use super::gguf::{Config, GgufReader, Metadata};
use super::hugging_face::{Conventions, LLAMA, decoder};
use crate::architecture::{Architecture, NormKind};
use crate::config_error::ConfigError;
use crate::fields::Fields;

const STABLELM: Conventions = Conventions {
    epsilon: ("layer_norm_eps", 1e-5),
    partial_rotary_factor: 0.25,
    norm: NormKind::Layer { bias: true },
    ..LLAMA
};

pub(super) const READER: FamilyReader = FamilyReader { model_types: &["stablelm"], from_hugging_face };
pub(super) const GGUF: GgufReader = GgufReader {
    layer_norm: true,
    keys: &["use_parallel_residual"],
    translate,
    ..GgufReader::new("stablelm", "stablelm")
};

fn from_hugging_face(fields: &Fields<'_>) -> Result<Architecture, ConfigError> {
    fields.only_flag("qk_layernorm", false)?;
    let mut architecture = decoder(fields, &STABLELM)?;
    architecture.biases(flag(fields, "use_qkv_bias", false)?, false, false);
    if flag(fields, "use_parallel_residual", false)? {
        architecture.parallel();
    }
    Ok(architecture)
}

/// Blocks side by side share one norm.
fn translate(metadata: &Metadata<'_>, config: &mut Config) -> Result<(), ConfigError> {
    let parallel = !metadata.has_tensor("blk.0.ffn_norm.weight");
    config.insert("use_parallel_residual".to_owned(), parallel.into());
    Ok(())
}
