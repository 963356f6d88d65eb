//! EXAONE 4: norms after each block instead of before, norms of queries and keys, and, in models with windows, rotation in
//! windows only.

use super::FamilyReader;
use super::gguf::{Config, GgufReader, Metadata, Windows};
use super::hugging_face::{Conventions, LLAMA, decoder};
use crate::architecture::{Architecture, Name, QkSpan};
use crate::config_error::ConfigError;
use crate::fields::Fields;

const EXAONE: Conventions = Conventions { epsilon: ("rms_norm_eps", 1e-5), ..LLAMA };
const LAYERS_OF_32B: usize = 64;

pub(super) const READER: FamilyReader = FamilyReader { model_types: &["exaone4"], from_hugging_face };
pub(super) const GGUF: GgufReader =
    GgufReader { windows: Windows::AllBut(4), translate, ..GgufReader::new("exaone4", "exaone4") };

fn from_hugging_face(fields: &Fields<'_>) -> Result<Architecture, ConfigError> {
    let mut architecture = decoder(fields, &EXAONE)?;
    architecture.norms(
        [None, Some(Name::new("post_attention_layernorm", "post_attention_norm"))],
        [None, Some(Name::new("post_feedforward_layernorm", "post_ffw_norm"))],
    );
    architecture.qk_norms(["self_attn.q_norm", "self_attn.k_norm"], QkSpan::Head, false);
    let window = fields.opt_size("sliding_window")?;
    if let (false, Some(pattern)) = (fields.has("layer_types"), fields.opt_size("sliding_window_pattern")?) {
        let slides = move |index: usize| !(index + 1).is_multiple_of(pattern);
        architecture.each_attention(|index, attention| attention.window = window.filter(|_| slides(index)));
    }
    if window.is_some() {
        architecture.rope_in_windows_only();
    }
    Ok(architecture)
}

/// The 32B model, known by its layers, has windows even where nothing is said of them.
fn translate(metadata: &Metadata<'_>, config: &mut Config) -> Result<(), ConfigError> {
    if metadata.size("block_count")? == LAYERS_OF_32B && metadata.get("attention.sliding_window").is_none() {
        config.remove("layer_types");
        config.insert("sliding_window".to_owned(), 4096.into());
        config.insert("sliding_window_pattern".to_owned(), 4.into());
    }
    Ok(())
}
